"""Organs: a scan to labels on its own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from spad.checkpoints import zoo
from spad.checkpoints.card import Card
from spad.data.channels import channels_of, one_phase
from spad.data.model_input import UnitChannels, refuse_labels, unit_channels
from spad.device import Effort, PeakMemory, choose, stepping_down
from spad.errors import SpadError
from spad.inference.body import body_box, holds_tissue, tissue
from spad.inference.enlarge import Enlarger
from spad.inference.models import chosen, loaded
from spad.inference.pieces import drop_small_pieces, fill_holes
from spad.inference.region import Box, canonical_box, region_of
from spad.inference.stages import Stages, share
from spad.inference.sweep import Sweep, window_side
from spad.models.segmenter import Segmenter
from spad.progress import Progress, silent
from spad.volumes.axes import to_canonical
from spad.volumes.measures import measure
from spad.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class Organs:
    """What a model finds in a scan.

    Attributes:
        labels: organs on the scan's own grid, with `label_names` and the figures of
            `spad segment --report` as `report`.
        confidence: the model's probability of each voxel's label, stored in percent (uint8 with
            slope 0.01), or None if it was not asked for. It is 0 where a rule for an organ (no
            small pieces, no holes) changed the label, and 1 where the model did not look: in the
            air around the body and outside the box.
    """

    labels: Volume
    confidence: Volume | None


@dataclass(frozen=True)
class Wanted:
    """What is asked of a model.

    Attributes:
        box: the part to label: (start, stop) along each spatial axis of the scan's array; None for
            all of it.
        confidence: also give the probability of each voxel's label.
        flips: average over mirror images.
    """

    box: Box | None = None
    confidence: bool = False
    flips: bool = False


def segment(
    volume: Volume | Sequence[Volume],
    model: str | Path | None = None,
    modality: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
    box: Box | None = None,
    flips: bool = False,
) -> Volume:
    """Label the organs of a scan: the labels of `organs`, with the report."""
    found = organs(volume, model, modality, device, progress, phase=phase, box=box, flips=flips)
    return found.labels


def organs(
    volume: Volume | Sequence[Volume],
    model: str | Path | None = None,
    modality: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
    box: Box | None = None,
    confidence: bool = False,
    flips: bool = False,
) -> Organs:
    """Label the organs of a scan.

    Args:
        volume: the scan; for a model of several channels one scan with a channel axis, or one for
            each channel, on one grid.
        model: name or file of a segmenter; None for the default of the modality.
        modality: "CT" or "MR"; None to take what the file or its intensities tell.
        device: "auto", "cpu" or "cuda".
        progress: told at every window; may raise `Cancelled`.
        phase: which time of a 4D scan.
        box: the part to label: (start, stop) along each spatial axis of the (first) scan's array.
            The model also looks at what is around it; labels outside are 0.
        confidence: also give the probability of each voxel's label.
        flips: average over the eight mirror images of each window, which takes eight times as long;
            for models that were trained with them.

    Returns:
        Labels on the grid of the (first) scan, and their confidence if asked for.

    Raises:
        SpadError: nothing tells the modality, there is no model for it, the scan has no finite
            voxel or other channels than the model, or the box does not lie in it.
    """
    stages, place, wanted = Stages(), choose(device), Wanted(box, confidence, flips)
    volumes = [volume] if isinstance(volume, Volume) else list(volume)
    refuse_labels(volumes[0])
    entry, modality, why = _model_for(volumes[0], model, modality)
    _check_flips(entry, wanted)
    with PeakMemory(place) as memory:
        progress(0.0, "Preparing the scan")
        with stages.stage("prepare"):
            scan = _first_channel(volumes, entry.card, phase)
            unit = unit_channels(volumes, entry.card, modality, phase=phase)
            names = entry.card.label_names(modality)
        found, effort, steps = stepping_down(
            lambda effort: _run(entry, scan, unit, names, wanted, effort, stages, progress),
            place,
            progress,
        )
        with stages.stage("finish"):
            progress(0.95, "Measuring")
            measured = measure(scan, found.labels.array, names)
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
    return replace(found, labels=replace(found.labels, report=report))


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


def _check_flips(entry: zoo.Entry, wanted: Wanted) -> None:
    if wanted.flips and not entry.card.provenance.get("flips"):
        raise SpadError(
            f"Mirror images were asked for, but the model '{entry.name}' does not say that it was "
            "trained with them, and would take left for right; leave them out or train with "
            "'--data.flips true'."
        )


def _first_channel(volumes: Sequence[Volume], card: Card, phase: int) -> Volume:
    """Give the 3D scan on whose grid the labels lie; channels as `unit_channels` takes them."""
    if len(card.channels) < 2:
        return one_phase(volumes[0], phase)
    times = len(volumes) == 1 and volumes[0].array.shape[0] == len(card.channels)
    return channels_of(volumes[0], phase, times=times)[0]


def _run(
    entry: zoo.Entry,
    scan: Volume,
    unit: UnitChannels,
    names: dict[int, str],
    wanted: Wanted,
    effort: Effort,
    stages: Stages,
    progress: Progress,
) -> Organs:
    """Load the model, slide it over the body and label what it leaves behind, slab by slab."""
    with stages.stage("load"):
        network, card = _network(entry, names, effort)
    with stages.stage("prepare"):
        side = window_side(card, network.factors(unit.da), unit.da, effort.cut)
        shape, cells = unit.frame.size, tissue(unit.array[0], unit.spacing)
        box = None if wanted.box is None else canonical_box(wanted.box, scan)
        region = region_of(unit.frame, body_box(cells, shape), box, side)
    array = np.zeros(scan.spatial_shape, np.min_scalar_type(max(names, default=0)))
    labels = scan.with_array(array, label_names=names)
    sure = np.full(array.shape, 100, np.uint8) if wanted.confidence else None
    confidence = None if sure is None else scan.with_array(sure, slope=0.01)
    ids = [0, *sorted(names)]
    if region is not None:
        enlarger = Enlarger(
            region.lines,
            ids,
            to_canonical(labels, depth_first=True)[0],
            None if confidence is None else to_canonical(confidence, depth_first=True)[0],
        )
        sweep = Sweep(network, side, unit, ids, effort, flips=wanted.flips)
        if cells.any():
            sweep.worth = lambda part: holds_tissue(cells, shape, part)
        slabs = sweep.slabs(region.cells, share(progress, 0.05, 0.95))
        while (slab := stages.next("model", slabs)) is not None:
            with stages.stage("finish"):
                enlarger.add(*slab)
    with stages.stage("finish"):
        drop_small_pieces(array, card.least_piece, sure)
        fill_holes(array, card.filled, sure)
    return Organs(labels, confidence)


def _network(entry: zoo.Entry, names: dict[int, str], effort: Effort) -> tuple[Segmenter, Card]:
    network, card = loaded(entry, effort.place)
    beyond = [label for label in sorted(names) if label >= network.classes]
    if beyond:
        raise SpadError(
            f"The model '{entry.name}' names the label {beyond[0]}, but has {network.classes} "
            "classes with the background; use a complete checkpoint."
        )
    if isinstance(network, torch.nn.Module):
        # torch's fastest order for convolutions; the maps take it over from the kernels
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network, card
