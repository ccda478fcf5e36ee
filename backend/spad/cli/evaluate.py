"""`spad evaluate PRED REF`: compare labels with a reference."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.cli.options import check_place
from spad.cli.progress import progress_of
from spad.cli.tables import number, table
from spad.errors import SpadError
from spad.volumes.files.disk import replace_files

HEADER = ("dice", "assd", "hd", "hd95", "nsd_1mm", "nsd_3mm")
MEAN = "mean"


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
        "--csv",
        type=Path,
        metavar="FILE",
        help="also write a table: a row for each case and label, and for their means, those over "
        "cases with the ends of their intervals",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="PNG",
        help="also draw the Dice of each label over the cases, with mean and interval",
    )
    parser.add_argument(
        "--unit",
        choices=("mm", "voxel"),
        default="mm",
        help="of distances; voxel takes every voxel as 1 x 1 x 1, which is the convention of the "
        "paper's BTCV numbers (default: %(default)s)",
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
    _check_results(options)
    figures = _figures(prediction, reference, options.unit)
    _write(options, figures)
    print(_readable(figures))


def _check_results(options: argparse.Namespace) -> None:
    """Refuse, before any work, results that cannot go where they should."""
    given = [path for path in (options.out, options.csv, options.figure) if path]
    for path in given:
        check_place(path, [options.prediction, options.reference])
    if len({path.absolute() for path in given}) < len(given):
        names = ", ".join(map(str, given))
        raise SpadError(f"Two of {names} are the same file; give each result a name of its own.")
    if options.figure and options.figure.suffix.lower() != ".png":
        raise SpadError(f"{options.figure} does not end in .png; --figure writes PNG: change it.")


def _figures(prediction: Path, reference: Path, unit: Any) -> dict[str, Any]:
    if prediction.is_dir():
        from spad.evaluation.folders import evaluate_folders

        with progress_of("evaluate") as progress:
            return evaluate_folders(prediction, reference, unit, progress)
    from spad.evaluation.metrics import evaluate
    from spad.volumes.files import read

    return evaluate(read(prediction, labels=True), read(reference, labels=True), unit)


def _write(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Write what was asked for; the picture first, since it alone can be impossible."""
    if options.csv or options.figure:
        from spad.evaluation.folders import summarize
        from spad.volumes.files import stem_of

        several = figures
        if "cases" not in figures:
            case = {"case": stem_of(options.prediction), **figures}
            several = summarize([case], options.unit)
        if options.figure:
            _draw(options.figure, several)
        if options.csv:
            jsonfile.write_text(options.csv, _csv(several))
    if options.out:
        jsonfile.write(options.out, figures)


def _draw(path: Path, figures: Mapping[str, Any]) -> None:
    if not figures["labels"]:
        raise SpadError(
            "There is no label in prediction or reference, so there is nothing to draw."
        )
    from spad.evaluation.organ_figure import organ_figure

    picture = organ_figure(figures)
    replace_files([path], lambda files: picture.savefig(files[0], facecolor="white"))


def _csv(figures: Mapping[str, Any]) -> str:
    """Case, label, figures, and the interval's ends where a mean over cases has one."""
    ends = [f"{figure}_{end}" for figure in HEADER for end in ("low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "label", *HEADER, *ends])
    for case in figures["cases"]:
        for label, row in {**case["labels"], MEAN: case["mean"]}.items():
            cells = [*(row[figure] for figure in HEADER), *(None for _ in ends)]
            writer.writerow([case["case"], label, *cells])
    intervals = figures["intervals"]
    ranges = {**intervals["labels"], MEAN: intervals["mean"]}
    for label, row in {**figures["labels"], MEAN: figures["mean"]}.items():
        bounds = [bound for figure in HEADER for bound in ranges[label][figure] or (None, None)]
        writer.writerow([MEAN, label, *(row[figure] for figure in HEADER), *bounds])
    return text.getvalue()


def _readable(figures: Mapping[str, Any]) -> str:
    unit = "voxels" if figures["unit"] == "voxel" else "mm"
    text = [_table("label", {**figures["labels"], MEAN: figures["mean"]}, unit, number)]
    if "cases" in figures:
        cases = {case["case"]: case["mean"] for case in figures["cases"]}
        text.insert(0, _table("case", cases, unit, number))
        if len(cases) > 1:
            text.append(_intervals(figures["intervals"], unit))
        text += [
            f"without a {partner}: {', '.join(names)}"
            for partner in ("reference", "prediction")
            if (names := figures[f"without_{partner}"])
        ]
    return "\n\n".join(text)


def _intervals(intervals: Mapping[str, Any], unit: str) -> str:
    title = (
        f"{100 * intervals['confidence']:g} % intervals of the means over the cases "
        f"({intervals['method']}, {intervals['resamples']} resamples, seed {intervals['seed']})"
    )
    rows = {**intervals["labels"], MEAN: intervals["mean"]}
    return f"{title}\n{_table('label', rows, unit, _range)}"


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else " to ".join(number(end) for end in interval)


def _table(
    first: str, rows: Mapping[str, Mapping[str, Any]], unit: str, cell: Callable[[Any], str]
) -> str:
    names = ["Dice", *(f"{name} {unit}" for name in ("ASSD", "HD", "HD95", "NSD 1", "NSD 3"))]
    return table(
        [first, *names],
        [[name, *(cell(row[figure]) for figure in HEADER)] for name, row in rows.items()],
    )
