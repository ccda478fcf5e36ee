"""`spad evaluate-tokenizer DATA --out DIR`: figures, tables and pictures over data sets."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad import jsonfile
from spad.cli.options import add_model_options, seed_everything, whole
from spad.cli.progress import progress_of
from spad.cli.results_folder import check_folder, write_csv, write_folder
from spad.cli.tables import number, table
from spad.cli.tokenizer_page import MET, group_name
from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.evaluation.tokenizers import Judgement

REPORT, PAGE = "report.json", "report.html"
CASES, SUMMARY, USAGE = "cases.csv", "summary.csv", "usage.csv"
FIGURES = ("grid", "usage")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "data",
        type=Path,
        nargs="*",
        metavar="DATA",
        help="folders of scans (img<ID>.nii.gz with split.json, or any readable scans), or scans",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--cases",
        choices=("validation", "all"),
        default="validation",
        help="which scans of a folder with a split.json (default: %(default)s)",
    )
    parser.add_argument(
        "--phantoms",
        type=whole,
        default=0,
        metavar="N",
        help="also N made-up scans each of radiography, ultrasound and colour photography",
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Judge, write the folder and print what was found."""
    check_folder(options.out, "what is found")
    if not options.data and not options.phantoms:
        raise SpadError("There is nothing to judge by; give DATA, or --phantoms N, or both.")
    from spad.evaluation.scans import phantom_scans, scans_of
    from spad.evaluation.tokenizers import judge

    seed_everything(options.seed)
    scans = scans_of(options.data, options.cases) + phantom_scans(options.phantoms, options.seed)
    with progress_of("evaluate-tokenizer") as progress:
        found = judge(scans, options.model, options.device, progress)
    write_folder(options.out, lambda folder: _write_files(found, folder))
    print(_readable(found.report))
    print(f"\nThe report page is {options.out / PAGE}")


def _write_files(found: Judgement, folder: Path) -> None:
    from spad.cli.tokenizer_page import page
    from spad.evaluation.figures import save
    from spad.evaluation.tokenizer_figures import grid_figure, sorted_usage_figure

    report = found.report
    jsonfile.write(folder / REPORT, report)
    write_csv(folder / CASES, [_flat(case) for case in report["cases"]])
    write_csv(folder / SUMMARY, [_flat(group) for group in report["groups"]])
    columns = {name: shares.tolist() for name, shares in found.usage.items()}
    codes = range(len(columns["all"]))
    usage = [{"code": n, **{name: column[n] for name, column in columns.items()}} for n in codes]
    write_csv(folder / USAGE, usage)
    groups = {g["name"]: g for g in report["groups"] if g["group"] in ("all", "modality")}
    drawn = (grid_figure(found.rows), sorted_usage_figure(found.usage, groups))
    pictures = {
        name: save(figure, folder / f"{name}.png")
        for name, figure in zip(FIGURES, drawn, strict=True)
    }
    (folder / PAGE).write_text(page(report, pictures), encoding="utf-8")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row of a table: `trilinear_psnr`, a grid as `8x16x16`, nothing where undefined."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}_{inner}": one for inner, one in _flat(value).items()}
        elif isinstance(value, list):
            flat[key] = "x".join(map(str, value))
        else:
            undefined = isinstance(value, float) and not math.isfinite(value)
            flat[key] = None if undefined else value
    return flat


def _readable(report: Mapping[str, Any]) -> str:
    images = table(
        ["", "scans", "L1", "PSNR", "SSIM", "L1 / trilinear", "L1 / 16 DCT"],
        [
            [
                *(group_name(group), str(group["cases"])),
                *(number(group[key], n) for key, n in (("l1", 2), ("psnr", 2), ("ssim", 3))),
                *(number(group[key]) for key in ("l1_to_trilinear", "l1_to_dct16")),
            ]
            for group in report["groups"]
        ],
    )
    aims = table(
        ["aim", "found", "bound", "met"],
        [
            [aim["aim"], number(aim["found"]), number(aim["bound"]), MET[aim["met"]]]
            for aim in report["aims"]
            if aim["group"] == "all"
        ],
    )
    left_out = [f"left out: {case['case']}: {case['reason']}" for case in report["left_out"]]
    return "\n\n".join([images, aims, *(["\n".join(left_out)] if left_out else [])])
