"""The models that this process holds: read once, used by every job."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spad.checkpoints import zoo
from spad.checkpoints.card import Card
from spad.checkpoints.file import load
from spad.device import choose
from spad.errors import SpadError

KEPT = 4
"""Models held at a time; the one used longest ago goes first."""

_lock = threading.Lock()
_held: dict[tuple[str, int, int, str], tuple[Any, Card]] = {}


def loaded(
    entry_or_name: zoo.Entry | str | Path, device: str | torch.device = "auto"
) -> tuple[Any, Card]:
    """Give a model ready for use.

    Args:
        entry_or_name: an entry of the zoo, a name or a path.
        device: where it runs.

    Returns:
        The model in evaluation mode, and its card. Both are shared: leave them as they are.

    Raises:
        SpadError: there is no such model, or its file cannot be used.
    """
    known = isinstance(entry_or_name, zoo.Entry)
    entry: zoo.Entry = entry_or_name if known else zoo.find(entry_or_name)  # type: ignore[assignment,arg-type]
    place = choose(device) if isinstance(device, str) else device
    try:
        status = entry.path.stat()
    except OSError as error:
        raise SpadError(
            f"The model file {entry.path} cannot be read ({error.strerror or error}); choose "
            "another model ('spad models list')."
        ) from error
    key = (str(entry.path.resolve()), status.st_mtime_ns, status.st_size, str(place))
    with _lock:
        found = _held.pop(key, None)
        if found is None:
            for stale in [one for one in _held if one[0] == key[0] and one[1:3] != key[1:3]]:
                del _held[stale]
            found = load(entry.path, place)
        _held[key] = found
        while len(_held) > KEPT:
            del _held[next(iter(_held))]
    return found[0], entry.card


def forget() -> None:
    """Let go of all models."""
    with _lock:
        _held.clear()


def chosen(kind: str, name: str | Path | None, modality: str | None) -> zoo.Entry:
    """Find the model for a job: the one that is named, else the default for the modality.

    Args:
        kind: "tokenizer", "mim" or "segmenter".
        name: a name or a path, or None.
        modality: of the scan, if it is known.

    Raises:
        SpadError: there is no such model, or it is of another kind.
    """
    if name is None:
        return zoo.default(kind, modality)
    entry = zoo.find(name)
    if entry.kind != kind:
        raise SpadError(
            f"The model '{entry.name}' is a {entry.kind}, but a {kind} is needed; choose one of "
            "that kind ('spad models list')."
        )
    return entry


def parameters_device(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device
