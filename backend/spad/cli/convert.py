"""`spad convert SCAN OUT`: the same voxels on the same grid in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from spad.cli.options import add_scan_options, check_outputs, reading


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "scan", type=Path, metavar="SCAN", help="a scan or labels in any format that spad can read"
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="the file to write; its ending chooses the format"
    )
    add_scan_options(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--labels", action="store_const", const=True, default=None, help="SCAN holds labels"
    )
    kind.add_argument(
        "--image", action="store_const", const=False, dest="labels", help="SCAN holds no labels"
    )


def run(options: argparse.Namespace) -> None:
    """Read, write, and let the writer prove what it wrote."""
    check_outputs([options.out], inputs=[options.scan])
    from spad.volumes.files import read
    from spad.volumes.files.writer import write

    volume = read(options.scan, labels=options.labels, **reading(options))
    for note in volume.notes:
        print(note)
    files = write(volume, options.out)
    shape = " x ".join(str(n) for n in volume.source.shape)
    kind = "labels" if volume.is_labels else "image"
    for file in files:
        print(file)
    print(f"{kind}, {shape} voxels; reopened and compared: grid and voxels are the same")
