"""One broken or odd file: how it is made, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Make = Callable[[Path], Path]

SHAPE = (12, 10, 8)
AFFINE = np.array([[-0.8, 0, 0, 50], [0, -0.7, 0, 40], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
"""Of the good files: LPS identity directions, spacing 0.8 x 0.7 x 2.5 mm."""

VALUES = ((np.arange(960) * 7919) % 3001 - 1000).reshape(SHAPE).astype(np.int16)
LABELS = ((np.arange(960) // 40) % 3).reshape(SHAPE).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Reads:
    """It must be read, with these voxels and this place.

    Attributes:
        values: in file order, in the scan's unit.
        affine: (4, 4), file index to RAS+ mm.
        labels: whether it is to be labels; None if that does not matter.
        or_refused: whether a refusal is right as well (an independent reader takes the file, but
            says nothing of what is odd about it).
        or_noted: whether another place or shape is right as well, if a note tells of it.
        values_matter: whether voxels are compared (their shape always is).
    """

    values: np.ndarray
    affine: np.ndarray
    labels: bool | None = None
    or_refused: bool = False
    or_noted: bool = False
    values_matter: bool = True


@dataclass(frozen=True)
class Refused:
    """It must be refused in one sentence, which matches this expression."""

    match: str


@dataclass(frozen=True, eq=False)
class Case:
    """One file or folder.

    Attributes:
        family: the format, for the table.
        name: what is wrong or odd about it; unique in the family.
        make: writes it into an empty folder and gives the path to open.
        expect: what must come of it; a function is called with the path once it is made.
        options: what a person states (`spad.volumes.files.read`).
        skip: says why it cannot be made here, or None.
    """

    family: str
    name: str
    make: Make
    expect: Reads | Refused | Callable[[Path], Reads | Refused]
    options: dict[str, Any] = field(default_factory=dict)
    skip: Callable[[], str | None] = lambda: None

    @property
    def id(self) -> str:
        """The family and the name."""
        return f"{self.family}: {self.name}"


GOOD = Reads(VALUES, AFFINE)
MAYBE = Reads(VALUES, AFFINE, or_refused=True)


def flip_bits(raw: bytes, seed: int, start: int, end: int, count: int = 1) -> bytes:
    """Flip bits at random places of a stretch of bytes; the same seed flips the same."""
    rng = np.random.default_rng(seed)
    changed = bytearray(raw)
    for place in rng.integers(start, min(end, len(raw)), count):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def rewritten(make: Make, change: Callable[[bytes], bytes], name: str | None = None) -> Make:
    """Make a file, change its bytes, and give it back (under another name)."""

    def remake(folder: Path) -> Path:
        path = make(folder)
        raw = change(path.read_bytes())
        if name is not None:
            path.unlink()
            path = folder / name
        path.write_bytes(raw)
        return path

    return remake


def cut(make: Make, at: int | float) -> Make:
    """Keep the first bytes of a file: a number of them, a share, or all but the last (negative)."""

    def keep(raw: bytes) -> bytes:
        return raw[: round(len(raw) * at)] if isinstance(at, float) else raw[:at]

    return rewritten(make, keep)


def written(name: str, content: bytes) -> Make:
    """Write a file as it is."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make
