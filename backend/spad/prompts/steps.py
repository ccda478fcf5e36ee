"""Steps of a session's log that no model answers: voxels changed by hand, undone and redone."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.prompts.packed import pack, unpack
from spad.prompts.part import Part

if TYPE_CHECKING:
    from spad.prompts.session import Object


def voxels_entry(
    text: str,
    start: Sequence[int],
    mask: np.ndarray,
    values: np.ndarray,
    objects: Mapping[str, Object | None] | None = None,
    before: np.ndarray | None = None,
) -> dict[str, Any]:
    """Give the log's entry for a change by hand; see `Session.voxels`.

    Args:
        text: what was done.
        start: first voxel of a box.
        mask: booleans in it: which change.
        values: their labels afterwards, one for each that is set, in C order.
        objects: those that have other prompts afterwards, by name; None where one is gone.
        before: all labels of the box before; None notes no hash of them.
    """
    z, y, x = (int(v) for v in start)
    told = {name: None if one is None else one.to_json() for name, one in (objects or {}).items()}
    entry: dict[str, Any] = {"objects": told} if told else {}
    entry |= {
        "step": "voxels",
        "text": text,
        "part": Part((z, y, x), mask).to_json(),
        "values": pack(values),
    }
    return entry if before is None else entry | {"before": labels_digest(start, before)}


def moved_entry(
    step: str, start: Sequence[int], now: np.ndarray, then: np.ndarray
) -> dict[str, Any]:
    """Give the log's entry for a step that is undone or redone.

    Args:
        step: "undo" or "redo".
        start: first voxel of a box that holds all that changes.
        now: all labels of the box before ...
        then: ... and after it.
    """
    changed = Part((0, 0, 0), now != then).tight()
    if changed is None:
        return {"step": step, "before": "empty"}
    low = [a + b for a, b in zip(start, changed.start, strict=True)]
    return {"step": step, "before": labels_digest(low, now[changed.region])}


def labels_digest(start: Sequence[int], labels: np.ndarray) -> str:
    """Hash the labels of a box, whatever their type.

    Args:
        start: its first voxel.
        labels: (z, y, x) integers.
    """
    digest = hashlib.sha256(f"{[int(v) for v in start]}{labels.shape}".encode())
    for slab in labels:
        digest.update(np.ascontiguousarray(slab, "<i4").data)
    return digest.hexdigest()[:32]


def voxels_of(entry: Mapping[str, Any]) -> tuple[Part, np.ndarray]:
    """Read a change by hand: which voxels changed, and their labels afterwards.

    Raises:
        SpadError: it is damaged.
    """
    try:
        part, values = Part.from_json(entry["part"]), _values(entry["values"])
        if len(values) != np.count_nonzero(part.mask):
            raise ValueError(f"{len(values)} values")
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise SpadError(
            f"An edit in the file is damaged ({error}); expected a label for each voxel that it "
            "changed."
        ) from error
    return part, values


def _values(told: Any) -> np.ndarray:
    if isinstance(told, str):  # as earlier files have it
        return np.frombuffer(zlib.decompress(base64.b64decode(told)), "<i4")
    return unpack(told)
