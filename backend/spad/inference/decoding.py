"""Soft tokens back to an image, otherwise than they came: harder, softer, or one code alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spad.device import Effort, choose, inference, stepping_down
from spad.errors import SpadError
from spad.inference import codes
from spad.inference.codes import TokenGrid, sharpened, stoppable, token_grid
from spad.inference.enlarge import line
from spad.inference.figures import l1, psnr
from spad.inference.models import chosen, loaded
from spad.inference.sight import (
    COLOURS,
    depth_first_axis,
    error_of,
    outline,
    reconstruction_of,
    seen,
    slice_error,
)
from spad.inference.stages import Stages, share
from spad.models.resize import resize
from spad.progress import Progress, silent
from spad.volumes.volume import Volume

SLICE_MARGIN = 1
"""Tokens before and behind those of a slice that are decoded with it."""
TILES_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Decoding:
    """A scan decoded again from its tokens.

    Attributes:
        reconstruction: on the scan's grid, in its unit.
        error: as in `Tokenization`.
        report: `model, temperature, top_k, psnr, l1, l1_unit, mean_entropy, slice_error, device,
            stepped_down, seconds`.
    """

    reconstruction: Volume
    error: Volume
    report: dict[str, Any]


def decode(
    volume: Volume,
    probabilities: np.ndarray,
    model: str | Path,
    temperature: float = 1.0,
    top_k: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
) -> Decoding:
    """Decode the tokens of a scan at another temperature, or with fewer codes each.

    Args:
        volume: the scan.
        probabilities: (z, y, x, K) of `tokenize` with this scan and model.
        model: the tokenizer.
        temperature: t > 0; p becomes proportional to p^(1/t).
        top_k: how many codes each token keeps; None for all.
        device: "auto", "cpu" or "cuda".
        progress: told between layers; may raise `Cancelled`.
        phase: which time of a 4D scan.

    Returns:
        Reconstruction, error and figures; in bfloat16 where the device computes it.

    Raises:
        SpadError: the tokens are not those of this scan and model, or the numbers make no sense.
    """
    stages = Stages()
    entry = chosen("tokenizer", model, volume.modality)
    progress(0.0, "Preparing the scan")
    with stages.stage("prepare"):
        scan, unit = seen(volume, entry, phase)

    def work(effort: Effort) -> tuple[np.ndarray, np.ndarray]:
        with stages.stage("load"):
            network, _ = loaded(entry, effort.place)
        grid = _grid_of(network, unit, probabilities)
        with stages.stage("model"):
            p = sharpened(probabilities, temperature, top_k)
            part = share(progress, 0.05, 0.95)
            return p, codes.decode(network, p, unit, grid, part, effort.cut, exact=False)

    (p, image), effort, steps = stepping_down(work, choose(device), progress)
    with stages.stage("finish"):
        error = error_of(image, scan, unit)
        ratio = psnr(image, unit.array)
        report = {
            "model": entry.name,
            "temperature": float(temperature),
            "top_k": top_k,
            "psnr": ratio if np.isfinite(ratio) else None,
            "l1": l1(image, unit.array) * (unit.limits[1] - unit.limits[0]),
            "l1_unit": unit.contract.unit,
            "mean_entropy": float(codes.entropy(p).mean(dtype=np.float64)),
            "slice_error": slice_error(error),
        }
        rebuilt = reconstruction_of(image, scan, unit)
    report |= {"device": effort.place.type, "stepped_down": steps, "seconds": stages.seconds}
    progress(1.0, "Done")
    return Decoding(rebuilt, error, report)


def decode_slice(
    volume: Volume,
    probabilities: np.ndarray,
    model: str | Path,
    axis: int,
    index: int,
    limits: Sequence[float],
    temperature: float = 1.0,
    top_k: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
) -> np.ndarray:
    """Decode one slice as `decode` would, or nearly: tokens farther off have no say.

    Args:
        volume: the scan.
        probabilities: (z, y, x, K) of `tokenize` with this scan and model.
        model: the tokenizer.
        axis: through which the slices lie: 0 S-I, 1 A-P, 2 R-L.
        index: the slice.
        limits: `limits` of the report of `tokenize`.
        temperature: as in `decode`.
        top_k: as in `decode`.
        device: "auto", "cpu" or "cuda".
        progress: told between layers; may raise `Cancelled`.
        phase: which time of a 4D scan.

    Returns:
        (rows, columns) of the other two axes in the screen's order, in the scan's unit, float32;
        (C, rows, columns) in colours.

    Raises:
        SpadError: the tokens are not those of this scan and model, or the numbers make no sense.
    """
    entry = chosen("tokenizer", model, volume.modality)
    progress(0.0, "Decoding the slice")
    scan, unit = outline(volume, entry, (float(limits[0]), float(limits[1])), phase)
    through = depth_first_axis(scan, axis)
    full = unit.frame.full_size
    place = line(unit.frame.size[through], full[through]).part(index, index + 1)
    lower, upper = int(place.lower), int(place.upper)

    def work(effort: Effort) -> np.ndarray:
        network, _ = loaded(entry, effort.place)
        grid = _grid_of(network, unit, probabilities)
        slab, tokens, at = codes.slab_of(grid, through, lower, SLICE_MARGIN)
        p = sharpened(np.moveaxis(probabilities, through, 0)[tokens], temperature, top_k)
        p = np.moveaxis(p, 0, through)
        image = codes.decode(network, p, unit, slab, progress, effort.cut, exact=False)
        near = image.take([at, at + upper - lower], axis=through - 3)
        share_of_upper = 0.5 if place.share is None else float(place.share)
        weights = np.array([1 - share_of_upper, share_of_upper], np.float32)
        return np.asarray(np.average(near, through - 3, weights, keepdims=True), np.float32)

    image, _, _ = stepping_down(work, choose(device), progress)
    wanted = [1 if n == through else full[n] for n in range(3)]
    whole = torch.from_numpy(np.ascontiguousarray(image)).reshape(1, -1, *image.shape[-3:])
    plane = unit.contract.from_unit(resize(whole, wanted)[0].numpy(), unit.limits)
    # the other axes in the screen's order, whichever of them is depth
    others = [depth_first_axis(scan, other) for other in range(3) if other != axis]
    plane = plane.transpose(0, 1 + through, *(1 + other for other in others))[:, 0]
    return np.ascontiguousarray(plane if scan.rgb else plane[0])


def alone(
    model: str | Path,
    da: int,
    modality: str | None = None,
    *,
    rgb: bool = False,
    device: str = "auto",
    progress: Progress = silent,
) -> np.ndarray:
    """Decode every code of a tokenizer alone: a single token that is this code and nothing else.

    Args:
        model: the tokenizer.
        da: degree of anisotropy of the scan in question.
        modality: of the scan, whose range of intensities is meant.
        rgb: whether the colours are wanted, else their mean.
        device: "auto", "cpu" or "cuda".
        progress: told between layers; may raise `Cancelled`.

    Returns:
        (K, depth, height, width) float32 in [0, 1], the voxels of one token; with the three colours
        last if they are wanted.

    Raises:
        SpadError: there is no such model, or colours are wanted of one that has none.
    """
    entry = chosen("tokenizer", model, modality)
    contracts = entry.card.intensity
    contract = contracts.get(modality or "*") or next(iter(contracts.values()))

    def work(effort: Effort) -> np.ndarray:
        network, _ = loaded(entry, effort.place)
        if rgb and network.in_channels != COLOURS:
            raise SpadError(f"The model '{entry.name}' has no colours; ask for its codes in grey.")
        factors = network.token_factors(da)
        tiles = np.empty((network.codes, COLOURS if rgb else 1, *factors), np.float32)
        for start in range(0, network.codes, TILES_AT_ONCE):
            stop = min(start + TILES_AT_ONCE, network.codes)
            part = share(progress, start / network.codes, stop / network.codes)
            p = torch.eye(network.codes)[start:stop, None, None, None].to(effort.place)
            with inference(effort.place), stoppable(network, part, "Decoding the codes"):
                found = network.decode(p, da, factors).float()
            found = found if rgb else found.mean(1, keepdim=True)
            tiles[start:stop] = found.cpu().numpy()
        return tiles

    tiles, _, _ = stepping_down(work, choose(device), progress)
    tiles = np.clip(contract.from_model(tiles), 0, 1)
    return np.ascontiguousarray(np.moveaxis(tiles, 1, -1) if rgb else tiles[:, 0])


def _grid_of(network: Any, unit: Any, probabilities: np.ndarray) -> TokenGrid:
    grid = token_grid(unit, network.token_factors(unit.da))
    wanted = (*grid.shape, network.codes)
    if probabilities.shape != wanted:
        raise SpadError(
            f"The tokens have the shape {probabilities.shape}, but this scan and model give "
            f"{wanted}; tokenize the scan with this model first."
        )
    return grid
