"""The body's box, and the whole scan where no body is clear."""

from __future__ import annotations

import numpy as np
import pytest

from spad.inference.body import body_box, holds_tissue, tissue


def air(shape=(30, 80, 80)) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.08, shape).astype(np.float32)


def box_of(unit: np.ndarray, spacing) -> tuple[slice, slice, slice]:
    return body_box(tissue(unit, spacing), unit.shape)


def shape_of(box) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in box)


def test_body_in_air_is_cut_out_with_a_margin() -> None:
    unit = air()
    unit[:, 25:60, 30:70] = 0.5
    unit[2, 3, 4] = 1.0
    z, y, x = box_of(unit, (4.0, 4.0, 4.0))
    assert (z.start, z.stop) == (0, 30)
    assert 10 <= y.start <= 20
    assert 65 <= y.stop <= 70
    assert 15 <= x.start <= 25
    assert x.stop >= 75


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (1.0, 0.4, 0.4), (30.0, 9.0, 9.0)])
def test_no_clear_body(spacing) -> None:
    assert shape_of(box_of(air(), spacing)) == (30, 80, 80)
    two = air()
    two[:, 10:30, 10:70] = two[:, 50:70, 10:70] = 0.6
    assert shape_of(box_of(two, spacing)) == (30, 80, 80)
    assert shape_of(box_of(np.ones((30, 80, 80), np.float32), spacing)) == (30, 80, 80)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (3, 1, 70)])
def test_any_shape(shape) -> None:
    box = box_of(np.full(shape, 0.7, np.float32), (2.0, 0.7, 0.7))
    assert shape_of(box) == shape


def test_a_part_of_air_holds_no_tissue() -> None:
    unit = air()
    unit[:, 25:60, 30:70] = 0.5
    found = tissue(unit, (4.0, 4.0, 4.0))
    assert holds_tissue(found, unit.shape, (slice(0, 30), slice(55, 80), slice(0, 80)))
    assert not holds_tissue(found, unit.shape, (slice(0, 30), slice(66, 80), slice(0, 80)))
    assert not holds_tissue(found, unit.shape, (slice(0, 30), slice(0, 80), slice(0, 24)))
