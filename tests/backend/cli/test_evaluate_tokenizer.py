"""`spad evaluate-tokenizer` over a small data set: every file, what they say, and refusals."""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import spad
from spad.cli import main
from spad.phantoms import Phantom

from .conftest import CODES, Command, assert_one_line, files_in
from .test_demo import Page

FILES = {
    *("report.json", "report.html", "cases.csv", "summary.csv", "usage.csv"),
    *("grid.png", "usage.png"),
}
MODEL = ("--model", "small-tokenizer")


@pytest.fixture(scope="module")
def data(
    ct_phantom: Phantom, mr_phantom: Phantom, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a data set whose second and third scans are kept for validation."""
    folder = tmp_path_factory.mktemp("data") / "set"
    folder.mkdir()
    spad.write(ct_phantom.image, folder / "img1.nii.gz")
    spad.write(ct_phantom.image, folder / "img2.nii.gz")
    (folder / "img3.nii.gz").write_bytes(b"no scan")
    parts = {"train": ["1"], "validation": ["2", "3"]}
    (folder / "split.json").write_text(json.dumps(parts))
    spad.write(mr_phantom.image, folder.parent / "abdomen_mr.nii.gz")
    return folder


@pytest.fixture(scope="module")
def folder(home: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judge once: a folder, a file and a phantom of each flat modality."""
    out = tmp_path_factory.mktemp("judged") / "out"
    scans = [str(data), str(data.parent / "abdomen_mr.nii.gz")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAD_HOME", str(home))
        assert (
            main(["evaluate-tokenizer", *scans, "--phantoms", "1", "--out", str(out), *MODEL]) == 0
        )
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_every_file_and_nothing_beside(folder: Path) -> None:
    assert files_in(folder) == FILES
    assert files_in(folder.parent) == {"out", *(f"out/{name}" for name in FILES)}


def test_cases(folder: Path, data: Path) -> None:
    report = report_of(folder)
    names = [case["case"] for case in report["cases"]]
    assert names[0] == "set/2"
    assert names[1].endswith("/abdomen_mr")
    assert names[2:] == ["phantoms/DX-1", "phantoms/US-1"]
    assert [left["case"] for left in report["left_out"]] == ["set/3", "phantoms/OP-1"]
    assert [case["phantom"] for case in report["cases"]] == [False, False, True, True]
    assert report["model"] == "small-tokenizer"
    assert report["left_out"][0]["reason"].startswith("img3.nii.gz ")
    for name in ("report.json", "report.html", "cases.csv"):
        assert str(data.parent) not in (folder / name).read_text()


def test_tables_say_what_the_report_says(folder: Path) -> None:
    report = report_of(folder)
    for table, key in (("cases.csv", "cases"), ("summary.csv", "groups")):
        rows = rows_of(folder / table)
        assert len(rows) == len(report[key])
        for row, wanted in zip(rows, report[key], strict=True):
            for figure in ("psnr", "ssim", "l1_to_dct16"):
                assert float(row[figure]) == wanted[figure]
            assert float(row["trilinear_psnr"]) == wanted["trilinear"]["psnr"]
            assert row["l1"] == ("" if wanted["l1"] is None else str(wanted["l1"]))
    assert rows_of(folder / "cases.csv")[0]["grid"] == "x".join(
        map(str, report["cases"][0]["grid"])
    )


def test_usage_table(folder: Path) -> None:
    rows = rows_of(folder / "usage.csv")
    assert [int(row["code"]) for row in rows] == list(range(CODES))
    assert set(rows[0]) == {"code", "all", "CT", "MR", "DX (phantom)", "US (phantom)"}
    for name in set(rows[0]) - {"code"}:
        assert sum(float(row[name]) for row in rows) == pytest.approx(1, abs=1e-4)


def test_page_needs_nothing_else_and_marks_phantoms(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    pictures = [base64.b64decode(ref.partition("base64,")[2]) for ref in page.references]
    assert pictures == [(folder / f"{name}.png").read_bytes() for name in ("grid", "usage")]
    words = " ".join(page.text.split())
    assert not re.search(r"\$\w|\b(None|nan)\b", words)
    report = report_of(folder)
    assert f"{report['groups'][0]['psnr']:.1f} dB mean PSNR" in words
    for part in ("2 of them phantoms", "all (with phantoms)", "DX (phantom)", "set/3:", "tokens"):
        assert part in words
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "--accent" in style


def test_pictures_are_not_empty(folder: Path) -> None:
    from matplotlib.image import imread

    for name, least in (("grid", 900), ("usage", 400)):
        picture = imread(folder / f"{name}.png")
        assert min(picture.shape[:2]) > least
        assert picture[..., :3].std() > 0.05


def test_printed(command: Command, data: Path, tmp_path: Path) -> None:
    end = command("evaluate-tokenizer", data, "--cases", "all", "--out", tmp_path / "out", *MODEL)
    assert end.code == 0
    assert "left out: set/3: " in end.out
    report = report_of(tmp_path / "out")
    assert [case["case"] for case in report["cases"]] == ["set/1", "set/2"]
    line = next(line for line in end.out.splitlines() if line.startswith("CT "))
    assert f"{report['cases'][0]['psnr']:.2f}" in line
    assert str(tmp_path / "out" / "report.html") in end.out
    assert "evaluate-tokenizer: " in end.err


def test_again_into_the_same_folder(command: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "report.json").write_text("old")
    scan = data.parent / "abdomen_mr.nii.gz"
    assert command("evaluate-tokenizer", scan, "--out", tmp_path, *MODEL).code == 0
    assert files_in(tmp_path) == FILES | {"notes.txt"}
    assert report_of(tmp_path)["groups"][0]["cases"] == 1


class TestRefusals:
    def test_nothing_to_judge_by(self, command: Command, tmp_path: Path) -> None:
        end = command("evaluate-tokenizer", "--out", tmp_path / "out")
        assert_one_line(end, 2)
        assert "--phantoms" in end.err

    def test_no_scan_can_be_judged(self, command: Command, tmp_path: Path) -> None:
        np.save(tmp_path / "flat.npy", np.full((4, 4, 4), np.nan))
        out = tmp_path / "out"
        end = command("evaluate-tokenizer", tmp_path / "flat.npy", "--out", out, *MODEL)
        assert end.code == 2
        assert "No scan of 1 could be judged" in end.err.splitlines()[-1]
        assert not out.exists()

    def test_out_is_a_file(self, command: Command, data: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        assert_one_line(command("evaluate-tokenizer", data, "--out", tmp_path / "out"), 2)
        assert (tmp_path / "out").read_text() == "mine"

    def test_out_in_a_missing_folder(self, command: Command, data: Path, tmp_path: Path) -> None:
        assert_one_line(command("evaluate-tokenizer", data, "--out", tmp_path / "no" / "out"), 2)

    def test_another_kind_of_model(self, command: Command, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        end = command("evaluate-tokenizer", data, "--out", out, "--model", "small-mim")
        assert_one_line(end, 2)
        assert "tokenizer is needed" in end.err
        assert not out.exists()
