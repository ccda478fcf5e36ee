"""Looking into the models: what the tokenizer keeps of a scan, and what masked modelling fills in.

Source: PUMIT, arXiv 2312.07630, sections "visual tokenizer" and "masked image modelling".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spad.checkpoints import zoo
from spad.data.channels import one_phase
from spad.data.model_input import UnitVolume, contract_for, unit_volume
from spad.device import Effort, choose, stepping_down
from spad.errors import SpadError
from spad.inference import codes
from spad.inference.codes import TokenGrid, Tokens, token_grid
from spad.inference.figures import image_figures
from spad.inference.masks import drawn_mask, neighbour_guess, painted_mask
from spad.inference.models import chosen, loaded
from spad.inference.sight import error_of, reconstruction_of, seen, slice_error
from spad.inference.stages import Stages, share
from spad.models.resize import resize
from spad.progress import Progress, silent
from spad.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class Tokenization:
    """A scan seen through the tokenizer.

    Attributes:
        reconstruction: on the scan's grid, in its unit.
        error: |reconstruction - scan| on the scan's grid, in its unit (the mean over colours); the
            scan is clipped by the intensity contract before.
        codes: index of each token's likeliest code, labels on the token grid.
        entropy: of each token's probabilities in nats, on the token grid.
        usage: (K,) mean probability of each code.
        probabilities: (z, y, x, K) float32 of each token's codes, along the axes of `codes`.
        report: the figures of `spad tokenize --report`.
    """

    reconstruction: Volume
    error: Volume
    codes: Volume
    entropy: Volume
    usage: np.ndarray
    probabilities: np.ndarray
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Masking:
    """A scan of which some tokens were hidden and filled in.

    Attributes:
        reconstruction: on the scan's grid, in its unit; hidden tokens as the model predicts them,
            visible ones as the tokenizer gave them.
        mask: 1 where a token was hidden, labels on the token grid.
        report: the figures of `spad mask --report`.
    """

    reconstruction: Volume
    mask: Volume
    report: dict[str, Any]


def tokenize(
    volume: Volume,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
) -> Tokenization:
    """Turn a scan into soft tokens and back.

    Args:
        volume: the scan.
        model: name or file of a tokenizer; None for the default of the scan's modality.
        device: "auto", "cpu" or "cuda".
        progress: told at every window; may raise `Cancelled`.
        phase: which time of a 4D scan.

    Returns:
        Reconstruction, error, codes, usage and figures.

    Raises:
        SpadError: there is no such model, it is not for this modality or not for colours, or the
            scan has no finite voxel.
    """
    stages = Stages()
    place = choose(device)
    entry = chosen("tokenizer", model, volume.modality)
    progress(0.0, "Preparing the scan")
    with stages.stage("prepare"):
        scan, unit = seen(volume, entry, phase)

    (grid, tokens, image), effort, steps = stepping_down(
        lambda effort: _there_and_back(entry, unit, effort, stages, progress), place, progress
    )
    with stages.stage("finish"):
        report = _heading(entry, grid) | _image_report(image, unit, grid, progress)
        usage = tokens.probabilities.mean(axis=(0, 1, 2), dtype=np.float64)
        likeliest = tokens.probabilities.argmax(-1).astype(np.min_scalar_type(len(usage)))
        entropy = codes.entropy(tokens.probabilities)
        report |= _code_report(tokens, usage, likeliest, entropy)
        error = error_of(image, scan, unit)
        report["slice_error"] = slice_error(error)
        result = Tokenization(
            reconstruction=reconstruction_of(image, scan, unit),
            error=error,
            codes=Volume.from_array(likeliest, grid.affine, label_names={}),
            entropy=Volume.from_array(entropy.astype(np.float32), grid.affine, modality_hint="OT"),
            usage=usage,
            probabilities=tokens.probabilities,
            report=report,
        )
    report |= {"device": effort.place.type, "stepped_down": steps, "seconds": stages.seconds}
    progress(1.0, "Done")
    return result


def mask(
    volume: Volume,
    model: str | Path | None = None,
    ratio: float = 0.55,
    seed: int = 0,
    paint: Volume | None = None,
    device: str = "auto",
    progress: Progress = silent,
    *,
    phase: int = 0,
) -> Masking:
    """Hide tokens of a scan and let a masked-image model fill them in.

    Args:
        volume: the scan.
        model: name or file of a masked-image model; None for the default of the scan's modality.
        ratio: share of the tokens to hide.
        seed: draws the hidden tokens; the same seed and token grid hide the same ones.
        paint: labels on the scan's grid: hide the tokens under voxels that are not 0 instead.
        device: "auto", "cpu" or "cuda".
        progress: told at every window; may raise `Cancelled`.
        phase: which time of a 4D scan.

    Returns:
        Reconstruction, mask and figures.

    Raises:
        SpadError: there is no such model or tokenizer, they do not fit each other or the scan, the
            ratio is no share, or the painted labels lie on another grid.
    """
    stages = Stages()
    place = choose(device)
    entry = chosen("mim", model, volume.modality)
    tokenizer = _tokenizer_of(entry, volume.modality)
    progress(0.0, "Preparing the scan")
    with stages.stage("prepare"):
        scan = one_phase(volume, phase)
        units = _as_seen_by(tokenizer, entry, scan, volume.modality)

    hide = _hider(scan, units[0], paint, phase, ratio, seed)
    models = (entry, tokenizer)
    (grid, hidden, image, figures), effort, steps = stepping_down(
        lambda effort: _hidden_and_filled(models, units, hide, effort, stages, progress),
        place,
        progress,
    )
    report = {
        **_heading(entry, grid),
        "tokenizer": tokenizer.name,
        "painted": paint is not None,
        "ratio": float(ratio) if paint is None else float(hidden.mean()),
        "seed": int(seed) if paint is None else None,
        **figures,
    }
    with stages.stage("finish"):
        filled = reconstruction_of(image, scan, units[0])
        where = Volume.from_array(hidden.astype(np.uint8), grid.affine, label_names={1: "masked"})
    report |= {"device": effort.place.type, "stepped_down": steps, "seconds": stages.seconds}
    progress(1.0, "Done")
    return Masking(filled, where, report)


def _heading(entry: zoo.Entry, grid: TokenGrid) -> dict[str, Any]:
    return {"model": entry.name, "da": grid.da, "grid": list(grid.shape)}


def _hider(
    scan: Volume, unit: UnitVolume, paint: Volume | None, phase: int, ratio: float, seed: int
) -> Callable[[TokenGrid], np.ndarray]:
    """Give the function that chooses the hidden tokens of a grid."""

    def hide(grid: TokenGrid) -> np.ndarray:
        if paint is None:
            return drawn_mask(grid, ratio, seed)
        painted = one_phase(paint, phase if paint.array.ndim == 4 else 0)
        return painted_mask(painted, scan, unit, grid)

    return hide


def _there_and_back(
    entry: zoo.Entry, unit: UnitVolume, effort: Effort, stages: Stages, progress: Progress
) -> tuple[TokenGrid, Tokens, np.ndarray]:
    with stages.stage("load"):
        network, _ = loaded(entry, effort.place)
    grid = token_grid(unit, network.token_factors(unit.da))
    with stages.stage("model"):
        tokens = codes.encode(network, unit, grid, share(progress, 0.05, 0.4), effort.cut)
        found = tokens.probabilities
        image = codes.decode(network, found, unit, grid, share(progress, 0.4, 0.75), effort.cut)
    return grid, tokens, image


def _hidden_and_filled(
    entries: tuple[zoo.Entry, zoo.Entry],
    units: tuple[UnitVolume, UnitVolume],
    hide: Callable[[TokenGrid], np.ndarray],
    effort: Effort,
    stages: Stages,
    progress: Progress,
) -> tuple[TokenGrid, np.ndarray, np.ndarray, dict[str, Any]]:
    """Encode, hide, predict and decode.

    Args:
        entries: the masked-image model and its tokenizer.
        units: the scan as the tokenizer and as the masked-image model see it.
        hide: chooses the hidden tokens.
        effort: where the models run, and how small their windows are.
        stages: the clock.
        progress: told at every window.

    Returns:
        The grid, the hidden tokens, the image in [0, 1] and the figures.
    """
    with stages.stage("load"):
        network, _ = loaded(entries[0], effort.place)
        encoder, _ = loaded(entries[1], effort.place)
    unit, seen = units
    grid = token_grid(unit, encoder.token_factors(unit.da))
    _check_pair(*entries, network.token_factors(unit.da) == grid.factors)
    hidden = hide(grid)
    with stages.stage("model"):
        cut = effort.cut
        found = codes.encode(encoder, unit, grid, share(progress, 0.05, 0.3), cut).probabilities
        filled = codes.predict(network, seen, grid, hidden, share(progress, 0.3, 0.6), cut)
        figures = _guess_report(found, filled, hidden)
        found[hidden] = filled
        image = codes.decode(encoder, found, unit, grid, share(progress, 0.6, 0.95), cut)
    figures["l1_masked"] = _l1_hidden(image, unit, grid, hidden)
    figures["l1_unit"] = unit.contract.unit
    return grid, hidden, image, figures


def _image_report(
    image: np.ndarray, unit: UnitVolume, grid: TokenGrid, progress: Progress
) -> dict[str, Any]:
    """Figures against the clipped scan, of the model and of as many numbers as there are tokens."""
    width = unit.limits[1] - unit.limits[0]
    found = image_figures(image, unit.array, share(progress, 0.75, 0.85))
    whole = torch.from_numpy(unit.array).reshape(1, -1, *grid.size)
    coarse = resize(resize(whole, grid.shape), grid.size).numpy().reshape(unit.array.shape)
    plain = image_figures(coarse, unit.array, share(progress, 0.85, 0.95))
    for figures in (found, plain):
        figures["l1"] = float(figures["l1"] or 0.0) * width
    limits = [float(limit) for limit in unit.limits]
    return {**found, "l1_unit": unit.contract.unit, "limits": limits, "trilinear": plain}


def _code_report(
    tokens: Tokens, usage: np.ndarray, likeliest: np.ndarray, entropy: np.ndarray
) -> dict[str, Any]:
    mean_entropy = float(entropy.mean(dtype=np.float64))
    used = np.unique(likeliest)
    return {
        "codes": len(usage),
        "codes_used": len(used),
        "dead_codes": np.setdiff1d(np.arange(len(usage)), used).tolist(),
        "usage": usage.tolist(),
        "perplexity": math.exp(float(codes.entropy(usage))),
        "mean_entropy": mean_entropy,
        "mean_kl_to_uniform": math.log(len(usage)) - mean_entropy,
        "position_information": tokens.position_information,
    }


def _guess_report(
    probabilities: np.ndarray, filled: np.ndarray, hidden: np.ndarray
) -> dict[str, Any]:
    """How well the hidden tokens were told, beside two guesses that need no model."""
    wanted, visible = probabilities[hidden], probabilities[~hidden]
    score = codes.cross_entropy(wanted, filled)
    baselines: dict[str, float | None] = {"baseline_mean": None, "baseline_neighbour": None}
    if len(visible):
        mean = visible.mean(axis=0, dtype=np.float64)
        near = neighbour_guess(probabilities, hidden)
        baselines = {
            "baseline_mean": codes.cross_entropy(wanted, mean),
            "baseline_neighbour": codes.cross_entropy(wanted, near),
        }
    return {
        "masked": len(wanted),
        "visible": len(visible),
        "cross_entropy": score,
        "kl": score - float(codes.entropy(wanted).mean(dtype=np.float64)),
        **baselines,
    }


def _l1_hidden(image: np.ndarray, unit: UnitVolume, grid: TokenGrid, hidden: np.ndarray) -> float:
    """Mean absolute difference to the clipped scan in the voxels of hidden tokens."""
    where = hidden
    for axis, (factor, n) in enumerate(zip(grid.factors, grid.size, strict=True)):
        index = np.arange(n) // factor
        where = where.take(index, axis=axis)
    difference = np.abs(image[where] - unit.array[where])
    return float(difference.mean(dtype=np.float64)) * (unit.limits[1] - unit.limits[0])


def _tokenizer_of(entry: zoo.Entry, modality: str | None) -> zoo.Entry:
    """The tokenizer whose codes a masked-image model predicts."""
    named = entry.card.tokenizer or entry.card.provenance.get("tokenizer")
    tokenizer = chosen("tokenizer", named, modality)
    same_codes = tokenizer.card.architecture.get("codes") == entry.card.architecture.get("codes")
    same_grid = tokenizer.card.working_spacing == entry.card.working_spacing
    _check_pair(entry, tokenizer, same_codes and same_grid)
    return tokenizer


def _check_pair(entry: zoo.Entry, tokenizer: zoo.Entry, fits: bool) -> None:
    if not fits:
        raise SpadError(
            f"The masked-image model '{entry.name}' does not fit the tokenizer "
            f"'{tokenizer.name}' (they differ in codes, spacing or size of a token); "
            "choose a model that was trained with a tokenizer you have."
        )


def _as_seen_by(
    tokenizer: zoo.Entry, entry: zoo.Entry, scan: Volume, modality: str | None
) -> tuple[UnitVolume, UnitVolume]:
    """The scan by the contracts of two models; one array where their limits are equal."""
    unit = unit_volume(scan, tokenizer.card, modality)
    here, there = unit.contract, contract_for(entry.card, modality)
    if (there.kind, there.low, there.high) == (here.kind, here.low, here.high):
        return unit, UnitVolume(unit.array, unit.frame, there, unit.limits)
    return unit, unit_volume(scan, entry.card, modality)
