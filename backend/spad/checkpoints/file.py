"""Checkpoints on disk: weights in safetensors, with a card in the header."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from spad.checkpoints.card import Card
from spad.checkpoints.header import KEY, read_card
from spad.errors import SpadError
from spad.models.baselines import NETWORKS, segmentation_network
from spad.models.classifier import Classifier
from spad.models.clicker import Clicker
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel, SpatialViT

MODELS: dict[str, Callable[..., nn.Module]] = {
    "tokenizer": Tokenizer,
    "mim": MaskedImageModel,
    "segmenter": segmentation_network,
    "clicker": Clicker,
    "classifier": Classifier,
    "vit": SpatialViT,
}


def build(kind: str, architecture: Mapping[str, Any]) -> nn.Module:
    """Build a model with fresh weights.

    Args:
        kind: a kind of `Card`.
        architecture: constructor arguments.

    Raises:
        SpadError: unknown kind, or arguments that the model does not take.
    """
    if kind not in MODELS:
        raise SpadError(
            f"There is no kind of model called {kind!r}; expected one of {', '.join(MODELS)}."
        )
    try:
        return MODELS[kind](**architecture)
    except (TypeError, ValueError, ZeroDivisionError, IndexError, RuntimeError) as error:
        raise SpadError(
            f"A {kind} cannot be built from the architecture {dict(architecture)} ({error}); "
            "use a checkpoint that this version of spad wrote."
        ) from error


def save(
    path: str | Path,
    model: nn.Module,
    card: Card,
    dtype: torch.dtype | None = None,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model with its card; the file appears whole or not at all.

    Args:
        path: where; an existing file is replaced.
        model: a model of the card's kind.
        card: what it is; its architecture is taken from the model.
        dtype: the type in which floating-point weights are stored; None keeps theirs.
        weights: the model's state, where its parts lie in several processes; None takes its own.

    Returns:
        The path.

    Raises:
        SpadError: the model is of another kind, or the place cannot be written.
    """
    made = MODELS[card.kind]
    expected = made if isinstance(made, type) else tuple(NETWORKS.values())
    if not isinstance(model, expected):
        raise SpadError(
            f"A {type(model).__name__} was to be saved with a card of kind '{card.kind}'; give the "
            "card of the model's own kind."
        )
    card = dataclasses.replace(card, architecture=dict(model.architecture))  # type: ignore[arg-type]
    path = Path(path)
    metadata = {KEY: json.dumps(card.to_json(), allow_nan=False)}
    try:
        with tempfile.TemporaryDirectory(prefix=".spad-", dir=path.parent) as folder:
            part = Path(folder) / path.name
            save_file(_tensors(weights or model.state_dict(), dtype), part, metadata)
            part.replace(path)
    except (OSError, SafetensorError) as error:
        # safetensors words the system's reason like this: "...: I/O error: <reason> (os error 28)"
        said = getattr(error, "strerror", None) or str(error)
        reason = said.rpartition("I/O error: ")[2].partition(" (os error")[0]
        raise SpadError(
            f"{path} cannot be written ({reason}); "
            "expected a folder with free space that may be written: choose another place."
        ) from error
    return path


def load(
    path: str | Path, device: str | torch.device = "cpu", kind: str | None = None
) -> tuple[Any, Card]:
    """Read a model that `save` wrote.

    Args:
        path: the file.
        device: where its weights go.
        kind: the kind that is wanted, or None for any.

    Returns:
        The model in evaluation mode with float32 weights, and its card.

    Raises:
        SpadError: not a safetensors file, truncated, a pickle, without a card or a contract, of
            another kind, or with weights that do not fit its architecture.
    """
    card = read_card(path)
    if kind is not None and card.kind != kind:
        raise SpadError(
            f"{path} holds a {card.kind}, but a {kind} is needed; choose a model of that kind "
            "('spad models list')."
        )
    with torch.device("meta"):
        model = build(card.kind, card.architecture)
    try:
        tensors = load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise SpadError(
            f"The weights in {path} cannot be read ({error}); expected the file as 'spad' wrote "
            "it; copy it again."
        ) from error
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    _check_fit(path, model.state_dict(), floats)
    model.load_state_dict(floats, assign=True)
    return model.eval(), card


def _tensors(
    weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
    return tensors


def _check_fit(
    path: str | Path, wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> None:
    missing = sorted(wanted.keys() - given.keys())
    unexpected = sorted(given.keys() - wanted.keys())
    other = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & given.keys())
        if wanted[name].shape != given[name].shape
    ]
    found = [
        f"{len(names)} weights are {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for names, what in (
            (missing, "missing"),
            (unexpected, "unknown"),
            (other, "of another shape"),
        )
        if names
    ]
    if found:
        raise SpadError(
            f"The weights in {path} do not fit its card: {'; '.join(found)}; use a checkpoint "
            "that this version of spad wrote."
        )
