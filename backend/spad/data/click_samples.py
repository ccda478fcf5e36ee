"""Samples for the click decoder: a patch, what is meant in it, and what the model is told.

Sample n of a run is a function of the seed and n alone. What is meant is mostly one labelled organ,
else several together, a part of one, or a structure that nobody named, so that the decoder learns
to follow prompts instead of a list of organs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from spad.data.augment import random_matrix, random_quality
from spad.data.click_features import KnownScan
from spad.data.options import DataOptions
from spad.data.patches import SIDE, Patch, patch_at
from spad.data.simulated_user import largest_piece
from spad.models.sac import level_factors

FINEST_MM, COARSEST_MM = 1.0, 5.0
"""Spacing of a patch in its plane: at least the scan's own and the first, at most the second."""
WIDER = (1.05, 2.2)
"""How much wider a patch is than what is meant, where it holds all of it."""
LOCAL_SHARE, ANY_SHARE = 0.3, 0.15
"""Of the samples: fine patches at a place in the object, which need not hold all of it; patches
there of any spacing, in which it may be small. All others hold the whole object."""
LEAST_VOXELS = 6
WITHOUT_FEATURES, WITHOUT_ORGANS = 0.2, 0.5
"""Shares of samples in which the model is not told what the segmenter knows."""
DROPPED = 0.15
"""Share of the features' channels that are left out in half of the samples."""
AUTOMATIC_START, ROUGH_START = 0.6, 0.25
"""Share of samples that start from the automatic organ where it is told, from a spoilt object
else."""


@dataclass(frozen=True, eq=False)
class ClickBatch:
    """Samples of one degree of anisotropy.

    Attributes:
        image: (B, 1, D, H, W) float32 in [0, 1].
        wanted: (B, D, H, W) booleans, what is meant.
        organs: (B, 2, D, H, W) float32 in [0, 1], automatic probability of what is meant and of all
            other organs; 0 where the model is not told.
        features: (B, C, d, h, w) float32, 0 where the model is not told.
        rough: (B, D, H, W) booleans, an object to start from; all false to start from nothing.
        spacing: in mm.
        da: degree of anisotropy.
        step: number of the batch.
        first: number of its first sample.
        seed: that of the run.
    """

    image: torch.Tensor
    wanted: torch.Tensor
    organs: torch.Tensor
    features: torch.Tensor
    rough: torch.Tensor
    spacing: tuple[tuple[float, float, float], ...]
    da: int
    step: int
    first: int
    seed: int

    def to(self, device: torch.device) -> ClickBatch:
        """The same batch on another device."""
        names = ("image", "wanted", "organs", "features", "rough")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def rng(self, index: int) -> np.random.Generator:
        """Give the source of randomness for the simulated user of a sample."""
        return np.random.default_rng([self.seed, self.step, self.first + index, 1])


class ClickSampler:
    """Draws batches; see `spad.data.samples.Sampler`.

    Args:
        scans: scans with labels on their own grid, and what a segmenter knows of them.
        options: sizes, shares and random changes.
        seed: that of the run.
        augment: apply random changes (off for validation).
        rank: which of several processes this is.
        ranks: how many they are.
    """

    def __init__(
        self,
        scans: Sequence[KnownScan],
        options: DataOptions,
        *,
        seed: int,
        augment: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.scans, self.options, self.seed, self.augment = list(scans), options, seed, augment
        self.rank, self.ranks = rank, ranks
        groups = {one.scan.modality for one in scans}
        share = {m: options.mr_share if m == "MR" else 1 - options.mr_share for m in groups}
        if len(groups) == 1:
            share = dict.fromkeys(groups, 1.0)
        weights = np.array(
            [
                share[one.scan.modality] / sum(o.scan.modality == one.scan.modality for o in scans)
                for one in scans
            ]
        )
        self.weights = weights / weights.sum()

    def to(self, device: torch.device) -> ClickSampler:
        """Hold nothing on a device: samples are made on the processor."""
        return copy.copy(self)

    def held(self) -> int | None:
        """Bytes that would be held on a device."""
        return None

    def batch(self, step: int) -> ClickBatch:
        """Draw batch `step`: its first sample sets `da`, which all others have."""
        count = self.options.batch
        start = self.rank * count
        lead = self._draw(np.random.default_rng([self.seed, step]), None)
        da = lead[1].da
        samples = []
        for index in range(count):
            rng = np.random.default_rng([self.seed, step, start + index])
            samples.append(self._sample(*self._draw(rng, da), rng))
        images, wanted, organs, features, rough, spacing = zip(*samples, strict=True)
        return ClickBatch(
            image=torch.stack(images),
            wanted=torch.stack(wanted),
            organs=torch.stack(organs),
            features=torch.stack(features),
            rough=torch.stack(rough),
            spacing=spacing,
            da=da,
            step=step,
            first=start,
            seed=self.seed,
        )

    def _draw(self, rng: np.random.Generator, da: int | None) -> tuple[KnownScan, Patch, list[int]]:
        """Draw a scan, what is meant in it, and a patch; of a given degree if one is given."""
        for _ in range(1000):
            known = self.scans[int(rng.choice(len(self.scans), p=self.weights))]
            labels = list(known.boxes)
            if not labels:
                continue
            meant = [labels[int(rng.integers(len(labels)))]]
            if self.augment and rng.random() < 0.12 and len(labels) > 1:
                meant.append(labels[int(rng.integers(len(labels)))])
            patch = self._patch(known, meant, rng)
            if da is None or patch.da == da:
                return known, patch, meant
        raise RuntimeError(f"no scan gives a patch of degree {da}")

    def _patch(self, known: KnownScan, meant: Sequence[int], rng: np.random.Generator) -> Patch:
        spacing = np.array(known.scan.spacing)
        boxes = np.array([known.boxes[label] for label in meant])
        low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
        extent = float(((high - low) * spacing).max())
        finest = max(FINEST_MM, float(min(spacing[1:])))
        kind = rng.random()
        if kind < LOCAL_SHARE + ANY_SHARE:
            widest = 2 * finest if kind < LOCAL_SHARE else COARSEST_MM
            in_plane = math.exp(rng.uniform(math.log(finest), math.log(max(finest, widest))))
            voxels = known.scan.centres[meant[0]]
            centre = voxels[int(rng.integers(len(voxels)))].astype(float)
            centre += rng.uniform(-0.2, 0.2, 3) * SIDE * in_plane / spacing
        else:
            in_plane = extent * math.exp(rng.uniform(*np.log(WIDER))) / SIDE
            in_plane = float(np.clip(in_plane, finest, COARSEST_MM))
            slack = max(0.0, SIDE * in_plane - extent) / 2
            centre = (low + high - 1) / 2 + rng.uniform(-1, 1, 3) * slack / spacing
        centre = np.clip(centre, 0, np.array(known.scan.image.shape[-3:]) - 1)
        turn = np.eye(3)
        if self.augment:
            tilted = spacing[0] <= 1.5 * min(spacing[1:])
            turn = random_matrix(
                rng, (1.0, 1.0), self.options.rotation, 10.0 if tilted else 0.0, flips=True
            )
            turn = turn * math.exp(rng.uniform(*np.log(self.options.zoom)))
        return patch_at(centre, spacing.tolist(), in_plane, turn)

    def _sample(
        self, known: KnownScan, patch: Patch, meant: Sequence[int], rng: np.random.Generator
    ) -> tuple[
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        tuple[float, float, float],
    ]:
        scan = known.scan
        assert scan.labels is not None
        shape = scan.labels.shape
        image = scan.unit(patch.take(scan.image[:], shape))
        labels = patch.take(scan.labels, shape, nearest=True).numpy().astype(np.int64)
        wanted = np.isin(labels, meant)
        named = len(meant) == 1
        if self.augment:
            drawn = rng.random()
            if drawn < 0.08:
                wanted, named = _part(wanted, rng), False
            elif drawn < 0.18:
                found = _unnamed(image[0].numpy(), labels, rng)
                wanted, named = (wanted, named) if found is None else (found, False)
            image = random_quality(image, rng)
        organs = torch.zeros(2, *patch.size)
        features = torch.zeros(
            known.maps.shape[0],
            *(n // c for n, c in zip(patch.size, level_factors(1, patch.da), strict=True)),
        )
        if not self.augment or rng.random() >= WITHOUT_FEATURES:
            features = patch.take(known.maps, shape, level=1)
            if self.augment and rng.random() < 0.5:
                features *= torch.from_numpy(rng.random((len(features), 1, 1, 1)) >= DROPPED)
            if rng.random() >= WITHOUT_ORGANS:
                chances = patch.take(known.organs, shape) / 255
                place = known.place.get(meant[0]) if named else None
                organs[0] = 0 if place is None else chances[place]
                organs[1] = 1 - chances[0] - organs[0]
                organs.clamp_(0, 1)
                if self.augment:
                    organs = _doubted(organs, wanted, rng)
        rough = np.zeros_like(wanted)
        if wanted.sum() >= LEAST_VOXELS:
            likely = (organs[0] > organs[1].clamp(min=0.5)).numpy()
            if likely.any() and rng.random() < AUTOMATIC_START:
                rough = likely
            elif rng.random() < ROUGH_START:
                rough = _rough(wanted, rng)
        return (
            image,
            torch.from_numpy(wanted),
            organs,
            features,
            torch.from_numpy(rough),
            patch.spacing,
        )


def _part(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut an object by a plane through its middle, at random."""
    voxels = np.argwhere(wanted)
    if len(voxels) < 50:
        return wanted
    side = (np.argwhere(np.ones_like(wanted)) - voxels.mean(0)) @ rng.normal(size=3)
    cut = wanted & (side.reshape(wanted.shape) > 0)
    return cut if cut.sum() >= LEAST_VOXELS else wanted


def _unnamed(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Find a connected structure of like brightness outside all labels, such as a bone."""
    smooth = ndimage.uniform_filter(image, 3)
    free = (labels == 0) & (smooth > 0.15)
    voxels = np.argwhere(free)
    if len(voxels) < 100:
        return None
    seed = tuple(voxels[int(rng.integers(len(voxels)))])
    width = rng.uniform(0.06, 0.15)
    alike = free & (np.abs(smooth - smooth[seed]) < width)
    alike = ndimage.binary_opening(alike)
    pieces, count = ndimage.label(alike)
    if not count or not pieces[seed]:
        return None
    found = pieces == pieces[seed]
    share = found.mean()
    return ndimage.binary_closing(found) & (labels == 0) if 0.001 < share < 0.25 else None


def _rough(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spoil an object as an earlier answer might be: half of it, coarser, or with blobs wrong."""
    halved = rng.random() < 0.4
    made = _part(wanted, rng) if halved else wanted.copy()
    factor = int(rng.integers(1, 4))
    if factor > 1:
        soft = ndimage.uniform_filter(made.astype(np.float32), factor)
        made = soft > rng.uniform(0.3, 0.7)
    for ball in _balls(wanted, rng, int(rng.integers(0 if halved else 1, 4))):
        made = made | ball if rng.random() < 0.4 else made & ~ball
    return largest_piece(made) if rng.random() < 0.3 else made


def _doubted(organs: torch.Tensor, wanted: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Spoil automatic organs, which on scans that the segmenter learned from are too good.

    Args:
        organs: (2, D, H, W), chance of what is meant and of all other organs.
        wanted: (D, H, W) booleans, what is meant.
        rng: the source of randomness.

    Returns:
        The same: grown or shrunk, in places missed, in places leaking, at times missed altogether.
    """
    drawn = rng.random()
    if drawn < 0.2 or not wanted.any():
        return organs
    chance = organs[0].numpy()
    if drawn < 0.3:
        chance = chance * 0
    else:
        width = rng.uniform(0.5, 2.5)
        chance = ndimage.gaussian_filter(chance, width)
        chance = chance + rng.uniform(-1, 1) * chance * (1 - chance)
        for ball in _balls(wanted, rng, int(rng.integers(0, 4))):
            leaks = rng.random() < 0.4
            soft = ndimage.gaussian_filter(ball.astype(np.float32), 1.0)
            chance = chance + (1 - chance) * soft if leaks else chance * (1 - soft)
    made = torch.from_numpy(np.clip(chance, 0, 1).astype(np.float32))
    return torch.stack([made, torch.minimum(organs[1], 1 - made)])


def _balls(wanted: np.ndarray, rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Give ellipsoids that have their middles in an object."""
    voxels = np.argwhere(wanted)
    grids = np.ogrid[tuple(slice(0, n) for n in wanted.shape)]
    made = []
    for _ in range(count):
        centre, radii = voxels[int(rng.integers(len(voxels)))], rng.uniform(3, 16, 3)
        made.append(
            sum(((g - c) / r) ** 2 for g, c, r in zip(grids, centre, radii, strict=True)) < 1
        )
    return made
