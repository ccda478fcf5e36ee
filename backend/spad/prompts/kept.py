"""A session in files: its steps, and beside them its objects and labels, to go on from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from spad.errors import SpadError
from spad.prompts.session import Object
from spad.prompts.session_file import Record, check_scan, read_record
from spad.volumes.files.disk import replace_files
from spad.volumes.volume import Volume

SUFFIX = ".session.json"
_LABELS = ".labels.npz"
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Kept:
    """A session as its files have it.

    Attributes:
        path: of the session file.
        record: what it holds.
        objects: by name.
        labels: along `Volume.array`; None where the file with them is absent.
    """

    path: Path
    record: Record
    objects: Mapping[str, Object]
    labels: np.ndarray | None


def labels_path(path: Path) -> Path:
    """Give the file of labels beside a session file."""
    name = path.name
    stem = name[: -len(SUFFIX)] if name.endswith(SUFFIX) else path.stem
    return path.with_name(stem + _LABELS)


def write(path: Path, record: Record, objects: Mapping[str, Object], labels: np.ndarray) -> Path:
    """Write a session and, beside it, its objects and labels.

    Raises:
        SpadError: the place cannot be written.
    """
    # labels first: a session file without its labels is worth less than the other way round
    write_labels(path, objects, labels)
    record.write(path)
    return path


def write_labels(path: Path, objects: Mapping[str, Object], labels: np.ndarray) -> Path:
    """Write objects and labels beside a session file.

    Args:
        path: of the session file.
        objects: by name.
        labels: along `Volume.array`.

    Raises:
        SpadError: the place cannot be written.
    """
    told = json.dumps({name: one.to_json() for name, one in objects.items()})

    def fill(files: Sequence[Path]) -> None:
        with files[0].open("wb") as file:
            np.savez_compressed(file, labels=labels, objects=np.array(told))

    target = labels_path(path)
    replace_files([target], fill)
    return target


def read(path: Path, scan: Volume | None = None) -> Kept:
    """Read a session with its objects and labels.

    Args:
        path: of the session file.
        scan: the 3D scan that it has to be of; None checks nothing.

    Raises:
        SpadError: it is none, damaged, or of another scan.
    """
    record = read_record(path)
    if scan is not None:
        check_scan(record, scan)
    try:
        with np.load(labels_path(path), allow_pickle=False) as found:
            labels = found["labels"]
            told = json.loads(str(found["objects"]))
        objects = {name: Object.from_json(name, one) for name, one in told.items()}
        if scan is not None and labels.shape != scan.spatial_shape:
            raise ValueError(f"shape {labels.shape} where the scan has {scan.spatial_shape}")
    except FileNotFoundError:
        return Kept(path, record, {}, None)
    except _DAMAGED as error:
        raise SpadError(
            f"{labels_path(path)} cannot be read ({error}); expected the labels of the session; "
            f"'spad replay {path.name} --out LABELS' makes them again."
        ) from error
    return Kept(path, record, objects, labels)
