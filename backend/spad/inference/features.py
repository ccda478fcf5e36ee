"""What a segmenter knows of a whole scan, computed once and kept for the clicks.

Kept are the decoder's map at half the working resolution, in which the transformer's tokens and the
scan have met, and the automatic probability of each organ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from spad.checkpoints.card import Card
from spad.data.model_input import UnitChannels
from spad.device import inference
from spad.inference.body import Slices, holds_tissue, tissue
from spad.inference.models import parameters_device
from spad.inference.pieces import drop_small_pieces
from spad.inference.sweep import window_side
from spad.models.clicker import FEATURE_LEVEL
from spad.models.sac import level_factors
from spad.models.segmenter import Segmenter

OVERLAP = 0.25
"""Of a window's side, shared by neighbours."""


@dataclass(eq=False)
class Features:
    """What is known so far of a scan; parts that no window has reached are 0.

    Attributes:
        maps: (C, d, h, w) float16, the decoder's map.
        organs: (K, D, H, W) uint8, probability of each class in 1/255, background first.
        ids: label of each class.
        names: id -> name of the labels.
        seen: (D, H, W) booleans, where a window has been.
        complete: whether all windows have been looked at.
        least_piece: index into `ids` to the share of its largest piece that a piece of an organ
            must have to count; see `spad.inference.pieces`.
    """

    maps: torch.Tensor
    organs: torch.Tensor
    ids: list[int]
    names: dict[int, str]
    seen: torch.Tensor
    complete: bool = False
    least_piece: dict[int, float] = field(default_factory=dict)
    _best: np.ndarray | None = None

    @property
    def best(self) -> np.ndarray:
        """The likeliest class of each voxel, (D, H, W) uint8, an index into `ids`.

        Once all has been looked at without an organ's small pieces.
        """
        if self._best is None or not self.complete:
            self._best = self.organs.argmax(0).to(torch.uint8).numpy()
            if self.complete:
                drop_small_pieces(self._best, self.least_piece)
        return self._best

    @property
    def megabytes(self) -> float:
        """Memory that is kept."""
        kept = (self.maps, self.organs, self.seen)
        return sum(t.numel() * t.element_size() for t in kept) / 1e6


class Encoding:
    """Fills `features` window by window, each time the one nearest to what a person looks at.

    Args:
        network: the segmenter, on its device.
        card: its card.
        unit: the scan in [0, 1] on the working grid.
        names: labels that count, id -> name.
    """

    def __init__(
        self, network: Segmenter, card: Card, unit: UnitChannels, names: dict[int, str]
    ) -> None:
        self._network, self._unit = network, unit
        self._cell = level_factors(FEATURE_LEVEL, unit.da)
        factors = network.factors(unit.da)
        size = unit.frame.size
        whole = [-(-n // f) * f for n, f in zip(size, factors, strict=True)]
        side = window_side(card, factors, unit.da)
        self._side = [min(a, b) for a, b in zip(side, whole, strict=True)]
        starts = [_starts(n, s, f) for n, s, f in zip(whole, self._side, factors, strict=True)]
        self._left = [(z, y, x) for z in starts[0] for y in starts[1] for x in starts[2]]
        self.count = len(self._left)
        self._size = size
        self._coarse = [n // c for n, c in zip(whole, self._cell, strict=True)]
        self._tissue = tissue(unit.array[0], unit.spacing)
        width = network.decoder.widths[FEATURE_LEVEL]
        ids = [0, *sorted(names)]
        self._ids = ids
        # sums of half precision are exact enough for a few weighted windows
        self._maps = torch.zeros(width, *self._coarse)
        self._organs = torch.zeros(len(ids), *whole)
        self._map_weight = torch.zeros(self._coarse)
        self._weight = torch.zeros(whole)
        covered = tuple(slice(0, -(-n // c)) for n, c in zip(size, self._cell, strict=True))
        self._covered: Slices = (covered[0], covered[1], covered[2])
        coarse = [part.stop for part in covered]
        self.features = Features(
            torch.zeros(width, *coarse, dtype=torch.float16),
            torch.zeros(len(ids), *size, dtype=torch.uint8),
            ids,
            names,
            torch.zeros(size, dtype=torch.bool),
            least_piece={
                n: card.least_piece[i] for n, i in enumerate(ids) if i in card.least_piece
            },
        )

    def windows(self, near: Sequence[float] = (0.5, 0.5, 0.5)) -> Iterator[int]:
        """Look at one window after the other, the nearest first.

        Args:
            near: where a person looks, (z, y, x) as shares of the scan's sides.

        Yields:
            How many windows are done.
        """
        if self.features.complete:
            return
        target = np.array(near) * np.array(self._size)
        middle = np.array(self._side) / 2
        place = parameters_device(self._network)
        weight = _gaussian(self._side)
        while self._left:
            at = min(self._left, key=lambda s: float(np.linalg.norm(np.array(s) + middle - target)))
            self._left.remove(at)
            self._look(at, weight, place)
            yield self.count - len(self._left)
        if self.features.complete:  # by a second pass that came in between two windows
            return
        self.features.complete = True
        self.features._best = None
        del self._maps, self._organs, self._map_weight, self._weight

    def _look(self, at: Sequence[int], weight: torch.Tensor, place: torch.device) -> None:
        stop = [s + n for s, n in zip(at, self._side, strict=True)]
        inside = [min(a, n) for a, n in zip(stop, self._size, strict=True)]
        part = tuple(slice(a, b) for a, b in zip(at, inside, strict=True))
        whole = tuple(slice(a, b) for a, b in zip(at, stop, strict=True))
        coarse = tuple(slice(a // c, b // c) for a, b, c in zip(at, stop, self._cell, strict=True))
        if self._tissue.any() and not holds_tissue(
            self._tissue, self._size, (part[0], part[1], part[2])
        ):
            self._organs[0][whole] += weight
            self._weight[whole] += weight
            self._publish(part, coarse)
            return
        crop = torch.from_numpy(self._unit.to_model((part[0], part[1], part[2])))
        missing = [b - a for a, b in zip(inside, stop, strict=True)]
        pad = (0, missing[2], 0, missing[1], 0, missing[0])
        crop = torch.nn.functional.pad(crop[None], pad, mode="replicate").to(place)
        with inference(place):
            maps = self._network.decoder_maps(
                crop.expand(-1, self._network.in_channels, -1, -1, -1), self._unit.da
            )
            chances = self._network.heads[0](maps[0])[0].float().softmax(0).cpu()
            feature = maps[FEATURE_LEVEL][0].float().cpu()
        kept = chances[self._ids]
        kept[0] += (1 - kept.sum(0)).clamp_(min=0)
        self._organs[(slice(None), *whole)] += kept * weight
        self._weight[whole] += weight
        small = torch.nn.functional.avg_pool3d(weight[None], self._cell)[0]
        self._maps[(slice(None), *coarse)] += feature * small
        self._map_weight[coarse] += small
        self._publish(part, coarse)

    def _publish(self, part: Sequence[slice], coarse: Sequence[slice]) -> None:
        """Put the sums of a part into `features`."""
        region = tuple(part)
        chance = self._organs[(slice(None), *region)] / self._weight[region]
        self.features.organs[(slice(None), *region)] = (chance * 255).round_().to(torch.uint8)
        self.features.seen[region] = True
        ends = self.features.maps.shape[-3:]
        small = tuple(slice(c.start, min(c.stop, n)) for c, n in zip(coarse, ends, strict=True))
        self.features.maps[(slice(None), *small)] = (
            self._maps[(slice(None), *small)] / self._map_weight[small].clamp(min=1e-6)
        ).half()


def _starts(size: int, side: int, factor: int) -> list[int]:
    """Place windows over a side, each at a whole cell, evenly."""
    if size <= side:
        return [0]
    count = math.ceil((size - side * OVERLAP) / (side * (1 - OVERLAP)))
    last = (size - side) // factor
    return sorted({round(n * last / max(1, count - 1)) * factor for n in range(max(2, count))})


def _gaussian(side: Sequence[int]) -> torch.Tensor:
    axes = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in side]
    weight = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    return weight.clamp_(min=1e-4)
