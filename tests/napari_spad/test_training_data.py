"""Open layers as training data, without a screen."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from napari_spad.training_data import OpenCase, held_out, listed, write_cases
from spad.errors import SpadError
from spad.volumes.files import read


@pytest.fixture
def cases(ct_phantom, mr_phantom):
    return [
        OpenCase("Patient 1", ct_phantom.image, ct_phantom.labels),
        OpenCase("Patient 2", mr_phantom.image, mr_phantom.labels, held_out=True),
    ]


def said(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize(
    ("count", "kept"), [(0, ()), (1, ()), (2, (1,)), (3, (1,)), (5, (2,)), (10, (2, 7))]
)
def test_one_scan_in_five_is_held_out(count, kept):
    assert held_out(count) == kept


def test_open_layers_become_a_folder_that_training_reads(tmp_path, cases, mr_phantom, ct_phantom):
    (folder,) = write_cases(cases, tmp_path / "data")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "img0001_ct_Patient_1.nii.gz",
        "img0002_mr_Patient_2.nii.gz",
        "label0001_ct_Patient_1.nii.gz",
        "label0002_mr_Patient_2.nii.gz",
        "labels.json",
        "split.json",
    ]
    assert said(folder, "labels.json")["6"] == "liver"
    assert said(folder, "split.json") == {
        "train": ["0001_ct_Patient_1"],
        "validation": ["0002_mr_Patient_2"],
    }
    again = read(folder / "img0002_mr_Patient_2.nii.gz")
    assert again.modality == "MR"
    assert again.da == mr_phantom.image.da
    one = nibabel.load(folder / "img0001_ct_Patient_1.nii.gz")
    other = nibabel.load(folder / "label0001_ct_Patient_1.nii.gz")
    assert np.allclose(one.affine, other.affine)
    liver = np.asarray(other.dataobj) == 6
    assert np.array_equal(
        np.sort(one.get_fdata()[liver]),
        np.sort(ct_phantom.image.values()[ct_phantom.labels.array == 6]),
    )


def test_a_layers_name_that_would_mislead_stays_out_of_the_file(tmp_path, cases):
    named = [replace(cases[0], name="like MR"), replace(cases[1], name="liver_seg")]
    (folder,) = write_cases(named, tmp_path / "data")
    assert (folder / "img0001_ct.nii.gz").exists()
    assert read(folder / "img0001_ct.nii.gz").modality == "CT"
    assert not read(folder / "img0002_mr.nii.gz").is_labels


def test_labels_of_one_name_are_one_label_whatever_their_number(tmp_path, cases):
    array = np.zeros(cases[1].labels.array.shape, np.uint8)
    array[1:3, 2:5, 3:7] = 3
    array[4:6, 2:5, 3:17] = 6
    first = cases[0].labels.with_array(
        (cases[0].labels.array == 6) * 6 + (cases[0].labels.array == 3) * 3,
        label_names={3: "left_kidney", 6: "liver"},
    )
    other = cases[1].labels.with_array(array, label_names={3: "liver", 6: "left_kidney"})
    swapped = [replace(cases[0], labels=first), replace(cases[1], labels=other)]
    (folder,) = write_cases(swapped, tmp_path / "data")
    assert said(folder, "labels.json") == {"3": "left_kidney", "6": "liver"}
    written = read(folder / "label0002_mr_Patient_2.nii.gz").array
    assert [(written == label).sum() for label in (6, 3)] == [24, 84]


def test_what_a_layer_does_not_name_is_not_said_to_be_absent(tmp_path, cases):
    liver = cases[1].labels.with_array(
        (cases[1].labels.array == 6).astype(np.uint8), label_names={1: "liver"}
    )
    folders = write_cases([cases[0], replace(cases[1], labels=liver)], tmp_path / "data")
    assert len(folders) == 2
    assert said(folders[1], "labels.json") == {"6": "liver"}
    assert said(folders[0], "labels.json")["6"] == "liver"
    assert said(folders[1], "split.json")["validation"] == ["0002_mr_Patient_2"]


def test_labels_without_names_are_known_in_all_scans(tmp_path, cases):
    both = np.zeros(cases[0].labels.array.shape, np.uint8)
    both[0, 0, :4] = (1, 1, 4, 4)
    one = np.ones(cases[1].labels.array.shape, np.uint8)
    nameless = [
        replace(cases[0], labels=cases[0].labels.with_array(both, label_names={})),
        replace(cases[1], labels=cases[1].labels.with_array(one, label_names={})),
    ]
    (folder,) = write_cases(nameless, tmp_path / "data")
    assert said(folder, "labels.json") == {"1": "label_1", "4": "label_4"}


def test_a_place_that_cannot_be_written_is_told(tmp_path, cases):
    (tmp_path / "file").touch()
    with pytest.raises(SpadError, match="cannot be made"):
        write_cases(cases, tmp_path / "file" / "data")


def test_names_are_listed_as_people_do():
    assert listed(["a"], "scans") == "a"
    assert listed(["a", "b", "c"], "scans") == "a, b and c"
    assert listed(list("abcdef"), "scans") == "6 scans"
