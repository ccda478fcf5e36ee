"""The command as a whole: help, versions, wrong options and exit codes."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from pathlib import Path

import pytest

from spad import cli
from spad.cli import COMMANDS
from spad.cli.failures import exit_code_of
from spad.errors import Cancelled, SpadError

from .conftest import Command, assert_one_line


class TestHelp:
    def test_lists_every_command(self, command: Command) -> None:
        end = command("--help")
        assert end.code == 0
        assert all(f"  {name} " in end.out for name in COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_each_command(self, command: Command, name: str) -> None:
        end = command(name, "--help")
        assert end.code == 0
        assert end.out.startswith(f"usage: spad {name}")

    def test_of_one_command_loads_nothing_heavy_and_no_other_command(self) -> None:
        code = (
            "import sys; from spad.cli import main; main(['segment', '--help']); "
            "print(sorted(sys.modules))"
        )
        environment = {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        loaded = set(ast.literal_eval(found.stdout.splitlines()[-1]))
        assert "spad.cli.segment" in loaded
        assert not loaded & {"torch", "napari", "matplotlib", "nibabel", "scipy", "rich"}
        assert not loaded & {f"spad.cli.{name}" for name in COMMANDS if name != "segment"}


class TestWrongOptions:
    def test_no_command(self, command: Command) -> None:
        assert_one_line(command(), 2)

    def test_unknown_command(self, command: Command) -> None:
        end = command("segmet")
        assert_one_line(end, 2)
        assert "'segmet'" in end.err
        assert "segment" in end.err

    def test_unknown_option(self, command: Command, scan: Path) -> None:
        end = command("info", scan, "--jsn")
        assert_one_line(end, 2)
        assert "--jsn" in end.err

    def test_no_abbreviations(self, command: Command, scan: Path) -> None:
        assert_one_line(command("info", scan, "--js"), 2)

    def test_missing_argument(self, command: Command) -> None:
        end = command("info")
        assert_one_line(end, 2)
        assert "SCAN" in end.err

    @pytest.mark.parametrize("seed", ["-1", "x"])
    def test_bad_seed(self, command: Command, scan: Path, seed: str) -> None:
        assert_one_line(command("mask", scan, "--out", "x.nii.gz", "--seed", seed), 2)


class TestExitCodes:
    @staticmethod
    def ending_with(error: BaseException) -> int:
        def work() -> None:
            raise error

        return exit_code_of("spad test", work)

    def test_done(self) -> None:
        assert exit_code_of("spad test", lambda: None) == 0

    def test_our_errors(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.ending_with(SpadError("Found this;\n expected that.")) == 2
        assert capsys.readouterr().err == "spad test: Found this; expected that.\n"

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled()])
    def test_interrupted(self, error: BaseException) -> None:
        assert self.ending_with(error) == 130

    def test_our_fault(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.ending_with(ZeroDivisionError("oh")) == 1
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        details = Path(line.strip().split(" in ")[-1])
        assert "ZeroDivisionError: oh" in details.read_text()
        details.unlink()

    def test_full_disk(self, capsys: pytest.CaptureFixture[str]) -> None:
        full = OSError(errno.ENOSPC, "No space left on device", "/tmp/x.json")
        assert self.ending_with(full) == 2
        assert "/tmp/x.json: No space left on device" in capsys.readouterr().err
