"""NIfTI beyond one value per voxel: colours, vectors, times with channels; and sheared grids."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK

from spad.errors import SpadError
from spad.volumes.files import read, write
from spad.volumes.volume import Volume

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
AFFINE = np.array([[0, 0, 3.0, 5], [-0.7, 0, 0, 6], [0, 0.8, 0, 7], [0, 0, 0, 1]])


def random(shape, dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def sheared(degrees=18.0):
    affine = np.diag([-0.8, -0.8, 5.0, 1.0])
    affine[1, 2] = 5.0 * np.tan(np.radians(degrees))
    affine[:3, 3] = 100, 90, -60
    return affine


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr"])
@pytest.mark.parametrize("times", [(), (3,)])
def test_colours(tmp_path, ending, times):
    colours = random((4, 5, 6, *times, 3), np.uint8)
    packed = np.ascontiguousarray(colours).view(RGB)[..., 0]
    kind = nibabel.Nifti1Pair if ending == ".hdr" else nibabel.Nifti1Image
    nibabel.save(kind(packed, AFFINE), tmp_path / f"a{ending}")
    volume = read(tmp_path / f"a{ending}")
    assert volume.rgb
    assert volume.axes == ("tczyx" if times else "czyx")
    depth = volume.source.permutation[-3]
    order = [axis for axis in range(3) if axis != depth]
    wanted = colours.transpose(*range(3, colours.ndim), depth, *order)
    assert np.array_equal(volume.array, wanted)
    write(volume, tmp_path / f"b{ending}")
    again = nibabel.load(tmp_path / f"b{ending}")
    assert again.get_data_dtype() == RGB
    assert np.array_equal(np.asarray(again.dataobj), packed)
    assert np.array_equal(again.affine, nibabel.load(tmp_path / f"a{ending}").affine)


@pytest.mark.parametrize("intent", [1005, 1006, 1007])
def test_the_intent_of_vectors_stays(tmp_path, intent):
    image = nibabel.Nifti1Image(random((4, 5, 6, 1, 3)), AFFINE)
    image.header["intent_code"] = intent
    nibabel.save(image, tmp_path / "a.nii")
    write(read(tmp_path / "a.nii"), tmp_path / "b.nii")
    assert int(nibabel.load(tmp_path / "b.nii").header["intent_code"]) == intent


@pytest.mark.parametrize(("times", "axes"), [(1, "czyx"), (3, "tczyx")])
def test_vectors(tmp_path, times, axes):
    data = random((4, 5, 6, times, 2))
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    assert volume.axes == axes
    assert not volume.rgb
    assert isinstance(volume.array.base, np.memmap) or isinstance(volume.array, np.memmap)
    write(volume, tmp_path / "b.nii")
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "b.nii").dataobj), data)


def test_labels_of_a_picture_in_colour_lie_on_its_three_axes(tmp_path):
    colours = random((4, 5, 6, 3), np.uint8)
    packed = np.ascontiguousarray(colours).view(RGB)[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed, AFFINE), tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    marks = (volume.array[0] > 100).astype(np.int64)
    write(volume.with_array(marks, label_names={1: "red"}), tmp_path / "b.nii.gz")
    again = nibabel.load(tmp_path / "b.nii.gz")
    assert again.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(again.dataobj), colours[..., 0] > 100)
    assert np.array_equal(again.affine, volume.source.affine)


def test_a_sheared_grid_is_stated_by_the_sform_alone(tmp_path):
    affine = sheared()
    array = random((7, 6, 5)).transpose(2, 1, 0)
    volume = Volume.from_array(array, affine[:, [2, 1, 0, 3]])
    assert volume.is_sheared
    write(volume, tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    assert np.allclose(header.get_sform(), affine, atol=1e-5)
    assert np.allclose(header["pixdim"][1:4], np.linalg.norm(affine[:3, :3], axis=0))
    again = read(tmp_path / "a.nii")
    assert np.allclose(again.source.affine, affine, atol=1e-5)
    with pytest.raises(RuntimeError):
        SimpleITK.ReadImage(str(tmp_path / "a.nii"))


def test_a_right_angled_grid_reads_alike_in_itk(tmp_path):
    volume = Volume.from_array(random((7, 6, 5)), AFFINE)
    assert not volume.is_sheared
    write(volume, tmp_path / "a.nii")
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii"))
    index = (3, 2, 1)
    there = volume.source.affine @ (*index, 1)
    assert np.allclose(
        image.TransformIndexToPhysicalPoint(index), there[:3] * (-1, -1, 1), atol=1e-4
    )


def test_a_failed_self_check_keeps_the_old_file(tmp_path, monkeypatch):
    from spad.volumes.files import nifti_writer

    volume = Volume.from_array(random((7, 6, 5)), AFFINE)
    path = write(volume, tmp_path / "a.nii")
    before = path.read_bytes()
    written = nifti_writer._write_voxels

    def spoil(array, file):
        array = array.copy()
        array[2, 2, 2] += 1
        written(array, file)

    monkeypatch.setattr(nifti_writer, "_write_voxels", spoil)
    with pytest.raises(SpadError, match="difference in the voxels"):
        write(volume.with_array(random((7, 6, 5), seed=1)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.parametrize(("row", "column"), [(0, 3), (1, 0), (2, 1)])
def test_a_wrong_affine_is_found(tmp_path, monkeypatch, row, column):
    from spad.volumes.files import nifti_writer

    volume = Volume.from_array(random((7, 6, 5)), AFFINE)
    fresh = nifti_writer._fresh_header

    def spoil(header, volume, array):
        header = fresh(header, volume, array)
        header[f"srow_{'xyz'[row]}"][column] += 2e-5
        return header

    monkeypatch.setattr(nifti_writer, "_fresh_header", spoil)
    with pytest.raises(SpadError, match="difference in the affine"):
        write(volume, tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())
