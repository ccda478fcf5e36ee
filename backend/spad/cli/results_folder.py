"""A folder of results: written beside, then moved in whole; files of other names there stay."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spad.errors import SpadError


def check_folder(folder: Path, what: str) -> None:
    """Refuse a place where no folder can be made, before any work is done.

    Args:
        folder: where the results shall go.
        what: they are, for the sentence, such as "the results".

    Raises:
        SpadError: there is a file, or no folder above it.
    """
    if folder.exists() and not folder.is_dir():
        raise SpadError(f"{folder} is a file; {what} needs a folder as --out.")
    if not folder.absolute().parent.is_dir():
        raise SpadError(f"The folder {folder.parent} of {folder} does not exist; make it first.")


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside, then move what it wrote in.

    Raises:
        SpadError: the folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".spad-", dir=folder.absolute().parent) as name:
            part = Path(name)
            write(part)
            for file in sorted(part.rglob("*")):
                if file.is_file():
                    target = folder / file.relative_to(part)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
    except OSError as error:
        raise SpadError(
            f"{folder} cannot be written ({error.strerror or error}); "
            "expected a folder with free space: choose another place with --out."
        ) from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table whose columns are the keys of its first row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
