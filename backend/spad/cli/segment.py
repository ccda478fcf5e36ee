"""`spad segment SCAN... --out FILE|DIR`: label the organs of scans."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad import jsonfile
from spad.cli.options import (
    add_model_options,
    add_report_option,
    add_scan_options,
    check_outputs,
    reading,
    seed_everything,
)
from spad.cli.progress import progress_of
from spad.cli.tables import number, table
from spad.errors import Cancelled, SpadError
from spad.volumes.files import stem_of

if TYPE_CHECKING:
    from spad.volumes.volume import Volume


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN", help="scans to label")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="a file for one scan; a folder for several, which gets <stem>_labels.nii.gz of each",
    )
    parser.add_argument(
        "--channels",
        action="store_true",
        help="the scans are the channels of one case, in the model's order (default: a case each)",
    )
    parser.add_argument(
        "--box",
        metavar="I0:I1,J0:J1,K0:K1",
        help="label only these voxels of the file (first and one behind the last, along i, j, k)",
    )
    parser.add_argument(
        "--clicks",
        type=Path,
        metavar="CLICKS",
        help="label what these clicks, boxes, scribbles and lassos (JSON) mean instead of all "
        "organs; --model is then a clicker",
    )
    parser.add_argument(
        "--session",
        type=Path,
        metavar="FILE",
        help="with --clicks, also write a session that 'spad replay' plays again and the Segment "
        "dock opens, with its labels beside it (*.labels.npz)",
    )
    parser.add_argument(
        "--confidence",
        type=Path,
        metavar="FILE",
        help="also write the probability of each voxel's label (0 to 1, in steps of 0.01)",
    )
    parser.add_argument(
        "--flips",
        action="store_true",
        help="average over the eight mirror images, which takes eight times as long; for models "
        "that were trained with them",
    )
    parser.add_argument(
        "--modality", choices=("CT", "MR"), help="where neither the file nor its values tell"
    )
    add_scan_options(parser)
    add_report_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Label each scan, write the labels and print the volumes."""
    scans: list[Path] = options.scans
    cases = [scans] if options.channels else [[scan] for scan in scans]
    targets = _targets([case[0] for case in cases], options.out)
    folder = None if targets == [options.out] else options.out
    results = [*targets, options.confidence] if options.confidence else targets
    _check_one(options, len(cases))
    check_outputs(results, options.report, scans, new_folder=folder)
    reports, failures = [], 0
    for case, target in zip(cases, targets, strict=True):
        try:
            labels = _label(case, target, options)
        except Cancelled:
            raise
        except SpadError as error:
            if len(targets) == 1:
                raise
            failures += 1
            reports.append({"case": stem_of(case[0]), "error": str(error)})
            print(f"spad segment: {case[0]}: {error}", file=sys.stderr)
            continue
        reports.append({"case": stem_of(case[0]), **(labels.report or {})})
        print(f"{target}\n{_volumes(labels.report or {})}")
    if options.report:
        several = len(targets) > 1
        options.report.parent.mkdir(exist_ok=True)
        jsonfile.write(options.report, {"cases": reports} if several else _single(reports))
    return 2 if failures else 0


def _check_one(options: argparse.Namespace, cases: int) -> None:
    """Refuse options for one case where there are several, and one file for two results."""
    if options.confidence and options.confidence.absolute() == options.out.absolute():
        raise SpadError(f"{options.out} is named twice, as labels and as confidence; give two.")
    alone = [n for n in ("box", "confidence", "flips", "channels") if getattr(options, n)]
    if options.clicks and alone:
        raise SpadError(f"--clicks and --{alone[0]} do not go together; leave one of them out.")
    if options.session and not options.clicks:
        raise SpadError("--session keeps clicks; give them with --clicks.")
    for name in ("box", "confidence", "clicks"):
        if cases > 1 and getattr(options, name):
            raise SpadError(
                f"--{name} was given with {cases} scans; expected one scan (or its channels, with "
                "--channels); label them one by one."
            )


def _single(cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in cases[0].items() if name != "case"}


def _label(scans: list[Path], target: Path, options: argparse.Namespace) -> Volume:
    from spad.volumes.files import read, write

    volumes = [read(scan, **reading(options)) for scan in scans]
    if options.clicks is not None:
        return _clicked(volumes, target, options)
    box = None if options.box is None else _box(options.box, volumes[0])
    from spad.inference.segment import organs

    seed_everything(options.seed)
    with progress_of(f"segment {scans[0].name}") as progress:
        found = organs(
            volumes,
            model=options.model,
            modality=options.modality,
            device=options.device,
            progress=progress,
            box=box,
            confidence=options.confidence is not None,
            flips=options.flips,
        )
    target.parent.mkdir(exist_ok=True)
    write(found.labels, target)
    if found.confidence is not None:
        write(found.confidence, options.confidence)
    return found.labels


def _clicked(volumes: list[Volume], target: Path, options: argparse.Namespace) -> Volume:
    from spad.cli.clicked import label_by_clicks
    from spad.volumes.files import write

    seed_everything(options.seed)
    with progress_of(f"segment {options.scans[0].name}") as progress:
        labels = label_by_clicks(
            volumes[0],
            options.clicks,
            model=options.model,
            modality=options.modality,
            device=options.device,
            progress=progress,
            session_file=options.session,
        )
    target.parent.mkdir(exist_ok=True)
    write(labels, target)
    return labels


def _box(text: str, volume: Volume) -> list[tuple[int, int]]:
    """Read a box of the file's voxels; give it along the spatial axes of `volume.array`."""
    try:
        pairs = [tuple(int(end) for end in part.split(":")) for part in text.split(",")]
        box = [(start, stop) for start, stop in pairs]
    except ValueError:
        box = []
    source = volume.source
    shape = source.shape[:3]
    inside = (0 <= start < stop <= n for (start, stop), n in zip(box, shape, strict=False))
    if len(box) != 3 or not all(inside):
        raise SpadError(
            f"The box '{text}' was given for a file of {' x '.join(map(str, shape))} voxels; "
            "expected I0:I1,J0:J1,K0:K1, for each axis of the file its first voxel, from 0, and "
            "one behind its last, such as 100:200,80:180,0:40."
        )
    turned = []
    for axis, flip in zip(source.permutation[-3:], source.flips[-3:], strict=True):
        start, stop = box[axis]
        turned.append((shape[axis] - stop, shape[axis] - start) if flip else (start, stop))
    return turned


def _targets(scans: list[Path], out: Path) -> list[Path]:
    """The labels file of each scan; `out` is a folder if it is one, or has no ending, or must."""
    if len(scans) == 1 and out.suffix and not out.is_dir():
        return [out]
    if out.exists() and not out.is_dir():
        raise SpadError(f"{out} is a file; several scans need a folder as --out.")
    if not out.parent.is_dir():
        raise SpadError(f"The folder {out.parent} of {out} does not exist; make it first.")
    targets = [out / f"{stem_of(scan)}_labels.nii.gz" for scan in scans]
    if len(set(targets)) < len(targets):
        raise SpadError(
            "Several of the scans have the same name, so their labels would have too; "
            "label them into different folders."
        )
    return targets


def _volumes(report: dict[str, Any]) -> str:
    keys = ("volume_ml", "mean", "sd", "diameter_mm")
    rows = [
        [name, *(number(label[key], 1) for key in keys)]
        for name, label in report.get("labels", {}).items()
    ]
    return table(["label", "mL", "mean", "sd", "diameter mm"], rows)
