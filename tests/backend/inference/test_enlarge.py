"""Labels on the fine grid are those of interpolating all classes there at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from spad.errors import Cancelled
from spad.inference import enlarge
from spad.inference.enlarge import likeliest
from spad.models.resize import resize
from spad.progress import silent


def probabilities(classes: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, classes, *shape, generator=generator)
    smooth = functional.avg_pool3d(logits, 3, 1, 1, count_include_pad=False)
    return (12 * smooth).softmax(1)[0]


def by_resize(p: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    return resize(p[None], size)[0].argmax(0).numpy()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((6, 9, 11), (6, 20, 33)),
        ((6, 9, 11), (13, 9, 12)),
        ((6, 9, 11), (6, 9, 11)),
        ((6, 9, 11), (4, 5, 7)),
        ((6, 9, 11), (3, 30, 11)),
        ((3, 5, 3), (3, 16, 7)),
    ],
)
def test_equals_interpolating_everything(shape, size) -> None:
    p = probabilities(5, shape)
    found = likeliest(p, [0, 1, 2, 3, 4], size, silent)
    assert found.dtype == np.uint8
    assert (found == by_resize(p, size)).mean() > 0.9995


def test_slabs_change_nothing(monkeypatch) -> None:
    p = probabilities(4, (9, 10, 12))
    whole = likeliest(p, [0, 1, 2, 3], (20, 25, 30), silent)
    monkeypatch.setattr(enlarge, "SLAB_NUMBERS", 1)
    assert np.array_equal(whole, likeliest(p, [0, 1, 2, 3], (20, 25, 30), silent))


def test_only_the_box_with_something_in_it_is_worked_on() -> None:
    p = torch.zeros(3, 10, 12, 14)
    p[0] = 1
    p[:, 3:5, 4:8, 9:12] = torch.tensor([0.1, 0.2, 0.7])[:, None, None, None]
    found = likeliest(p, [0, 4, 300], (20, 31, 29), silent)
    assert found.dtype == np.uint16
    assert np.array_equal(found, np.array([0, 4, 300])[by_resize(p, (20, 31, 29))])
    assert (found == 300).any()


def test_a_class_that_wins_only_between_voxels_is_found() -> None:
    p = torch.zeros(4, 1, 1, 2)
    p[:, 0, 0, 0] = torch.tensor([0.0, 0.55, 0.0, 0.45])
    p[:, 0, 0, 1] = torch.tensor([0.0, 0.0, 0.55, 0.45])
    assert 3 in likeliest(p, [0, 1, 2, 3], (1, 1, 16), silent)


def test_nothing_found() -> None:
    p = torch.zeros(2, 3, 4, 5)
    p[0] = 1
    assert not likeliest(p, [0, 7], (6, 8, 10), silent).any()
    assert not likeliest(p[:1], [0], (6, 8, 10), silent).any()


def test_can_be_cancelled() -> None:
    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        likeliest(probabilities(3, (4, 4, 4)), [0, 1, 2], (8, 8, 8), stop)
