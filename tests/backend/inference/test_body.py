"""The body's box, and the whole scan where no body is clear."""

from __future__ import annotations

import numpy as np
import pytest

from spad.inference.body import body_box


def air(shape=(30, 80, 80)) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.08, shape).astype(np.float32)


def shape_of(box) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in box)


def test_body_in_air_is_cut_out_with_a_margin() -> None:
    unit = air()
    unit[:, 25:60, 30:70] = 0.5
    unit[2, 3, 4] = 1.0
    z, y, x = body_box(unit, (4.0, 4.0, 4.0))
    assert (z.start, z.stop) == (0, 30)
    assert 10 <= y.start <= 20
    assert 65 <= y.stop <= 70
    assert 15 <= x.start <= 25
    assert x.stop >= 75


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (1.0, 0.4, 0.4), (30.0, 9.0, 9.0)])
def test_no_clear_body(spacing) -> None:
    assert shape_of(body_box(air(), spacing)) == (30, 80, 80)
    two = air()
    two[:, 10:30, 10:70] = two[:, 50:70, 10:70] = 0.6
    assert shape_of(body_box(two, spacing)) == (30, 80, 80)
    assert shape_of(body_box(np.ones((30, 80, 80), np.float32), spacing)) == (30, 80, 80)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (3, 1, 70)])
def test_any_shape(shape) -> None:
    box = body_box(np.full(shape, 0.7, np.float32), (2.0, 0.7, 0.7))
    assert shape_of(box) == shape
