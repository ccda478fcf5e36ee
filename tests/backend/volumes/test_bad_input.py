"""What cannot be used is refused in one clear sentence, and nothing is left half-written."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.files import read, write
from spad.volumes.files.disk import replace_files
from spad.volumes.files.encoders import encoder_of
from spad.volumes.info import describe
from spad.volumes.volume import Volume


def good(path: Path, dtype: str = "int16", shape: tuple[int, ...] = (6, 7, 8)) -> Path:
    data = (np.arange(np.prod(shape)) % 97).reshape(shape).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([1.0, 1.5, 4.0, 1.0])), path)
    return path


def patched(path: Path, **fields: object) -> Path:
    """Write a good .nii and overwrite header fields byte by byte, as no library would."""
    good(path)
    raw = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(raw[:348]))
    for name, value in fields.items():
        if isinstance(value, dict):
            for index, entry in value.items():
                header[name][index] = entry
        else:
            header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


def truncated_gzip(path: Path) -> Path:
    good(path, shape=(40, 40, 40))
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def broken_checksum(path: Path) -> Path:
    good(path, shape=(40, 40, 40))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(bytes(raw))
    return path


def plain_named_gz(path: Path) -> Path:
    good(path.with_suffix("")).rename(path)
    return path


def gz_named_plain(path: Path) -> Path:
    good(Path(f"{path}.gz")).rename(path)
    return path


def text(path: Path) -> Path:
    path.write_text("this is a letter to a friend, not a scan\n" * 50)
    return path


def zipped_text(path: Path) -> Path:
    path.write_bytes(gzip.compress(b"not a scan" * 100))
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def cut(path: Path) -> Path:
    good(path)
    path.write_bytes(path.read_bytes()[:-10])
    return path


def huge_claim_in_gz(path: Path) -> Path:
    plain = patched(path.with_suffix(""), dim={0: 4, 1: 30000, 2: 30000, 3: 30000, 4: 30000})
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def short_gz(path: Path) -> Path:
    plain = patched(path.with_suffix(""), dim={3: 9})
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def of_type(dtype: object, shape: tuple[int, ...] = (4, 5, 6)) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4)), path)
        return path

    return make


def singular(path: Path) -> Path:
    good(path)
    image = nibabel.load(path)
    image.header.set_sform(np.eye(4), 1)
    image.header["srow_y"] = image.header["srow_x"]
    nibabel.save(type(image)(np.asarray(image.dataobj), None, image.header), path)
    return path


def all_nan(path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.full((6, 7, 8), np.nan, np.float32), np.eye(4)), path)
    return path


def half_a_pair(path: Path) -> Path:
    nibabel.save(
        nibabel.Nifti1Pair(np.zeros((4, 5, 6), np.int16), np.eye(4)), path.with_suffix(".img")
    )
    path.with_suffix(".img").unlink()
    return path


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
CASES: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "truncated gzip": ("a.nii.gz", truncated_gzip, "damaged or truncated gzip"),
    "gzip checksum": ("a.nii.gz", broken_checksum, "damaged or truncated gzip"),
    "plain named gz": ("a.nii.gz", plain_named_gz, "is not gzip data although"),
    "gz named plain": ("a.nii", gz_named_plain, "holds gzip data although"),
    "text": ("a.nii", text, "is not a NIfTI file"),
    "zipped text": ("a.nii.gz", zipped_text, "is not a NIfTI file"),
    "wrong magic": ("a.nii", lambda p: patched(p, magic=b"xyz"), "is not a NIfTI file"),
    "only a header's start": (
        "a.nii",
        lambda p: (p.write_bytes(b"\x5c\x01\0\0" + b"\0" * 50), p)[1],
        "is not a NIfTI file",
    ),
    "empty file": ("a.nii.gz", empty, "is empty"),
    "missing": ("a.nii.gz", lambda p: p, "does not exist"),
    "folder": ("a.nii", lambda p: (p.mkdir(), p)[1], "is a folder without scans"),
    "unknown name": ("a.txt", text, "a name that no reader knows"),
    "cut": ("a.nii", cut, "its header claims 672"),
    "claims too much": ("a.nii", lambda p: patched(p, dim={3: 9}), "its header claims 756"),
    "claims too much in gz": ("a.nii.gz", short_gz, "its header claims 756"),
    "claims terabytes in gz": ("a.nii.gz", huge_claim_in_gz, "at most"),
    "negative claim": ("a.nii", lambda p: patched(p, dim={2: -5}), "is empty|cannot be used"),
    "no axes": ("a.nii", lambda p: patched(p, dim={0: 0}), "axes|cannot be used"),
    "one axis": ("a.nii", lambda p: patched(p, dim={0: 1}), "one axis"),
    "empty array": ("a.nii", lambda p: patched(p, dim={3: 0}), "is empty"),
    "zero spacing": ("a.nii", lambda p: patched(p, pixdim={3: 0}), "spacing of 1 x 1.5 x 0"),
    "NaN spacing": ("a.nii", lambda p: patched(p, pixdim={2: np.nan}), "spacing of 1 x nan"),
    "negative spacing": ("a.nii", lambda p: patched(p, pixdim={1: -2}), "spacing of -2"),
    "infinite spacing": ("a.nii", lambda p: patched(p, pixdim={1: np.inf}), "spacing of inf"),
    "NaN affine": ("a.nii", lambda p: patched(p, srow_x={3: np.nan}), "NaN or infinite"),
    "zero column": ("a.nii", lambda p: patched(p, srow_z={2: 0}), "spacing of 1 x 1.5 x 0"),
    "singular affine": ("a.nii", singular, "cannot be inverted|spacing of"),
    "bad quaternion": (
        "a.nii",
        lambda p: patched(p, sform_code=0, qform_code=1, quatern_b=3.0),
        "header that cannot be used",
    ),
    "data inside the header": ("a.nii", lambda p: patched(p, vox_offset=100), "start at byte 100"),
    "data beyond the end": ("a.nii", lambda p: patched(p, vox_offset=1e6), "holds 0 bytes"),
    "unknown type": ("a.nii", lambda p: patched(p, datatype=77), "cannot be used"),
    "complex": ("a.nii", of_type(np.complex64), "type complex64"),
    "6D": ("a.nii.gz", of_type(np.int16, (4, 5, 6, 1, 3, 2)), "has 6 axes"),
    "colours in 5D": ("a.nii.gz", of_type(RGB, (4, 5, 6, 1, 3)), "has 5 axes"),
    "all NaN": ("a.nii.gz", all_nan, "no finite voxel"),
    "half a pair": ("a.hdr", half_a_pair, "half of a pair"),
    "single file with a pair's mark": (
        "a.nii",
        lambda p: patched(p, magic=b"ni1"),
        "separate .img file",
    ),
    "broken sidecar": (
        "a.nii",
        lambda p: (p.with_name("a.labels.json").write_text("{"), good(p))[1],
        "names of labels",
    ),
    "sidecar of another form": (
        "a.nii",
        lambda p: (p.with_name("a.labels.json").write_text('{"x": [1]}'), good(p))[1],
        "names of labels",
    ),
}


@pytest.mark.parametrize(("name", "make", "sentence"), CASES.values(), ids=CASES.keys())
def test_refused_in_one_sentence(tmp_path, name, make, sentence):
    path = make(tmp_path / name)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for action in (read, describe):
        with pytest.raises(SpadError, match=sentence) as caught:
            action(path)
        message = str(caught.value)
        assert str(tmp_path) in message
        assert message.endswith(".")
        assert "\n" not in message
        assert "expected" in message
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_false_claim_takes_no_memory(tmp_path):
    """3 TiB are claimed; the refusal must come before any of it is asked for."""
    path = tmp_path / "a.nii.gz"
    huge_claim_in_gz(path)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31));"
        "from spad.volumes.files import read\n"
        "try: read(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout.startswith("SpadError")
    assert "at most" in done.stdout


def test_some_nan_is_read_counted_and_background(tmp_path):
    data = np.linspace(1, 100, 6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
    data[2, 3, 4] = np.nan
    data[1, 1, 1] = np.inf
    nibabel.save(nibabel.Nifti1Image(data, np.diag([1, 1, 3, 1])), tmp_path / "a.nii.gz")
    found = describe(tmp_path / "a.nii.gz")
    assert found["voxels_not_finite"] == 2
    assert found["intensity"]["max"] == pytest.approx(100)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("stated", [3, -1, True, 1.5])
def test_a_depth_axis_that_is_none(tmp_path, stated):
    with pytest.raises(SpadError, match="Depth axis"):
        read(good(tmp_path / "a.nii"), depth=stated)


def labels_for(path: Path) -> Volume:
    volume = read(path)
    return volume.with_array((volume.values() > 50).astype(np.uint8), label_names={1: "spleen"})


def folder_state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on file sizes stops the write half-way, as a full disk does."""
    good(tmp_path / "scan.nii", shape=(60, 60, 60))
    out = tmp_path / "old_labels.nii"
    write(labels_for(tmp_path / "scan.nii"), out)
    before = folder_state(tmp_path)
    code = (
        "import resource, signal, sys\n"
        "from spad.volumes.files import read, write\n"
        "from spad.errors import SpadError\n"
        "volume = read(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "labels = volume.with_array(volume.array * 0 + 3, label_names={3: 'x'})\n"
        "try: write(labels, sys.argv[2])\n"
        "except SpadError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scan.nii"), str(out)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "was not written because the disk is full" in done.stdout, done.stderr
    assert folder_state(tmp_path) == before


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    labels = labels_for(good(tmp_path / "scan.nii"))
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):  # root may write anywhere

        def refuse(*args: object, **kwargs: object) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(SpadError, match="may not be written to"):
        write(labels, locked / "a.nii.gz")
    assert list(locked.iterdir()) == []
    locked.chmod(0o755)


def test_places_where_nothing_can_be_written(tmp_path):
    labels = labels_for(good(tmp_path / "scan.nii"))
    with pytest.raises(SpadError, match="is not a folder"):
        write(labels, tmp_path / "nowhere" / "a.nii.gz")
    (tmp_path / "taken.nii.gz").mkdir()
    with pytest.raises(SpadError, match="is a folder"):
        write(labels, tmp_path / "taken.nii.gz")
    with pytest.raises(SpadError, match="no writer knows"):
        write(labels, tmp_path / "a.png")
    with pytest.raises(SpadError, match="no writer knows"):
        write(labels, tmp_path / ".nii.gz")


@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr"])
def test_a_failure_at_any_move_puts_everything_back(tmp_path, monkeypatch, suffix):
    scan = good(tmp_path / "scan.nii")
    out = tmp_path / f"out{suffix}"
    write(labels_for(scan), out)
    before = folder_state(tmp_path)
    true_replace = os.replace
    others = labels_for(scan)
    others = others.with_array(others.array * 2, label_names={2: "liver"})
    files = 3 if suffix == ".hdr" else 2
    for failing in range(2 * files):
        calls = iter(range(100))

        def replace(a, b, calls=calls, failing=failing):
            if next(calls) == failing:
                raise OSError(28, "No space left on device")
            true_replace(a, b)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(SpadError, match="disk is full"):
            write(others, out)
        monkeypatch.setattr(os, "replace", true_replace)
        assert folder_state(tmp_path) == before
    write(others, out)
    assert read(out).label_names == {2: "liver"}


def test_an_error_while_filling_leaves_no_trace(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def fill(files: list[Path]) -> None:
        files[0].write_text("new")
        raise SpadError("stopped.")

    with pytest.raises(SpadError, match="stopped"):
        replace_files([tmp_path / "a.txt"], fill)
    assert folder_state(tmp_path) == {"a.txt": b"old"}


def test_a_file_that_does_not_read_back_is_not_saved(tmp_path, monkeypatch):
    from spad.volumes.files import nifti_writer

    labels = labels_for(good(tmp_path / "scan.nii"))
    true_write = nifti_writer._write_voxels
    monkeypatch.setattr(nifti_writer, "_write_voxels", lambda a, f: true_write(a + 1, f))
    with pytest.raises(SpadError, match="did not read back"):
        write(labels, tmp_path / "out.nii.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.nii"]


def cut(files: list[Path]) -> None:
    data = max(files, key=lambda file: file.stat().st_size)
    data.write_bytes(data.read_bytes()[:-7])


def emptied(files: list[Path]) -> None:
    files[0].write_bytes(b"")


def flipped(files: list[Path]) -> None:
    data = max(files, key=lambda file: file.stat().st_size)
    raw = bytearray(data.read_bytes())
    raw[-len(raw) // 4] ^= 0x5A
    data.write_bytes(raw)


@pytest.mark.parametrize("damage", [cut, emptied, flipped])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_damage_before_the_self_check_is_found(tmp_path, monkeypatch, suffix, damage):
    """Readers raise anything on damaged files, and stop before a checksum."""
    volume = Volume.from_array(np.random.default_rng(0).integers(0, 999, (9, 9, 9)), np.eye(4))
    write(volume, tmp_path / f"a{suffix}")
    before = folder_state(tmp_path)
    encoder = type(encoder_of(suffix))
    encode = encoder.encode

    def spoil(self, volume, array, files):
        encode(self, volume, array, files)
        damage(files)

    monkeypatch.setattr(encoder, "encode", spoil)
    with pytest.raises(SpadError):
        write(volume, tmp_path / f"a{suffix}")
    assert folder_state(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    volume = read(good(tmp_path / "scan.nii"))
    (tmp_path / "far").mkdir()
    (tmp_path / "a.nii").symlink_to(good(tmp_path / "far" / "b.nii"))
    write(volume.with_array(volume.array * 2), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").is_symlink()
    np.testing.assert_array_equal(read(tmp_path / "far" / "b.nii").array, volume.array * 2)


@pytest.mark.skipif(os.name == "nt", reason="permissions are another matter there")
def test_a_private_file_stays_private(tmp_path):
    scan = good(tmp_path / "scan.nii")
    good(tmp_path / "old.nii").chmod(0o600)
    write(read(scan), tmp_path / "old.nii")
    assert (tmp_path / "old.nii").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_folder_whose_name_is_not_text(tmp_path):
    """Given such a name, SimpleITK ends the process."""
    folder = tmp_path / os.fsdecode(b"r\xe9in")
    folder.mkdir()
    volume = read(good(folder / "scan.nii"))
    assert read(write(volume, folder / "a.nrrd")).spatial_shape == volume.spatial_shape
    for path in (folder / "a.mha", tmp_path / os.fsdecode(b"r\xe9in.nhdr")):
        with pytest.raises(SpadError, match="not text"):
            write(volume, path)


def test_an_image_does_not_take_the_name_of_labels(tmp_path):
    scan = good(tmp_path / "scan.nii")
    write(labels_for(scan), tmp_path / "out.nii.gz")
    with pytest.raises(SpadError, match="holds labels"):
        write(read(scan), tmp_path / "out.nii.gz")


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.full((2, 3, 4), 0.5), "not whole numbers"),
        (np.full((2, 3, 4), np.nan), "not whole numbers"),
        (np.full((2, 3, 4), 2**40), "within 32 bits"),
        (np.full((2, 3, 4), 1j), "type complex"),
    ],
)
def test_labels_that_no_file_takes(tmp_path, array, sentence):
    with pytest.raises(SpadError, match=sentence):
        write(Volume.from_array(array, np.eye(4), label_names={}), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.complex64, object, "U3"])
def test_images_of_types_that_nifti_has_not(tmp_path, dtype):
    array = np.zeros((2, 3, 4), dtype)
    with pytest.raises(SpadError, match="expected integers or real numbers"):
        write(Volume.from_array(array, np.eye(4)), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("array", "affine", "axes", "sentence"),
    [
        (np.zeros((0, 3, 4)), np.eye(4), "zyx", "empty"),
        (np.zeros((3, 4)), np.eye(4), "zyx", "one axis per letter"),
        (np.zeros((3, 4, 5)), np.eye(4), "xyz", "one axis per letter"),
        (np.zeros((3, 4, 5)), np.eye(3), "zyx", "4 x 4"),
        (np.zeros((3, 4, 5)), np.diag([1, 0, 1, 1]), "zyx", "voxel spacing of 1 x 0 x 1"),
        (np.zeros((3, 4, 5)), np.diag([1, np.nan, 1, 1]), "zyx", "NaN"),
        (np.zeros((3, 4, 5)), np.ones((4, 4)) - np.diag([0, 0, 0, 0]), "zyx", "last row"),
        (
            np.zeros((3, 4, 5)),
            np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
            "zyx",
            "cannot be inverted",
        ),
    ],
)
def test_made_volumes_that_no_scan_can_be(array, affine, axes, sentence):
    with pytest.raises(SpadError, match=sentence):
        Volume.from_array(array, affine, axes=axes)


def test_data_of_another_grid_are_refused():
    volume = Volume.from_array(np.zeros((3, 4, 5)), np.eye(4))
    with pytest.raises(SpadError, match="own grid"):
        volume.with_array(np.zeros((3, 5, 4)))
