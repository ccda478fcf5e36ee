"""Where models run: the processor or a GPU, in which precision, and how much memory that took."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import psutil
import torch

from spad.errors import SpadError
from spad.progress import Progress

DEVICES = ("auto", "cpu", "cuda")
_SAMPLE_SECONDS = 0.02

T = TypeVar("T")


def choose(device: str = "auto") -> torch.device:
    """Choose where a model runs.

    Args:
        device: "cpu", "cuda", or "auto": a GPU where there is one.

    Raises:
        SpadError: another word, or a GPU was asked for and there is none.
    """
    if device not in DEVICES:
        raise SpadError(
            f"The device {device!r} is not known; expected one of {', '.join(DEVICES)}."
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise SpadError(
            "A GPU was asked for (cuda), but torch sees none; use the device 'auto' or 'cpu', or "
            "install a torch build and a driver for the GPU."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware; elsewhere that is slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


@contextmanager
def inference(device: torch.device, *, exact: bool = False) -> Iterator[None]:
    """Run models without gradients; in bfloat16 where the device computes it.

    Args:
        device: where the model is.
        exact: stay in float32.
    """
    fast = not exact and computes_bfloat16(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
        yield


def stepping_down(
    work: Callable[[torch.device], T], device: torch.device, progress: Progress
) -> tuple[T, torch.device]:
    """Do work on a device, and on the processor if the GPU's memory is too small for it.

    Args:
        work: called with the device; called again from the start after stepping down.
        device: the first choice.
        progress: told where the work steps down.

    Returns:
        What `work` gave, and the device on which it did.
    """
    if device.type == "cuda":
        try:
            return work(device), device
        except torch.cuda.OutOfMemoryError:
            progress(0.0, "The GPU's memory is too small for this scan: starting on the processor")
        torch.cuda.empty_cache()
        device = torch.device("cpu")
    return work(device), device


class PeakMemory:
    """Watches how much memory this process holds while a job runs.

    Use as a context; `megabytes` afterwards is the largest resident size, or on a GPU the largest
    size that torch held there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.megabytes = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="spad-memory")

    def __enter__(self) -> PeakMemory:
        self._before = _lifetime_peak()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        after = _lifetime_peak()
        if after > self._before:
            self.megabytes = after / 1e6
        if self.device.type == "cuda":
            self.megabytes = torch.cuda.max_memory_allocated(self.device) / 1e6

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.megabytes = max(self.megabytes, process.memory_info().rss / 1e6)
            if self._done.wait(_SAMPLE_SECONDS):
                return


def _lifetime_peak() -> float:
    """Largest resident size of this process so far in bytes; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
