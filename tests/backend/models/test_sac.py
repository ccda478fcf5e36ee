"""Spatially adaptive convolutions: depth rules, kernels for a given da, and the cache of sums."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from spad.errors import SpadError
from spad.models.sac import (
    SpatialConv3d,
    SpatialConvTranspose3d,
    SpatialMaxPool3d,
    SpatialSequential,
    depth_factor_down,
    depth_factor_up,
    level_factors,
)


def fresh(module: SpatialConv3d, x: torch.Tensor, da: int) -> torch.Tensor:
    """What the module gives without a cache: through the path that carries gradients."""
    with torch.enable_grad():
        return module(x, da).detach()


# (encoder steps 2^2, 2^1, 2^1 at levels 0, 2, 3), (decoder 2^1, 2^1, 2^2 at levels 4, 3, 2)
STRIDES = {
    0: ((4, 2, 2), (2, 2, 4), 16),
    1: ((2, 2, 2), (2, 2, 2), 8),
    2: ((1, 2, 2), (2, 2, 1), 4),
    3: ((1, 1, 2), (2, 1, 1), 2),
    4: ((1, 1, 1), (1, 1, 1), 1),
    5: ((1, 1, 1), (1, 1, 1), 1),
    26: ((1, 1, 1), (1, 1, 1), 1),
}


@pytest.mark.parametrize("da", STRIDES)
def test_depth_strides_are_those_of_the_papers_table(da: int):
    down, up, slices = STRIDES[da]
    assert tuple(depth_factor_down(k, level, da) for k, level in ((2, 0), (1, 2), (1, 3))) == down
    assert tuple(depth_factor_up(k, level, da) for k, level in ((1, 4), (1, 3), (2, 2))) == up
    assert level_factors(4, da) == (slices, 16, 16)


@pytest.mark.parametrize("da", range(6))
def test_what_goes_down_comes_up(da: int):
    x = torch.rand(1, 2, 2 * max(16 >> da, 1), 16, 16)
    down = SpatialSequential(
        SpatialConv3d(2, 4, 4, 4, level=0),
        SpatialConv3d(4, 4, 2, 2, level=2),
        SpatialMaxPool3d(level=3),
    )
    up = SpatialSequential(
        SpatialConvTranspose3d(4, 4, 2, level=4),
        SpatialConvTranspose3d(4, 2, 2, level=3),
        SpatialConvTranspose3d(2, 2, 4, level=2),
    )
    tokens = down(x, da)
    assert tokens.shape == (1, 4, 2, 1, 1)
    assert up(tokens, da).shape == x.shape


@pytest.mark.parametrize("da", range(6))
@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_of_3_keeps_its_depth_up_to_its_level(da: int, stride: int):
    conv = SpatialConv3d(1, 1, 3, stride, level=2, bias=False)
    scan = torch.zeros(1, 1, 5, 8, 8)
    scan[:, :, 2] = 1
    touched = conv(scan, da).abs().amax((0, 1, 3, 4)) > 0
    if da > 2:
        assert touched.tolist() == [False, False, True, False, False]
    elif stride == 1:
        assert touched.tolist() == [False, True, True, True, False]
    else:
        assert touched.tolist() == [False, True, False]


def test_a_stored_kernel_da_gives_the_same_numbers_as_the_sum():
    full = SpatialConv3d(1, 3, 16, 16, level=0)
    thin = SpatialConv3d(1, 3, 16, 16, level=0, kernel_da=2)
    assert thin.weight.shape == (3, 1, 4, 16, 16)
    thin.load_state_dict({"weight": full.kernel(2, 4).detach(), "bias": full.bias.detach()})
    for da in (2, 3, 4, 5):
        x = torch.rand(1, 1, 4, 16, 16)
        torch.testing.assert_close(thin(x, da), full(x, da))
    with pytest.raises(SpadError, match=r"at least 2, but the scan has 1"):
        thin(torch.rand(1, 1, 8, 16, 16), 1)


@pytest.mark.parametrize(("kernel", "stride"), [(6, 6), (4, 2), (5, 1)])
def test_other_kernels_are_refused(kernel: int, stride: int):
    with pytest.raises(ValueError, match="powers of two"):
        SpatialConv3d(1, 1, kernel, stride, level=0)


@pytest.fixture
def conv() -> SpatialConv3d:
    return SpatialConv3d(2, 3, 4, 4, level=0).eval()


X = torch.rand(1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_sum_is_computed_once_for_each_da(conv: SpatialConv3d):
    first = conv.kernel(2, 1)
    assert conv.kernel(2, 1) is first
    assert conv.kernel(1, 2) is not first
    assert conv.kernel(2, 1) is first


def optimiser_step(conv: SpatialConv3d, **options: bool) -> None:
    optimiser = torch.optim.AdamW(conv.parameters(), lr=0.1, **options)
    with torch.enable_grad():
        conv(X, 2).square().sum().backward()
    optimiser.step()


CHANGES = {
    "optimiser step": optimiser_step,
    "for-each optimiser step": lambda conv: optimiser_step(conv, foreach=True),
    "fused optimiser step": lambda conv: optimiser_step(conv, fused=True),
    "loaded state": lambda conv: conv.load_state_dict(
        {"weight": torch.ones_like(conv.weight), "bias": conv.bias.clone()}
    ),
    "assigned state": lambda conv: conv.load_state_dict(
        {"weight": torch.ones_like(conv.weight), "bias": conv.bias.clone()}, assign=True
    ),
    "in-place change": lambda conv: conv.weight.mul_(2),
    "new data": lambda conv: setattr(conv.weight, "data", torch.ones_like(conv.weight)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@torch.no_grad()
def test_a_changed_weight_is_summed_anew(conv: SpatialConv3d, change):
    before = conv(X, 2).clone()
    change(conv)
    after = conv(X, 2)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(after, fresh(conv, X, 2))


@torch.no_grad()
def test_a_change_of_type_is_followed(conv: SpatialConv3d):
    single = conv(X, 2)
    conv.double()
    assert conv(X.double(), 2).dtype == torch.float64
    conv.float()
    torch.testing.assert_close(conv(X, 2), single)


def test_training_carries_gradients_through_the_sum():
    conv = SpatialConv3d(2, 3, 4, 4, level=0)
    with torch.no_grad():
        conv(X, 2)
    conv(X, 2).sum().backward()
    # each of the four summed taps gets the same gradient
    gradient = conv.weight.grad
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, gradient[:, :, :1].expand_as(gradient))


def test_sums_made_in_inference_mode_serve_a_frozen_module_later(conv: SpatialConv3d):
    conv.requires_grad_(False)
    with torch.inference_mode():
        wanted = conv(X, 2).clone()
    x = X.clone().requires_grad_()
    found = conv(x, 2)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), wanted.clone())
    assert x.grad.abs().max() > 0


def test_a_module_made_in_inference_mode_works_there():
    with torch.inference_mode():
        conv = SpatialConv3d(2, 3, 4, 4, level=0).eval()
        first = conv(X, 2)
        assert torch.equal(conv(X, 2), first)


@torch.no_grad()
def test_copies_are_independent(conv: SpatialConv3d):
    before = conv(X, 2).clone()
    twin = copy.deepcopy(conv)
    restored = pickle.loads(pickle.dumps(conv))
    torch.testing.assert_close(restored(X, 2), before)
    twin.weight.zero_()
    torch.testing.assert_close(conv(X, 2), before)
    assert (twin(X, 2) - conv.bias.view(1, 3, 1, 1, 1)).abs().max() < 1e-6


@torch.no_grad()
def test_the_cache_is_not_part_of_the_checkpoint(conv: SpatialConv3d):
    conv(X, 2)
    assert set(conv.state_dict()) == {"weight", "bias"}
    with_cache, without = io.BytesIO(), io.BytesIO()
    torch.save(conv, with_cache)
    torch.save(copy.deepcopy(conv), without)
    assert with_cache.tell() == without.tell()


def test_sequences_hand_da_on_to_those_that_ask():
    inner = SpatialSequential(SpatialConv3d(1, 2, 2, 2, level=3), nn.GELU())
    outer = SpatialSequential(inner, nn.Identity(), SpatialMaxPool3d(level=4))
    assert outer(torch.rand(1, 1, 4, 8, 8), 4).shape == (1, 2, 2, 2, 2)
    assert outer(torch.rand(1, 1, 4, 8, 8), 5).shape == (1, 2, 4, 2, 2)
    assert outer(torch.rand(1, 1, 4, 8, 8), 0).shape == (1, 2, 1, 2, 2)


def test_gradients_in_bfloat16_are_right_on_a_map_of_depth_two() -> None:
    torch.manual_seed(0)
    conv = SpatialConv3d(32, 32, 3, level=0)
    x = torch.randn(1, 32, 2, 6, 6)
    gradients = []
    for half in (False, True):
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = conv(x.bfloat16() if half else x, 0)
        y.float().square().sum().backward()
        gradients.append(conv.weight.grad)
    wanted, found = gradients
    assert (found - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("da", [0, 1, 2])
def test_averaged_kernels_write_thick_slices_as_bright_as_thin_ones(da: int) -> None:
    up = SpatialConvTranspose3d(3, 2, 4, level=2, mean=True)
    torch.nn.init.constant_(up.weight, 0.5)
    y = up(torch.ones(1, 3, 2, 4, 4), da)
    assert y.shape[2] == 2 * (4 >> da)
    torch.testing.assert_close(y, (1.5 + up.bias).view(1, 2, 1, 1, 1).expand_as(y))
