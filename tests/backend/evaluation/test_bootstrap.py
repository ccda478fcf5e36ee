"""Intervals of means over cases: against the spread of means, and paired against unpaired."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from spad.evaluation.bootstrap import Difference, interval_of_mean, paired_difference


@pytest.fixture
def values() -> list[float]:
    return np.random.default_rng(3).beta(8, 2, size=20).tolist()


def test_as_scipy_makes_it(values: list[float]) -> None:
    low, high = interval_of_mean(values)
    theirs = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.1 * (theirs.high - theirs.low))


def test_always_the_same(values: list[float]) -> None:
    assert interval_of_mean(values) == interval_of_mean(values)


def test_holds_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(5, 2, size=(200, 30))
    intervals = [interval_of_mean(sample) for sample in samples]
    assert 0.88 < np.mean([low <= 5 <= high for low, high in intervals]) < 0.99


def test_undefined_cases_are_left_out(values: list[float]) -> None:
    assert interval_of_mean([None, *values, None]) == interval_of_mean(values)


@pytest.mark.parametrize("few", [[], [None], [0.5], [0.5, None]])
def test_fewer_than_two_cases_have_no_interval(few: list[float | None]) -> None:
    assert interval_of_mean(few) is None


class TestPairedDifference:
    def test_cases_that_vary_more_than_the_models(self, values: list[float]) -> None:
        better = [value + 0.02 + 0.001 * (-1) ** n for n, value in enumerate(values)]
        found = paired_difference(better, values)
        assert found.mean == pytest.approx(0.02)
        assert 0.019 < found.low < found.mean < found.high < 0.021
        low, high = interval_of_mean(values)
        assert high - low > 0.05

    def test_turned_round(self, values: list[float]) -> None:
        others = values[::-1]
        there, back = paired_difference(values, others), paired_difference(others, values)
        assert there == pytest.approx((-back.mean, -back.high, -back.low))

    def test_only_cases_that_both_have(self) -> None:
        found = paired_difference([1.0, None, 3.0, 4.0], [0.5, 1.0, None, 3.0])
        assert found == paired_difference([1.0, 4.0], [0.5, 3.0])
        assert found.mean == 0.75

    def test_too_few(self) -> None:
        assert paired_difference([1.0], [0.5]) == Difference(0.5, None, None)
        assert paired_difference([None], [0.5]) == Difference(None, None, None)

    def test_other_cases(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            paired_difference([1.0], [0.5, 0.6])
