"""Which process is which: a process id alone is used again after its owner has died."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one machine, told apart from a later one with the same id.

    Attributes:
        host: name of the machine.
        pid: the process id.
        start: when it started, as an opaque word; on Linux it does not depend on the clock.
    """

    host: str
    pid: int
    start: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> ProcessIdentity:
        """Read what `to_json` wrote; KeyError, TypeError or ValueError if it is anything else."""
        return ProcessIdentity(str(values["host"]), int(values["pid"]), str(values["start"]))

    def is_alive(self) -> bool | None:
        """Whether it still runs; None where that cannot be known from this machine."""
        if self.host != socket.gethostname():
            return None
        theirs, ours = self.start.rpartition("-")[0], _epoch()
        if theirs != ours:
            # another container on this machine sees other processes; another boot has none of them
            same_boot = theirs.partition(".")[0] == ours.partition(".")[0]
            return None if same_boot else False
        return process_start(self.pid) == self.start


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    start = process_start(os.getpid())
    if start is None:
        raise RuntimeError("the calling process has no start time")
    return ProcessIdentity(socket.gethostname(), os.getpid(), start)


def process_start(pid: int) -> str | None:
    """A word for the start of process `pid`; None where it has ended (a zombie counts as ended)."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{_epoch()}-{fields[19]}"
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{_epoch()}-{process.create_time():.2f}"
    except psutil.Error:
        return None


def step_back(by: int) -> None:
    """Let other processes go before this one, foremost the one that draws on the screen.

    Args:
        by: on POSIX, added to how nice it is; elsewhere it steps back by one class.
    """
    process = psutil.Process()
    with suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            process.nice(min(19, process.nice() + by))


@cache
def _epoch() -> str:
    """The boot and the process namespace in which ids count; without a hyphen."""
    if sys.platform != "linux":
        return sys.platform
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{boot.replace('-', '')[:12]}.{namespace}"
