"""A click's answer: the region that grows until the object lies in it, and the object in there.

All positions here are voxels of the scan's canonical view, depth first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from spad.checkpoints import zoo
from spad.data.patches import SIDE, Patch, akin, alike, filled, marks, patch_at
from spad.device import inference
from spad.inference.click_canvas import (
    Canvas,
    about,
    at_edge,
    decided,
    on_region,
    open_ends,
    organ_part,
    sureness,
)
from spad.inference.click_doubts import at_edge_of, worst
from spad.inference.click_input import Before, ClickScan, Slices, Told, between, told
from spad.inference.features import Features
from spad.inference.models import chosen, loaded, parameters_device
from spad.models.clicker import FEATURE_LEVEL, Clicker
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt

FINEST_MM, COARSEST_MM = 1.0, 5.0
"""Spacing of a patch: at least the scan's own and the first, at most the second."""
ROOM = 1.3
"""How much wider than the object a patch is."""
FIRST_MM = 200.0
"""What a first patch shows where nothing tells how large the object is."""
PASSES = 4
MOST_LOOKS = 4
"""Patches that cover an object whose doubts are looked for; they are coarser for a larger one."""
DRAWN = 3
"""Prompts of an object begun with a click that may change all of it; others change a place."""


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
        by_prompts: bool = True,
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
            by_prompts: whether the object so far comes of its prompts alone.
            show: given a first answer where a finer one follows.
            check: called before each look; may raise `Cancelled`.

        Returns:
            The object in a part of the scan, beyond which it stays as it was: for a first click on
            an automatic organ that organ, else what the decoder finds. It is a function of the
            arguments (but for `show` and `check`) alone.
        """
        work = _Work(self.network, scan, features, told(prompts, scan), organ, organs)
        work.check, work.by_prompts = check, by_prompts
        if previous is not None:
            clicked = prompts[0].kind in ("point", "scribble") and not work.on_organ()
            drawn = by_prompts and clicked and len(prompts) <= DRAWN and work.is_familiar
            return work.finished(*work.correct(Before(previous, scan), whole=drawn))
        found = work.automatic() if len(prompts) == 1 and prompts[0].kind == "point" else None
        return found or work.finished(*work.first(show).on_scan())

    def doubts(
        self,
        scan: ClickScan,
        features: Features | None,
        prompts: Sequence[Prompt],
        part: Part,
        organ: str | None,
        count: int,
        check: Callable[[], None] = lambda: None,
    ) -> list[np.ndarray]:
        """Find places at an object's edge that are likely wrong, the worst first.

        Args:
            scan: the scan.
            features: what a segmenter knows of it, or None.
            prompts: all of the object's; near them is no doubt.
            part: the object as it is.
            organ: name of what is meant.
            count: how many places at most.
            check: called before each look; may raise `Cancelled`.

        Returns:
            Canonical voxels, a function of the arguments (but for `check`) alone.
        """
        work = _Work(self.network, scan, features, told(prompts, scan), organ, True)
        work.check = check
        return work.doubts(Before(part, scan), count)


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
        self.by_prompts = True
        """Whether the object so far comes of its prompts alone."""

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

    @property
    def is_familiar(self) -> bool:
        """Whether an organ is meant, as far as that is known; what it draws of others is rougher.

        Of a structure that it was never taught, the decoder keeps too little when it looks again.
        """
        return self.organ is not None or not self.tells_organs

    def on_organ(self) -> bool:
        """Whether the first click is on the automatic organ that is meant."""
        if self.organ is None or self.features is None or not len(self.said.positive):
            return False
        cell = self._coarse(self.said.positive[:1])[0]
        return int(self.features.best[tuple(cell)]) == self.organ

    def automatic(self) -> Part | None:
        """Give the automatic organ that is meant and holds what was clicked; None else."""
        if not self.on_organ() or self.features is None or self.organ is None:
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
        boxes, lassos = said.regions
        for box in boxes:
            ends = patch.to_patch(np.array([box[0] - 0.5, box[1] + 0.5]))
            first = np.clip(np.ceil(ends[0]), 0, None).astype(int)
            last = np.clip(np.floor(ends[1]), first, None).astype(int)
            region[tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))] = 1
        for lasso in lassos:
            region = torch.maximum(region, filled(patch.to_patch(lasso), patch))
        features, organs = None, torch.zeros(2, *patch.size)
        if self.features is not None:
            features = patch.take(self.features.maps, shape, level=FEATURE_LEVEL)
            near = akin(features, patch.to_patch(said.seeds), patch.size)
            features = torch.cat([features, near])[None]
        if self.tells_organs and self.features is not None:
            wanted = [0] if self.organ is None else [0, self.organ]
            chances = patch.take(self.features.organs[wanted], shape) / 255
            if self.organ is not None:
                organs[0] = chances[1]
            organs[1] = (1 - chances[0] - organs[0]).clamp(0, 1)
        inputs = torch.stack(
            [
                2 * image - 1,
                marks(patch.to_patch(said.seeds), patch),
                marks(patch.to_patch(said.negative), patch),
                region,
                alike(image, patch.to_patch(said.seeds)),
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
            found = Canvas(self.shape, patch, self._look(patch, None))
            if found.box is None:
                break
            low, high = found.box
            extent = float(((high - low) * self.spacing).max())
            centre = (low + high - 1) / 2
            wanted = float(np.clip(extent * ROOM / SIDE, self.finest, COARSEST_MM))
            if found.touches() and in_plane < COARSEST_MM:
                in_plane = min(COARSEST_MM, max(1.5 * in_plane, wanted))
            elif wanted < 0.7 * in_plane and number < 2:
                in_plane = wanted
            else:
                break
        if found.box is None:
            return found
        if show is not None:
            show(self.finished(*found.on_scan()))
        if self.is_familiar:
            # its edge is drawn better once the decoder sees where the object is
            again = Canvas(self.shape, patch, self._look(patch, found.chance > 0.5))
            found = again if again.box is not None else found
        target = self._target(extent)
        return self._refined(found, target) if in_plane > 1.25 * target else found

    def _refined(self, coarse: Canvas, in_plane: float) -> Canvas:
        """Draw an object again, finer, in overlapping patches."""
        assert coarse.box is not None
        parts = []
        for patch in self._tiles(coarse.box, in_plane):
            before = coarse.on(patch)
            if before.any():
                parts.append((patch, self._look(patch, before)))
        return coarse.with_parts(parts)

    def _tiles(self, box: np.ndarray, in_plane: float) -> list[Patch]:
        """Lay patches that overlap over a box: its first voxel and the one behind its last."""
        low, high = box
        lines = []
        for axis in range(3):
            span = (high[axis] - low[axis]) * self.spacing[axis] * 1.08
            count = max(1, math.ceil((span - 0.2 * SIDE * in_plane) / (0.8 * SIDE * in_plane)))
            middle = (low[axis] + high[axis] - 1) / 2
            reach = max(0.0, span - SIDE * in_plane) / 2 / self.spacing[axis]
            lines.append(
                np.linspace(middle - reach, middle + reach, count)
                if count > 1
                else np.array([middle])
            )
        spacing = self.spacing.tolist()
        return [patch_at(np.array(one), spacing, in_plane) for one in itertools.product(*lines)]

    def _on_scan(self, previous: Before) -> np.ndarray:
        """Give an object as booleans on all of the scan."""
        mask = np.zeros(self.scan.shape, bool)
        where = between(*previous.box)
        mask[where] = previous[where].numpy()
        return mask

    def doubts(self, part: Before, count: int) -> list[np.ndarray]:
        """See `ClickModel.doubts`.

        Doubt is the chance, by the decoder, that a voxel should not be as it is; where an automatic
        organ is meant, its mean with how unsure the segmenter is of that.
        """
        low, high = part.box
        in_plane = self._target(float(((high - low) * self.spacing).max()))
        while len(tiles := self._tiles(part.box, in_plane)) > MOST_LOOKS:
            in_plane *= 1.1
        mask = torch.from_numpy(self._on_scan(part).view(np.uint8))
        found = []
        for patch in tiles:
            share = patch.take(mask, self.scan.shape)
            doubt = (share - self._look(patch, share > 0.5)).abs()
            if self.organ is not None and self.features is not None:
                organ = self.features.organs[self.organ]
                chance = patch.take(organ, self.scan.shape) / 255
                doubt = (doubt + torch.minimum(chance, 1 - chance)) / 2
            found.append(at_edge_of(patch, share > 0.5, doubt, self.shape))
        voxels, doubts = (np.concatenate(one) for one in zip(*found, strict=True))
        said = np.concatenate([self.said.positive, self.said.negative])
        return worst(voxels, doubts, self.spacing, said, count)

    def correct(self, previous: Before, *, whole: bool) -> tuple[Slices, np.ndarray]:
        """Change an object after another prompt.

        The piece of the object that is meant is looked at with all prompts; where that is coarse,
        the place of the last prompt is drawn again, finer. A voxel changes only where the decoder
        is sure, surer far from the prompt.

        Args:
            previous: the object so far.
            whole: a point or scribble may add to all of it, or take away; else it changes only
                what it is about (`about`).

        Returns:
            The region that was decided about, and the object in it.
        """
        latest = self.said.latest
        every = np.concatenate([previous.piece(latest.mean(0)) - [[0.0], [1.0]], latest])
        low, high = every.min(0), every.max(0) + 1
        extent = float(((high - low) * self.spacing).max())
        in_plane = float(np.clip(extent * ROOM / SIDE, self.finest, COARSEST_MM))
        centre = (low + high - 1) / 2
        mask = self._on_scan(previous)
        for _ in range(PASSES):
            patch = patch_at(self._within(centre, in_plane), self.spacing.tolist(), in_plane)
            before = patch.take(torch.from_numpy(mask), self.scan.shape, nearest=True)
            chance = self._look(patch, before > 0.5)
            grown = (chance > 0.5) & (before < 0.5)
            if in_plane >= COARSEST_MM or not at_edge(grown, open_ends(patch, self.shape)):
                break
            in_plane = min(COARSEST_MM, 1.5 * in_plane)
        target = self._target(extent)
        region = decided(patch, self.shape)
        was = on_region(patch, before, region) > 0.5
        whole = whole or self.said.latest_is_region
        clicked = None if whole else latest
        sure = sureness(region, clicked, self.spacing)
        new = _changed(was, on_region(patch, chance, region), sure)
        mask[region] = np.where((new != was).numpy(), new.numpy(), mask[region])
        if in_plane > 1.25 * target:
            close = patch_at(latest.mean(0), self.spacing.tolist(), target)
            before = close.take(torch.from_numpy(mask), self.scan.shape, nearest=True)
            chance = self._look(close, before > 0.5)
            near = decided(close, self.shape)
            sure = sureness(near, clicked, self.spacing)
            new = _changed(torch.from_numpy(mask[near]), on_region(close, chance, near), sure)
            mask[near] = new.numpy()
            region = between(
                np.minimum([one.start for one in region], [one.start for one in near]),
                np.maximum([one.stop for one in region], [one.stop for one in near]),
            )
        made = mask[region]
        if self.said.latest_is_region:
            return region, made
        was_here, positive = previous[region].numpy(), self.said.fixed[-1][1]
        if whole:
            # what adds takes nothing away, which a decoder that sees two places would
            return region, was_here | made if positive else was_here & made
        at = latest - [one.start for one in region]
        return region, about(at, positive, was_here, made)

    def _near(self, click: np.ndarray, middle: np.ndarray, in_plane: float) -> np.ndarray:
        """Move a patch from an object's middle until what was clicked lies well inside."""
        reach = 0.35 * SIDE * in_plane / self.spacing
        return np.clip(middle, click - reach, click + reach)

    def _within(self, centre: np.ndarray, in_plane: float) -> np.ndarray:
        latest = self.said.latest.mean(0)
        return self._near(latest, np.asarray(centre, float), in_plane)

    def finished(self, region: Slices, mask: np.ndarray) -> Part:
        """Give the answer on the scan's grid, with what was clicked and painted as it was said.

        As long as only boxes and lassos say where an object is, it stays in them.
        """
        inside = self.said.inside(region) if self.by_prompts else None
        if inside is not None:
            mask &= inside
        for voxels, positive in self.said.fixed:
            start = np.array([one.start for one in region])
            local = voxels - start
            inside = ((local >= 0) & (local < np.array(mask.shape))).all(1)
            mask[tuple(local[inside].T)] = positive
        return self.scan.array_part(region, mask)


def _changed(was: torch.Tensor, chance: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
    """Change an object (booleans) where the decoder is sure."""
    return torch.where(was, chance > 1 - sure, chance > sure)
