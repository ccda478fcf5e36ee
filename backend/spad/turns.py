"""Whose turn it is: trainings that were started from the viewer wait while its worker has a job.

A worker at work has a file in the folder `busy` of `SPAD_HOME`, named after its process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spad.checkpoints.zoo import spad_home
from spad.processes import ProcessIdentity, this_process

_numbers = itertools.count()


@contextmanager
def taken() -> Iterator[None]:
    """Say that this process is at work; a folder that cannot be written is no hindrance."""
    me = this_process()
    file = _folder() / f"{me.pid}_{me.start}_{next(_numbers)}_{me.host}"
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def is_taken() -> bool:
    """Whether a process of this machine is at work; what a dead one left is removed."""
    with suppress(OSError):
        for file in _folder().iterdir():
            pid, start, _, host = file.name.split("_", 3)
            alive = ProcessIdentity(host, int(pid), start).is_alive()
            if alive:
                return True
            if alive is False:
                file.unlink()
    return False


def _folder() -> Path:
    return spad_home() / "busy"
