"""Time and weigh the tokenizer's training step and its encoding: ours and the plain formulation.

Ours: bfloat16, channels last, kernels summed once, the perceptual loss on at most 24 slices of a
sample, scans and reconstructions through the discriminator in one pass. Plain: float32, kernels
summed at every call, the perceptual loss on every slice, three passes through the discriminator.
Both take the same crops with the same random weights, VGG's included, and all terms count.

Peak memory is all that torch held (CUDA), or by what a process of its own grew once its weights and
its optimisers' states were there (CPU). The share of the device's peak is that of a large matrix
product in the same precision, measured here, too.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from spad.losses.adversarial import critic_loss, generator_loss
from spad.losses.perceptual import TWICE, Perceptual, drawn_slices
from spad.losses.prior import prior_regulariser, prior_terms
from spad.models.discriminator import PatchDiscriminator
from spad.models.sac import _SpatialKernel
from spad.models.tokenizer import Tokenizer
from spad.training.recipe import resolve

WORK = ("step", "encode")
FLAT = 5
ADVERSARIAL, DIVERGENCE, ENTROPY = 3e-3, 1.0, 0.2
BLOCKS = 3
"""Of steps; the fastest counts."""
WIDEST = {"cuda": 8192, "cpu": 2048}
"""Sides of the matrices whose product counts as the device's peak."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        preset: of the recipe "tokenizer".
        work: "step" or "encode".
        da: degree of anisotropy.
        variant: a key of `VARIANTS`.
        batch: crops in 3D; at `da` 5 as many slices as hold equally many tokens.
        device: "cpu" or "cuda".
        seconds: about how long to measure.
    """

    preset: str
    work: str
    da: int
    variant: str
    batch: int
    device: str
    seconds: float


@dataclass(frozen=True)
class Figures:
    """What was measured; all 0 but for `failure` where that could not be done."""

    images: int = 0
    steps: int = 0
    seconds_per_step: float = 0.0
    images_per_second: float = 0.0
    peak_mb: float = 0.0
    tflop: float = 0.0
    tflops: float = 0.0
    failure: str = ""


class Variant:
    """One way to train and to encode.

    Args:
        case: what is measured.
    """

    half = False
    fused = False
    memory_format = torch.contiguous_format

    def __init__(self, case: Case) -> None:
        self.case = case
        torch.manual_seed(0)
        recipe = resolve("tokenizer", case.preset)
        self.model = self._placed(Tokenizer(**recipe.model))
        self.x = self._placed(_crops(self.model, recipe.data.tokens, case))
        if case.work == "encode":
            self.model.eval()
            return
        self.critic = self._placed(PatchDiscriminator(self.model.in_channels))
        self.perceptual = Perceptual.random(0).to(case.device)
        self.optimizers = [
            torch.optim.AdamW(
                part.parameters(), lr=1e-4, fused=self.fused and case.device == "cuda"
            )
            for part in (self.model, self.critic)
        ]

    def _placed(self, thing: Any) -> Any:
        return thing.to(self.case.device, memory_format=self.memory_format)

    def run(self) -> None:
        """Do the work once."""
        if self.case.work == "encode":
            with torch.inference_mode(), self._precision():
                self.model.probabilities(self.x, self.case.da)
            return
        generator, critic = self.optimizers
        with self._precision():
            loss, image = self._loss()
        loss.backward()
        del loss
        _update(generator)
        with self._precision():
            loss = self.told_apart(image)
        loss.backward()
        _update(critic)

    def warm_up(self) -> None:
        """Load libraries and make the optimisers' states, on a part of one crop."""
        whole = self.x
        depth, height, width = self.model.token_factors(self.case.da)
        self.x = whole[:1, :, :depth, : 2 * height, : 2 * width]
        self.run()
        self.x = whole

    def settle(self) -> None:
        """Do once what is not measured, after the operations have been counted."""

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.case.device, torch.bfloat16, enabled=self.half)

    def _loss(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the sum of all terms, and the reconstructions."""
        found = self.model(self.x, self.case.da)
        prior = prior_regulariser(
            prior_terms(found.logits), divergence_weight=DIVERGENCE, entropy_weight=ENTROPY
        )
        distance = self.distance(found.image)
        self.critic.requires_grad_(False)
        adversarial = generator_loss(self.critic(found.image, self.case.da))
        self.critic.requires_grad_(True)
        l1 = F.l1_loss(found.image.float(), self.x)
        return l1 + prior + distance + ADVERSARIAL * adversarial, found.image.detach()

    def distance(self, image: torch.Tensor) -> torch.Tensor:
        """Give the perceptual loss of the reconstructions."""
        raise NotImplementedError

    def told_apart(self, image: torch.Tensor) -> torch.Tensor:
        """Give the discriminator's loss."""
        raise NotImplementedError


class Ours(Variant):
    """As `spad.training.tokenizer` trains."""

    half = True
    fused = True
    memory_format = torch.channels_last_3d

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        if case.work == "step":
            self.perceptual.to(memory_format=torch.channels_last)

    def distance(self, image: torch.Tensor) -> torch.Tensor:
        slices = drawn_slices(len(image), image.shape[2], torch.Generator().manual_seed(0))
        return self.perceptual(self.x, image, slices)

    def told_apart(self, image: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.x, image.to(self.x.dtype)])
        return critic_loss(*self.critic(both, self.case.da).chunk(2))


class Compiled(Ours):
    """Ours, the model compiled for one `da` as `--trainer.compile true` has it; steps alone."""

    def settle(self) -> None:
        self.model.compile(dynamic=False)
        self.run()


class Plain(Variant):
    """As one writes the formulas down."""

    def run(self) -> None:
        with mock.patch.object(_SpatialKernel, "kernel", _summed):
            super().run()

    def distance(self, image: torch.Tensor) -> torch.Tensor:
        total = image.new_zeros(())
        with torch.no_grad():
            wanted = self._features(self.x)
        for tap, a, b in zip(self.perceptual.taps, wanted, self._features(image), strict=True):
            total = total + tap((_unit(a) - _unit(b)).square()).mean()
        return TWICE * total

    def _features(self, x: torch.Tensor) -> list[torch.Tensor]:
        images = x.transpose(1, 2).flatten(0, 1).expand(-1, 3, -1, -1).contiguous()
        x = ((images + 1) / 2 - self.perceptual.mean) / self.perceptual.sd
        found = []
        for number, stage in enumerate(self.perceptual.stages):
            x = F.max_pool2d(x, 2) if number else x
            for convolution in stage:
                x = F.relu(convolution(x))
            found.append(x)
        return found

    def told_apart(self, image: torch.Tensor) -> torch.Tensor:
        real, rebuilt = (self.critic(part, self.case.da) for part in (self.x, image))
        return critic_loss(real, rebuilt)


VARIANTS: dict[str, type[Variant]] = {"ours": Ours, "plain": Plain, "compiled": Compiled}


def _summed(module: _SpatialKernel, da: int, depth: int) -> torch.Tensor:
    return module.weight if module.weight.shape[2] == depth else module._sum(depth)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _update(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad()


def _crops(model: Tokenizer, tokens: list[int], case: Case) -> torch.Tensor:
    """Draw smooth noise in [-1, 1] of the size that training crops have."""
    depth, height, width = model.token_factors(case.da)
    deep = 1 if case.da >= FLAT else tokens[0] * depth
    size = (deep, tokens[1] * height, tokens[1] * width)
    count = case.batch * (tokens[0] if case.da >= FLAT else 1)
    coarse = torch.rand(count, 1, max(1, deep // 4), size[1] // 8, size[2] // 8)
    x = 2 * F.interpolate(coarse, size, mode="trilinear") - 1
    return x.expand(-1, model.in_channels, -1, -1, -1).contiguous()


class Meter:
    """Measures cases on one device.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any]) -> float:
        """Time some work."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def peak(self, half: bool) -> float:
        """TFLOP/s of a large matrix product; float32 with TF32 on CUDA, as convolutions have it."""
        side, dtype = WIDEST[self.device], torch.bfloat16 if half else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = True
        a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        best = min(self.seconds(lambda: a @ b) for _ in range(8))
        torch.backends.cuda.matmul.allow_tf32 = False
        return 2 * side**3 / best / 1e12

    def measure(self, case: Case) -> Figures:
        """Measure one case; one that fails says so."""
        try:
            return self._measured(VARIANTS[case.variant](case), case)
        except RuntimeError as error:  # too little memory, above all
            return Figures(failure=f"{type(error).__name__}: {str(error).splitlines()[0][:60]}")
        finally:
            gc.collect()
            if self.device == "cuda":
                torch.cuda.empty_cache()

    def _measured(self, variant: Variant, case: Case) -> Figures:
        with FlopCounterMode(display=False):
            variant.warm_up()
        before = _resident()
        with FlopCounterMode(display=False) as counter:
            once = self.seconds(variant.run)
        variant.settle()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if once < case.seconds or self.device == "cuda":
            once = self.seconds(variant.run)
        blocks = BLOCKS if BLOCKS * once < case.seconds else 1
        steps = max(1, int(case.seconds / once / blocks))

        def several() -> None:
            for _ in range(steps):
                variant.run()

        each = min(self.seconds(several) for _ in range(blocks)) / steps
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else _most() - before
        tflop = counter.get_total_flops() / 1e12
        images = len(variant.x)
        return Figures(images, blocks * steps, each, images / each, peak / 1e6, tflop, tflop / each)


def _resident() -> int:
    """Bytes that this process holds now."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return _most()
    return int(statistics.read_text().split()[1]) * resource.getpagesize()


def _most() -> int:
    """Bytes that this process held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def apart(case: Case) -> Figures:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return Figures(failure="its process failed")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--presets", nargs="+", default=["tiny"], choices=("tiny", "small", "base"), metavar="NAME"
    )
    parser.add_argument("--da", nargs="+", type=int, default=[0, 2, 5])
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK)
    parser.add_argument("--batch", type=int, default=0, help="default: 8 on a GPU, else 1")
    parser.add_argument("--compile", action="store_true", help="also compiled (minutes)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of measuring, all rows together"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(options: argparse.Namespace, device: str) -> list[Case]:
    variants = [name for name in VARIANTS if name != "compiled" or options.compile]
    batch = options.batch or (8 if device == "cuda" else 1)
    chosen = list(itertools.product(options.presets, options.work, options.da, variants))
    return [
        Case(*parts, batch, device, options.seconds / len(chosen))
        for parts in chosen
        if parts[1] == "step" or parts[3] != "compiled"
    ]


HEADER = """
| preset | work | da | variant | images | steps | images/s | peak MB | TFLOP/s | of the peak |
|---|---|---|---|---|---|---|---|---|---|"""


def _line(row: Mapping[str, Any]) -> str:
    first = [row[name] for name in ("preset", "work", "da", "variant")]
    if row["failure"]:
        cells = [*first, row["failure"], *[""] * 5]
    else:
        cells = [
            *(*first, row["images"], row["steps"], f"{row['images_per_second']:.2f}"),
            *(f"{row['peak_mb']:.0f}", f"{row['tflops']:.3g}", f"{row['share_of_peak']:.0%}"),
        ]
    return f"| {' | '.join(map(str, cells))} |"


def _ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Set each variant of ours against the plain one."""
    lines = []
    for row in rows:
        same = [
            other
            for other in rows
            if other["variant"] == "plain"
            and all(other[key] == row[key] for key in ("preset", "work", "da"))
        ]
        if row["variant"] == "plain" or not same or row["failure"] or same[0]["failure"]:
            continue
        faster = row["images_per_second"] / same[0]["images_per_second"]
        memory = row["peak_mb"] / same[0]["peak_mb"]
        lines.append(
            f"{row['preset']}, {row['work']}, da {row['da']}, {row['variant']}: "
            f"{faster:.2f} times the plain throughput at {memory:.2f} of its memory"
        )
    return lines


def main() -> None:
    """Measure, print a table and write the figures."""
    options = _options()
    if options.case:
        case = Case(**json.loads(options.case))
        print(json.dumps(asdict(Meter(case.device).measure(case))))
        return
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {device}: {name}")
    meter = Meter(device)
    peaks = {"float32": meter.peak(False), "bfloat16": meter.peak(True)}
    print(", ".join(f"{kind} {peak:.2f} TFLOP/s" for kind, peak in peaks.items()))
    print(HEADER)
    rows: list[dict[str, Any]] = []
    for case in _cases(options, device):
        found = meter.measure(case) if device == "cuda" else apart(case)
        rows.append({**asdict(case), **asdict(found)})
        half = VARIANTS[case.variant].half
        rows[-1]["share_of_peak"] = found.tflops / peaks["bfloat16" if half else "float32"]
        print(_line(rows[-1]), flush=True)
        if options.json:
            whole = {"torch": torch.__version__, "device": name, "peaks_tflops": peaks}
            options.json.write_text(json.dumps({**whole, "rows": rows}, indent=2) + "\n")
    print("\n".join(["", *_ratios(rows)]))


if __name__ == "__main__":
    main()
