"""`spad replay SESSION --out LABELS`: make the labels of a session again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad import jsonfile
from spad.cli.options import add_report_option, check_outputs, check_place, seed_everything
from spad.cli.progress import progress_of
from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.inference.clicks import ClickSession
    from spad.prompts.session_file import Record


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("session", type=Path, metavar="SESSION", help="a session file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="LABELS", help="file for the labels"
    )
    parser.add_argument(
        "--scan", type=Path, help="the scan, where it has been moved (default: the session's path)"
    )
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="also write a Python script of the session"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the models run (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    add_report_option(parser)


def run(options: argparse.Namespace) -> int:
    """Play the session, write the labels, and say whether each step met what it met then."""
    from spad.prompts.made_with import differences, made_with
    from spad.prompts.session_file import check_scan, labels_type, read_record, replay
    from spad.prompts.session_script import script
    from spad.volumes.files import read, write

    record = read_record(options.session)
    path = options.scan or _path_of(record, options.session)
    if not path.exists():
        raise SpadError(f"The session's scan {path} does not exist; say where it is with --scan.")
    check_outputs([options.out], options.report, [options.session, path])
    if options.script:
        check_place(options.script, [options.session, path])
    scan = read(path)
    from spad.data.channels import one_phase
    from spad.inference.clicks import ClickSession

    phase = int(record.scan.get("phase") or 0)
    check_scan(record, one_phase(scan, phase))
    notes = _other_models(record)
    seed_everything(options.seed)
    settings = record.settings
    clicker = record.models.get("clicker") or {}
    with progress_of("replay") as progress:
        session = ClickSession(
            scan,
            clicker.get("name"),
            settings.get("modality"),
            options.device,
            phase=phase,
            features=bool(settings.get("features", True)),
            organs=bool(settings.get("organs", True)),
            labels_type=labels_type(record),
            progress=progress,
        )

        def configure(step: Mapping[str, Any]) -> None:
            session.tells_features = bool(step.get("features", True))

        done = replay(record, session.session, configure)
    write(session.labels, options.out)
    if options.script:
        jsonfile.write_text(options.script, script(record, options.session, path))
    notes += _labels_beside(options.session, session)
    other = differences(settings, made_with(session.model.place.type))
    notes += [other] if other else []
    if done.differing:
        notes.append(
            f"Before {len(done.differing)} of {done.steps} steps the object was not what it had "
            f"been (first before step {done.differing[0]})."
        )
    report = {
        "steps": done.steps,
        "differing": list(done.differing),
        "notes": notes,
        "device": session.model.place.type,
        "labels": {
            one.name: {"id": one.label, "voxels": int((session.session.labels == one.label).sum())}
            for one in session.session.objects.values()
        },
    }
    if options.report:
        jsonfile.write(options.report, report)
    same = "each met the object as it had been" if not done.differing else "not all as before"
    print("\n".join([f"{options.out}", f"{done.steps} steps, {same}.", *notes]))
    return 0


def _path_of(record: Record, session: Path) -> Path:
    path = record.scan.get("path")
    if not path:
        raise SpadError(f"{session} names no file of its scan; give the scan with --scan.")
    return Path(str(path))


def _other_models(record: Record) -> list[str]:
    """Name the models that are other files than those the session was made with."""
    from spad.checkpoints import zoo

    notes = []
    for role, model in record.models.items():
        if model is None:
            continue
        if zoo.find(model["name"]).sha256() != model["sha256"]:
            notes.append(f"The {role} '{model['name']}' is another file than then.")
    return notes


def _labels_beside(path: Path, session: ClickSession) -> list[str]:
    """Write the labels with which the Segment dock opens the session, where they are missing."""
    from spad.prompts import kept

    try:
        if kept.read(path).labels is not None:
            return []
    except SpadError:
        pass
    try:
        made = kept.write_labels(path, session.session.objects, session.session.labels)
    except SpadError as error:
        return [f"The Segment dock cannot open the session, since its labels are missing: {error}"]
    return [f"{made} was missing or damaged, and was made again for the Segment dock."]
