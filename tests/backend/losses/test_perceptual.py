"""The perceptual loss: by hand on one tap, its slices, and what is said without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spad.errors import SpadError
from spad.losses.perceptual import STAGES, Perceptual, drawn_slices


@pytest.fixture(scope="module")
def measure() -> Perceptual:
    return Perceptual.random(0)


def weights_by_their_names(measure: Perceptual) -> dict[str, torch.Tensor]:
    """The authors' names, written out: VGG-16 numbers convolutions, ReLUs and poolings alike."""
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    convolutions = [c for stage in measure.stages for c in stage]
    given = {f"features.{p}.weight": c.weight for p, c in zip(places, convolutions, strict=True)}
    given |= {f"features.{p}.bias": c.bias for p, c in zip(places, convolutions, strict=True)}
    return given | {f"lin{n}.model.1.weight": tap.weight for n, tap in enumerate(measure.taps)}


def by_hand(measure: Perceptual, x: torch.Tensor, y: torch.Tensor) -> float:
    """LPIPS of two 2D RGB images in [-1, 1], straight from the paper."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    total, maps = 0.0, [((v + 1) / 2 - mean) / sd for v in (x, y)]
    for number, stage in enumerate(measure.stages):
        for convolution in stage:
            maps = [
                F.relu(F.conv2d(m, convolution.weight, convolution.bias, padding=1)) for m in maps
            ]
        unit = [m / (m.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for m in maps]
        difference = (unit[0] - unit[1]) ** 2
        total += float((difference * measure.taps[number].weight).sum(1).mean())
        maps = [F.max_pool2d(m, 2) for m in maps]
    return 2 * total


def test_agrees_with_the_formula_slice_by_slice(measure: Perceptual) -> None:
    x, y = torch.rand(2, 2, 1, 3, 32, 32) * 2 - 1
    slices = [
        by_hand(measure, x[b, :, d].expand(1, 3, -1, -1), y[b, :, d].expand(1, 3, -1, -1))
        for b in range(2)
        for d in range(3)
    ]
    assert measure(x, y).item() == pytest.approx(sum(slices) / 6, rel=1e-3)
    assert measure(x, x).item() == 0


def test_only_the_drawn_slices_count_and_gradients_flow_to_them(measure: Perceptual) -> None:
    x, y = torch.rand(2, 1, 3, 4, 16, 16) * 2 - 1
    y.requires_grad_()
    measure(x, y, torch.tensor([[2, 0]])).backward()
    assert y.grad is not None
    assert y.grad[:, :, [1, 3]].abs().max() == 0
    assert (y.grad[:, :, [0, 2]].abs().amax((0, 1, 3, 4)) > 0).all()


def test_slices_are_at_most_24_and_none_twice() -> None:
    drawn = drawn_slices(3, 40, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 24)
    assert all(len(set(row.tolist())) == 24 for row in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert drawn_slices(2, 5, torch.Generator()).sort(1).values.tolist() == [list(range(5))] * 2


def test_weights_come_from_files_by_the_authors_names(measure: Perceptual, tmp_path: Path) -> None:
    given = weights_by_their_names(measure)
    vgg = {k: v for k, v in given.items() if k.startswith("features")}
    torch.save(vgg | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    torch.save({k: v for k, v in given.items() if k.startswith("lin")}, tmp_path / "vgg.pth")
    loaded = Perceptual([tmp_path / "vgg16.pth", tmp_path / "vgg.pth"])
    x, y = torch.rand(2, 1, 3, 1, 16, 16) * 2 - 1
    assert torch.equal(loaded(x, y), measure(x, y))
    with pytest.raises(SpadError, match="lin0"):
        Perceptual([tmp_path / "vgg16.pth"])


def test_says_what_to_do_without_weights(tmp_path: Path) -> None:
    with pytest.raises(SpadError, match=r"--loss\.perceptual 0"):
        Perceptual([])
    (tmp_path / "no.pth").write_bytes(b"nothing")
    with pytest.raises(SpadError, match="could not be read"):
        Perceptual([tmp_path / "no.pth"])


def test_has_the_sizes_of_vgg_16() -> None:
    assert sum(len(stage) for stage in STAGES) == 13
