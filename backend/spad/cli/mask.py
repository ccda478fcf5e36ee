"""`spad mask SCAN --out REC`: hide tokens of a scan and let the model fill them in."""

from __future__ import annotations

import argparse
from pathlib import Path

from spad import jsonfile
from spad.cli.options import (
    add_model_options,
    add_report_option,
    add_scan_options,
    check_outputs,
    reading,
)
from spad.cli.progress import progress_of
from spad.cli.tables import number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scan", type=Path, metavar="SCAN", help="a scan that spad can read")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="REC", help="file for the filled-in scan"
    )
    parser.add_argument(
        "--ratio", type=float, default=0.55, help="share of the tokens to hide (default: 0.55)"
    )
    parser.add_argument(
        "--paint",
        type=Path,
        metavar="LABELS",
        help="labels on the scan's grid: hide the tokens under them, instead of a random choice",
    )
    add_scan_options(parser)
    add_report_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Hide, fill in, write and say how well it went."""
    inputs = [options.scan] + ([options.paint] if options.paint else [])
    check_outputs([options.out], options.report, inputs)
    from spad.volumes.files import read, write

    scan = read(options.scan, **reading(options))
    paint = read(options.paint, labels=True) if options.paint else None
    from spad.inference.tokens import mask

    with progress_of("mask") as progress:
        result = mask(
            scan,
            model=options.model,
            ratio=options.ratio,
            seed=options.seed,
            paint=paint,
            device=options.device,
            progress=progress,
        )
    write(result.reconstruction, options.out)
    report = result.report
    if options.report:
        jsonfile.write(options.report, report)
    print(
        f"{options.out}: {report['masked']} tokens hidden, {report['visible']} visible, "
        f"cross-entropy {number(report['cross_entropy'])} nats "
        f"(mean of all tokens {number(report['baseline_mean'])}), "
        f"mean error {number(report['l1_masked'], 1)} {report['l1_unit']} where hidden"
    )
