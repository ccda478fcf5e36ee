"""Whole numbers as short text: differences from row to row, compressed, in base64.

Voxels of a stroke lie beside each other, so 5000 of them take a few kilobytes.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_TYPES = ("<i2", "<i4", "<i8")


def pack(values: np.ndarray) -> dict[str, Any]:
    """Give whole numbers as JSON values.

    Args:
        values: (n, ...) integers.

    Returns:
        `type` and `shape` of the differences along the first axis, the first row being one from 0,
        and `differences` themselves.
    """
    differences = np.diff(np.asarray(values, np.int64), axis=0, prepend=0)
    low, high = differences.min(initial=0), differences.max(initial=0)
    kind = next(t for t in _TYPES if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    packed = zlib.compress(np.ascontiguousarray(differences, kind).tobytes(), 6)
    return {
        "type": kind,
        "shape": list(differences.shape),
        "differences": base64.b64encode(packed).decode(),
    }


def unpack(data: Mapping[str, Any]) -> np.ndarray:
    """Read what `pack` gave.

    Returns:
        (n, ...) int64.

    Raises:
        ValueError: it is damaged.
    """
    try:
        if data["type"] not in _TYPES:
            raise ValueError(f"numbers of the type {data['type']!r}")
        packed = zlib.decompress(base64.b64decode(data["differences"]))
        differences = np.frombuffer(packed, data["type"]).reshape(data["shape"])
    except (KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"packed numbers: {error}") from error
    return np.cumsum(differences, axis=0, dtype=np.int64)
