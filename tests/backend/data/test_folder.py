"""Folders of scans: who is trained on, who is kept, and what labels are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spad.data.cohort import Contract, model_contracts
from spad.data.folder import read_folder
from spad.data.reading import prepare
from spad.errors import SpadError
from spad.volumes.files import write
from spad.volumes.volume import Volume


def made(path: Path, names: dict[int, str], ids: list[str]) -> Path:
    path.mkdir()
    for index, case in enumerate(ids):
        values = np.full((8, 16, 16), -100, np.int16)
        labels = np.zeros(values.shape, np.uint8)
        for label in names:
            labels[label, 2 + index : 6 + index, 4:8] = label
            values[labels == label] = 50 * label
        affine = np.array([[0, 0, -2.0, 0], [0, -2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
        write(Volume.from_array(values, affine), path / f"img{case}.nii.gz")
        write(Volume.from_array(labels, affine, label_names={}), path / f"label{case}.nii.gz")
        (path / f"label{case}.labels.json").unlink(missing_ok=True)
    (path / "labels.json").write_text(json.dumps({str(k): v for k, v in names.items()}))
    return path


def test_labels_are_numbered_by_name_across_folders(tmp_path: Path) -> None:
    one = made(tmp_path / "one", {1: "spleen", 2: "liver"}, ["01", "02"])
    two = made(tmp_path / "two", {1: "liver", 3: "aorta"}, ["07", "08"])
    folders = [read_folder(one), read_folder(two)]
    cohort = prepare(folders, Contract(model_contracts(), None), with_labels=True)
    assert cohort.label_names == {1: "spleen", 2: "liver", 3: "aorta"}
    by_name = {scan.name: scan for scan in cohort.scans}
    liver_of_two = by_name["two/07"].labels
    assert liver_of_two is not None
    assert set(liver_of_two.unique().tolist()) == {0, 2, 3}
    assert by_name["two/07"].known == (2, 3)
    scan = by_name["two/07"]
    image = scan.unit(scan.image[:, :, :, :])[0]
    assert image[liver_of_two == 2].mean() == pytest.approx((50 + 125) / 400, abs=1e-3)


def test_split_json_says_who_is_kept(tmp_path: Path) -> None:
    path = made(tmp_path / "one", {1: "spleen"}, ["01", "02", "03"])
    (path / "split.json").write_text('{"train": ["01", "03"], "validation": ["02"]}')
    assert [c.validation for c in read_folder(path).cases] == [False, True, False]


def test_without_a_split_some_are_kept_all_the_same(tmp_path: Path) -> None:
    path = made(tmp_path / "one", {1: "spleen"}, [f"{i:02d}" for i in range(10)])
    assert sum(c.validation for c in read_folder(path, 0.2).cases) == 2


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda p: (p / "labels.json").write_text("{"), "JSON"),
        (lambda p: (p / "labels.json").write_text('{"liver": 1}'), "no number"),
        (lambda p: (p / "split.json").write_text("{}"), "validation"),
        (lambda p: [f.unlink() for f in p.glob("*.nii.gz")], "no .nii"),
        (lambda p: (p / "labels.json").write_text('{"1": "spleen"}'), "does not name"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, break_it, sentence: str) -> None:
    path = made(tmp_path / "one", {1: "spleen", 2: "liver"}, ["01", "02"])
    break_it(path)
    with pytest.raises(SpadError, match=sentence):
        prepare([read_folder(path)], Contract(model_contracts(), None), with_labels=True)
