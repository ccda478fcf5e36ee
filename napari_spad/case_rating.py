"""Which models say how unsure they are of a case, and what is asked of the worker; no Qt."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.worker.messages import Rate

if TYPE_CHECKING:
    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume


def raters() -> set[str]:
    """Give the models whose figures count now, the default ones, by name and part of their hash."""
    found = set()
    for modality in ("CT", "MR", None):
        with suppress(SpadError):
            found.add(_rater(zoo.default("clicker", modality)))
    return found


def rating(volume: Volume, modality: str | None) -> tuple[Rate, str]:
    """Give what to ask of the worker about a scan, as its first click will, and who answers.

    Args:
        volume: the scan.
        modality: that of the other cases, for a scan that tells none.

    Raises:
        SpadError: nothing tells the modality, or no model takes it.
    """
    modality = volume.modality or modality
    if modality is None:
        raise SpadError(
            "Nothing tells whether this scan is CT or MR; expected one to rate it; choose it for "
            "the case that is open, in the Segment dock, and sort again."
        )
    clicker = zoo.default("clicker", modality)
    request = Rate(volume, str(clicker.path), modality)
    return request, _rater(clicker)


def _rater(clicker: Entry) -> str:
    """Name the segmenter that a clicker looks through: "organs-tiny 0123456789ab"."""
    if clicker.card.segmenter is None:
        raise SpadError(
            f"The model for clicks '{clicker.name}' has no segmenter; expected one, which rates a "
            "scan; train clicks with one ('spad train clicks --segmenter')."
        )
    segmenter = zoo.find(clicker.card.segmenter)
    return f"{segmenter.name} {_digest(segmenter.path, segmenter.path.stat().st_mtime_ns)}"


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
