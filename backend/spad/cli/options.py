"""Options that several commands share, and the checks of where results go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spad.errors import SpadError


def add_model_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Add `--model`, `--device` and `--seed`.

    Args:
        parser: gets the options.
        several: whether `--model` may be given once for each kind of model.
    """
    text = "a name of `spad models list` or a model file"
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append" if several else "store",
        help=f"{text}; once for each kind of model" if several else text,
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=whole, default=0, metavar="S", help="of random choices (default: 0)"
    )


def add_scan_options(parser: argparse.ArgumentParser) -> None:
    """Add `--series` and `--spacing`, which say how a scan is to be read."""
    parser.add_argument(
        "--series",
        metavar="UID",
        help="which series of a DICOM folder that holds several (`spad info FOLDER` lists them)",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs="+",
        metavar="MM",
        help="voxel spacing along x, y (and z), for files that state none (.npy, pictures)",
    )


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """Give what `add_scan_options` took as keyword arguments of `read`."""
    spacing = None if options.spacing is None else tuple(options.spacing)
    return {"series": options.series, "spacing": spacing}


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Add `--report JSON`."""
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="also write every figure to this JSON file"
    )


def whole(text: str) -> int:
    """Parse a whole number that is not negative (an argparse type)."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def seed_everything(seed: int) -> None:
    """Seed torch's generators, so that the same command gives the same result."""
    import torch

    torch.manual_seed(seed)


def check_outputs(
    files: Iterable[Path],
    report: Path | None = None,
    inputs: Iterable[Path] = (),
    new_folder: Path | None = None,
) -> None:
    """Refuse, before any work, results that cannot or must not be written where they should go.

    Args:
        files: volumes that are going to be written.
        report: a JSON file that is going to be written, if any.
        inputs: files that are read and must stay as they are.
        new_folder: a folder for results that may still have to be made.

    Raises:
        SpadError: if a folder is missing, a name is taken by a folder or by an input, two results
            have one name, or a name's ending is no format that can be written.
    """
    from spad.volumes.files import WRITABLE_SUFFIXES, suffix_of

    files, inputs = list(files), list(inputs)
    for path in files:
        if suffix_of(path) not in WRITABLE_SUFFIXES:
            raise SpadError(
                f"{path} cannot be written; expected a name that ends in "
                f"{', '.join(WRITABLE_SUFFIXES)}."
            )
    for path in [*files, report] if report else files:
        check_place(path, inputs, new_folder)
    if report and any(report.absolute() == path.absolute() for path in files):
        raise SpadError(f"{report} is named twice, as result and as report; give two names.")


def check_place(path: Path, inputs: Iterable[Path] = (), new_folder: Path | None = None) -> None:
    """Refuse one file that cannot be written where it should go, or that is an input."""
    if path.is_dir():
        raise SpadError(f"{path} is a folder; the name of a file was expected.")
    if not path.parent.is_dir() and path.parent != new_folder:
        raise SpadError(
            f"{path} cannot be written, because the folder {path.parent} does not exist; "
            "make the folder first or choose another place."
        )
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        raise SpadError(
            f"{path} cannot be written, because the folder {path.parent} is read-only; "
            "choose another place."
        )
    if path.exists() and any(source.exists() and path.samefile(source) for source in inputs):
        raise SpadError(
            f"{path} is also the input, which stays as it is; choose another name for the result."
        )
