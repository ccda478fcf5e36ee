"""The perceptual loss: LPIPS with VGG-16 on slices.

Source: Zhang et al. 2018 (LPIPS); PUMIT, arXiv 2312.07630, equation 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from spad.errors import SpadError

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of VGG-16's convolutions; what each stage ends in is compared, then halved in plane."""
MOST_SLICES = 24
AT_ONCE = 24
"""Slices of which the features are held at a time."""
TWICE = 2.0
"""The authors double the distance."""
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPS = 1e-10

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Perceptual(nn.Module):
    """Distance of two scans in the features of VGG-16, slice by slice.

    Args:
        files: weights that together hold torchvision's `features.N.weight` and `.bias` of VGG-16
            and LPIPS' `lin{0..4}.model.1.weight`, as .pth or .safetensors.

    Raises:
        SpadError: no file is given, one cannot be read, or a weight is missing.
    """

    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, files: Sequence[str | Path]) -> None:
        super().__init__()
        self._build()
        self._load(files)

    @classmethod
    def random(cls, seed: int = 0) -> Perceptual:
        """Give one with random weights, for benchmarks and tests: no distance that means much."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._build()
        generator = torch.Generator().manual_seed(seed)
        for name, weight in made.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            wide = weight.ndim > 1
            drawn = drawn * (2 / weight[0].numel()) ** 0.5 if wide else 0.1 * drawn
            weight.data = drawn.abs() if name.startswith("taps") else drawn
        return made

    def _build(self) -> None:
        width, stages = 3, []
        for widths in STAGES:
            stages.append(nn.ModuleList())
            for channels in widths:
                stages[-1].append(nn.Conv2d(width, channels, 3, padding=1))
                width = channels
        self.stages = nn.ModuleList(stages)
        self.taps = nn.ModuleList(nn.Conv2d(w[-1], 1, 1, bias=False) for w in STAGES)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(_SD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def _load(self, files: Sequence[str | Path]) -> None:
        if not files:
            raise SpadError(
                "The perceptual loss needs the weights of VGG-16 and of LPIPS, which are not part "
                "of this package; name their files with --loss.perceptual_weights [FILE, ...] or "
                "train without it by --loss.perceptual 0."
            )
        given: dict[str, torch.Tensor] = {}
        for path in files:
            given |= _read(Path(path))
        state = {}
        for ours, theirs in _names().items():
            if theirs not in given or given[theirs].shape != self.state_dict()[ours].shape:
                raise SpadError(
                    f"{', '.join(map(str, files))} hold no fitting weight {theirs!r}; expected "
                    "torchvision's VGG-16 (features.N.weight) and LPIPS' vgg.pth "
                    "(lin0.model.1.weight); name both with --loss.perceptual_weights."
                )
            state[ours] = given[theirs].float()
        self.load_state_dict(state)

    def forward(
        self, x: torch.Tensor, rebuilt: torch.Tensor, slices: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean distance of the slices of two scans.

        Args:
            x: (B, C, D, H, W) in [-1, 1], one or three channels.
            rebuilt: of equal shape; gradients flow to it.
            slices: (B, n) which slices of each are compared; all of them when None.

        Returns:
            A scalar.
        """
        images = (_as_images(x, slices), _as_images(rebuilt, slices))
        return _InPieces.apply(self._distance, *images)

    def _distance(self, x: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
        """Mean distance of images (N, 3, H, W)."""
        with torch.no_grad():
            wanted = self._features(x)
        total = x.new_zeros((), dtype=torch.float32)
        for tap, a, b in zip(self.taps, wanted, self._features(rebuilt), strict=True):
            weight = tap.weight.float().flatten()  # type: ignore[operator]
            total = total + ((_unit(a) - _unit(b)).square().mean((0, 2, 3)) * weight).sum()
        return TWICE * total

    def _features(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = ((images + 1) / 2 - self.mean) / self.sd
        x = x.contiguous(memory_format=torch.channels_last)
        found: list[torch.Tensor] = []
        for number, stage in enumerate(self.stages):
            if number:
                x = F.max_pool2d(x, 2)
            for convolution in stage:  # type: ignore[attr-defined]
                x = F.relu(convolution(x))
            found.append(x)
        return found


class _InPieces(torch.autograd.Function):
    """The mean of a distance over images, and its gradient, found for a few images at a time.

    What VGG remembers of all slices of a batch is most of what a training step would hold.
    """

    @staticmethod
    def forward(
        ctx: Any, distance: Distance, x: torch.Tensor, rebuilt: torch.Tensor
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[2]
        total = rebuilt.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(rebuilt) if wanted else None
        for start in range(0, len(x), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            piece = rebuilt[part].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                found = distance(x[part], piece) * (len(piece) / len(x))
            if gradient is not None:
                gradient[part] = torch.autograd.grad(found, piece)[0]
            total += found.detach()
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        return None, None, ctx.gradient * given


def drawn_slices(batch: int, depth: int, generator: torch.Generator) -> torch.Tensor:
    """Draw which slices of each sample are compared: (B, n) with n at most 24, none twice."""
    n = min(depth, MOST_SLICES)
    return torch.stack([torch.randperm(depth, generator=generator)[:n] for _ in range(batch)])


def _as_images(x: torch.Tensor, slices: torch.Tensor | None) -> torch.Tensor:
    """(B, C, D, H, W) -> (B * n, 3, H, W), the chosen slices."""
    x = x.transpose(1, 2)
    if slices is not None:
        index = slices.to(x.device)[:, :, None, None, None].expand(-1, -1, *x.shape[2:])
        x = x.gather(1, index)
    return x.flatten(0, 1).expand(-1, 3, -1, -1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    x = x.float()
    return x / (x.square().sum(1, keepdim=True).sqrt() + _EPS)


def _names() -> dict[str, str]:
    """Map our names of weights to torchvision's and LPIPS'."""
    names, place = {}, 0
    for stage, widths in enumerate(STAGES):
        for index in range(len(widths)):
            for part in ("weight", "bias"):
                names[f"stages.{stage}.{index}.{part}"] = f"features.{place}.{part}"
            place += 2  # a convolution and its ReLU
        place += 1  # the pooling
    return names | {f"taps.{n}.weight": f"lin{n}.model.1.weight" for n in range(len(STAGES))}


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SpadError(
            f"{path} could not be read as weights ({type(error).__name__}); expected a .pth or "
            ".safetensors file; name another with --loss.perceptual_weights."
        ) from error
    if not isinstance(content, dict):
        raise SpadError(f"{path} holds no weights by name; expected a state dict; name another.")
    return content
