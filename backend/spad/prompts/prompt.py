"""Prompts: points, scribbles, boxes and lassos on the voxels of a scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.prompts.packed import pack, unpack

KINDS = ("point", "scribble", "box", "lasso")
Voxel = tuple[int, int, int]
_MOST_LISTED = 16


@dataclass(frozen=True)
class Prompt:
    """One thing that a person tells about an object.

    Attributes:
        kind: "point" (one voxel), "scribble" (voxels along a stroke, or all that was painted or
            erased), "box" (two opposite corners, both inside; equal along one axis for a box on a
            slice) or "lasso" (the corners of an outline that lies on one slice).
        voxels: indices into the spatial axes of `Volume.array`.
        positive: whether it belongs to the object; boxes and lassos always do.
    """

    kind: str
    voxels: tuple[Voxel, ...]
    positive: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no prompt."""
        if self.kind not in KINDS:
            raise SpadError(
                f"A prompt of the kind {self.kind!r} was given; expected one of {', '.join(KINDS)}."
            )
        count = len(self.voxels)
        expected = {"point": count == 1, "box": count == 2, "lasso": count >= 3}
        if not expected.get(self.kind, count >= 1):
            wanted = {"point": "one", "box": "two", "lasso": "three or more"}
            raise SpadError(
                f"A {self.kind} has {count} positions; expected "
                f"{wanted.get(self.kind, 'at least one')}."
            )
        if self.kind == "lasso" and self.axis is None:
            raise SpadError("A lasso does not lie on one slice; draw its outline on one slice.")
        if self.kind in ("box", "lasso") and not self.positive:
            raise SpadError(
                f"A {self.kind} was given as negative; a {self.kind} says where the object is: "
                "give it as positive, and use points or scribbles for what does not belong."
            )

    @property
    def axis(self) -> int | None:
        """The axis along which all voxels have one index; None if there is none."""
        array = np.array(self.voxels)
        flat = [axis for axis in range(3) if np.ptp(array[:, axis]) == 0]
        return flat[0] if flat else None

    def check_inside(self, shape: Sequence[int]) -> None:
        """Refuse a prompt outside a scan.

        Args:
            shape: of the scan, along the same axes.

        Raises:
            SpadError: a voxel lies outside.
        """
        for voxel in self.voxels:
            if not all(0 <= v < n for v, n in zip(voxel, shape, strict=True)):
                raise SpadError(
                    f"A {self.kind} lies at voxel {tuple(voxel)}, outside the scan, which has "
                    f"{' x '.join(map(str, shape))} voxels; click inside it."
                )

    def to_json(self) -> dict[str, Any]:
        """Give the prompt as plain JSON values; many voxels as `spad.prompts.packed` has them."""
        few = len(self.voxels) <= _MOST_LISTED
        return {
            "kind": self.kind,
            "voxels": [list(v) for v in self.voxels] if few else pack(np.array(self.voxels)),
            "positive": self.positive,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prompt:
        """Read a prompt from JSON values.

        Raises:
            SpadError: they are no prompt.
        """
        try:
            told = data["voxels"]
            listed = unpack(told).tolist() if isinstance(told, Mapping) else told
            voxels = tuple((int(v[0]), int(v[1]), int(v[2])) for v in listed if len(v) == 3)
            return cls(str(data["kind"]), voxels, bool(data.get("positive", True)))
        except (KeyError, TypeError, ValueError) as error:
            raise SpadError(
                f"A prompt is not as expected ({error}); expected the keys kind, voxels (lists of "
                "three indices, or such lists packed) and positive."
            ) from error


def point(voxel: Sequence[float], positive: bool = True) -> Prompt:
    """Make a point at the nearest voxel."""
    z, y, x = (math.floor(float(v) + 0.5) for v in voxel)
    return Prompt("point", ((z, y, x),), positive)
