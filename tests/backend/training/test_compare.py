"""Comparisons of really trained small tokenizers: rows, the table, and what a second call keeps."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spad.data.samples import Batch
from spad.errors import SpadError
from spad.training import runs
from spad.training.compare import tokenizers as compare
from spad.training.compare.tokenizers import FIGURES, TOKENIZERS, Row, compare_tokenizers
from spad.training.tokenizer import TokenizerTask

from .conftest import SMALL

STEPS = 4
OPTIONS = {
    **SMALL["tokenizer"],
    "precision": "float32",
    "loss.critic_channels": "[16, 16, 16]",
    "schedule.log_every": "1",
    "schedule.validate_every": "2",
    "schedule.checkpoint_every": "2",
    "schedule.validation_batches": "4",
}


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    out = tmp_path_factory.mktemp("comparison") / "tokenizers"
    return out, compare_of(folder, out)


@pytest.fixture
def copy(done: tuple[Path, list[Row]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


def compare_of(folder: Path, out: Path, **more: Any) -> list[Row]:
    options = {"steps": STEPS, "overrides": OPTIONS, "preset": "tiny"} | more
    return compare_tokenizers([folder], out, **options)


def contents(out: Path) -> dict[str, Any]:
    return json.loads((out / "table.json").read_text())


def known(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.figures.items() if value is not None}


def times(out: Path) -> dict[str, int]:
    return {name: (out / name / "state.json").stat().st_mtime_ns for name in TOKENIZERS}


class TestRows:
    def test_each_is_a_run_that_was_trained(self, done: tuple[Path, list[Row]]) -> None:
        out, rows = done
        assert [row.name for row in rows] == list(TOKENIZERS)
        for row in rows:
            assert (row.steps, row.diverged, row.message) == (STEPS, False, "")
            assert runs.read_state(out / row.name).state == "finished"

    def test_they_differ_in_their_own_keys_alone(self, done: tuple[Path, list[Row]]) -> None:
        own = {key for keys in TOKENIZERS.values() for key in keys}
        first, *others = (flat(runs.read_recipe(done[0] / name)) for name in TOKENIZERS)
        for other in others:
            assert {key for key in first if first[key] != other.get(key)} <= own
        assert first["schedule.alarms"] is False
        assert first["loss.adversarial"] == 3e-3
        keys = runs.read_recipe(done[0] / "soft-both")
        assert keys["loss"]["divergence"] > 0
        assert keys["loss"]["entropy"] > 0

    def test_figures(self, done: tuple[Path, list[Row]]) -> None:
        for row in done[1]:
            assert set(row.figures) == set(FIGURES)
            used, perplexity = row.figures["codes_used"], row.figures["perplexity"]
            assert 1 <= used <= 32
            assert 1 <= perplexity <= 32.001
            assert row.figures["psnr"] > 0
            assert len(row.usage) == 32
            assert sum(row.usage) == pytest.approx(1, abs=1e-4)
            assert row.usage == sorted(row.usage, reverse=True)
        by_name = {row.name: row for row in done[1]}
        assert by_name["nearest"].figures["mean_entropy"] == 0
        assert by_name["soft"].figures["mean_entropy"] > 0
        assert by_name["soft-both"].figures["adversarial_weight"] == 0  # its gate is shut at first
        assert by_name["soft-both-adaptive"].figures["adversarial_weight"] > 0

    def test_equal_batches_give_equal_figures_as_the_run_had(
        self, done: tuple[Path, list[Row]]
    ) -> None:
        for row in done[1]:
            last = runs.read_metrics(done[0] / row.name).records[-1]
            assert last["phase"] == "validation"
            for name in ("l1", "psnr", "codes_used", "usage_entropy", "mean_entropy"):
                assert row.figures[name] == pytest.approx(last[name], rel=1e-4, abs=1e-6)

    def test_files(self, done: tuple[Path, list[Row]]) -> None:
        out, rows = done
        content = contents(out)
        assert [row["name"] for row in content["rows"]] == list(TOKENIZERS)
        assert content["options"]["what"] == "tokenizers"
        with (out / "table.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [float(line["psnr"]) for line in lines] == [row.figures["psnr"] for row in rows]
        assert (out / "usage.png").stat().st_size > 1000


def flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in recipe.items():
        inside = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inside else {prefix + key: value}
    return found


class TestSecondCall:
    def test_keeps_what_is_done(self, folder: Path, done: tuple[Path, list[Row]]) -> None:
        before = times(done[0])
        assert compare_of(folder, done[0]) == done[1]
        assert times(done[0]) == before

    def test_trains_a_row_whose_run_was_removed(
        self, folder: Path, copy: Path, done: tuple[Path, list[Row]]
    ) -> None:
        before = times(copy)
        shutil.rmtree(copy / "gumbel")
        rows = compare_of(folder, copy)
        assert [row.name for row in rows] == list(TOKENIZERS)
        assert known(rows[1]) == pytest.approx(known(done[1][1]))
        after = times(copy)
        assert {name for name in after if after[name] != before[name]} == {"gumbel"}

    def test_refuses_other_options(self, folder: Path, done: tuple[Path, list[Row]]) -> None:
        with pytest.raises(SpadError, match="another choice of steps"):
            compare_of(folder, done[0], steps=STEPS + 1)

    def test_goes_on_after_a_kill(
        self,
        folder: Path,
        done: tuple[Path, list[Row]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out, names = tmp_path / "killed", ("nearest", "soft")
        monkeypatch.setattr(compare, "TOKENIZERS", {name: TOKENIZERS[name] for name in names})
        code = (
            "import json, sys; from spad.training.compare import tokenizers as compare; "
            "compare.TOKENIZERS = json.loads(sys.argv[1]); "
            "compare.compare_tokenizers([sys.argv[2]], sys.argv[3], preset='tiny', "
            "steps=int(sys.argv[4]), overrides=json.loads(sys.argv[5]))"
        )
        words = [json.dumps(compare.TOKENIZERS), str(folder), str(out), str(STEPS)]
        process = subprocess.Popen([sys.executable, "-c", code, *words, json.dumps(OPTIONS)])
        end = time.monotonic() + 120
        while not runs.checkpoint_steps(out / "soft"):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = (out / "nearest" / "state.json").stat().st_mtime_ns
        rows = compare_of(folder, out)
        assert (out / "nearest" / "state.json").stat().st_mtime_ns == kept
        wanted = {row.name: row for row in done[1]}
        for name, row in zip(names, rows, strict=True):
            assert (row.name, row.steps, row.diverged) == (name, STEPS, False)
            assert known(row) == pytest.approx(known(wanted[name]), rel=1e-4)


class TestDivergence:
    def test_is_a_row_with_its_sentence(
        self, folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("gumbel", "soft"):
            shutil.rmtree(copy / name)
        diverging(monkeypatch, "gumbel", step=3)
        rows = {row.name: row for row in compare_of(folder, copy)}
        assert rows["gumbel"].diverged
        assert rows["gumbel"].message.startswith("The loss became nan at step 3")
        assert rows["gumbel"].steps == 2
        assert rows["gumbel"].figures["psnr"] > 0
        assert not rows["soft"].diverged
        before = times(copy)
        assert compare_of(folder, copy)[1] == rows["gumbel"]
        assert times(copy) == before

    def test_before_the_first_checkpoint(
        self, folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.rmtree(copy / "gumbel")
        diverging(monkeypatch, "gumbel", step=1)
        row = compare_of(folder, copy)[1]
        assert (row.steps, row.diverged, row.usage) == (0, True, [])
        assert set(row.figures.values()) == {None}
        assert contents(copy)["rows"][1]["message"] == row.message

    def test_other_errors_end_the_comparison(
        self, folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.rmtree(copy / "gumbel")

        def full(*_: Any, **__: Any) -> None:
            raise SpadError("The disk is full.")

        monkeypatch.setattr(runs.RunWriter, "append_metrics", full)
        with pytest.raises(SpadError, match="full"):
            compare_of(folder, copy)
        monkeypatch.undo()
        assert not compare_of(folder, copy)[1].diverged


def diverging(monkeypatch: pytest.MonkeyPatch, quantizer: str, step: int) -> None:
    """Let the loss of the rows with a quantizer be no number at a step."""
    loss = compare.TokenizerTask.loss

    def lost(task: TokenizerTask, batch: Batch, progress: float) -> Any:
        found, figures = loss(task, batch, progress)
        falls = task.recipe.model["quantizer"] == quantizer and batch.step + 1 == step
        return found * (float("nan") if falls else 1.0), figures

    monkeypatch.setattr(compare.TokenizerTask, "loss", lost)


class TestAlarms:
    def test_are_told_though_the_run_went_on(
        self, folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.rmtree(copy / "soft")
        monkeypatch.setattr(
            compare.TokenizerTask,
            "alarm",
            lambda self, figures, progress: "It is hopeless." if progress >= 0.9 else None,
        )
        row = compare_of(folder, copy)[2]
        assert (row.steps, row.diverged) == (STEPS, False)
        assert row.alarm == f"Step {STEPS}: It is hopeless."

    def test_end_a_row_that_was_told_to_listen(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compare, "TOKENIZERS", {"soft": TOKENIZERS["soft"]})
        monkeypatch.setattr(compare.TokenizerTask, "alarm", lambda *_: "It is hopeless.")
        more = {"schedule.alarms": "true", "schedule.validate_every": "1"}
        (row,) = compare_of(folder, tmp_path / "out", steps=8, overrides=OPTIONS | more)
        assert (row.steps, row.diverged) == (3, False)
        assert row.message.startswith("Stopped at step 3")
        assert row.figures["psnr"] > 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"overrides": {"model.quantizer": "soft"}}, "leave --model.quantizer out"),
            ({"overrides": {"loss.adversarial_adaptive": "true"}}, "differ in"),
            ({"overrides": {"trainer.devices": "2"}}, "one process"),
            ({"overrides": {"loss.nothing": "2"}}, "unknown key"),
            ({"preset": "huge"}, "no preset"),
        ],
    )
    def test_options(self, folder: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
        with pytest.raises(SpadError, match=words):
            compare_of(folder, tmp_path / "out", **more)
        assert not (tmp_path / "out").exists()

    def test_no_scans_for_validation(self, folder: Path, tmp_path: Path) -> None:
        alone = tmp_path / "alone"
        alone.mkdir()
        shutil.copy(folder / "img0.nii.gz", alone)
        with pytest.raises(SpadError, match="no scan for validation"):
            compare_of(alone, tmp_path / "out")

    def test_a_folder_in_use(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(SpadError, match="no comparison"):
            compare_of(folder, tmp_path)

    def test_a_damaged_table(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "table.json").write_text("{")
        with pytest.raises(SpadError, match="cannot be read"):
            compare_of(folder, tmp_path)


def test_progress_runs_through_all_rows(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "soft-both")
    seen: list[tuple[float, str]] = []
    compare_of(folder, copy, progress=lambda fraction, text: seen.append((fraction, text)))
    assert all(text.startswith("soft-both: ") for _, text in seen)
    assert all(4 / 6 <= fraction <= 5 / 6 for fraction, _ in seen)


def test_usage_figure_of_rows_without_usage() -> None:
    rows = [Row("soft", 0, dict.fromkeys(FIGURES), True, "It failed.")]
    assert len(compare.usage_figure(rows).axes) == 3
