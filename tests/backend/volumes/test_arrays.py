"""numpy files: axes from the last to the first, spacing stated, nothing taken on trust."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import read

SCAN = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
SPACING = (0.5, 0.75, 3.0)


def in_file_order(path: Path, **options: object) -> np.ndarray:
    volume = read(path, **{"spacing": SPACING, **options})
    return np.asarray(to_file_order(volume.array, volume.source))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "u1", "<f2", "?", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_last_axis_is_i(tmp_path, dtype, order):
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(SCAN.astype(dtype), order=order))
    volume = read(path, spacing=SPACING)
    assert np.array_equal(to_file_order(volume.array, volume.source), SCAN.astype(dtype).T)
    assert volume.source.shape == (6, 5, 4)
    assert volume.source.affine.diagonal().tolist() == [-0.5, -0.75, 3, 1]
    assert volume.array.dtype.isnative
    assert volume.source.format == "numpy"
    assert any("(z, y, x)" in note for note in volume.notes)


def test_a_memory_map(tmp_path):
    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=(500, 1000, 1000)).flush()
    volume = read(path, spacing=SPACING)
    assert isinstance(volume.array, np.memmap)
    assert not volume.array.flags.writeable


def test_fewer_and_more_axes(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, SCAN[0])
    assert in_file_order(path, spacing=(1, 2)).shape == (6, 5, 1)
    data = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.int32).reshape(2, 3, 4, 5, 6)
    np.save(path, data[:, 0])
    volume = read(path, spacing=SPACING)
    assert volume.axes == "tzyx"
    assert np.array_equal(in_file_order(path), data[:, 0].transpose(3, 2, 1, 0))
    np.save(path, data)
    assert read(path, spacing=SPACING).axes == "tczyx"
    assert np.array_equal(in_file_order(path), data.transpose(4, 3, 2, 0, 1))
    np.save(path, SCAN[None])
    assert read(path, spacing=SPACING).axes == "zyx"


def test_colours(tmp_path):
    path = tmp_path / "a.npy"
    colours = np.arange(4 * 15 * 16 * 3, dtype=np.int64).reshape(4, 15, 16, 3).astype(np.uint8)
    np.save(path, colours)
    volume = read(path, spacing=SPACING)
    assert volume.rgb
    assert np.array_equal(in_file_order(path), colours.transpose(2, 1, 0, 3))
    assert any("read as colours" in note for note in volume.notes)
    np.save(path, colours[0] % 5)
    assert not read(path, labels=True, spacing=SPACING).rgb
    np.save(path, colours.astype(np.int16))
    assert read(path, spacing=SPACING).axes == "tzyx"


def test_without_spacing(tmp_path):
    np.save(tmp_path / "a.npy", SCAN)
    with pytest.raises(SpadError, match=r"states no spacing .* --spacing on the command line"):
        read(tmp_path / "a.npy")
    with pytest.raises(SpadError, match="only two numbers"):
        read(tmp_path / "a.npy", spacing=(1, 1))


def test_labels(tmp_path):
    np.save(tmp_path / "a_seg.npy", (SCAN % 3).astype(np.int64))
    volume = read(tmp_path / "a_seg.npy", spacing=SPACING)
    assert volume.is_labels
    assert volume.array.dtype == np.uint8


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_array_in_an_archive(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, SCAN)
    assert np.array_equal(in_file_order(path), SCAN.T)
    volume = read(path, spacing=SPACING)
    mapped = isinstance(volume.array, np.memmap)
    assert mapped == (save is np.savez)


def test_medsam(tmp_path):
    path = tmp_path / "a.npz"
    boxes = np.zeros((3, 6), np.int64)
    np.savez_compressed(path, imgs=SCAN, gts=SCAN % 3, spacing=SPACING, boxes=boxes)
    volume = read(path)
    assert np.array_equal(to_file_order(volume.array, volume.source), SCAN.T)
    assert volume.source.affine.diagonal().tolist() == [-0.5, -0.75, 3, 1]
    assert not volume.is_labels
    said = " ".join(volume.notes)
    assert "0.5 (x) x 0.75 (y) x 3 (z) mm" in said
    assert "'imgs' is read" in said
    labels = read(path, labels=True)
    assert labels.is_labels
    assert int(labels.array.max()) == 2
    assert read(path, series="gts").is_labels
    assert read(path, spacing=(1, 1, 1)).spacing == (1, 1, 1)


def test_several_arrays_are_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, one=SCAN, two=SCAN + 1, table=np.zeros((2, 3)))
    with pytest.raises(SpadError, match=r"several arrays \('one', 'two'\).*--series"):
        read(path, spacing=SPACING)
    assert np.array_equal(in_file_order(path, series="two"), SCAN.T + 1)
    with pytest.raises(SpadError, match="no array 'three'"):
        read(path, spacing=SPACING, series="three")


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + data


def says(shape: object, descr: object = "<i2") -> str:
    return str({"descr": descr, "fortran_order": False, "shape": shape})


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("imgs.npy", content)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def objects(path: Path) -> Path:
    np.save(path, np.array([[1, "a"], [None, 2]], dtype=object), allow_pickle=True)
    return path


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def broken_checksum(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (9, 30, 30), np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, noise)
    archive(path, buffer.getvalue())
    raw = bytearray(path.read_bytes())
    raw[2000] ^= 0x10
    return written(path, bytes(raw))


HUGE = (30000, 30000, 30000)
BAD = {
    "text": ("a.npy", lambda p: written(p, b"hello, world"), "not a numpy file"),
    "objects": ("a.npy", objects, "a pickle"),
    "cut header": ("a.npy", lambda p: written(p, npy(says((2, 3)))[:30]), "damaged"),
    "no dictionary": ("a.npy", lambda p: written(p, npy("[1, 2]")), "damaged"),
    "code": ("a.npy", lambda p: written(p, npy("__import__('os').getcwd()")), "damaged"),
    "version": ("a.npy", lambda p: written(p, npy(says((2, 3)), version=(9, 0))), "version 9.0"),
    "huge": ("a.npy", lambda p: written(p, npy(says(HUGE))), "its header claims 54000000000000"),
    "short": ("a.npy", lambda p: written(p, npy(says((4, 5, 6)), b"0" * 9)), "claims 240"),
    "empty axis": ("a.npy", lambda p: saved(p, np.zeros((0, 3, 4))), "is empty"),
    "negative": ("a.npy", lambda p: written(p, npy(says((-1, 3, 4)))), "is empty"),
    "complex": ("a.npy", lambda p: saved(p, np.zeros((3, 4), complex)), "type complex128"),
    "text voxels": ("a.npy", lambda p: saved(p, np.zeros((3, 4), "U3")), "type <U3"),
    "records": ("a.npy", lambda p: saved(p, np.zeros((3, 4), "i2,f4")), "voxels of type"),
    "one axis": ("a.npy", lambda p: saved(p, np.zeros(7)), "has 1 axes"),
    "six axes": ("a.npy", lambda p: saved(p, np.zeros((2,) * 6)), "has 6 axes"),
    "NaN": ("a.npy", lambda p: saved(p, np.full((3, 4, 5), np.nan)), "no finite voxel"),
    "no archive": ("a.npz", lambda p: written(p, b"PK" + b"\0" * 50), "damaged"),
    "archive of nothing": (
        "a.npz",
        lambda p: (zipfile.ZipFile(p, "w").close(), p)[1],
        "no array that could be a scan",
    ),
    "huge in an archive": ("a.npz", lambda p: archive(p, npy(says(HUGE))), "at most 0 bytes"),
    "huge and stored": ("a.npz", lambda p: archive(p, npy(says(HUGE)), 0), "at most 0 bytes"),
    "other compression": (
        "a.npz",
        lambda p: archive(p, npy(says((2, 3, 4))), zipfile.ZIP_LZMA),
        "in a way that numpy does not write",
    ),
    "checksum": ("a.npz", broken_checksum, "damaged"),
    "bad spacing": (
        "a.npz",
        lambda p: (np.savez(p, imgs=SCAN, spacing=(1, 0, np.nan)), p)[1],
        "spacing of 1 x 0 x nan",
    ),
    "long spacing": (
        "a.npz",
        lambda p: (np.savez(p, imgs=SCAN, spacing=np.ones(1000)), p)[1],
        "expected three numbers",
    ),
}


@pytest.mark.parametrize(("name", "make", "sentence"), BAD.values(), ids=BAD.keys())
def test_refused_in_one_sentence(tmp_path, name, make, sentence):
    path = make(tmp_path / name)
    own = "spacing" in sentence or "three numbers" in sentence
    with pytest.raises(SpadError, match=sentence) as caught:
        read(path, spacing=None if own else SPACING)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    assert "expected" in message
