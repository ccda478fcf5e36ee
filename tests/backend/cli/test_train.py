"""`spad train`, `spad resume` and `spad runs`: options, ends, and what they print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import spad
from spad.cli import Parser
from spad.cli.train import add_options, take_overrides
from spad.phantoms import phantom
from spad.training.recipe import FOLDER

from .conftest import Command, assert_one_line, files_in

SMALL = (
    *("--model.channels", "[8, 8, 8]", "--model.codes", 16, "--data.tokens", "[3, 2]"),
    *("--precision", "float32"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with two phantom scans and their labels."""
    folder = tmp_path_factory.mktemp("data")
    for number in (1, 2):
        made = phantom(number, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64))
        spad.write(made.image, folder / f"img{number:04d}.nii.gz")
    return folder


def test_help_names_every_recipe() -> None:
    parser = Parser("spad train", "")
    add_options(parser)
    (words,) = (one.help for one in parser._actions if one.dest == "recipe")
    assert words is not None
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    assert names == set(words.replace(", or a YAML file", "").split(", "))


class TestOverrides:
    @staticmethod
    def split(*arguments: str) -> tuple[dict[str, str], list[str]]:
        parser = Parser("spad train", "")
        add_options(parser)
        return take_overrides(parser, list(arguments))

    @pytest.mark.parametrize(
        "words", [("--optimiser.lr", "3e-4"), ("--optimiser.lr=3e-4",)], ids=["apart", "joined"]
    )
    @pytest.mark.parametrize("place", [0, 1, 3])
    def test_anywhere(self, words: tuple[str, ...], place: int) -> None:
        rest = ["tokenizer", "--data", "folder", "--out", "run"]
        overrides, left = self.split(*rest[:place], *words, *rest[place:])
        assert overrides == {"optimiser.lr": "3e-4"}
        assert left == rest

    def test_negative_numbers_are_values(self) -> None:
        assert self.split("--a", "-1", "--b", "-.5")[0] == {"a": "-1", "b": "-.5"}

    def test_values_of_options_are_left_alone(self) -> None:
        assert self.split("--out", "--odd", "--a", "1") == ({"a": "1"}, ["--out", "--odd"])

    @pytest.mark.parametrize("words", [["--a"], ["--a", "--b", "1"], ["--a", "-x"]])
    def test_value_is_needed(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            self.split(*words)
        assert end.value.code == 2
        assert "--a needs a value" in capsys.readouterr().err


class TestTrain:
    def test_run_is_made_and_printed_last(
        self, command: Command, data: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        end = command("train", "tokenizer", "--data", data, "--out", run, "--steps", 2, *SMALL)
        assert end.code == 0, end.err
        assert end.out.splitlines()[-1] == str(run)
        assert "reading" in end.err
        (found,) = json.loads(command("runs", tmp_path, "--json").out)
        assert found["path"] == str(run)
        assert (found["state"], found["step"]) == ("finished", 2)
        assert "finished" in command("runs", tmp_path).out
        assert command("models", "show", run).code == 0

    def test_unknown_key(self, command: Command, data: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        end = command("train", "tokenizer", "--data", data, "--out", run, "--optimizer.lr", "1")
        assert_one_line(end, 2)
        assert "'optimizer'" in end.err
        assert files_in(tmp_path) == set()

    @pytest.mark.parametrize(
        "options",
        [
            ("tokeniser",),
            ("tokenizer", "--preset", "huge"),
            ("tokenizer", "--steps", "0"),
            ("tokenizer", "--steps", "1", "--minutes", "1"),
            ("tokenizer", "--minutes", "nan"),
            ("tokenizer", "--data", "nowhere"),
            ("tokenizer", "--init", "nothing"),
        ],
        ids=lambda options: " ".join(options),
    )
    def test_wrong_options(
        self, command: Command, data: Path, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        end = command("train", *options, "--data", data, "--out", tmp_path / "run")
        assert end.code == 2
        assert "Traceback" not in end.err
        assert end.err.splitlines()[-1].startswith("spad train: ")
        assert files_in(tmp_path) == set()

    def test_interrupt(self, data: Path, home: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        words = ("train", "tokenizer", "--data", data, "--out", run, "--steps", 100000, *SMALL)
        environment = os.environ | {
            "SPAD_HOME": str(home),
            "PYTHONPATH": str(Path(spad.__file__).parents[1]),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "spad", *map(str, words)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            metrics, end = run / "metrics.jsonl", time.monotonic() + 120
            while not (metrics.is_file() and metrics.stat().st_size):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert "interrupted" in errors.splitlines()[-1]
        assert (run / "checkpoints" / "last").is_file()


class TestResumeAndRuns:
    def test_no_run(self, command: Command, tmp_path: Path) -> None:
        assert_one_line(command("resume", tmp_path), 2)
        assert_one_line(command("resume", tmp_path / "nowhere"), 2)

    def test_no_runs(self, command: Command, tmp_path: Path) -> None:
        assert json.loads(command("runs", tmp_path, "--json").out) == []
        assert "no runs" in command("runs", tmp_path).out
        assert "no runs" in command("runs").out

    def test_folder_that_is_not_there(self, command: Command, tmp_path: Path) -> None:
        assert_one_line(command("runs", tmp_path / "nowhere"), 2)
