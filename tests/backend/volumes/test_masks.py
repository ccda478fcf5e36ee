"""A folder with one mask per organ becomes one labels volume on its grid."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from spad.errors import SpadError
from spad.phantoms import Phantom
from spad.volumes.axes import to_file_order
from spad.volumes.files import masks, read, write
from spad.volumes.volume import Volume


def in_file_order(volume: Volume) -> np.ndarray:
    return np.asarray(to_file_order(volume.array, volume.source))


def split(labels: Volume, folder: Path, suffix: str = ".nii.gz") -> dict[str, np.ndarray]:
    """Write one mask per organ, in the folder's own words, with nibabel or SimpleITK."""
    folder.mkdir()
    array = in_file_order(labels)
    parts = {name: array == label for label, name in (labels.label_names or {}).items()}
    for name, mask in parts.items():
        path = folder / f"{name}{suffix}"
        if suffix.startswith(".nii"):
            nibabel.Nifti1Image(mask.astype(np.uint8), labels.source.affine).to_filename(path)
            continue
        image = sitk.GetImageFromArray(mask.T.astype(np.uint8))
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ labels.source.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(image, str(path))
    return parts


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_masks_become_labels(mr_phantom: Phantom, suffix: str, tmp_path: Path) -> None:
    parts = split(mr_phantom.labels, tmp_path / "case", suffix)
    (tmp_path / "case" / "statistics.json").write_text("{}")
    (tmp_path / "case" / "._liver.nii.gz").write_text("left by macOS")
    volume = read(tmp_path / "case")
    assert volume.label_names == dict(enumerate(sorted(parts), 1))
    assert volume.array.dtype == np.uint8
    np.testing.assert_allclose(volume.source.affine, mr_phantom.labels.source.affine, atol=1e-4)
    array = in_file_order(volume)
    for label, name in (volume.label_names or {}).items():
        np.testing.assert_array_equal(array == label, parts[name], err_msg=name)
    assert volume.notes == ()
    assert write(volume, tmp_path / "again.nii.gz").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4))
    image.to_filename(tmp_path / os.fsdecode(b"r\xe9in.nii"))
    volume = read(tmp_path)
    assert volume.label_names == {1: "r\ufffdin"}
    assert read(write(volume, tmp_path / "all.nii.gz")).label_names == volume.label_names


def test_an_absent_organ_keeps_its_id(mr_phantom: Phantom, tmp_path: Path) -> None:
    split(mr_phantom.labels, tmp_path / "case")
    empty = np.zeros(mr_phantom.labels.source.shape, np.uint8)
    affine = mr_phantom.labels.source.affine
    nibabel.Nifti1Image(empty, affine).to_filename(tmp_path / "case" / "brain.nii.gz")
    names = read(tmp_path / "case").label_names
    assert names is not None
    assert names[2] == "brain"
    assert names[3] == "duodenum" if "duodenum" in names.values() else names[3] == "esophagus"


def test_overlaps_go_to_the_later_and_are_told(tmp_path: Path) -> None:
    shape = (6, 7, 8)
    first, second, third = (np.zeros(shape, np.uint8) for _ in range(3))
    first[:4], second[3:], third[5:, 0] = 1, 255, 1
    for name, mask in (("a", first), ("b", second), ("c", third)):
        nibabel.Nifti1Image(mask, np.eye(4)).to_filename(tmp_path / f"{name}.nii.gz")
    volume = read(tmp_path)
    expected = np.where(third > 0, 3, np.where(second > 0, 2, first))
    np.testing.assert_array_equal(in_file_order(volume), expected)
    assert any("64 voxels" in note and "a and b (56)" in note for note in volume.notes)
    assert any("b and c (8)" in note for note in volume.notes)


def save(folder: Path, name: str, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine)
    image.to_filename(folder / f"{name}.nii.gz")


def test_other_folders_are_refused_by_name(tmp_path: Path) -> None:
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3] = 1
    scan = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    cases = {
        "scan": (scan, np.eye(4), "more values than 0 and one other"),
        "shape": (mask[:, :4], np.eye(4), "the shape"),
        "place": (mask, np.diag([1, 1, 1.1, 1]), "another place or spacing"),
        "times": (np.stack([mask, mask], -1), np.eye(4), "more than three axes"),
    }
    for name, (data, affine, sentence) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        save(folder, "liver", mask)
        save(folder, "zz", data, affine)
        with pytest.raises(SpadError, match=sentence) as caught:
            read(folder)
        assert "zz.nii.gz" in str(caught.value), name


def test_scans_are_no_masks(ct_phantom: Phantom, tmp_path: Path) -> None:
    write(ct_phantom.image, tmp_path / "scan.nii.gz")
    assert not masks.is_mask_folder(tmp_path)
    with pytest.raises(SpadError, match=r"scan\.nii\.gz"):
        read(tmp_path)
    assert masks.mask_files(tmp_path / "absent") == []


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    mask = np.ones((3, 4, 5), np.uint8)
    save(tmp_path, "liver", mask)
    nibabel.Nifti1Image(mask, np.eye(4)).to_filename(tmp_path / "Liver.nii")
    with pytest.raises(SpadError, match="several files named liver"):
        read(tmp_path)


def test_memory_holds_a_few_masks_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    mask = np.zeros((256, 256, 64), np.uint8)
    for n in range(12):
        mask[:] = 0
        mask[n * 8 : n * 8 + 8] = 1
        save(tmp_path, f"organ{n:02d}", mask)
    masks.read(tmp_path, masks.Options())
    tracemalloc.start()
    volume = masks.read(tmp_path, masks.Options())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(volume.label_names or {}) == 12
    assert peak < 9 * mask.nbytes
