"""`spad prepare SOURCE STORE`: a data set becomes a store that training reads crop by crop."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from spad.cli.options import whole
from spad.cli.progress import progress_of
from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.data.store import Store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "Run again, it makes what is missing or has changed. A second data set may go into the "
        "same store. `spad prepare STORE --check` compares a store with its checksums."
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a folder tree of scans (CHAOS, BTCV and nnU-Net raw as they are), a MONAI datalist "
        "(.json), or a manifest: a CSV file with the column image and any of "
        "labels, data_set, patient, modality, orientation, weight, part",
    )
    parser.add_argument(
        "store", type=Path, nargs="?", metavar="STORE", help="the folder of the store"
    )
    parser.add_argument(
        "--data-set",
        metavar="NAME",
        help="take all of SOURCE as this data set; of those that SPAD-Nets were trained on "
        "(BraTS2023-GLI, LIDC-IDRI, ...) orientation and weight are known",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="the terms of SOURCE; they go into the store's report"
    )
    parser.add_argument(
        "--side",
        type=_positive,
        default=512,
        metavar="N",
        help="most voxels of the shorter side in plane (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="scans that are worked on at the same time (default: one per core, at most 8)",
    )
    parser.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="S",
        help="of the choice of scans kept for validation (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="only compare checksums")


def run(options: argparse.Namespace) -> int:
    """Prepare, report, and print the store's path last; or check."""
    if options.check:
        return _check(options.store or options.source)
    if options.store is None:
        raise SpadError("STORE is missing; expected the folder of the store; name one.")
    from spad.cli.store_page import write_page
    from spad.data.store_writer import prepare_store

    with progress_of("prepare") as progress:
        done = prepare_store(
            options.source,
            options.store,
            data_set=options.data_set,
            licence=options.licence,
            side=options.side,
            jobs=options.jobs or min(8, os.cpu_count() or 1),
            seed=options.seed,
            progress=progress,
        )
    page = write_page(done.store)
    for one in done.left_out:
        print(f"left out {one.source}: {one.reason}")
    print(_summary(done.store, done.written, len(done.left_out)))
    print(f"report: {page}")
    print(options.store)
    return 0


def _summary(store: Store, written: int, left_out: int) -> str:
    parts = [row.part for row in store.rows]
    return (
        f"{len(parts)} volumes, {written} of them made now: {parts.count('train')} for training, "
        f"{parts.count('validation')} for validation, {parts.count('aside')} aside; "
        f"{left_out} left out"
    )


def _check(path: Path) -> int:
    from spad.data.store import open_store, verify

    store = open_store(path)
    bad: list[str] = []
    with progress_of("check") as progress:
        for number, (row, problem) in enumerate(verify(store), 1):
            if problem:
                bad.append(f"{row.key}: {problem}")
            progress(number / len(store.rows), row.key)
    if bad:
        print("\n".join(bad))
        raise SpadError(
            f"{len(bad)} of {len(store.rows)} volumes of {path} are damaged; expected what their "
            "checksums say; remove their folders and run `spad prepare` again."
        )
    print(f"{len(store.rows)} volumes are as they were written")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
