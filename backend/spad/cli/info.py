"""`spad info SCAN`: what a scan is."""

from __future__ import annotations

import argparse
from typing import Any

from spad import jsonfile
from spad.cli.tables import pairs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scan", metavar="SCAN", help="a scan that spad can read")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Describe the scan."""
    from spad.volumes.info import describe

    facts = describe(options.scan)
    print(jsonfile.dumps(facts) if options.json else _readable(facts))


def _readable(facts: dict[str, Any]) -> str:
    return pairs([(name.replace("_", " "), _text(value)) for name, value in facts.items()])


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
