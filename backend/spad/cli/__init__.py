"""The `spad` command: finds the chosen command, runs it and turns its end into an exit code.

Exit codes: 0 done, 2 the input or the options are wrong, 130 interrupted, 1 our fault. One module
per command; only the chosen one is imported, and torch only once its options have been read.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from spad.cli.failures import exit_code_of

COMMANDS = {
    "demo": "run everything on a sample scan and write a report page",
    "info": "tell what a scan is: grid, spacing, orientation, modality",
    "convert": "write a scan or labels in another format, on the same grid",
    "prepare": "bring a data set into a store for training",
    "train": "train a model on your data",
    "resume": "go on with a stopped training run, exactly where it was",
    "runs": "list training runs",
    "tokenize": "reconstruct a scan from its tokens",
    "mask": "hide tokens of a scan and let the model fill them in",
    "segment": "label the organs of scans",
    "evaluate": "compare labels with a reference",
    "evaluate-clicks": "let a robot user click, and tell how good labels get click by click",
    "evaluate-tokenizer": "judge a tokenizer over data sets: figures, tables and pictures",
    "compare": "train in several ways on equal data and put the figures in one table",
    "replay": "make the labels of a session again",
    "models": "list, show, import and export models",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that answers wrong options with one line and never abbreviates."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `spad` on the command line; None takes it from there.

    Returns:
        The exit code: 0, 1, 2 or 130.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files and labels are any text
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else ""
    if name in COMMANDS:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # python -W shows what libraries have to say to developers
                warnings.simplefilter("ignore")
            return exit_code_of(f"spad {name}", lambda: _run(name, given[1:]))
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        return exit_code_of("spad", _print_version)
    found = f"there is no command {name!r}" if name else "a command is missing"
    print(f"spad: {found}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
    return 2


def _run(name: str, arguments: list[str]) -> int | None:
    module = import_module(f"spad.cli.{name.replace('-', '_')}")
    parser = Parser(f"spad {name}", _sentence(COMMANDS[name]))
    module.add_options(parser)
    if hasattr(module, "take_overrides"):
        overrides, arguments = module.take_overrides(parser, arguments)
        parser.set_defaults(overrides=overrides)
    options = parser.parse_args(arguments)
    code: int | None = module.run(options)
    return code


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: spad COMMAND [OPTIONS]",
            "",
            "Spatially adaptive tokens for medical scans: look inside, label organs, train.",
            "",
            *lines,
            "",
            "`spad COMMAND --help` shows a command's options; `spad --version` the version.",
        ]
    )


def _print_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    from spad.errors import SpadError

    try:
        print(f"spad {version('napari-spad')}")
    except PackageNotFoundError:
        raise SpadError(
            "The version is not known, because the package napari-spad is not installed; "
            "install it with pip."
        ) from None


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
