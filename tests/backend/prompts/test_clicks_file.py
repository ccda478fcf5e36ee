"""Clicks by voxel of the file and by mm land on the same voxel as nibabel says."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

import spad
from spad.errors import SpadError
from spad.prompts.clicks_file import read_clicks, to_file_voxels

AFFINES = {
    "LAS": np.diag([-1.5, 1.5, 3.0, 1.0]),
    "RAS": np.diag([1.5, 1.5, 3.0, 1.0]),
    "sagittal": np.array([[0, 0, 3, -9], [-1, 0, 0, 4], [0, -1, 0, 7], [0, 0, 0, 1.0]]),
}


@pytest.fixture(params=list(AFFINES))
def scan(request, tmp_path):
    array = np.zeros((12, 14, 9), np.int16)
    array[3, 5, 7] = 100
    nibabel.save(nibabel.Nifti1Image(array, AFFINES[request.param]), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def clicks(folder, *entries):
    (folder / "c.json").write_text(json.dumps({"clicks": list(entries)}))
    return folder / "c.json"


def test_voxels_and_mm_are_those_of_the_file(scan, tmp_path) -> None:
    volume = spad.read(scan)
    mm = nibabel.affines.apply_affine(nibabel.load(scan).affine, (3, 5, 7))
    file = clicks(
        tmp_path,
        {"label": "liver", "voxel": [3, 5, 7]},
        {"label": "liver", "mm": (mm + 0.2).tolist(), "positive": False},
    )
    first, second = read_clicks(file, volume)
    assert first.prompt is not None
    assert second.prompt is not None
    assert first.prompt.voxels == second.prompt.voxels
    assert volume.array[first.prompt.voxels[0]] == 100
    assert first.prompt.positive
    assert not second.prompt.positive
    assert to_file_voxels(np.array(first.prompt.voxels), volume).tolist() == [[3, 5, 7]]


def test_boxes_scribbles_and_masks(scan, tmp_path) -> None:
    file = clicks(
        tmp_path,
        {"label": "a", "kind": "box", "voxel": [[1, 1, 1], [4, 6, 8]]},
        {"label": "a", "voxel": [[1, 1, 1], [2, 1, 1]], "positive": False},
        {"label": "b", "mask": "m.nii.gz"},
    )
    box, scribble, mask = read_clicks(file, spad.read(scan))
    assert box.prompt is not None
    assert box.prompt.kind == "box"
    assert scribble.prompt is not None
    assert scribble.prompt.kind == "scribble"
    assert mask.prompt is None
    assert mask.mask == tmp_path / "m.nii.gz"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"label": "a", "voxel": [12, 0, 0]}, "outside the scan"),
        ({"label": "a", "mm": [900, 0, 0]}, "outside the scan"),
        ({"voxel": [1, 1, 1]}, "no label"),
        ({"label": "a"}, "no position"),
        ({"label": "a", "voxel": [1, 1, 1], "mm": [1, 1, 1]}, "voxel and mm"),
        ({"label": "a", "voxel": [1, 1]}, "three"),
        ({"label": "a", "voxel": "here"}, "three"),
        ({"label": "a", "voxel": [1, 1, 1], "kind": "star"}, "star"),
    ],
)
def test_bad_entries_are_one_sentence(scan, tmp_path, entry, words) -> None:
    with pytest.raises(SpadError, match=words):
        read_clicks(clicks(tmp_path, entry), spad.read(scan))


@pytest.mark.parametrize("text", ["{", "[]", '{"click": []}', "null"])
def test_a_broken_file_is_one_sentence(scan, tmp_path, text) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SpadError, match="cannot be read as clicks"):
        read_clicks(tmp_path / "c.json", spad.read(scan))
