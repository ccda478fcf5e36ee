"""Saving one layer on its scan's grid: the dialog, the file, and what to say about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_spad import layers, notify
from spad.errors import SpadError
from spad.volumes.files import WRITABLE_SUFFIXES, suffix_of

if TYPE_CHECKING:
    from napari.layers import Layer

_OFFERED = ".nii.gz"
_BOTH = {
    "NIfTI (*.nii.gz *.nii)": ".nii.gz",
    "NRRD (*.nrrd *.nhdr)": ".nrrd",
    "MetaImage (*.mha *.mhd)": ".mha",
}
_LABELS = {
    "3D Slicer segmentation (*.seg.nrrd)": ".seg.nrrd",
    "DICOM SEG (*.dcm)": ".dcm",
    "Surfaces (*.stl)": ".stl",
}


def ask_and_save(parent: QWidget, layer: Layer) -> None:
    """Ask where an image or labels go, and save them there."""
    formats = _BOTH | _LABELS if layers.is_labels(layer) else _BOTH
    stem = re.sub(r" - (organs|Labels)$", "_labels", layer.name)
    stem = re.sub(r'[<>:"/\\|?*\s]+', "_", stem).strip("_.") or "layer"
    path, chosen = QFileDialog.getSaveFileName(
        parent, f"Save {layer.name}", f"{stem}{_OFFERED}", ";;".join(formats)
    )
    if not path:
        return
    target = named(path, chosen, formats.get(chosen, _OFFERED))
    if target != path and Path(target).exists():
        # the dialog asked about another name
        notify.error(
            f"{target} is there already and nobody said to replace it; give the whole name to "
            "replace it."
        )
        return
    save(layer, target)


def named(path: str, chosen: str, suffix: str) -> str:
    """Give the file name that a person means by a path and a format of the dialog.

    Args:
        path: as the dialog gives it; its suffix rules if a person wrote it.
        chosen: the format, with its patterns.
        suffix: the format's own.

    Returns:
        The path, with the format's suffix if it has none or the one that was offered for another.
    """
    found = suffix_of(path)
    if found not in WRITABLE_SUFFIXES:
        return path + suffix
    if found == _OFFERED and chosen and f"*{_OFFERED}" not in chosen:
        return path[: -len(_OFFERED)] + suffix
    return path


def save(layer: Layer, path: str) -> None:
    """Save a layer; what is wrong is shown in a sentence, and so is where it went.

    Args:
        layer: an image or labels on the grid of an open scan.
        path: its ending chooses the format.
    """
    from napari_spad.writer import write_image, write_labels

    data, attributes, kind = layer.as_layer_data_tuple()
    write = write_labels if kind == "labels" else write_image
    try:
        written = write(path, data, attributes)
    except SpadError as error:
        notify.error(str(error))
        return
    notify.info(f"Saved {written[0]}; reopened and compared with what was to be saved.")
