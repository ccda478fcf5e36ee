"""napari's File > Save: layers as files that overlay their scan voxel by voxel."""

from __future__ import annotations

from typing import Any

from napari_spad.layers import volume_from
from spad.volumes.files import write


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an Image layer on the grid of the scan it belongs to.

    A scan that was opened is written as it was stored; any other image in the type it has.

    Args:
        path: ends in .nii.gz, .nii, .hdr or .img.
        data: the layer's data.
        attributes: the layer's attributes, as napari hands them to a writer.

    Returns:
        The file written.

    Raises:
        SpadError: the layer belongs to no open scan, or the file cannot be written.
    """
    return [str(write(volume_from(data, attributes, "image"), path))]


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer on the grid of the scan it belongs to, whoever made it.

    The file has the scan's shape, affine, codes and units; the names go to
    `<stem>.labels.json` beside it.

    Args:
        path: ends in .nii.gz, .nii, .hdr or .img.
        data: the layer's data.
        attributes: the layer's attributes, as napari hands them to a writer.

    Returns:
        The file written.

    Raises:
        SpadError: the layer belongs to no open scan, or the file cannot be written.
    """
    return [str(write(volume_from(data, attributes, "labels"), path))]
