"""Where models run: the processor or a GPU, in which precision, and how much memory that took."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import psutil
import torch

from spad.errors import SpadError
from spad.progress import Progress

DEVICES = ("auto", "cpu", "cuda")
WINDOWS_AT_ONCE = 4
"""On a GPU, which one window does not fill."""
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


@dataclass(frozen=True)
class Effort:
    """How a model slides over a scan.

    Attributes:
        place: where it runs.
        at_once: windows that it sees at once.
        cut: by how much its windows are smaller than usual, along each axis.
        words: what was given up on the way here; "" for the first choice.
    """

    place: torch.device
    at_once: int = 1
    cut: int = 1
    words: str = ""


def efforts(device: torch.device) -> list[Effort]:
    """List the ways to run a model on a device, the one that needs the least memory last."""
    smaller = "smaller windows"
    if device.type != "cuda":
        return [Effort(device), Effort(device, cut=2, words=smaller)]
    return [
        Effort(device, at_once=WINDOWS_AT_ONCE),
        Effort(device, words="one window at a time"),
        Effort(device, cut=2, words=smaller),
        Effort(torch.device("cpu"), words="the processor instead of the GPU"),
    ]


def stepping_down(
    work: Callable[[Effort], T], device: torch.device, progress: Progress
) -> tuple[T, Effort, list[str]]:
    """Do work on a device, with ever less memory if there is too little of it.

    Args:
        work: called with an effort; called again from the start after stepping down.
        device: the first choice.
        progress: told what is tried next.

    Returns:
        What `work` gave, the effort with which it did, and the steps that were taken, in words.

    Raises:
        SpadError: even the last effort needs more memory than there is.
    """
    steps: list[str] = []
    for effort in efforts(device):
        if effort.words:
            steps.append(effort.words)
            progress(0.0, f"Too little memory: again with {effort.words}")
        try:
            return work(effort), effort, steps
        except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        if effort.place.type == "cuda":
            torch.cuda.empty_cache()
    raise SpadError(
        "There is too little memory for this scan even with smaller windows; close other programs "
        "or crop the scan."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell what torch raises for want of memory from its other errors; on the CPU by its words."""
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


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
