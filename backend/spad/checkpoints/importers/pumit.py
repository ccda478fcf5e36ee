"""Importer for the checkpoints of PUMIT / SPAD-Nets (arXiv 2312.07630).

The weights are the authors' own, without a licence: a person brings the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spad.checkpoints.card import Card
from spad.checkpoints.file import build
from spad.checkpoints.importers.foreign import (
    State,
    fill,
    provenance,
    read_state,
    shape_of,
)
from spad.checkpoints.importers.inflate import fold_normalisation
from spad.checkpoints.importers.names import plan
from spad.checkpoints.importers.report import Report
from spad.errors import SpadError
from spad.volumes.intensity import Intensity

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
HEAD_DIM = 64
"""Width of an attention head in the authors' base and large models."""
ORIENTATION_NOTE = (
    "trained on axial scans as S, R, A with each axis flipped at random (p 0.5) and turned about "
    "depth; any orientation with depth first is within what it saw"
)
LICENCE = "none stated by the authors: all rights reserved; bring and use at your own risk"
SOURCE = "PUMIT / SPAD-Nets, arXiv 2312.07630"

_DROPPED = re.compile(
    r"^(tokenizer|discriminator|optimizer\w*|lr_schedulers?|loss|rope)\b|(^|\.)rope\.|freqs_(cos|sin)$"
)


def import_checkpoint(
    file: str | Path, as_kind: str, heads: int | None = None
) -> tuple[nn.Module, Card, Report]:
    """Import a checkpoint of the authors.

    Args:
        file: as they wrote it (`.ckpt`, `.pt`), or its weights as safetensors.
        as_kind: "pumit-tokenizer", or "pumit-vit" (with the masked-image head if it is there).
        heads: attention heads, which no weight tells; None for heads 64 wide, as theirs are.

    Returns:
        The model in evaluation mode, a card with the contracts they trained with, and a report.

    Raises:
        SpadError: the file cannot be read, needs code, or does not cover the model in full.
    """
    state, left_out = read_state(file, dropped=lambda name: bool(_DROPPED.search(name)))
    if as_kind == "pumit-tokenizer":
        kind, architecture = "tokenizer", tokenizer_architecture(file, state)
    elif as_kind == "pumit-vit":
        kind, architecture = vit_architecture(file, state, heads)
        if kind == "vit" and "mask_token" in state:
            del state["mask_token"]
            left_out.append("mask_token")
    else:
        raise SpadError(
            f"There is no PUMIT importer called {as_kind!r}; expected 'pumit-tokenizer' or "
            "'pumit-vit'."
        )
    with torch.device("meta"):
        model = build(kind, architecture)
    weights, report = fill(file, as_kind, model, plan(model), state, left_out)
    origin = provenance(file, as_kind, SOURCE) | {"orientation": ORIENTATION_NOTE}
    if kind == "tokenizer":
        contract = contracts(shift=0.5, scale=0.5)
    else:
        contract = contracts(shift=0.0, scale=1.0)
        fold_patch_embedding(weights)
        origin["folded"] = "the ImageNet normalisation of the three channels is in the patch kernel"
    model.load_state_dict(weights, assign=True)
    card = Card(
        kind=kind,
        name=Path(file).stem,
        architecture=dict(model.architecture),  # type: ignore[arg-type]
        intensity=contract,
        provenance=origin,
        licence=LICENCE,
    )
    return model.eval(), card, report


def contracts(shift: float, scale: float) -> dict[str, Intensity]:
    """Give the authors' contract: percentiles 0.5 to 99.5 of each scan, whatever its modality."""
    return {
        "CT": Intensity("percentiles", 0.5, 99.5, shift, scale, unit="HU"),
        "*": Intensity("percentiles", 0.5, 99.5, shift, scale),
    }


def tokenizer_architecture(file: str | Path, state: State) -> dict[str, Any]:
    """Read the tokenizer's constructor arguments off its weights."""
    first = shape_of(file, "pumit-tokenizer", state, "encoder.0.weight", 5)
    channels: list[int] = []
    while width := _stage_width(state, 3 * len(channels)):
        channels.append(width)
    codes, code_dim = shape_of(file, "pumit-tokenizer", state, "quantize.embedding.weight", 2)
    return {
        "in_channels": first[1],
        "channels": channels,
        "codes": codes,
        "code_dim": code_dim,
    }


def _stage_width(state: State, index: int) -> int:
    """Width of the strided convolution at that index of the encoder, or of the norm behind it."""
    strided, norm = state.get(f"encoder.{index}.weight"), state.get(f"encoder.{index + 1}.1.weight")
    if strided is not None and strided.ndim == 5 and strided.shape[-1] != 3:
        return int(strided.shape[0])
    return len(norm) if norm is not None and norm.ndim == 1 else 0


def vit_architecture(
    file: str | Path, state: State, heads: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Read the kind ("mim" or "vit") and its constructor arguments off the weights."""
    as_kind = "pumit-vit"
    dim, channels, taps, *_ = shape_of(file, as_kind, state, "patch_embed.proj.weight", 5)
    grid = shape_of(file, as_kind, state, "pos_embed", 5)[2:]
    if not heads and dim % HEAD_DIM:
        raise SpadError(
            f"{file} has tokens {dim} wide, from which the number of attention heads cannot be "
            f"told (expected a multiple of {HEAD_DIM}); import it in Python and state `heads`."
        )
    blocks = {int(n.split(".")[1]) for n in state if re.match(r"blocks\.\d+\.", n)}
    vit = {
        "in_channels": channels,
        "dim": dim,
        "depth": max(blocks, default=-1) + 1,
        "heads": heads or dim // HEAD_DIM,
        "position_grid": list(grid),
        "kernel_da": (16 // max(taps, 1)).bit_length() - 1,
    }
    if not any(name.startswith("mim_head.") for name in state):
        return "vit", vit
    codes = shape_of(file, as_kind, state, "mim_head.2.weight", 2)[0]
    return "mim", {"vit": vit, "codes": codes}


def fold_patch_embedding(weights: State) -> None:
    """Let the patch kernel take [0, 1]: the authors normalised three repeated channels before."""
    prefix = "vit." if "vit.patch_embedding.weight" in weights else ""
    kernel, offset = f"{prefix}patch_embedding.weight", f"{prefix}patch_embedding.bias"
    if weights[kernel].shape[1] == len(IMAGENET_MEAN):
        weights[kernel], weights[offset] = fold_normalisation(
            weights[kernel], weights[offset], IMAGENET_MEAN, IMAGENET_SD
        )
