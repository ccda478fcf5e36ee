"""Pages of HTML that need no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

STYLE = "page.css"


def fill(template: str, values: Mapping[str, object]) -> str:
    """Fill in one of this package's templates, which all have the same style.

    Args:
        template: its file's name.
        values: what stands for each `$name`.
    """
    return Template(_text(template)).substitute(values, style=_text(STYLE).strip("\n"))


def embedded(png: Path) -> str:
    """Give a picture as the address of itself."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode("ascii")


def _text(name: str) -> str:
    return files("spad.cli").joinpath(name).read_text(encoding="utf-8")
