"""Bytes on disk: decompression with a size check, memory maps, and writes that cannot half-fail."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from spad.errors import SpadError

GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 22
# deflate cannot shrink data by more than this, so a larger claim is false whatever the file holds
_DEFLATE_LIMIT = 1032


def is_gzip(path: Path) -> bool:
    """Tell by its first bytes whether a file is gzip data."""
    with open_checked(path) as file:
        return file.read(2) == GZIP_MAGIC


@contextmanager
def open_checked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; an `OSError` becomes a sentence."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise SpadError(
            f"{path} cannot be read ({error.strerror or error}); expected a file that may be "
            "read; check the path, its permissions and the disk."
        ) from error


def read_start(path: Path, count: int) -> bytes:
    """Read up to `count` bytes from the start of a file, decompressed if it is gzip.

    Raises:
        SpadError: the file cannot be read or its gzip data are damaged.
    """
    if not is_gzip(path):
        with open_checked(path) as file:
            return file.read(count)
    with _gunzip(path) as file:
        return _read_upto(file, count)


def load(path: Path, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
    """Give the voxels of a file: a memory map, or decompressed if it is gzip.

    Args:
        path: the file with the voxels.
        dtype: type of voxel as stored, byte order included.
        count: number of voxels that the header claims.
        offset: bytes before the first voxel.

    Returns:
        A read-only array of shape (count,).

    Raises:
        SpadError: the file holds less than the header claims (found before any memory is
            taken), or damaged gzip data.
    """
    need = count * dtype.itemsize
    try:
        if is_gzip(path):
            return _load_gzip(path, dtype, need, offset)
        held = path.stat().st_size - offset
        if held < need:
            raise _too_short(path, need, max(held, 0))
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))
    except MemoryError as error:
        raise SpadError(
            f"{path} needs {need / 2**30:.1f} GiB of memory, more than is free; close other "
            "programs or crop the scan."
        ) from error
    except OSError as error:
        raise SpadError(
            f"{path} cannot be read ({error.strerror or error}); expected a file that may be "
            "read; check its permissions and the disk."
        ) from error


def _load_gzip(path: Path, dtype: np.dtype, need: int, offset: int) -> np.ndarray:
    most = path.stat().st_size * _DEFLATE_LIMIT - offset
    if most < need:
        raise _too_short(path, need, max(most, 0), at_most=True)
    with _gunzip(path) as file:
        if not _skip(file, offset):
            raise _too_short(path, need, 0)
        voxels = np.empty(need, dtype=np.uint8)
        view, done = voxels.data, 0
        while done < need:
            read = file.readinto(view[done : done + _CHUNK])
            if not read:
                raise _too_short(path, need, done)
            done += read
        # reading on to the end is what checks the checksum
        while file.read(_CHUNK):
            pass
    voxels.flags.writeable = False
    return voxels.view(dtype)


@contextmanager
def _gunzip(path: Path) -> Iterator[Any]:
    from isal import igzip, isal_zlib

    damaged: Any = (EOFError, igzip.BadGzipFile, isal_zlib.error, zlib.error)
    try:
        with igzip.open(path, "rb") as file:
            yield file
    except damaged as error:
        raise SpadError(
            f"{path} holds damaged or truncated gzip data ({error}); expected a complete file; "
            "copy or download it again."
        ) from error


def _read_upto(file: Any, count: int) -> bytes:
    parts: list[bytes] = []
    while count > 0:
        part = file.read(min(count, _CHUNK))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _skip(file: Any, count: int) -> bool:
    """Read past bytes without keeping them; False if the file ends before."""
    while count > 0:
        part = len(file.read(min(count, _CHUNK)))
        if not part:
            return False
        count -= part
    return True


def _too_short(path: Path, need: int, held: int, at_most: bool = False) -> SpadError:
    return SpadError(
        f"{path} holds {'at most ' if at_most else ''}{held} bytes of voxels, but its header "
        f"claims {need}; expected a complete file; copy or export it again."
    )


def replace_files(targets: list[Path], fill: Callable[[list[Path]], None]) -> None:
    """Write files so that either all are new and checked, or all stay as they were.

    Args:
        targets: final paths, in the order in which they are moved (data before header), all in
            one folder.
        fill: writes (and checks) the files under the temporary paths that it is given, which
            have the targets' names.

    Raises:
        SpadError: the folder, a file or the disk does not allow it; nothing has changed then.
    """
    temporary = None
    # a link stays one: what it points to is replaced
    places = [Path(os.path.realpath(t)) if os.path.islink(t) else t for t in targets]
    try:
        _check_targets(places)
        temporary = Path(tempfile.mkdtemp(prefix=".spad-", dir=places[0].parent))
        files = [temporary / target.name for target in targets]
        fill(files)
        for file, place in zip(files, places, strict=True):
            _sync(file, place)
        _move(files, places, temporary)
    except OSError as error:
        raise _not_written(targets[0], error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _check_targets(targets: list[Path]) -> None:
    folder = targets[0].parent
    if not folder.is_dir():
        raise SpadError(
            f"{folder} is not a folder, so {targets[0].name} cannot be written there; create it "
            "or choose another place."
        )
    for target in targets:
        if target.is_dir() or (target.exists() and not os.access(target, os.W_OK)):
            what = "is a folder" if target.is_dir() else "is write-protected"
            raise SpadError(f"{target} {what}; expected a file to replace; choose another name.")


def _move(files: list[Path], targets: list[Path], temporary: Path) -> None:
    """Move all or none: what was there is put back if a later move fails."""
    kept: list[tuple[Path, Path]] = []
    moved: list[Path] = []
    try:
        for file, target in zip(files, targets, strict=True):
            if len(files) > 1 and target.exists():
                backup = temporary / f"{target.name}.before"
                os.replace(target, backup)
                kept.append((backup, target))
            os.replace(file, target)
            moved.append(target)
    except OSError:
        for target in moved:
            target.unlink(missing_ok=True)
        for backup, target in kept:
            os.replace(backup, target)
        raise


def _sync(file: Path, place: Path) -> None:
    """Ask for the bytes on the disk now: some file systems report that they are full only then.

    The file gets the permissions of the one that it replaces, which may be private.
    """
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
        file.chmod(place.stat().st_mode & 0o777 if place.exists() else 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _not_written(target: Path, error: OSError) -> SpadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason, advice = "the disk is full", "free some space or choose another place"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason, advice = "the folder may not be written to", "choose another place"
    else:
        reason, advice = error.strerror or str(error), "choose another place or try again"
    return SpadError(
        f"{target} was not written because {reason}; an older file there is as it was; {advice}."
    )
