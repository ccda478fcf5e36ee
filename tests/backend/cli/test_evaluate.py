"""`spad evaluate` on files and folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spad
from spad.evaluation.metrics import FIGURES, evaluate
from spad.phantoms import Phantom
from spad.volumes.volume import Volume

from .conftest import Command, assert_one_line, files_in


@pytest.fixture
def shifted(ct_phantom: Phantom) -> Volume:
    """Give the phantom's labels moved by one voxel, without the spleen."""
    moved = np.roll(ct_phantom.labels.array, 1, axis=2)
    moved = np.where(moved == 1, 0, moved)
    return ct_phantom.labels.with_array(moved, label_names=ct_phantom.labels.label_names)


class TestFiles:
    def test_figures(
        self, command: Command, truth: Path, shifted: Volume, ct_phantom: Phantom, tmp_path: Path
    ) -> None:
        prediction, out = spad.write(shifted, tmp_path / "found.nii.gz"), tmp_path / "found.json"
        end = command("evaluate", prediction, truth, "--out", out)
        assert end.code == 0
        found = json.loads(out.read_text())
        assert found == json.loads(json.dumps(evaluate(shifted, ct_phantom.labels)))
        assert set(found["labels"]["liver"]) == set(FIGURES)
        assert found["labels"]["spleen"]["hd"] is None
        liver = next(line for line in end.out.splitlines() if line.startswith("liver"))
        assert f"{found['labels']['liver']['dice']:.3f}" in liver
        spleen = next(line for line in end.out.splitlines() if line.startswith("spleen"))
        assert spleen.split() == ["spleen", "0.000", "-", "-", "-", "0.000", "0.000"]

    def test_voxels(self, command: Command, truth: Path, tmp_path: Path) -> None:
        out = tmp_path / "figures.json"
        end = command("evaluate", truth, truth, "--unit", "voxel", "--out", out)
        assert end.code == 0
        assert "HD95 voxels" in end.out
        assert json.loads(out.read_text())["unit"] == "voxel"

    def test_another_grid(
        self, command: Command, truth: Path, shifted: Volume, tmp_path: Path
    ) -> None:
        other = Volume.from_array(
            np.ascontiguousarray(shifted.array[:-1]),
            shifted.affine,
            label_names=shifted.label_names,
        )
        prediction, out = spad.write(other, tmp_path / "other.nii.gz"), tmp_path / "figures.json"
        end = command("evaluate", prediction, truth, "--out", out)
        assert_one_line(end, 2)
        assert "another grid" in end.err
        assert not out.exists()

    def test_scan_instead_of_labels(self, command: Command, truth: Path, tmp_path: Path) -> None:
        image = Volume.from_array(np.random.default_rng(0).random((3, 4, 5), np.float32), np.eye(4))
        end = command("evaluate", spad.write(image, tmp_path / "scan.nii.gz"), truth)
        assert_one_line(end, 2)
        assert "whole numbers" in end.err

    def test_input_is_not_overwritten(self, command: Command, truth: Path) -> None:
        before = truth.read_bytes()
        assert_one_line(command("evaluate", truth, truth, "--out", truth), 2)
        assert truth.read_bytes() == before

    def test_missing_folder_for_the_result(self, command: Command, truth: Path) -> None:
        end = command("evaluate", truth, truth, "--out", truth.parent / "no" / "x.json")
        assert_one_line(end, 2)
        assert "does not exist" in end.err


class TestTableAndPicture:
    def test_of_one_case(
        self, command: Command, truth: Path, shifted: Volume, tmp_path: Path
    ) -> None:
        prediction, out = spad.write(shifted, tmp_path / "found.nii.gz"), tmp_path / "found.json"
        table, picture = tmp_path / "found.csv", tmp_path / "found.png"
        arguments = ("--out", out, "--csv", table, "--figure", picture)
        assert command("evaluate", prediction, truth, *arguments).code == 0
        found, rows = json.loads(out.read_text()), read_table(table)
        for label, figures in {**found["labels"], "mean": found["mean"]}.items():
            for case in ("found", "mean"):
                assert_row(rows[case, label], figures)
                assert rows[case, label]["dice_low"] == ""
        assert rows["found", "spleen"]["hd"] == ""
        assert Image.open(picture).format == "PNG"

    def test_of_folders(self, command: Command, folders: tuple[Path, Path], tmp_path: Path) -> None:
        out, table, picture = (tmp_path / f"all.{end}" for end in ("json", "csv", "png"))
        arguments = ("--out", out, "--csv", table, "--figure", picture)
        end = command("evaluate", *folders, *arguments)
        assert end.code == 0
        found, rows = json.loads(out.read_text()), read_table(table)
        for case in found["cases"]:
            for label, figures in {**case["labels"], "mean": case["mean"]}.items():
                assert_row(rows[case["case"], label], figures)
        intervals = found["intervals"]
        assert_row(rows["mean", "liver"], found["labels"]["liver"])
        assert_row(rows["mean", "mean"], found["mean"])
        for label, of_label in {**intervals["labels"], "mean": intervals["mean"]}.items():
            low, high = of_label["dice"]
            assert float(rows["mean", label]["dice_low"]) == low
            assert float(rows["mean", label]["dice_high"]) == high
        assert len(rows) == sum(len(case["labels"]) + 1 for case in [*found["cases"], found])
        low, high = intervals["labels"]["liver"]["dice"]
        assert "percentile bootstrap over cases, 2000 resamples, seed 0" in end.out
        assert f"{low:.3f} to {high:.3f}" in end.out
        assert Image.open(picture).format == "PNG"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--figure", "x.pdf"), "does not end in .png"),
            (("--out", "x.json", "--csv", "x.json"), "the same file"),
            (("--csv", "no/x.csv"), "does not exist"),
        ],
    )
    def test_places_that_cannot_be(
        self, command: Command, truth: Path, tmp_path: Path, options: tuple[str, ...], message: str
    ) -> None:
        given = [tmp_path / word if "." in word else word for word in options]
        end = command("evaluate", truth, truth, *given)
        assert_one_line(end, 2)
        assert message in end.err

    def test_nothing_to_draw(self, command: Command, ct_phantom: Phantom, tmp_path: Path) -> None:
        empty = ct_phantom.labels.with_array(np.zeros_like(ct_phantom.labels.array))
        file = spad.write(empty, tmp_path / "empty.nii.gz")
        end = command("evaluate", file, file, "--figure", tmp_path / "x.png")
        assert_one_line(end, 2)
        assert "no label" in end.err


def read_table(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Give the rows of a table by case and label."""
    with path.open(newline="") as file:
        return {(row["case"], row["label"]): row for row in csv.DictReader(file)}


def assert_row(row: dict[str, str], figures: dict[str, float | None]) -> None:
    """Check that a row of a table holds figures as the report has them."""
    assert {f: float(row[f]) if row[f] else None for f in FIGURES} == figures


@pytest.fixture
def folders(shifted: Volume, ct_phantom: Phantom, tmp_path: Path) -> tuple[Path, Path]:
    """Make a folder of two predictions and one of three references, scans among them."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    spad.write(shifted, ours / "img0001_labels.nii.gz")
    spad.write(ct_phantom.labels, ours / "img0002_labels.nii.gz")
    for number in ("0001", "0002", "0003"):
        spad.write(ct_phantom.image, theirs / f"img{number}.nii.gz")
        spad.write(ct_phantom.labels, theirs / f"label{number}.nii.gz")
    return ours, theirs


class TestFolders:
    def test_paired_by_name(
        self, command: Command, folders: tuple[Path, Path], tmp_path: Path
    ) -> None:
        ours, theirs = folders
        out = tmp_path / "figures.json"
        end = command("evaluate", ours, theirs, "--out", out)
        assert end.code == 0
        found = json.loads(out.read_text())
        assert [case["case"] for case in found["cases"]] == ["img0001", "img0002"]
        first, second = found["cases"]
        assert second["mean"]["dice"] == 1.0
        assert found["mean"]["dice"] == pytest.approx((first["mean"]["dice"] + 1) / 2)
        assert found["labels"]["spleen"]["dice"] == pytest.approx(0.5)
        assert found["without_prediction"] == ["label0003.nii.gz"]
        assert "without a prediction: label0003.nii.gz" in end.out

    def test_no_pairs(self, command: Command, truth: Path, tmp_path: Path) -> None:
        end = command("evaluate", tmp_path, truth.parent)
        assert_one_line(end, 2)
        assert files_in(tmp_path) == set()

    def test_a_file_and_a_folder(self, command: Command, truth: Path) -> None:
        assert_one_line(command("evaluate", truth, truth.parent), 2)
