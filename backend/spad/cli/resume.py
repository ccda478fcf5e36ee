"""`spad resume RUN`: go on with a stopped training run, exactly where it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from spad.cli.progress import progress_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of the run")


def run(options: argparse.Namespace) -> None:
    """Go on with the run; print its path last."""
    from spad.training.ranks import leads_here
    from spad.training.start import resume

    with progress_of("train") as progress:
        run = resume(options.run, progress=progress)
    if leads_here():
        print(run)
