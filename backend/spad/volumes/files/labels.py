"""Labels: how they are recognised, where the names of ids are found, and how they are written."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import stem_of
from spad.volumes.files.options import Options
from spad.volumes.volume import Volume

_STARTS = ("label", "seg", "mask")
_ENDS = ("_labels", "_seg", "_mask")
_WORDS = r"(labels?|labelmap|segs?|segmentations?|masks?)"
_NAMED = re.compile(rf"^{_WORDS}([\d_. -]|$)|[_. -]{_WORDS}\d*$")
_MANY = 1024
_PLANES = 32


def with_labels(
    volume: Volume, path: Path, options: Options, *, header_says: bool = False
) -> Volume:
    """Make labels of a volume that a names file, its header, its name or a person says holds them.

    A name alone ("label0001", "scan_seg", "liver-mask") counts for whole numbers from 0 on with at
    most 1024 different ones (in some planes, evenly spaced).

    Args:
        volume: as read; it is a labels volume already if its file names segments.
        path: its file.
        options: a person's word (`labels`) rules over all else.
        header_says: whether the file's header calls it labels.

    Returns:
        The volume itself if it is an image, else a labels volume with slope 1 and intercept 0.

    Raises:
        SpadError: it is said to hold labels but has other than whole numbers.
    """
    if options.labels is False:
        return replace(volume, label_names=None, label_colors=None)
    names = names_beside(path)
    if names is None:
        names = volume.label_names
    said = names is not None or header_says or options.labels
    if not said and not (named_as_labels(path) and _looks_like_labels(volume)):
        return volume
    if "c" in volume.axes:
        raise SpadError(
            f"{path} is said to hold labels but has {volume.array.shape[-4]} channels; expected "
            "one whole number per voxel; open it as an image."
        )
    array = volume.array
    plain = volume.slope == 1 and volume.intercept == 0
    if not plain or array.dtype.kind not in "iu" or array.dtype.itemsize > 4:
        array = label_array(np.asarray(array) if plain else volume.values(), str(path))
    return replace(
        volume, array=array, slope=1.0, intercept=0.0, unit=None, label_names=names or {}
    )


def named_as_labels(path: Path) -> bool:
    """Whether a file's name says that it holds labels: "label0001", "scan_seg", "liver-mask"."""
    return _NAMED.search(stem_of(path).lower()) is not None


def _looks_like_labels(volume: Volume) -> bool:
    array = volume.array
    if array.dtype.kind not in "iub" or volume.slope != 1 or volume.intercept != 0:
        return False
    if "c" in volume.axes:
        return False
    seen: set[int] = set()
    # some planes are enough to tell, and a large file is not read for its name
    for plane in array[:: max(1, len(array) // _PLANES)]:
        seen.update(np.unique(np.asarray(plane)).tolist())
        if len(seen) > _MANY or min(seen) < 0:
            return False
    return True


def sidecar_of(path: Path) -> Path:
    """Give the path of the file that names a label file's ids: `<stem>.labels.json`."""
    return path.with_name(f"{stem_of(path)}.labels.json")


def names_beside(path: Path) -> dict[int, str] | None:
    """Find the names of a label file's ids.

    Args:
        path: a volume file.

    Returns:
        id to name from `<stem>.labels.json`, else from `labels.json` in the folder if the file's
        name starts with label, seg or mask or ends with _labels, _seg or _mask; None where
        nothing says that the file holds labels.

    Raises:
        SpadError: the file's own sidecar cannot be read.
    """
    own = sidecar_of(path)
    if os.path.isfile(own):  # False, too, where the name is too long to be a file's
        return read_names(own)
    shared = path.with_name("labels.json")
    stem = stem_of(path).lower()
    if shared.is_file() and (stem.startswith(_STARTS) or stem.endswith(_ENDS)):
        return read_names(shared)
    return None


def read_names(path: Path) -> dict[int, str]:
    """Read a names file, `{"1": "spleen", ...}`.

    Raises:
        SpadError: it is not JSON of that form.
    """
    try:
        # editors on Windows begin a file with a mark of its encoding
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(data, dict) and all(isinstance(name, str) for name in data.values()):
            "".join(data.values()).encode()  # raises for half a character, such as "\\ud800"
            return {int(key): name for key, name in data.items()}
    except (OSError, ValueError) as error:
        raise SpadError(
            f"{path} cannot be read as the names of labels ({error}); expected JSON like "
            '{"1": "spleen"}; correct or remove it.'
        ) from error
    raise SpadError(
        f'{path} does not hold the names of labels; expected JSON like {{"1": "spleen"}}; '
        "correct or remove it."
    )


def names_json(names: dict[int, str]) -> str:
    """Write names as the text of a sidecar, ids in order."""
    ordered = {str(int(key)): str(names[key]) for key in sorted(names)}
    return json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"


def label_array(values: np.ndarray, name: str) -> np.ndarray:
    """Give labels in the smallest integer type that holds them.

    Args:
        values: whole numbers of any type, any shape.
        name: what they belong to, for the error's sentence.

    Returns:
        uint8, int16, uint16 or int32 (a view if the type is right already).

    Raises:
        SpadError: they are not whole numbers, or too large.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind not in "iuf":
        raise SpadError(
            f"{name} holds voxels of type {values.dtype}; expected labels, which are whole "
            "numbers; choose a label file."
        )
    if values.dtype.kind == "f" and not _are_whole(values):
        raise SpadError(
            f"{name} holds voxels that are not whole numbers; expected labels; choose a label "
            "file or round it first."
        )
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values if values.dtype == dtype else values.astype(dtype)
    raise SpadError(
        f"{name} holds label ids from {low} to {high}; expected ids within 32 bits (up to "
        "2147483647), which every reader takes; number the labels anew."
    )


def _are_whole(values: np.ndarray) -> bool:
    return all(
        bool(np.isfinite(slab).all() and (slab == np.floor(slab)).all())
        for slab in np.atleast_2d(values)
    )
