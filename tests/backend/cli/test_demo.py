"""`spad demo` with small models: every file is there and the page shows what was computed."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest

from spad.cli import main
from spad.phantoms import sample

from .conftest import Command, assert_one_line, files_in

MODELS = ("small-tokenizer", "small-mim", "small-segmenter")
FILES = {
    *("scan.nii.gz", "scan_labels.nii.gz", "scan_labels.labels.json", "reconstruction.nii.gz"),
    *("filled_in.nii.gz", "volumes.csv", "report.json", "report.html", "figures"),
    *(f"figures/{name}.png" for name in ("reconstruction", "usage", "mask", "organs")),
}


@pytest.fixture(scope="module")
def folder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the demonstration once."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    options = [word for model in MODELS for word in ("--model", model)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAD_HOME", str(home))
        assert main(["demo", "--out", str(folder), *options]) == 0
    return folder


class Page(HTMLParser):
    """Collects what a page refers to and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def test_every_file(folder: Path) -> None:
    assert files_in(folder) == FILES
    assert files_in(folder.parent) == {folder.name, *(f"{folder.name}/{name}" for name in FILES)}


def test_volumes_lie_on_the_scan(folder: Path) -> None:
    scan = nibabel.load(folder / "scan.nii.gz")
    for name in ("scan_labels.nii.gz", "reconstruction.nii.gz", "filled_in.nii.gz"):
        result = nibabel.load(folder / name)
        assert result.shape == scan.shape
        assert np.allclose(result.affine, scan.affine, atol=1e-5)


def test_table_of_volumes(folder: Path) -> None:
    rows = {row["label"]: row for row in csv.DictReader((folder / "volumes.csv").open())}
    labels = json.loads((folder / "report.json").read_text())["segment"]["labels"]
    assert set(labels) <= set(rows)
    for name, label in labels.items():
        assert float(rows[name]["volume_ml"]) == pytest.approx(label["volume_ml"], abs=0.01)
    truth = sample("ct").labels
    liver = (truth.array == 6).sum() * abs(np.linalg.det(truth.affine[:3, :3])) / 1000
    assert float(rows["liver"]["true_volume_ml"]) == pytest.approx(liver, abs=0.01)


def test_page_needs_nothing_else(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    pictures = [base64.b64decode(ref.partition("base64,")[2]) for ref in page.references]
    assert pictures == [
        (folder / "figures" / f"{name}.png").read_bytes()
        for name in ("reconstruction", "usage", "mask", "organs")
    ]


def test_page_quotes_the_figures(folder: Path) -> None:
    text = " ".join(Page((folder / "report.html").read_text(encoding="utf-8")).text.split())
    report = json.loads((folder / "report.json").read_text())
    tokens, mask = report["tokenize"], report["mask"]
    assert f"{tokens['psnr']:.1f} dB PSNR" in text
    assert f"{mask['masked']} of {mask['masked'] + mask['visible']} tokens were hidden" in text
    assert f"{report['evaluate']['mean']['dice']:.2f} on average" in text
    assert not re.search(r"\$\w|\b(None|nan)\b", text)
    for model in MODELS:
        assert model in text


def test_again_into_the_same_folder(command: Command, folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    options = [word for model in MODELS for word in ("--model", model)]
    end = command("demo", "--out", folder, "--seed", 1, *options)
    assert end.code == 0
    assert str(folder / "report.html") in end.out
    assert files_in(folder) == FILES | {"notes.txt"}
    (folder / "notes.txt").unlink()


def test_out_is_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert_one_line(command("demo", "--out", tmp_path / "out"), 2)
    assert (tmp_path / "out").read_text() == "mine"


def test_out_in_a_missing_folder(command: Command, tmp_path: Path) -> None:
    assert_one_line(command("demo", "--out", tmp_path / "no" / "out"), 2)


def test_gui_without_a_screen(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    end = command("demo", "--gui", "--out", tmp_path / "out")
    assert_one_line(end, 2)
    assert "screen" in end.err
    assert files_in(tmp_path) == set()
