"""`spad evaluate PRED REF`: compare labels with a reference."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.cli.options import check_place
from spad.cli.progress import progress_of
from spad.cli.tables import number, table
from spad.errors import SpadError

HEADER = ("dice", "assd", "hd", "hd95", "nsd_1mm", "nsd_3mm")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("prediction", type=Path, metavar="PRED", help="labels, or a folder of them")
    parser.add_argument(
        "reference",
        type=Path,
        metavar="REF",
        help="labels on the same grid, or a folder of them; folders are paired by file name",
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the figures here")
    parser.add_argument(
        "--unit", choices=("mm", "voxel"), default="mm", help="of distances (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Compare, print a table and write the figures."""
    prediction, reference = options.prediction, options.reference
    for path in (prediction, reference):
        if not path.exists():
            raise SpadError(f"{path} does not exist; expected labels or a folder of them.")
    if prediction.is_dir() != reference.is_dir():
        raise SpadError(
            f"{prediction} and {reference} are a folder and a file; give two files or two folders."
        )
    if options.out:
        check_place(options.out, [prediction, reference])
    figures = _figures(prediction, reference, options.unit)
    if options.out:
        jsonfile.write(options.out, figures)
    print(_readable(figures))


def _figures(prediction: Path, reference: Path, unit: Any) -> dict[str, Any]:
    if prediction.is_dir():
        from spad.evaluation.folders import evaluate_folders

        with progress_of("evaluate") as progress:
            return evaluate_folders(prediction, reference, unit, progress)
    from spad.evaluation.metrics import evaluate
    from spad.volumes.files import read

    return evaluate(read(prediction, labels=True), read(reference, labels=True), unit)


def _readable(figures: Mapping[str, Any]) -> str:
    unit = "voxels" if figures["unit"] == "voxel" else "mm"
    text = [_table("label", figures["labels"], figures["mean"], unit)]
    if "cases" in figures:
        cases = {case["case"]: case["mean"] for case in figures["cases"]}
        text.insert(0, _table("case", cases, None, unit))
        text += [
            f"without a {partner}: {', '.join(names)}"
            for partner in ("reference", "prediction")
            if (names := figures[f"without_{partner}"])
        ]
    return "\n\n".join(text)


def _table(first: str, rows: Mapping[str, Mapping[str, float | None]], mean: Any, unit: str) -> str:
    names = ["Dice", *(f"{name} {unit}" for name in ("ASSD", "HD", "HD95", "NSD 1", "NSD 3"))]
    lines = {**rows, "mean": mean} if mean else rows
    return table(
        [first, *names],
        [[name, *(number(row[figure]) for figure in HEADER)] for name, row in lines.items()],
    )
