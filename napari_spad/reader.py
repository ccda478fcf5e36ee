"""napari's File > Open: NIfTI and Analyze files with their true geometry."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_spad import notify
from spad.errors import SpadError

PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
NOTHING: list[Any] = [(None,)]
_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Offer to read NIfTI-1, NIfTI-2 and Analyze files, judged by their names alone.

    Args:
        path: a path, or several.

    Returns:
        `read_layers` if it can read all of them, else None.
    """
    try:
        paths = _paths(path)
        known = bool(paths) and all(str(one).lower().endswith(_SUFFIXES) for one in paths)
    except TypeError:
        return None
    return read_layers if known else None


def read_layers(path: PathOrPaths) -> list[Any]:
    """Read files as layers; what is wrong with one is shown as a notification.

    Args:
        path: a path, or several.

    Returns:
        Layer data tuples, or napari's sign for "nothing to show".
    """
    layers = []
    for one in _paths(path):
        try:
            layers.append(read_layer(one))
        except SpadError as error:
            notify.error(str(error))
    return layers or NOTHING


def read_layer(path: str | os.PathLike[str], depth: int | None = None) -> Any:
    """Read one file as a layer.

    Args:
        path: the file.
        depth: the file's axis that is depth, if a person states it.

    Returns:
        A layer data tuple.

    Raises:
        SpadError: the file cannot be read.
    """
    from napari_spad.layers import to_layer
    from spad.volumes.files import read, stem_of

    volume = read(Path(path), depth=depth)
    for note in volume.notes:
        notify.info(note)
    return to_layer(volume, stem_of(path), role="labels" if volume.is_labels else "scan")


def _paths(path: PathOrPaths) -> list[str]:
    if isinstance(path, str | os.PathLike):
        return [os.fspath(path)]
    return [os.fspath(one) for one in path]
