"""Networks of others, to compare ours with: MONAI's DynUNet (nnU-Net's) and SwinUNETR.

They look like `spad.models.segmenter.Segmenter` from outside, so that they are trained, stored and
run by the same code, but do not follow the degree of anisotropy of a scan. MONAI is imported when
one is built; it is no dependency of the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import nn

from spad.errors import SpadError
from spad.models.resize import pad_to_multiple
from spad.models.segmenter import Segmenter

Step = list[int]
"""Kernel size or stride along depth, height and width."""

LEAST_SIDE = 4
"""Voxels along each axis of the coarsest map (nnU-Net's)."""
MOST_STAGES = 6
WIDEST = 10
"""Times the first stage's width (nnU-Net's 32 and 320)."""


class Baseline(nn.Module):
    """What the networks of others have in common.

    Args:
        architecture: constructor arguments, with the network's name.
        cells: voxels in one cell of the coarsest map as (depth, height, width).
    """

    def __init__(self, architecture: Mapping[str, Any], cells: Sequence[int]) -> None:
        super().__init__()
        self.architecture = dict(architecture)
        self.in_channels: int = architecture["in_channels"]
        self.classes: int = architecture["classes"]
        self.cells = (int(cells[0]), int(cells[1]), int(cells[2]))

    def factors(self, da: int) -> tuple[int, int, int]:
        """Voxels in one cell of the coarsest map, alike for every `da`."""
        return self.cells

    def logits(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Class logits of a padded scan, finest first."""
        raise TypeError(f"{type(self).__name__} does not say what it computes.")

    def forward(self, x: torch.Tensor, da: int) -> list[torch.Tensor]:
        """Class logits; arguments and result as those of `Segmenter`, `da` plays no part."""
        depth, height, width = x.shape[-3:]
        padded = pad_to_multiple(x, self.cells)
        if tuple(padded.shape[-3:]) == self.cells:  # instance norm wants more than one voxel
            padded = torch.cat([padded, padded[..., -1:].expand_as(padded)], dim=-1)
        # torch 2.13 learns wrongly in bfloat16 on processors, see `spad.models.sac`
        exact = self.training and x.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if exact else nullcontext():
            found = self.logits(padded)
        full = found[0][..., :depth, :height, :width]
        # on a padded grid the coarser maps would be compared with labels that lie elsewhere
        return [full] if padded.shape != x.shape else found


class DynUNet(Baseline):
    """MONAI's DynUNet with instance norm, leaky ReLU and deep supervision, as nnU-Net has it.

    Args:
        in_channels: channels of the scan.
        classes: classes with the background, which is class 0.
        filters: width of each stage.
        kernels: kernel size of each stage.
        strides: stride of each stage, 1 for the first.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        filters: Sequence[int],
        kernels: Sequence[Step],
        strides: Sequence[Step],
    ) -> None:
        architecture = {
            "network": "dynunet",
            "in_channels": in_channels,
            "classes": classes,
            "filters": list(filters),
            "kernels": [list(kernel) for kernel in kernels],
            "strides": [list(stride) for stride in strides],
        }
        super().__init__(architecture, [math.prod(along) for along in zip(*strides, strict=True)])
        net = _monai("DynUNet")(
            *(3, in_channels, classes, kernels, strides, strides[1:]),
            filters=filters,
            deep_supervision=False,
        )
        self.encoder = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.decoder = net.upsamples
        self.heads = nn.ModuleList(
            nn.Conv3d(width, classes, 1) for width in filters[: max(1, len(filters) - 2)]
        )

    def logits(self, x: torch.Tensor) -> list[torch.Tensor]:
        """See `Baseline`; in training mode also the coarser heads."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        maps = [skips.pop()]
        for up in self.decoder:
            maps.insert(0, up(maps[0], skips.pop()))
        heads = self.heads if self.training else self.heads[:1]
        return [head(found) for head, found in zip(heads, maps, strict=False)]


class SwinUNETR(Baseline):
    """MONAI's SwinUNETR.

    Args:
        in_channels: channels of the scan.
        classes: classes with the background, which is class 0.
        width: of the first stage, a multiple of 12.
    """

    def __init__(self, in_channels: int, classes: int, width: int) -> None:
        architecture = {
            "network": "swin_unetr",
            "in_channels": in_channels,
            "classes": classes,
            "width": width,
        }
        super().__init__(architecture, (32, 32, 32))
        with torch.device("cpu"):  # its constructor reads values, which tensors of "meta" lack
            self.net = _monai("SwinUNETR", "einops")(in_channels, classes, feature_size=width)

    def logits(self, x: torch.Tensor) -> list[torch.Tensor]:
        """See `Baseline`."""
        return [self.net(x)]


NETWORKS: dict[str, type[nn.Module]] = {
    "spad": Segmenter,
    "dynunet": DynUNet,
    "swin_unetr": SwinUNETR,
}
"""What the key `network` of a segmenter's architecture means."""


def segmentation_network(network: str = "spad", **architecture: Any) -> nn.Module:
    """Build a network by its name and constructor arguments.

    Raises:
        SpadError: there is no such network, or MONAI is not installed.
    """
    if network not in NETWORKS:
        raise SpadError(
            f"There is no segmentation network {network!r}; expected one of "
            f"{', '.join(NETWORKS)}; correct the key model.network."
        )
    return NETWORKS[network](**architecture)


def comparable(
    model: Mapping[str, Any], classes: int, window: Sequence[int], spacing: Sequence[float]
) -> nn.Module:
    """Build the network that a recipe names, one of others as large as ours would be.

    Args:
        model: constructor arguments of `Segmenter`, and `network`.
        classes: classes with the background.
        window: voxels (depth, height, width) of a training crop.
        spacing: of the crops in mm along the same, by which nnU-Net plans.

    Returns:
        The network; one of others has the width whose number of parameters is nearest to that of
        the Segmenter that the recipe describes.

    Raises:
        SpadError: as `segmentation_network`.
    """
    arguments = {"classes": classes, **model}
    network = arguments.pop("network", "spad")
    if network not in ("dynunet", "swin_unetr"):
        return segmentation_network(network, **arguments)
    with torch.device("meta"):
        wanted = parameters(Segmenter(**arguments))
    common = {"in_channels": arguments["in_channels"], "classes": classes}
    if network == "swin_unetr":
        return _as_large(lambda n: SwinUNETR(**common, width=12 * n), wanted)
    kernels, strides = plan(window, spacing)
    return _as_large(
        lambda n: DynUNet(
            **common,
            filters=[4 * n * min(2**stage, WIDEST) for stage in range(len(strides))],
            kernels=kernels,
            strides=strides,
        ),
        wanted,
    )


def parameters(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(weight.numel() for weight in model.parameters())


def plan(window: Sequence[int], spacing: Sequence[float]) -> tuple[list[Step], list[Step]]:
    """Plan kernels and strides as nnU-Net does (Isensee et al. 2021, supplement).

    Axes are halved while they have twice `LEAST_SIDE` voxels and a spacing below twice the finest
    one's; a kernel has one tap along an axis until its spacing is below twice the finest one's.

    Args:
        window: voxels of a training crop.
        spacing: in mm, along the same axes.

    Returns:
        Kernel size and stride of each stage, finest first.
    """
    sides, steps = list(window), list(spacing)
    kernel, stride = [1, 1, 1], [1, 1, 1]
    kernels: list[Step] = []
    strides: list[Step] = []
    while True:
        kernel = [
            3 if k == 3 or s < 2 * min(steps) else 1 for k, s in zip(kernel, steps, strict=True)
        ]
        kernels.append(kernel)
        strides.append(stride)
        large = [axis for axis in range(3) if sides[axis] >= 2 * LEAST_SIDE]
        finest = min((steps[axis] for axis in large), default=0.0)
        halved = [axis for axis in large if steps[axis] < 2 * finest]
        if not halved or len(strides) == MOST_STAGES:
            break
        stride = [2 if axis in halved else 1 for axis in range(3)]
        sides = [-(-side // by) for side, by in zip(sides, stride, strict=True)]
        steps = [step * by for step, by in zip(steps, stride, strict=True)]
    kernels[-1] = [3, 3, 3]
    return kernels, strides


def _as_large(build: Callable[[int], nn.Module], wanted: int) -> nn.Module:
    """Build with growing numbers from 1 on until there are more parameters than wanted."""
    best, number = build(1), 1
    while parameters(best) < wanted:
        number += 1
        larger = build(number)
        if parameters(larger) * parameters(best) > wanted**2:  # farther away by ratio
            break
        best = larger
    return best


def _monai(name: str, *needed: str) -> Any:
    """Get a network of MONAI's, which needs further packages to run."""
    try:
        for package in ("monai", *needed):
            import_module(package)
        return getattr(import_module("monai.networks.nets"), name)
    except ImportError as error:
        packages = " ".join(("monai", *needed))
        raise SpadError(
            f"MONAI's {name} was asked for, but the package {error.name} is not installed; install "
            f"it with 'pip install {packages}'."
        ) from error
