"""Files of a run that must survive a kill, a full disk and a second writer."""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.errors import SpadError
from spad.processes import ProcessIdentity

STALE_SECONDS = 60.0
"""After so long without a sign of life a process on another machine counts as dead."""
_PACKAGES = ("napari-spad", "torch", "lightning", "monai", "numpy", "safetensors", "zarr", "napari")


def cannot_write(path: Path, error: OSError) -> SpadError:
    """The sentence for a place that cannot be written."""
    return SpadError(
        f"{error.filename or path} cannot be written ({error.strerror or error}); expected a "
        "folder with free space that may be written: free some space or choose another place."
    )


def replace_text(path: Path, text: str, lasting: bool = False) -> None:
    """Put a text file in place of an older one at once; a reader sees either.

    Args:
        path: the file; only one process may write it.
        text: the new content.
        lasting: also survive a loss of power from now on.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def append_text(path: Path, text: str) -> None:
    """Add text to a file, all of it or none.

    Raises:
        SpadError: there is no room, or no such folder.
    """
    data = text.encode("utf-8")
    try:
        with path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                written = file.write(data)
                if written != len(data):
                    # what is missing shows its reason when it is tried again
                    file.write(data[written:])
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cut_torn_line(path: Path) -> None:
    """Remove what a killed writer left of a line at the end of a file."""
    with path.open("rb+") as file:
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            file.truncate(whole)


def take_lock(run: Path, me: ProcessIdentity, last_sign: float) -> str:
    """Make this process the only writer of a run.

    Args:
        run: the run's folder.
        me: the calling process.
        last_sign: when the run's writer last showed life, in seconds since 1970.

    Returns:
        The content of the lock, by which `release_lock` knows it.

    Raises:
        SpadError: another process holds it and is not known to be dead.
    """
    path = run / "lock"
    # the key tells apart two locks of one process
    text = json.dumps(me.to_json() | {"time": time.time(), "key": secrets.token_hex(8)}) + "\n"
    for _ in range(100):
        try:
            if _create(path, text):
                return text
            held = lock_text(run)
            if held is None:
                continue
            _check_dead(run, held, last_sign)
            if _take_over(run, held, text):
                return text
        except OSError as error:
            raise cannot_write(path, error) from error
    raise SpadError(f"Several processes want to write {run} at once; start one of them again.")


def release_lock(run: Path, text: str) -> None:
    """Give up the lock, if it is still the one that `take_lock` gave."""
    with suppress(OSError):
        if lock_text(run) == text:
            (run / "lock").unlink()


def lock_text(run: Path) -> str | None:
    """The content of a run's lock; None where there is none."""
    try:
        return (run / "lock").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def note_environment(run: Path) -> None:
    """Add to `environment.json` on what the run is started this time."""
    path = run / "environment.json"
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        starts = []
    replace_text(path, jsonfile.dumps({"starts": [*starts, _environment()]}) + "\n")


def _environment() -> dict[str, Any]:
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "packages": packages,
        "command": sys.argv,
    }


def _create(path: Path, text: str) -> bool:
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    try:
        with file:
            file.write(text.encode("utf-8"))
    except OSError:
        path.unlink()
        raise
    return True


def _check_dead(run: Path, held: str, last_sign: float) -> None:
    try:
        values = json.loads(held)
        owner, taken = ProcessIdentity.from_json(values), float(values["time"])
        alive = owner.is_alive()
        who = f"process {owner.pid} on {owner.host}"
    except (ValueError, KeyError, TypeError):
        # its maker is between creating and writing it, or died there
        alive, who = None, "another process"
        try:
            taken = (run / "lock").stat().st_mtime
        except OSError:
            return
        last_sign = taken
    if alive is None:
        alive = time.time() - max(taken, last_sign) <= STALE_SECONDS
    if alive:
        raise SpadError(
            f"{run} is being written by {who}; one process at a time can: stop that one first, or "
            "start a new run."
        )


def _take_over(run: Path, held: str, text: str) -> bool:
    """Replace a dead owner's lock, unless somebody else has; one process at a time tries."""
    guard = run / ".lock.guard"
    try:
        guard.touch(exist_ok=False)
    except FileExistsError:
        with suppress(OSError):
            if time.time() - guard.stat().st_mtime > STALE_SECONDS:
                guard.unlink()  # its maker was killed within these few lines
        time.sleep(0.02)
        return False
    try:
        if lock_text(run) != held:
            return False
        replace_text(run / "lock", text)
        return True
    finally:
        guard.unlink(missing_ok=True)
