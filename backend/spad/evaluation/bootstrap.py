"""How sure a mean over cases is: percentile bootstrap intervals, 95 %.

The cases are drawn anew, with replacement and as many as there are, 2000 times from a fixed seed;
the interval runs from the 2.5th to the 97.5th percentile of the 2000 means (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 13). It tells how far the mean would move with
other cases like these, not with another training; of few cases it is too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE, RESAMPLES, SEED = 0.95, 2000, 0
METHOD = {
    "method": "percentile bootstrap over cases",
    "confidence": CONFIDENCE,
    "resamples": RESAMPLES,
    "seed": SEED,
}
"""What an interval is, for reports."""

Interval = tuple[float, float]


class Difference(NamedTuple):
    """Mean of paired differences and its interval; None where cases are too few."""

    mean: float | None
    low: float | None
    high: float | None


def interval_of_mean(values: Sequence[float | None]) -> Interval | None:
    """Give the interval of the mean of a figure over cases.

    Args:
        values: the figure of each case; None where it is undefined: such a case is left out.

    Returns:
        Low and high end, in the figure's unit, or None if it is defined in fewer than two cases.
    """
    defined = np.array([value for value in values if value is not None], float)
    if len(defined) < 2:
        return None
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(len(defined), size=(RESAMPLES, len(defined)))
    means = defined[drawn].mean(axis=1)
    low, high = np.percentile(means, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def paired_difference(a: Sequence[float | None], b: Sequence[float | None]) -> Difference:
    """Compare two models by a figure of the same cases: the mean of `a - b`, and its interval.

    Args:
        a: the figure of each case by one model; None where it is undefined.
        b: the same cases, in the same order, by another model.

    Returns:
        Mean, low and high end over the cases in which both are defined. The mean is None without
        such a case, the ends are None with fewer than two.
    """
    differences = [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not differences:
        return Difference(None, None, None)
    low, high = interval_of_mean(differences) or (None, None)
    return Difference(float(np.mean(differences)), low, high)
