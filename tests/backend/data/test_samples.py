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
    # whole cells of the coarsest map, so that training pads no more than a scan does
    assert window_crop(1, (48, 64, 64)) == (32, 64, 64)
    assert window_crop(0, (48, 70, 64)) == (64, 96, 64)


def flat(name: str, colours: int = 1, weight: float = 1.0) -> Prepared:
    image = torch.from_numpy(np.random.default_rng(5).integers(0, 255, (colours, 1, 90, 80)))
    return Prepared(
        *(name, "OP", image.to(torch.uint8), None, (), {}, 5, False, False),
        limits=(0.0, 255.0),
        weight=weight,
    )


def deep(name: str, spacing: tuple[float, float, float], da: int, **more: object) -> Prepared:
    image = torch.from_numpy(np.random.default_rng(6).integers(-1000, 1000, (1, 40, 80, 80)))
    return Prepared(
        *(name, "CT", image.to(torch.int16), None, (), {}, da, False, False),
        limits=(-125.0, 275.0),
        spacing=spacing,
        **more,  # type: ignore[arg-type]
    )


def of_tokens(scans: list[Prepared], **more: object) -> Sampler:
    options = DataOptions(batch=2, tokens=[3, 2], mr_share=0.0, **more)  # type: ignore[arg-type]
    return Sampler(scans, options, classes=0, seed=0, augment=True)


class TestTokens:
    def test_batches_hold_equally_many_tokens_and_scans_keep_their_weight(self) -> None:
        drawn = of_tokens([deep("a", (1.0, 1.0, 1.0), 0), flat("b", weight=2.0)])
        batches = [drawn.batch(step) for step in range(80)]
        samples = {0: 0, 5: 0}
        for batch in batches:
            samples[batch.da] += len(batch.image)
            grid = batch.image.shape[2] // max(16 >> batch.da, 1) if batch.da < 5 else 1
            assert len(batch.image) * grid * 2 * 2 == 2 * 3 * 2 * 2
        assert samples[5] / samples[0] == pytest.approx(2.0, rel=0.35)

    def test_da_is_that_of_the_scaled_sample(self) -> None:
        scan = deep("a", (1.9, 1.0, 1.0), 0)
        drawn = of_tokens([scan], zoom=[0.75, 2.0], depth_zoom=[0.8, 1.25], zoom_share=0.5)
        das = {drawn.batch(step).da for step in range(40)}
        assert das == {0, 1}  # 1.9 / 0.75 has da 1
        kept = of_tokens([scan], zoom=[0.75, 2.0])
        assert {kept.batch(step).da for step in range(10)} == {0}

    def test_every_process_draws_the_same_da(self) -> None:
        scans = [deep("a", (1.0, 1.0, 1.0), 0), deep("b", (4.0, 1.0, 1.0), 2), flat("c")]
        options = DataOptions(batch=2, tokens=[2, 2])
        ranks = [
            Sampler(scans, options, classes=0, seed=3, augment=True, rank=rank, ranks=2)
            for rank in range(2)
        ]
        for step in range(12):
            one, two = (sampler.batch(step) for sampler in ranks)
            assert one.da == two.da
            assert (one.first, two.first) == (0, len(one.image))
            assert not torch.equal(one.image, two.image)

    def test_windows_of_ct_are_drawn_within_its_span(self) -> None:
        scan = deep("a", (1.0, 1.0, 1.0), 0, span=(-900.0, 900.0))
        rng = np.random.default_rng(0)
        drawn = [of_tokens([scan], ct_windows=True)._limits(scan, rng) for _ in range(200)]
        others = [pair for pair in drawn if pair != scan.limits]
        assert 70 < len(others) < 130
        assert all(low >= -900 and high <= 900 and high - low >= 149.9 for low, high in others)
        assert (-900.0, 900.0) in others
        fixed = of_tokens([scan])._limits(scan, rng)
        assert fixed == scan.limits

    def test_colour_keeps_its_channels_beside_gray(self) -> None:
        batches = [of_tokens([flat("a", 3), flat("b")]).batch(step).image for step in range(6)]
        assert {batch.shape[1] for batch in batches} == {1, 3}  # those of gray alone have one
        assert any(len(image) == 3 and (image[0] != image[1]).any() for b in batches for image in b)
        assert any(len(image) == 3 and (image[0] == image[2]).all() for b in batches for image in b)

    def test_values_are_those_of_the_window(self) -> None:
        scan = deep("a", (1.0, 1.0, 1.0), 0)
        options = DataOptions(batch=1, tokens=[1, 2])
        batch = Sampler([scan], options, classes=0, seed=0, augment=False).batch(0)
        wanted = ((scan.image[:, :, :, :].float() + 125) / 400).clamp(0, 1)
        crop = batch.image[0, 0]
        places = wanted[0].unfold(0, 16, 1).unfold(1, 32, 1).unfold(2, 32, 1)
        # an unscaled crop lies between voxels, so that its mean is compared, not its voxels
        assert crop.mean() == pytest.approx(float(places.mean()), abs=0.1)
        assert 0 <= crop.min() < crop.max() <= 1

    def test_a_device_makes_the_same_samples(self) -> None:
        here = of_tokens([deep("a", (1.0, 1.0, 1.0), 0)])
        assert torch.equal(here.batch(3).image, here.to(torch.device("cpu")).batch(3).image)
        assert here.held() == 40 * 80 * 80 * 2
