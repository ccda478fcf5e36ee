"""Windows over a grid: where they stand, who owns which cell, and weights that add up to one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

Slices = tuple[slice, slice, slice]

GAUSSIAN_SIGMA = 0.125
"""Of a window's side: the standard deviation of Gaussian weights (as in MONAI and nnU-Net)."""

LEAST_SHARE = 0.75
"""Of the window that a model was trained with: smaller ones show it too little."""


@dataclass(frozen=True)
class Span:
    """One window along one axis, in cells.

    Attributes:
        start: its first cell.
        stop: behind its last cell.
        first_owned: the first cell that lies more central in it than in any other window.
        stop_owned: behind the last such cell.
    """

    start: int
    stop: int
    first_owned: int
    stop_owned: int


@dataclass(frozen=True)
class Window:
    """A box of cells.

    Attributes:
        spans: along depth, height and width.
        index: which window along each axis.
    """

    spans: tuple[Span, Span, Span]
    index: tuple[int, int, int]

    @property
    def cells(self) -> Slices:
        """All its cells."""
        z, y, x = (slice(s.start, s.stop) for s in self.spans)
        return z, y, x

    @property
    def owned(self) -> Slices:
        """The cells that it owns; those of all windows tile the grid."""
        z, y, x = (slice(s.first_owned, s.stop_owned) for s in self.spans)
        return z, y, x

    @property
    def owned_inside(self) -> Slices:
        """The cells that it owns, counted from its own first cell."""
        z, y, x = (slice(s.first_owned - s.start, s.stop_owned - s.start) for s in self.spans)
        return z, y, x


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Lay equal windows over an axis, evenly, with at least `overlap` cells shared by neighbours.

    Args:
        length: cells of the axis.
        window: cells of a window; an axis that is shorter gets one window of its own length.
        overlap: less than `window`.
    """
    if length <= window:
        return [Span(0, length, 0, length)]
    count = -(-(length - overlap) // (window - overlap))
    starts = [round(i * (length - window) / (count - 1)) for i in range(count)]
    cuts = [(b + a + window) // 2 for a, b in pairwise(starts)]
    bounds = [0, *cuts, length]
    return [Span(start, start + window, bounds[i], bounds[i + 1]) for i, start in enumerate(starts)]


def least_side(length: int, side: int, overlap: float, factor: int) -> int:
    """Give the smallest window that needs no more windows along an axis than `side` does.

    Args:
        length: cells of the axis.
        side: cells of the window that the model was trained with, a multiple of `factor`; the
            result is at least `LEAST_SHARE` of it.
        overlap: share of a window that neighbours have in common, at least.
        factor: the result is a multiple of it.
    """

    def count(window: int) -> int:
        return len(spans(length, window, round(window * overlap)))

    least = -(-round(LEAST_SHARE * side) // factor) * factor
    smaller = (window for window in range(least, side, factor) if count(window) == count(side))
    return side if length <= side else next(smaller, side)


class Windows:
    """All windows over a grid.

    Args:
        grid: cells along depth, height and width.
        window: cells of a window.
        overlap: cells shared by neighbours, at least.
    """

    def __init__(self, grid: Sequence[int], window: Sequence[int], overlap: Sequence[int]) -> None:
        self.grid = tuple(grid)
        self.axes = [
            spans(length, side, min(shared, side - 1))
            for length, side, shared in zip(grid, window, overlap, strict=True)
        ]

    def __len__(self) -> int:
        return int(np.prod([len(axis) for axis in self.axes]))

    def __iter__(self) -> Iterator[Window]:
        for index in product(*(range(len(axis)) for axis in self.axes)):
            z, y, x = (axis[i] for axis, i in zip(self.axes, index, strict=True))
            yield Window((z, y, x), (index[0], index[1], index[2]))

    def weights(
        self,
        size: Sequence[int] | None = None,
        factors: Sequence[int] = (1, 1, 1),
        *,
        gaussian: bool,
    ) -> Blend:
        """Give blending weights for maps that are finer than the grid.

        Args:
            size: voxels of the fine map, at most grid * factors; None for grid * factors.
            factors: voxels per cell.
            gaussian: weigh by a Gaussian about the window's centre, else fall off linearly
                towards its faces.
        """
        size = [n * f for n, f in zip(self.grid, factors, strict=True)] if size is None else size
        rows = [
            _weights(axis, n, f, gaussian)
            for axis, n, f in zip(self.axes, size, factors, strict=True)
        ]
        return Blend(tuple(factors), tuple(size), rows)


@dataclass(frozen=True)
class Blend:
    """Weights of windows; at every voxel those of all windows add up to one.

    Attributes:
        factors: voxels per cell of the windows' grid.
        size: voxels of the map.
        rows: for each axis, for each window along it, a weight per voxel.
    """

    factors: tuple[int, ...]
    size: tuple[int, ...]
    rows: list[list[np.ndarray]]

    def voxels(self, window: Window) -> Slices:
        """The voxels of the map in a window (cut off at its far end)."""
        z, y, x = (
            slice(s.start * f, min(s.stop * f, n))
            for s, f, n in zip(window.spans, self.factors, self.size, strict=True)
        )
        return z, y, x

    def of(self, window: Window) -> np.ndarray:
        """(D, H, W) float32: the weight of each voxel of a window."""
        z, y, x = (rows[i] for rows, i in zip(self.rows, window.index, strict=True))
        return np.asarray(z[:, None, None] * (y[:, None] * x))


def _weights(axis: Sequence[Span], size: int, factor: int, gaussian: bool) -> list[np.ndarray]:
    raw = []
    total = np.zeros(size)
    for span in axis:
        start, stop = span.start * factor, span.stop * factor
        place = np.arange(start, min(stop, size)) + 0.5 - (start + stop) / 2
        half = (stop - start) / 2
        if gaussian:
            weight = np.exp(-0.5 * (place / (2 * half * GAUSSIAN_SIGMA)) ** 2)
        else:
            weight = half - np.abs(place)
        raw.append(weight)
        total[start : min(stop, size)] += weight
    return [
        (weight / total[s.start * factor : s.start * factor + len(weight)]).astype(np.float32)
        for weight, s in zip(raw, axis, strict=True)
    ]
