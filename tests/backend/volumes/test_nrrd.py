"""NRRD in and out: SimpleITK's and pynrrd's files read to the voxel, and the other way round."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import itertools
import time
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import read, write
from spad.volumes.volume import Volume

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
NAMES = {"i1": "int8", "u1": "uchar", "i2": "short", "u2": "unsigned short", "i4": "int"}
NAMES |= {"u4": "uint32", "i8": "long long", "u8": "uint64_t", "f4": "float", "f8": "double"}
SHEAR = ((0.7, 0.0, 0.1), (0.05, 0.8, 0.0), (0.0, 0.9, 3.0))
GEOMETRY = (
    "space: left-posterior-superior\n"
    "space directions: (0.7,0.05,0) (0,0.8,0.9) (0.1,0,3)\n"
    "space origin: (-10.5,20.25,-300)\n"
)


def voxels(dtype: str, shape: tuple[int, ...] = (5, 6, 4)) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0 if np.dtype(dtype).kind == "u" else -100, 100, shape).astype(dtype)


def save(path: Path, header: str, data: bytes, version: str = "NRRD0005") -> Path:
    path.write_bytes(f"{version}\n{header}\n".encode() + data)
    return path


def plain(path: Path, dtype: str = "i2", extra: str = "", **changes: str) -> Path:
    """Write a small file by hand; a change of None leaves a field out."""
    data = voxels(dtype)
    fields = {
        "type": NAMES[dtype],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "5 6 4",
        "space directions": "(0.7,0.05,0) (0,0.8,0.9) (0.1,0,3)",
        "space origin": "(-10.5,20.25,-300)",
        "endian": "little",
        "encoding": "raw",
    } | {key.replace("_", " "): value for key, value in changes.items()}
    lines = "".join(f"{key}: {value}\n" for key, value in fields.items() if value is not None)
    return save(path, lines + extra, data.ravel(order="F").astype(f"<{dtype}").tobytes())


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


def itk_image(dtype: str, channels: int = 0, shear: bool = False) -> sitk.Image:
    shape = (4, 6, 5, channels) if channels else (4, 6, 5)
    image = sitk.GetImageFromArray(voxels(dtype, shape), isVector=bool(channels))
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    if shear:
        turn = np.array(SHEAR) / np.linalg.norm(SHEAR, axis=0)
    image.SetDirection(turn.ravel())
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((-10.5, 20.25, -300.0))
    return image


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes_is_read(tmp_path: Path, dtype: str, packed: bool) -> None:
    image = itk_image(dtype)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"), packed)
    volume = read(tmp_path / "a.nrrd")
    assert volume.source.dtype == np.dtype(dtype)
    assert isinstance(volume.array.base, np.memmap) != packed
    assert volume.notes == ()
    same_world(volume, image)


@pytest.mark.parametrize("channels", [2, 3, 4, 6])
def test_vectors_of_simpleitk_are_channels(tmp_path: Path, channels: int) -> None:
    image = itk_image("u1", channels, shear=True)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = read(tmp_path / "a.nrrd")
    assert volume.axes == "czyx"
    assert volume.rgb == (channels in (3, 4))
    same_world(volume, image)
    write(volume, tmp_path / "b.nrrd")
    again = sitk.ReadImage(str(tmp_path / "b.nrrd"))
    same_world(volume, again)
    assert again.GetNumberOfComponentsPerPixel() == channels


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii", "hex"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_encoding_and_byte_order(
    tmp_path: Path, dtype: str, encoding: str, endian: str
) -> None:
    data = voxels(dtype)
    raw = data.ravel(order="F").astype((">" if endian == "big" else "<") + dtype).tobytes()
    packed = {
        "raw": raw,
        "gzip": gzip.compress(raw),
        "bzip2": bz2.compress(raw),
        "ascii": " ".join(str(v) for v in data.ravel(order="F")).encode() + b"\n",
        "hex": b"\n".join(raw.hex()[at : at + 70].encode() for at in range(0, 2 * len(raw), 70)),
    }[encoding]
    header = (
        f"type: {NAMES[dtype]}\ndimension: 3\nsizes: 5 6 4\n{GEOMETRY}"
        f"encoding: {encoding}\nendian: {endian}\n"
    )
    volume = read(save(tmp_path / "a.nrrd", header, packed))
    np.testing.assert_array_equal(ours(volume), data)
    assert volume.array.dtype.isnative
    if encoding != "hex":  # pynrrd has no hex
        theirs, _ = nrrd.read(str(tmp_path / "a.nrrd"))
        np.testing.assert_array_equal(ours(volume), theirs)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("detached", [False, True])
def test_what_pynrrd_writes_is_read(tmp_path: Path, encoding: str, detached: bool) -> None:
    data = voxels("f4", (2, 5, 6, 4))
    header = {
        "space": "right-anterior-superior",
        "space directions": np.vstack([np.full(3, np.nan), np.array(SHEAR).T]),
        "space origin": (1, 2, 3),
        "space units": ["mm", "mm", "mm"],
        "kinds": ["vector", "space", "space", "space"],
        "labels": ["part", "x axis", "y", "z"],
        "encoding": encoding,
        "sample units": "HU",
        "my key": "my value",
    }
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    nrrd.write(str(path), data, header, detached_header=detached)
    volume = read(path)
    np.testing.assert_array_equal(ours(volume), np.moveaxis(data, 0, -1))
    np.testing.assert_allclose(volume.source.affine[:3, :3], SHEAR)
    np.testing.assert_allclose(volume.source.affine[:3, 3], (1, 2, 3))
    assert (volume.unit, volume.notes) == ("HU", ())
    # labels for it have its place, without the channels
    labels = volume.with_array(np.ones(volume.spatial_shape, np.int64), label_names={1: "liver"})
    for made, count in ((volume, 4), (labels, 3)):
        write(made, tmp_path / "b.nrrd")
        array, again = nrrd.read(str(tmp_path / "b.nrrd"))
        assert array.ndim == count
        assert list(again["labels"]) == header["labels"][4 - count :]
        np.testing.assert_array_equal(
            again["space directions"], header["space directions"][4 - count :]
        )
        assert again["my key"] == "my value"
        assert ("sample units" in again) == (count == 4)


def test_lines_that_end_as_on_windows_and_comments(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nrrd", extra="# a comment: not a field\nkey:=value\n")
    start, data = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes((start + b"\n\n").replace(b"\n", b"\r\n") + data)
    volume = read(path)
    np.testing.assert_array_equal(ours(volume), voxels("i2"))
    assert volume.source.header.pairs == {"key": "value"}


@pytest.mark.parametrize(
    "line", ["labels: one two", "thicknesses: 1", "centerings: cell", "axis mins: 1 2 3 4"]
)
def test_fields_that_do_not_fit_do_not_keep_a_scan_from_being_written(
    tmp_path: Path, line: str
) -> None:
    volume = read(plain(tmp_path / "a.nrrd", extra=f"{line}\n"))
    write(volume, tmp_path / "b.nrrd")
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.nrrd")))


def test_modality_and_unit_travel(tmp_path: Path) -> None:
    volume = Volume.from_array(voxels("i2", (4, 6, 5)), np.eye(4), modality_hint="MR")
    volume = dataclasses.replace(volume, unit="SUV")
    for name in ("a.nrrd", "a.mha"):
        write(volume, tmp_path / name)
        assert read(tmp_path / name).modality == "MR"
    assert read(tmp_path / "a.nrrd").unit == "SUV"


@pytest.mark.parametrize("members", [2, 5])
@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress])
def test_compressed_data_in_several_members(tmp_path: Path, members: int, packer) -> None:
    raw = voxels("i2").ravel(order="F").tobytes()
    step = -(-len(raw) // members)
    data = b"".join(packer(raw[at : at + step]) for at in range(0, len(raw), step))
    encoding = "gzip" if packer is gzip.compress else "bzip2"
    header = f"type: short\ndimension: 3\nsizes: 5 6 4\n{GEOMETRY}endian: little\n"
    volume = read(save(tmp_path / "a.nrrd", f"{header}encoding: {encoding}\n", data))
    np.testing.assert_array_equal(ours(volume), voxels("i2"))


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("scanner-xyz", (-1, -1, 1)),
        ("3D-right-handed", (-1, -1, 1)),
        (None, (-1, -1, 1)),
    ],
)
def test_spaces(tmp_path: Path, space: str | None, signs: tuple[int, ...]) -> None:
    dimension = {} if space else {"space_dimension": "3"}
    path = plain(tmp_path / "a.nrrd", space=space, **dimension)
    if space is None:
        text = path.read_bytes().replace(b"space dimension: 3\n", b"", 1)
        path.write_bytes(text.replace(b"dimension: 3\n", b"dimension: 3\nspace dimension: 3\n", 1))
    volume = read(path)
    expected = np.diag(signs) @ np.column_stack([np.array(SHEAR), (-10.5, 20.25, -300)])
    np.testing.assert_allclose(volume.source.affine[:3], expected, atol=1e-12)
    assert bool(volume.notes) == (space in (None, "scanner-xyz", "3D-right-handed"))
    same_world(volume, sitk.ReadImage(str(path)))
    # written again it lies at the same place for everybody
    write(volume, tmp_path / "b.nrrd")
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.nrrd")))
    np.testing.assert_array_equal(read(tmp_path / "b.nrrd").source.affine, volume.source.affine)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("cm", 10), ("m", 1000), ("um", 0.001)])
def test_space_units(tmp_path: Path, unit: str, factor: float) -> None:
    path = plain(tmp_path / "a.nrrd", space_units=f'"{unit}" "{unit}" "{unit}"')
    volume = read(path)
    expected = np.diag([-1, -1, 1]) @ np.array(SHEAR) * factor
    np.testing.assert_allclose(volume.source.affine[:3, :3], expected)
    assert bool(volume.notes) == (factor != 1)
    write(volume, tmp_path / "b.nrrd")
    # SimpleITK does not heed units, so the new file is in mm
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.nrrd")))


@pytest.mark.parametrize(
    "extra",
    [
        "spacings: 0.5 0.6 3\n",
        "spacings: 0.5 0.6 3\naxis mins: 5 6 7\n",
        "spacings: 0.5 0.6 3\naxis mins: 5 6 7\ncenterings: node node node\n",
        "Spacings:   0.5   0.6  3\nkinds: domain domain domain\n",
        "",
    ],
)
def test_no_directions_are_read_as_itk_does(tmp_path: Path, extra: str) -> None:
    header = f"type: short\ndimension: 3\nsizes: 5 6 4\nendian: little\nencoding: raw\n{extra}"
    path = save(tmp_path / "a.nrrd", header, voxels("i2").ravel(order="F").tobytes())
    volume = read(path)
    assert any("states no directions" in note for note in volume.notes)
    assert any("states no spacing" in note for note in volume.notes) == (extra == "")
    same_world(volume, sitk.ReadImage(str(path)))
    write(volume, tmp_path / "b.nrrd")
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.nrrd")))


@pytest.mark.parametrize("node", [False, True])
def test_spacing_between_lowest_and_highest_place(tmp_path: Path, node: bool) -> None:
    """ITK takes 1 mm here although it places the origin by the right spacing; written anew."""
    ends = "7 11 16" if node else "7.5 12 19"
    header = (
        "type: short\ndimension: 3\nsizes: 5 6 4\nendian: little\nencoding: raw\n"
        f"axis mins: 5 6 7\naxis maxs: {ends}\n"
        f"centerings: {' '.join(['node' if node else 'cell'] * 3)}\n"
    )
    path = save(tmp_path / "a.nrrd", header, voxels("i2").ravel(order="F").tobytes())
    volume = read(path)
    half = 0 if node else 0.5
    expected = np.diag([-0.5, -1, 3, 1])
    expected[:3, 3] = (-5 - 0.5 * half, -6 - half, 7 + 3 * half)
    np.testing.assert_allclose(volume.source.affine, expected)
    write(volume, tmp_path / "b.nrrd")
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.nrrd")))


ORDERS = [
    order
    for letters in ("ijk", "ijkt", "ijkc", "ijktc")
    for order in ("".join(p) for p in itertools.permutations(letters))
    if [c for c in order if c in "ijk"] == ["i", "j", "k"]
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("listed", ["time", "list"])
def test_any_order_of_axes_and_back(tmp_path: Path, order: str, listed: str) -> None:
    sizes = {"i": 5, "j": 6, "k": 4, "t": 3, "c": 2}
    kinds = {"t": listed, "c": "vector"}
    steps = {"i": "(0.7,0.05,0)", "j": "(0,0.8,0.9)", "k": "(0.1,0,3)"}
    data = voxels("i2", tuple(sizes[c] for c in order))
    header = {
        "type": "int16",
        "dimension": len(order),
        "space": "left-posterior-superior",
        "sizes": " ".join(str(sizes[c]) for c in order),
        "space directions": " ".join(steps.get(c, "none") for c in order),
        "kinds": " ".join(kinds.get(c, "space") for c in order),
        "endian": "little",
        "encoding": "raw",
        "space origin": "(1,2,3)",
        "content": "a phantom",
    }
    text = "".join(f"{key}: {value}\n" for key, value in header.items())
    extra = "measurement frame: (1,0,0) (0,1,0) (0,0,1)\nDWMRI_b-value:=1000\nname:=A: b := c\n"
    path = save(tmp_path / "a.nrrd", text + extra, data.ravel(order="F").tobytes())
    volume = read(path)
    logical = "".join(c for c in "ijktc" if c in order)
    assert volume.source.axes == logical
    expected = data.transpose([order.index(c) for c in logical])
    np.testing.assert_array_equal(ours(volume), expected)
    write(volume, tmp_path / "b.nrrd")
    before, after = nrrd.read_header(str(path)), nrrd.read_header(str(tmp_path / "b.nrrd"))
    before["encoding"] = "gzip"
    assert {key: str(value) for key, value in before.items()} == {
        key: str(value) for key, value in after.items()
    }
    np.testing.assert_array_equal(nrrd.read(str(tmp_path / "b.nrrd"))[0], data)


@pytest.mark.parametrize(
    ("kinds", "axes", "rgb"),
    [
        ("RGB-color space space space", "ijkc", True),
        ("space space space 3-color", "ijkc", True),
        ("space space space HSV-color", "ijkc", False),
        ("covariant-vector domain domain domain", "ijkc", False),
        ("list domain domain domain", "ijkt", False),
        ("domain domain domain time", "ijkt", False),
        ("space space space ???", "ijkt", False),
    ],
)
def test_kinds(tmp_path: Path, kinds: str, axes: str, rgb: bool) -> None:
    words = kinds.split()
    first = words[0] not in ("space", "domain")
    sizes = "3 5 6 4" if first else "5 6 4 3"
    steps = "(1,0,0) (0,1,0) (0,0,2)"
    header = (
        f"type: uchar\ndimension: 4\nspace: LPS\nsizes: {sizes}\nencoding: raw\nkinds: {kinds}\n"
        f"space directions: {'none ' + steps if first else steps + ' none'}\n"
        "space origin: (0,0,0)\n"
    )
    data = voxels("u1", tuple(int(n) for n in sizes.split()))
    volume = read(save(tmp_path / "a.nrrd", header, data.ravel(order="F").tobytes()))
    assert (volume.source.axes, volume.rgb) == (axes, rgb)
    expected = np.moveaxis(data, 0, -1) if first else data
    np.testing.assert_array_equal(ours(volume), expected)


def test_four_dimensions_of_simpleitk(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(voxels("i2", (3, 4, 6, 5)), isVector=False)
    image.SetSpacing((0.5, 0.6, 3, 2.5))
    image.SetOrigin((1, 2, 3, 0))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = read(tmp_path / "a.nrrd")
    assert volume.axes == "tzyx"
    assert volume.time_step == (2.5, "pixel")
    for t in range(3):
        one = volume.with_array(volume.array[t])
        same_world(one, image[:, :, :, t])


def test_times_made_in_memory(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array(SHEAR)[:, ::-1]
    volume = Volume.from_array(voxels("f4", (3, 4, 6, 5)), affine, axes="tzyx")
    volume = dataclasses.replace(volume, time_step=(40.0, "ms"))
    write(volume, tmp_path / "a.nrrd")
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    assert image.GetSize() == (5, 6, 4, 3)
    assert image.GetSpacing()[3] == 40
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array)
    again = read(tmp_path / "a.nrrd")
    assert again.time_step == (40.0, "ms")
    np.testing.assert_allclose(again.source.affine, volume.source.affine, atol=1e-12)


@pytest.mark.parametrize("space", ["space dimension: 2\n", ""])
def test_a_slice(tmp_path: Path, space: str) -> None:
    data = voxels("u2", (5, 6))
    steps = "space directions: (0,0.5) (0.6,0)\nspace origin: (3,4)\n"
    header = f"type: ushort\ndimension: 2\n{space}sizes: 5 6\nendian: little\nencoding: raw\n"
    path = save(
        tmp_path / "a.nrrd", header + (steps if space else "spacings: 0.5 0.6\n"), data.tobytes("F")
    )
    volume = read(path)
    assert volume.array.shape == (1, 5, 6)
    assert any("1 mm" in note for note in volume.notes)
    image = sitk.ReadImage(str(path))
    write(volume, tmp_path / "b.nrrd")
    for other in (image, sitk.ReadImage(str(tmp_path / "b.nrrd"))):
        for i, j in itertools.product(range(5), range(6)):
            world = volume.source.affine @ (i, j, 0, 1)
            np.testing.assert_allclose(
                world[:2] * (-1, -1), other.TransformIndexToPhysicalPoint((i, j)), atol=1e-9
            )
            assert other.GetPixel(i, j) == data[i, j]


def test_a_slice_in_three_dimensions(tmp_path: Path) -> None:
    """SimpleITK refuses it; pynrrd is the independent reader then."""
    data = voxels("u2", (5, 6))
    header = (
        "type: ushort\ndimension: 2\nspace: RAS\nsizes: 5 6\nendian: little\nencoding: raw\n"
        "space directions: (0,0,0.5) (0.6,0,0)\nspace origin: (3,4,5)\n"
    )
    volume = read(save(tmp_path / "a.nrrd", header, data.tobytes("F")))
    np.testing.assert_allclose(volume.source.affine @ (2, 3, 0, 1), (3 + 1.8, 4, 5 + 1.0, 1))
    write(volume, tmp_path / "b.nrrd")
    theirs, fields = nrrd.read(str(tmp_path / "b.nrrd"))
    np.testing.assert_array_equal(theirs, data)
    np.testing.assert_array_equal(fields["space directions"], [[0, 0, 0.5], [0.6, 0, 0]])


@pytest.mark.parametrize("skips", ["", "line skip: 2\n", "byte skip: 7\n", "byte skip: -1\n"])
@pytest.mark.parametrize("form", ["one", "LIST", "LIST 2", "LIST 3", "pattern", "pattern 3"])
def test_detached(tmp_path: Path, skips: str, form: str) -> None:
    data = voxels("i2")
    before = b""
    if "line" in skips:
        before = b"a line\nanother\n"
    elif skips:
        before = b"sevenby"
    parts = {"one": 1, "LIST 3": 2, "pattern 3": 2}.get(form, 4)
    names = [f"part{n:03d}.raw" for n in range(10, 10 + 2 * parts, 2)]
    for n, name in enumerate(names):
        share = data[:, :, n * 4 // parts : (n + 1) * 4 // parts]
        (tmp_path / name).write_bytes(before + share.tobytes("F"))
    field = {
        "one": names[0],
        "pattern": f"part%03d.raw 10 {8 + 2 * parts} 2",
        "pattern 3": f"part%03d.raw 10 {8 + 2 * parts} 2 3",
    }.get(form, form + "\n" + "\n".join(names))
    header = (
        f"type: short\ndimension: 3\nsizes: 5 6 4\n{GEOMETRY}endian: little\nencoding: raw\n"
        f"{skips}data file: {field}\n"
    )
    # a list of files goes to the end of the header; an empty line would be the name of one
    path = tmp_path / "a.nhdr"
    path.write_text(f"NRRD0005\n{header}" + ("" if "LIST" in form else "\n"))
    volume = read(path)
    np.testing.assert_array_equal(ours(volume), data)
    if not (form in ("LIST 2", "LIST 3", "pattern 3") and skips):
        same_world(volume, sitk.ReadImage(str(path)))
    (tmp_path / names[-1]).unlink()
    with pytest.raises(SpadError, match="side by side"):
        read(path)


def test_detached_is_written(tmp_path: Path) -> None:
    image = itk_image("i2", shear=True)
    sitk.WriteImage(image, str(tmp_path / "a.nhdr"), True)
    volume = read(tmp_path / "a.nhdr")
    same_world(volume, image)
    write(volume, tmp_path / "b.nhdr")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("a.nhdr", "a.raw.gz", "b.nhdr", "b.raw.gz")
    ]
    same_world(volume, sitk.ReadImage(str(tmp_path / "b.nhdr")))


def test_byte_skip_within_compressed_data(tmp_path: Path) -> None:
    raw = b"sevenby" + voxels("i2").tobytes("F")
    (tmp_path / "a.raw.gz").write_bytes(b"first line\n" + gzip.compress(raw))
    header = (
        f"type: short\ndimension: 3\nsizes: 5 6 4\n{GEOMETRY}endian: little\nencoding: gz\n"
        "lineskip: 1\nbyteskip: 7\ndatafile: a.raw.gz\n"
    )
    volume = read(save(tmp_path / "a.nhdr", header, b""))
    np.testing.assert_array_equal(ours(volume), voxels("i2"))
    same_world(volume, sitk.ReadImage(str(tmp_path / "a.nhdr")))


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "stored"),
    [
        (1.0, -1024.0, "i2", "u2"),
        (2.0, 0.0, "i4", "i2"),
        (1.0, 0.0, "u1", "u1"),
        (400 / 255, -125.0, "f4", "u1"),
        (0.1, 0.0, "f8", "i4"),
    ],
)
def test_slope_and_intercept_become_values(
    tmp_path: Path, slope: float, intercept: float, dtype: str, stored: str
) -> None:
    array = voxels(stored, (4, 6, 5))
    array[0, 0, 0] = np.iinfo(stored).max // (70 if stored == "u2" else 1)
    volume = Volume.from_array(array, np.diag([2.0, 1, 1, 1]), slope=slope, intercept=intercept)
    for name in ("a.nrrd", "a.mha", "a.mhd"):
        write(volume, tmp_path / name)
        image = sitk.ReadImage(str(tmp_path / name))
        theirs = sitk.GetArrayFromImage(image)
        assert theirs.dtype == np.dtype(dtype)
        np.testing.assert_allclose(theirs, array * slope + intercept, rtol=1e-7, atol=1e-5)
        again = read(tmp_path / name, depth=2)
        np.testing.assert_allclose(again.values().transpose(0, 2, 1), volume.values(), atol=1e-5)


def test_keys_with_any_letters_travel(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nrrd", extra="patient:=Müller\\nSüß \\\\ 山\nDICOM:x: y:=1\n")
    volume = read(path)
    assert volume.source.header.pairs == {"patient": "Müller\nSüß \\ 山", "DICOM:x: y": "1"}
    write(volume, tmp_path / "b.nrrd")
    assert read(tmp_path / "b.nrrd").source.header.pairs == volume.source.header.pairs


def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "nrrd").glob("*.nrrd"))
    assert files
    for file in files:
        volume = read(file)
        image = sitk.ReadImage(str(file))
        same_world(volume, image)
        assert volume.is_labels == ("label" in file.name)
        write(volume, tmp_path / file.name)
        again = sitk.ReadImage(str(tmp_path / file.name))
        same_world(volume, again)
        assert again.GetDirection() == image.GetDirection()
        assert again.GetSpacing() == image.GetSpacing()
        assert again.GetOrigin() == image.GetOrigin()


REFUSED = {
    "zero spacing": ({"space_directions": "(0,0,0) (0,1,0) (0,0,1)"}, "voxel steps"),
    "infinite": ({"space_directions": "(inf,0,0) (0,1,0) (0,0,1)"}, "voxel steps"),
    "half NaN": ({"space_directions": "(nan,0,1) (0,1,0) (0,0,1)"}, "voxel steps"),
    "huge": ({"space_directions": "(1e300,0,0) (0,1e300,0) (0,0,1)"}, "voxel steps"),
    "singular": ({"space_directions": "(1,0,0) (2,0,0) (0,0,1)"}, "inverted"),
    "one direction": ({"space_directions": "(1,0,0) none none"}, "two or three"),
    "two for three": ({"space_directions": "(1,0,0) (0,1,0)"}, "one per axis"),
    "flat vectors": ({"space_directions": "(1,0) (0,1) (1,1)"}, "as many"),
    "no vectors": ({"space_directions": "1 0 0 0 1 0"}, "cannot be used"),
    "far origin": ({"space_origin": "(1e30,0,0)"}, "first voxel"),
    "NaN origin": ({"space_origin": "(nan,0,0)"}, "voxel steps"),
    "no type": ({"type": None}, "'type'"),
    "odd type": ({"type": "block"}, "of type 'block'"),
    "long double": ({"type": "long double"}, "of type"),
    "no byte order": ({"endian": None}, "byte order"),
    "odd byte order": ({"endian": "middle"}, "byte order"),
    "odd encoding": ({"encoding": "zstd"}, "encoding 'zstd'"),
    "zero size": ({"sizes": "5 0 4"}, "from 1 to"),
    "negative size": ({"sizes": "5 -6 4"}, "from 1 to"),
    "text size": ({"sizes": "5 six 4"}, "from 1 to"),
    "few sizes": ({"sizes": "5 6"}, "one number per axis"),
    "huge sizes": ({"sizes": "2000000000 2000000000 2000000000"}, "can have"),
    "large sizes": ({"sizes": "20000 20000 20000"}, "claims 16000000000000"),
    "large gzip": ({"sizes": "20000 20000 20000", "encoding": "gzip"}, "at most"),
    "large bzip2": ({"sizes": "2000 2000 2000", "encoding": "bzip2"}, "damaged"),
    "large text": ({"sizes": "2000 2000 2000", "encoding": "text"}, "at most"),
    "large hex": ({"sizes": "2000 2000 2000", "encoding": "hex"}, "at most"),
    "five axes": ({"dimension": "17"}, "from 1 to 16"),
    "odd space": ({"space": "outer"}, "'outer'"),
    "complex": ({"kinds": "complex domain domain"}, "complex"),
    "twice": ({"Sizes": "5 6 4"}, "twice"),
    "unknown field": ({"spice": "hot"}, "does not know"),
    "long skip": ({"byte_skip": "99999"}, "holds 0 bytes"),
    "odd skip": ({"byte_skip": "-2"}, "from -1"),
    "absent data": ({"data_file": "not-there.raw"}, "does not exist"),
    "long name": ({"data_file": "x" * 5000}, "does not exist"),
    "folder as data": ({"data_file": ".."}, "does not exist"),
    "bad pattern": ({"data_file": "a%s.raw 1 4 1"}, "%d"),
    "wide pattern": ({"data_file": "a%999999999d.raw 1 4 1"}, "%d"),
    "long pattern": ({"data_file": "a%d.raw 1 999999999 1"}, "%d"),
    "few files": ({"data_file": "a%d.raw 1 3 1"}, "expected 4"),
    "not gzip": ({"encoding": "gzip"}, "damaged"),
    "not hex": ({"encoding": "hex", "sizes": "2 2 2"}, "0-9"),
    "not text": ({"encoding": "text", "sizes": "2 2 2"}, "not numbers"),
}


def test_a_text_of_windows_is_one_line(tmp_path: Path) -> None:
    """Its letters are no UTF-8; 0x85, an ellipsis there, is a line's end in Unicode."""
    path = plain(tmp_path / "a.nrrd", extra="# begun XX done\ncontent: begun XX done\nkey:=XX, b\n")
    path.write_bytes(path.read_bytes().replace(b"XX", b"\xe9\x85"))
    volume = read(path)
    np.testing.assert_array_equal(ours(volume), voxels("i2"))
    assert volume.source.header.pairs["key"] == "\u00e9\x85, b"
    np.testing.assert_array_equal(ours(read(write(volume, tmp_path / "b.nrrd"))), voxels("i2"))


@pytest.mark.parametrize("space", ["left-posterior-superior-time", "RAST", "LAST"])
def test_spaces_with_time_are_written_again(tmp_path: Path, space: str) -> None:
    header = (
        f"type: short\ndimension: 4\nspace: {space}\nsizes: 5 6 4 2\nendian: little\n"
        "space directions: (0.7,0,0,0) (0,0.8,0,0) (0,0,3,0) (0,0,0,2)\nencoding: raw\n"
        "kinds: domain domain domain time\nspace origin: (1,2,3,0)\n"
    )
    data = voxels("i2", (5, 6, 4, 2))
    volume = read(save(tmp_path / "a.nrrd", header, data.tobytes("F")))
    again = read(write(volume, tmp_path / "b.nrrd"))
    np.testing.assert_allclose(again.source.affine, volume.source.affine)
    np.testing.assert_array_equal(ours(again), data)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    path = plain(tmp_path / "a.nrrd", **changes)
    began = time.perf_counter()
    with pytest.raises(SpadError) as raised:
        read(path)
    text = str(raised.value)
    assert words in text
    assert text.startswith(str(tmp_path))
    assert text.endswith(".")
    assert time.perf_counter() - began < 2


def test_not_a_header(tmp_path: Path) -> None:
    for data in (b"NRRD9999\n\n", b"this is no scan\n" * 99, b"\0" * 5000, b"NRRD0004", b"\n\n\n"):
        (tmp_path / "a.nrrd").write_bytes(data)
        with pytest.raises(SpadError):
            read(tmp_path / "a.nrrd")
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n" + b"a:=b" * 3_000_000)
    with pytest.raises(SpadError, match="without an end"):
        read(tmp_path / "a.nrrd")


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_truncated_anywhere(tmp_path: Path, encoding: str) -> None:
    image = itk_image("i2")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"), encoding == "gzip")
    whole = (tmp_path / "a.nrrd").read_bytes()
    for at in range(1, len(whole), 3):
        (tmp_path / "b.nrrd").write_bytes(whole[:at])
        with pytest.raises(SpadError):
            read(tmp_path / "b.nrrd")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "text"])
def test_flipped_bytes_give_a_volume_or_a_sentence(tmp_path: Path, encoding: str) -> None:
    path = plain(tmp_path / "a.nrrd", kinds="domain domain domain", encoding=encoding)
    start, raw = path.read_bytes().split(b"\n\n", 1)
    raw = {"raw": raw, "gzip": gzip.compress(raw), "text": b"1 2 3 4 5 6\n" * 20}[encoding]
    whole = start + b"\n\n" + raw
    rng = np.random.default_rng(3)
    refused = 0
    for at, bit in enumerate(rng.integers(0, 8, len(whole))):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(bit)
        (tmp_path / "b.nrrd").write_bytes(bytes(damaged))
        sentence = str(tmp_path)
        try:
            assert isinstance(read(tmp_path / "b.nrrd"), Volume)
        except SpadError as error:
            refused += 1
            sentence = str(error)
        assert sentence.startswith(str(tmp_path))
    assert refused > len(start) // 4


def test_more_data_than_claimed_is_noted(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nrrd", sizes="5 6 3")
    assert any("60 bytes more" in note for note in read(path).notes)


def test_a_large_file_is_mapped_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    header = (
        "type: short\ndimension: 3\nsizes: 512 512 300\nspace: left-posterior-superior\n"
        "space directions: (0.7,0,0) (0,0.7,0) (0,0,2.5)\nspace origin: (0,0,0)\n"
        "endian: little\nencoding: raw\n"
    )
    save(path, header, b"")
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + 512 * 512 * 300 * 2)
    read(plain(tmp_path / "small.nrrd"))
    began = time.perf_counter()
    volume = read(path)
    assert volume.array[150].max() == 0
    assert time.perf_counter() - began < 0.2
