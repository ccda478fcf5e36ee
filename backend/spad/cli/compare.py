"""`spad compare WHAT --data PATH --out DIR`: train in several ways on equal data; one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spad.cli.options import whole
from spad.cli.progress import progress_of
from spad.cli.tables import number, table
from spad.cli.train import count, minutes, take_overrides

if TYPE_CHECKING:
    from spad.training.compare.tokenizers import Row

__all__ = ["add_options", "run", "take_overrides"]

_HEADER = {
    "codes_used": ("codes used", 0),
    "most_over_least": ("most / least", 1),
    "perplexity": ("perplexity", 1),
    "usage_entropy": ("H(mean p)", 3),
    "mean_entropy": ("mean H(p)", 3),
    "position_information": ("position", 3),
    "l1": ("L1", 4),
    "psnr": ("PSNR", 2),
    "adversarial_weight": ("GAN weight", 4),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "Any other --key value sets that key of the recipe for every row. The same command once "
        "more keeps the rows that are done and goes on with the others."
    )
    parser.add_argument("what", metavar="WHAT", choices=_WHAT, help=", ".join(_WHAT))
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a folder of scans, some kept for validation; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the runs and the table"
    )
    parser.add_argument("--preset", help="size of the model: tiny, small or base")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--steps", type=count, metavar="N", help="of each row")
    until.add_argument("--minutes", type=minutes, metavar="M", help="of each row")
    parser.add_argument(
        "--seed", type=whole, default=0, metavar="S", help="of each tokenizer (default: 0)"
    )
    of_segmenters = parser.add_argument_group("segmentation and pretraining")
    add = of_segmenters.add_argument
    add("--rows", nargs="+", metavar="ROW", help="what to train (default: all)")
    add("--ratios", nargs="+", type=share, metavar="R", help="shares of the labelled scans")
    add("--seeds", nargs="+", type=whole, metavar="S", help="runs of each row (default: 0)")
    add("--recipe", default="segmentation", help="default: %(default)s")
    add("--init", metavar="MODEL", help="where the row 'pretrained' starts (default: mim-tiny)")
    add("--eva02", type=Path, metavar="FILE", help="2D weights of EVA-02 (default: random ones)")
    add("--jobs", type=count, default=1, metavar="N", help="runs trained at once (default: 1)")


def share(text: str) -> float:
    """Read a share above 0 and at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share above 0 and at most 1")
    return number


def run(options: argparse.Namespace) -> None:
    """Train each row and print the table."""
    _WHAT[options.what](options)


def _segmenters(options: argparse.Namespace) -> None:
    from spad.training.compare import tables
    from spad.training.compare.arms import ARMS
    from spad.training.compare.segmentation import Choices, compare_segmentation

    rows, ratios = _SEGMENTERS[options.what]
    choices = Choices(
        rows=options.rows or rows or list(ARMS),
        ratios=options.ratios or ratios,
        seeds=options.seeds or [0],
        recipe=options.recipe,
        preset=options.preset,
        steps=options.steps,
        minutes=options.minutes,
        pretrained=options.init or "mim-tiny",
        eva02=options.eva02,
        jobs=options.jobs,
        overrides=options.overrides,
    )
    with progress_of("compare") as progress:
        found = compare_segmentation(
            options.data, options.out, choices, what=options.what, progress=progress
        )
    print(table(tables.HEADER, tables.cells(found.summary)))
    print("\n".join(found.sentences), end="\n" if found.sentences else "")
    print(options.out)


def _tokenizers(options: argparse.Namespace) -> None:
    from spad.training.compare.tokenizers import compare_tokenizers

    with progress_of("compare") as progress:
        rows = compare_tokenizers(
            options.data,
            options.out,
            preset=options.preset,
            steps=options.steps,
            minutes=options.minutes,
            seed=options.seed,
            overrides=options.overrides,
            progress=progress,
        )
    print(_readable(rows))
    print(options.out)


def _readable(rows: list[Row]) -> str:
    lines = [
        [
            row.name,
            str(row.steps),
            *(number(row.figures[name], digits) for name, (_, digits) in _HEADER.items()),
            "yes" if row.diverged else "no",
        ]
        for row in rows
    ]
    header = ["row", "steps", *(words for words, _ in _HEADER.values()), "diverged"]
    said = [
        f"{row.name}: {sentence}"
        for row in rows
        for sentence in (row.message, row.alarm)
        if sentence
    ]
    return "\n".join([table(header, lines), *said])


_WHAT = {
    "tokenizers": _tokenizers,
    "segmentation": _segmenters,
    "pretraining": _segmenters,
}
_SEGMENTERS: dict[str, tuple[list[str], list[float]]] = {
    "segmentation": ([], [1.0]),
    "pretraining": (["scratch", "pretrained"], [0.2, 0.4, 0.6, 0.8, 1.0]),
}
"""The rows (none: all) and label ratios that are compared unless others are given."""
