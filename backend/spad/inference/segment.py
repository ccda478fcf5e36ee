"""Organs: a scan to labels on its own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from spad.checkpoints import zoo
from spad.checkpoints.card import Card
from spad.data.model_input import UnitVolume, in_unit, one_phase, refuse_labels, unit_volume
from spad.device import Effort, PeakMemory, choose, inference, stepping_down
from spad.errors import SpadError
from spad.inference.body import body_box
from spad.inference.enlarge import likeliest
from spad.inference.models import chosen, loaded, parameters_device
from spad.inference.pieces import keep_largest
from spad.inference.stages import Stages, share
from spad.inference.windows import Windows
from spad.models.segmenter import Segmenter
from spad.progress import Progress, silent
from spad.volumes.axes import from_canonical
from spad.volumes.volume import Volume

WINDOW = (64, 96, 96)
"""Voxels of a window at `da` 0 where a card states none."""
OVERLAP = 0.5
"""Of a window's side, shared by neighbours."""


def segment(
    volume: Volume,
    model: str | Path | None = None,
    modality: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
) -> Volume:
    """Label the organs of a scan.

    Args:
        volume: the scan.
        model: name or file of a segmenter; None for the default of the modality.
        modality: "CT" or "MR"; None to take what the file or its intensities tell.
        device: "auto", "cpu" or "cuda".
        progress: told at every window; may raise `Cancelled`.
        phase: which time of a 4D scan.

    Returns:
        Labels on the scan's own grid, with `label_names` and the figures of
        `spad segment --report` as `report`.

    Raises:
        SpadError: nothing tells the modality, there is no model for it, or the scan has no finite
            voxel.
    """
    stages = Stages()
    place = choose(device)
    refuse_labels(volume)
    entry, modality, why = _model_for(volume, model, modality)
    with PeakMemory(place) as memory:
        progress(0.0, "Preparing the scan")
        with stages.stage("prepare"):
            scan = one_phase(volume, phase)
            unit = unit_volume(scan, entry.card, modality)
            names = entry.card.label_names(modality)
        (probabilities, ids), effort, steps = stepping_down(
            lambda effort: _run(entry, unit, sorted(names), effort, stages, progress),
            place,
            progress,
        )
        with stages.stage("finish"):
            keep_largest(probabilities, ids, entry.card.one_piece)
            full = likeliest(probabilities, ids, unit.frame.full_size, share(progress, 0.85, 0.95))
            array = np.ascontiguousarray(from_canonical(full, scan, depth_first=True))
            progress(0.95, "Measuring")
            measured = _measure(scan, array, names)
    report = {
        "model": entry.name,
        "why_model": why,
        "modality": modality,
        "da": unit.da,
        "device": effort.place.type,
        "stepped_down": steps,
        "seconds": stages.seconds,
        "peak_memory_mb": memory.megabytes,
        "labels": measured,
    }
    progress(1.0, "Done")
    return scan.with_array(array, label_names=names, report=report)


def _model_for(
    volume: Volume, model: str | Path | None, modality: str | None
) -> tuple[zoo.Entry, str, str]:
    """Choose the model; say why in one sentence."""
    stated = modality is not None
    modality = modality or volume.modality
    if modality is None:
        raise SpadError(
            "Neither the file nor the intensities of this scan tell whether it is CT or MR, which "
            "the model must know; state it (--modality CT or --modality MR)."
        )
    entry = chosen("segmenter", model, modality)
    told = {
        "header": "as the scan's header or a person says",
        "file name": "as the file's name says",
        "intensity": "by its intensities",
    }
    how = "as stated" if stated else told[volume.modality_source or "header"]
    why = "was asked for" if model is not None else f"is the default for {modality}"
    return entry, modality, f"The model {entry.name} {why}; the scan is {modality}, {how}."


def _run(
    entry: zoo.Entry,
    unit: UnitVolume,
    labels: list[int],
    effort: Effort,
    stages: Stages,
    progress: Progress,
) -> tuple[torch.Tensor, list[int]]:
    """Load the model and slide it over the body.

    Returns:
        Probabilities (1 + labels, D, H, W) on the working grid, background first, and their ids.
    """
    with stages.stage("load"):
        network, card = loaded(entry, effort.place)
    beyond = [label for label in labels if label >= network.classes]
    if beyond:
        raise SpadError(
            f"The model '{entry.name}' names the label {beyond[0]}, but has {network.classes} "
            "classes with the background; use a complete checkpoint."
        )
    with stages.stage("prepare"):
        box = body_box(unit.array, unit.spacing)
    ids = [0, *labels]
    with stages.stage("model"):
        found = torch.zeros(len(ids), *unit.array.shape)
        found[0] = 1
        inside = found[(slice(None), *box)].zero_()
        _slide(network, card, unit, box, ids, inside, effort, share(progress, 0.05, 0.85))
    return found, ids


def _slide(
    network: Segmenter,
    card: Card,
    unit: UnitVolume,
    box: tuple[slice, slice, slice],
    ids: list[int],
    found: torch.Tensor,
    effort: Effort,
    progress: Progress,
) -> None:
    """Add up the probabilities of overlapping windows, weighted by a Gaussian about their centres.

    Args:
        network: the model, on its device.
        card: its card.
        unit: the scan in [0, 1].
        box: the part of it to look at.
        ids: the classes that count, background first; all others are taken as background.
        found: (ids, D, H, W) zeros of that part, to which the probabilities are added.
        effort: how many windows at once, and how small.
        progress: told at every window.
    """
    place = parameters_device(network)
    image = unit.contract.to_model(unit.array[box])
    side = _window(card, network.factors(unit.da), unit.da, effort.cut)
    windows = Windows(image.shape, side, [round(n * OVERLAP) for n in side])
    blend = windows.weights(gaussian=True)
    every = list(windows)
    for number in range(0, len(every), effort.at_once):
        progress(number / len(every), f"Window {number + 1} of {len(every)}")
        some = every[number : number + effort.at_once]
        parts = [torch.from_numpy(image[window.cells]) for window in some]
        x = torch.stack(parts).to(place)[:, None]
        with inference(place):
            logits = network(x.expand(-1, network.in_channels, -1, -1, -1), unit.da)[0]
            kept = torch.softmax(logits.float(), dim=1)[:, ids[1:]]
            background = 1 - kept.sum(1, keepdim=True)
            p = torch.cat([background.clamp(min=0), kept], dim=1).cpu()
        for window, one in zip(some, p, strict=True):
            found[(slice(None), *window.cells)] += one * torch.from_numpy(blend.of(window))


def _window(card: Card, factors: tuple[int, int, int], da: int, cut: int) -> list[int]:
    """The window for a degree of anisotropy, in whole cells of the model's coarsest map."""
    depth, height, width = card.window or WINDOW
    wanted = (max(1, (depth >> da) // cut), height // cut, width // cut)
    return [-(-side // factor) * factor for side, factor in zip(wanted, factors, strict=True)]


def _measure(scan: Volume, labels: np.ndarray, names: dict[int, str]) -> dict[str, dict[str, Any]]:
    """Voxels, volume and intensities of every label that the model looks for, found or not."""
    size = max(names, default=0) + 1
    sums = np.zeros((4, size))
    for index in range(len(labels)):
        inside = labels[index] != 0
        marks = labels[index][inside]
        if not marks.size:
            continue
        values = in_unit(scan, scan.array[index][inside]).astype(np.float64)
        finite = np.isfinite(values)
        sums[0] += np.bincount(marks, minlength=size)
        sums[1] += np.bincount(marks[finite], minlength=size)
        sums[2] += np.bincount(marks[finite], values[finite], size)
        sums[3] += np.bincount(marks[finite], values[finite] ** 2, size)
    voxel_ml = abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
    table = {}
    for label in sorted(names):
        voxels, counted, total, squares = (float(value) for value in sums[:, label])
        mean = total / counted if counted else None
        spread = None if mean is None else max(squares / counted - mean**2, 0.0) ** 0.5
        table[names[label]] = {
            "id": label,
            "voxels": int(voxels),
            "volume_ml": voxels * voxel_ml,
            "mean": mean,
            "sd": spread,
        }
    return table
