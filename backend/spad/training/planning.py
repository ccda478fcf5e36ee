"""Choices that the scans, or a model to go on with, make: spacing, crop and range of CT values.

They are written into the resolved recipe, where a person sees and changes them. What is chosen, and
by which statistics of the training scans, follows nnU-Net (Isensee et al. 2021, "fingerprint").
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from spad.data.cases import channel_names
from spad.data.cohort import Contract, Prepared, model_contracts
from spad.data.folder import Folder
from spad.data.reading import prepare
from spad.data.store import Store
from spad.models.sac import level_factors
from spad.progress import Progress, silent
from spad.training.inherit import inherited
from spad.training.recipe import Recipe

MOST_SCANS = 12
"""Scans of each source that are looked at, spread evenly over it."""
WINDOWS_ACROSS = 1.5
"""In-plane windows that a scan of median size is wide, where its own spacing allows."""
_SAMPLE = 20_000


def planned(
    recipe: Recipe, sources: Sequence[Folder | Store], progress: Progress = silent
) -> Recipe:
    """Fill in what `data.plan` leaves to the scans; any other recipe as it is.

    A run that starts from a segmenter goes on with its network and grid, see `inherited`; else:

    - `data.in_plane_mm`: the scans' median in-plane spacing, or coarser, up to the preset's, so
      that a scan is not much wider than a window.
    - `data.window`: the preset's, cut down to scans of median size.
    - `data.ct_range`: widened until it holds percentiles 5 to 95 of the labelled voxels (with
      0.5 to 99.5, as nnU-Net has it, gas in the stomach would cost soft tissue its contrast).

    In both cases `data.found` tells the statistics of the scans, and their labels.

    Raises:
        SpadError: see `spad.data.reading.prepare`, or there is no model to start from.
    """
    if not recipe.data.plan:
        return recipe
    some = [_some(source) for source in sources]
    cohort = prepare(
        some,
        Contract(model_contracts(recipe.data.ct_range), None),
        with_labels=recipe.task == "segmentation",
        progress=progress,
    )
    scans = cohort.part(validation=False)
    spacing = np.median([scan.spacing for scan in scans], axis=0)
    extent = np.median([np.multiply(s.spacing, s.image.shape[-3:]) for s in scans], axis=0)
    chosen = inherited(recipe) or _chosen(recipe, scans, spacing, extent)
    found = _found(scans, spacing, extent, cohort.label_names)
    return dataclasses.replace(
        chosen, data=dataclasses.replace(chosen.data, plan=False, found=found)
    )


def with_channels(recipe: Recipe, sources: Sequence[Folder | Store]) -> Recipe:
    """Give a segmenter as many input channels as the scans have, where they have several."""
    counts = [len(channel_names(source)) for source in sources if isinstance(source, Folder)]
    if recipe.task != "segmentation" or max(counts, default=0) < 2:
        return recipe
    return dataclasses.replace(recipe, model=recipe.model | {"in_channels": max(counts)})


def _some(source: Folder | Store) -> Folder | Store:
    """Keep a few training scans of a source."""
    if isinstance(source, Store):
        rows = [row for row in source.rows if row.part == "train" and row.labels]
        return dataclasses.replace(source, rows=tuple(_spread(rows)))
    cases = [case for case in source.cases if case.labels is not None and not case.validation]
    return dataclasses.replace(source, cases=tuple(_spread(cases)))


def _spread(items: list[Any]) -> list[Any]:
    step = max(1.0, len(items) / MOST_SCANS)
    return [items[int(step * i)] for i in range(min(len(items), MOST_SCANS))]


def _chosen(
    recipe: Recipe, scans: Sequence[Prepared], spacing: np.ndarray, extent: np.ndarray
) -> Recipe:
    in_plane = _in_plane(recipe, float(spacing[1:].min()), float(extent[1:].max()))
    data = dataclasses.replace(
        recipe.data,
        in_plane_mm=in_plane,
        window=_window(recipe.data.window, extent / in_plane),
        ct_range=_ct_range(recipe.data.ct_range, scans),
    )
    return dataclasses.replace(recipe, data=data)


def _in_plane(recipe: Recipe, own: float, extent: float) -> float:
    coarsest = recipe.data.in_plane_mm or own
    across = extent / (WINDOWS_ACROSS * max(recipe.data.window[1:]))
    return round(max(own, min(coarsest, across)), 2)


def _window(window: Sequence[int], voxels: np.ndarray) -> list[int]:
    """Give a window of whole coarsest cells that is no larger than a scan needs."""
    cells = level_factors(5, 0)
    return [
        int(min(side, -(-int(np.ceil(n - 1e-3)) // cell) * cell))
        for side, n, cell in zip(window, voxels, cells, strict=True)
    ]


def _ct_range(ct_range: Sequence[float], scans: Sequence[Prepared]) -> list[float]:
    samples = []
    for scan in scans:
        if scan.span is None or scan.labels is None:
            continue
        image = scan.image[:, :, :, :]
        values = torch.as_tensor(image)[0][scan.labels > 0]
        if len(values):
            samples.append(values[:: max(1, len(values) // _SAMPLE)].float().numpy())
    if not samples:
        return list(ct_range)
    low, high = np.percentile(np.concatenate(samples), (5, 95))
    return [float(min(ct_range[0], np.floor(low))), float(max(ct_range[1], np.ceil(high)))]


def _found(
    scans: Sequence[Prepared], spacing: np.ndarray, extent: np.ndarray, names: dict[int, str]
) -> dict[str, Any]:
    occurring = Counter(label for scan in scans for label in scan.centres)
    return {
        "scans_looked_at": len(scans),
        "modalities": dict(Counter(scan.modality or "unknown" for scan in scans)),
        "median_spacing_mm": [round(float(s), 3) for s in spacing],
        "median_extent_mm": [round(float(e), 1) for e in extent],
        "degrees_of_anisotropy": dict(Counter(scan.da for scan in scans)),
        "scans_with_label": {name: occurring[number] for number, name in names.items()},
    }
