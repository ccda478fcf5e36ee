"""Which scans of a folder, a file, a DICOM series or a store are judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import spad
from spad.errors import SpadError
from spad.evaluation import scans as module
from spad.evaluation.scans import PHANTOMS, phantom_scans, scans_of
from spad.volumes.volume import Volume


def small(tmp: Path, *names: str) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for name in names:
        (tmp / name).parent.mkdir(exist_ok=True)
        spad.write(Volume.from_array(array, np.eye(4), modality_hint="CT"), tmp / name)


def names(*paths: Path, which: str = "validation") -> list[str]:
    return [scan.name for scan in scans_of(paths, which)]  # type: ignore[arg-type]


class TestFolders:
    def test_validation_cases_unless_all_are_asked_for(self, tmp_path: Path) -> None:
        data = tmp_path / "set"
        small(data, "img1.nii.gz", "img2.nii.gz", "img3.nii.gz", "label1.nii.gz")
        (data / "split.json").write_text(json.dumps({"train": ["1", "3"], "validation": ["2"]}))
        assert names(data) == ["set/2"]
        assert names(data, which="all") == ["set/1", "set/2", "set/3"]
        (only,) = scans_of([data])
        assert only.data_set == "set"
        assert only.read().array.max() == 59

    def test_without_a_split_all(self, tmp_path: Path) -> None:
        data = tmp_path / "set"
        small(data, "img1.nii.gz", "img2.nii.gz", "label1.nii.gz")
        assert names(data) == ["set/1", "set/2"]

    def test_a_split_that_keeps_none(self, tmp_path: Path) -> None:
        data = tmp_path / "set"
        small(data, "img1.nii.gz")
        (data / "split.json").write_text(json.dumps({"train": ["1"], "validation": []}))
        with pytest.raises(SpadError, match="keeps no scan for validation"):
            scans_of([data])

    def test_any_readable_scans(self, tmp_path: Path) -> None:
        data = tmp_path / "set"
        small(data, "ct.nrrd", "mr.nii", "ct_seg.nrrd")
        np.save(data / "array.npy", np.zeros((3, 4, 5)))
        (data / "notes.txt").write_text("mine")
        assert names(data) == ["set/array", "set/ct", "set/mr"]

    def test_folders_below(self, tmp_path: Path) -> None:
        small(tmp_path, "a/ct.nii.gz", "b/ct.nii.gz")
        assert names(tmp_path) == [f"{tmp_path.name}/a/ct", f"{tmp_path.name}/b/ct"]

    def test_a_file_and_a_folder(self, tmp_path: Path) -> None:
        small(tmp_path / "set", "a.nii.gz", "b.nii.gz")
        assert names(tmp_path / "set" / "a.nii.gz", tmp_path / "set") == ["set/a", "set/a", "set/b"]

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(SpadError):
            scans_of([tmp_path])
        (missing,) = scans_of([tmp_path / "none.nii"])
        with pytest.raises(SpadError, match="does not exist"):
            missing.read()

    def test_a_dicom_series(self, shared_data: Path) -> None:
        (only,) = scans_of([shared_data / "totalsegmentator" / "example_ct_dicom"])
        assert only.read().modality == "CT"


def test_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = torch.arange(24, dtype=torch.int16).reshape(1, 2, 3, 4)
    rows = [
        SimpleNamespace(
            key=f"set/{part}",
            data_set="set",
            part=part,
            orientation="IPL",
            spacing=(5.0, 1.0, 2.0),
            modality=modality,
        )
        for part, modality in (("train", "MR"), ("validation", "CT"))
    ]
    store = SimpleNamespace(path=tmp_path, rows=rows, image=lambda row: {...: voxels})
    monkeypatch.setattr(module, "is_store", lambda path: True)
    monkeypatch.setattr(module, "open_store", lambda path: store)
    assert names(tmp_path, which="all") == ["set/train", "set/validation"]
    (kept,) = scans_of([tmp_path])
    volume = kept.read()
    assert (volume.orientation, volume.spacing, volume.da) == ("IPL", (5.0, 1.0, 2.0), 2)
    assert volume.modality == "CT"
    assert np.array_equal(volume.array, voxels[0].numpy())


def test_phantoms() -> None:
    listed = phantom_scans(2, seed=1)
    assert [scan.name for scan in listed] == [
        f"{PHANTOMS}/{modality}-{n}" for modality in ("DX", "US", "OP") for n in (1, 2)
    ]
    assert all(scan.phantom and scan.data_set == PHANTOMS for scan in listed)
    first, second = listed[-2].read(), listed[-1].read()
    assert (first.array != second.array).any()
    assert np.array_equal(first.array, phantom_scans(1, seed=1)[-1].read().array)
    assert (first.array != phantom_scans(1, seed=2)[-1].read().array).any()
