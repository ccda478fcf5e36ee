"""A segmenter slid over a scan from top to bottom; what it leaves behind is finished.

Memory does not depend on the number of slices: probabilities are held for one window's depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, product

import numpy as np
import psutil
import torch

from spad.checkpoints.card import Card
from spad.data.model_input import UnitChannels
from spad.device import Effort, inference
from spad.inference.body import Slices
from spad.inference.models import parameters_device
from spad.inference.windows import Blend, Window, Windows, least_side
from spad.models.segmenter import Segmenter
from spad.progress import Progress

WINDOW = (64, 96, 96)
"""Voxels of a window at `da` 0 where a card states none."""
OVERLAP = 0.375
"""Of a window's side, shared by neighbours."""
PART_NUMBERS = 4_000_000
"""Probabilities that are weighted at a time on a processor."""

MOST_OF_FREE = 0.5
"""Of the free memory that may go into the probabilities that are held."""

Slab = tuple[torch.Tensor, tuple[int, int, int]]


def window_side(card: Card, factors: Sequence[int], da: int, cut: int = 1) -> list[int]:
    """Give the window for a degree of anisotropy, in whole cells of the model's coarsest map.

    Args:
        card: of the model.
        factors: voxels of such a cell.
        da: of the working grid.
        cut: by how much the window is smaller than usual, along each axis.
    """
    depth, height, width = card.window or WINDOW
    wanted = (max(1, (depth >> da) // cut), height // cut, width // cut)
    return [-(-side // factor) * factor for side, factor in zip(wanted, factors, strict=True)]


class Sweep:
    """See the module.

    Args:
        network: the model, on its device.
        side: of the largest window.
        unit: the scan in [0, 1].
        ids: the classes that count, background first; all others are taken as background.
        effort: how many windows at once.
        flips: average over the eight mirror images of each window.

    Attributes:
        worth: whether a part of the working grid is worth looking at; it is background otherwise.
    """

    def __init__(
        self,
        network: Segmenter,
        side: Sequence[int],
        unit: UnitChannels,
        ids: Sequence[int],
        effort: Effort,
        *,
        flips: bool = False,
    ) -> None:
        self._network, self._side, self._unit, self._ids = network, side, unit, list(ids)
        self._at_once = effort.at_once
        choices = product((False, True), repeat=3) if flips else [(False,) * 3]
        self._mirrors = [[2 + n for n, one in enumerate(flip) if one] for flip in choices]
        self.worth: Callable[[Slices], bool] = lambda part: True
        self._place = parameters_device(network)

    def slabs(self, cells: Slices, progress: Progress) -> Iterator[Slab]:
        """Look at a part of the scan.

        Args:
            cells: the part, on the working grid.
            progress: told at every window.

        Raises:
            MemoryError: as torch's errors for want of memory, see `spad.device.stepping_down`.

        Yields:
            (ids, slices, H, W) probabilities, background first, from top to bottom, valid until
            the next ones; and the voxel (z, y, x) of the working grid that is their first.
        """
        size = [part.stop - part.start for part in cells]
        factors = self._network.factors(self._unit.da)
        side = [
            least_side(n, most, OVERLAP, factor)
            for n, most, factor in zip(size, self._side, factors, strict=True)
        ]
        windows = Windows(size, side, [round(n * OVERLAP) for n in side])
        blend = windows.weights(gaussian=True)
        rows = [list(row) for _, row in groupby(windows, key=lambda window: window.index[0])]
        deep = min(side[0], size[0])
        shape = (len(self._ids), deep, *size[1:])
        _check_memory(math.prod(shape), self._place)
        held = torch.zeros(shape, device=self._place)
        done = 0
        for number, row in enumerate(rows):
            top = row[0].spans[0].start
            for first in range(0, len(row), self._at_once):
                progress(done / len(windows), f"Window {done + 1} of {len(windows)}")
                some = row[first : first + self._at_once]
                self._look(some, cells, blend, held)
                done += len(some)
            last = number + 1 == len(rows)
            stop = size[0] if last else rows[number + 1][0].spans[0].start
            if held.is_cuda:
                torch.cuda.synchronize()
            finished = stop - top
            yield held[:, :finished], (cells[0].start + top, cells[1].start, cells[2].start)
            if not last:
                rest = held[:, finished:].clone()
                held[:, : deep - finished] = rest
                held[:, deep - finished :] = 0

    def _look(
        self, windows: Sequence[Window], cells: Slices, blend: Blend, held: torch.Tensor
    ) -> None:
        """Add what the model finds in some windows of a row, weighted."""
        worth, images = [], []
        for window in windows:
            z, y, x = (
                slice(whole.start + one.start, whole.start + one.stop)
                for whole, one in zip(cells, window.cells, strict=True)
            )
            if self.worth((z, y, x)):
                worth.append(window)
                images.append(torch.from_numpy(self._unit.to_model((z, y, x))))
            else:
                self._target(held, window)[0] += torch.from_numpy(blend.of(window)).to(self._place)
        if not worth:
            return
        batch = torch.stack(images).to(self._place)
        batch = batch.expand(-1, self._network.in_channels, -1, -1, -1)
        for mirror in self._mirrors:
            with inference(self._place):
                logits = self._network(batch.flip(mirror) if mirror else batch, self._unit.da)[0]
                logits = logits.flip(mirror) if mirror else logits
                for window, one in zip(worth, logits, strict=True):
                    weight = torch.from_numpy(blend.of(window) / np.float32(len(self._mirrors)))
                    self._add(self._target(held, window), one, weight.to(self._place))

    @staticmethod
    def _target(held: torch.Tensor, window: Window) -> torch.Tensor:
        """The part of what is held on which a window lies; what is held begins where it does."""
        _, height, width = window.cells
        return held[:, :, height, width]

    def _add(self, target: torch.Tensor, logits: torch.Tensor, weight: torch.Tensor) -> None:
        """Add weighted probabilities, in parts that stay in a processor's cache."""
        thick = len(weight)
        if not target.is_cuda:
            thick = max(1, PART_NUMBERS // (len(logits) * weight[0].numel()))
        for start in range(0, len(weight), thick):
            part = slice(start, start + thick)
            p = torch.softmax(logits[:, part].float(), dim=0).mul_(weight[part])
            if len(self._ids) == len(p):
                target[:, part] += p
                continue
            kept = p[self._ids[1:]]
            target[1:, part] += kept
            target[0, part] += (weight[part] - kept.sum(0)).clamp_(min=0)


def _check_memory(numbers: int, place: torch.device) -> None:
    """Step down in time: a system that promises more memory than it has ends the process later.

    Raises:
        MemoryError: so many float32 numbers are too much for the processor's free memory.
    """
    if place.type == "cpu" and 4 * numbers > MOST_OF_FREE * psutil.virtual_memory().available:
        raise MemoryError(f"{4 * numbers} bytes of probabilities")
