"""What a segmenter knows of a whole scan, computed once and kept for the clicks.

Kept are the decoder's map at half the working resolution, in which the transformer's tokens and the
scan have met, and the automatic probability of each organ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from spad.checkpoints.card import Card
from spad.data.model_input import UnitChannels
from spad.device import inference
from spad.inference.body import Slices, body_box, holds_tissue, tissue
from spad.inference.models import parameters_device
from spad.inference.pieces import drop_small_pieces
from spad.inference.sweep import OVERLAP, window_side
from spad.inference.windows import Window, Windows, least_side
from spad.models.clicker import FEATURE_LEVEL
from spad.models.resize import pad_to_multiple
from spad.models.sac import level_factors
from spad.models.segmenter import Segmenter


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
        # windows begin at whole cells of the coarsest map, so that they all see the same tokens
        self._cell = cell = network.factors(unit.da)
        size = unit.frame.size
        self._tissue = tissue(unit.array[0], unit.spacing)
        self._body = tuple(
            slice(part.start // c, -(-part.stop // c))
            for part, c in zip(body_box(self._tissue, size), cell, strict=True)
        )
        grid = [part.stop - part.start for part in self._body]
        side = [
            least_side(n * c, most, OVERLAP, c) // c
            for n, most, c in zip(grid, window_side(card, cell, unit.da), cell, strict=True)
        ]
        windows = Windows(grid, side, [round(n * OVERLAP) for n in side])
        self._left = list(windows)
        self.count = len(self._left)
        voxels = level_factors(FEATURE_LEVEL, unit.da)
        inner = [c // v for c, v in zip(cell, voxels, strict=True)]
        self._coarse = windows.weights(factors=inner, gaussian=True)
        self._fine = windows.weights(factors=cell, gaussian=True)
        width = network.decoder.widths[FEATURE_LEVEL]
        ids = [0, *sorted(names)]
        self._ids = ids
        self._maps = torch.zeros(width, *self._coarse.size)
        self._map_weight = torch.zeros(self._coarse.size)
        self._organs = torch.zeros(len(ids), *self._fine.size)
        self._weight = torch.zeros(self._fine.size)
        self.features = Features(
            torch.zeros(
                width, *(-(-n // v) for n, v in zip(size, voxels, strict=True)), dtype=torch.float16
            ),
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
        target = np.array(near) * self._unit.frame.size / self._cell
        target -= [part.start for part in self._body]
        place = parameters_device(self._network)
        while self._left:
            window = min(self._left, key=lambda one: _distance(one, target))
            self._left.remove(window)
            self._look(window, place)
            yield self.count - len(self._left)
        if self.features.complete:  # by a second pass that came in between two windows
            return
        self.features.organs[0][~self.features.seen] = 255  # air around the body
        self.features.seen[:] = True
        self.features.complete = True
        self.features._best = None
        del self._maps, self._organs, self._map_weight, self._weight

    def _look(self, window: Window, place: torch.device) -> None:
        size = self._unit.frame.size
        voxels, cells = self._fine.voxels(window), self._coarse.voxels(window)
        z, y, x = (
            slice((s.start + b.start) * c, min((s.stop + b.start) * c, n))
            for s, b, c, n in zip(window.spans, self._body, self._cell, size, strict=True)
        )
        weight = torch.from_numpy(self._fine.of(window))
        self._weight[voxels] += weight
        if self._tissue.any() and not holds_tissue(self._tissue, size, (z, y, x)):
            self._organs[0][voxels] += weight
            self._publish((z, y, x), cells)
            return
        crop = torch.from_numpy(self._unit.to_model((z, y, x)))[None].to(place)
        crop = crop.expand(-1, self._network.in_channels, -1, -1, -1)
        with inference(place):
            da = self._unit.da
            maps = self._network.decoder_maps(pad_to_multiple(crop, self._network.factors(da)), da)
            chances = self._network.heads[0](maps[0])[0].float().softmax(0).cpu()
            feature = maps[FEATURE_LEVEL][0].float().cpu()
        fine = tuple(slice(0, n) for n in weight.shape)
        kept = chances[(self._ids, *fine)]
        kept[0] += (1 - kept.sum(0)).clamp_(min=0)
        self._organs[(slice(None), *voxels)] += kept * weight
        small = torch.from_numpy(self._coarse.of(window))
        coarse = tuple(slice(0, n) for n in small.shape)
        self._maps[(slice(None), *cells)] += feature[(slice(None), *coarse)] * small
        self._map_weight[cells] += small
        self._publish((z, y, x), cells)

    def _publish(self, region: Slices, cells: Slices) -> None:
        """Put the sums of a part into `features`.

        Args:
            region: the part, on the working grid.
            cells: the same in cells of the decoder's map, counted in the body.
        """
        inside = tuple(
            slice(r.start - b.start * c, r.stop - b.start * c)
            for r, b, c in zip(region, self._body, self._cell, strict=True)
        )
        chance = self._organs[(slice(None), *inside)] / self._weight[inside]
        self.features.organs[(slice(None), *region)] = (chance * 255).round_().to(torch.uint8)
        self.features.seen[region] = True
        kept = self.features.maps
        first = [b.start * n for b, n in zip(self._body, self._coarse.factors, strict=True)]
        there = tuple(
            slice(at + s.start, min(at + s.stop, n))
            for at, s, n in zip(first, cells, kept.shape[1:], strict=True)
        )
        here = tuple(slice(t.start - at, t.stop - at) for at, t in zip(first, there, strict=True))
        kept[(slice(None), *there)] = (
            self._maps[(slice(None), *here)] / self._map_weight[here].clamp(min=1e-6)
        ).half()


def _distance(window: Window, target: np.ndarray) -> float:
    middle = [(span.start + span.stop) / 2 for span in window.spans]
    return float(np.linalg.norm(middle - target))
