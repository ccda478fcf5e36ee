"""Checkpoints of a run: written beside, sealed with checksums, then renamed; a torn one is known.

Torch-free: what lies in a checkpoint is the business of `spad.training.module`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spad.errors import SpadError
from spad.training.run_files import replace_text

CHECKSUMS = "checksums.json"
KEPT = 2
"""How many of the latest checkpoints stay, beside the best."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose checksums are right.

    Attributes:
        path: its folder.
        step: generator updates until then.
        torn: names of newer checkpoints that were passed over because they are damaged.
    """

    path: Path
    step: int
    torn: tuple[str, ...] = ()


def checkpoint_steps(run: str | Path) -> list[int]:
    """The steps of a run's checkpoints, whole or torn, in rising order."""
    steps = []
    with suppress(OSError):
        for path in (Path(run) / "checkpoints").iterdir():
            number = path.name.removeprefix("step-")
            if path.name.startswith("step-") and number.isdecimal() and path.is_dir():
                steps.append(int(number))
    return sorted(steps)


def marked_step(run: str | Path, name: str) -> int | None:
    """The step to which `last` or `best` points; None where there is no such file."""
    try:
        text = (Path(run) / "checkpoints" / name).read_text(encoding="utf-8").strip()
        return int(text.removeprefix("step-"))
    except (OSError, ValueError):
        return None


def load_checkpoint_folder(run: str | Path, which: str = "last") -> Checkpoint:
    """Find a checkpoint that is whole.

    Args:
        run: the run's folder.
        which: "last" or "best"; a damaged one gives way to the latest one before it.

    Returns:
        The checkpoint, and the names of those that were passed over.

    Raises:
        SpadError: there is none.
    """
    run = Path(run)
    steps = checkpoint_steps(run)
    wanted = marked_step(run, which)
    if wanted is None and steps:
        wanted = steps[-1]
    torn: list[str] = []
    for step in reversed([step for step in steps if wanted is not None and step <= wanted]):
        path = run / "checkpoints" / f"step-{step}"
        if is_whole(path):
            return Checkpoint(path, step, tuple(torn))
        torn.append(path.name)
    damaged = f" ({', '.join(torn)} are damaged)" if torn else ""
    raise SpadError(
        f"{run} holds no whole checkpoint{damaged}; expected one in its folder 'checkpoints': "
        "start the run anew."
    )


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint has all its files as they were written."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["files"]
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and _sha256(folder / name) == entry["sha256"]
            for name, entry in sums.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def new_checkpoint(run: Path, step: int) -> Iterator[Path]:
    """Give a temporary folder that becomes the checkpoint of `step` if no error is raised."""
    folder = run / "checkpoints"
    part, final, old = folder / f".step-{step}", folder / f"step-{step}", folder / ".old"
    remove_unfinished(run)
    part.mkdir(parents=True)
    try:
        yield part
        _seal(part)
        if final.exists():
            final.rename(old)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _sync(folder)
    mark(run, "last", step)
    shutil.rmtree(old, ignore_errors=True)
    _prune(run)


def mark(run: Path, name: str, step: int) -> None:
    """Let `last` or `best` point to the checkpoint of a step."""
    replace_text(run / "checkpoints" / name, f"step-{step}\n", lasting=True)


def remove_after(run: Path, step: int) -> None:
    """Remove the checkpoints after a step; `last` and `best` point to what is left."""
    steps = checkpoint_steps(run)
    kept = [number for number in steps if number <= step]
    last, best = marked_step(run, "last"), marked_step(run, "best")
    if kept and last is not None and last > step:
        mark(run, "last", kept[-1])
    if best is not None and best > step:
        (run / "checkpoints" / "best").unlink()
    for number in set(steps) - set(kept):
        shutil.rmtree(run / "checkpoints" / f"step-{number}")


def remove_unfinished(run: Path) -> None:
    """Remove what a writer left that was killed while it wrote a checkpoint."""
    folder = run / "checkpoints"
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder / ".old", ignore_errors=True)


def _prune(run: Path) -> None:
    steps = checkpoint_steps(run)
    for step in set(steps[:-KEPT]) - {marked_step(run, "best")}:
        shutil.rmtree(run / "checkpoints" / f"step-{step}", ignore_errors=True)


def _seal(folder: Path) -> None:
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
            _sync(path)
    replace_text(folder / CHECKSUMS, json.dumps({"files": files}, indent=2) + "\n", lasting=True)
    _sync(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk keep a file or folder even if the power goes."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
