"""A click's answer: the region that grows until the object lies in it, and the object in there.

All positions here are voxels of the scan's canonical view, depth first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from spad.checkpoints import zoo
from spad.checkpoints.card import Card
from spad.data.model_input import contract_for, in_unit, one_phase, refuse_labels, scan_limits
from spad.data.patches import SIDE, Patch, akin, alike, filled, marks, patch_at
from spad.device import inference
from spad.inference.features import Features
from spad.inference.models import chosen, loaded, parameters_device
from spad.models.clicker import FEATURE_LEVEL, Clicker
from spad.prompts.part import Part, bounds
from spad.prompts.prompt import Prompt
from spad.volumes.axes import canonical_order, to_canonical
from spad.volumes.volume import Volume

FINEST_MM, COARSEST_MM = 1.0, 5.0
"""Spacing of a patch: at least the scan's own and the first, at most the second."""
ROOM = 1.3
"""How much wider than the object a patch is."""
FIRST_MM = 200.0
"""What a first patch shows where nothing tells how large the object is."""
MARGIN = 3
"""Voxels at a patch's edge in which an object that reaches beyond it stays as it was."""
MOST_POINTS = 200
"""Of a scribble: more are thinned out evenly."""
PASSES = 4

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class ClickScan:
    """A scan as the click decoder sees it.

    Attributes:
        unit: (D, H, W) uint8, [0, 1] in 1/255 by the intensity contract, canonical, depth first.
        spacing: in mm.
        order: canonical axis n is axis `order[n]` of `Volume.array` ...
        flips: ... reversed if `flips[n]`.
        modality: of the scan.
    """

    unit: torch.Tensor
    spacing: tuple[float, float, float]
    order: tuple[int, ...]
    flips: tuple[bool, ...]
    modality: str | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along depth, height and width."""
        depth, height, width = self.unit.shape
        return depth, height, width

    def canonical(self, voxels: np.ndarray) -> np.ndarray:
        """Bring (n, 3) indices of `Volume.array` to the canonical view."""
        turned = np.asarray(voxels)[:, list(self.order)].copy()
        for axis, flip in enumerate(self.flips):
            if flip:
                turned[:, axis] = self.shape[axis] - 1 - turned[:, axis]
        return turned

    def array_voxel(self, voxel: np.ndarray) -> tuple[int, int, int]:
        """Bring one voxel of the canonical view to an index of `Volume.array`."""
        made = [0, 0, 0]
        for axis, (place, flip) in enumerate(zip(voxel, self.flips, strict=True)):
            made[self.order[axis]] = int(self.shape[axis] - 1 - place if flip else place)
        return made[0], made[1], made[2]

    def canonical_part(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Bring a part to the canonical view: its first voxel and its mask."""
        corners = self.canonical(np.array([part.start, np.array(part.stop) - 1]))
        return corners.min(0), _flipped(part.mask.transpose(self.order), self.flips)

    def array_part(self, region: Slices, mask: np.ndarray) -> Part:
        """Bring a canonical region and its mask to the axes of `Volume.array`."""
        start = [0, 0, 0]
        for axis, (part, flip) in enumerate(zip(region, self.flips, strict=True)):
            start[self.order[axis]] = self.shape[axis] - part.stop if flip else part.start
        back = np.argsort(self.order)
        return Part((start[0], start[1], start[2]), _flipped(mask, self.flips).transpose(back))


def _flipped(mask: np.ndarray, flips: Sequence[bool]) -> np.ndarray:
    return mask[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def click_scan(
    volume: Volume, card: Card, modality: str | None = None, phase: int = 0
) -> ClickScan:
    """Bring a scan into the form that clicks need: one byte for each voxel.

    Raises:
        SpadError: labels were given, the model has no contract for the modality, the phase does
            not exist or no voxel is finite.
    """
    refuse_labels(volume)
    modality = modality or volume.modality
    contract = contract_for(card, modality)
    scan = one_phase(volume, phase)
    limits = scan_limits(scan, contract)
    view, affine = to_canonical(scan, depth_first=True)
    unit = np.empty(view.shape, np.uint8)
    for index, plane in enumerate(view):
        values = contract.to_unit(in_unit(scan, plane), limits)
        unit[index] = np.clip(np.rint(values * 255), 0, 255)
    z, y, x = (float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
    order, flips = canonical_order(scan.affine, depth_first=True)
    return ClickScan(torch.from_numpy(unit), (z, y, x), tuple(order), tuple(flips), modality)


@dataclass(eq=False)
class Told:
    """The prompts of an object in canonical voxels.

    Attributes:
        positive, negative: (n, 3) points and thinned scribbles.
        boxes: first and last voxel, (2, 3) each.
        lassos: (n, 3) voxels inside each.
        fixed: (n, 3) voxels and whether they belong to the object: exactly what was clicked,
            painted or erased.
        latest: (n, 3) voxels of the last prompt.
        latest_is_region: whether that is a box or a lasso.
    """

    positive: np.ndarray
    negative: np.ndarray
    boxes: list[np.ndarray]
    lassos: list[np.ndarray]
    fixed: list[tuple[np.ndarray, bool]] = field(default_factory=list)
    latest: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    latest_is_region: bool = False


def told(prompts: Sequence[Prompt], scan: ClickScan) -> Told:
    """Bring prompts to canonical voxels."""
    points: dict[bool, list[np.ndarray]] = {True: [], False: []}
    found = Told(np.zeros((0, 3)), np.zeros((0, 3)), [], [])
    for prompt in prompts:
        voxels = scan.canonical(np.array(prompt.voxels))
        found.latest, found.latest_is_region = voxels, prompt.kind in ("box", "lasso")
        if prompt.kind == "box":
            found.boxes.append(np.array([voxels.min(0), voxels.max(0)]))
        elif prompt.kind == "lasso":
            found.lassos.append(_inside_outline(voxels, scan.shape))
            found.latest = found.lassos[-1]
        else:
            thin = max(1, math.ceil(len(voxels) / MOST_POINTS))
            points[prompt.positive].append(voxels[::thin])
            found.fixed.append((voxels, prompt.positive))
    empty = np.zeros((0, 3))
    found.positive = np.concatenate([empty, *points[True]])
    found.negative = np.concatenate([empty, *points[False]])
    return found


def _inside_outline(corners: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Fill an outline on a slice: the voxels whose centres lie in it, or on its corners."""
    from matplotlib.path import Path as Outline

    axis = int(np.flatnonzero(np.ptp(corners, axis=0) == 0)[0])
    others = [a for a in range(3) if a != axis]
    flat = corners[:, others]
    low, high = flat.min(0), flat.max(0)
    rows, columns = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    cells = np.stack([rows.ravel(), columns.ravel()], 1)
    inside = cells[Outline(flat).contains_points(cells, radius=1e-6)]
    inside = np.unique(np.concatenate([inside, flat]), axis=0)
    made = np.full((len(inside), 3), corners[0, axis])
    made[:, others] = inside
    return made


class Before:
    """An object as it was, on the canonical grid; only its box is held."""

    def __init__(self, part: Part, scan: ClickScan) -> None:
        self._start, self._mask = scan.canonical_part(part)
        self.shape = scan.shape
        self.box = np.array([self._start, self._start + np.array(self._mask.shape)])

    def __getitem__(self, part: Slices) -> torch.Tensor:
        """Give the voxels of a part: booleans."""
        made = np.zeros([one.stop - one.start for one in part], bool)
        low = np.array([one.start for one in part])
        high = np.array([one.stop for one in part])
        first, last = np.maximum(low, self.box[0]), np.minimum(high, self.box[1])
        if (last > first).all():
            there = _between(first - low, last - low)
            made[there] = self._mask[_between(first - self._start, last - self._start)]
        return torch.from_numpy(made)


def _between(first: np.ndarray, last: np.ndarray) -> Slices:
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return z, y, x


class ClickModel:
    """The decoder with what it needs around it.

    Args:
        name: name or file of a clicker, None for the default.
        place: where it runs.
    """

    def __init__(self, name: str | Path | None, place: torch.device) -> None:
        self.entry: zoo.Entry = chosen("clicker", name, None)
        self.place = place
        self.network: Clicker
        self.network, self.card = loaded(self.entry, place)
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def answer(
        self,
        scan: ClickScan,
        features: Features | None,
        prompts: Sequence[Prompt],
        previous: Part | None,
        organ: str | None,
        *,
        organs: bool = True,
        show: Callable[[Part], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Part:
        """Find an object anew after a prompt.

        Args:
            scan: the scan.
            features: what a segmenter knows of it, or None.
            prompts: all of the object's, in order; the last one is new.
            previous: the object so far, None if there is none.
            organ: name of what is meant; None to take the organ where one clicked.
            organs: tell the decoder the automatic probability of organs.
            show: given a first, coarser answer where a finer one follows.
            check: called before each look; may raise `Cancelled`.

        Returns:
            The object in a part of the scan, beyond which it stays as it was: for a first click on
            an automatic organ that organ, else what the decoder finds. It is a function of the
            arguments (but for `show` and `check`) alone.
        """
        work = _Work(self.network, scan, features, told(prompts, scan), organ, organs)
        work.check = check
        if previous is not None:
            return work.finished(*work.correct(Before(previous, scan)))
        found = work.automatic() if len(prompts) == 1 and prompts[0].kind == "point" else None
        return found or work.finished(*work.first(show).on_scan())


class _Work:
    """One answer in the making."""

    def __init__(
        self,
        network: Clicker,
        scan: ClickScan,
        features: Features | None,
        said: Told,
        organ: str | None,
        organs: bool,
    ) -> None:
        self.network, self.scan, self.features, self.said = network, scan, features, said
        self.tells_organs = organs and features is not None
        self.place = parameters_device(network)
        self.spacing = np.array(scan.spacing)
        self.shape = np.array(scan.shape)
        self.finest = max(FINEST_MM, float(min(scan.spacing[1:])))
        self.organ = self._organ(organ)
        self.check: Callable[[], None] = lambda: None

    # what is known before the decoder looks

    def _organ(self, name: str | None) -> int | None:
        """The class that is meant: the one of that name, else the likeliest where one clicked."""
        if not self.tells_organs or self.features is None:
            return None
        by_name = {self.features.names[i]: n for n, i in enumerate(self.features.ids) if i}
        if name in by_name:
            return by_name[name]
        if name is not None or not len(self.said.positive):
            return None
        cell = self._coarse(self.said.positive[:1])[0]
        best = int(self.features.organs[:, cell[0], cell[1], cell[2]].argmax())
        return best or None

    def _coarse(self, voxels: np.ndarray) -> np.ndarray:
        """Bring voxels to the grid of the features."""
        assert self.features is not None
        size = np.array(self.features.organs.shape[1:])
        return np.clip(((voxels + 0.5) * size / self.shape).astype(int), 0, size - 1)

    def _guess(self) -> tuple[np.ndarray, float] | None:
        """Where the automatic result has the organ at the first click: its middle and extent."""
        if self.organ is None or self.features is None or not len(self.said.positive):
            return None
        likely = self.features.organs[self.organ].numpy() > 127
        pieces, _ = ndimage.label(likely)
        cell = self._coarse(self.said.positive[:1])[0]
        number = int(pieces[tuple(cell)])
        if not number:
            return None
        part = ndimage.find_objects(pieces)[number - 1]
        ratio = self.shape / np.array(likely.shape)
        low = np.array([p.start for p in part]) * ratio
        high = np.array([p.stop for p in part]) * ratio
        return (low + high - 1) / 2, float(((high - low) * self.spacing).max())

    def automatic(self) -> Part | None:
        """Give the automatic organ that is meant and holds what was clicked; None else."""
        if self.organ is None or self.features is None or not len(self.said.positive):
            return None
        name = self.features.names[self.features.ids[self.organ]]
        return organ_part(self.features, name, self.scan, self.said.positive[0])

    # the decoder

    def _look(self, patch: Patch, previous: torch.Tensor | None) -> torch.Tensor:
        """Give the probability of the object in a patch: (D, H, W) float32 on the processor.

        Args:
            patch: where to look.
            previous: (D, H, W) of the patch, the object so far.
        """
        self.check()
        said, shape = self.said, self.scan.shape
        image = patch.take(self.scan.unit, shape) / 255
        region = torch.zeros(patch.size)
        for box in said.boxes:
            ends = patch.to_patch(np.array([box[0] - 0.5, box[1] + 0.5]))
            first = np.clip(np.ceil(ends[0]), 0, None).astype(int)
            last = np.clip(np.floor(ends[1]), first, None).astype(int)
            region[tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))] = 1
        for lasso in said.lassos:
            region = torch.maximum(region, filled(patch.to_patch(lasso), patch))
        features, organs = None, torch.zeros(2, *patch.size)
        if self.features is not None:
            features = patch.take(self.features.maps, shape, level=FEATURE_LEVEL)
            near = akin(features, patch.to_patch(said.positive), patch.size)
            features = torch.cat([features, near])[None]
        if self.tells_organs and self.features is not None:
            chances = patch.take(self.features.organs, shape) / 255
            if self.organ is not None:
                organs[0] = chances[self.organ]
            organs[1] = (chances.sum(0) - chances[0] - organs[0]).clamp(0, 1)
        inputs = torch.stack(
            [
                2 * image - 1,
                marks(patch.to_patch(said.positive), patch),
                marks(patch.to_patch(said.negative), patch),
                region,
                alike(image, patch.to_patch(said.positive)),
                torch.zeros(patch.size) if previous is None else previous.float(),
                *organs,
            ]
        )[None]
        with inference(self.place):
            logits = self.network(
                inputs.to(self.place),
                None if features is None else features.to(self.place),
                patch.da,
            )
        return torch.sigmoid(logits[0, 0].float()).cpu()

    def _target(self, extent: float) -> float:
        """Spacing at which an object of an extent (mm) is finally drawn."""
        return float(np.clip(extent * ROOM / SIDE, self.finest, 2 * self.finest))

    def first(self, show: Callable[[Part], None] | None) -> Canvas:
        """Find an object of which nothing is known but the prompts."""
        said = self.said
        guess = self._guess()
        if guess is not None:
            centre, extent = guess
        elif said.latest_is_region:
            low, high = said.latest.min(0), said.latest.max(0)
            centre = (low + high) / 2
            extent = float(((high - low + 1) * self.spacing).max())
        else:
            centre, extent = said.latest.mean(0), FIRST_MM / ROOM
        in_plane = float(np.clip(extent * ROOM / SIDE, self.finest, COARSEST_MM))
        for number in range(PASSES):
            patch = patch_at(self._within(centre, in_plane), self.spacing.tolist(), in_plane)
            found = Canvas(self, patch, self._look(patch, None))
            if found.box is None:
                break
            low, high = found.box
            extent = float(((high - low) * self.spacing).max())
            centre = (low + high - 1) / 2
            wanted = float(np.clip(extent * ROOM / SIDE, self.finest, COARSEST_MM))
            if found.touches(patch) and in_plane < COARSEST_MM:
                in_plane = min(COARSEST_MM, max(1.5 * in_plane, wanted))
            elif wanted < 0.7 * in_plane and number < 2:
                in_plane = wanted
            else:
                break
        if found.box is None:
            return found
        target = self._target(extent)
        if in_plane > 1.25 * target:
            if show is not None:
                show(self.finished(*found.on_scan()))
            found = self._refined(found, target)
        return found

    def _refined(self, coarse: Canvas, in_plane: float) -> Canvas:
        """Draw an object again, finer, in overlapping patches."""
        assert coarse.box is not None
        low, high = coarse.box
        patches = []
        for axis in range(3):
            span = (high[axis] - low[axis]) * self.spacing[axis] * 1.08
            count = max(1, math.ceil((span - 0.2 * SIDE * in_plane) / (0.8 * SIDE * in_plane)))
            middle = (low[axis] + high[axis] - 1) / 2
            reach = max(0.0, span - SIDE * in_plane) / 2 / self.spacing[axis]
            patches.append(
                np.linspace(middle - reach, middle + reach, count)
                if count > 1
                else np.array([middle])
            )
        parts = []
        for centre in itertools.product(*patches):
            patch = patch_at(np.array(centre), self.spacing.tolist(), in_plane)
            before = coarse.on(patch)
            if before.any():
                parts.append((patch, self._look(patch, before)))
        return coarse.with_parts(parts)

    def correct(self, previous: Before) -> tuple[Slices, np.ndarray]:
        """Change an object after another prompt.

        The whole object is looked at with all its prompts; where that is coarse, only what changes
        is taken from it, and the place of the last prompt is drawn again, finer.

        Returns:
            The region that was decided about, and the object in it.
        """
        every = np.concatenate([previous.box - [[0.0], [1.0]], *self._places()])
        low, high = every.min(0), every.max(0) + 1
        extent = float(((high - low) * self.spacing).max())
        in_plane = float(np.clip(extent * ROOM / SIDE, self.finest, COARSEST_MM))
        centre = (low + high - 1) / 2
        mask = np.zeros(self.scan.shape, bool)
        where = _between(*previous.box)
        mask[where] = previous[where].numpy()
        for _ in range(PASSES):
            patch = patch_at(self._within(centre, in_plane), self.spacing.tolist(), in_plane)
            before = patch.take(torch.from_numpy(mask), self.scan.shape, nearest=True)
            chance = self._look(patch, before > 0.5)
            grown = (chance > 0.5) & (before < 0.5)
            if in_plane >= COARSEST_MM or not _at_edge(grown, self._open(patch), 1):
                break
            in_plane = min(COARSEST_MM, 1.5 * in_plane)
        target = self._target(extent)
        region = self._decided(patch)
        new = _on_region(patch, chance, region) > 0.5
        if in_plane <= 1.25 * target:
            mask[region] = new.numpy()
            return region, mask[region]
        changed = (new != (_on_region(patch, before, region) > 0.5)).numpy()
        mask[region] = np.where(changed, new.numpy(), mask[region])
        close = patch_at(self.said.latest.mean(0), self.spacing.tolist(), target)
        before = close.take(torch.from_numpy(mask), self.scan.shape, nearest=True)
        chance = self._look(close, before > 0.5)
        near = self._decided(close)
        mask[near] = (_on_region(close, chance, near) > 0.5).numpy()
        region = _between(
            np.minimum([one.start for one in region], [one.start for one in near]),
            np.maximum([one.stop for one in region], [one.stop for one in near]),
        )
        return region, mask[region]

    def _places(self) -> list[np.ndarray]:
        """All places that prompts speak of as belonging to the object."""
        said = self.said
        return [one for one in (said.positive, *said.boxes, *said.lassos) if len(one)]

    def _decided(self, patch: Patch) -> Slices:
        """The part of the scan that a patch decides about: not its edges where the scan goes on."""
        ends = np.array([[-0.5] * 3, np.array(patch.size) - 0.5])
        for axis, (low, high) in enumerate(self._open(patch)):
            if patch.size[axis] > 4 * MARGIN:
                ends[0, axis] += MARGIN * low
                ends[1, axis] -= MARGIN * high
        return _cells(patch, ends, self.shape)

    def _near(self, click: np.ndarray, middle: np.ndarray, in_plane: float) -> np.ndarray:
        """Move a patch from an object's middle until what was clicked lies well inside."""
        reach = 0.35 * SIDE * in_plane / self.spacing
        return np.clip(middle, click - reach, click + reach)

    def _within(self, centre: np.ndarray, in_plane: float) -> np.ndarray:
        latest = self.said.latest.mean(0)
        return self._near(latest, np.asarray(centre, float), in_plane)

    def _open(self, patch: Patch) -> list[tuple[bool, bool]]:
        """Tell for each end of each axis whether the scan goes on beyond a patch."""
        corners = patch.to_scan(np.array([[-0.5] * 3, np.array(patch.size) - 0.5]))
        return [
            (bool(a > 0), bool(b < n - 1))
            for a, b, n in zip(corners[0], corners[1], self.shape, strict=True)
        ]

    def finished(self, region: Slices, mask: np.ndarray) -> Part:
        """Give the answer on the scan's grid, with what was clicked and painted as it was said."""
        for voxels, positive in self.said.fixed:
            start = np.array([one.start for one in region])
            local = voxels - start
            inside = ((local >= 0) & (local < np.array(mask.shape))).all(1)
            mask[tuple(local[inside].T)] = positive
        return self.scan.array_part(region, mask)


class Canvas:
    """An object on one patch, or on several of which later ones count more.

    Args:
        work: the answer in the making.
        patch: the grid.
        chance: (D, H, W) of the object.
    """

    def __init__(self, work: _Work, patch: Patch, chance: torch.Tensor) -> None:
        self.work, self.patch, self.chance = work, patch, chance
        self.parts: list[tuple[Patch, torch.Tensor]] = []
        self.box = _box_in_scan(chance > 0.5, patch, work.shape)

    def touches(self, patch: Patch) -> bool:
        """Whether the object reaches an edge beyond which the scan goes on."""
        return _at_edge(self.chance > 0.5, self.work._open(patch), 1)

    def on(self, patch: Patch) -> torch.Tensor:
        """Resample the object to another patch: (D, H, W) booleans."""
        centre = self.patch.to_patch(patch.centre[None])[0]
        matrix = np.linalg.inv(self.patch.matrix) @ patch.matrix
        inner = Patch(centre, patch.size, matrix, patch.spacing, patch.da)
        padded = torch.nn.functional.pad(self.chance, (1,) * 6)
        moved = Patch(inner.centre + 1, inner.size, matrix, patch.spacing, patch.da)
        return moved.take(padded, padded.shape) > 0.5

    def with_parts(self, parts: list[tuple[Patch, torch.Tensor]]) -> Canvas:
        """The same with finer patches that overlap."""
        made = Canvas(self.work, self.patch, self.chance)
        made.parts = parts
        return made

    def on_scan(self) -> tuple[Slices, np.ndarray]:
        """Give the region that is decided and the object in it."""
        if self.parts:
            return self._joined()
        ends = np.array([[-0.5] * 3, np.array(self.patch.size) - 0.5])
        region = _cells(self.patch, ends, self.work.shape)
        return region, (_on_region(self.patch, self.chance, region) > 0.5).numpy()

    def _joined(self) -> tuple[Slices, np.ndarray]:
        """Blend the finer patches where they are, the coarse one elsewhere."""
        whole = _cells(
            self.patch, np.array([[-0.5] * 3, np.array(self.patch.size) - 0.5]), self.work.shape
        )
        boxes = [
            box
            for p, c in self.parts
            if (box := _box_in_scan(c > 0.5, p, self.work.shape)) is not None
        ]
        boxes.append(self.box)  # type: ignore[arg-type]
        low, high = np.min([b[0] for b in boxes], 0), np.max([b[1] for b in boxes], 0)
        region = tuple(
            slice(max(int(a), w.start), min(int(b), w.stop))
            for a, b, w in zip(low, high, whole, strict=True)
        )
        region = (region[0], region[1], region[2])
        total = _on_region(self.patch, self.chance, region) * 1e-3
        weight = torch.full_like(total, 1e-3)
        for patch, chance in self.parts:
            cells = _cells(
                patch, np.array([[-0.5] * 3, np.array(patch.size) - 0.5]), self.work.shape
            )
            both = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(cells, region, strict=True)
            )
            if any(one.stop <= one.start for one in both):
                continue
            both = (both[0], both[1], both[2])
            axes = [_tent(n) for n in patch.size]
            tent = axes[0][:, None, None] * axes[1][:, None] * axes[2]
            share = _on_region(patch, tent, both).clamp_(min=1e-4)
            local = tuple(
                slice(b.start - r.start, b.stop - r.start)
                for b, r in zip(both, region, strict=True)
            )
            total[local] += _on_region(patch, chance, both) * share
            weight[local] += share
        mask = (total / weight > 0.5).numpy()
        # the coarse answer's region is decided as a whole
        if whole == region:
            return region, mask
        full = np.zeros([one.stop - one.start for one in whole], bool)
        full[
            tuple(
                slice(r.start - w.start, r.stop - w.start)
                for r, w in zip(region, whole, strict=True)
            )
        ] = mask
        return whole, full


def _tent(count: int) -> torch.Tensor:
    position = torch.arange(count, dtype=torch.float32)
    return torch.minimum(position + 1, count - position) / ((count + 1) / 2)


def _at_edge(mask: torch.Tensor, is_open: Sequence[tuple[bool, bool]], depth: int) -> bool:
    """Whether a mask has a voxel within `depth` of an open end."""
    for axis, (low, high) in enumerate(is_open):
        thick = min(depth, max(1, mask.shape[axis] // 8))
        if low and bool(mask.narrow(axis, 0, thick).any()):
            return True
        if high and bool(mask.narrow(axis, mask.shape[axis] - thick, thick).any()):
            return True
    return False


def _cells(patch: Patch, corners: np.ndarray, shape: np.ndarray) -> Slices:
    """Give the voxels of the scan whose centres lie between two corners of a patch."""
    ends = patch.to_scan(corners)
    low = np.clip(np.ceil(ends[0] - 1e-6), 0, shape - 1).astype(int)
    high = np.clip(np.floor(ends[1] + 1e-6) + 1, low + 1, shape).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _box_in_scan(mask: torch.Tensor, patch: Patch, shape: np.ndarray) -> np.ndarray | None:
    """Give the box of a patch's mask in voxels of the scan: first and one behind the last."""
    spans = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        line = torch.nonzero(mask.any(others[1]).any(others[0])).flatten()
        if not len(line):
            return None
        spans.append((float(line[0]) - 0.5, float(line[-1]) + 0.5))
    part = _cells(patch, np.array(spans).T, shape)
    return np.array([[one.start for one in part], [one.stop for one in part]])


def _on_region(patch: Patch, chance: torch.Tensor, region: Slices) -> torch.Tensor:
    """Interpolate a straight patch's values at the voxels of a part of the scan, axis by axis."""
    made = chance
    for axis, part in enumerate(region):
        step = patch.matrix[axis, axis]
        middle = (patch.size[axis] - 1) / 2
        place = (np.arange(part.start, part.stop) - patch.centre[axis]) / step + middle
        place = np.clip(place, 0, patch.size[axis] - 1)
        first = np.minimum(place.astype(int), max(patch.size[axis] - 2, 0))
        share = torch.from_numpy((place - first).astype(np.float32))
        second = np.minimum(first + 1, patch.size[axis] - 1)
        shape = [-1 if a == axis else 1 for a in range(3)]
        share = share.view(shape)
        low = made.index_select(axis, torch.from_numpy(first))
        high = made.index_select(axis, torch.from_numpy(second))
        made = torch.lerp(low, high, share)
    return made


def organ_part(
    features: Features, name: str, scan: ClickScan, at: np.ndarray | None = None
) -> Part | None:
    """Give an organ of the automatic result on the scan's grid; None where there is none.

    Args:
        features: what a segmenter knows of the scan.
        name: of the organ.
        scan: the scan.
        at: a canonical voxel: only the piece that holds it; None for all of the organ.
    """
    number = {features.names[i]: n for n, i in enumerate(features.ids) if i}[name]
    likely = features.best == number
    shape, size = np.array(scan.shape), np.array(likely.shape)
    ratio = shape / size
    if at is not None:
        pieces, _ = ndimage.label(likely)
        cell = np.clip(((at + 0.5) / ratio).astype(int), 0, size - 1)
        if not pieces[tuple(cell)]:
            return None
        likely = pieces == pieces[tuple(cell)]
    box = bounds(likely)
    if box is None:
        return None
    # one more voxel each way, so that the edge is interpolated
    first = np.maximum([one.start - 1 for one in box], 0)
    last = np.minimum([one.stop + 1 for one in box], size)
    part = _between(first, last)
    rest = features.organs[(slice(None), *part)].float() / 255
    chance = rest[number].clone()
    rest[number] = 0
    margin = chance - rest.amax(0)
    if at is not None:
        near = ndimage.binary_dilation(likely[part], np.ones((3, 3, 3)))
        margin[torch.from_numpy(~near)] = -1
    spacing = np.array(scan.spacing) * ratio
    patch = Patch(
        ((first + last) / 2) * ratio - 0.5,
        (int(last[0] - first[0]), int(last[1] - first[1]), int(last[2] - first[2])),
        np.diag(ratio),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        0,
    )
    region = _cells(patch, np.array([[-0.5] * 3, np.array(patch.size) - 0.5]), shape)
    mask = (_on_region(patch, margin, region) > 0).numpy()
    return scan.array_part(region, mask).tight()
