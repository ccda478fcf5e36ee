"""`spad evaluate-clicks DATA`: how good labels get, click by click, by a robot user."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.cli.options import add_model_options, check_place, seed_everything, whole
from spad.cli.progress import progress_of
from spad.cli.tables import number, table
from spad.errors import SpadError

PROTOCOLS = ("automatic", "empty", "box")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "data", type=Path, nargs="+", metavar="DATA", help="folders of scans with labels"
    )
    parser.add_argument(
        "--clicks",
        type=whole,
        nargs="+",
        default=[1, 3, 5, 10],
        metavar="N",
        help="numbers of clicks in the printed table; the largest is how many there are "
        "(default: 1 3 5 10)",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[],
        metavar="ID",
        help="which scans (default: those kept for validation)",
    )
    parser.add_argument(
        "--labels", nargs="+", default=[], metavar="NAME", help="which labels (default: all)"
    )
    parser.add_argument(
        "--from",
        dest="protocol",
        choices=PROTOCOLS,
        default="automatic",
        help="start from the automatic organ, from nothing (and without it as a hint), or from a "
        "box in 3D (default: %(default)s)",
    )
    parser.add_argument(
        "--no-features",
        action="store_true",
        help="let the decoder see the scan and the prompts alone",
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the figures here")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="also write Dice and NSD after each click"
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Click, print a table and write the figures."""
    for path in (options.out, options.csv):
        if path is not None:
            check_place(path, options.data)
    from spad.evaluation.robot import Robot, robot_user

    if options.no_features and options.protocol == "automatic":
        raise SpadError(
            "An automatic start needs the segmenter's features; leave out --no-features or start "
            "with --from empty or --from box."
        )
    seed_everything(options.seed)
    robot = Robot(max(options.clicks), options.protocol, not options.no_features)
    with progress_of("evaluate-clicks") as progress:
        found = robot_user(
            options.data,
            options.model,
            robot,
            cases=options.cases,
            labels=options.labels,
            device=options.device,
            progress=progress,
        )
    if options.out:
        jsonfile.write(options.out, found)
    if options.csv:
        _write_csv(options.csv, found)
    print(_readable(found, sorted({0, *options.clicks})))


def _write_csv(path: Path, found: dict[str, Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "label", "clicks", "dice", "nsd_1mm", "seconds"])
        for row in found["cases"]:
            for n, values in enumerate(zip(row["dice"], row["nsd"], row["seconds"], strict=True)):
                writer.writerow([row["case"], row["label"], n, *values])


def _readable(found: dict[str, Any], clicks: list[int]) -> str:
    rows = [
        [name, *(number(dice[str(n)], 3) for n in clicks)] for name, dice in found["labels"].items()
    ]
    mean = found["mean"]
    rows += [
        [f"mean {figure}", *(number(mean[str(n)][figure], 3) for n in clicks)]
        for figure in ("dice", "nsd", "seconds")
    ]
    head = ["label", *(f"{n} clicks" for n in clicks)]
    first = f"Dice after n clicks of {found['model']}, starting from: {found['protocol']}."
    last = (
        f"Area under the curve over {min(5, max(clicks))} clicks: Dice {found['dice_auc']:.3f}, "
        f"NSD {found['nsd_auc']:.3f}. Dice 0.90 reached for {100 * found['reached_0_90']:.0f} % of "
        "the objects."
    )
    return "\n".join([first, table(head, rows), last])
