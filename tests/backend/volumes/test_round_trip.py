"""Every orientation, format and kind of voxel, there and exactly back, against SimpleITK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from spad.volumes.axes import to_file_order
from spad.volumes.files import read, write
from spad.volumes.volume import Volume

ORIENTATIONS = {
    "axial RAS": "RAS",
    "axial LPS": "LPS",
    "axial LAS": "LAS",
    "sagittal": "PSR",
    "sagittal ASL": "ASL",
    "coronal": "RSA",
    "slices first": "SPL",
}


@dataclass(frozen=True)
class Kind:
    """How voxels are stored."""

    dtype: str
    suffix: str = ".nii.gz"
    times: int = 0
    scaled: bool = False
    nifti2: bool = False


KINDS = {
    "int16 gz": Kind("<i2"),
    "int16 plain": Kind("<i2", ".nii"),
    "big-endian": Kind(">i2", ".nii"),
    "big-endian gz": Kind(">f4", ".nii.gz"),
    "scaled uint8": Kind("u1", ".nii.gz", scaled=True),
    "scaled big-endian": Kind(">i2", ".nii", scaled=True),
    "float64": Kind("<f8", ".nii"),
    "pair": Kind("<u2", ".hdr"),
    "nifti2": Kind("<i4", ".nii.gz", nifti2=True),
    "4D": Kind("<i2", ".nii.gz", times=3),
    "4D scaled big-endian pair": Kind(">i2", ".img", times=2, scaled=True),
}


def affine_of(letters: str, oblique: bool) -> np.ndarray:
    """Spacing 0.8 x 0.9 x 5 mm with the last axis of the body grid as slices."""
    world = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    matrix = np.zeros((3, 3))
    for axis, letter in enumerate(letters):
        row, sign = world[letter]
        matrix[row, axis] = sign
    if oblique:
        a, b = np.radians(12), np.radians(7)
        turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        matrix = turn_y @ turn_x @ matrix
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag((0.8, 0.9, 5.0))
    affine[:3, 3] = (-31.5, 17.25, -240.75)
    return affine


def make(path: Path, affine: np.ndarray, kind: Kind) -> nibabel.Nifti1Image:
    rng = np.random.default_rng(3)
    shape = (13, 17, 7) + ((kind.times,) if kind.times else ())
    dtype = np.dtype(kind.dtype)
    low = 0 if dtype.kind == "u" else -900
    data = rng.integers(low, 200, shape).astype(dtype)
    if kind.nifti2:
        image = nibabel.Nifti2Image(data, affine)
    elif kind.suffix in (".hdr", ".img"):
        image = nibabel.Nifti1Pair(data, affine)
    else:
        image = nibabel.Nifti1Image(data, affine)
    header = image.header
    header.set_data_dtype(dtype)
    header.set_qform(affine, 1)
    header.set_sform(affine, 2)
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = b"made for a test"
    header["pixdim"][4] = 2.5
    if kind.scaled:
        header.set_slope_inter(1.5, -120.0)
    if dtype.byteorder == ">":
        image = type(image)(data, None, header.as_byteswapped(">"))
        if kind.scaled:
            image.header.set_slope_inter(1.5, -120.0)
    nibabel.save(image, path)
    return nibabel.load(path)


def itk_affine(image: sitk.Image) -> np.ndarray:
    n = image.GetDimension()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(n, n)[:3, :3]
    affine[:3, :3] = direction @ np.diag(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return np.diag([-1, -1, 1, 1]) @ affine


def itk_array(image: sitk.Image) -> np.ndarray:
    """Voxels in GetPixel order (i, j, k[, t])."""
    return sitk.GetArrayFromImage(image).T


def marks(volume: Volume) -> np.ndarray:
    labels = np.zeros(volume.array.shape, np.int64)
    rng = np.random.default_rng(5)
    labels[rng.random(labels.shape) < 0.3] = 1
    labels[rng.random(labels.shape) < 0.1] = 13
    return labels


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("letters", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_there_and_back(tmp_path, kind, letters, oblique):
    path = tmp_path / f"scan{kind.suffix}"
    affine = affine_of(letters, oblique)
    source = make(path, affine, kind)
    # ITK reads no NIfTI-2
    itk = None if kind.nifti2 else sitk.ReadImage(str(path))
    volume = read(path)

    # what was read is what both other readers see, at the same places
    stored = source.get_fdata()
    assert volume.source.shape == source.shape
    assert volume.axes == ("tzyx" if kind.times else "zyx")
    assert volume.spacing[0] == pytest.approx(5.0, rel=1e-5)
    assert volume.is_oblique == oblique
    assert volume.orientation == "".join(nibabel.aff2axcodes(volume.affine))
    values = volume.values()
    back = np.linalg.inv(source.affine) @ volume.affine
    itk_values = stored if itk is None else itk_array(itk)
    if itk is not None:
        np.testing.assert_allclose(itk_affine(itk), volume.source.affine, atol=1e-4)
    for index in np.random.default_rng(1).integers(0, volume.spatial_shape, (20, 3)):
        i, j, k = np.rint(back @ [*index, 1])[:3].astype(int)
        here = values[(..., *index)]
        np.testing.assert_allclose(here, stored[i, j, k], rtol=1e-6)
        np.testing.assert_allclose(here, itk_values[i, j, k], rtol=1e-6)

    # labels made for it overlay it
    labels = marks(volume)
    out = tmp_path / "out_labels.nii.gz"
    write(volume.with_array(labels, label_names={1: "spleen", 13: "liver"}), out)
    written = nibabel.load(out)
    assert written.shape == source.shape
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    for field in ("qform_code", "sform_code", "xyzt_units", "descrip"):
        assert written.header[field] == source.header[field]
    np.testing.assert_array_equal(
        written.header["pixdim"][: 1 + written.ndim], source.header["pixdim"][: 1 + source.ndim]
    )
    np.testing.assert_allclose(written.get_qform(), source.get_qform(), atol=1e-5)
    again = read(out)
    assert again.label_names == {1: "spleen", 13: "liver"}
    np.testing.assert_array_equal(again.array, labels)
    if itk is None:
        assert isinstance(written, nibabel.Nifti2Image)
        return
    itk_out = sitk.ReadImage(str(out))
    assert itk_out.GetSize() == itk.GetSize()
    np.testing.assert_allclose(itk_affine(itk_out), itk_affine(itk), atol=1e-5)
    np.testing.assert_array_equal(itk_array(itk_out), np.asarray(written.dataobj))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".img"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_an_image_keeps_its_stored_integers_and_scaling(tmp_path, kind, suffix):
    source = make(tmp_path / f"scan{kind.suffix}", affine_of("PSR", True), kind)
    volume = read(tmp_path / f"scan{kind.suffix}")
    write(volume, tmp_path / f"copy{suffix}")
    copy = nibabel.load(tmp_path / f"copy{suffix}")
    np.testing.assert_array_equal(copy.get_fdata(), source.get_fdata())
    assert copy.get_data_dtype() == np.dtype(kind.dtype).newbyteorder("<")
    np.testing.assert_array_equal(copy.affine, source.affine)
    again = read(tmp_path / f"copy{suffix}")
    assert (again.slope, again.intercept) == (volume.slope, volume.intercept)
    np.testing.assert_array_equal(again.array, volume.array)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 4), (3, 1)])
def test_form_codes_survive(tmp_path, codes):
    affine = affine_of("LPS", False)
    image = nibabel.Nifti1Image(np.zeros((5, 6, 4), np.int16), affine)
    image.header.set_zooms((0.8, 0.9, 5))
    image.header.set_qform(affine if codes[0] else None, codes[0])
    image.header.set_sform(affine if codes[1] else None, codes[1])
    plain = type(image)(np.zeros((5, 6, 4), np.int16), None, image.header)
    nibabel.save(plain, tmp_path / "a.nii")
    source = nibabel.load(tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    assert bool(volume.notes) == (codes == (0, 0))
    np.testing.assert_allclose(volume.source.affine, source.affine)
    write(volume.with_array(np.ones(volume.array.shape, int), label_names={}), tmp_path / "b.nii")
    written = nibabel.load(tmp_path / "b.nii")
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == codes
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 1, 5), (6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_unusual_shapes_come_back_as_they_were(tmp_path, shape):
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([2, 2, 2, 1])), tmp_path / "a.nii.gz")
    volume = read(tmp_path / "a.nii.gz")
    assert volume.axes == "zyx"
    if 1 in (*shape, *(1,) * (3 - len(shape)))[:3]:
        assert volume.spatial_shape[0] == 1
        assert volume.da == 5
        assert "single slice" in volume.depth_reason
    labels = volume.with_array((volume.array % 3).astype(np.uint8), label_names={1: "a"})
    write(labels, tmp_path / "b.nii.gz")
    written = nibabel.load(tmp_path / "b.nii.gz")
    assert written.shape == shape
    np.testing.assert_array_equal(np.asarray(written.dataobj), data % 3)
    for suffix in (".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd", ".hdr", ".stl"):
        write(labels, tmp_path / f"c{suffix}")
    for suffix in (".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd", ".hdr"):
        again = read(tmp_path / f"c{suffix}")
        stored = to_file_order(again.array, again.source)
        np.testing.assert_array_equal(stored.ravel("F"), (data % 3).ravel("F"))
        np.testing.assert_allclose(again.source.affine, volume.source.affine)
        again = read(write(volume, tmp_path / f"d{suffix.removeprefix('.seg')}"))
        stored = to_file_order(again.array, again.source)
        np.testing.assert_array_equal(stored.ravel("F"), data.ravel("F"))


def test_the_display_window_travels_with_an_image(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header["cal_min"], image.header["cal_max"] = 3, 12.5
    nibabel.save(image, tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    assert volume.window == (3, 12.5)
    write(volume, tmp_path / "b.nii.gz")
    assert read(tmp_path / "b.nii.gz").window == (3, 12.5)
    write(volume.with_array(volume.array > 5, label_names={}), tmp_path / "c.nii")
    assert read(tmp_path / "c.nii").window is None


def test_capital_letters_of_a_name_are_kept(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume.from_array(data, np.eye(4))
    for name in ("A.NII", "A.NII.GZ", "A.HDR", "A.NRRD", "A.NHDR", "A.MHA", "A.MHD"):
        assert write(volume, tmp_path / name).name == name
        again = read(tmp_path / name)
        np.testing.assert_array_equal(to_file_order(again.array, again.source), data.T)


def test_a_step_without_a_unit_is_not_called_seconds(tmp_path):
    volume = Volume.from_array(np.ones((2, 3, 4, 5), np.int16), np.eye(4), axes="tzyx")
    write(volume, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").header.get_xyzt_units() == ("mm", "unknown")
    assert read(tmp_path / "a.nii").time_step == (1, "pixel")


def test_one_labels_volume_for_all_times(tmp_path):
    make(tmp_path / "scan.nii", affine_of("LAS", False), KINDS["4D"])
    volume = read(tmp_path / "scan.nii")
    still = np.zeros(volume.spatial_shape, np.uint8)
    still[2, 3, 4] = 7
    write(volume.with_array(still, label_names={7: "seven"}), tmp_path / "still.nii.gz")
    written = nibabel.load(tmp_path / "still.nii.gz")
    assert written.shape == volume.source.shape[:3]
    assert np.asarray(written.dataobj)[3, 4, 2] == 7


def test_uncompressed_voxels_are_mapped_and_compressed_ones_read_only(tmp_path):
    for suffix in (".nii", ".nii.gz"):
        make(tmp_path / f"a{suffix}", affine_of("RAS", False), Kind("<i2", suffix))
        array = read(tmp_path / f"a{suffix}").array
        assert isinstance(array.base if suffix == ".nii" else array, np.ndarray)
        assert isinstance(array, np.memmap) == (suffix == ".nii")
        assert not array.flags.writeable


@pytest.mark.parametrize(("code", "factor"), [("meter", 1000.0), ("micron", 0.001)])
def test_other_units_of_length_are_brought_to_mm(tmp_path, code, factor):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2, 3, 4, 1]))
    image.header.set_xyzt_units(code)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    assert sorted(volume.spacing) == pytest.approx([2 * factor, 3 * factor, 4 * factor])
    assert "mm" in volume.notes[0]
    write(volume.with_array(np.zeros(volume.array.shape, int), label_names={}), tmp_path / "b.nii")
    written = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.header.get_xyzt_units()[0] == code


def test_extensions_stay_with_images_and_not_with_labels(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"said by a person"))
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read(tmp_path / "a.nii.gz")
    write(volume, tmp_path / "copy.nii.gz")
    extensions = nibabel.load(tmp_path / "copy.nii.gz").header.extensions
    assert "said by a person" in str(extensions[0].get_content())
    write(volume.with_array(volume.array, label_names={}), tmp_path / "labels.nii.gz")
    assert len(nibabel.load(tmp_path / "labels.nii.gz").header.extensions) == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_analyze(tmp_path, order):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    header = nibabel.AnalyzeHeader(endianness=order)
    image = nibabel.AnalyzeImage(data, np.diag([-2, 3, 8, 1]), header)
    image.header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    nibabel.save(image, tmp_path / "a.img")
    for name in ("a.img", "a.hdr"):
        volume = read(tmp_path / name)
        assert volume.source.format == "analyze"
        assert "left and right" in volume.notes[0]
        assert volume.spacing == (8, 2, 3)
        np.testing.assert_array_equal(volume.array.transpose(1, 2, 0), data)
        np.testing.assert_allclose(volume.source.affine, nibabel.load(tmp_path / "a.img").affine)
    write(volume.with_array(data.transpose(2, 0, 1), label_names={1: "x"}), tmp_path / "b.hdr")
    written = nibabel.load(tmp_path / "b.img")
    np.testing.assert_array_equal(np.asarray(written.dataobj), data)
    np.testing.assert_allclose(written.affine, volume.source.affine, atol=1e-5)


def test_made_data_are_written_as_files_have_them(tmp_path):
    affine = np.array([[0, 0, -2, 9], [0, -3, 0, 8], [5, 0, 0, 7], [0, 0, 0, 1]], float)
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    write(Volume.from_array(array, affine), tmp_path / "a.nii.gz")
    itk = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert itk.GetSize() == (6, 5, 4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), array)
    np.testing.assert_allclose(itk_affine(itk), affine[:, [2, 1, 0, 3]])
    again = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(again.array.transpose(0, 2, 1), array)
    assert nibabel.load(tmp_path / "a.nii.gz").header.get_xyzt_units()[0] == "mm"


def test_another_depth_keeps_the_way_back(tmp_path):
    source = make(tmp_path / "scan.nii.gz", affine_of("LPS", True), KINDS["4D"])
    stated = read(tmp_path / "scan.nii.gz", depth=0)
    turned = read(tmp_path / "scan.nii.gz").with_depth(0)
    np.testing.assert_array_equal(stated.array, turned.array)
    np.testing.assert_array_equal(stated.affine, turned.affine)
    assert stated.spacing[0] == pytest.approx(0.8)
    write(turned, tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(
        nibabel.load(tmp_path / "copy.nii.gz").get_fdata(), source.get_fdata()
    )


@pytest.mark.parametrize("case", ["btcv/img0005", "chaos_t2/img10", "totalsegmentator/example_ct"])
def test_real_scans(shared_data, tmp_path, case):
    path = shared_data / f"{case}.nii.gz"
    source, volume = nibabel.load(path), read(path)
    labels = (volume.values() > 60).astype(np.uint8)
    write(volume.with_array(labels, label_names={1: "bright"}), tmp_path / "o.nii.gz")
    written = nibabel.load(tmp_path / "o.nii.gz")
    assert written.shape == source.shape
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(written.dataobj), source.get_fdata() > 60)
    itk, itk_out = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "o.nii.gz"))
    assert itk.GetSize() == itk_out.GetSize()
    np.testing.assert_allclose(itk_affine(itk), itk_affine(itk_out), atol=1e-5)
