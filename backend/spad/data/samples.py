"""Training samples: batch k of a run is a function of the seed and k alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from spad.data.augment import random_intensity, random_matrix, resample_crop
from spad.data.cohort import Prepared
from spad.data.options import DataOptions
from spad.models.sac import level_factors
from spad.volumes.anisotropy import FLAT

Size = tuple[int, int, int]
TOKEN_LEVEL = 4
COARSEST_LEVEL = 5


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one degree of anisotropy.

    Attributes:
        image: (B, 1, D, H, W) float32 in [0, 1].
        da: their degree of anisotropy.
        step: the batch's number in the run.
        first: the number of its first sample among those of all processes at that step.
        labels: (B, D, H, W) int64 in the cohort's numbering, or None.
        known: (B, K) booleans: background and the labels that each scan's annotators drew, or None.
    """

    image: torch.Tensor
    da: int
    step: int
    labels: torch.Tensor | None
    known: torch.Tensor | None
    first: int = 0

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
    """Voxels of a window at `da`: its depth halves with each degree, down to one coarsest cell."""
    depth, height, width = window
    return max(depth >> da, level_factors(COARSEST_LEVEL, da)[0]), height, width


class Sampler:
    """Draws batches from prepared scans.

    Args:
        scans: where samples come from, at least one.
        options: sizes, shares and random changes.
        crop: size of a crop for a degree of anisotropy.
        classes: labels and background, for tasks with labels; 0 without.
        seed: that of the run.
        augment: apply random changes (off for validation).
        rank: which of several processes this is, each of which draws its part of a larger batch.
        ranks: how many they are.
    """

    def __init__(
        self,
        scans: Sequence[Prepared],
        options: DataOptions,
        crop: Callable[[int], Size],
        *,
        classes: int,
        seed: int,
        augment: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.scans = list(scans)
        self.options, self.crop, self.classes = options, crop, classes
        self.seed, self.augment = seed, augment
        self.rank, self.ranks = rank, ranks
        self.weights = _weights(self.scans, options)
        self.das = np.array([scan.da for scan in self.scans])

    def batch(self, step: int) -> Batch:
        """Draw batch `step`: its first scan sets `da`, which all others of all processes have."""
        rng = np.random.default_rng([self.seed, step])
        first = int(rng.choice(len(self.scans), p=self.weights))
        da = int(self.das[first])
        same = np.where(self.das == da, self.weights, 0)
        count = self.options.batch
        others = rng.choice(len(self.scans), size=count * self.ranks - 1, p=same / same.sum())
        start = self.rank * count
        chosen = [self.scans[i] for i in (first, *others)][start : start + count]
        samples = [
            self._sample(scan, np.random.default_rng([self.seed, step, start + index]))
            for index, scan in enumerate(chosen)
        ]
        images = torch.stack([image for image, _ in samples])[:, None]
        if not self.classes:
            return Batch(images, da, step, None, None, start)
        labels = torch.stack([label for _, label in samples if label is not None])
        known = torch.stack([self._known(scan) for scan in chosen])
        return Batch(images, da, step, labels, known, start)

    def _known(self, scan: Prepared) -> torch.Tensor:
        known = torch.zeros(self.classes, dtype=torch.bool)
        known[[0, *scan.known]] = True
        return known

    def _sample(
        self, scan: Prepared, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        options, size = self.options, self.crop(scan.da)
        centre = self._centre(scan, size, rng)
        matrix = np.eye(3)
        if self.augment:
            low, high = options.zoom
            matrix = random_matrix(rng, (low, high), options.rotation, options.flips)
        image = resample_crop(scan.image, centre, size, matrix).clamp(0, 1)
        if self.augment:
            image = random_intensity(image, rng, noise=self.classes > 0)
        labels = None
        if self.classes and scan.labels is not None:
            labels = resample_crop(scan.labels, centre, size, matrix, mode="nearest").long()
        return image, labels

    def _centre(self, scan: Prepared, size: Size, rng: np.random.Generator) -> np.ndarray:
        shape, half = np.array(scan.image.shape), np.array(size) / 2
        low, high = np.minimum(half, shape / 2), np.maximum(shape - half, shape / 2)
        centre = rng.uniform(low, high) - 0.5
        if scan.centres and rng.random() < self.options.foreground:
            voxels = scan.centres[list(scan.centres)[rng.integers(len(scan.centres))]]
            jitter = rng.uniform(-0.25, 0.25, 3) * np.array(size)
            centre = np.clip(voxels[rng.integers(len(voxels))] + jitter, low - 0.5, high - 0.5)
        return centre


def _weights(scans: Sequence[Prepared], options: DataOptions) -> np.ndarray:
    """Probability of each scan: phantoms share theirs evenly, then MR, then all others."""
    phantom = np.array([scan.phantom for scan in scans])
    mr = np.array([scan.modality == "MR" for scan in scans]) & ~phantom
    rest = ~phantom & ~mr
    shares = (
        (phantom, options.phantom_share),
        (mr, (1 - options.phantom_share) * options.mr_share),
    )
    remaining = (1 - options.phantom_share) * (1 - options.mr_share)
    weights = np.zeros(len(scans))
    for group, share in (*shares, (rest, remaining)):
        if group.any():
            weights[group] = max(share, 0) / group.sum()
    if weights.sum() == 0:
        weights[:] = 1
    return weights / weights.sum()
