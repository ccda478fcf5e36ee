"""The models of the golden cases, filled by the authors' names, and what compares them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from golden_rule import golden_input, weight, weights
from torch import nn

from spad.checkpoints.importers.foreign import arrange, compare
from spad.checkpoints.importers.names import plan
from spad.checkpoints.importers.pumit import IMAGENET_MEAN, IMAGENET_SD
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel, SpatialViT

M = TypeVar("M", bound=nn.Module)
SMALL_VIT: dict[str, Any] = {"in_channels": 3, "dim": 64, "depth": 2, "heads": 2}


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
        row: the row of the table of golden values.
        name: what is compared.
        tolerance: how far off is allowed; 0 = exact.
        error: computes how far off our module is.
    """

    row: int
    name: str
    tolerance: float
    error: Callable[[], float]


def with_authors_weights(model: M, prefix: str = "") -> M:
    """Fill a model by the authors' names, through the importer's own mapping.

    Args:
        model: one of our models.
        prefix: what stands before the authors' names where the model is a part of another.
    """
    places = plan(model)
    ours = model.state_dict()
    state = {name: weight(prefix + name, slot.of(ours).shape) for name, slot in places.items()}
    assert compare(places, model, state, []).complete
    model.load_state_dict(arrange(places, model, state))
    return model.eval()


def filled(module: nn.Module) -> nn.Module:
    module.load_state_dict(weights({k: v.shape for k, v in module.state_dict().items()}))
    return module


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    if found.shape != wanted.shape:
        return math.inf
    return float((found - wanted).detach().abs().max())


@functools.cache
def tokenizer() -> Tokenizer:
    """The authors' tokenizer."""
    return with_authors_weights(Tokenizer())


def shapes_error(found: dict[str, list[int]], wanted: dict[str, list[int]]) -> float:
    """Count the names that are on one side only or have another shape there."""
    return float(sum(found.get(name) != wanted.get(name) for name in found.keys() | wanted.keys()))


def authors_shapes(model: nn.Module) -> dict[str, list[int]]:
    """Give the authors' names and shapes of a model's weights."""
    ours = model.state_dict()
    return {name: list(slot.of(ours).shape) for name, slot in plan(model).items()}


def count(module: nn.Module) -> int:
    """Count parameters."""
    return sum(p.numel() for p in module.parameters())


@functools.cache
def small_vit() -> SpatialViT:
    return with_authors_weights(SpatialViT(**SMALL_VIT))


def eva_state(dim: int = 64, blocks: int = 2) -> dict[str, torch.Tensor]:
    """Make a 2D EVA-02 state dict: patch 14, 224 pixels."""
    with torch.device("meta"):
        names = authors_shapes(SpatialViT(**(SMALL_VIT | {"dim": dim, "depth": blocks})))
    names["patch_embed.proj.weight"] = [dim, 3, 14, 14]
    names["pos_embed"] = [1, 257, dim]
    return weights(names)


MASKED_INPUT = (2, 3, 8, 48, 48)


def masked_input() -> tuple[torch.Tensor, torch.Tensor]:
    """The scan in [0, 1] and the mask of its 18 tokens: the odd ones are hidden."""
    return golden_input(*MASKED_INPUT), (torch.arange(18) % 2 == 1).expand(2, -1)


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Normalise by ImageNet's mean and standard deviation."""
    mean, sd = (torch.tensor(v).view(3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_SD))
    return (x - mean) / sd


@functools.cache
def masked_model() -> MaskedImageModel:
    """The authors' masked-image model at its small size."""
    return with_authors_weights(MaskedImageModel(SMALL_VIT, codes=32))
