"""Labels beside a file: where the names of ids are found, and how they are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import stem_of

_STARTS = ("label", "seg", "mask")
_ENDS = ("_labels", "_seg", "_mask")


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
    if own.is_file():
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
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and all(isinstance(name, str) for name in data.values()):
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
