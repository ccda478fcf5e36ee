"""napari's File > Save: layers as files that overlay their scan voxel by voxel."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_spad import grids, notify
from napari_spad.layers import volume_from
from spad.errors import SpadError
from spad.volumes.files import READABLE_SUFFIXES, suffix_of, write
from spad.volumes.volume import Volume

_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]+')


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an Image layer on the grid of the scan it belongs to, as NIfTI if the path is mute.

    A scan that was opened is written as it was stored; any other image in the type it has.

    Args:
        path: its suffix says the format; without one it becomes .nii.gz.
        data: the layer's data.
        attributes: the layer's attributes, as napari hands them to a writer.

    Returns:
        The file written.

    Raises:
        SpadError: the layer belongs to no open scan, or the file cannot be written.
    """
    return _write(path, data, attributes, "image", ".nii.gz")


def write_image_nrrd(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Do as `write_image`; a path without suffix becomes .nrrd."""
    return _write(path, data, attributes, "image", ".nrrd")


def write_image_mha(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Do as `write_image`; a path without suffix becomes .mha."""
    return _write(path, data, attributes, "image", ".mha")


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer on the grid of the scan it belongs to, whoever made it.

    The file has the scan's shape, affine, codes and units, and the smallest integer type that
    holds the labels; names and colours go into the file where its format has a place for them,
    else the names to `<stem>.labels.json` beside it.

    Args:
        path: its suffix says the format; without one it becomes .nii.gz.
        data: the layer's data.
        attributes: the layer's attributes, as napari hands them to a writer.

    Returns:
        The file written.

    Raises:
        SpadError: the layer belongs to no open scan, or the file cannot be written.
    """
    return _write(path, data, attributes, "labels", ".nii.gz")


def write_labels_nrrd(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Do as `write_labels`; a path without suffix becomes .seg.nrrd."""
    return _write(path, data, attributes, "labels", ".seg.nrrd")


def write_labels_mha(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Do as `write_labels`; a path without suffix becomes .mha."""
    return _write(path, data, attributes, "labels", ".mha")


def write_labels_dicom(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Do as `write_labels`; a path without suffix becomes .dcm (DICOM SEG)."""
    return _write(path, data, attributes, "labels", ".dcm")


def write_labels_stl(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Do as `write_labels`; a path without suffix becomes .stl (surfaces)."""
    return _write(path, data, attributes, "labels", ".stl")


def write_folder(path: str, layer_data: Sequence[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Write several layers into a folder, one .nii.gz each, all or none.

    Layers of which none lies on an open scan are left to napari's own folder writer.

    Args:
        path: the folder; created if it is not there.
        layer_data: data, attributes and type of each layer.

    Returns:
        The files written.

    Raises:
        SpadError: a layer belongs to no open scan, a file of that name is there already, or the
            folder cannot be written to.
    """
    if not any(_lies_on_a_scan(data, meta) for data, meta, _ in layer_data):
        from napari_builtins.io import write_layer_data_with_plugins

        return list(write_layer_data_with_plugins(path, list(layer_data)))
    volumes = [volume_from(data, meta, kind) for data, meta, kind in layer_data]
    names = _file_names([str(meta.get("name") or "layer") for _, meta, _ in layer_data])
    folder = Path(path)
    for name in names:
        _refuse_existing(folder / name, "choose an empty or new folder")
    try:
        return _fill_folder(folder, names, volumes)
    except OSError as error:
        raise SpadError(
            f"{folder} cannot be written to ({error.strerror or error}); expected a folder, or a "
            "new name for one; choose another place."
        ) from error


def _fill_folder(folder: Path, names: list[str], volumes: list[Volume]) -> list[str]:
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".spad-", dir=folder) as aside:
            for name, volume in zip(names, volumes, strict=True):
                write(volume, Path(aside) / name)
            for file in sorted(Path(aside).iterdir()):
                _refuse_existing(folder / file.name, "choose an empty or new folder")
            for file in sorted(Path(aside).iterdir()):
                os.replace(file, folder / file.name)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return [str(folder / name) for name in names]


def _write(path: str, data: Any, attributes: dict[str, Any], kind: str, suffix: str) -> list[str]:
    target = Path(path)
    if suffix_of(target) not in (*READABLE_SUFFIXES, ".stl"):
        target = target.with_name(target.name + suffix)
        # the dialog asked about the name without its suffix
        _refuse_existing(target, f"give a name that ends in {suffix} to replace it")
    volume = volume_from(data, attributes, kind)
    if volume is not grids.shown_by(data):
        for note in volume.notes:
            notify.info(note)
    return [str(write(volume, target))]


def _lies_on_a_scan(data: Any, meta: dict[str, Any]) -> bool:
    try:
        grids.fit_of(data, meta)
    except SpadError:
        return grids.role_in(meta) is not None
    return True


def _file_names(names: list[str]) -> list[str]:
    """Make file names of layers' names, all different."""
    found: list[str] = []
    for name in names:
        stem = _NOT_IN_NAMES.sub("_", name).strip(" .") or "layer"
        candidate, number = f"{stem}.nii.gz", 2
        while candidate.lower() in (other.lower() for other in found):
            candidate, number = f"{stem} {number}.nii.gz", number + 1
        found.append(candidate)
    return found


def _refuse_existing(path: Path, advice: str) -> None:
    if path.exists():
        raise SpadError(f"{path} is there already and nobody said to replace it; {advice}.")
