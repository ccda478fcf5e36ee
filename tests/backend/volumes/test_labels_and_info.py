"""Label files and their names, and what `describe` says of a scan."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.files import read, readable, stem_of, write
from spad.volumes.info import describe
from spad.volumes.volume import Volume


def save(path, data, intent=None):
    image = nibabel.Nifti1Image(data, np.diag([1, 1, 3, 1]))
    if intent:
        image.header.set_intent(intent)
    nibabel.save(image, path)
    return path


ONES = np.ones((4, 5, 6), np.uint8)


@pytest.mark.parametrize(
    ("name", "is_labels"),
    [
        ("label0001.nii.gz", True),
        ("labels.nii", True),
        ("seg_3.nii.gz", True),
        ("mask.nii.gz", True),
        ("case_labels.nii.gz", True),
        ("case_seg.nii.gz", True),
        ("case_mask.nii", True),
        ("img0001.nii.gz", False),
        ("unlabelled.nii.gz", False),
    ],
)
def test_a_shared_names_file_counts_for_label_names_only(tmp_path, name, is_labels):
    path = save(tmp_path / name, ONES)
    assert read(path).is_labels == is_labels
    assert not read(path).label_names
    (tmp_path / "labels.json").write_text('{"1": "spleen", "6": "liver"}')
    volume = read(path)
    assert volume.is_labels == is_labels
    assert volume.label_names == ({1: "spleen", 6: "liver"} if is_labels else None)


def test_the_own_sidecar_comes_first_and_makes_labels_of_any_name(tmp_path):
    (tmp_path / "labels.json").write_text('{"1": "spleen"}')
    (tmp_path / "organs.labels.json").write_text('{"1": "Leber"}', encoding="utf-8")
    assert read(save(tmp_path / "organs.nii.gz", ONES)).label_names == {1: "Leber"}


def test_the_label_intent_makes_labels(tmp_path):
    assert read(save(tmp_path / "a.nii", ONES, "label")).label_names == {}


def test_a_names_file_of_a_windows_editor(tmp_path):
    save(tmp_path / "a.nii", ONES)
    (tmp_path / "a.labels.json").write_text('{"1": "liver"}', encoding="utf-8-sig")
    assert read(tmp_path / "a.nii").label_names == {1: "liver"}


def test_half_a_character_is_no_name(tmp_path):
    save(tmp_path / "a.nii", ONES)
    (tmp_path / "a.labels.json").write_text('{"1": "li\\ud800ver"}')
    with pytest.raises(SpadError, match="cannot be read as the names"):
        read(tmp_path / "a.nii")


def test_a_name_too_long_for_a_names_file(tmp_path):
    path = save(tmp_path / f"{'a' * 250}.nii", ONES)
    volume = read(path, labels=True)
    with pytest.raises(SpadError, match="name too long"):
        write(volume, path)
    write(volume, tmp_path / f"{'b' * 246}.nrrd")
    assert read(tmp_path / f"{'b' * 246}.nrrd").is_labels


def test_a_large_file_is_not_read_for_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("spad.volumes.files.labels._PLANES", 4)
    data = np.zeros((20, 60, 40), np.int16)
    data[:, :, 7] = np.arange(1200).reshape(20, 60)
    assert read(save(tmp_path / "a_seg.nii", data)).is_labels
    data[:, :, 10] = data[:, :, 7]
    assert not read(save(tmp_path / "a_seg.nii", data)).is_labels


def test_a_spacing_is_not_ignored_in_silence(tmp_path):
    assert any(
        "stated spacing" in n for n in read(save(tmp_path / "a.nii", ONES), spacing=(9, 9, 9)).notes
    )


def test_a_person_can_say_what_it_is(tmp_path):
    path = save(tmp_path / "a.nii.gz", ONES.astype(np.float64) * 3)
    labels = read(path, labels=True)
    assert labels.label_names == {}
    assert labels.array.dtype == np.uint8
    (tmp_path / "a.labels.json").write_text("{}")
    assert read(path).is_labels
    assert not read(path, labels=False).is_labels
    with pytest.raises(SpadError, match="not whole numbers"):
        read(save(tmp_path / "b.nii.gz", ONES * 0.5), labels=True)


def test_scaled_labels_are_whole_numbers(tmp_path):
    image = nibabel.Nifti1Image(ONES.astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, 1.0)
    nibabel.save(image, tmp_path / "a.nii")
    labels = read(tmp_path / "a.nii", labels=True)
    assert (labels.slope, labels.intercept, int(labels.array.max())) == (1, 0, 3)


@pytest.mark.parametrize(
    ("top", "low", "dtype"),
    [
        (1, 0, np.uint8),
        (255, 0, np.uint8),
        (256, 0, np.int16),
        (40000, 0, np.uint16),
        (70000, 0, np.int32),
        (5, -1, np.int16),
    ],
)
def test_the_smallest_type_that_holds_the_ids(tmp_path, top, low, dtype):
    array = np.zeros((3, 4, 5), np.int64)
    array[0, 0, :2] = low, top
    write(Volume.from_array(array, np.eye(4), label_names={}), tmp_path / "a.nii.gz")
    written = nibabel.load(tmp_path / "a.nii.gz")
    assert written.get_data_dtype() == dtype
    assert written.header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, array)


def test_names_are_replaced_with_the_file(tmp_path):
    volume = Volume.from_array(ONES, np.eye(4), label_names={10: "zehn", 2: "Größe"})
    path = write(volume, tmp_path / "a.nii.gz")
    sidecar = tmp_path / "a.labels.json"
    assert list(json.loads(sidecar.read_text("utf-8"))) == ["2", "10"]
    assert read(path).label_names == {2: "Größe", 10: "zehn"}
    write(Volume.from_array(ONES, np.eye(4), label_names={}), path)
    assert json.loads(sidecar.read_text()) == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.labels.json", "a.nii.gz"]


def test_boolean_and_half_precision_data_are_written(tmp_path):
    write(Volume.from_array(ONES > 0, np.eye(4), label_names={1: "x"}), tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").get_data_dtype() == np.uint8
    half = np.linspace(0, 1, 60).astype(np.float16).reshape(3, 4, 5)
    write(Volume.from_array(half, np.eye(4)), tmp_path / "b.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii").get_fdata().T, half)


@pytest.mark.parametrize(
    ("name", "stem", "known"),
    [
        ("scan.nii.gz", "scan", True),
        ("Scan.NII.GZ", "Scan", True),
        ("a.b.nii", "a.b", True),
        ("x.hdr", "x", True),
        ("x.png", "x", True),
        ("a.SEG.nrrd", "a", True),
        ("x.docx", "x", False),
        (".nii", ".nii", False),
    ],
)
def test_names_of_files(name, stem, known):
    assert stem_of(name) == stem
    assert readable(name) == known


def test_describe_speaks_of_the_file(tmp_path):
    affine = np.array([[0, 0, 5.0, 1], [-0.7, 0, 0, 2], [0, 0.8, 0, 3], [0, 0, 0, 1]])
    data = np.zeros((6, 7, 4, 3), np.int16)
    data[1:] = 400
    data[0, 0, 0, 0] = -300
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "scan.nii.gz")
    found = describe(tmp_path / "scan.nii.gz")
    assert found["format"] == "nifti1"
    assert found["axes"] == "ijkt"
    assert found["shape"] == [6, 7, 4, 3]
    assert found["spacing"] == pytest.approx([0.7, 0.8, 5])
    assert found["orientation"] == "PSR" == "".join(nibabel.aff2axcodes(affine))
    np.testing.assert_allclose(found["affine"], affine, rtol=1e-6)
    assert found["depth_axis"] == 2
    assert found["oblique"] is False
    assert found["da"] == 2
    assert (found["modality"], found["modality_source"]) == ("CT", "intensity")
    assert found["intensity"] == {"min": -300, "max": 400, "p0_5": 0, "p99_5": 400}
    assert found["labels"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_describe_a_slice(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 7), np.int16), np.eye(4)), tmp_path / "a.nii")
    found = describe(tmp_path / "a.nii")
    assert (found["axes"], found["shape"], found["da"]) == ("ijk", [6, 7, 1], 5)


def test_describe_real_scans(shared_data):
    ct = describe(shared_data / "btcv" / "img0001.nii.gz")
    assert (ct["orientation"], ct["da"], ct["depth_axis"]) == ("LAS", 1, 2)
    assert ct["intensity"]["min"] == -125
    assert ct["intensity"]["max"] == pytest.approx(275)
    labels = describe(shared_data / "chaos_t2" / "label01.nii.gz")
    assert labels["labels"]["1"] == "liver"
    assert labels["modality"] is None


def test_opening_the_door_loads_no_reader():
    code = (
        "import sys, spad, spad.volumes.files, spad.volumes.info, spad.volumes.axes\n"
        "heavy = {'nibabel', 'isal', 'SimpleITK', 'scipy', 'torch', 'pydicom'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    import spad

    assert spad.read is read
    assert spad.Volume is Volume
    assert issubclass(spad.SpadError, RuntimeError)
    assert not issubclass(spad.SpadError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        spad.nonsense  # noqa: B018
    assert set(spad.__all__) <= set(dir(spad))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_half_a_character_is_not_written_either(tmp_path, suffix):
    volume = Volume.from_array(ONES, np.eye(4), label_names={1: "li\ud800ver"})
    with pytest.raises(SpadError, match="is not text"):
        write(volume, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())
