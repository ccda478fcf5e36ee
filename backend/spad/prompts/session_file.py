"""The session file: all that is needed to make the labels of a scan again.

It names the scan by a hash of its voxels and geometry, the models by hashes of their files, and
lists the steps that took effect, each with a hash of the object before it. Steps by hand carry
their voxels; steps of the model carry the prompt alone.
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
from spad.prompts.session import Change, Object, Session, voxels_of
from spad.volumes.volume import Volume

VERSION = 1
STEPS = ("prompt", "again", "start", "edit", "voxels", "undo", "redo", "dropped")
_HASHED_AT_ONCE = 64


@dataclass(frozen=True)
class Record:
    """What a session file holds.

    Attributes:
        scan: `path`, `sha256` (of voxels and geometry), `shape`, `spacing`, `phase`.
        models: `clicker` and `segmenter`: name and sha256 of the file; None where there is none.
        settings: what else changes the result: `modality`, `features`, `organs`, `device`,
            versions.
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
        jsonfile.write(Path(path), content)


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
    """Describe a 3D scan for a session file."""
    return {
        "path": scan.source.path,
        "sha256": scan_hash(scan),
        "shape": list(scan.spatial_shape),
        "spacing": [round(float(s), 6) for s in scan.spacing],
        "phase": phase,
    }


def check_scan(record: Record, scan: Volume) -> None:
    """Refuse a scan that is not the session's.

    Raises:
        SpadError: voxels or geometry differ.
    """
    wanted = record.scan.get("sha256")
    found = scan_hash(scan)
    if wanted != found:
        raise SpadError(
            f"The session was made on {record.scan.get('path')} (hash {str(wanted)[:12]}), but "
            f"this scan has other voxels or geometry (hash {found[:12]}); open the session's own "
            "scan."
        )


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
        kind = step["step"]
        if kind == "dropped":
            continue
        played += 1
        if kind in ("undo", "redo"):
            _ = session.undo() if kind == "undo" else session.redo()
            continue
        if kind == "voxels":
            part, values = voxels_of(step)
            things = objects_of(step, session.objects)
            session.voxels(str(step.get("text", "edit")), part.start, part.mask, values, things)
            continue
        configure(step)
        name = str(step["object"])
        session.add(name, int(step["label"]))
        for other in step.get("locked", ()):
            # one that was painted and never clicked on
            if other in numbers:
                session.add(other, numbers[other])
        session.locked = set(step.get("locked", ()))
        before = session.part(name)
        if step.get("before") != ("empty" if before is None else before.digest()):
            differing.append(number)
        _play(session, name, step)
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


def _play(session: Session, name: str, step: Mapping[str, Any]) -> Change:
    kind = step["step"]
    try:
        if kind == "prompt":
            return session.prompt(name, *(Prompt.from_json(one) for one in step["prompts"]))
        if kind == "again":
            return session.again(name, [Prompt.from_json(one) for one in step["prompts"]])
        part = Part.from_json(step["part"])
        if kind == "start":
            return session.begin_with(name, part.tight(), str(step.get("source", "a mask")))
        prompts = [Prompt.from_json(one) for one in step.get("prompts", ())]
        return session.edit(name, part, str(step.get("text", "edit")), prompts)
    except KeyError as error:
        raise SpadError(
            f"A step of the session lacks {error}; expected the file as it was written."
        ) from error


def script(record: Record, session_path: str) -> str:
    """Write the session as a Python script that makes the same labels without the file's log."""
    lines = [
        "# Made by napari-spad from a session.",
        "import spad",
        "from spad.prompts.part import Part",
        "from spad.prompts.prompt import Prompt",
        "from spad.prompts.session import voxels_of",
        "from spad.prompts.session_file import objects_of",
        "",
        f"scan = spad.read({str(record.scan.get('path'))!r})",
        f"settings = {dict(record.settings)!r}",
        "with spad.ClickSession(",
        f"    scan, {(record.models.get('clicker') or {}).get('name')!r},",
        "    modality=settings['modality'], features=settings['features'],",
        f"    organs=settings['organs'], phase={int(record.scan.get('phase') or 0)},",
        ") as clicks:",
        "    session = clicks.session",
    ]
    for step in record.steps:
        lines += [f"    {line}" for line in _script_of(step)]
    lines.append(f"    spad.write(clicks.labels, {Path(session_path).stem + '_labels.nii.gz'!r})")
    return "\n".join(lines) + "\n"


def _script_of(step: Mapping[str, Any]) -> list[str]:
    kind = step["step"]
    if kind == "dropped":
        return []
    if kind in ("undo", "redo"):
        return [f"session.{kind}()"]
    if kind == "voxels":
        return [
            f"step = {dict(step)!r}",
            "part, values = voxels_of(step)",
            "things = objects_of(step, session.objects)",
            "session.voxels(step['text'], part.start, part.mask, values, things)",
        ]
    name = step["object"]
    lines = [
        f"session.add({name!r}, {step['label']})",
        f"session.locked = {set(step['locked'])!r}"
        if step.get("locked")
        else "session.locked = set()",
    ]
    if kind == "prompt":
        lines.append(f"session.prompt({name!r}, *map(Prompt.from_json, {step['prompts']!r}))")
    elif kind == "again":
        lines.append(f"session.again({name!r}, [Prompt.from_json(p) for p in {step['prompts']!r}])")
    elif kind == "start":
        lines.append(
            f"session.begin_with({name!r}, Part.from_json({step['part']!r}).tight(), "
            f"{step.get('source')!r})"
        )
    else:
        lines.append(
            f"session.edit({name!r}, Part.from_json({step['part']!r}), {step.get('text')!r}, "
            f"[Prompt.from_json(p) for p in {step.get('prompts', [])!r}])"
        )
    return lines
