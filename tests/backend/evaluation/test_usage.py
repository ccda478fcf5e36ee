"""Pooled usage of codes against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spad.evaluation.usage import FEWEST_CROPS, Positions, Usage


def tokens_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    p = np.random.default_rng(seed).random(shape) ** 6
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def h(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


class TestUsage:
    def test_pooled_over_tokens_of_scans_of_different_size(self) -> None:
        scans = tokens_of((2, 3, 4, 10), 0), tokens_of((1, 2, 2, 10), 1)
        usage = Usage(10)
        for scan in scans:
            usage.add(scan)
        p = np.concatenate([scan.reshape(-1, 10) for scan in scans]).astype(float)
        mean, found = p.mean(0), usage.figures()
        assert found["tokens"] == len(p) == 28
        assert np.allclose(usage.mean, mean)
        assert found["codes_used"] == len(set(p.argmax(1)))
        assert found["codes_used_share"] == found["codes_used"] / 10
        assert found["perplexity"] == pytest.approx(math.exp(h(mean)), rel=1e-6)
        assert found["most_over_least"] == pytest.approx(mean.max() / mean.min(), rel=1e-5)
        assert (found["least_used"], found["most_used"]) == (mean.min(), mean.max())
        assert found["mean_entropy"] == pytest.approx(h(p).mean(), abs=1e-5)
        to_uniform = (p * np.log(p * 10)).sum(1).mean()
        assert found["mean_kl_to_uniform"] == pytest.approx(to_uniform, abs=1e-5)
        assert found["ln_codes"] == math.log(10)

    def test_a_code_that_is_never_used(self) -> None:
        usage = Usage(3)
        usage.add(np.array([[0.5, 0.5, 0.0]], np.float32))
        assert usage.figures()["most_over_least"] == math.inf
        assert usage.figures()["codes_used"] == 1


class TestPositions:
    def test_against_the_definition(self) -> None:
        crops, positions = tokens_of((9, 2, 3, 3, 7), 3), Positions()
        for crop in crops:
            positions.add(crop)
        p = crops.astype(float)
        assert positions.information == pytest.approx((h(p.mean(0)) - h(p).mean(0)).mean(), 1e-4)
        assert positions.crops == 9

    def test_codes_that_tell_their_place_only(self) -> None:
        positions = Positions()
        for _ in range(FEWEST_CROPS):
            positions.add(np.eye(8, dtype=np.float32).reshape(2, 2, 2, 8))
        assert positions.information == pytest.approx(0, abs=1e-6)

    def test_codes_that_tell_the_image(self) -> None:
        positions = Positions()
        for code in range(FEWEST_CROPS):
            crop = np.zeros((1, 2, 2, FEWEST_CROPS), np.float32)
            crop[..., code] = 1
            positions.add(crop)
        assert positions.information == pytest.approx(math.log(FEWEST_CROPS), abs=1e-5)

    def test_sizes_are_not_mixed_and_few_crops_say_nothing(self) -> None:
        positions = Positions()
        for seed in range(FEWEST_CROPS - 1):
            positions.add(tokens_of((1, 2, 2, 5), seed))
            positions.add(tokens_of((1, 1, 2, 5), seed))
        assert positions.information is None
        positions.add(tokens_of((1, 1, 2, 5), 99))
        assert positions.information is not None
        assert positions.crops == FEWEST_CROPS
