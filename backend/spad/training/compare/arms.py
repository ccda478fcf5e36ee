"""Ways to train a segmenter that are compared: what differs in the recipe, all else being equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from spad.checkpoints import file, zoo
from spad.checkpoints.card import Card
from spad.checkpoints.importers import eva02
from spad.checkpoints.importers.inflate import inflate_depth
from spad.data.cases import Folder, read_channels
from spad.data.cohort import model_contracts
from spad.data.frames import working_frame
from spad.data.samples import window_crop
from spad.models.sac import level_factors
from spad.models.segmenter import PYRAMID_LEVELS
from spad.models.vit import SpatialViT
from spad.training.recipe import Recipe

ARMS = {
    "scratch": "ours from random weights",
    "pretrained": "ours from a masked-image model",
    "isotropic": "ours from random weights, all scans resampled to isotropic voxels",
    "da0": "ours from random weights, told da 0 of all scans",
    "eva02": "ours with a transformer inflated from 2D weights",
    "swin_unetr": "MONAI SwinUNETR",
    "dynunet": "MONAI DynUNet, planned as by nnU-Net",
}
"""Row -> what it is."""
NETWORKS = ("dynunet", "swin_unetr")
FOR_ARMS_ALONE = (
    *("model.network", "data.isotropic", "data.stated_da", "data.label_ratio", "init"),
)
"""Keys of the recipe in which the rows differ."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        overrides: dotted recipe key -> YAML text.
        init: the model to start from, or None.
    """

    overrides: dict[str, str]
    init: str | None = None


@dataclass(frozen=True)
class Grid:
    """The median training scan on its working grid.

    Attributes:
        spacing: mm along depth, height and width.
        da: degree of anisotropy.
    """

    spacing: tuple[float, float, float]
    da: int


def median_grid(recipe: Recipe, folders: Sequence[Folder]) -> Grid:
    """Look at the grids of all scans for training."""
    rule = None if recipe.data.in_plane_mm is None else {"in_plane": recipe.data.in_plane_mm}
    frames = [
        working_frame(read_channels(folder, case)[0], rule)
        for folder in folders
        for case in folder.cases
        if case.labels is not None and not case.validation
    ]
    z, y, x = np.median([frame.spacing for frame in frames], axis=0).tolist()
    return Grid((z, y, x), int(np.median([frame.da for frame in frames])))


def arm_of(
    name: str, recipe: Recipe, grid: Grid, *, pretrained: str, eva02_model: Path | None
) -> Arm:
    """Say how one row is trained.

    Args:
        name: a key of `ARMS`.
        recipe: what all rows have in common.
        grid: that of the median training scan.
        pretrained: the model from which "pretrained" starts.
        eva02_model: what `eva02_start` wrote, from which "eva02" starts.
    """
    if name == "pretrained":
        return Arm({}, pretrained)
    if name == "isotropic":
        return Arm({"data.isotropic": "true", **_window(recipe, grid, grid.spacing[1])})
    if name == "da0":
        return Arm({"data.stated_da": "0", **_window(recipe, grid, grid.spacing[0])})
    if name == "eva02" and eva02_model is not None:
        return Arm(_architecture(eva02_model, recipe), str(eva02_model))
    return Arm({"model.network": name} if name in NETWORKS else {})


def _window(recipe: Recipe, grid: Grid, spacing: float) -> dict[str, str]:
    """Give a window at `da` 0 that is as deep, in mm, as those of the other rows.

    Its depth is a whole number of the model's coarsest cells.
    """
    depth, height, width = window_crop(grid.da, recipe.data.window)
    cell = level_factors(PYRAMID_LEVELS[-1], 0)[0]
    cells = max(1, round(depth * grid.spacing[0] / spacing / cell))
    return {"data.window": json.dumps([cells * cell, height, width])}


def _architecture(model: Path, recipe: Recipe) -> dict[str, str]:
    """Give the transformer the shape of the model from which it starts."""
    given = zoo.find(model).card.architecture
    shape = {key: given[key] for key in ("dim", "depth", "heads")}
    if shape.items() <= recipe.model["vit"].items():
        return {}
    depth = given["depth"]
    blocks = [depth * (quarter + 1) // 4 - 1 for quarter in range(4)]
    return {"model.vit": json.dumps(shape), "model.blocks": json.dumps(blocks)}


def eva02_start(path: Path, recipe: Recipe, given: Path | None, seed: int) -> str:
    """Write the transformer from which "eva02" starts.

    Args:
        path: where.
        recipe: the size of the transformer, where no weights are given.
        given: a file of EVA-02's 2D weights; None for random 2D weights.
        seed: of the random weights.

    Returns:
        Where the weights come from, in words.

    Raises:
        SpadError: the file is no EVA-02.
    """
    if given is not None:
        model, card, _ = eva02.import_checkpoint(given)
        file.save(path, model, card)
        return f"2D weights of {given.name}"
    vit = SpatialViT(in_channels=recipe.model["in_channels"], **recipe.model["vit"])
    _inflate(vit, seed)
    card = Card(
        kind="vit",
        name=path.stem,
        architecture=vit.architecture,
        intensity=model_contracts(),
        provenance={"origin": "random 2D weights, inflated"},
        licence="CC0",
    )
    file.save(path, vit, card)
    return "random 2D weights"


def _inflate(vit: SpatialViT, seed: int) -> None:
    """Set the patch kernel and positions as a 2D transformer's beginning would give them."""
    generator = torch.Generator().manual_seed(seed)
    weight, position = vit.patch_embedding.weight, vit.position
    kernel = torch.empty(weight.shape[0], weight.shape[1], *weight.shape[3:])
    bound = kernel[0].numel() ** -0.5
    nn.init.uniform_(kernel, -bound, bound, generator=generator)
    plane = torch.empty_like(position[:, :, :1], device="cpu").requires_grad_(False)
    nn.init.trunc_normal_(plane, std=0.02, generator=generator)
    with torch.no_grad():
        weight.copy_(inflate_depth(kernel, weight.shape[2]))
        position.copy_(plane.expand_as(position))
