"""Spatially adaptive convolutions: kernels and strides along depth follow `da`.

A module stands at a fixed *level*, the number of in-plane halvings before its input. While `da`
exceeds the level, slices are still too thick to be mixed: a kernel is then summed along depth,
which gives the very numbers that the full kernel gives on the same slices repeated. Source: PUMIT,
arXiv 2312.07630, section "spatially adaptive convolution".
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

from spad.errors import SpadError


def depth_factor_down(halvings: int, level: int, da: int) -> int:
    """Depth stride of a step from `level` that halves the in-plane grid `halvings` times."""
    return 2 ** min(halvings, max(0, level + halvings - da))


def depth_factor_up(doublings: int, level: int, da: int) -> int:
    """Depth stride of a step from `level` that doubles the in-plane grid `doublings` times."""
    return 2 ** min(doublings, max(0, level - da))


def level_factors(level: int, da: int) -> tuple[int, int, int]:
    """Voxels of the full grid in one cell of a map at `level`: (depth, height, width)."""
    return depth_factor_down(level, 0, da), 2**level, 2**level


class SpatialModule(nn.Module):
    """A module whose `forward` takes the degree of anisotropy beside its input."""

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        raise TypeError(f"{type(self).__name__} does not say what it computes.")


class SpatialSequential(nn.Sequential):
    """Runs modules one after the other and hands `da` to those that ask for it."""

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:  # type: ignore[override]
        for module in self:
            takes_da = isinstance(module, (SpatialModule, SpatialSequential))
            x = module(x, da) if takes_da else module(x)
        return x


class _SpatialKernel(SpatialModule):
    """A kernel stored for `kernel_da`, summed along depth for any larger `da`.

    Args:
        weight_shape: the first two axes of the weight.
        kernel: in-plane side of the kernel.
        stored_depth: depth taps kept, those that `kernel_da` leaves.
    """

    def __init__(
        self,
        weight_shape: tuple[int, int],
        kernel: int,
        stored_depth: int,
        *,
        out_channels: int,
        level: int,
        kernel_da: int,
        bias: bool,
    ) -> None:
        super().__init__()
        self.level = level
        self.kernel_da = kernel_da
        self.weight = nn.Parameter(torch.empty(*weight_shape, stored_depth, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self._summed: dict[int, tuple[tuple[object, ...], torch.Tensor]] = {}
        bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(self.weight)[0])
        nn.init.uniform_(self.weight, -bound, bound)
        if (
            self.bias is not None
        ):  # not 0: a layer norm on a flat patch would keep nothing but its sign
            nn.init.uniform_(self.bias, -bound, bound)

    def kernel(self, da: int, depth: int) -> torch.Tensor:
        """The weight for `da`, its depth summed in equal groups to `depth` taps.

        Raises:
            SpadError: `da` is smaller than the one already summed into the stored kernel.
        """
        if da < self.kernel_da:
            raise SpadError(
                f"This model's kernels were stored for a degree of anisotropy of at least "
                f"{self.kernel_da}, but the "
                f"scan has {da}; resample the scan to thicker slices or use a model with full "
                f"kernels."
            )
        weight = self.weight
        trained = torch.is_grad_enabled() and weight.requires_grad
        if trained:
            # fused optimisers change a weight without raising its version
            self._summed.clear()
        if weight.shape[2] == depth:
            return weight
        if trained:
            return self._sum(depth)
        version = None if weight.is_inference() else weight._version
        key = (version, weight.device, weight.dtype, weight.data_ptr())
        if da not in self._summed or self._summed[da][0] != key:
            # a sum made in inference mode could not serve a frozen module inside a trained one
            with torch.inference_mode(False), torch.no_grad():
                self._summed[da] = (key, self._sum(depth))
        return self._summed[da][1]

    def _sum(self, depth: int) -> torch.Tensor:
        return self._groups(depth).sum(3)

    def _groups(self, depth: int) -> torch.Tensor:
        first, second, stored, height, width = self.weight.shape
        return self.weight.view(first, second, depth, stored // depth, height, width)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_summed": {}}


class SpatialConv3d(_SpatialKernel):
    """Convolution with kernel = stride = 2^k, or 3x3x3 with stride 1 or 2 and padding 1.

    Args:
        in_channels, out_channels: channels.
        kernel: 3, or a power of two that equals `stride`.
        stride: in-plane stride.
        level: in-plane halvings before the input.
        kernel_da: the `da` already summed into the stored kernel; 0 stores it whole.
        bias: learn an offset.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        level: int,
        kernel_da: int = 0,
        bias: bool = True,
    ) -> None:
        if kernel != 3 and (kernel != stride or kernel & (kernel - 1)):
            raise ValueError(
                f"kernel {kernel} with stride {stride}: expected 3 with 1 or 2, or equal powers "
                f"of two"
            )
        self.kernel_size, self.stride = kernel, stride
        stored = self._depth(level, kernel_da)[0]
        super().__init__(
            (out_channels, in_channels),
            kernel,
            stored,
            out_channels=out_channels,
            level=level,
            kernel_da=kernel_da,
            bias=bias,
        )

    def _depth(self, level: int, da: int) -> tuple[int, int, int]:
        """Taps, stride and padding along depth."""
        if self.kernel_size == 3:
            return (3, self.stride, 1) if level >= da else (1, 1, 0)
        factor = depth_factor_down(self.stride.bit_length() - 1, level, da)
        return factor, factor, 0

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """(B, C_in, D, H, W) -> (B, C_out, D', H', W')."""
        taps, depth_stride, depth_padding = self._depth(self.level, da)
        padding = 1 if self.kernel_size == 3 else 0
        exact = _needs_float32(x, taps)
        with torch.autocast("cpu", enabled=False) if exact else nullcontext():
            return F.conv3d(
                x.float() if exact else x,
                self.kernel(da, taps),
                self.bias,
                stride=(depth_stride, self.stride, self.stride),
                padding=(depth_padding, padding, padding),
            )


def _needs_float32(x: torch.Tensor, taps: int) -> bool:
    """Tell where torch 2.13 goes wrong in bfloat16 on processors.

    There the weight gradient of a convolution with three taps on a map of depth two reads memory
    that nobody wrote.
    """
    training = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    return training and x.device.type == "cpu" and taps == 3 and x.shape[2] == 2


class SpatialConvTranspose3d(_SpatialKernel):
    """Transposed convolution with kernel = stride = 2^k.

    Args:
        in_channels, out_channels: channels.
        stride: in-plane stride, a power of two.
        level: in-plane halvings before the input.
        kernel_da: the `da` already summed into the stored kernel.
        bias: learn an offset.
        mean: average the kernel along depth instead of summing it. Each slice is written by one tap
            of the full kernel but by the sum of several taps of a summed one, so that the authors'
            rule makes a thick slice a multiple of a thin one; a decoder that ends in such a step
            cannot serve several `da` well.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        level: int,
        kernel_da: int = 0,
        bias: bool = True,
        mean: bool = False,
    ) -> None:
        self.mean = mean
        self.stride = stride
        self.doublings = stride.bit_length() - 1
        super().__init__(
            (in_channels, out_channels),
            stride,
            depth_factor_up(self.doublings, level, kernel_da),
            out_channels=out_channels,
            level=level,
            kernel_da=kernel_da,
            bias=bias,
        )

    def _sum(self, depth: int) -> torch.Tensor:
        return self._groups(depth).mean(3) if self.mean else super()._sum(depth)

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """(B, C_in, D, H, W) -> (B, C_out, D', stride * H, stride * W)."""
        factor = depth_factor_up(self.doublings, self.level, da)
        return F.conv_transpose3d(
            x, self.kernel(da, factor), self.bias, stride=(factor, self.stride, self.stride)
        )


class SpatialMaxPool3d(SpatialModule):
    """Halves the in-plane grid by maxima, and depth where `da` allows it."""

    def __init__(self, *, level: int) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, C, D', H / 2, W / 2)."""
        return F.max_pool3d(x, (depth_factor_down(1, self.level, da), 2, 2))
