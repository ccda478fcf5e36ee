"""Between `Volume` and napari layer: upright, radiological, in mm, and the exact way back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_spad import grids
from napari_spad.colors import label_colormap
from spad.errors import SpadError
from spad.volumes.axes import from_canonical, to_canonical
from spad.volumes.intensity import CT, MR
from spad.volumes.volume import Volume

if TYPE_CHECKING:
    from napari.layers import Layer

AXIS_LABELS = ("S-I", "A-P", "R-L")
LayerData = tuple[np.ndarray, dict[str, Any], Literal["image", "labels"]]
_TIME_UNITS = {"sec": "s", "msec": "ms", "usec": "us"}
_SAMPLE = 8_000_000


def to_layer(
    volume: Volume, name: str, *, role: str = "scan", on: grids.Grid | None = None, **options: Any
) -> LayerData:
    """Make what napari needs to show a volume.

    The last three axes are S to I, A to P and R to L whichever of them is depth; `scale` is the
    spacing in mm and napari's world is (-S, -A, -R) mm; time or channels come first.

    Args:
        volume: a scan, labels, or a result on a scan's grid or a coarser one.
        name: the layer's name.
        role: "scan" for what a person opened, else a word for what it is.
        on: the grid of the scan that it is derived from, where its own is another.
        options: more keyword arguments for the layer; they rule over ours.

    Returns:
        `(data, kwargs, "image" or "labels")`; data in the scan's unit (HU for CT).
    """
    grid = grids.register(volume, name, on)
    view, _ = to_canonical(volume, depth_first=False)
    kwargs: dict[str, Any] = {"name": name, **_frame(volume, grid.placement)}
    kwargs["metadata"] = {grids.KEY: {"uuid": grid.uuid, "role": role}}
    if volume.is_labels:
        data = _label_data(view)
        kwargs |= _label_look(volume.label_names or {})
    else:
        data = scan_values(view, volume.slope, volume.intercept)
        kwargs |= _image_look(volume)
    grids.hold(volume, data)
    kwargs |= options
    return data, kwargs, "labels" if volume.is_labels else "image"


def volume_of(layer: Layer) -> Volume:
    """Give an open layer as a volume on its source grid.

    Args:
        layer: an Image or Labels layer on the grid of an open scan, made by anyone.

    Returns:
        The scan as it was read if the layer shows it, else the layer's voxels on that grid.

    Raises:
        SpadError: the layer lies on no open grid, or on several.
    """
    data, meta, kind = layer.as_layer_data_tuple()
    return volume_from(data, meta, kind)


def volume_from(data: Any, meta: dict[str, Any], kind: str) -> Volume:
    """Do as `volume_of` with what a writer gets: data, the layer's attributes and its type."""
    grid = grids.grid_of(data, meta)
    shown = grids.shown_by(data)
    if shown is not None and kind == "image" and shown.source.uuid == grid.uuid:
        return shown
    array = np.asarray(data)
    names = None
    if kind == "labels":
        names = label_names(meta)
        if not np.issubdtype(array.dtype, np.integer):
            raise SpadError(
                f"{meta.get('name')!r} holds labels of type {array.dtype}; expected whole numbers."
            )
    array = from_canonical(array, grid.volume, depth_first=False)
    volume = grid.volume.with_array(array, label_names=names)
    return replace(volume, modality_hint=grid.volume.modality_hint)


def grid_of_layer(layer: Layer) -> grids.Grid | None:
    """Give the source grid of a layer, or None where it has none."""
    from napari.layers import Image, Labels

    if not isinstance(layer, Image | Labels) or layer.ndim < 3:
        return None
    return grids.find(layer.data, _meta(layer))


def is_labels(layer: Layer) -> bool:
    """Whether a layer holds labels."""
    from napari.layers import Labels

    return isinstance(layer, Labels)


def is_image(layer: Layer) -> bool:
    """Whether a layer holds a 3D image of one value per voxel."""
    from napari.layers import Image

    return isinstance(layer, Image) and layer.ndim >= 3 and not layer.rgb


def role_of(layer: Layer) -> str | None:
    """Say what a layer is to us: "scan", "organs", ... or None for a layer of another kind."""
    tag = layer.metadata.get(grids.KEY)
    return tag.get("role") if isinstance(tag, dict) else None


def scan_volume(layer: Layer) -> Volume | None:
    """Give the scan that an image layer shows, or None if it shows none on an open grid."""
    if not is_image(layer):
        return None
    try:
        return volume_of(layer)
    except SpadError:
        return None


def label_names(meta: dict[str, Any]) -> dict[int, str]:
    """Read id to name from the features of a Labels layer; {} if it has none."""
    features = meta.get("features")
    if features is None or "index" not in features or "name" not in features:
        return {}
    pairs = zip(features["index"], features["name"], strict=True)
    return {int(label): str(name) for label, name in pairs if int(label) > 0 and name is not None}


def scan_values(view: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Give stored voxels in the scan's unit, in the smallest type that holds them exactly.

    Args:
        view: as stored.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.

    Returns:
        The view itself where stored numbers are the unit, int16 or int32 where the scaled numbers
        are whole, else float32.
    """
    native = view.dtype.newbyteorder("=")
    if slope == 1 and intercept == 0:
        if view.dtype == np.bool_:
            return view.astype(np.uint8)
        return view if view.dtype.isnative else view.astype(native)
    whole = float(slope).is_integer() and float(intercept).is_integer()
    if whole and np.issubdtype(view.dtype, np.integer):
        ends = [float(end) * slope + intercept for end in (view.min(), view.max())]
        for dtype in (np.int16, np.int32):
            info = np.iinfo(dtype)
            if info.min <= min(ends) and max(ends) <= info.max:
                return (view.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    values = view.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(intercept)
    return values


def display_limits(volume: Volume) -> tuple[float, float]:
    """Give contrast limits in the scan's unit: those of the intensity contract, by modality."""
    contract = CT if volume.modality == "CT" else MR
    try:
        if volume.array.dtype.itemsize <= 2 or volume.array.size <= _SAMPLE:
            low, high = contract.limits_of(volume)
        else:
            step = int(np.ceil((volume.array.size / _SAMPLE) ** (1 / 3)))
            low, high = contract.limits(volume.values((..., *(slice(None, None, step),) * 3)))
    except SpadError:
        return 0.0, 1.0
    return float(low), float(high)


def time_step(volume: Volume) -> tuple[float, str]:
    """Give the step of the time axis and its unit, (1, "pixel") where the header has none."""
    header = volume.source.header
    try:
        step = float(header.get_zooms()[3])
        unit = _TIME_UNITS.get(header.get_xyzt_units()[1], "pixel")
    except (AttributeError, IndexError):
        return 1.0, "pixel"
    return (step, unit) if np.isfinite(step) and step > 0 else (1.0, unit)


def _frame(volume: Volume, placement: grids.Placement) -> dict[str, Any]:
    scale, translate = placement.scale.tolist(), placement.translate.tolist()
    units, labels = ["mm"] * 3, list(AXIS_LABELS)
    if volume.array.ndim == 4:
        in_time = volume.axes[0] == "t"
        step, unit = time_step(volume) if in_time else (1.0, "pixel")
        scale, translate = [step, *scale], [0.0, *translate]
        units, labels = [unit, *units], ["time" if in_time else "channel", *labels]
    return {"scale": scale, "translate": translate, "units": units, "axis_labels": labels}


def _label_data(view: np.ndarray) -> np.ndarray:
    """Give labels that can be painted on, in the smallest type that napari draws fast."""
    low, high = int(view.min()), int(view.max())
    dtype = view.dtype.newbyteorder("=") if low < 0 else np.dtype(np.min_scalar_type(high))
    return np.array(view, dtype=dtype)


def _label_look(names: dict[int, str]) -> dict[str, Any]:
    if not names:
        return {"opacity": 0.6}
    ids = sorted(names)
    features = {"index": [0, *ids], "name": ["background", *(names[label] for label in ids)]}
    return {"opacity": 0.6, "features": features, "colormap": label_colormap(names)}


def _image_look(volume: Volume) -> dict[str, Any]:
    return {
        "colormap": "gray",
        "blending": "translucent_no_depth",
        "contrast_limits": display_limits(volume),
        "interpolation2d": "linear",
    }


def _meta(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "metadata": layer.metadata,
        "scale": layer.scale,
        "translate": layer.translate,
        "affine": layer.affine,
        "rotate": layer.rotate,
        "shear": layer.shear,
    }
