"""The store that training reads: one sharded zarr array per volume, and one table row.

    store.json                        version, data sets, what was left out
    table.csv                         one row per volume, see `Row`
    volumes/<data set>/<name>/        a zarr 3 group whose attributes are the row
        image/  labels/               (C, D, H, W) and (D, H, W), canonical axes, depth first

An array is one shard (one file) of chunks as deep as a crop of its `da` is: a crop reads little
else. A volume is written under a temporary name and renamed, so one that is there is whole.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError

if TYPE_CHECKING:
    import torch

VERSION = 1
TABLE, ABOUT, VOLUMES = "table.csv", "store.json", "volumes"
PARTS = ("train", "validation", "aside")
CHUNK = (16, 64, 64)
"""Voxels of a chunk at `da` 0; its depth halves with each degree, as that of a crop does."""

_ABSENT = 2**64 - 1
_CHECKSUM = 4


@dataclass(frozen=True)
class Row:
    """What the table says about a volume; lengths are in mm, axes depth, height, width.

    Attributes:
        key: data set and name; its folder below `volumes`.
        source: the file it was made from, relative to what was prepared.
        data_set: its data set.
        patient: whose it is.
        modality: DICOM code or "unknown".
        part: "train", "validation", or "aside": another scan of a patient kept for validation.
        shape: channels, depth, height, width.
        spacing: of its voxels.
        orientation: letters towards which the three axes run.
        da: degree of anisotropy.
        dtype: of the stored voxels.
        weight: how often it is drawn.
        limits: stored values that become 0 and 1.
        span: percentiles 0.5 and 99.5 of a CT stored in HU, else None.
        labels: whether labels are stored with it.
        origin_shape: of the source, before cropping and shrinking.
        origin_spacing: alike.
        mean: of the stored voxels in the scan's unit; so are all below.
        median: of all voxels.
        sd: standard deviation.
        min: smallest.
        p0_5: percentile 0.5 of the voxels above the minimum.
        p99_5: percentile 99.5 of the same.
        max: largest.
        sha256: of the array's bytes (C order).
        labels_sha256: of the labels' bytes, or "".
        source_sha256: of the source's bytes (of a folder: of its files' names and checksums).
    """

    key: str
    source: str
    data_set: str
    patient: str
    modality: str
    part: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    da: int
    dtype: str
    weight: float
    limits: tuple[float, ...]
    span: tuple[float, ...] | None
    labels: bool
    origin_shape: tuple[int, ...]
    origin_spacing: tuple[float, ...]
    mean: float
    median: float
    sd: float
    min: float
    p0_5: float
    p99_5: float
    max: float
    sha256: str
    labels_sha256: str
    source_sha256: str

    @property
    def nbytes(self) -> int:
        """Bytes of its voxels in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def to_cells(self) -> dict[str, str]:
        """Give the cells of the table."""
        return {f.name: _cell(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_cells(cls, cells: Mapping[str, str]) -> Row:
        """Read the cells of the table; KeyError or ValueError where they are not a row."""
        return cls(**{f.name: _value(str(f.type), cells[f.name]) for f in fields(cls)})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Read a row from a volume's attributes; KeyError where it is not there."""
        listed: dict[str, Any] = {f.name: values[f.name] for f in fields(cls)}
        tuples = {name: tuple(value) for name, value in listed.items() if isinstance(value, list)}
        return cls(**listed | tuples)


@dataclass(frozen=True)
class Store:
    """A store as a run reads it.

    Attributes:
        path: its folder.
        rows: of its volumes, in the order of their keys.
        label_names: for each data set, id to name.
        about: what `store.json` says.
    """

    path: Path
    rows: tuple[Row, ...]
    label_names: dict[str, dict[int, str]]
    about: dict[str, Any]

    def image(self, row: Row) -> StoredVoxels:
        """Give a volume's voxels, (C, D, H, W); nothing is read yet."""
        return StoredVoxels(str(self.path / VOLUMES / row.key / "image"), row.shape)

    def labels(self, row: Row) -> np.ndarray:
        """Read a volume's labels, (D, H, W) uint8 in its data set's own numbers."""
        array = StoredVoxels(str(self.path / VOLUMES / row.key / "labels"), row.shape[1:])
        return array[:, :, :].numpy()


class StoredVoxels:
    """Voxels on disk: an index reads the chunks that it touches; fit for worker processes.

    Any zarr reader reads these arrays. This one reads only those that `spad prepare` wrote, in one
    thread and without zarr's event loop, which takes ten times as long for chunks so small.

    Args:
        path: the array's folder.
        shape: what the table says.
    """

    def __init__(self, path: str, shape: Sequence[int]) -> None:
        self.path, self.shape = path, tuple(shape)

    def __getitem__(self, crop: Any) -> torch.Tensor:
        """Read a crop: one slice without a step for each axis.

        Raises:
            SpadError: the array is damaged or gone.
        """
        import torch

        ends = [s.indices(n) for s, n in zip(crop, self.shape, strict=True)]
        starts, stops = [e[0] for e in ends], [max(e[0], e[1]) for e in ends]
        try:
            return torch.from_numpy(self._read(starts, stops))
        except Exception as error:
            raise SpadError(
                f"{self.path} cannot be read ({error or type(error).__name__}); expected a volume "
                "as `spad prepare` wrote it; run `spad prepare` on this store again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was read of the file: each process reads its own."""
        return {"path": self.path, "shape": self.shape}

    @cached_property
    def _layout(self) -> tuple[np.dtype, tuple[int, ...]]:
        """Type and chunk of the array, if it is laid out as `_write_array` does it."""
        about = json.loads((Path(self.path) / "zarr.json").read_text(encoding="utf-8"))
        (sharding,) = about["codecs"]
        inner = [codec["name"] for codec in sharding["configuration"]["codecs"]]
        if tuple(about["shape"]) != self.shape or sharding["name"] != "sharding_indexed":
            raise ValueError(f"its shape is {about['shape']}, the table says {self.shape}")
        if inner != ["bytes", "blosc"]:
            raise ValueError(f"it is encoded by {inner}")
        return np.dtype(about["data_type"]), tuple(sharding["configuration"]["chunk_shape"])

    def _read(self, starts: Sequence[int], stops: Sequence[int]) -> np.ndarray:
        from numcodecs import blosc

        dtype, chunk = self._layout
        out = np.zeros([b - a for a, b in zip(starts, stops, strict=True)], dtype)
        touched = [range(a // c, -(-b // c)) for a, b, c in zip(starts, stops, chunk, strict=True)]
        with Path(self.path, "c", *("0" for _ in self.shape)).open("rb", buffering=0) as file:
            counts = tuple(-(-n // c) for n, c in zip(self.shape, chunk, strict=True))
            index = _index(file.name, os.fstat(file.fileno()).st_mtime_ns, counts)
            for place in itertools.product(*touched):
                offset, length = index[place].tolist()
                if length == _ABSENT:  # all zeros
                    continue
                file.seek(offset)
                voxels = np.frombuffer(blosc.decompress(file.read(length)), dtype).reshape(chunk)
                source, target = [], []
                for at, c, a, b in zip(place, chunk, starts, stops, strict=True):
                    low, high = max(a, at * c), min(b, at * c + c)
                    source.append(slice(low - at * c, high - at * c))
                    target.append(slice(low - a, high - a))
                out[tuple(target)] = voxels[tuple(source)]
        return out


@lru_cache(maxsize=4096)
def _index(file: str, changed: int, counts: tuple[int, ...]) -> np.ndarray:
    """Read where each chunk of a shard lies: (*counts, 2), offset and length; it stands at the end.

    Args:
        file: the shard.
        changed: when it was written, so that a newer one is read anew.
        counts: chunks along each axis.
    """
    length = 16 * math.prod(counts)
    with open(file, "rb") as stream:
        stream.seek(-length - _CHECKSUM, os.SEEK_END)
        return np.frombuffer(stream.read(length), "<u8").reshape(*counts, 2)


def is_store(path: str | Path) -> bool:
    """Tell a store by its table."""
    return (Path(path) / TABLE).is_file() and (Path(path) / ABOUT).is_file()


def open_store(path: str | Path) -> Store:
    """Read a store's table; no voxel is read.

    Raises:
        SpadError: there is no store, or it was made by another version or is damaged.
    """
    path = Path(path)
    if not is_store(path):
        raise SpadError(
            f"{path} is no store, since it has no {TABLE}; expected what `spad prepare` made; "
            "run it (again, if it was interrupted)."
        )
    about = read_about(path)
    try:
        with (path / TABLE).open(newline="", encoding="utf-8") as file:
            rows = tuple(Row.from_cells(cells) for cells in csv.DictReader(file))
        names = {
            name: {int(key): str(value) for key, value in one["label_names"].items()}
            for name, one in about["data_sets"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpadError(
            f"The table of {path} is damaged ({error}); expected one as `spad prepare` writes it; "
            "run it again with the same source."
        ) from error
    return Store(path, rows, names, about)


def read_about(path: Path) -> dict[str, Any]:
    """Read `store.json`.

    Raises:
        SpadError: it is damaged or of another version.
    """
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        version = about["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpadError(
            f"{path / ABOUT} cannot be read ({error}); expected what `spad prepare` wrote; remove "
            "it and run `spad prepare` again."
        ) from error
    if version != VERSION:
        raise SpadError(
            f"{path} is a store of version {version}; expected {VERSION}; prepare it anew in "
            "another folder."
        )
    return dict(about)


def write_group(
    place: Path,
    image: np.ndarray,
    labels: np.ndarray | None,
    da: int,
    attributes: Mapping[str, Any],
) -> None:
    """Write a volume's arrays into a folder that is not there yet.

    Args:
        place: the folder.
        image: (C, D, H, W).
        labels: (D, H, W), or None.
        da: degree of anisotropy, for the depth of chunks.
        attributes: of the group, plain JSON values.
    """
    import zarr

    zarr.create_group(place, zarr_format=3, attributes=dict(attributes))
    depth, height, width = max(1, CHUNK[0] >> da), *CHUNK[1:]
    _write_array(place / "image", image, (len(image), depth, height, width))
    if labels is not None:
        _write_array(place / "labels", labels, (depth, height, width))


def _write_array(place: Path, array: np.ndarray, chunks: tuple[int, ...]) -> None:
    import zarr
    from zarr.codecs import BloscCodec

    shards = tuple(-(-n // c) * c for n, c in zip(array.shape, chunks, strict=True))
    written = zarr.create_array(
        *(place,),
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=shards,
        compressors=BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"),
        fill_value=0,
    )
    written[...] = array


def checksum(array: np.ndarray) -> str:
    """Give the SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def verify(store: Store) -> Iterator[tuple[Row, str]]:
    """Read every volume again and compare it with its checksums.

    Yields:
        Each row with "", or with what is wrong with its volume.
    """
    for row in store.rows:
        try:
            image = store.image(row)[:, :, :, :].numpy()
            good = checksum(image) == row.sha256 and image.shape == row.shape
            if row.labels:
                good &= checksum(store.labels(row)) == row.labels_sha256
        except SpadError as error:
            yield row, str(error)
            continue
        yield row, "" if good else "its voxels are not those that were written"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return " ".join(map(_cell, value))
    return "" if value is None else str(value)


def _value(kind: str, cell: str) -> Any:
    """Read a cell by the annotation of its field."""
    if kind.startswith("tuple"):
        number = int if kind.startswith("tuple[int") else float
        return None if kind.endswith("None") and not cell else tuple(map(number, cell.split()))
    if kind == "bool":
        return bool(int(cell))
    return {"int": int, "float": float}.get(kind, str)(cell)
