"""Time label figures: `spad evaluate`'s against MONAI's functions, one after the other.

Both start from two label arrays in memory and give Dice, ASSD, HD, HD95 and NSD at 1 and 3 mm of
every label. MONAI gets one-hot tensors (made before the clock starts) and its `spacing` argument.
Without files, the pair is a phantom of 13 organs on 256 x 256 x 150 voxels and the same labels
displaced smoothly by some millimetres.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy.ndimage import gaussian_filter, map_coordinates

from spad.cli.tables import table
from spad.evaluation.metrics import evaluate
from spad.phantoms import phantom
from spad.volumes.files import read
from spad.volumes.volume import Volume

SHAPE, SPACING = (150, 256, 256), (3.0, 1.5, 1.5)
_SEED, _SMOOTH_MM, _DISPLACED_MM = 7, 25.0, 1.5


def monai_functions(spacing: tuple[float, ...], count: int) -> dict[str, Callable[..., Any]]:
    """Figure -> MONAI's function of two one-hot tensors (1, labels, z, y, x)."""
    options: dict[str, Any] = {"include_background": True, "spacing": spacing}

    def surface_dice(limit: float) -> Callable[..., Any]:
        limits = [limit] * count
        return lambda a, b: compute_surface_dice(a, b, limits, use_subvoxels=False, **options)

    return {
        "dice": lambda a, b: compute_dice(a, b, include_background=True),
        "assd": lambda a, b: compute_average_surface_distance(a, b, symmetric=True, **options),
        "hd": lambda a, b: compute_hausdorff_distance(a, b, **options),
        "hd95": lambda a, b: compute_hausdorff_distance(a, b, percentile=95, **options),
        "nsd_1mm": surface_dice(1.0),
        "nsd_3mm": surface_dice(3.0),
    }


def displaced(labels: Volume) -> Volume:
    """Give labels moved smoothly, by about `_DISPLACED_MM` along each axis; always the same way."""
    rng = np.random.default_rng(_SEED)
    places = []
    for axis, (size, step) in enumerate(zip(labels.array.shape, labels.spacing, strict=True)):
        field = rng.normal(size=labels.array.shape).astype(np.float32)
        field = gaussian_filter(field, [_SMOOTH_MM / mm for mm in labels.spacing], mode="wrap")
        lengths = np.ones(3, int)
        lengths[axis] = size
        voxels = np.arange(size, dtype=np.float32).reshape(lengths)
        places.append(voxels + field * np.float32(_DISPLACED_MM / step / field.std()))
    moved = map_coordinates(labels.array, places, order=0, mode="nearest")
    return labels.with_array(moved, label_names=labels.label_names)


def compare(prediction: Volume, reference: Volume, runs: int) -> None:
    """Measure and print: seconds of each, the ratio and the largest difference."""
    ours, found = best(runs, lambda: evaluate(prediction, reference))
    ids = [int(value) for value in np.union1d(prediction.array, reference.array) if value]
    a, b = (
        torch.from_numpy(np.stack([volume.array == value for value in ids]))[None]
        for volume in (prediction, reference)
    )
    names = reference.label_names or {}
    rows, seconds, largest = [], 0.0, 0.0
    for figure, function in monai_functions(reference.spacing, len(ids)).items():
        taken, theirs = best(1, partial(function, a, b))
        pairs = zip(ids, theirs[0].tolist(), strict=True)
        both = [(found["labels"][names.get(n, str(n))][figure], value) for n, value in pairs]
        difference = max(abs(mine - value) for mine, value in both if mine is not None)
        seconds, largest = seconds + taken, max(largest, difference)
        rows.append([figure, f"{taken:.2f}", f"{difference:.1e}"])
    print(table(["figure", "MONAI s", "largest difference"], rows))
    print(
        f"{len(ids)} labels, mean Dice {found['mean']['dice']:.3f}: ours {ours:.2f} s "
        f"(all figures), MONAI {seconds:.2f} s, ratio {seconds / ours:.1f}, "
        f"largest difference {largest:.1e}"
    )


def best(runs: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """Give the seconds of the fastest run, and its result."""
    least, result = float("inf"), None
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - start)
    return least, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prediction", type=Path, help="labels (default: a phantom's, displaced)")
    parser.add_argument("--reference", type=Path, help="labels on the same grid")
    parser.add_argument("--runs", type=int, default=3, help="of ours; the best counts (default: 3)")
    options = parser.parse_args()
    if (options.prediction is None) != (options.reference is None):
        parser.error("give both --prediction and --reference, or none")
    if options.reference:
        prediction, reference = (
            read(path, labels=True) for path in (options.prediction, options.reference)
        )
    else:
        reference = phantom(_SEED, "CT", SPACING, SHAPE).labels
        prediction = displaced(reference)
    shape, steps = reference.array.shape, reference.spacing
    print(
        f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{mm:g}' for mm in steps)} mm; "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    warnings.simplefilter("ignore", FutureWarning)  # MONAI's about its own arguments
    compare(prediction, reference, options.runs)


if __name__ == "__main__":
    main()
