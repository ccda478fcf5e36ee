"""JSON as RFC 8259 has it: what is undefined or infinite is null, and files appear whole or not."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spad.volumes.files.disk import replace_files


def dumps(value: Any, indent: int | None = 2) -> str:
    """Give the JSON text of plain values, numpy values, paths and containers of these."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write(path: str | Path, value: Any) -> Path:
    """Write a JSON file under its final name only once it is complete.

    Raises:
        SpadError: if the folder does not exist or cannot be written.
    """
    return write_text(path, dumps(value) + "\n")


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file (UTF-8) under its final name only once it is complete.

    Raises:
        SpadError: if the folder does not exist or cannot be written.
    """
    path = Path(path)
    replace_files([path], lambda files: _fill(files[0], text))
    return path


def _fill(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
