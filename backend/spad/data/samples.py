"""Training samples: batch k of a run is a function of the seed and k alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from spad.data.augment import random_intensity, random_matrix, random_quality, resample_crop
from spad.data.cohort import Prepared
from spad.data.options import DataOptions
from spad.models.sac import level_factors
from spad.volumes.anisotropy import FLAT, degree_of_anisotropy

Size = tuple[int, int, int]
COARSEST_LEVEL = 5
NARROWEST, FULL_RANGE = 150.0, 1000.0
"""HU: the narrowest window drawn from CT, and what counts as a scan of full range."""
_AT_ONCE = 32
_DEPTH_ZOOM_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one degree of anisotropy.

    Attributes:
        image: (B, C, D, H, W) float32 in [0, 1], one channel or three.
        da: their degree of anisotropy.
        step: the batch's number in the run.
        first: the number of its first sample among those of all processes at that step.
        labels: (B, D, H, W) int64 in the cohort's numbering, or None.
        known: (B, K) booleans: background and the labels that each scan's annotators drew, or None.
        complete: whether `known` is true everywhere, told without waiting for a device.
    """

    image: torch.Tensor
    da: int
    step: int
    labels: torch.Tensor | None
    known: torch.Tensor | None
    first: int = 0
    complete: bool = False

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {
            name: None if tensor is None else tensor.to(device)
            for name, tensor in (
                ("image", self.image),
                ("labels", self.labels),
                ("known", self.known),
            )
        }
        return replace(self, **moved)  # type: ignore[arg-type]


def token_crop(da: int, tokens: Sequence[int]) -> Size:
    """Voxels of a crop of `tokens` = (depth, in-plane) tokens at stride 16; one slice at `da` 5.

    Source: PUMIT, arXiv 2312.07630, section "pre-training", spatially adaptive crops.
    """
    depth, in_plane = tokens
    if da >= FLAT:
        return 1, 16 * in_plane, 16 * in_plane
    return depth * max(16 >> da, 1), 16 * in_plane, 16 * in_plane


def window_crop(da: int, window: Sequence[int]) -> Size:
    """Voxels of a window at `da`: its depth halves with each degree; all sides in whole cells.

    A side that was no whole number of the coarsest map's cells would be padded in training, which
    the model would learn, and then miss where it sees whole windows.
    """
    depth, height, width = window
    deep, high, wide = (
        max(1, -(-side // cell)) * cell
        for side, cell in zip(
            (depth >> da, height, width), level_factors(COARSEST_LEVEL, da), strict=True
        )
    )
    return deep, high, wide


@dataclass(frozen=True)
class Draw:
    """A scan and its random scale, before a place in it is drawn.

    Attributes:
        scan: its number.
        scale: of depth and of the plane.
        da: degree of anisotropy of the sample.
    """

    scan: int
    scale: tuple[float, float]
    da: int


class Sampler:
    """Draws batches from prepared scans.

    A batch has one `da`. That of tasks on tokens has as many samples as hold the tokens of
    `options.batch` 3D crops, and a `da` with more samples in its batches is drawn the more rarely,
    so that every scan gives samples in proportion to its weight. All of it is a function of the
    seed and the step, so nothing has to be kept for a resume.

    Args:
        scans: where samples come from, at least one.
        options: sizes, shares and random changes.
        classes: labels and background, for tasks with labels (crops are `options.window`); 0 for
            tasks on tokens (crops are `options.tokens`).
        seed: that of the run.
        augment: apply random changes (off for validation).
        rank: which of several processes this is, each of which draws its part of a larger batch.
        ranks: how many they are.
    """

    def __init__(
        self,
        scans: Sequence[Prepared],
        options: DataOptions,
        *,
        classes: int,
        seed: int,
        augment: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.scans = list(scans)
        self.options, self.classes = options, classes
        self.seed, self.augment = seed, augment
        self.rank, self.ranks = rank, ranks
        self.weights = _weights(self.scans, options)

    def to(self, device: torch.device) -> Sampler:
        """Hold the scans on a device and make the samples there."""
        moved = copy.copy(self)
        moved.scans = [scan.to(device) for scan in self.scans]
        return moved

    def held(self) -> int | None:
        """Bytes of all scans and labels in memory; None where some stay in a store."""
        total = 0
        for scan in self.scans:
            for array in (scan.image, scan.labels):
                if isinstance(array, torch.Tensor):
                    total += array.numel() * array.element_size()
                elif array is not None:
                    return None
        return total

    def crop(self, da: int) -> Size:
        """Voxels of a crop."""
        options = self.options
        return window_crop(da, options.window) if self.classes else token_crop(da, options.tokens)

    def count(self, da: int) -> int:
        """Samples of a batch."""
        if self.classes or da < FLAT:
            return self.options.batch
        return self.options.batch * self.options.tokens[0]

    def batch(self, step: int) -> Batch:
        """Draw batch `step`: its first sample sets `da`, which all others of all processes have."""
        rng = np.random.default_rng([self.seed, step])
        draws = self._batch_draws(rng)
        count = len(draws) // self.ranks
        start = self.rank * count
        chosen = draws[start : start + count]
        samples = [
            self._sample(draw, np.random.default_rng([self.seed, step, start + index]))
            for index, draw in enumerate(chosen)
        ]
        colours = max(image.shape[0] for image, _ in samples)
        images = torch.stack([image.expand(colours, -1, -1, -1) for image, _ in samples])
        if not self.classes:
            return Batch(images, chosen[0].da, step, None, None, start)
        labels = torch.stack([label for _, label in samples if label is not None])
        known = torch.stack([self._known(self.scans[draw.scan]) for draw in chosen])
        return Batch(images, chosen[0].da, step, labels, known, start, bool(known.all()))

    def _batch_draws(self, rng: np.random.Generator) -> list[Draw]:
        fewest = self.options.batch
        found: list[Draw] = []
        while not found or len(found) < self.count(found[0].da) * self.ranks:
            for draw in self._draws(rng, _AT_ONCE):
                if found:
                    fits = draw.da == found[0].da
                else:
                    fits = rng.random() < fewest / self.count(draw.da)
                if fits:
                    found.append(draw)
                if found and len(found) == self.count(found[0].da) * self.ranks:
                    break
        return found

    def _draws(self, rng: np.random.Generator, count: int) -> Iterator[Draw]:
        for number in rng.choice(len(self.scans), size=count, p=self.weights):
            scan = self.scans[int(number)]
            scale = self._scale(scan, rng) if self.augment else (1.0, 1.0)
            yield Draw(int(number), scale, _da(scan, scale))

    def _scale(self, scan: Prepared, rng: np.random.Generator) -> tuple[float, float]:
        """Draw the scale of depth and plane; depth alone is scaled at `da` 0 only."""
        options = self.options
        plane = 1.0
        if rng.random() < options.zoom_share:
            low, high = options.zoom
            if not self.classes:  # a crop stays inside its scan where it can
                high = max(low, min(high, min(scan.image.shape[-2:]) / self.crop(scan.da)[1]))
            plane = math.exp(rng.uniform(math.log(low), math.log(high)))
        if options.depth_zoom is None:
            return plane, plane
        alone = rng.random() < _DEPTH_ZOOM_SHARE and _nearly_isotropic(scan)
        low, high = options.depth_zoom
        return (float(rng.uniform(low, high)) if alone else 1.0), plane

    def _known(self, scan: Prepared) -> torch.Tensor:
        known = torch.zeros(self.classes, dtype=torch.bool)
        known[[0, *scan.known]] = True
        return known

    def _sample(
        self, draw: Draw, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        scan, size = self.scans[draw.scan], self.crop(draw.da)
        matrix = self._matrix(scan, draw.scale, rng) if self.augment else np.eye(3)
        centre = self._centre(scan, size, matrix, rng)
        beyond = "border" if self.classes else "reflection"
        crop = resample_crop(scan.image, centre, size, matrix, beyond=beyond)
        image = replace(scan, limits=self._limits(scan, rng)).unit(crop)
        if self.augment:
            image = (random_quality if self.classes else random_intensity)(image, rng)
        labels = None
        if self.classes and scan.labels is not None:
            labels = resample_crop(scan.labels, centre, size, matrix, mode="nearest").long()
        return image, labels

    def _matrix(
        self, scan: Prepared, scale: tuple[float, float], rng: np.random.Generator
    ) -> np.ndarray:
        options = self.options
        turned = rng.random() < options.rotation_share
        return random_matrix(
            rng,
            scale,
            options.rotation if turned else 0.0,
            options.tilt if turned and _nearly_isotropic(scan) else 0.0,
            options.flips,
            scan.spacing,
        )

    def _limits(self, scan: Prepared, rng: np.random.Generator) -> tuple[float, float]:
        """Stored values that become 0 and 1: the contract's or, of CT, now and then others."""
        drawn = self.augment and self.options.ct_windows and scan.span is not None
        if not drawn or scan.span is None or rng.random() < 0.5:
            return scan.limits
        low, high = scan.span
        whole = max(high - low, NARROWEST)
        if whole > FULL_RANGE and rng.random() < 0.3:
            return low, low + whole
        width = math.exp(rng.uniform(math.log(min(NARROWEST, whole)), math.log(whole)))
        start = rng.uniform(low, low + whole - width)
        return start, start + width

    def _centre(
        self, scan: Prepared, size: Size, matrix: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        shape = np.array(scan.image.shape[-3:])
        half = np.array(size) / 2
        if not self.classes:
            half = np.abs(matrix) @ half
        low, high = np.minimum(half, shape / 2), np.maximum(shape - half, shape / 2)
        centre = rng.uniform(low, high) - 0.5
        if scan.centres and rng.random() < self.options.foreground:
            voxels = scan.centres[list(scan.centres)[rng.integers(len(scan.centres))]]
            jitter = rng.uniform(-0.25, 0.25, 3) * np.array(size)
            centre = np.clip(voxels[rng.integers(len(voxels))] + jitter, low - 0.5, high - 0.5)
        return centre


def _nearly_isotropic(scan: Prepared) -> bool:
    """Tell whether slices are thin enough to be tilted and scaled on their own."""
    return scan.spacing[0] <= 1.5 * min(scan.spacing[1:]) and scan.da < FLAT


def _da(scan: Prepared, scale: tuple[float, float]) -> int:
    """Degree of anisotropy after scaling."""
    if scan.da == FLAT or scale[0] == scale[1]:
        return scan.da
    z, y, x = scan.spacing
    return degree_of_anisotropy((z * scale[0], y * scale[1], x * scale[1]))


def _weights(scans: Sequence[Prepared], options: DataOptions) -> np.ndarray:
    """Probability of each scan: phantoms share theirs, then MR, then all others, by weight."""
    phantom = np.array([scan.phantom for scan in scans])
    mr = np.array([scan.modality == "MR" for scan in scans]) & ~phantom
    rest = ~phantom & ~mr
    own = np.array([scan.weight for scan in scans])
    shares = (
        (phantom, options.phantom_share),
        (mr, (1 - options.phantom_share) * options.mr_share),
    )
    remaining = (1 - options.phantom_share) * (1 - options.mr_share)
    weights = np.zeros(len(scans))
    for group, share in (*shares, (rest, remaining)):
        if own[group].sum() > 0:
            weights[group] = max(share, 0) * own[group] / own[group].sum()
    if weights.sum() == 0:
        weights[:] = 1
    return weights / weights.sum()
