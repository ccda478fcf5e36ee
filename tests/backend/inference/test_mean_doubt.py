"""How unsure the segmenter is of a whole scan, in one figure."""

from __future__ import annotations

import math

import pytest
import torch

from spad.inference.click_scans import mean_doubt
from spad.inference.features import Features

SIDE = 10


def known(*chances: torch.Tensor) -> Features:
    organs = (torch.stack(chances) * 255).round().to(torch.uint8)
    ids = list(range(len(chances)))
    seen = torch.ones(organs.shape[1:], dtype=torch.bool)
    return Features(torch.zeros(1, 5, 5, 5), organs, ids, {}, seen, complete=True)


def cube(side: int, inside: float) -> torch.Tensor:
    made = torch.zeros(SIDE, SIDE, SIDE)
    made[:side, :side, :side] = inside
    return made


def entropy(chance: float) -> float:
    return -chance * math.log(chance) - (1 - chance) * math.log(1 - chance)


@pytest.mark.parametrize("chance", [0.6, 0.8])
def test_air_and_background_do_not_count(chance: float) -> None:
    for side in (2, 5):
        organ = cube(side, chance)
        assert mean_doubt(known(1 - organ, organ)) == pytest.approx(entropy(chance), abs=0.01)


def test_a_small_organ_counts_as_much_as_a_large_one() -> None:
    large, small = cube(8, 1.0), torch.zeros(SIDE, SIDE, SIDE)
    small[9, 9, 9] = 0.7
    found = mean_doubt(known(1 - large - small, large, small))
    assert found == pytest.approx(entropy(0.7) / 2, abs=0.01)


def test_it_reaches_from_sure_to_the_logarithm_of_the_classes() -> None:
    organ = cube(4, 1.0)
    assert mean_doubt(known(1 - organ, organ)) == pytest.approx(0, abs=1e-4)
    slightly = cube(4, 1 / 255)
    shares = [(1 - cube(4, 1.0)) + cube(4, 0.25) - slightly, *(cube(4, 0.25) for _ in range(3))]
    assert mean_doubt(known(*shares)) == pytest.approx(math.log(4), abs=0.02)


def test_where_no_organ_is_found_it_is_unknown() -> None:
    assert mean_doubt(known(cube(SIDE, 1.0), cube(3, 0.2))) is None
