"""Latency of clicks, from request to answer in this process, and memory of the kept features.

    python benchmarks/clicks.py SCAN LABELS [--label liver ...] [--size 300x512x512] [--out JSON]

For each label: the first click (deepest voxel of its largest piece) and the next ones, where the
robot user would click. The first answer is what is shown at first; where the object is large a
finer one follows. Figures are of one run on an otherwise idle machine; compare them within it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

import spad
from spad.cli.tables import table
from spad.data.simulated_user import next_click
from spad.inference.click_scans import OpenScan, open_scan
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt, point
from spad.prompts.session import merged
from spad.volumes.volume import Volume


def resampled(volume: Volume, size: tuple[int, int, int] | None) -> Volume:
    """Bring a scan or labels to a size (z, y, x) with the same outer edges, by nearest voxels."""
    if size is None:
        return volume
    ratio = np.array(volume.array.shape) / np.array(size)
    index = np.ix_(
        *(
            np.minimum(((np.arange(n) + 0.5) * r).astype(int), old - 1)
            for n, r, old in zip(size, ratio, volume.array.shape, strict=True)
        )
    )
    affine = volume.affine @ np.diag([*ratio, 1.0])
    affine[:3, 3] += volume.affine[:3, :3] @ ((ratio - 1) / 2)
    return Volume.from_array(
        np.ascontiguousarray(volume.array[index]),
        affine,
        label_names=volume.label_names,
        modality_hint=volume.modality,
        slope=volume.slope,
        intercept=volume.intercept,
    )


def clicked(
    scan: OpenScan, wanted: np.ndarray, spacing: tuple[float, ...], name: str, clicks: int
) -> list[dict[str, float]]:
    """Click one object and take the times."""
    prompts: list[Prompt] = []
    current: Part | None = None
    rows = []
    for _ in range(clicks):
        found = np.zeros(wanted.shape, bool)
        if current is not None:
            found[current.region] = current.mask
        where = ndimage.find_objects((wanted | found).astype(np.uint8))[0]
        click = next_click(wanted[where], found[where], spacing)
        if click is None:
            break
        voxel = [v + one.start for v, one in zip(click[0], where, strict=True)]
        prompts.append(point(voxel, click[1]))
        shown: list[float] = []
        begun = time.perf_counter()

        def show(part: Part, shown: list[float] = shown, begun: float = begun) -> None:
            shown.append(time.perf_counter() - begun)

        answer = scan.click(prompts, current, name, features=True, organs=True, show=show)
        whole = time.perf_counter() - begun
        current = merged(current, answer)
        rows.append({"first": shown[0] if shown else whole, "whole": whole})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--size", help="slices x rows x columns, such as 300x512x512")
    parser.add_argument("--clicks", type=int, default=4)
    parser.add_argument("--model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = None
    if options.size:
        z, y, x = (int(n) for n in options.size.split("x"))
        size = (z, y, x)
    volume = resampled(spad.read(options.scan), size)
    truth = resampled(spad.read(options.labels), size)
    began = time.perf_counter()
    scan = open_scan(volume, options.model, None, options.device, 0)
    opened = time.perf_counter() - began
    middle = tuple(n // 2 for n in volume.array.shape)
    began = time.perf_counter()
    scan.click([point(middle)], None, None, features=True, organs=True)
    early = time.perf_counter() - began
    report = scan.encode((0.5, 0.5, 0.5), options.device, lambda fraction, text: None)
    scan.click([point(middle)], None, None, features=True, organs=True)
    names = truth.label_names or {}
    rows: list[list[str]] = []
    times: dict[str, list[float]] = {"first": [], "whole": []}
    per_label: dict[str, Any] = {}
    for label, name in names.items():
        wanted = np.asarray(truth.array == label)
        if (options.label and name not in options.label) or not wanted.any():
            continue
        found = clicked(scan, wanted, volume.spacing, name, options.clicks)
        per_label[name] = found
        for key, values in times.items():
            values += [row[key] for row in found]
        rest = [row["whole"] for row in found[1:]] or [float("nan")]
        cells = (found[0]["first"], found[0]["whole"], float(np.median(rest)))
        rows.append([name, *(f"{value:.2f}" for value in cells)])
    summary = {
        f"{key}_{p}": float(np.percentile(values, p))
        for key, values in times.items()
        for p in (50, 95)
    }
    megabytes = volume.array.nbytes / 1e6
    found_report = {
        "device": str(scan.model.place),
        "threads": torch.get_num_threads(),
        "shape": list(volume.array.shape),
        "scan_mb": megabytes,
        "open_seconds": opened,
        "click_before_features_seconds": early,
        "encode_seconds": report["seconds"],
        "features_mb": report["features_mb"],
        "features_mb_per_100_mb": 100 * report["features_mb"] / megabytes,
        **summary,
        "labels": per_label,
    }
    print(table(["label", "first click shown", "first click", "next clicks"], rows))
    print(json.dumps({k: v for k, v in found_report.items() if k != "labels"}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found_report, indent=1))


if __name__ == "__main__":
    main()
