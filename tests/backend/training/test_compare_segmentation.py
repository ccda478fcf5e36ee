"""Comparisons of really trained small segmenters: rows, tables, and what a second call keeps."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spad.checkpoints import file
from spad.data.folder import read_folder
from spad.errors import SpadError
from spad.evaluation.metrics import evaluate
from spad.inference.segment import segment
from spad.models.segmenter import Segmenter
from spad.phantoms import LABELS, phantom
from spad.training import runs
from spad.training.compare import tables
from spad.training.compare.arms import Grid, arm_of, eva02_start, median_grid
from spad.training.compare.segmentation import Choices, Comparison, compare_segmentation
from spad.training.recipe import Recipe, resolve
from spad.training.start import start_from
from spad.volumes.files import read, write

from .conftest import SMALL

STEPS = 2
OVERRIDES = {
    **SMALL["segmentation"],
    "precision": "float32",
    "data.phantoms": "0",
    "schedule.log_every": "1",
    "schedule.validation_batches": "1",
}
CHOICES = Choices(rows=("scratch", "dynunet"), preset="tiny", steps=STEPS, overrides=OVERRIDES)


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    out = tmp_path_factory.mktemp("comparison") / "segmentation"
    return out, compare_segmentation([folder], out, CHOICES)


@pytest.fixture
def copy(done: tuple[Path, Comparison], tmp_path: Path) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


def times(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/state.json")}


class TestRows:
    def test_each_was_trained_and_judged(self, done: tuple[Path, Comparison]) -> None:
        out, found = done
        assert [row.name for row in found.rows] == ["scratch-ratio1-seed0", "dynunet-ratio1-seed0"]
        for row in found.rows:
            assert (row.steps, row.scans, row.message, row.diverged) == (STEPS, 2, "", False)
            assert row.parameters > 1000
            assert row.train_seconds > 0
            (case,) = row.cases
            assert case["case"].endswith("/2")
            assert 0 <= case["mean"]["dice"] <= 1
            assert case["seconds"] > 0
            assert case["peak_memory_mb"] > 0
            assert runs.read_state(out / row.name).state == "finished"

    def test_figures_are_those_of_whole_scans(
        self, folder: Path, done: tuple[Path, Comparison]
    ) -> None:
        out, found = done
        model = runs.load_checkpoint_folder(out / "scratch-ratio1-seed0").path / "model.safetensors"
        labels = segment(read(folder / "img2.nii.gz"), model)
        wanted = evaluate(labels, read(folder / "label2.nii.gz", labels=True))
        assert found.rows[0].cases[0]["labels"] == wanted["labels"]

    def test_rows_differ_in_their_own_keys_alone(self, done: tuple[Path, Comparison]) -> None:
        ours, theirs = (runs.read_recipe(done[0] / row.name) for row in done[1].rows)
        assert theirs["model"].pop("network") == "dynunet"
        assert ours == theirs

    def test_files(self, done: tuple[Path, Comparison]) -> None:
        out, found = done
        content = json.loads((out / "table.json").read_text())
        assert [row["arm"] for row in content["rows"]] == ["scratch", "dynunet"]
        assert content["summary"] == found.summary
        with (out / "table.csv").open() as stream:
            lines = list(csv.DictReader(stream))
        assert [float(one["dice"]) for one in lines] == [
            row.cases[0]["mean"]["dice"] for row in found.rows
        ]
        assert (out / "table.md").read_text().startswith("| row |")
        assert (out / "figure.png").stat().st_size > 1000
        assert found.summary[1]["difference"]["mean"] == pytest.approx(
            found.summary[1]["dice"] - found.summary[0]["dice"]
        )


class TestSecondCall:
    def test_keeps_what_is_done_and_adds_what_is_new(
        self, folder: Path, copy: Path, done: tuple[Path, Comparison]
    ) -> None:
        before = times(copy)
        more = replace(CHOICES, rows=("scratch",), ratios=(1.0, 0.5))
        found = compare_segmentation([folder], copy, more)
        after = times(copy)
        assert {name for name in after if after[name] != before.get(name)} == {
            "scratch-ratio0.5-seed0"
        }
        assert [row.scans for row in found.rows] == [2, 1, 2]
        assert [found.rows[0], found.rows[2]] == done[1].rows

    def test_only_judges_a_run_that_is_finished(
        self, folder: Path, copy: Path, done: tuple[Path, Comparison]
    ) -> None:
        path, before = copy / "table.json", times(copy)
        content = json.loads(path.read_text())
        content["rows"] = content["rows"][:1]
        path.write_text(json.dumps(content))
        found = compare_segmentation([folder], copy, CHOICES)
        assert times(copy) == before
        assert found.rows[1].cases[0]["labels"] == done[1].rows[1].cases[0]["labels"]

    def test_refuses_other_options(self, folder: Path, done: tuple[Path, Comparison]) -> None:
        with pytest.raises(SpadError, match="another choice of steps"):
            compare_segmentation([folder], done[0], replace(CHOICES, steps=STEPS + 1))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rows": ("unet",)}, "no row 'unet'"),
        ({"ratios": (0.0,)}, "label ratio is 0"),
        ({"recipe": "tokenizer", "overrides": {}}, "is for tokenizer"),
        ({"overrides": {"model.network": "dynunet"}}, "leave --model.network out"),
        ({"overrides": {"data.isotropic": "true"}}, "leave --data.isotropic out"),
        ({"overrides": {"trainer.devices": "2"}}, "one process"),
        ({"rows": ("pretrained",), "pretrained": "none-such"}, "no model called 'none-such'"),
    ],
)
def test_refusals(folder: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(SpadError, match=words):
        compare_segmentation([folder], tmp_path / "out", replace(CHOICES, **more))
    assert not (tmp_path / "out").exists()


def small() -> Recipe:
    return resolve("segmentation", "tiny", SMALL["segmentation"])


def own_keys(name: str, recipe: Recipe, grid: Grid) -> dict[str, str]:
    return arm_of(name, recipe, grid, pretrained="mim-tiny", eva02_model=None).overrides


class TestArms:
    def test_windows_are_as_deep_in_mm(self) -> None:
        recipe = resolve("segmentation", "tiny", {"data.window": "[128, 96, 96]"})
        thick = Grid((6.0, 3.0, 3.0), 1)  # 64 slices of 6 mm in the other rows
        assert json.loads(own_keys("isotropic", recipe, thick)["data.window"]) == [128, 96, 96]
        assert json.loads(own_keys("da0", recipe, thick)["data.window"]) == [64, 96, 96]
        assert own_keys("scratch", recipe, thick) == {}

    def test_the_median_scan(self, folder: Path) -> None:
        found = median_grid(small(), [read_folder(folder)])
        assert found.spacing == pytest.approx((9.0, 8.0, 8.0), abs=0.2)
        assert found.da == 0

    def test_eva02_starts_from_an_inflated_kernel(self, tmp_path: Path) -> None:
        path, recipe = tmp_path / "start.safetensors", small()
        assert eva02_start(path, recipe, None, 3) == "random 2D weights"
        vit, _ = file.load(path)
        weight = vit.patch_embedding.weight
        assert torch.equal(weight, weight[:, :, :1].expand_as(weight))
        assert weight.std() > 0
        assert torch.equal(vit.position, vit.position[:, :, :1].expand_as(vit.position))
        model = Segmenter(classes=3, **recipe.model)
        start_from(model, str(path))
        assert torch.equal(model.vit.patch_embedding.weight, weight)


def row(arm: str, ratio: float, *dice: float, seed: int = 0) -> dict[str, Any]:
    rest = dict.fromkeys(("assd", "hd", "hd95", "nsd_1mm", "nsd_3mm"), 1.0)
    cases = [
        {
            "case": f"c{n}",
            "da": 0,
            "seconds": 1.0,
            "peak_memory_mb": 1.0,
            "labels": {"liver": {"dice": d, **rest}},
            "mean": {"dice": d, **rest},
        }
        for n, d in enumerate(dice)
    ]
    return {
        "arm": arm,
        "ratio": ratio,
        "seed": seed,
        "scans": 4,
        "steps": 1,
        "parameters": 10,
        "train_seconds": 60.0,
        "cases": cases,
        "diverged": False,
        "message": "",
    }


class TestTables:
    def test_differences_are_of_the_same_scans_and_seeds(self) -> None:
        rows = [
            row("scratch", 1.0, 0.5, 0.7),
            row("scratch", 1.0, 0.6, 0.8, seed=1),
            row("pretrained", 0.6, 0.6, 0.9),
        ]
        first, second = tables.summary(rows)
        assert first["dice"] == pytest.approx(0.65)
        assert first["difference"] is None
        assert second["difference"]["mean"] == pytest.approx(0.15)
        assert second["difference"]["pairs"] == 2

    @pytest.mark.parametrize(
        ("dice", "words"),
        [
            ((0.6, 0.81), "60% of the labels beats scratch with all"),
            ((0.4, 0.61), "does not beat"),
            ((0.4, 0.9), "no clear difference"),
        ],
    )
    def test_verdict(self, dice: tuple[float, float], words: str) -> None:
        pooled = tables.summary([row("scratch", 1.0, 0.5, 0.7), row("pretrained", 0.6, *dice)])
        assert words in tables.verdict(pooled)

    def test_verdict_without_the_row(self) -> None:
        assert "cannot be told" in tables.verdict(tables.summary([row("scratch", 1.0, 0.5)]))

    def test_a_row_that_diverged_at_once(self) -> None:
        lost = {**row("da0", 1.0), "message": "The loss became nan.", "diverged": True}
        rows = [row("scratch", 1.0, 0.5, 0.7), lost]
        pooled = tables.summary(rows)
        said = tables.sentences(rows, pooled, {"what": "segmentation"})
        assert said[0] == "da0 at 100%, seed 0: The loss became nan."
        assert "| da0 | 100% | 4 | 1 | - | - |" in tables.markdown(pooled, said)
        assert tables.figure(pooled).axes

    def test_da_0_everywhere_is_told(self) -> None:
        rows = [row("scratch", 1.0, 0.5), row("da0", 1.0, 0.5)]
        said = tables.sentences(rows, tables.summary(rows), {"what": "segmentation"})
        assert any("da0 is the same as scratch" in sentence for sentence in said)


BLOCKED = ("nibabel", "SimpleITK", "zarr", "platformdirs", "numcodecs", "napari", "qtpy", "timm")


def test_several_at_once_where_only_torch_is_installed(tmp_path: Path) -> None:
    """Raw NRRD, no library for other formats, two runs at once, scans resampled to isotropic."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for seed in range(2):
        made = phantom(seed, "CT", spacing=(24.0, 8.0, 8.0), shape=(12, 48, 48))
        write(made.image, data / f"img{seed}.nrrd")
        write(made.labels, data / f"label{seed}.nrrd")
    (data / "labels.json").write_text(json.dumps({str(k): name for k, name in LABELS.items()}))
    (data / "split.json").write_text('{"train": ["0"], "validation": ["1"]}')
    code = f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    words = [f"--{key}={value}" for key, value in OVERRIDES.items()]
    end = subprocess.run(
        [
            *(sys.executable, "-m", "spad", "compare", "segmentation", "--data", data),
            *("--out", out, "--preset", "tiny", "--steps", "1", "--jobs", "2"),
            *("--rows", "scratch", "isotropic", *words),
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "SPAD_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert end.returncode == 0, end.stderr
    rows = json.loads((out / "table.json").read_text())["rows"]
    degrees = {one["arm"]: one["cases"][0]["da"] for one in rows}
    assert degrees == {"scratch": 1, "isotropic": 0}
    assert end.stdout.splitlines()[0].startswith("row")
