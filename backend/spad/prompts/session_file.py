"""The session file: all that is needed to make the labels of a scan again.

It names the scan by a hash of its voxels and geometry, the models by hashes of their files, and
lists the steps that took effect, each with a hash (`before`) of the object before it, or of the
labels that it changed. Steps by hand carry their voxels; steps of the model carry the prompt alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spad import jsonfile
from spad.errors import SpadError
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt
from spad.prompts.session import Change, Object, Session
from spad.prompts.steps import voxels_of
from spad.volumes.volume import Volume

VERSION = 1
BY_HAND = ("voxels", "undo", "redo")
"""Steps that earlier files have without a hash."""
STEPS = ("prompt", "again", "start", "voxels", "undo", "redo", "dropped")
_HASHED_AT_ONCE = 64


@dataclass(frozen=True)
class Record:
    """What a session file holds.

    Attributes:
        scan: `path`, `sha256` (of voxels and geometry), `shape`, `spacing`, `affine`, `phase`.
        models: `clicker` and `segmenter`: name and sha256 of the file; None where there is none.
        settings: what else changes the result: `modality`, `features`, `organs`, and what
            `spad.prompts.made_with` tells.
        steps: in order; see `STEPS`.
        names: id -> name of the labels.
    """

    scan: Mapping[str, Any]
    models: Mapping[str, Any]
    settings: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    names: Mapping[int, str] = field(default_factory=dict)

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            SpadError: the place cannot be written.
        """
        content = {
            "spad_session": VERSION,
            "scan": dict(self.scan),
            "models": dict(self.models),
            "settings": dict(self.settings),
            "labels": {str(number): name for number, name in self.names.items()},
            "steps": [dict(step) for step in self.steps],
        }
        jsonfile.write_text(path, jsonfile.dumps(content, None) + "\n")


def read_record(path: str | Path) -> Record:
    """Read a session file.

    Raises:
        SpadError: it is none, or of a later version.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["spad_session"]
        if version != VERSION:
            raise SpadError(
                f"{path} is a session file of version {version}; this program reads {VERSION}: "
                "open it with the program that wrote it."
            )
        steps = list(content["steps"])
        unknown = [s.get("step") for s in steps if s.get("step") not in STEPS]
        if unknown:
            raise ValueError(f"a step {unknown[0]!r}")
        names = {int(number): str(name) for number, name in content.get("labels", {}).items()}
        return Record(
            dict(content["scan"]), dict(content["models"]), dict(content["settings"]), steps, names
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpadError(
            f"{path} cannot be read as a session ({error}); expected the JSON file that the "
            "Segment dock or 'spad segment --clicks --session' wrote."
        ) from error


def scan_hash(scan: Volume) -> str:
    """Hash a 3D scan's stored voxels and its geometry (to a thousandth of a mm)."""
    digest = hashlib.sha256()
    array = scan.array
    digest.update(f"{array.shape}{array.dtype.str}{scan.slope:.6g},{scan.intercept:.6g}".encode())
    digest.update((np.round(np.asarray(scan.affine), 3) + 0.0).astype("<f8").tobytes())
    for start in range(0, len(array), _HASHED_AT_ONCE):
        digest.update(np.ascontiguousarray(array[start : start + _HASHED_AT_ONCE]).data)
    return digest.hexdigest()


def scan_entry(scan: Volume, phase: int = 0) -> dict[str, Any]:
    """Describe a 3D scan for a session file: its affine takes indices of `array` to RAS+ mm."""
    return {
        "path": scan.source.path,
        "sha256": scan_hash(scan),
        "shape": list(scan.spatial_shape),
        "spacing": [round(float(s), 6) for s in scan.spacing],
        "affine": np.asarray(scan.affine).tolist(),
        "phase": phase,
    }


def check_scan(record: Record, scan: Volume) -> None:
    """Refuse a scan that is not the session's.

    Raises:
        SpadError: voxels or geometry differ.
    """
    wanted = record.scan.get("sha256")
    found = scan_hash(scan)
    if wanted == found:
        return
    path, phase = record.scan.get("path"), int(record.scan.get("phase") or 0)
    of, then = "", ""
    if phase or "t" in scan.source.axes:
        of, then = f"time {phase} (counted from 0) of ", f" and show time {phase} of it"
    raise SpadError(
        f"The session was made on {of}{path or 'a scan without a file'} (hash "
        f"{str(wanted)[:12]}), but what is here has other voxels or geometry (hash {found[:12]}); "
        f"open the session's own scan{then}."
    )


def labels_type(record: Record) -> np.dtype:
    """Give the narrowest unsigned type that holds all labels of a session.

    Raises:
        SpadError: a step is damaged.
    """
    most = max((0, *record.names))
    for step in record.steps:
        most = max(most, int(step.get("label") or 0))
        if step["step"] == "voxels":
            most = max(most, int(voxels_of(step)[1].max(initial=0)))
            most = max((most, *(one.label for one in objects_of(step).values() if one)))
    return np.min_scalar_type(most)


@dataclass(frozen=True)
class Replay:
    """What playing a session again gave.

    Attributes:
        steps: how many were played.
        differing: numbers of the steps, from 1, before which an object was not what it had been.
    """

    steps: int
    differing: tuple[int, ...]


def replay(
    record: Record,
    session: Session,
    configure: Callable[[Mapping[str, Any]], None] = lambda step: None,
) -> Replay:
    """Play a session's steps again.

    Args:
        record: the file's content.
        session: an empty one, with the same models.
        configure: told each step before it is played, such as to leave out features that were not
            ready then.

    Raises:
        SpadError: a step is damaged.
    """
    differing = []
    played = 0
    numbers = {name: number for number, name in record.names.items()}
    for number, step in enumerate(record.steps, 1):
        if step["step"] == "dropped":
            continue
        played += 1
        length = len(session.log)
        _play(session, step, numbers, configure)
        # an undo where nothing was left to undo notes nothing
        found = session.log[-1]["before"] if len(session.log) > length else None
        wanted = step.get("before", found if step["step"] in BY_HAND else None)
        if found is None or found != wanted:
            differing.append(number)
    return Replay(played, tuple(differing))


def objects_of(
    step: Mapping[str, Any], now: Mapping[str, Object] | None = None
) -> dict[str, Object | None]:
    """Give the objects as they are after a change by hand.

    `objects` of the step says all of an object, `added` only the prompts that came to it.

    Args:
        step: of the kind "voxels".
        now: the objects before it.

    Raises:
        SpadError: they are damaged.
    """
    found: dict[str, Object | None] = {
        name: None if one is None else Object.from_json(name, one)
        for name, one in dict(step.get("objects") or {}).items()
    }
    for name, one in dict(step.get("added") or {}).items():
        more = Object.from_json(name, one)
        was = (now or {}).get(name, replace(more, prompts=()))
        found[name] = replace(was, prompts=(*was.prompts, *more.prompts), by_hand=True)
    return found


def _play(
    session: Session,
    step: Mapping[str, Any],
    numbers: Mapping[str, int],
    configure: Callable[[Mapping[str, Any]], None],
) -> Change | None:
    kind = step["step"]
    try:
        if kind in ("undo", "redo"):
            return session.undo() if kind == "undo" else session.redo()
        if kind == "voxels":
            part, values = voxels_of(step)
            things = objects_of(step, session.objects)
            text = str(step.get("text", "edit"))
            return session.voxels(text, part.start, part.mask, values, things)
        configure(step)
        name = str(step["object"])
        session.add(name, int(step["label"]))
        for other, label in locked_of(step, numbers).items():
            session.add(other, label)
        session.locked = set(step.get("locked", ()))
        if kind == "start":
            part = Part.from_json(step["part"])
            return session.begin_with(name, part.tight(), str(step.get("source", "a mask")))
        prompts = [Prompt.from_json(one) for one in step["prompts"]]
        return session.prompt(name, *prompts) if kind == "prompt" else session.again(name, prompts)
    except KeyError as error:
        raise SpadError(
            f"A step of the session lacks {error}; expected the file as it was written."
        ) from error


def locked_of(step: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, int]:
    """Give the objects that were locked in a step, with their labels.

    One may have been painted and never clicked on, so that no step before has begun it.

    Args:
        step: of the model.
        numbers: name -> label of the session's objects.
    """
    return {name: numbers[name] for name in step.get("locked", ()) if name in numbers}
