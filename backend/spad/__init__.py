"""SPAD: spatially adaptive tokens for medical scans. Attributes load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spad.errors import Cancelled, SpadError
    from spad.inference.clicks import ClickSession
    from spad.inference.segment import segment
    from spad.inference.tokens import Masking, Tokenization, mask, tokenize
    from spad.volumes.files import read, write
    from spad.volumes.volume import SourceGrid, Volume

_HOMES = {
    "Cancelled": "spad.errors",
    "SpadError": "spad.errors",
    "SourceGrid": "spad.volumes.volume",
    "Volume": "spad.volumes.volume",
    "read": "spad.volumes.files",
    "write": "spad.volumes.files",
    "tokenize": "spad.inference.tokens",
    "Tokenization": "spad.inference.tokens",
    "mask": "spad.inference.tokens",
    "Masking": "spad.inference.tokens",
    "segment": "spad.inference.segment",
    "ClickSession": "spad.inference.clicks",
}

__all__ = [
    "Cancelled",
    "ClickSession",
    "Masking",
    "SourceGrid",
    "SpadError",
    "Tokenization",
    "Volume",
    "mask",
    "read",
    "segment",
    "tokenize",
    "write",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name when the name is asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'spad' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
