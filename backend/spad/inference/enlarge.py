"""From class probabilities on a coarse grid to labels on the fine one, slab by slab.

Interpolation equals `spad.models.resize.resize`, but classes x fine grid never exists in memory,
and of the coarse probabilities only what was just finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

SLAB_SLICES, TILE = 16, 32
"""Fine voxels of a tile along depth, and along height and width."""
SLAB_NUMBERS = 16_000_000
"""Interpolated probabilities of a slab on a GPU, where larger tiles are faster."""


@dataclass(frozen=True)
class Line:
    """Resampling along one axis for a run of fine voxels.

    Attributes:
        start: the first fine voxel.
        lower: for each fine voxel the first coarse one that it is made of.
        upper: the last one (the next one, or the same, where the axis grows).
        share: where the axis grows, the weight of the upper one; None for the mean of all.
    """

    start: int
    lower: torch.Tensor
    upper: torch.Tensor
    share: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def fine(self) -> slice:
        """The fine voxels."""
        return slice(self.start, self.start + len(self))

    @cached_property
    def coarse(self) -> slice:
        """The coarse voxels that have a part in them."""
        return slice(int(self.lower.min()), int(self.upper.max()) + 1)

    def part(self, first: int, stop: int) -> Line:
        """The same for fewer fine voxels, counted from the first one."""
        run = slice(first, stop)
        share = None if self.share is None else self.share[run]
        return Line(self.start + first, self.lower[run], self.upper[run], share)

    def parts(self, length: int) -> list[Line]:
        """The same in runs of at most `length` fine voxels."""
        return [self.part(i, min(i + length, len(self))) for i in range(0, len(self), length)]

    def within(self, first: int, stop: int) -> Line:
        """The same for the fine voxels from `first` to before `stop` alone."""
        lowest, behind = (min(max(i - self.start, 0), len(self)) for i in (first, stop))
        return self.part(lowest, max(lowest, behind))

    def counted_from(self, coarse: int) -> Line:
        """The same where the coarse voxel `coarse` comes first."""
        return Line(self.start, self.lower - coarse, self.upper - coarse, self.share)

    def apply(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Resample an axis of a map that holds the coarse voxels `self.coarse`."""
        if dim == x.ndim - 1:
            # gathering along the innermost axis is many times slower than this product
            return x @ self.matrix.to(x.device)
        if self.share is None:
            return (x.transpose(dim, -1) @ self.matrix.to(x.device)).transpose(dim, -1)
        low, high = (
            x.index_select(dim, (index - self.coarse.start).to(x.device))
            for index in (self.lower, self.upper)
        )
        shape = [1] * x.ndim
        shape[dim] = len(self)
        return torch.lerp(low, high, self.share.view(shape).to(x.device))

    @cached_property
    def matrix(self) -> torch.Tensor:
        """(coarse, fine) weights."""
        place = torch.arange(self.coarse.start, self.coarse.stop)[:, None]
        if self.share is None:
            inside = ((place >= self.lower) & (place <= self.upper)).float()
            return inside / inside.sum(0)
        return (place == self.lower) * (1 - self.share) + (place == self.upper) * self.share


def line(coarse: int, fine: int, known: slice | None = None) -> Line:
    """Resampling between two grids whose outer edges coincide.

    Args:
        coarse: voxels of the coarse axis.
        fine: voxels of the other one; if there are fewer, each is a mean.
        known: the coarse voxels that there are; fine voxels whose centres lie elsewhere are left
            out. None for all.
    """
    first, behind = (0, coarse) if known is None else (known.start, known.stop)
    centres = (torch.arange(fine, dtype=torch.float64) + 0.5) * (coarse / fine)
    index = ((centres >= first) & (centres < behind)).nonzero()[:, 0]
    share = None
    if fine < coarse:
        lower = index * coarse // fine
        upper = -(-(index + 1) * coarse // fine) - 1
    else:
        place = (centres[index] - 0.5).clamp(min=0)
        lower = place.floor().long()
        upper, share = lower + 1, (place - lower).float()
    lower, upper = (places.clamp(first, behind - 1) for places in (lower, upper))
    return Line(int(index[0]) if len(index) else 0, lower, upper, share)


class Enlarger:
    """Gives the likeliest class of every fine voxel, from coarse slabs as they are finished.

    Args:
        lines: the resampling along depth, height and width; other fine voxels are left as they are.
        ids: the label of each class, 0 for the background, which is first.
        labels: (D, H, W) on the fine grid (any strides), filled in.
        confidence: the same, filled with the probability of each voxel's label in percent; None
            where it is not wanted.
    """

    def __init__(
        self,
        lines: tuple[Line, Line, Line],
        ids: Sequence[int],
        labels: np.ndarray,
        confidence: np.ndarray | None = None,
    ) -> None:
        self._deep, self._high, self._wide = lines
        self._table = np.asarray(ids, labels.dtype)
        self._labels, self._confidence = labels, confidence
        self._rest: torch.Tensor | None = None
        self._first = 0
        self._done = 0

    def add(self, slab: torch.Tensor, corner: Sequence[int]) -> None:
        """Take in the next coarse slices and write what can be told from them.

        Args:
            slab: (classes, slices, H, W) probabilities that add up to one. A slab begins where the
                last one ended.
            corner: the coarse voxel (z, y, x) that is its first.
        """
        if self._rest is None:
            self._first = corner[0]
        else:
            slab = torch.cat([self._rest, slab], dim=1)
        behind = self._first + slab.shape[1]
        ready = int((self._deep.upper < behind).sum())
        with _one_thread():
            for deep in self._deep.part(self._done, ready).parts(self._thickness(slab)):
                self._write(slab, (self._first, corner[1], corner[2]), deep)
        self._done = ready
        needed = min(int(self._deep.lower[ready]), behind) if ready < len(self._deep) else behind
        self._rest = slab[:, max(0, needed - self._first) :].clone()
        self._first = max(self._first, needed)

    def _thickness(self, slab: torch.Tensor) -> int:
        if slab.device.type == "cpu":
            return SLAB_SLICES
        return max(1, SLAB_NUMBERS // (len(slab) * len(self._high) * len(self._wide)))

    def _write(self, slab: torch.Tensor, corner: Sequence[int], deep: Line) -> None:
        small = slab.device.type == "cpu"
        highs, wides = (one.parts(TILE if small else len(one)) for one in (self._high, self._wide))
        for high in highs:
            for wide in wides:
                lines = (deep, high, wide)
                cells = zip(lines, corner, strict=True)
                coarse = slab[
                    (slice(None), *(one.counted_from(first).coarse for one, first in cells))
                ]
                box = tuple(one.fine for one in lines)
                winner, peak = _winners(coarse, lines, certain=self._confidence is None)
                self._labels[box] = self._table[winner]
                if self._confidence is not None:
                    self._confidence[box] = peak


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep a processor's work on tiles in one thread.

    At each of many short steps several threads wait for each other, on a busy machine for longer
    than all the work takes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _winners(
    coarse: torch.Tensor, lines: Sequence[Line], *, certain: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the likeliest class of each fine voxel of a tile, and its probability in percent.

    Only classes that reach 1 / classes somewhere can be the likeliest; where just one does, it is
    everywhere.

    Args:
        coarse: (classes, z, y, x), the coarse voxels that have a part in the tile.
        lines: the resampling along its axes.
        certain: leave the probabilities out where they do not matter.
    """
    kept = (coarse.amax((1, 2, 3)) >= 1 / len(coarse) - 1e-6).nonzero()[:, 0]
    if certain and len(kept) == 1:
        return kept.cpu().numpy(), np.zeros(1, np.uint8)
    fine = coarse[kept]
    for dim in (3, 2, 1):
        fine = lines[dim - 1].apply(fine, dim)
    peak = fine[0].clone()
    row = torch.zeros(
        peak.shape, dtype=torch.uint8 if len(kept) < 256 else torch.int16, device=peak.device
    )
    for number in range(1, len(kept)):
        row.masked_fill_(fine[number] > peak, number)
        torch.maximum(peak, fine[number], out=peak)
    winner = kept.cpu().numpy()[row.cpu().numpy()]
    return winner, (peak.clamp_(0, 1) * 100).round_().to(torch.uint8).cpu().numpy()
