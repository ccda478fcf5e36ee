"""`spad info SCAN`: what a scan is."""

from __future__ import annotations

import argparse
from typing import Any

from spad import jsonfile
from spad.cli.options import add_scan_options, reading
from spad.cli.tables import pairs, table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scan", metavar="SCAN", help="a scan that spad can read, or a DICOM folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_scan_options(parser)


def run(options: argparse.Namespace) -> None:
    """Describe the scan."""
    from spad.volumes.info import describe

    facts = describe(options.scan, **reading(options))
    print(jsonfile.dumps(facts) if options.json else _readable(facts))


def _readable(facts: dict[str, Any]) -> str:
    series = facts.pop("series", [])
    text = pairs([(name.replace("_", " "), _text(value)) for name, value in facts.items()])
    return f"{text}\n\n{_list(series)}" if len(series) > 1 else text


def _list(series: list[dict[str, Any]]) -> str:
    columns = ("modality", "kind", "slices", "shape", "spacing", "description", "uid", "problem")
    rows = [[_text(one[name]) for name in columns] for one in series]
    return table(columns, rows, right=())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], (list, tuple)):
            return "; ".join(" ".join(_text(item) for item in row) for row in value)
        return " x ".join(_text(item) for item in value) if value else "-"
    return str(value)
