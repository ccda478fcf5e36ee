"""Training of the click decoder with a simulated user.

A step plays a few rounds: the user clicks where the answer so far is wrong, the decoder answers;
gradients go through the last round alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from spad.checkpoints import file, zoo
from spad.checkpoints.card import Card
from spad.data.click_features import KnownScan
from spad.data.click_samples import ClickBatch
from spad.data.cohort import Cohort, Prepared
from spad.data.frames import WorkingFrame, working_grid
from spad.data.model_input import UnitChannels, contract_for
from spad.data.patches import Patch, akin, alike, marks
from spad.data.simulated_user import deepest_voxel, drawn_region, human_click, next_click
from spad.device import choose
from spad.errors import SpadError
from spad.inference.features import Encoding
from spad.models.clicker import Clicker
from spad.models.resize import resize
from spad.progress import Progress
from spad.training.pictures import gray, middle, overlaid, sheet
from spad.training.recipe import Recipe
from spad.training.task import Figures, JudgedTask, Terms
from spad.volumes.anisotropy import degree_of_anisotropy

ROUNDS = (0.4, 0.3, 0.2, 0.1)
"""Probability of 1, 2, ... rounds in a step."""
REGION_SHARE = 0.2
"""Of the samples that start with a box or a lasso instead of a click."""
CLICKED, WRONG = 0.2, 0.3
"""Weights of the cross entropy around clicks, and where the object to be corrected is wrong."""
JUDGED = (1, 3)
"""Clicks after which a validation looks."""


class Prompted:
    """What a simulated user has told the model of one batch.

    Args:
        batch: the samples.
    """

    def __init__(self, batch: ClickBatch) -> None:
        self.batch = batch
        self.wanted = batch.wanted.cpu().numpy()
        self.found = batch.rough.cpu().numpy().copy()
        count = len(self.wanted)
        self.points: list[dict[bool, list[tuple[int, int, int]]]] = [
            {True: [], False: []} for _ in range(count)
        ]
        self.region = torch.zeros(batch.wanted.shape)

    def click(self, exact: bool) -> None:
        """Let the user of each sample click once, as the robot user does or as a person might."""
        for index, (wanted, found) in enumerate(zip(self.wanted, self.found, strict=True)):
            spacing, rng = self.batch.spacing[index], self.rngs[index]
            chosen = (
                next_click(wanted, found, spacing)
                if exact
                else human_click(wanted, found, spacing, rng)
            )
            if chosen is not None:
                self.points[index][chosen[1]].append(chosen[0])

    def start(self) -> None:
        """Let the user of each sample begin: with a click, a box or a lasso."""
        for index, wanted in enumerate(self.wanted):
            rng = self.rngs[index]
            if wanted.any() and rng.random() < REGION_SHARE:
                self.region[index] = torch.from_numpy(drawn_region(wanted, rng))
            elif not self.found[index].any() and wanted.any() and rng.random() < 0.5:
                self.points[index][True].append(deepest_voxel(wanted, self.batch.spacing[index]))
            else:
                chosen = human_click(wanted, self.found[index], self.batch.spacing[index], rng)
                if chosen is not None:
                    self.points[index][chosen[1]].append(chosen[0])

    @property
    def rngs(self) -> list[np.random.Generator]:
        """A source of randomness for each sample."""
        if not hasattr(self, "_rngs"):
            self._rngs = [self.batch.rng(index) for index in range(len(self.wanted))]
        return self._rngs

    def inputs(self) -> torch.Tensor:
        """Give what `Clicker.forward` takes."""
        batch = self.batch
        drawn = []
        for index, points in enumerate(self.points):
            spacing = batch.spacing[index]
            size = self.wanted[index].shape
            patch = Patch(np.zeros(3), size, np.eye(3), spacing, batch.da)
            both = [np.array(points[kind]).reshape(-1, 3) for kind in (True, False)]
            like = alike(batch.image[index, 0].cpu(), both[0])
            drawn.append(
                torch.stack([*(marks(one, patch) for one in both), self.region[index], like])
            )
        previous = torch.from_numpy(self.found)[:, None].float()
        told = torch.cat([torch.stack(drawn), previous], 1).to(batch.image.device)
        return torch.cat([2 * batch.image - 1, told, batch.organs], 1)

    def features(self) -> torch.Tensor:
        """Give the features that `Clicker.forward` takes."""
        batch = self.batch
        near = [
            akin(one.cpu(), np.array(points[True]).reshape(-1, 3), self.wanted.shape[1:])
            for one, points in zip(batch.features, self.points, strict=True)
        ]
        return torch.cat([batch.features, torch.stack(near).to(batch.features.device)], 1)


class ClickTask(JudgedTask):
    """See `Task`."""

    def __init__(self, recipe: Recipe, card: Card, scans: Sequence[KnownScan]) -> None:
        super().__init__(card)
        self.model = Clicker(int(scans[0].maps.shape[0]), **recipe.model)

    def loss(self, batch: ClickBatch, progress: float) -> tuple[torch.Tensor, Terms]:
        """See `Task`."""
        prompted = Prompted(batch)
        rounds = 1 + int(
            np.random.default_rng([batch.seed, batch.step]).choice(len(ROUNDS), p=ROUNDS)
        )
        prompted.start()
        for _ in range(rounds - 1):
            with torch.no_grad():
                self._answer(prompted)
            prompted.click(exact=False)
        inputs = prompted.inputs()
        logits = self.model(inputs, prompted.features(), batch.da)[:, 0].float()
        _, positive, negative, _, _, before, *_ = inputs.unbind(1)
        return click_loss(logits, batch.wanted, positive + negative, before), {}

    def sample(self, batch: ClickBatch) -> np.ndarray:
        """Scan, what is meant and what the model finds after three clicks."""
        found = list(self._played(batch))[-1]
        scans = [gray(part) for part in middle(batch.image[:, 0])]
        names = {1: "object"}
        drawn = [
            [
                overlaid(*pair, names)
                for pair in zip(scans, middle(labels.long().cpu()), strict=True)
            ]
            for labels in (batch.wanted, torch.from_numpy(found))
        ]
        return sheet([scans, *drawn])

    def score(self, figures: Figures, progress: float) -> float:
        """See `Task`."""
        return sum(figures[f"dice_{n}"] for n in JUDGED) / len(JUDGED)

    def validate(self, batches: Sequence[ClickBatch]) -> Figures:
        """Mean Dice over samples after one and three exact clicks."""
        dice: dict[int, list[float]] = {n: [] for n in JUDGED}
        for batch in batches:
            wanted = batch.wanted.cpu().numpy()
            for number, found in enumerate(self._played(batch), 1):
                if number in dice:
                    for a, b in zip(wanted, found, strict=True):
                        if a.any():
                            dice[number].append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
        self._judged = {f"dice_{n}": float(np.mean(values)) for n, values in dice.items()}
        return self._judged

    def _played(self, batch: ClickBatch) -> list[np.ndarray]:
        prompted = Prompted(dataclasses.replace(batch, rough=torch.zeros_like(batch.rough)))
        answers = []
        for _ in range(max(JUDGED)):
            prompted.click(exact=True)
            with torch.no_grad():
                self._answer(prompted)
            answers.append(prompted.found.copy())
        return answers

    def _answer(self, prompted: Prompted) -> None:
        batch = prompted.batch
        logits = self.model(prompted.inputs(), prompted.features(), batch.da)[:, 0]
        prompted.found = (logits > 0).cpu().numpy()


def click_loss(
    logits: torch.Tensor, wanted: torch.Tensor, clicked: torch.Tensor, before: torch.Tensor
) -> torch.Tensor:
    """Cross entropy and Dice of each sample in equal parts, and cross entropy where it matters.

    Most of an object that is corrected is right already; without the last terms a decoder learns to
    give back what it was given.

    Args:
        logits: (B, D, H, W).
        wanted: the same shape, booleans.
        clicked: the same shape, the marks of all clicks: where a person has said what is right.
        before: the same shape, 0 or 1, the object that was to be corrected.

    Returns:
        A mean over samples.
    """
    target = wanted.float()
    axes = (1, 2, 3)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (before != target).float()

    def over(weight: torch.Tensor) -> torch.Tensor:
        return (entropy * weight).sum(axes) / weight.sum(axes).clamp(min=1)

    chance = torch.sigmoid(logits)
    overlap = (chance * target).sum(axes)
    dice = (2 * overlap + 1) / (chance.sum(axes) + target.sum(axes) + 1)
    return (entropy.mean(axes) + 1 - dice + CLICKED * over(clicked) + WRONG * over(wrong)).mean()


def known_scans(recipe: Recipe, scans: Cohort, progress: Progress) -> list[KnownScan]:
    """Compute what the recipe's segmenter knows of each scan.

    Raises:
        SpadError: the recipe names no segmenter, or no scan has a label to train on.
    """
    if recipe.segmenter is None:
        raise SpadError(
            "The recipe names no segmenter, whose features the clicks need; name one "
            "(--segmenter organs-tiny)."
        )
    network, card = file.load(zoo.find(recipe.segmenter).path, choose("auto"), "segmenter")
    left_out = {i for i, name in scans.label_names.items() if name in recipe.data.without}
    made = []
    for number, scan in enumerate(scans.scans):
        progress(number / len(scans.scans), f"Features of {scan.name}")
        made.append(known_scan(scan, scans.label_names, network, card, left_out))
    if not any(one.boxes for one in made if not one.scan.validation):
        raise SpadError(
            "No training scan has a label to click on; give labelled scans or leave fewer labels "
            "out (data.without)."
        )
    return made


def known_scan(
    scan: Prepared,
    label_names: Mapping[int, str],
    network: object,
    card: Card,
    left_out: set[int],
) -> KnownScan:
    """Compute what a segmenter knows of a scan, and where its labels are."""
    assert scan.labels is not None
    shape = tuple(scan.labels.shape)
    size, spacing = working_grid(shape, scan.spacing, card.working_spacing)
    unit = scan.unit(scan.image[:]).float()
    array = resize(unit[None], size)[0].contiguous().numpy()
    frame = WorkingFrame(size, spacing, np.eye(4), shape, degree_of_anisotropy(spacing))  # type: ignore[arg-type]
    contract = contract_for(card, scan.modality)
    channels = UnitChannels(array[:1], frame, (contract,), (scan.limits,))
    names = card.label_names(scan.modality)
    work = Encoding(network, card, channels, names)  # type: ignore[arg-type]
    for _ in work.windows():
        pass
    places = {names[label]: n for n, label in enumerate(work.features.ids) if label}
    labels = scan.labels.numpy()
    boxes = {}
    for label in scan.known:
        if label in left_out or label not in scan.centres:
            continue
        voxels = np.nonzero(labels == label)
        boxes[label] = np.array([[v.min() for v in voxels], [v.max() + 1 for v in voxels]])
    return KnownScan(
        scan,
        work.features.maps,
        work.features.organs,
        {
            label: places[name]
            for label, name in label_names.items()
            if name in places and label not in left_out
        },
        boxes,
    )
