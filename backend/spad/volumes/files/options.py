"""What a person may state about a file before it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spad.errors import SpadError


@dataclass(frozen=True)
class Options:
    """Statements that rule over a file's own.

    Attributes:
        depth: the file's axis (0, 1, 2 = i, j, k) that is depth.
        labels: True to insist on labels (whole numbers), False to insist on an image.
        spacing: mm along the file's axes i, j and k (or i and j of a flat picture), for formats
            that have none of their own.
        series: SeriesInstanceUID of the series to read where several are found.
    """

    depth: int | None = None
    labels: bool | None = None
    spacing: tuple[float, ...] | None = None
    series: str | None = None

    def __post_init__(self) -> None:
        """Refuse a spacing that no scan has."""
        if self.spacing is None:
            return
        good = len(self.spacing) in (2, 3) and all(
            math.isfinite(step) and step > 0 for step in self.spacing
        )
        if not good:
            said = " x ".join(f"{step:g}" for step in self.spacing) or "nothing"
            raise SpadError(
                f"A voxel spacing of {said} mm was stated; expected two or three positive numbers "
                "(along i, j and k, which are x, y and z); state it so."
            )
