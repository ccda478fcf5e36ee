"""The 55 data sets that SPAD-Nets were pre-trained on: what is fixed about each, in a table.

Source: PUMIT and SPAD-Nets, arXiv 2312.07630: names, orientations and weights as their
preprocessing has them. `unknown` means that nothing is fixed: the scan itself then tells.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

UNKNOWN = "unknown"


@dataclass(frozen=True)
class KnownSet:
    """What is fixed about a data set.

    Attributes:
        name: its name.
        dimensions: 2 (pictures) or 3.
        orientation: axes from depth to width (such as "SAR": depth runs superior-inferior), or
            "unknown": each scan's own rule.
        weight: factor of how often its scans are drawn.
        modality: DICOM code of all its scans, or "unknown".
        licence: its terms, or "unknown".
    """

    name: str
    dimensions: int = 3
    orientation: str = UNKNOWN
    weight: float = 1.0
    modality: str = UNKNOWN
    licence: str = UNKNOWN


@cache
def known_sets() -> tuple[KnownSet, ...]:
    """Read the table."""
    text = files("spad.data").joinpath("known_sets.json").read_text(encoding="utf-8")
    return tuple(KnownSet(**entry) for entry in json.loads(text))


def known_set(name: str) -> KnownSet | None:
    """Find a data set by its name; case, spaces and punctuation do not count."""
    return next((known for known in known_sets() if _plain(known.name) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
