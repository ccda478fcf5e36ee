"""Our modules with the authors' weights against what the authors' modules computed."""

from __future__ import annotations

import math

import pytest
from golden_cases import all_cases
from golden_models import Case, tokenizer
from golden_rule import golden_input, stats_error

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=[f"{c.row}-{c.name}" for c in CASES])
def test_case(case: Case):
    assert case.error() <= case.tolerance


def test_every_row_of_the_models_is_covered():
    assert {case.row for case in CASES} == set(range(1, 14))


def test_the_figures_tell_a_changed_tensor():
    x = golden_input(1, 3, 4, 4)
    golden = {
        "shape": [1, 3, 4, 4],
        "mean": float(x.mean()),
        "std": float(x.std()),
        "absmax": float(x.abs().max()),
        "first": x.flatten()[:4].tolist(),
    }
    assert stats_error(x, golden) < 1e-6
    assert stats_error(x + 1e-3, golden) > 9e-4
    assert stats_error(x.flip(3), golden) > 1e-2
    assert math.isinf(stats_error(x[0], golden))


def test_the_da_of_6_and_5_are_the_same():
    model, x = tokenizer(), golden_input(1, 3, 3, 32, 32) * 2 - 1
    assert (model(x, 6)[0] - model(x, 5)[0]).abs().max() == 0
