"""What a path holds, what has to be said first, and what becomes a layer."""

from __future__ import annotations

from fnmatch import fnmatchcase

import nibabel
import numpy as np
import pytest
from napari.layers import Layer

from napari_spad import layers, opening
from spad.errors import SpadError
from spad.volumes.files import READABLE_SUFFIXES
from spad.volumes.files.series import Series


def series(uid, problem=None, path="folder"):
    return Series(uid, f"series {uid}", "CT", "image", 9, (5, 6, 9), (1, 1, 2.5), path, problem)


def test_a_file_is_read_as_it_is(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-2, 3, 4, 1])), tmp_path / "scan.nii.gz")
    wanted = opening.find(str(tmp_path / "scan.nii.gz"))
    opened = opening.read(wanted)
    layer = Layer.create(*opened.data)
    assert layer.name == "scan"
    assert layers.role_of(layer) == "scan"
    assert tuple(layer.scale) == (4, 3, 2)


def test_labels_are_labels(tmp_path):
    data = np.zeros((3, 4, 5), np.uint8)
    data[1] = 2
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "scan.nii.gz")
    (tmp_path / "scan.labels.json").write_text('{"2": "liver"}')
    layer = Layer.create(*opening.read(opening.find(str(tmp_path / "scan.nii.gz"))).data)
    assert layers.role_of(layer) == "labels"
    assert layers.label_names({"features": layer.features}) == {2: "liver"}


def test_an_array_asks_for_spacing(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    asked = opening.read(opening.find(str(path)))
    assert isinstance(asked, opening.SpacingWanted)
    assert asked.shape == (5, 4, 3)
    assert "last axis" in asked.order
    assert not asked.can_skip
    opened = opening.read(opening.with_spacing(asked, (0.5, 0.75, 3.0)))
    assert tuple(opened.data[1]["scale"]) == (3.0, 0.75, 0.5)
    assert opened.data[0].shape == (3, 4, 5)


def test_a_broken_array_does_not_ask(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, np.zeros((30, 40, 50), np.int16))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SpadError, match=r"scan\.npy"):
        opening.read(opening.find(str(path)))


def test_a_picture_without_resolution_asks_but_can_do_without(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "photo.png"
    image.fromarray(np.arange(2000, dtype=np.uint8).reshape(40, 50)).save(path)
    asked = opening.read(opening.find(str(path)))
    assert isinstance(asked, opening.SpacingWanted)
    assert asked.can_skip
    assert asked.shape == (50, 40, 1)
    stated = opening.read(opening.with_spacing(asked, (0.2, 0.3, 1.0)))
    assert tuple(stated.data[1]["scale"][1:]) == (0.3, 0.2)
    plain = opening.read(opening.with_spacing(asked, None))
    assert tuple(plain.data[1]["scale"][1:]) == (1.0, 1.0)
    assert any("no spacing" in note for note in plain.notes)


def test_several_series_are_a_choice_and_one_is_read(monkeypatch, tmp_path):
    found = [series("a"), series("b")]
    monkeypatch.setattr("spad.volumes.files.catalog", lambda path: found)
    choice = opening.find(str(tmp_path))
    assert isinstance(choice, opening.Choice)
    assert list(choice.series) == found
    found.pop()
    assert opening.find(str(tmp_path)) == opening.Wanted("folder", "a")


def test_a_lone_series_says_what_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "spad.volumes.files.catalog", lambda path: [series("a", "The slices are not parallel.")]
    )
    with pytest.raises(SpadError, match="not parallel"):
        opening.find(str(tmp_path))


def test_a_zarr_folder_is_not_searched_for_dicom(monkeypatch, tmp_path):
    def search(path):
        raise AssertionError("thousands of chunks would be opened")

    monkeypatch.setattr("spad.volumes.files.catalog", search)
    (tmp_path / "zarr.json").write_text("{}")
    assert opening.find(str(tmp_path)) == opening.Wanted(str(tmp_path))


def test_the_filter_offers_all_that_can_be_read():
    every = opening.file_filter().split(";;")[0]
    patterns = every[every.index("(") + 1 : -1].split()
    folders = (".zarr", ".ome.zarr")
    for suffix in READABLE_SUFFIXES:
        for name in (f"scan{suffix}", f"SCAN{suffix.upper()}"):
            assert any(fnmatchcase(name, one) for one in patterns) or suffix in folders
    assert opening.file_filter().endswith("All files (*)")
    assert "DICOMDIR" in every


def test_folders_keep_their_whole_name(tmp_path):
    (tmp_path / "study 1.2").mkdir()
    assert opening.name_of(str(tmp_path / "study 1.2")) == "study 1.2"
    assert opening.name_of("/x/scan.nii.gz") == "scan"
