"""Weights for another number of slices, channels or positions than they were trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from spad.errors import SpadError
from spad.models.resize import resize

BT601 = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in luminance (ITU-R BT.601)."""


def inflate_depth(weight: torch.Tensor, depth: int, how: str = "average") -> torch.Tensor:
    """Give a 2D kernel a depth.

    Args:
        weight: (out, in, height, width).
        depth: taps along depth.
        how: "average" (repeated and divided by `depth`: the same numbers on repeated slices) or
            "centre" (all on the middle slice, half on each of the two middle ones if `depth` is
            even).

    Returns:
        (out, in, depth, height, width).

    Raises:
        SpadError: another `how`.
    """
    if how == "average":
        return weight[:, :, None].expand(-1, -1, depth, -1, -1) / depth
    if how != "centre":
        raise SpadError(f"A kernel cannot be inflated by {how!r}; use 'average' or 'centre'.")
    inflated = weight.new_zeros(*weight.shape[:2], depth, *weight.shape[2:])
    middle = slice((depth - 1) // 2, depth // 2 + 1)
    inflated[:, :, middle] = weight[:, :, None] / (2 - depth % 2)
    return inflated


def sum_depth(weight: torch.Tensor, taps: int) -> torch.Tensor:
    """Sum a 3D kernel (out, in, depth, height, width) along depth, in `taps` equal groups."""
    out, into, depth, height, width = weight.shape
    if depth % taps:
        raise SpadError(
            f"A kernel with {depth} slices cannot be summed to {taps}; use a divisor of {depth}."
        )
    return weight.view(out, into, taps, depth // taps, height, width).sum(3)


def change_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Give a kernel another number of input channels.

    A grey image repeated over the new channels gives the numbers of the same image repeated over
    the old ones.

    Args:
        weight: (out, in, ...).
        channels: the new number of input channels.
    """
    if weight.shape[1] == channels:
        return weight
    total = weight.sum(1, keepdim=True) / channels
    return total.expand(-1, channels, *total.shape[2:])


def grey_output(
    parameter: torch.Tensor, axis: int, shares: Sequence[float] = BT601
) -> torch.Tensor:
    """Let a layer that gives red, green and blue give luminance.

    Args:
        parameter: its weight or bias.
        axis: the axis of the three output channels (0 for a convolution and a bias, 1 for a
            transposed convolution).
        shares: of red, green and blue; a third each for the plain average.

    Returns:
        The parameter with one output channel.
    """
    size = [1] * parameter.ndim
    size[axis] = len(shares)
    return (parameter * parameter.new_tensor(shares).view(size)).sum(axis, keepdim=True)


def resize_kernel(weight: torch.Tensor, side: int) -> torch.Tensor:
    """Resize a 2D kernel (out, in, height, width) to a square of `side`, bicubic."""
    return F.interpolate(weight, size=(side, side), mode="bicubic", align_corners=False)


def fold_normalisation(
    weight: torch.Tensor, bias: torch.Tensor, mean: Sequence[float], sd: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let a convolution without padding normalise its input channels by itself.

    `conv(x; folded)` equals `conv((x - mean) / sd; given)`.

    Args:
        weight: (out, in, ...).
        bias: (out,).
        mean: of each input channel.
        sd: of each input channel.

    Returns:
        The folded weight and bias, in the given types.
    """
    size = (1, -1, *[1] * (weight.ndim - 2))
    means = torch.tensor(mean, dtype=torch.float64).view(size)
    folded = weight.double() / torch.tensor(sd, dtype=torch.float64).view(size)
    offset = (folded * means).flatten(1).sum(1)
    return folded.to(weight.dtype), (bias.double() - offset).to(bias.dtype)


def inflate_positions(rows: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Turn a 2D position table into ours.

    Args:
        rows: (1, side * side, dim), positions of a square in C order, without the class token.
        grid: the wanted (z, y, x).

    Returns:
        (1, dim, z, y, x): repeated along depth, resized in plane (area means where it shrinks).

    Raises:
        SpadError: the positions do not form a square.
    """
    count = rows.shape[1]
    side = round(count**0.5)
    if side * side != count:
        raise SpadError(
            f"A position table has {count} rows; expected a square number without the class token."
        )
    square = rows.transpose(1, 2).unflatten(2, (1, side, side))
    return resize(square, (1, *grid[1:])).expand(-1, -1, grid[0], -1, -1)
