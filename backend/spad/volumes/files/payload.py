"""Voxels behind a text header (NRRD, MetaImage): every encoding, checked before memory is taken."""

from __future__ import annotations

import bz2
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.disk import open_checked

FROM_END = -1
"""An offset that says: the voxels are the last bytes of the file."""

# small enough to stay in the processor's cache: more takes twice the time
_PIECE = 1 << 18
_SLAB = 1 << 24
_MOST_FILES = 100_000
_LONGEST_NUMBER = 64
# what each encoding can make of one stored byte at most, so that a larger claim is false
_RATIO = {"raw": 1.0, "text": 0.5, "hex": 0.5, "gzip": 1032.0, "zlib": 1032.0, "bzip2": math.inf}
_AGAIN = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}
_NUMBERED = re.compile(r"((?:[^%]|%%)*)%(0?)(\d{0,2})l?[diu]((?:[^%]|%%)*)")


@dataclass(frozen=True)
class Part:
    """One file with voxels.

    Attributes:
        path: the file.
        offset: bytes before the voxels as they are stored, or `FROM_END` (raw voxels only).
        skip: bytes to leave out after decompression.
    """

    path: Path
    offset: int = 0
    skip: int = 0


@dataclass(frozen=True)
class Payload:
    """Where the voxels of a file are, and how they are stored.

    Attributes:
        parts: one file, or several that hold equal shares one after the other.
        encoding: "raw", "gzip", "zlib", "bzip2", "text" or "hex".
        dtype: type of voxel as stored, byte order included.
        count: number of voxels that the header claims.
    """

    parts: tuple[Part, ...]
    encoding: str
    dtype: np.dtype
    count: int


def load(payload: Payload) -> tuple[np.ndarray, int]:
    """Give the voxels: a memory map if they are raw in one file, else decoded.

    Args:
        payload: where they are.

    Returns:
        A read-only array of shape (count,), and how many bytes the files hold beyond the claim.

    Raises:
        SpadError: a file is absent, holds less than the header claims (found before any memory is
            taken) or is damaged.
    """
    share = payload.count // len(payload.parts)
    need = share * payload.dtype.itemsize
    for part in payload.parts:
        _check_size(part, payload.encoding, share, need)
    first = payload.parts[0]
    try:
        if payload.encoding == "raw" and len(payload.parts) == 1:
            offset, excess = _raw_place(first, need)
            mapped = np.memmap(
                first.path, dtype=payload.dtype, mode="r", offset=offset, shape=(share,)
            )
            return mapped, excess
        return _loaded(payload, share, need)
    except MemoryError as error:
        gigabytes = payload.count * payload.dtype.itemsize / 2**30
        raise SpadError(
            f"{first.path} needs {gigabytes:.1f} GiB of memory, more than is free; close other "
            "programs or crop the scan."
        ) from error
    except OSError as error:
        raise SpadError(
            f"{first.path} cannot be read ({error.strerror or error}); expected a file that may be "
            "read; check its permissions and the disk."
        ) from error


def _check_size(part: Part, encoding: str, share: int, need: int) -> None:
    """Refuse a claim that the file cannot hold, whatever is in it."""
    if not is_file(part.path):
        raise SpadError(
            f"{part.path}, which the header names as the file with the voxels, does not exist; "
            "expected header and data side by side; put them into one folder."
        )
    if encoding == "raw":
        _raw_place(part, need)
        return
    held = max(part.path.stat().st_size - part.offset, 0)
    claimed = 2 * share - 1 if encoding == "text" else (need + part.skip) / _RATIO[encoding]
    if held < claimed:
        raise _too_short(part.path, need, int(held * _RATIO[encoding]), at_most=True)


def is_file(path: Path) -> bool:
    """Whether a path that a header gives is a file; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _raw_place(part: Part, need: int) -> tuple[int, int]:
    """Give where raw voxels start, and how many bytes follow them."""
    size = part.path.stat().st_size
    if part.offset == FROM_END:
        if size < need:
            raise _too_short(part.path, need, size)
        return size - need, 0
    start = part.offset + part.skip
    if size - start < need:
        raise _too_short(part.path, need, max(size - start, 0))
    return start, size - start - need


def _loaded(payload: Payload, share: int, need: int) -> tuple[np.ndarray, int]:
    if payload.encoding == "bzip2":
        # it can shrink data without bound, so memory is taken only as data arrive
        return _grown(payload, need)
    voxels = np.empty(need * len(payload.parts), dtype=np.uint8)
    excess = 0
    for index, part in enumerate(payload.parts):
        target = voxels[index * need : (index + 1) * need]
        if payload.encoding == "text":
            target.view(payload.dtype)[:] = _numbers(part, payload.dtype, share)
        elif payload.encoding == "hex":
            target[:] = _hex(part, need)
        elif payload.encoding == "raw":
            excess += _copied(part, target)
        else:
            excess += _filled(_decoded(part, payload.encoding), part, target)
    voxels.flags.writeable = False
    return voxels.view(payload.dtype), excess


def _copied(part: Part, target: np.ndarray) -> int:
    offset, excess = _raw_place(part, target.size)
    with open_checked(part.path) as file:
        file.seek(offset)
        done = 0
        while done < target.size:
            count = file.readinto(target.data[done : done + _SLAB])  # type: ignore[attr-defined]
            if not count:
                raise _too_short(part.path, target.size, done)
            done += count
    return excess


def _filled(pieces: Iterator[bytes], part: Part, target: np.ndarray) -> int:
    """Copy decoded bytes into place; reading on to the end is what checks the checksum."""
    skip, done, excess = part.skip, 0, 0
    view = target.data
    for piece in pieces:
        if skip:
            dropped = min(skip, len(piece))
            skip -= dropped
            piece = piece[dropped:]
        used = min(len(piece), target.size - done)
        view[done : done + used] = piece[:used] if used < len(piece) else piece
        done += used
        excess += len(piece) - used
        if excess > target.size + _SLAB:
            break
    if done < target.size:
        raise _too_short(part.path, target.size, done)
    return excess


def _grown(payload: Payload, need: int) -> tuple[np.ndarray, int]:
    grown, excess = bytearray(), 0
    for index, part in enumerate(payload.parts):
        skip, end = part.skip, (index + 1) * need
        for piece in _decoded(part, payload.encoding):
            dropped = min(skip, len(piece))
            skip -= dropped
            used = piece[dropped : dropped + end - len(grown)]
            grown += used
            excess += len(piece) - dropped - len(used)
            if excess > need + _SLAB:
                break
        if len(grown) < end:
            raise _too_short(part.path, need, need - (end - len(grown)))
    voxels = np.frombuffer(grown, dtype=payload.dtype)
    voxels.flags.writeable = False
    return voxels, excess


def _decoded(part: Part, encoding: str) -> Iterator[bytes]:
    """Give decompressed bytes piece by piece; all members of a file with several."""
    from isal import igzip_lib

    damaged: Any = (EOFError, igzip_lib.IsalError, ValueError)
    try:
        with open_checked(part.path) as file:
            file.seek(part.offset)
            decoder, waiting = _decoder(encoding), b""
            while True:
                data = waiting or file.read(_PIECE)
                if not data:
                    raise EOFError("the compressed data end too early")
                yield from _drained(decoder, data)
                if not decoder.eof:
                    waiting = b""
                    continue
                waiting = decoder.unused_data
                if len(waiting) < 3:
                    waiting += file.read(_PIECE)
                if encoding not in _AGAIN or not waiting.startswith(_AGAIN[encoding]):
                    return
                decoder = _decoder(encoding)
    except damaged as error:
        raise _damaged(part.path, encoding, error) from error


def check_gzip(path: Path, offset: int = 0) -> None:
    """Read gzip data on to their end, where the checksum stands; most readers stop before.

    Raises:
        SpadError: they are damaged or truncated.
    """
    for _ in _decoded(Part(path, offset), "gzip"):
        pass


def _drained(decoder: Any, data: bytes) -> Iterator[bytes]:
    while True:
        try:
            piece = decoder.decompress(data, _PIECE)
        except OSError as error:  # what bzip2 says of damaged data
            raise ValueError(str(error)) from error
        if piece:
            yield piece
        if decoder.eof or decoder.needs_input or not (piece or data):
            return
        data = b""


def _decoder(encoding: str) -> Any:
    from isal import igzip_lib

    if encoding == "bzip2":
        return bz2.BZ2Decompressor()
    flags = {"gzip": igzip_lib.DECOMP_GZIP, "zlib": igzip_lib.DECOMP_ZLIB}
    return igzip_lib.IgzipDecompressor(flag=flags[encoding])


def _damaged(path: Path, encoding: str, error: Exception) -> SpadError:
    return SpadError(
        f"{path} holds damaged or truncated {encoding} data ({error}); expected a complete file; "
        "copy or download it again."
    )


def _numbers(part: Part, dtype: np.dtype, count: int) -> np.ndarray:
    """Parse voxels that are written out as text."""
    with open_checked(part.path) as file:
        file.seek(part.offset)
        text = file.read(count * _LONGEST_NUMBER).replace(b",", b" ")
    wide = np.dtype(f"{dtype.kind}8") if dtype.kind in "iu" else np.dtype(np.float64)
    try:
        found = np.fromstring(text, dtype=wide, sep=" ", count=-1)[:count]
    except (ValueError, DeprecationWarning) as error:
        raise SpadError(
            f"{part.path} holds voxels as text that are not numbers of type {dtype.name}; expected "
            "numbers with blanks between them; export it again."
        ) from error
    if found.size < count:
        raise SpadError(
            f"{part.path} holds {found.size} numbers, but its header claims {count}; expected a "
            "complete file; copy or export it again."
        )
    if dtype.kind in "iu" and dtype.itemsize < 8:
        low, high = int(found.min()), int(found.max())
        limits = np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise SpadError(
                f"{part.path} holds numbers from {low} to {high}, but its header says type "
                f"{dtype.name}; expected numbers that fit; export it again."
            )
    return found


def _hex(part: Part, need: int) -> np.ndarray:
    with open_checked(part.path) as file:
        file.seek(part.offset)
        # line ends stand between the digits, rarely more than one in two bytes
        text = file.read(4 * need + _PIECE)
    digits = text.translate(None, b" \t\r\n\v\f")[: 2 * need]
    try:
        found = np.frombuffer(bytes.fromhex(digits.decode("ascii")), dtype=np.uint8)
    except ValueError as error:
        raise SpadError(
            f"{part.path} holds hexadecimal voxels with other characters in them ({error}); "
            "expected the digits 0-9 and a-f; export it again."
        ) from error
    if found.size < need:
        raise _too_short(part.path, need, found.size)
    return found


def _too_short(path: Path, need: int, held: int, at_most: bool = False) -> SpadError:
    return SpadError(
        f"{path} holds {'at most ' if at_most else ''}{held} bytes of voxels, but its header "
        f"claims {need}; expected a complete file; copy or export it again."
    )


def numbered_names(pattern: str, first: int, last: int, step: int, path: Path) -> list[str]:
    """Write out a pattern of file names such as "slice%03d.raw" 1 60 1.

    Args:
        pattern: with one `%d`, `%i` or `%u`, a width and zeros allowed.
        first: the first number.
        last: the last number, itself included.
        step: from one to the next.
        path: the header, for the error's sentence.

    Returns:
        The names.

    Raises:
        SpadError: the pattern or the numbers make no list of names.
    """
    found = _NUMBERED.fullmatch(pattern) if len(pattern) < 4096 else None
    count = (last - first) // step + 1 if step else 0
    if found is None or not 1 <= count <= _MOST_FILES:
        raise SpadError(
            f"{path} names its data files as {pattern[:80]!r} from {first} to {last} by {step}; "
            f"expected one %d and 1 to {_MOST_FILES} numbers; correct the header."
        )
    before, zero, width, after = found.groups()
    before, after = before.replace("%%", "%"), after.replace("%%", "%")
    fill = "0" if zero else " "
    return [
        f"{before}{str(first + index * step).rjust(int(width or 0), fill)}{after}"
        for index in range(count)
    ]


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels to be written.

    Attributes:
        array: as stored; axes in the order of the file, fastest first, any strides.
        dtype: type of voxel to write, byte order included.
        slope: what each voxel is multiplied with before.
        intercept: what is added then.
    """

    array: np.ndarray
    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0

    def slabs(self) -> Iterator[memoryview]:
        """Give the bytes to write; a slab is at most 16 MiB unless a single plane is larger."""
        yield from self._slabs(self.array)

    def _slabs(self, array: np.ndarray) -> Iterator[memoryview]:
        if array.ndim > 2 and array.size * self.dtype.itemsize > _SLAB:
            for index in range(array.shape[-1]):
                yield from self._slabs(array[..., index])
            return
        block = np.asarray(array).T
        if self.slope != 1 or self.intercept != 0:
            block = block * self.slope + self.intercept
        packed = np.ascontiguousarray(block, dtype=self.dtype)
        yield packed.reshape(-1).view(np.uint8).data


def write_gzip(voxels: Voxels, file: IO[bytes]) -> None:
    """Append voxels to an open file as gzip data."""
    from isal import igzip

    with igzip.IGzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0) as packed:
        for slab in voxels.slabs():
            packed.write(slab)


def write_zlib(voxels: Voxels, file: IO[bytes]) -> int:
    """Append voxels to an open file as a zlib stream, and give its length in bytes."""
    from isal import isal_zlib

    packer, written = isal_zlib.compressobj(3), 0
    for slab in voxels.slabs():
        written += file.write(packer.compress(slab))
    return written + file.write(packer.flush())


def in_file_order(array: np.ndarray, axes: str, roles: str) -> np.ndarray:
    """Bring an array to the axes of a file.

    Args:
        array: one axis per letter of `axes`.
        axes: "ijk" and then "t" or "c" or both.
        roles: one letter per axis of the file, fastest first; "-" is an axis of one voxel, and "k"
            may be absent if the array has one voxel along it.

    Returns:
        A view.
    """
    if "k" not in roles:
        array, axes = array[:, :, 0], axes.replace("k", "")
    view = array.transpose([axes.index(letter) for letter in roles if letter in axes])
    for axis, letter in enumerate(roles):
        if letter == "-":
            view = np.expand_dims(view, axis)
    return view


def plain_type(array: np.ndarray, slope: float, intercept: float) -> np.dtype:
    """Give the type for values in the scan's unit, for formats that have no slope.

    Args:
        array: voxels as stored.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.

    Returns:
        The array's own type without a slope; else the smallest integer type if slope, intercept
        and voxels are whole, else float32, or float64 for voxels with more digits than that holds.
    """
    if slope == 1 and intercept == 0:
        return array.dtype
    if array.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (array.min(), array.max())]
        for name in ("u1", "i2", "u2", "i4"):
            limits = np.iinfo(name)
            if limits.min <= min(ends) and max(ends) <= limits.max:
                return np.dtype(name)
    short = array.dtype.itemsize <= 2 or array.dtype == np.float32
    return np.dtype(np.float32 if short else np.float64)
