"""`spad segment --clicks --session` and `spad replay`: files a person can go on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import spad
from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.errors import SpadError
from spad.models.clicker import Clicker
from spad.prompts import kept
from spad.volumes.intensity import CT, MR, Intensity

from .conftest import Command, assert_one_line


@pytest.fixture(scope="module")
def clicks_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with the segmenter and a clicker on its features."""
    folder = tmp_path_factory.mktemp("clicks-home")
    shutil.copytree(home / "models", folder / "models")
    torch.manual_seed(0)
    contracts = {"CT": CT, "MR": MR, "*": Intensity("percentiles", 0.5, 99.5)}
    card = Card(
        "clicker", "small-clicker", {}, contracts, segmenter="small-segmenter", licence="none"
    )
    save(folder / "models" / "small-clicker.safetensors", Clicker(8, (8, 8, 8, 8)), card)
    return folder


@pytest.fixture
def files(command: Command, clicks_home: Path, scan: Path, tmp_path: Path, monkeypatch) -> Path:
    """Give a folder with clicks.json, labels.nii.gz and the session s.session.json."""
    monkeypatch.setenv("SPAD_HOME", str(clicks_home))
    entries = [{"label": "thing", "voxel": [32, 32, 16]}, {"label": "rest", "voxel": [20, 30, 10]}]
    (tmp_path / "clicks.json").write_text(json.dumps({"clicks": entries}))
    clicks = ("--clicks", tmp_path / "clicks.json", "--session", tmp_path / "s.session.json")
    model = ("--model", "small-clicker", "--out", tmp_path / "labels.nii.gz")
    end = command("segment", scan, *clicks, *model)
    assert end.code == 0, end.err
    return tmp_path


def change(file: Path, part: str, /, **values: object) -> None:
    content = json.loads(file.read_text())
    content[part] |= values
    file.write_text(json.dumps(content))


def test_a_session_has_its_labels_beside_it(command: Command, files: Path) -> None:
    """As the Segment dock needs them to go on."""
    session = files / "s.session.json"
    found = kept.read(session)
    labels = spad.read(files / "labels.nii.gz")
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, labels.array)
    assert {name: len(one.prompts) for name, one in found.objects.items()} == {
        "thing": 1,
        "rest": 1,
    }
    assert {"device", "threads", "torch", "spad"} <= set(found.record.settings)
    assert np.shape(found.record.scan["affine"]) == (4, 4)
    # replay makes them again where they are missing or damaged, and lets them be otherwise
    beside = kept.labels_path(session)
    content = beside.read_bytes()
    # an archive that is whole and holds data that are not
    start = content.index(b"labels.npy") + 60
    bad = content[:start] + bytes(255 - byte for byte in content[start : start + 40])
    bad += content[start + 40 :]
    for spoil in (
        beside.unlink,
        lambda: beside.write_bytes(b"PK"),
        lambda: beside.write_bytes(b""),
        lambda: beside.write_bytes(bad),
        lambda: np.savez(beside, labels=found.labels, objects=np.array("[]")),
    ):
        spoil()
        end = command("replay", session, "--out", files / "again.nii.gz")
        assert end.code == 0, end.err
        assert f"{beside} was missing or damaged, and was made again" in end.out
        assert "2 steps, each met the object as it had been." in end.out
        again = kept.read(session)
        np.testing.assert_array_equal(again.labels, found.labels)
        assert {n: o.prompts for n, o in again.objects.items()} == {
            n: o.prompts for n, o in found.objects.items()
        }
    np.savez(beside, labels=found.labels[1:], objects=np.array("{}"))
    with pytest.raises(SpadError, match="shape"):
        kept.read(session, spad.read(str(found.record.scan["path"])))
    beside.write_bytes(content)
    np.testing.assert_array_equal(spad.read(files / "again.nii.gz").array, labels.array)
    end = command("replay", session, "--out", files / "again.nii.gz")
    assert "made again" not in end.out
    assert "Made with" not in end.out


def test_a_replay_says_where_versions_or_models_differ(command: Command, files: Path) -> None:
    session = files / "s.session.json"
    change(session, "settings", torch="1.2.3", threads=999)
    change(session, "models", clicker={"name": "small-clicker", "sha256": "0" * 64})
    report = files / "report.json"
    end = command("replay", session, "--out", files / "again.nii.gz", "--report", report)
    assert end.code == 0, end.err
    assert "Made with torch 1.2.3, threads 999; here torch " in end.out
    assert "labels may differ in a few voxels." in end.out
    assert "The clicker 'small-clicker' is another file than then." in end.out
    assert len(json.loads(report.read_text())["notes"]) == 2


def test_a_session_without_a_file_of_its_scan(command: Command, files: Path, scan: Path) -> None:
    session, out = files / "s.session.json", files / "again.nii.gz"
    for path in ("", None):
        change(session, "scan", path=path)
        end = command("replay", session, "--out", out)
        assert_one_line(end, 2)
        assert "names no file of its scan; give the scan with --scan" in end.err
    script = files / "script.py"
    end = command("replay", session, "--out", out, "--scan", scan, "--script", script)
    assert end.code == 0, end.err
    assert f"spad.read({str(scan)!r})" in script.read_text()


def test_labels_above_255_are_played_again(command: Command, files: Path) -> None:
    session = files / "s.session.json"
    content = json.loads(session.read_text())
    for step in content["steps"]:
        step["label"] += 298
    session.write_text(json.dumps(content))
    end = command("replay", session, "--out", files / "again.nii.gz")
    assert end.code == 0, end.err
    before = spad.read(files / "labels.nii.gz").array.astype(int)
    np.testing.assert_array_equal(
        spad.read(files / "again.nii.gz").array, np.where(before, before + 298, 0)
    )
