"""How far half precision is from float32: the shipped segmenters on real or made-up scans."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import spad
import spad.device
from spad.checkpoints import zoo
from spad.device import choose, computes_bfloat16
from spad.inference.enlarge import Enlarger
from spad.inference.segment import segment
from spad.phantoms import phantom


def main() -> None:
    """Segment each scan in both precisions and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", type=Path, help="default: a CT and an MR phantom")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args()
    place = choose(options.device)
    if not computes_bfloat16(place):
        print(f"This {place.type} does not compute bfloat16: models run in float32 there.")
        return
    scans = {path.name: spad.read(path) for path in options.scans} or {
        kind: phantom(5, kind, spacing=(4.0, 2.0, 2.0), shape=(60, 160, 160)).image
        for kind in ("CT", "MR")
    }
    print("| model | scan | largest difference of a probability | voxels with another label |")
    print("|---|---|---|---|")
    for entry in zoo.models():
        if entry.kind != "segmenter":
            continue
        for name, scan in scans.items():
            half, whole = (
                segmented(scan, entry.name, options.device, exact) for exact in (False, True)
            )
            largest = float((half[0] - whole[0]).abs().max())
            other = float(np.mean(half[1] != whole[1]))
            print(f"| {entry.name} | {name} | {largest:.3f} | {100 * other:.4f} % |")


def segmented(scan: Any, model: str, device: str, exact: bool) -> tuple[torch.Tensor, np.ndarray]:
    """Give probabilities on the working grid and labels on the scan's."""
    kept: list[torch.Tensor] = []
    add = Enlarger.add

    def keep(self: Enlarger, slab: torch.Tensor, corner: Any) -> None:
        kept.append(slab.cpu().clone())
        add(self, slab, corner)

    def never(place: torch.device) -> bool:
        return False

    half = mock.patch.object(spad.device, "computes_bfloat16", never)
    with mock.patch.object(Enlarger, "add", keep), half if exact else nullcontext():
        found = segment(scan, model, device=device)
    return torch.cat(kept, dim=1), np.asarray(found.array)


if __name__ == "__main__":
    main()
