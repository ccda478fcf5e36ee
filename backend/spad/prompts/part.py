"""An object's voxels in a box of the scan: what answers, edits and undo steps are made of."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.prompts.prompt import Voxel

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Part:
    """See the module.

    Attributes:
        start: first voxel of the box, along the axes of `Volume.array`.
        mask: booleans.
    """

    start: Voxel
    mask: np.ndarray

    @property
    def region(self) -> Slices:
        """The box."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True))
        return z, y, x

    @property
    def stop(self) -> Voxel:
        """The voxel behind the box's last."""
        z, y, x = (a + n for a, n in zip(self.start, self.mask.shape, strict=True))
        return z, y, x

    def tight(self) -> Part | None:
        """The same in the smallest box; None where nothing is set."""
        box = bounds(self.mask)
        if box is None:
            return None
        z, y, x = (a + one.start for a, one in zip(self.start, box, strict=True))
        return Part((z, y, x), self.mask[box])

    def digest(self) -> str:
        """Give a hash of the voxels that are set, whatever the box."""
        tight = self.tight()
        if tight is None:
            return "empty"
        text = f"{tight.start}{tight.mask.shape}".encode()
        bits = np.packbits(np.ascontiguousarray(tight.mask))
        return hashlib.sha256(text + bits.tobytes()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values; the mask as compressed bits."""
        bits = np.packbits(np.ascontiguousarray(self.mask)).tobytes()
        return {
            "start": list(self.start),
            "shape": list(self.mask.shape),
            "bits": base64.b64encode(zlib.compress(bits, 6)).decode(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Part:
        """Read what `to_json` gave.

        Raises:
            SpadError: the values are not as expected.
        """
        try:
            z, y, x = (int(v) for v in data["start"])
            shape = tuple(int(n) for n in data["shape"])
            bits = np.frombuffer(zlib.decompress(base64.b64decode(data["bits"])), np.uint8)
            mask = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise SpadError(
                f"A mask in the file is damaged ({error}); expected start, shape and bits as they "
                "were written."
            ) from error
        return cls((z, y, x), mask)


def bounds(mask: np.ndarray) -> Slices | None:
    """Give the smallest box around the voxels that are set; None where there are none."""
    found = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        line = np.flatnonzero(mask.any(axis=others))
        if not len(line):
            return None
        found.append(slice(int(line[0]), int(line[-1]) + 1))
    return found[0], found[1], found[2]


def part_of(labels: np.ndarray, label: int, region: Sequence[slice] | None = None) -> Part | None:
    """Cut a label out of an array, in the smallest box; None where it has no voxel.

    Args:
        labels: (z, y, x) integers.
        label: which.
        region: where to look; None looks everywhere.
    """
    where = tuple(region) if region is not None else (slice(0, n) for n in labels.shape)
    z, y, x = (slice(one.start or 0, one.stop) for one in where)
    return Part((z.start, y.start, x.start), labels[z, y, x] == label).tight()
