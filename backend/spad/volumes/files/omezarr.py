"""Reading OME-Zarr (NGFF 0.4 and 0.5): one resolution with its units, lazily if it is large."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import assemble
from spad.volumes.files.labels import with_labels
from spad.volumes.files.ngff import (
    Labelling,
    Layout,
    attributes_of,
    datasets_of,
    labelling_of,
    layout_of,
    multiscales_of,
    plain_layout,
)
from spad.volumes.files.options import Options
from spad.volumes.files.reasons import reason
from spad.volumes.files.units import HOW_TO_STATE, RADIOLOGICAL, Steps, choose_spacing
from spad.volumes.volume import Volume

LAZY_BYTES = 128 << 20
"""An array of at least this size is opened as dask chunks, a smaller one is read at once."""

_METADATA = (".zarray", ".zgroup", ".zattrs", "zarr.json", ".zmetadata")
_ZIPS = (".zip", ".ozx")
# Zstandard and Blosc shrink even a constant chunk no further than about this
_MOST = 20_000
_LARGE_CHUNK = 64 << 20
# beyond this size, one chunk of this many must be there
_HUGE, _SPARSE = 64 << 30, 1000
_LISTED, _FEW = 1024, 10_000


def read(path: Path, options: Options) -> Volume:
    """Read an OME-Zarr image or labels group, or one of its arrays; see `spad.volumes.files.read`.

    The first (finest) resolution is read unless the path names another (`scan.zarr/1`). Index to
    world: the level's scale and translation, then the multiscales' own; x runs to the left, y to
    posterior and z to superior (as ITK reads Zarr) unless axes state an anatomical orientation.

    Raises:
        SpadError: it is no image, its metadata are wrong, or it claims more than it can hold.
    """
    try:
        node = _open(path)
        group, array, key = _image(path, node)
        layout, labelling = _describe(path, group, array, key)
        data = _load(path, array)
    except SpadError:
        raise
    except MemoryError as error:
        raise SpadError(
            f"{path} needs more memory than is free; close other programs or open a coarser level."
        ) from error
    except Exception as error:  # zarr and its codecs raise anything on damaged data
        raise _damaged(path, error) from error
    return _volume(path, options, data, layout, labelling)


def _damaged(path: Path, error: Exception) -> SpadError:
    return SpadError(
        f"{path} cannot be read as OME-Zarr ({reason(error, path)}); expected "
        "metadata and chunks as zarr 2 or 3 writes them; copy the whole folder again."
    )


def _open(path: Path) -> Any:
    """Open a group or an array of a folder, or the root of a zip file."""
    import zarr

    if path.is_file() and path.suffix.lower() in _ZIPS:
        return zarr.open(store=zarr.storage.ZipStore(path, mode="r"), mode="r")
    return zarr.open(store=zarr.storage.LocalStore(path, read_only=True), mode="r")


def _image(path: Path, node: Any) -> tuple[Any, Any, str]:
    """Find the group with the image's metadata, the array to read, and its place in the group."""
    import zarr

    if isinstance(node, zarr.Array):
        group, key = (None, "") if path.is_file() else _group_above(path)
        return group, node, key
    attributes = attributes_of(dict(node.attrs))
    if "multiscales" in attributes:
        key = datasets_of(path, multiscales_of(path, attributes))[0]
        return node, _dataset(path, node, key), key
    raise _no_image(path, node, attributes)


def _group_above(path: Path) -> tuple[Any, str]:
    """Find the nearest group above an array that lists it as a resolution, else None."""
    import zarr

    for parent in list(path.parents)[:3]:
        if not any((parent / name).is_file() for name in (".zattrs", "zarr.json")):
            continue
        group = zarr.open(store=zarr.storage.LocalStore(parent, read_only=True), mode="r")
        attributes = attributes_of(dict(group.attrs))
        key = path.relative_to(parent).as_posix()
        if "multiscales" in attributes and key in datasets_of(
            parent, multiscales_of(parent, attributes)
        ):
            return group, key
    return None, ""


def _no_image(path: Path, node: Any, attributes: dict[str, Any]) -> SpadError:
    """Say what a group without an image holds and what to open in its place."""
    if "plate" in attributes or "well" in attributes:
        return SpadError(
            f"{path} is a plate or a well with many fields; expected one image; open a field "
            "inside it, such as A/1/0."
        )
    names = [str(name) for name in attributes.get("labels", [])] if "labels" in attributes else []
    names = names or sorted(str(name) for name in list(node.keys())[:50])
    if not names:
        return SpadError(
            f"{path} is an empty zarr group; expected an image; copy the whole folder again."
        )
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return SpadError(
        f"{path} is a zarr group without an image of its own (it holds "
        f"{', '.join(names[:5])}{more}); expected OME-Zarr metadata; open one of these."
    )


def _dataset(path: Path, group: Any, key: str) -> Any:
    import zarr

    array = group.get(key)
    if not isinstance(array, zarr.Array):
        raise SpadError(
            f"{path} lists a resolution {key!r} that is not there; expected an array; copy the "
            "whole folder again."
        )
    return array


def _describe(path: Path, group: Any, array: Any, key: str) -> tuple[Layout, Labelling | None]:
    if group is None:
        return plain_layout(path, array.shape), None
    attributes = attributes_of(dict(group.attrs))
    layout = layout_of(path, attributes, key, array.shape, array.dtype)
    _mention_labels(layout, group)
    return layout, labelling_of(path, attributes.get("image-label"))


def _mention_labels(layout: Layout, group: Any) -> None:
    if "labels" not in group:
        return
    names = [str(name) for name in list(group["labels"].keys())[:5]]
    if names:
        layout.notes.append(
            f"The file also holds labels ({', '.join(names)}); open them as labels/{names[0]} "
            "inside it."
        )


def _load(path: Path, array: Any) -> Any:
    """Give the voxels: at once if they are few, else as dask chunks."""
    if array.dtype.kind not in "biuf":
        raise SpadError(
            f"{path} holds voxels of type {array.dtype}; expected integers or real numbers; "
            "export it again as such."
        )
    if 0 in array.shape:
        raise SpadError(
            f"{path} is empty: its metadata give the shape {array.shape}; expected at least one "
            "voxel along each axis; export it again."
        )
    nbytes = math.prod(array.shape) * array.dtype.itemsize
    outer = array.shards or array.chunks
    _check_claims(path, array, nbytes, outer)
    if nbytes < LAZY_BYTES:
        return np.asarray(array[...])
    import dask.array

    lazy = _Chunks(array, path)
    return dask.array.from_array(lazy, chunks=array.chunks, name=None, asarray=False)


class _Chunks:
    """An array whose damaged chunks raise a sentence when they are looked at."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array = array
        self._path = path
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, region: Any) -> np.ndarray:
        try:
            return np.asarray(self._array[region])
        except Exception as error:  # codecs raise anything on damaged data
            raise _damaged(self._path, error) from error

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self._path), self._array.path, self.shape, str(self.dtype))


def _check_claims(path: Path, array: Any, nbytes: int, outer: tuple[int, ...]) -> None:
    """Refuse large claims that no chunks on disk bear out; absent chunks are a fill value."""
    chunk = math.prod(outer) * array.dtype.itemsize
    largest, count = _chunk_files(array, path)
    total = math.prod(-(-n // step) for n, step in zip(array.shape, outer, strict=True))
    if 0 < count < _LISTED and total < _FEW and array.nchunks_initialized == 0:
        raise SpadError(
            f"{path} holds chunks under other names than its metadata describe; expected matching "
            "ones (such as its dimension separator); correct the metadata or export it again."
        )
    if nbytes < LAZY_BYTES and chunk < _LARGE_CHUNK:
        return
    if largest == 0:
        held = "it holds no chunk"
    elif largest * _MOST < min(chunk, nbytes):
        held = f"its largest chunk has {largest} bytes"
    elif nbytes > _HUGE and count < min(_LISTED, total / _SPARSE):
        held = f"it holds {count} of its {total} chunks"
    else:
        return
    raise SpadError(
        f"{path} claims {nbytes} bytes of voxels in chunks of {chunk}, but {held}; expected the "
        "chunks that its metadata describe; copy the whole folder again."
    )


def _chunk_files(array: Any, path: Path) -> tuple[int, int]:
    """Give the size of the largest of the first chunks found, and how many these are."""
    root = getattr(array.store_path.store, "root", None)
    if root is None or not Path(root).is_dir():
        return path.stat().st_size, _LISTED
    largest = count = 0
    for folder, _, files in os.walk(Path(root) / array.path):
        for name in files:
            if name in _METADATA:
                continue
            largest = max(largest, os.path.getsize(os.path.join(folder, name)))
            count += 1
            if count >= _LISTED:
                return largest, count
    return largest, count


def _volume(
    path: Path, options: Options, data: Any, layout: Layout, labelling: Labelling | None
) -> Volume:
    """Bring voxels and geometry to file order and make the volume."""
    axes = layout.axes
    keep = [n for n, letter in enumerate(axes) if letter in "xyz" or data.shape[n] > 1]
    data = data[tuple(slice(None) if n in keep else 0 for n in range(len(axes)))]
    left = "".join(axes[n] for n in keep)
    order = [letter for letter in "xyztc" if letter in left]
    data = data.transpose([left.index(letter) for letter in order])
    if "z" not in left:
        data = data[:, :, None]
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    affine, notes = _affine(path, options, layout, flat=data.shape[2] == 1)
    fields = dict(layout.fields)
    if "t" not in left:
        fields.pop("time_step", None)
    volume = assemble(
        data,
        affine,
        axes="ijk" + "".join(letter for letter in "tc" if letter in left),
        path=path,
        format="ome-zarr",
        options=options,
        rgb=layout.rgb and "c" in left,
        notes=(*layout.notes, *notes),
        **fields,
    )
    if labelling is None:
        return with_labels(volume, path, options)
    volume = replace(volume, label_names=labelling.names)
    found = with_labels(volume, path, options, header_says=True)
    return replace(found, label_colors=labelling.colors) if found.is_labels else found


def _affine(
    path: Path, options: Options, layout: Layout, *, flat: bool
) -> tuple[np.ndarray, list[str]]:
    """Build the affine, index (i, j, k) = (x, y, z) to RAS+ mm."""

    def at(values: list[Any], letter: str, default: Any) -> Any:
        return values[layout.axes.index(letter)] if letter in layout.axes else default

    found: Steps = tuple(at(layout.scale, letter, None) for letter in "xyz")
    if options.spacing is None and all(step is None for step in found):
        raise SpadError(
            f"{path} states no spacing of its voxels; expected millimetres along x, y and z "
            f"(i, j, k); state it {HOW_TO_STATE}, such as 0.8 0.8 2.5."
        )
    spacing, notes = choose_spacing(path, options, found, flat=flat)
    places = layout.towards or {"x": (0, -1), "y": (1, -1), "z": (2, 1)}
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, letter in enumerate("xyz"):
        world, sign = places[letter]
        affine[world, column] = sign * spacing[column]
        affine[world, 3] = sign * at(layout.origin, letter, 0.0)
    if layout.towards is None:
        notes.append(RADIOLOGICAL)
    return affine, notes
