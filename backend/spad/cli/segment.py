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
        "--modality", choices=("CT", "MR"), help="where neither the file nor its values tell"
    )
    add_scan_options(parser)
    add_report_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Label each scan, write the labels and print the volumes."""
    targets = _targets(options.scans, options.out)
    folder = None if targets == [options.out] else options.out
    check_outputs(targets, options.report, options.scans, new_folder=folder)
    cases, failures = [], 0
    for scan, target in zip(options.scans, targets, strict=True):
        try:
            labels = _label(scan, target, options)
        except Cancelled:
            raise
        except SpadError as error:
            if len(targets) == 1:
                raise
            failures += 1
            cases.append({"case": stem_of(scan), "error": str(error)})
            print(f"spad segment: {scan}: {error}", file=sys.stderr)
            continue
        cases.append({"case": stem_of(scan), **(labels.report or {})})
        print(f"{target}\n{_volumes(labels.report or {})}")
    if options.report:
        several = len(targets) > 1
        options.report.parent.mkdir(exist_ok=True)
        jsonfile.write(options.report, {"cases": cases} if several else _single(cases))
    return 2 if failures else 0


def _single(cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in cases[0].items() if name != "case"}


def _label(scan: Path, target: Path, options: argparse.Namespace) -> Volume:
    from spad.volumes.files import read, write

    volume = read(scan, **reading(options))
    from spad.inference.segment import segment

    seed_everything(options.seed)
    with progress_of(f"segment {scan.name}") as progress:
        labels = segment(
            volume,
            model=options.model,
            modality=options.modality,
            device=options.device,
            progress=progress,
        )
    target.parent.mkdir(exist_ok=True)
    write(labels, target)
    return labels


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
    rows = [
        [name, number(label["volume_ml"], 1), number(label["mean"], 1), number(label["sd"], 1)]
        for name, label in report.get("labels", {}).items()
    ]
    return table(["label", "mL", "mean", "sd"], rows)
