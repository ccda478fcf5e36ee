"""Reading numpy's own files: .npy as a memory map, .npz with its names; spacing must be stated."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import disk
from spad.volumes.files.assemble import assemble, radiological_affine
from spad.volumes.files.labels import with_labels
from spad.volumes.files.options import Options
from spad.volumes.files.reasons import reason
from spad.volumes.files.units import HOW_TO_STATE, choose_spacing
from spad.volumes.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = (
    "Arrays are read as numpy users have them, (z, y, x): the last axis is i (x, to the left), the "
    "one before it j (y, to posterior), the one before that k (z, to superior)."
)
_MAGIC = b"\x93NUMPY"
# deflate cannot shrink data by more than this
_DEFLATE_LIMIT = 1032
_CHUNK = 1 << 22
_SPACING = "spacing"
_IMAGES = ("imgs", "img", "images", "image", "ct", "mr", "scan", "volume", "data")
_LABELS = ("gts", "gt", "labels", "label", "segs", "seg", "masks", "mask", "segmentation")


@dataclass(frozen=True)
class Header:
    """What the start of a .npy file says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of voxels that it claims."""
        return math.prod(self.shape) * self.dtype.itemsize


def read(path: Path, options: Options) -> Volume:
    """Read a .npy or .npz file; see `spad.volumes.files.read`.

    Axes: (y, x), (z, y, x), (t, z, y, x) or (t, c, z, y, x); a last axis of 3 or 4 bytes (uint8)
    holds colours. Spacing is stated along i, j, k, which are x, y, z: the other way round.
    An archive's array is chosen by `options.series`, else it is the only one, or the scan among
    names that are usual ("imgs" and "gts" of MedSAM, "image" and "label"); its `spacing` (x, y, z)
    is used.

    Raises:
        SpadError: it is damaged, holds Python objects, or no spacing is known.
    """
    start = disk.read_start(path, 6)
    notes: list[str] = []
    if start.startswith(_MAGIC):
        array, spacing, names_labels = _load_npy(path), None, False
    elif start.startswith(b"PK"):
        array, notes, spacing, names_labels = _load_npz(path, options)
    else:
        raise SpadError(
            f"{path} is not a numpy file (it starts with {start[:4]!r}); expected .npy or .npz; "
            "check that it is the right file and complete."
        )
    array, axes, rgb = _logical(path, array, options, notes)
    chosen = _spacing(path, array, options, spacing, notes)
    volume = assemble(
        array,
        radiological_affine(chosen),
        axes=axes,
        path=path,
        format="numpy",
        options=options,
        rgb=rgb,
        notes=(ORDER, *notes),
    )
    return with_labels(volume, path, options, header_says=names_labels)


def _load_npy(path: Path) -> np.ndarray:
    with disk.open_checked(path) as file, _one_sentence(path):
        header = _header(file, str(path))
    flat = disk.load(path, header.dtype, math.prod(header.shape), header.offset)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _header(file: IO[bytes], name: str) -> Header:
    """Read the header of a .npy file or member (numpy.lib.format) without touching its voxels."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise SpadError(
            f"{name} is of numpy's format version {version[0]}.{version[1]}; expected 1.0 or 2.0; "
            "save it again with plain voxels."
        )
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise SpadError(
            f"{name} holds Python objects (a pickle, which could run any program); expected "
            "numbers; save the array again with a numeric type."
        )
    if dtype.kind not in "biuf":
        raise SpadError(
            f"{name} holds voxels of type {dtype}; expected integers or real numbers; convert it "
            "first."
        )
    if any(not isinstance(n, int) or n < 1 for n in shape):
        raise SpadError(
            f"{name} is empty: its header gives the shape {shape}; expected at least one voxel "
            "along each axis; save it again."
        )
    return Header(tuple(shape), dtype, bool(fortran), file.tell())


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turn what numpy and zipfile raise on damaged files into a sentence."""
    try:
        yield
    except MemoryError as error:
        raise SpadError(
            f"{path} needs more memory than is free; close other programs or crop the scan."
        ) from error
    except (
        *(ValueError, TypeError, EOFError, OSError, KeyError, NotImplementedError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error, OverflowError, RecursionError, UnicodeError),
    ) as error:
        raise SpadError(
            f"{path} is damaged or is no numpy file ({reason(error, path)}); expected a complete "
            ".npy or .npz file; copy or save it again."
        ) from error


def _load_npz(path: Path, options: Options) -> tuple[np.ndarray, list[str], Any, bool]:
    """Give the chosen array, notes, the file's spacing, and whether its name is one of labels."""
    with _one_sentence(path), zipfile.ZipFile(path) as archive:
        members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        for info in members.values():
            _check_member(path, info)
        name, notes = _choose(path, archive, members, options)
        spacing = None
        if _SPACING in members and name != _SPACING:
            said = _member(path, archive, members[_SPACING], most=64)
            spacing = np.asarray(said, float).ravel()
        array = _member(path, archive, members[name])
    return array, notes, spacing, name.lower() in _LABELS


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise SpadError(
            f"{path} is encrypted; expected a plain .npz file; unpack it with its password first."
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SpadError(
            f"{path} is compressed in a way that numpy does not write; expected numpy.savez or "
            "numpy.savez_compressed; save it again."
        )


def _choose(
    path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], options: Options
) -> tuple[str, list[str]]:
    """Choose the array: the one that is named, the only one, or the scan among usual names."""
    if options.series is not None:
        if options.series in members:
            return options.series, []
        raise SpadError(
            f"{path} holds no array {options.series!r} but {_list(members)}; state one of these as "
            "the series."
        )
    found = [name for name in members if _could_be_a_scan(path, archive, members[name])]
    if not found:
        raise SpadError(
            f"{path} holds no array that could be a scan ({_list(members)}); expected one of two "
            "to five axes; save the voxels under a name of their own."
        )
    if len(found) == 1:
        return found[0], []
    wanted = _LABELS if options.labels else _IMAGES
    usual = [name for key in wanted for name in found if name.lower() == key]
    others = [name for name in found if name not in usual and name.lower() not in _LABELS + _IMAGES]
    if not usual or others:
        raise SpadError(
            f"{path} holds several arrays ({_list(found)}); expected one, or usual names such as "
            "imgs and gts; state one of these as the series (--series NAME on the command line)."
        )
    rest = _list([name for name in found if name != usual[0]])
    note = (
        f"The file holds several arrays; {usual[0]!r} is read (also there: {rest}; state one as "
        "the series to open it)."
    )
    return usual[0], [note]


def _could_be_a_scan(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Tell by an array's header: at least two axes, and none of so few numbers as a table has."""
    with archive.open(info) as file:
        header = _header_of_any(file)
    return (
        header is not None
        and len(header[0]) >= 2
        and sum(isinstance(n, int) and n > 8 for n in header[0]) >= 2
    ) or (header is not None and len(header[0]) >= 3)


def _header_of_any(file: IO[bytes]) -> tuple[Any, ...] | None:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    return None


def _list(names: Any) -> str:
    names = sorted(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"{name!r:.60}" for name in names[:8]) + more if names else "nothing"


def _member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int | None = None
) -> np.ndarray:
    """Read an array of an archive, once its claims agree with the archive's directory."""
    name = f"{path} ({info.filename.removesuffix('.npy')})"
    with archive.open(info) as file:
        header = _header(file, name)
        stored = info.compress_type == zipfile.ZIP_STORED
        most_held = path.stat().st_size * (1 if stored else _DEFLATE_LIMIT)
        held = min(info.file_size, most_held)
        if header.offset + header.nbytes > held:
            raise SpadError(
                f"{name} holds at most {max(held - header.offset, 0)} bytes of voxels, but its "
                f"header claims {header.nbytes}; expected a complete file; copy or save it again."
            )
        if most is not None and math.prod(header.shape) > most:
            raise SpadError(
                f"{name} has the shape {header.shape}; expected three numbers (mm along x, y and "
                "z); correct it and try again."
            )
        if stored:
            start = _data_start(path, info) + header.offset
            flat = disk.load(path, header.dtype, math.prod(header.shape), start)
        else:
            flat = _inflate(file, header.nbytes).view(header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _data_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Give where a stored member's bytes start (its local header: APPNOTE.TXT, 4.3.7)."""
    with disk.open_checked(path) as file:
        file.seek(info.header_offset)
        local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\3\4":
        raise EOFError("the archive's directory points to no member")
    return info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))


def _inflate(file: IO[bytes], nbytes: int) -> np.ndarray:
    """Read what is left of a compressed member; its end is where zipfile checks the checksum."""
    flat = np.empty(nbytes, np.uint8)
    view, done = flat.data, 0
    while done < nbytes:
        part = file.read(min(_CHUNK, nbytes - done))
        if not part:
            raise EOFError("it ends before its last voxel")
        view[done : done + len(part)] = part
        done += len(part)
    flat.flags.writeable = False
    return flat


def _logical(
    path: Path, array: np.ndarray, options: Options, notes: list[str]
) -> tuple[np.ndarray, str, bool]:
    """Give voxels in file order (i = the last axis), their axes, and whether they are colours."""
    colours = array.ndim >= 3 and array.dtype == np.uint8 and array.shape[-1] in (3, 4)
    colours = colours and not options.labels and min(array.shape[-3:-1]) > 4
    if colours:
        notes.append(
            f"The last axis has {array.shape[-1]} bytes per pixel and is read as colours; state "
            "that it holds labels to have it as space."
        )
    space = array.ndim - colours
    while space > 3 and array.shape[0] == 1:
        array, space = array[0], space - 1
    if not 2 <= space <= 5:
        raise SpadError(
            f"{path} has {array.ndim} axes (shape {array.shape}); expected (y, x), (z, y, x), "
            "(t, z, y, x) or (t, c, z, y, x); save the part that is a scan."
        )
    if colours and space == 5:
        raise SpadError(
            f"{path} has both colours and channels (shape {array.shape}); expected one of them; "
            "save one channel at a time."
        )
    if space == 4:
        notes.append("The first of its four axes is read as time.")
    if space == 5:
        notes.append("The first two of its five axes are read as time and channels.")
    if space == 2:
        array = array[None]
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    spatial = [2, 1, 0] if space <= 3 else [space - 1, space - 2, space - 3]
    lead = list(range(max(space - 3, 0)))
    axes = "ijk" + "tc"[: len(lead)] + "c" * colours
    last = [array.ndim - 1] if colours else []
    return array.transpose([*spatial, *lead, *last]), axes, colours


def _spacing(
    path: Path,
    array: np.ndarray,
    options: Options,
    own: np.ndarray | None,
    notes: list[str],
) -> tuple[float, float, float]:
    """Give mm along i, j, k: what a person states, else the archive's own; there is no default."""
    flat = array.shape[2] == 1
    if options.spacing is not None:
        if own is not None:
            notes.append("The stated spacing is used in place of the file's own.")
        return choose_spacing(path, options, (None, None, None), flat=flat)[0]
    if own is None:
        raise SpadError(
            f"{path} states no spacing of its voxels (numpy files have none); expected millimetres "
            f"along x, y and z (i, j, k; the last axis first); state it {HOW_TO_STATE}, such as "
            "0.8 0.8 2.5."
        )
    if own.size not in ((2, 3) if flat else (3,)) or not (np.isfinite(own) & (own > 0)).all():
        said = " x ".join(f"{value:g}" for value in own.tolist())
        raise SpadError(
            f"{path} gives a spacing of {said}; expected three positive numbers (mm along x, y and "
            f"z); state the right one {HOW_TO_STATE}."
        )
    i, j, k = (float(value) for value in [*own.tolist(), 1.0][:3])
    notes.append(f"The file's own spacing is used: {i:g} (x) x {j:g} (y) x {k:g} (z) mm.")
    return i, j, k
