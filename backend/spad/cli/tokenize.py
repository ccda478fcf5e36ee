"""`spad tokenize SCAN --out REC`: what is left of a scan after the visual tokenizer."""

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
    seed_everything,
)
from spad.cli.progress import progress_of
from spad.cli.tables import number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scan", type=Path, metavar="SCAN", help="a scan that spad can read")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="REC", help="file for the reconstruction"
    )
    add_scan_options(parser)
    add_report_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Reconstruct, write and say how good it is."""
    check_outputs([options.out], options.report, [options.scan])
    from spad.volumes.files import read, write

    scan = read(options.scan, **reading(options))
    from spad.inference.tokens import tokenize

    seed_everything(options.seed)
    with progress_of("tokenize") as progress:
        result = tokenize(scan, model=options.model, device=options.device, progress=progress)
    write(result.reconstruction, options.out)
    if options.report:
        jsonfile.write(options.report, result.report)
    report = result.report
    print(
        f"{options.out}: PSNR {number(report['psnr'], 2)} dB, SSIM {number(report['ssim'])}, "
        f"{report['codes_used']} codes used, perplexity {number(report['perplexity'], 1)}"
    )
