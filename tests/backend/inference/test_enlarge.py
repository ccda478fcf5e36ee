"""Labels on the fine grid are those of interpolating all classes there at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from spad.inference import enlarge
from spad.inference.enlarge import Enlarger, line
from spad.models.resize import resize

SIZES = [
    ((6, 9, 11), (6, 20, 33)),
    ((6, 9, 11), (13, 9, 12)),
    ((6, 9, 11), (6, 9, 11)),
    ((6, 9, 11), (4, 5, 7)),
    ((6, 9, 11), (3, 30, 11)),
    ((3, 5, 3), (3, 16, 7)),
    ((1, 3, 3), (1, 5, 4)),
]


def probabilities(classes: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, classes, *shape, generator=generator)
    side = [min(n, 3) for n in shape]
    smooth = functional.avg_pool3d(logits, side, 1, [n // 2 for n in side])
    return (12 * smooth).softmax(1)[0]


def enlarged(
    p: torch.Tensor, size: tuple[int, ...], ids=None, cuts=(), known=(None, None, None)
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence, from slabs that end at `cuts`."""
    ids = range(len(p)) if ids is None else ids
    labels = np.zeros(size, np.min_scalar_type(max(ids)))
    alone, confidence = labels.copy(), np.full(size, 77, np.uint8)
    deep, high, wide = (line(*axis) for axis in zip(p.shape[1:], size, known, strict=True))
    corner = tuple(0 if part is None else part.start for part in known)
    p = p[(slice(None), *(slice(None) if part is None else part for part in known))]
    bounds = [0, *cuts, p.shape[1]]
    for outputs in ((labels, confidence), (alone, None)):
        enlarger = Enlarger((deep, high, wide), ids, *outputs)
        for start, stop in pairwise(bounds):
            slab = p[:, start:stop].clone()
            enlarger.add(slab, (corner[0] + start, *corner[1:]))
            slab.zero_()  # it is the sweep's, which writes over it
    assert np.array_equal(labels, alone)
    return labels, confidence


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_equals_interpolating_everything(shape, size) -> None:
    p = probabilities(5, shape)
    labels, confidence = enlarged(p, size)
    fine = resize(p[None], size)[0]
    assert labels.dtype == np.uint8
    assert (labels == fine.argmax(0).numpy()).mean() > 0.9995
    assert np.abs(confidence - 100 * fine.amax(0).numpy()).max() <= 0.51


@pytest.mark.parametrize(("shape", "size"), SIZES[:5])
@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5), (2,), (5,)])
def test_slabs_and_tiles_change_nothing(shape, size, cuts, monkeypatch) -> None:
    p = probabilities(4, shape)
    whole = enlarged(p, size)
    monkeypatch.setattr(enlarge, "SLAB_SLICES", 2)
    monkeypatch.setattr(enlarge, "TILE", 5)
    for a, b in zip(whole, enlarged(p, size, cuts=cuts), strict=True):
        assert np.mean(a != b) < 1e-3


@pytest.mark.parametrize("size", [(20, 31, 29), (6, 7, 9)])
def test_of_a_part_only_what_lies_in_it_is_written(size) -> None:
    p = torch.zeros(3, 10, 12, 14)
    p[0] = 1
    p[:, 3:5, 4:8, 9:12] = torch.tensor([0.1, 0.2, 0.7])[:, None, None, None]
    ids = [0, 4, 300]
    whole, _ = enlarged(p, size, ids)
    assert whole.dtype == np.uint16
    assert (whole == 300).any()
    part = (slice(2, 7), slice(3, 9), slice(7, 13))
    found, inside = enlarged(p, size, ids, cuts=(2,), known=part)
    assert np.array_equal(found, whole)
    written = inside != 77
    centres = [(np.arange(n) + 0.5) * c / n for n, c in zip(size, p.shape[1:], strict=True)]
    wanted = np.zeros(size, bool)
    inner = [(one >= s.start) & (one < s.stop) for one, s in zip(centres, part, strict=True)]
    wanted[np.ix_(*inner)] = True
    assert np.array_equal(written, wanted)


def test_a_class_that_wins_only_between_voxels_is_found() -> None:
    p = torch.zeros(4, 1, 1, 2)
    p[:, 0, 0, 0] = torch.tensor([0.0, 0.55, 0.0, 0.45])
    p[:, 0, 0, 1] = torch.tensor([0.0, 0.0, 0.55, 0.45])
    assert 3 in enlarged(p, (1, 1, 16))[0]


def test_nothing_found() -> None:
    p = torch.zeros(2, 3, 4, 5)
    p[0] = 1
    assert not enlarged(p, (6, 8, 10), [0, 7])[0].any()
    labels, confidence = enlarged(p[:1], (6, 8, 10), [0])
    assert not labels.any()
    assert (confidence == 100).all()


@pytest.mark.parametrize("depth", [4, 12, 31])
def test_slabs_above_and_below_what_is_wanted(depth: int) -> None:
    p = probabilities(3, (12, 5, 6))
    whole, _ = enlarged(p, (depth, 9, 6))
    deep, high, wide = (line(*axis) for axis in zip(p.shape[1:], whole.shape, strict=True))
    part = slice(2 * depth // 3, 2 * depth // 3 + 2)
    labels = np.zeros_like(whole)
    enlarger = Enlarger((deep.within(part.start, part.stop), high, wide), range(3), labels)
    for start in range(0, 12, 2):
        enlarger.add(p[:, start : start + 2], (start, 0, 0))
    assert np.array_equal(labels[part], whole[part])
    assert not np.delete(labels, range(part.start, part.stop), axis=0).any()


class TestLine:
    def test_fewer_fine_voxels(self) -> None:
        whole = line(6, 15)
        some = whole.within(4, 9)
        assert some.fine == slice(4, 9)
        assert len(whole.within(15, 20)) == 0
        x = torch.arange(6.0)[None, :]
        inner = some.apply(x[:, some.coarse], 1)
        assert torch.allclose(inner, whole.apply(x, 1)[:, 4:9])

    def test_a_known_part_that_holds_no_centre(self) -> None:
        assert len(line(10, 2, slice(0, 2))) == 0
