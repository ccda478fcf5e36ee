"""Importer for 2D EVA-02 checkpoints (arXiv 2303.11331), turned into a start for SPAD-ViT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from spad.checkpoints.card import Card
from spad.checkpoints.importers.foreign import State, fill, provenance, read_state, shape_of
from spad.checkpoints.importers.inflate import inflate_depth, inflate_positions, resize_kernel
from spad.checkpoints.importers.names import plan
from spad.checkpoints.importers.pumit import (
    contracts,
    fold_patch_embedding,
    vit_architecture,
)
from spad.checkpoints.importers.report import Report
from spad.models.vit import SpatialViT

PATCH = 16
POSITION_GRID = (5, 10, 10)
_DROPPED = re.compile(r"(^|\.)rope\.|freqs_(cos|sin)$|^(lm_head|head|mask_token)\b")


def import_checkpoint(
    file: str | Path,
    as_kind: str = "eva02",
    heads: int | None = None,
    position_grid: Sequence[int] = POSITION_GRID,
) -> tuple[SpatialViT, Card, Report]:
    """Import a 2D EVA-02 checkpoint as a 3D vision transformer to train further.

    Args:
        file: the EVA-02 file (weights under `module`, `model` or bare).
        as_kind: the importer's name, for its messages.
        heads: attention heads; None for heads 64 wide, as theirs are.
        position_grid: (z, y, x) of the 3D position table.

    Returns:
        The model in evaluation mode, its card, and a report in EVA-02's names.

    Raises:
        SpadError: the file cannot be read, needs code, or does not cover the model in full.
    """
    state, left_out = read_state(file, dropped=lambda name: bool(_DROPPED.search(name)))
    shape_of(file, as_kind, state, "patch_embed.proj.weight", 4)
    shape_of(file, as_kind, state, "pos_embed", 3)
    shape_of(file, as_kind, state, "cls_token", 3)
    inflated = inflate(state, position_grid)
    architecture = vit_architecture(file, inflated, heads)[1]
    with torch.device("meta"):
        model = SpatialViT(**architecture)
    weights, report = fill(file, as_kind, model, plan(model), inflated, left_out)
    fold_patch_embedding(weights)
    model.load_state_dict(weights, assign=True)
    card = Card(
        kind="vit",
        name=Path(file).stem,
        architecture=model.architecture,
        intensity=contracts(shift=0.0, scale=1.0),
        provenance=provenance(file, as_kind, "EVA-02, arXiv 2303.11331"),
        licence="as stated with the EVA-02 file (MIT by its authors)",
    )
    return model.eval(), card, report


def inflate(state: State, position_grid: Sequence[int] = POSITION_GRID) -> State:
    """Turn the weights of a 2D EVA-02 into those of the 3D transformer, under the same names.

    The patch kernel becomes 16 wide (bicubic) and is spread evenly along depth. The position table
    is repeated along depth. The class token's own position, row 0 of the table, is added to the
    class token, which has none in 3D (the authors of PUMIT took row 1, the first patch's).

    Args:
        state: EVA-02's weights.
        position_grid: (z, y, x) of the 3D table.

    Returns:
        New weights; those that stay alike are shared.
    """
    kernel, table = state["patch_embed.proj.weight"].float(), state["pos_embed"].float()
    return {
        **state,
        "patch_embed.proj.weight": inflate_depth(resize_kernel(kernel, PATCH), PATCH),
        "pos_embed": inflate_positions(table[:, 1:], position_grid),
        "cls_token": state["cls_token"].float() + table[:, :1],
    }
