"""MetaImage in and out: SimpleITK's files are read to the voxel, and the other way round."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import read, write
from spad.volumes.volume import Volume

TYPES = {"i1": "CHAR", "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT"}
TYPES |= {"i8": "LONG_LONG", "u8": "ULONG_LONG", "f4": "FLOAT", "f8": "DOUBLE"}
SHEAR = np.array([[0.7, 0.0, 0.1], [0.05, 0.8, 0.0], [0.0, 0.9, 3.0]])
TURNED = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0] * (0.7, 0.8, 3.0)


def voxels(dtype: str, shape: tuple[int, ...] = (5, 6, 4)) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0 if np.dtype(dtype).kind == "u" else -100, 100, shape).astype(dtype)


def plain(path: Path, data: bytes | None = None, **changes: str | None) -> Path:
    """Write a small file by hand; a change of None leaves a field out."""
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "0 1 0 0 0 1 1 0 0",
        "Offset": "1 2 3",
        "ElementSpacing": "0.7 0.8 3",
        "DimSize": "5 6 4",
        "ElementType": "MET_SHORT",
    }
    last = changes.pop("ElementDataFile", "LOCAL")
    fields = (fields | changes) | {"ElementDataFile": last}
    text = "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)
    path.write_bytes(text.encode() + (voxels("i2").tobytes("F") if data is None else data))
    return path


def ours(volume: Volume) -> np.ndarray:
    return np.asarray(to_file_order(volume.array, volume.source))


def same_world(volume: Volume, image: sitk.Image) -> None:
    """Look up 500 random points of the world in both."""
    rng = np.random.default_rng(2)
    shape = np.array(volume.source.shape[:3])
    index = rng.uniform(-0.49, shape - 0.51, (500, 3))
    world = index @ volume.source.affine[:3, :3].T + volume.source.affine[:3, 3]
    stored = ours(volume)
    for at, point in zip(index, world, strict=True):
        mine = stored[tuple(np.rint(at).astype(int))]
        lps = (-point[0], -point[1], point[2])
        theirs = image.GetPixel(image.TransformPhysicalPointToIndex(lps))
        np.testing.assert_allclose(np.ravel(mine), np.ravel(theirs))


def itk_image(dtype: str, matrix: np.ndarray = TURNED, channels: int = 0) -> sitk.Image:
    shape = (4, 6, 5, channels) if channels else (4, 6, 5)
    image = sitk.GetImageFromArray(voxels(dtype, shape), isVector=bool(channels))
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetDirection((matrix / spacing).ravel())
    image.SetSpacing(spacing)
    image.SetOrigin((-10.5, 20.25, -300.0))
    return image


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_what_simpleitk_writes_is_read(
    tmp_path: Path, dtype: str, packed: bool, suffix: str
) -> None:
    image = itk_image(dtype)
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"), packed)
    volume = read(tmp_path / f"a{suffix}")
    assert volume.source.dtype == np.dtype(dtype)
    assert volume.source.format == "mha"
    assert isinstance(volume.array.base, np.memmap) != packed
    assert volume.notes == ()
    same_world(volume, image)
    write(volume, tmp_path / f"b{suffix}")
    again = sitk.ReadImage(str(tmp_path / f"b{suffix}"))
    assert again.GetPixelID() == image.GetPixelID()
    assert again.GetDirection() == image.GetDirection()
    same_world(volume, again)


@pytest.mark.parametrize("matrix", [TURNED, SHEAR, SHEAR[:, ::-1]])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_any_shear_from_memory(tmp_path: Path, matrix: np.ndarray, suffix: str) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, (1.5, -2.25, 1000.125)
    volume = Volume.from_array(voxels("f4", (4, 6, 5)), affine)
    write(volume, tmp_path / f"a{suffix}")
    same_world(volume, sitk.ReadImage(str(tmp_path / f"a{suffix}")))
    again = read(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(again.source.affine, volume.source.affine, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [2, 3, 4, 6])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_channels(tmp_path: Path, channels: int, dtype: str) -> None:
    image = itk_image(dtype, SHEAR, channels)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    volume = read(tmp_path / "a.mha")
    assert volume.axes == "czyx"
    assert volume.rgb == (dtype == "u1" and channels in (3, 4))
    same_world(volume, image)
    for name in ("b.mha", "b.nrrd"):
        write(volume, tmp_path / name)
        again = sitk.ReadImage(str(tmp_path / name))
        same_world(volume, again)
        assert again.GetNumberOfComponentsPerPixel() == channels
        assert read(tmp_path / name).rgb == volume.rgb


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_times(tmp_path: Path, channels: int, suffix: str) -> None:
    shape = (3, 4, 6, 5, 2) if channels else (3, 4, 6, 5)
    image = sitk.GetImageFromArray(voxels("i2", shape), isVector=bool(channels))
    image.SetSpacing((0.5, 0.6, 3, 2.5))
    image.SetOrigin((1, 2, 3, 7))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    volume = read(tmp_path / "a.mha")
    assert volume.axes == ("tczyx" if channels else "tzyx")
    assert volume.time_step == (2.5, "pixel")
    volume = dataclasses.replace(volume, time_step=(2.5, "s"))
    write(volume, tmp_path / f"b{suffix}")
    again = sitk.ReadImage(str(tmp_path / f"b{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(again.GetSpacing(), image.GetSpacing())
    np.testing.assert_allclose(again.GetOrigin()[:3], image.GetOrigin()[:3])
    back = read(tmp_path / f"b{suffix}")
    assert back.time_step == (2.5, "s")
    np.testing.assert_array_equal(ours(back), ours(volume))
    # labels for it are one map, on its grid
    labels = volume.with_array(np.ones(volume.spatial_shape, np.int64), label_names={1: "liver"})
    write(labels, tmp_path / f"c{suffix}")
    assert sitk.ReadImage(str(tmp_path / f"c{suffix}")).GetSize() == (5, 6, 4)
    assert read(tmp_path / f"c{suffix}").label_names == {1: "liver"}


def test_a_slice(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(voxels("u2", (6, 5)))
    image.SetSpacing((0.5, 0.6))
    image.SetOrigin((3, 4))
    image.SetDirection((0, -1, 1, 0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    volume = read(tmp_path / "a.mha")
    assert volume.array.shape[0] == 1
    assert any("1 mm" in note for note in volume.notes)
    write(volume, tmp_path / "b.mha")
    for other in (image, sitk.ReadImage(str(tmp_path / "b.mha"))):
        for i, j in itertools.product(range(5), range(6)):
            world = volume.source.affine @ (i, j, 0, 1)
            np.testing.assert_allclose(
                world[:2] * (-1, -1), other.TransformIndexToPhysicalPoint((i, j)), atol=1e-9
            )
            assert other.GetPixel(i, j) == ours(volume)[i, j, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TransformMatrix": None},
        {"TransformMatrix": None, "Rotation": "0 1 0 0 0 1 1 0 0"},
        {"TransformMatrix": None, "Orientation": "0 1 0 0 0 1 1 0 0"},
        {"Offset": None, "Position": "1 2 3"},
        {"Offset": None, "Origin": "1 2 3"},
        {"ElementSpacing": None, "ElementSize": "0.7 0.8 3"},
        {"ElementSpacing": None},
        {"ElementSize": "9 9 9"},
        {"CenterOfRotation": "10 20 30", "AnatomicalOrientation": "RAS"},
        {"TransformMatrix": "2 0 0 0 1 0 0 0.5 1"},
        {"BinaryDataByteOrderMSB": "True"},
        {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"},
        {"BinaryData": None, "BinaryDataByteOrderMSB": None, "ObjectType": None},
        {"HeaderSize": "-1"},
        {"Comment": "made = by: hand", "Foo Bar": "7"},
        {"ElementType": "MET_LONG", "DimSize": "5 3 4"},
        {"ElementType": "MET_UINT", "DimSize": "5 3 4"},
        {"ElementType": "MET_UCHAR", "DimSize": "5 6 8"},
    ],
)
def test_fields_mean_what_they_mean_to_itk(tmp_path: Path, changes: dict) -> None:
    path = plain(tmp_path / "a.mha", **changes)
    volume = read(path)
    image = sitk.ReadImage(str(path))
    same_world(volume, image)
    write(volume, tmp_path / "b.mha")
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.mha")))
    if "Comment" in changes:
        kept = read(tmp_path / "b.mha").source.header.fields
        assert kept["Comment"] == "made = by: hand"
        assert kept["Foo Bar"] == "7"


@pytest.mark.parametrize("packer", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("stated", [True, False])
def test_compressed_data(tmp_path: Path, packer, stated: bool) -> None:
    data = packer(voxels("i2").tobytes("F"))
    size = {"CompressedDataSize": str(len(data))} if stated else {}
    path = plain(tmp_path / "a.mha", data, CompressedData="True", **size)
    np.testing.assert_array_equal(ours(read(path)), voxels("i2"))
    path = plain(tmp_path / "a.mha", data[:-9], CompressedData="True", **size)
    with pytest.raises(SpadError, match="complete file"):
        read(path)


@pytest.mark.parametrize("dtype", TYPES)
def test_text(tmp_path: Path, dtype: str) -> None:
    data = voxels(dtype)
    text = " ".join(str(v) for v in data.ravel(order="F")).encode() + b"\n"
    path = plain(tmp_path / "a.mha", text, BinaryData="False", ElementType=f"MET_{TYPES[dtype]}")
    np.testing.assert_array_equal(ours(read(path)), data)
    if dtype not in ("i1", "u1"):  # SimpleITK takes each digit for a voxel then
        same_world(read(path), sitk.ReadImage(str(path)))


@pytest.mark.parametrize("form", ["one", "LIST", "LIST 2D", "pattern", "pattern without step"])
@pytest.mark.parametrize("skip", [None, "7", "-1"])
def test_detached(tmp_path: Path, form: str, skip: str | None) -> None:
    data = voxels("i2")
    parts = 1 if form == "one" else 4
    names = [f"part{n:03d}.raw" for n in range(10, 10 + parts)]
    for n, name in enumerate(names):
        share = data if parts == 1 else data[:, :, n]
        (tmp_path / name).write_bytes((b"sevenby" if skip else b"") + share.tobytes("F"))
    field = {
        "one": names[0],
        "pattern": "part%03d.raw 10 13 1",
        "pattern without step": "part%03d.raw 10 13",
    }.get(form, form + "\n" + "\n".join(names))
    path = plain(tmp_path / "a.mhd", b"", ElementDataFile=field, HeaderSize=skip)
    volume = read(path)
    np.testing.assert_array_equal(ours(volume), data)
    if form != "pattern without step":  # SimpleITK divides by zero there, which ends the process
        same_world(volume, sitk.ReadImage(str(path)))
    (tmp_path / names[-1]).unlink()
    with pytest.raises(SpadError, match="side by side"):
        read(path)


def test_scaling_units_and_modality(tmp_path: Path) -> None:
    path = plain(
        tmp_path / "a.mha",
        ElementToIntensityFunctionSlope="2",
        ElementToIntensityFunctionOffset="-1",
        DistanceUnits="cm",
        Modality="MET_MOD_CT",
    )
    volume = read(path)
    assert (volume.slope, volume.intercept, volume.modality_hint) == (2, -1, "CT")
    np.testing.assert_allclose(np.linalg.norm(volume.source.affine[:3, :3], axis=0), (7, 8, 30))
    assert len(volume.notes) == 2
    write(volume, tmp_path / "b.mha")
    image = sitk.ReadImage(str(tmp_path / "b.mha"))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(image).T, voxels("i2").astype(float) * 2 - 1
    )
    np.testing.assert_allclose(image.GetSpacing(), (7, 8, 30))
    assert read(tmp_path / "b.mha").modality_hint == "CT"


def test_names_of_labels_go_beside_the_file(tmp_path: Path) -> None:
    names = {1: "Leber ü", 300: "Milz"}
    labels = Volume.from_array(
        np.array([0, 1, 300] * 40).reshape(4, 6, 5), np.eye(4), label_names=names
    )
    write(labels, tmp_path / "a.mha")
    assert sitk.ReadImage(str(tmp_path / "a.mha")).GetPixelIDTypeAsString() == (
        "16-bit signed integer"
    )
    assert (tmp_path / "a.labels.json").is_file()
    assert read(tmp_path / "a.mha").label_names == names


REFUSED = {
    "zero spacing": ({"ElementSpacing": "0 1 1"}, "positive"),
    "negative spacing": ({"ElementSpacing": "-1 1 1"}, "positive"),
    "NaN spacing": ({"ElementSpacing": "nan 1 1"}, "positive"),
    "infinite spacing": ({"ElementSpacing": "inf 1 1"}, "positive"),
    "huge spacing": ({"ElementSpacing": "1e300 1 1"}, "voxel steps"),
    "two spacings": ({"ElementSpacing": "1 1"}, "3 number(s)"),
    "text spacing": ({"ElementSpacing": "a b c"}, "3 number(s)"),
    "zero column": ({"TransformMatrix": "0 0 0 0 1 0 0 0 1"}, "voxel steps"),
    "singular": ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "inverted"),
    "NaN matrix": ({"TransformMatrix": "nan 0 0 0 1 0 0 0 1"}, "voxel steps"),
    "small matrix": ({"TransformMatrix": "1 0 0 1"}, "9 number(s)"),
    "two matrices": ({"Rotation": "1 0 0 0 1 0 0 0 1"}, "different values"),
    "two places": ({"Position": "7 7 7"}, "different values"),
    "far": ({"Offset": "1e30 0 0"}, "first voxel"),
    "no axes": ({"NDims": None}, "'ndims'"),
    "one axis": ({"NDims": "1", "DimSize": "5"}, "2 to 4"),
    "five axes": ({"NDims": "5", "DimSize": "5 1 1 1 1"}, "2 to 4"),
    "many axes": ({"NDims": "99999999999999999999999999999"}, "from 1"),
    "zero size": ({"DimSize": "5 0 4"}, "from 1"),
    "few sizes": ({"DimSize": "5 6"}, "one number per axis"),
    "huge sizes": ({"DimSize": "2000000000 2000000000 2000000000"}, "can have"),
    "large sizes": ({"DimSize": "20000 20000 20000"}, "claims 16000000000000"),
    "large packed": ({"DimSize": "20000 20000 20000", "CompressedData": "True"}, "at most"),
    "large text": ({"DimSize": "20000 20000 20000", "BinaryData": "False"}, "at most"),
    "packed size": ({"CompressedData": "True", "CompressedDataSize": "9999999"}, "claims 9999999"),
    "not packed": ({"CompressedData": "True"}, "damaged"),
    "no type": ({"ElementType": None}, "'elementtype'"),
    "odd type": ({"ElementType": "MET_STRING"}, "'MET_STRING'"),
    "array type": ({"ElementType": "MET_FLOAT_ARRAY"}, "'MET_FLOAT_ARRAY'"),
    "channels": ({"ElementNumberOfChannels": "0"}, "from 1"),
    "many channels": ({"ElementNumberOfChannels": "1000000"}, "claims"),
    "another object": ({"ObjectType": "Mesh"}, "'Mesh'"),
    "odd flag": ({"BinaryDataByteOrderMSB": "maybe"}, "True or False"),
    "long skip": ({"HeaderSize": "99999"}, "holds 0 bytes"),
    "short skip": ({"HeaderSize": "10"}, "within its header"),
    "odd skip": ({"HeaderSize": "-5"}, "from -1"),
    "absent": ({"ElementDataFile": "not-there.raw"}, "side by side"),
    "folder": ({"ElementDataFile": ".."}, "side by side"),
    "bad pattern": ({"ElementDataFile": "a%s.raw 1 4 1"}, "%d"),
    "wide pattern": ({"ElementDataFile": "a%999999999d.raw 1 4 1"}, "%d"),
    "long pattern": ({"ElementDataFile": "a%d.raw 1 999999999 1"}, "%d"),
    "few files": ({"ElementDataFile": "a%d.raw 1 3 1"}, "expected 4"),
    "slope": ({"ElementToIntensityFunctionSlope": "0"}, "other than 0"),
    "twice": ({"dimsize": "5 6 4"}, "twice"),
    "mixed": (
        {"NDims": "4", "DimSize": "5 6 2 2", "ElementSpacing": "1 1 1 1", "Offset": "0 0 0 0"}
        | {"TransformMatrix": "1 0 0 0 0 1 0 0 0 0 0 1 0 0 1 0"},
        "space and time",
    ),
}


def test_a_text_of_windows_is_one_line(tmp_path: Path) -> None:
    """Its letters are no UTF-8; 0x85, an ellipsis there, is a line's end in Unicode."""
    path = plain(tmp_path / "a.mha", Comment="begun XX done")
    path.write_bytes(path.read_bytes().replace(b"XX", b"\xe9\x85"))
    np.testing.assert_array_equal(ours(read(path)), voxels("i2"))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    path = plain(tmp_path / "a.mha", **changes)
    began = time.perf_counter()
    with pytest.raises(SpadError) as raised:
        read(path)
    text = str(raised.value)
    assert words in text
    assert text.startswith(str(tmp_path))
    assert text.endswith(".")
    assert time.perf_counter() - began < 2


def test_not_a_header(tmp_path: Path) -> None:
    for data in (b"\0" * 9000, b"this is no scan\n" * 99, b"NDims = 3\n", b"= = =\n:::\n"):
        (tmp_path / "a.mha").write_bytes(data)
        with pytest.raises(SpadError):
            read(tmp_path / "a.mha")
    (tmp_path / "a.mha").write_bytes(b"NDims = 3\n" * 1_000_000)
    with pytest.raises(SpadError, match="without an end"):
        read(tmp_path / "a.mha")


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_anywhere(tmp_path: Path, packed: bool) -> None:
    sitk.WriteImage(itk_image("i2"), str(tmp_path / "a.mha"), packed)
    whole = (tmp_path / "a.mha").read_bytes()
    for at in range(1, len(whole), 3):
        (tmp_path / "b.mha").write_bytes(whole[:at])
        with pytest.raises(SpadError):
            read(tmp_path / "b.mha")


@pytest.mark.parametrize("packed", [False, True])
def test_flipped_bytes_give_a_volume_or_a_sentence(tmp_path: Path, packed: bool) -> None:
    sitk.WriteImage(itk_image("i2"), str(tmp_path / "a.mha"), packed)
    whole = (tmp_path / "a.mha").read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for at, bit in enumerate(rng.integers(0, 8, len(whole))):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(bit)
        (tmp_path / "b.mha").write_bytes(bytes(damaged))
        sentence = str(tmp_path)
        try:
            assert isinstance(read(tmp_path / "b.mha"), Volume)
        except SpadError as error:
            refused += 1
            sentence = str(error)
        assert sentence.startswith(str(tmp_path))
    assert refused > 50
