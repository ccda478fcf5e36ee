"""`spad runs [DIR]`: training runs and how they stand."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad import jsonfile
from spad.cli.tables import table

if TYPE_CHECKING:
    from spad.training.runs import RunInfo


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="default: the runs of this user"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """List the runs, the newest first."""
    from spad.checkpoints.zoo import spad_home
    from spad.errors import SpadError
    from spad.training.runs import list_runs

    folder = options.folder or spad_home() / "runs"
    if options.folder and not folder.is_dir():
        raise SpadError(f"{folder} is not a folder; expected one that holds training runs.")
    runs = list_runs(folder)
    if options.json:
        print(jsonfile.dumps([_plain(info) for info in runs]))
    else:
        print(_readable(runs) if runs else f"There are no runs in {folder}.")


def _plain(info: RunInfo) -> dict[str, Any]:
    return {
        "path": info.path,
        "recipe": info.recipe,
        "created": info.created,
        **info.state.to_json(),
    }


def _readable(runs: list[RunInfo]) -> str:
    rows = [
        [
            str(info.path),
            info.recipe,
            info.state.state,
            str(info.state.step),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(info.created)),
            info.state.message,
        ]
        for info in runs
    ]
    return table(["run", "recipe", "state", "step", "created", "message"], rows, right=[3])
