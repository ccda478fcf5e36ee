"""Golden cases of convolutions, positions and inflated weights (rows 1 to 5)."""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from golden_models import (
    Case,
    filled,
    gap,
    small_vit,
    with_authors_weights,
)
from golden_rule import GOLDEN, golden_input, stats_error
from torch import nn

from spad.checkpoints.importers.inflate import (
    change_channels,
    grey_output,
    inflate_depth,
    sum_depth,
)
from spad.models.rope import rotary_angles, rotate
from spad.models.sac import SpatialConv3d, SpatialConvTranspose3d
from spad.models.tokenizer import Tokenizer


def sac_cases() -> list[Case]:
    down = [
        ("down_k4_da0", 4, 4, 0, 0, (1, 3, 16, 32, 32)),
        ("down_k4_da1", 4, 4, 1, 0, (1, 3, 8, 32, 32)),
        ("down_k4_da2", 4, 4, 2, 0, (1, 3, 4, 32, 32)),
        ("down_k4_da5", 4, 4, 5, 0, (1, 3, 1, 32, 32)),
        ("down_k2_da3_nd2", 2, 2, 3, 2, (1, 3, 4, 16, 16)),
        ("down_k2_da2_nd2", 2, 2, 2, 2, (1, 3, 4, 16, 16)),
        ("conv3_da0", 3, 1, 0, 0, (1, 3, 4, 8, 8)),
        ("conv3_da2_nd1", 3, 1, 2, 1, (1, 3, 4, 8, 8)),
        ("conv3_da2_nd2", 3, 1, 2, 2, (1, 3, 4, 8, 8)),
        ("conv3s2_da1", 3, 2, 1, 0, (1, 3, 4, 8, 8)),
        ("conv3s2_da0", 3, 2, 0, 0, (1, 3, 4, 8, 8)),
        ("patch16_da0", 16, 16, 0, 0, (1, 3, 32, 32, 32)),
        ("patch16_da3", 16, 16, 3, 0, (1, 3, 4, 32, 32)),
        ("patch16_da6", 16, 16, 6, 0, (1, 3, 1, 32, 32)),
    ]
    up = [
        ("up_k4_da0_nd2", 4, 0, 2, (1, 3, 2, 4, 4)),
        ("up_k4_da1_nd2", 4, 1, 2, (1, 3, 2, 4, 4)),
        ("up_k4_da2_nd2", 4, 2, 2, (1, 3, 2, 4, 4)),
        ("up_k2_da2_nd4", 2, 2, 4, (1, 3, 2, 4, 4)),
        ("up_k2_da5_nd4", 2, 5, 4, (1, 3, 1, 4, 4)),
    ]
    cases = []
    for name, kernel, stride, da, level, shape in down:
        error = functools.partial(_down_error, name, kernel, stride, da, level, shape)
        cases.append(Case(1, f"sac {name}", 1e-5, error))
    for name, stride, da, level, shape in up:
        error = functools.partial(_up_error, name, stride, da, level, shape)
        cases.append(Case(2, f"sac {name}", 1e-5, error))
    return cases


def _down_error(
    name: str, kernel: int, stride: int, da: int, level: int, shape: tuple[int, ...]
) -> float:
    module = filled(SpatialConv3d(3, 8, kernel, stride, level=level))
    return stats_error(module(golden_input(*shape), da), GOLDEN["sac"][name])


def _up_error(name: str, stride: int, da: int, level: int, shape: tuple[int, ...]) -> float:
    module = filled(SpatialConvTranspose3d(3, 8, stride, level=level))
    return stats_error(module(golden_input(*shape), da), GOLDEN["sac"][name])


def repeat_cases() -> list[Case]:
    """The property behind the sums, at every da, also those that the golden file lacks."""
    kinds = {
        "conv 4": _repeat_conv_4,
        "conv 2 at level 2": _repeat_conv_2,
        "conv 3 at level 1": _repeat_conv_3,
        "patch 16": _repeat_patch,
        "transposed 4 at level 2": _repeat_up_4,
        "transposed 2 at level 4": _repeat_up_2,
        "tokenizer's strided encoder": _repeat_tokenizer,
        "vit": _repeat_vit,
    }
    return [
        Case(3, f"depth repeat, {what}, da {da}", 1e-5, functools.partial(error, da))
        for what, error in kinds.items()
        for da in range(6)
    ]


def _repeat_down(kernel: int, level: int, da: int) -> float:
    """Slices too thick by 2^p, repeated 2^p times, give the same numbers; each 2^(p - k) times."""
    module = filled(SpatialConv3d(3, 8, kernel, kernel, level=level))
    pending, halvings = max(da - level, 0), kernel.bit_length() - 1
    thin = 2 * 2 ** max(halvings - pending, 0)
    x = golden_input(1, 3, thin, 2 * kernel, 2 * kernel)
    wanted = module(x.repeat_interleave(2**pending, dim=2), 0)
    return gap(module(x, da).repeat_interleave(2 ** max(pending - halvings, 0), dim=2), wanted)


def _repeat_conv_4(da: int) -> float:
    return _repeat_down(4, 0, da)


def _repeat_conv_2(da: int) -> float:
    return _repeat_down(2, 2, da)


def _repeat_patch(da: int) -> float:
    return _repeat_down(16, 0, da)


def _repeat_conv_3(da: int) -> float:
    """Inside four equal slices a full kernel sees one slice only."""
    module = filled(SpatialConv3d(3, 8, 3, level=1))
    x = golden_input(1, 3, 4, 8, 8)
    if da <= module.level:
        return gap(module(x, da), module(x, 0))
    return gap(module(x, da), module(x.repeat_interleave(4, dim=2), 0)[:, :, 1::4])


def _repeat_up(stride: int, level: int, da: int) -> float:
    """Upwards, a slice of a thick grid is the sum of the slices of the thin one."""
    module = filled(SpatialConvTranspose3d(3, 8, stride, level=level, bias=False))
    x = golden_input(1, 3, 2, 4, 4)
    found, full = module(x, da), module(x, 0)
    return gap(found, full.unflatten(2, (found.shape[2], -1)).sum(3))


def _repeat_up_4(da: int) -> float:
    return _repeat_up(4, 2, da)


def _repeat_up_2(da: int) -> float:
    return _repeat_up(2, 4, da)


@torch.no_grad()
def _repeat_tokenizer(da: int) -> float:
    strided = with_authors_weights(Tokenizer(channels=(16, 24, 32), codes=32)).encoder[:9]
    x = golden_input(1, 3, 2 * max(16 >> da, 1), 32, 32) * 2 - 1
    wanted = strided(x.repeat_interleave(2**da, dim=2), 0)
    return gap(strided(x, da).repeat_interleave(2 ** max(da - 4, 0), dim=2), wanted)


@torch.no_grad()
def _repeat_vit(da: int) -> float:
    vit = copy.deepcopy(small_vit()).double()
    x = golden_input(1, 3, 2 * max(16 >> da, 1), 48, 48).double()
    return gap(vit(x, da), vit(x.repeat_interleave(2 ** min(da, 4), dim=2), 0))


def import_cases() -> list[Case]:
    """Weights from two dimensions to three, and from three channels to one."""
    return [
        Case(4, "inflation, average", 0, _average_error),
        Case(4, "inflation, centre, odd and even", 0, _centre_error),
        Case(4, "input channels 3 to 1 and 3 to 2", 0, _channel_error),
        Case(4, "output channels 3 to 1, BT.601", 0, _grey_error),
        Case(4, "fewer depth taps", 0, _sum_error),
        Case(4, "2D RGB kernel to 3D grey, on repeated slices", 1e-6, _grey_slices_error),
    ]


def _kernel(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(1).standard_normal(shape).astype(np.float32))


def _average_error() -> float:
    kernel = _kernel(5, 3, 4, 4)
    inflated = inflate_depth(kernel, 4)
    return max(gap(inflated[:, :, z], kernel / 4) for z in range(4))


def _centre_error() -> float:
    kernel = _kernel(5, 3, 3, 3)
    odd, even = (inflate_depth(kernel, depth, "centre") for depth in (3, 4))
    nothing = torch.zeros_like(kernel)
    wanted_odd = torch.stack([nothing, kernel, nothing], dim=2)
    wanted_even = torch.stack([nothing, kernel / 2, kernel / 2, nothing], dim=2)
    return max(gap(odd, wanted_odd), gap(even, wanted_even))


def _channel_error() -> float:
    kernel = _kernel(5, 3, 2, 2, 2)
    one, two = change_channels(kernel, 1), change_channels(kernel, 2)
    total = kernel.sum(1, keepdim=True)
    return max(gap(one, total), gap(two, torch.cat([total / 2, total / 2], dim=1)))


def _grey_error() -> float:
    kernel, bias = _kernel(5, 3, 2, 2, 2), _kernel(3)
    wanted = 0.299 * kernel[:, :1] + 0.587 * kernel[:, 1:2] + 0.114 * kernel[:, 2:]
    wanted_bias = 0.299 * bias[:1] + 0.587 * bias[1:2] + 0.114 * bias[2:]
    return max(gap(grey_output(kernel, 1), wanted), gap(grey_output(bias, 0), wanted_bias))


def _sum_error() -> float:
    kernel = _kernel(2, 3, 4, 2, 2)
    pairs = torch.stack([kernel[:, :, 0] + kernel[:, :, 1], kernel[:, :, 2] + kernel[:, :, 3]], 2)
    return max(gap(sum_depth(kernel, 2), pairs), gap(sum_depth(kernel, 4), kernel))


def _grey_slices_error() -> float:
    kernel = _kernel(5, 3, 4, 4).double()
    picture = golden_input(1, 1, 8, 8).double()
    wanted = nn.functional.conv2d(picture.expand(-1, 3, -1, -1), kernel, stride=4)
    inflated = change_channels(inflate_depth(kernel, 4), 1)
    scan = picture[:, :, None].expand(-1, -1, 8, -1, -1)
    found = nn.functional.conv3d(scan, inflated, stride=4)
    return max(gap(found[:, :, z], wanted) for z in range(2))


def rope_cases() -> list[Case]:
    return [
        Case(5, "rope, grid 2 x 3 x 4", 1e-5, _rope_error),
        Case(5, "rope, closed form", 1e-6, _rope_closed_form),
    ]


def _rope_input() -> torch.Tensor:
    values = np.random.RandomState(5).uniform(0, 1, (1, 24, 1, 64))
    return torch.from_numpy(values.astype(np.float32))


def _rope_error() -> float:
    x = _rope_input().transpose(1, 2)
    turned = rotate(x, rotary_angles((2, 3, 4), 64)).transpose(1, 2)
    return stats_error(turned, GOLDEN["rope"])


def _rope_closed_form() -> float:
    """The formula, written out in complex numbers."""
    x = _rope_input().double().numpy()[0, :, 0]
    pairs = x[:, 0::2] + 1j * x[:, 1::2]
    token = 0
    for z in range(2):
        for y in range(3):
            for column in range(4):
                for i in range(16):
                    depth, plane = 2333 ** (-(2 * i + 1) / 32) * z, 10000 ** (-2 * i / 32)
                    pairs[token, i] *= np.exp(1j * (depth + plane * y))
                    pairs[token, 16 + i] *= np.exp(1j * (depth + plane * column))
                token += 1
    wanted = np.stack([pairs.real, pairs.imag], axis=-1).reshape(24, 64)
    found = rotate(_rope_input()[0, :, 0], rotary_angles((2, 3, 4), 64))
    return float(np.abs(found.numpy() - wanted).max())
