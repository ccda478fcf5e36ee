"""Batches: a function of seed and step alone, of one da, with what annotators drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spad.data.cohort import Prepared
from spad.data.options import DataOptions
from spad.data.samples import Batch, Sampler, token_crop, window_crop


def scan(
    name: str, da: int, known: tuple[int, ...], modality: str = "CT", phantom: bool = False
) -> Prepared:
    rng = np.random.default_rng(len(name) + da)
    labels = np.zeros((24, 40, 40), np.uint8)
    centres = {}
    for label in known:
        labels[4 * label : 4 * label + 3, 10:20, 10:20] = label
        centres[label] = np.argwhere(labels == label).astype(np.float32)
    image = torch.from_numpy(rng.random(labels.shape, dtype=np.float32)).half()[None]
    return Prepared(
        name,
        modality,
        image,
        torch.from_numpy(labels),
        known,
        centres,
        da,
        phantom,
        validation=False,
    )


SCANS = [scan("a", 0, (1, 2)), scan("bb", 0, (1,)), scan("ccc", 1, (1, 3), "MR")]
OPTIONS = DataOptions(batch=3, window=[32, 32, 32], rotation=10, mr_share=0.4)


def sampler(seed: int = 0, augment: bool = True) -> Sampler:
    return Sampler(SCANS, OPTIONS, classes=4, seed=seed, augment=augment)


def equal(one: Batch, two: Batch) -> bool:
    assert one.labels is not None
    assert two.labels is not None
    return torch.equal(one.image, two.image) and torch.equal(one.labels, two.labels)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward = [sampler().batch(step) for step in range(4)]
    backward = [sampler().batch(step) for step in reversed(range(4))][::-1]
    assert all(equal(one, two) for one, two in zip(forward, backward, strict=True))
    assert not torch.equal(forward[0].image, sampler(seed=1).batch(0).image)


def test_every_batch_has_one_da_and_its_crop() -> None:
    found = {sampler().batch(step).da: sampler().batch(step).image.shape for step in range(20)}
    assert found == {0: (3, 1, 32, 32, 32), 1: (3, 1, 16, 32, 32)}


def test_known_names_what_was_labelled() -> None:
    for step in range(10):
        batch = sampler().batch(step)
        assert batch.labels is not None
        assert batch.known is not None
        for labels, known in zip(batch.labels, batch.known, strict=True):
            assert known[labels.unique()].all()
        if batch.da == 1:
            assert batch.known.tolist() == [[True, True, False, True]] * 3


def test_shares_of_modalities_and_phantoms() -> None:
    scans = [scan("a", 0, (1,)), scan("p", 0, (1,), phantom=True), scan("m", 0, (1,), "MR")]
    options = DataOptions(phantom_share=0.5, mr_share=0.2)
    drawn = Sampler(scans, options, classes=2, seed=0, augment=False)
    assert drawn.weights == pytest.approx([0.4, 0.5, 0.1])


@pytest.mark.parametrize(
    ("da", "size"),
    [
        (0, (64, 128, 128)),
        (1, (32, 128, 128)),
        (2, (16, 128, 128)),
        (3, (8, 128, 128)),
        (4, (4, 128, 128)),
        (5, (1, 128, 128)),
    ],
)
def test_token_crops_are_the_papers(da: int, size: tuple[int, int, int]) -> None:
    assert token_crop(da, (4, 8)) == size


def test_a_window_keeps_at_least_one_coarsest_cell() -> None:
    assert [window_crop(da, (64, 64, 96))[0] for da in range(6)] == [64, 32, 16, 8, 4, 2]
    assert [window_crop(da, (32, 64, 96))[0] for da in (0, 5)] == [32, 1]
