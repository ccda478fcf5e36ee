"""Image to labels and back: the same voxels, place, grid and name, shown the other way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import grids
from spad.errors import SpadError

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel
    from napari.layers import Layer

_LOOK = "other_look"
_PLACE = (
    *("name", "metadata", "scale", "translate", "rotate", "shear", "affine"),
    *("units", "axis_labels", "visible"),
)
_LABELS_LOOK = ("features", "colormap", "opacity", "blending", "contour")
_IMAGE_LOOK = (
    *("colormap", "contrast_limits", "gamma", "opacity", "blending"),
    *("interpolation2d", "interpolation3d", "rendering"),
)
_SLAB = 8_000_000


def toggle(viewer: Viewer | ViewerModel, layer: Layer) -> Layer:
    """Replace an image layer by a labels layer with the same voxels, or the other way round.

    The place in the list, the name, the grid and the look that it had before stay, names and
    colours of labels too.

    Args:
        viewer: the viewer that shows the layer.
        layer: an Image (of whole numbers) or Labels layer.

    Returns:
        The new layer, which is selected.

    Raises:
        SpadError: it is neither, or its numbers are not whole.
    """
    made = switched(layer)
    index = viewer.layers.index(layer)
    name = layer.name
    viewer.layers.insert(index + 1, made)
    viewer.layers.remove(layer)
    # it could not have the name while the other one was there
    made.name = name
    viewer.layers.selection.active = made
    return made


def switched(layer: Layer) -> Layer:
    """Make the labels layer of an image layer, or the image layer of a labels layer.

    Raises:
        SpadError: it is neither, or its numbers are not whole.
    """
    from napari.layers import Image, Labels

    name = layer.name
    if not isinstance(layer, Image | Labels) or getattr(layer, "rgb", False):
        raise SpadError(
            f"{name!r} is no image of one number per voxel; expected an Image or Labels layer; "
            "select such a layer."
        )
    if layer.multiscale:
        raise SpadError(
            f"{name!r} is stored at several resolutions; expected one array; open it at one "
            "resolution to paint labels on it."
        )
    _, meta, _ = layer.as_layer_data_tuple()
    kwargs = {key: meta[key] for key in _PLACE if key in meta}
    tag = dict(meta["metadata"].get(grids.KEY) or {})
    look = tag.pop(_LOOK, {})
    kept = _LABELS_LOOK if isinstance(layer, Labels) else _IMAGE_LOOK
    tag[_LOOK] = {key: meta[key] for key in kept if key in meta} | {"role": tag.get("role")}
    role = look.pop("role", None)
    kwargs["metadata"] = {**meta["metadata"], grids.KEY: tag}
    if isinstance(layer, Labels):
        tag["role"] = role or "scan"
        look = {"contrast_limits": _ends(layer.data), "blending": "translucent_no_depth"} | look
        return Image(np.asarray(layer.data), **kwargs, **look)
    tag["role"] = role or "labels"
    return Labels(whole(layer.data, name), **kwargs, **({"opacity": 0.6} | look))


def whole(data: Any, name: str) -> np.ndarray:
    """Copy whole numbers into the smallest integer type that holds them.

    Args:
        data: any array; floats must hold whole numbers.
        name: what it is called, for the error's sentence.

    Returns:
        The copy, which may be painted on.

    Raises:
        SpadError: a number is not whole, or beyond 32 bits.
    """
    from spad.volumes.files.labels import label_array

    array = np.asarray(data)
    if array.dtype.kind == "f":
        _check_whole(array, name)
    found = label_array(array, repr(name))
    return found.copy() if np.may_share_memory(found, array) else found


def _check_whole(array: np.ndarray, name: str) -> None:
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
    for start in range(0, flat.size, _SLAB):
        part = flat[start : start + _SLAB]
        wrong = part[~(np.rint(part) == part) | ~np.isfinite(part)]
        if wrong.size:
            raise SpadError(
                f"{name!r} holds {_said(float(wrong[0]))}; labels are whole numbers; it is an "
                "image, so it stays one."
            )


def _ends(data: Any) -> tuple[float, float]:
    array = np.asarray(data)
    return array.min().item(), max(array.max().item(), array.min().item() + 1)


def _said(value: float) -> str:
    if np.isnan(value):
        return "voxels that are no number (NaN)"
    return "infinite voxels" if np.isinf(value) else f"{value:.6g}"
