"""`spad train RECIPE --data PATH --out RUN`: train a model on one's own data."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from spad.checkpoints import zoo
from spad.cli.options import whole
from spad.cli.progress import progress_of

_NUMBER = re.compile(r"-[\d.]")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "Any other --key value sets that key of the recipe; a dot goes one level down "
        "(--optimiser.lr 3e-4)."
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="tokenizer, mim, segmentation, organs, btcv, chaos, folder, clicks, improve, or a "
        "YAML file",
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="scans with labels: a folder of pairs (img<ID> and label<ID>, <case> and <case>_seg, "
        "images and labels), BTCV or CHAOS as downloaded, nnU-Net raw, a MONAI datalist (.json), "
        "or a store of 'spad prepare'; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder for the run, a new one"
    )
    parser.add_argument("--preset", help="size of the model: tiny, small or base")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--steps", type=count, metavar="N", help="stop after N steps")
    until.add_argument("--minutes", type=minutes, metavar="M", help="stop after M minutes")
    parser.add_argument("--seed", type=whole, default=0, metavar="S", help="default: %(default)s")
    parser.add_argument("--init", metavar="MODEL", help="start from this model's weights")


def take_overrides(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Take the `--key value` pairs that no option claims out of the arguments.

    They are taken out beforehand, since argparse would mistake their values for RECIPE.

    Returns:
        The overrides, key to value, and the arguments that are left.
    """
    known = {option for action in parser._actions for option in action.option_strings}
    overrides: dict[str, str] = {}
    left: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        key, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--" or key in known:
            left.append(word)
            if key in known and not equals and waiting and word not in ("-h", "--help"):
                left.append(waiting.pop(0))
            continue
        if not equals:
            if not waiting or (waiting[0].startswith("-") and not _NUMBER.match(waiting[0])):
                parser.error(f"the option {key} needs a value")
            value = waiting.pop(0)
        overrides[key.removeprefix("--")] = value
    return overrides, left


def run(options: argparse.Namespace) -> None:
    """Train; print the run's path last."""
    if options.init:
        zoo.find(options.init)  # a wrong name is answered at once and leaves no run behind
    from spad.training.ranks import leads_here
    from spad.training.start import train

    with progress_of("train") as progress:
        path = train(
            options.recipe,
            data=options.data,
            out=options.out,
            preset=options.preset,
            steps=options.steps,
            minutes=options.minutes,
            seed=options.seed,
            init=options.init,
            overrides=options.overrides,
            progress=progress,
        )
    if leads_here():
        print(path)


def count(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def minutes(text: str) -> float:
    """Read a time in minutes."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return number
