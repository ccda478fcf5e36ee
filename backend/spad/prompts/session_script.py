"""A session as a Python script, which does what `spad.prompts.session_file.replay` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spad.prompts.session_file import Record, labels_type, locked_of


def script(record: Record, session_path: str | Path, scan_path: str | Path) -> str:
    """Write the session as a Python script that makes the same labels without the file's log.

    Args:
        record: the session.
        session_path: its file, after which the labels are named.
        scan_path: where its scan lies.

    Raises:
        SpadError: a step is damaged.
    """
    settings, features = record.settings, True
    numbers = {name: number for number, name in record.names.items()}
    lines = [
        "# Made by napari-spad from a session.",
        "import spad",
        "from spad.prompts.part import Part",
        "from spad.prompts.prompt import Prompt",
        "from spad.prompts.session_file import objects_of",
        "from spad.prompts.steps import voxels_of",
        "",
        f"scan = spad.read({str(scan_path)!r})",
        "with spad.ClickSession(",
        f"    scan, {(record.models.get('clicker') or {}).get('name')!r},",
        f"    modality={settings.get('modality')!r}, phase={int(record.scan.get('phase') or 0)},",
        f"    features={bool(settings.get('features', True))},",
        f"    organs={bool(settings.get('organs', True))},",
        f"    labels_type={labels_type(record).name!r},",
        ") as clicks:",
        "    session = clicks.session",
    ]
    for step in record.steps:
        if "object" in step and bool(step.get("features", True)) is not features:
            features = not features
            lines.append(f"    clicks.tells_features = {features}")
        lines += [f"    {line}" for line in _lines_of(step, numbers)]
    lines.append(f"    spad.write(clicks.labels, {Path(session_path).stem + '_labels.nii.gz'!r})")
    return "\n".join(lines) + "\n"


def _lines_of(step: Mapping[str, Any], numbers: Mapping[str, int]) -> list[str]:
    kind = step["step"]
    if kind == "dropped":
        return []
    if kind in ("undo", "redo"):
        return [f"session.{kind}()"]
    if kind == "voxels":
        text = str(step.get("text", "edit"))
        return [
            f"step = {dict(step)!r}",
            "part, values = voxels_of(step)",
            "things = objects_of(step, session.objects)",
            f"session.voxels({text!r}, part.start, part.mask, values, things)",
        ]
    name = str(step["object"])
    objects = {name: int(step["label"])} | locked_of(step, numbers)
    lines = [f"session.add({one!r}, {label})" for one, label in objects.items()]
    lines.append(f"session.locked = set({list(step.get('locked', ()))!r})")
    if kind == "start":
        source = str(step.get("source", "a mask"))
        begun = f"Part.from_json({step['part']!r}).tight()"
        return [*lines, f"session.begin_with({name!r}, {begun}, {source!r})"]
    told = f"map(Prompt.from_json, {list(step['prompts'])!r})"
    call = f"session.prompt({name!r}, *{told})" if kind == "prompt" else ""
    return [*lines, call or f"session.again({name!r}, list({told}))"]
