"""Arrays on their way between two processes: files in a private folder of the client."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import socket
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from spad.errors import SpadError
from spad.processes import ProcessIdentity, this_process
from spad.worker.messages import ArrayRef

BLOCK_BYTES = 16 << 20
KEPT_BYTES = 4 << 30
FOLDER_PREFIX = "napari-spad"
SHARED_MEMORY = Path("/dev/shm")

Check = Callable[[], None]
"""Called between blocks; may raise to stop."""


def _go_on() -> None:
    pass


class ArrayFolder:
    """Private folders that hold arrays as files, the fastest first.

    Args:
        paths: existing folders; a file goes into the first that has room for it.
        prefix: begins the name of every file written here.
    """

    def __init__(self, paths: Sequence[Path], prefix: str) -> None:
        self.paths = tuple(paths)
        self._names = (f"{prefix}{number}" for number in itertools.count())

    @classmethod
    def create(cls, parents: Sequence[Path] | None = None, prefix: str = "in") -> ArrayFolder:
        """Make private folders (mode 0700) whose names say which process owns them.

        Args:
            parents: where to make them; by default shared memory and the temporary folder.
            prefix: begins the name of every file written there.

        Returns:
            The folders; folders of dead owners beside them are removed.

        Raises:
            SpadError: none of the parents can be written to.
        """
        wanted = default_parents() if parents is None else tuple(parents)
        me = this_process()
        name = f"{FOLDER_PREFIX}_{_word(me.host)}_{me.pid}_{me.start}_"
        paths = []
        for parent in wanted:
            remove_stale(parent)
            try:
                path = tempfile.mkdtemp("", name, parent)
            except OSError:
                continue
            paths.append(Path(path))
        if not paths:
            raise SpadError(
                f"None of the folders {_listed(wanted)} can be written to, and scans reach the "
                "worker through one of them; make one writable or set TMPDIR to another folder."
            )
        return cls(paths, prefix)

    @property
    def disk(self) -> Path:
        """The last folder, on a disk where there is one: for sockets and logs."""
        return self.paths[-1]

    def write(
        self,
        array: np.ndarray,
        check: Check = _go_on,
        observe: Callable[[memoryview], Any] | None = None,
    ) -> ArrayRef:
        """Store an array of any strides in C order.

        Args:
            array: the array; neither changed nor copied as a whole.
            check: called between blocks of 16 MiB; an error it raises stops the work.
            observe: called with each block that was written.

        Returns:
            The reference, by which the other side finds it.

        Raises:
            SpadError: no folder has room.
        """
        name = next(self._names)
        for path in self.paths:
            file = path / name
            if not _has_room(path, array.nbytes):
                continue
            try:
                with file.open("xb", buffering=0) as stream:
                    _reserve(stream.fileno(), array.nbytes, check)
                    for block in _blocks(array):
                        check()
                        _write_all(stream.fileno(), block)
                        if observe is not None:
                            observe(block)
            except OSError:
                file.unlink(missing_ok=True)
                continue
            except BaseException:
                file.unlink(missing_ok=True)
                raise
            return ArrayRef(str(file), tuple(array.shape), array.dtype.str)
        raise SpadError(
            f"An array of {array.nbytes / 1e6:.0f} MB has no room in {_listed(self.paths)} on its "
            "way to or from the worker; free some space there, or set TMPDIR to a larger disk "
            "and restart."
        )

    def remove(self) -> None:
        """Remove the folders and all that is in them."""
        for path in self.paths:
            shutil.rmtree(path, ignore_errors=True)

    def remove_files(self, prefix: str) -> None:
        """Remove the files whose names begin with `prefix`."""
        for path in self.paths:
            for file in path.glob(f"{prefix}*"):
                file.unlink(missing_ok=True)


def map_array(reference: ArrayRef) -> np.ndarray:
    """Map an array's file, read-only."""
    return np.memmap(reference.file, dtype=reference.dtype, mode="r", shape=reference.shape)


def take_array(reference: ArrayRef) -> np.ndarray:
    """Read an array into memory of its own and remove the file."""
    array = np.empty(reference.shape, dtype=reference.dtype)
    flat = array.reshape(-1).view(np.uint8)
    with Path(reference.file).open("rb", buffering=0) as stream:
        done = 0
        while done < flat.size:
            count = stream.readinto(flat[done : done + BLOCK_BYTES].data)
            if not count:
                raise OSError(f"{reference.file} ends after {done} of {flat.size} bytes")
            done += count
    discard_file(reference.file)
    return array


def discard_file(file: str) -> None:
    """Remove a file; one that is still mapped elsewhere goes with its folder (Windows)."""
    with suppress(OSError):
        Path(file).unlink()


@dataclass
class _Sent:
    reference: ArrayRef
    owner: weakref.ref[np.ndarray]
    digest: bytes | None
    nbytes: int


class SentArrays:
    """Which arrays the worker already has, so that a scan crosses once.

    An array is known by its place in memory for as long as its owner lives. One that anybody could
    write to (labels that are being painted) is compared by content before it is used again.

    Args:
        folder: where the arrays are stored.
        on_lost: called, from any thread, when the owner of a stored array is gone.
        budget: bytes to keep at most; the least recently used go first.
    """

    def __init__(
        self, folder: ArrayFolder, on_lost: Callable[[], None], budget: int = KEPT_BYTES
    ) -> None:
        self._folder = folder
        self._on_lost = on_lost
        self._budget = budget
        self._sent: OrderedDict[tuple[Any, ...], _Sent] = OrderedDict()
        self._in_use: set[str] = set()
        self._forgotten: list[str] = []

    def send(self, array: np.ndarray, check: Check = _go_on) -> ArrayRef:
        """Store an array unless it is already stored.

        Args:
            array: the array, of any strides.
            check: called now and then; an error it raises stops the work.

        Returns:
            The reference to send.

        Raises:
            SpadError: there is no room for it.
        """
        owner = _owner(array)
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        known = self._sent.get(key)
        if known is not None and known.owner() is owner and _is_unchanged(array, known, check):
            self._sent.move_to_end(key)
            self._in_use.add(known.reference.file)
            return known.reference
        if known is not None:
            self._drop(key)
        self._make_room(array.nbytes)
        digest = None if _is_fixed(array) else hashlib.blake2b(digest_size=16)
        observe = None if digest is None else digest.update
        reference = self._folder.write(array, check, observe)
        self._sent[key] = _Sent(
            reference,
            weakref.ref(owner, lambda _: self._on_lost()),
            None if digest is None else digest.digest(),
            array.nbytes,
        )
        self._in_use.add(reference.file)
        return reference

    def release(self) -> None:
        """Say that no job uses the stored arrays at present."""
        self._in_use.clear()

    def collect(self) -> tuple[str, ...]:
        """Remove the files of arrays whose owners are gone.

        Returns:
            The files removed since the last call, which the worker should forget.
        """
        for key in [key for key, sent in self._sent.items() if sent.owner() is None]:
            self._drop(key)
        files, self._forgotten = tuple(self._forgotten), []
        return files

    def _make_room(self, nbytes: int) -> None:
        kept = sum(sent.nbytes for sent in self._sent.values())
        for key, sent in list(self._sent.items()):
            if kept + nbytes <= self._budget:
                return
            if sent.reference.file not in self._in_use:
                kept -= sent.nbytes
                self._drop(key)

    def _drop(self, key: tuple[Any, ...]) -> None:
        reference = self._sent.pop(key).reference
        discard_file(reference.file)
        self._forgotten.append(reference.file)


def default_parents() -> tuple[Path, ...]:
    """Where private folders are made: shared memory where there is one, then the disk."""
    disk = Path(tempfile.gettempdir())
    return (SHARED_MEMORY, disk) if SHARED_MEMORY.is_dir() else (disk,)


def remove_stale(parent: Path) -> None:
    """Remove the private folders in `parent` whose owners on this machine have died."""
    here = socket.gethostname()
    for path in parent.glob(f"{FOLDER_PREFIX}_*_*_*_*"):
        host, pid, start = path.name.split("_")[1:4]
        if host != _word(here) or not pid.isdecimal() or path.is_symlink():
            continue
        if ProcessIdentity(here, int(pid), start).is_alive() is False:
            shutil.rmtree(path, ignore_errors=True)


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _is_fixed(array: np.ndarray) -> bool:
    """Whether nobody can write to the array, through it or through what it is a view of."""
    while not array.flags.writeable:
        if not isinstance(array.base, np.ndarray):
            return True
        array = array.base
    return False


def _is_unchanged(array: np.ndarray, known: _Sent, check: Check) -> bool:
    if known.digest is None:
        return _is_fixed(array)
    digest = hashlib.blake2b(digest_size=16)
    for block in _blocks(array):
        check()
        digest.update(block)
    return digest.digest() == known.digest


def _blocks(array: np.ndarray) -> Iterator[memoryview]:
    """The array's bytes in C order, as flat blocks of about 16 MiB."""
    if array.nbytes <= BLOCK_BYTES or array.ndim == 0:
        yield _bytes(array)
        return
    rows = BLOCK_BYTES * len(array) // array.nbytes
    if rows == 0:
        for row in array:
            yield from _blocks(row)
        return
    for first in range(0, len(array), rows):
        yield _bytes(array[first : first + rows])


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _has_room(path: Path, nbytes: int) -> bool:
    if shutil.disk_usage(path).free < nbytes:
        return False
    # shared memory is memory: leave as much again for the work itself
    return path.parent != SHARED_MEMORY or psutil.virtual_memory().available > 2 * nbytes


def _reserve(descriptor: int, nbytes: int, check: Check) -> None:
    """Claim the space before it is written: beyond a full tmpfs a mapped write kills."""
    if not hasattr(os, "posix_fallocate"):
        os.truncate(descriptor, nbytes)
        return
    for first in range(0, nbytes, 4 * BLOCK_BYTES):
        check()
        os.posix_fallocate(descriptor, first, min(4 * BLOCK_BYTES, nbytes - first))


def _write_all(descriptor: int, block: memoryview) -> None:
    while block:
        block = block[os.write(descriptor, block) :]


def _word(host: str) -> str:
    return host.replace("_", "-")


def _listed(paths: Sequence[Path]) -> str:
    return " and ".join(str(path) for path in paths)
