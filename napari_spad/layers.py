"""Between `Volume` and napari layer: upright, radiological, in mm, and the exact way back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_spad import grids
from napari_spad.colors import colors_of, colors_when_shown, label_colormap
from napari_spad.derived import lay_on, leading_letters
from napari_spad.grids import AXIS_LABELS
from napari_spad.scaled import LARGE_BYTES, ScaledArray, paintable, scaled, scaled_dtype
from spad.errors import SpadError
from spad.volumes.axes import to_canonical
from spad.volumes.intensity import CT, MR
from spad.volumes.statistics import QUICK_VOXELS
from spad.volumes.volume import Volume

if TYPE_CHECKING:
    from napari.layers import Layer

LayerData = tuple[Any, dict[str, Any], Literal["image", "labels"]]


def to_layer(
    volume: Volume, name: str, *, role: str = "scan", on: grids.Grid | None = None, **options: Any
) -> LayerData:
    """Make what napari needs to show a volume.

    The last three axes are S to I, A to P and R to L whichever of them is depth; `scale` is the
    spacing in mm and napari's world is (-S, -A, -R) mm; time and channels come first. Red, green
    and blue make a picture in colours (napari has them last). Nothing works on the whole array
    where it is large (`scaled.LARGE_BYTES`, `statistics.QUICK_VOXELS`).

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
        kwargs |= _label_look(volume)
    else:
        if volume.rgb:
            view = np.moveaxis(view, -4, -1)
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
    """Do as `volume_of` with what a writer gets: data, the layer's attributes and its type.

    A layer of a part of a scan, of one slice or a projection has a grid of its own, and a sentence
    in `notes` that says where it lies (see `derived.lay_on`).
    """
    if meta.get("multiscale"):
        data = data[0]
    fit = grids.fit_of(data, meta)
    shown = grids.shown_by(data)
    if shown is not None and kind == "image" and shown.source.uuid == fit.grid.uuid:
        return shown
    array = np.asarray(data)
    names = colors = None
    if kind == "labels":
        names = label_names(meta)
        if not np.issubdtype(array.dtype, np.integer):
            raise SpadError(
                f"{meta.get('name')!r} holds labels of type {array.dtype}; expected whole numbers; "
                "round them or convert the layer to an image."
            )
        colors = colors_of(colors_when_shown(meta), names)
    index = None if fit.flat is None else _slice_of(fit, array, meta)
    merged: tuple[str, ...] = ()
    if fit.flat is not None and index is not None and array.ndim > 2 and not meta.get("rgb"):
        fit, index, array, merged = _stack_of(fit, index, array, meta)
    spatial = 3 if fit.flat is None else 2
    lead = _lead_of(array, meta, spatial, fit)
    if meta.get("rgb"):
        array = np.moveaxis(array, -1, -1 - spatial)
    volume = lay_on(fit, array, lead, index)
    is_scan = grids.role_in(meta) == "scan" and kind == "image"
    return replace(
        volume,
        label_names=names,
        label_colors=colors,
        rgb=bool(meta.get("rgb")),
        unit=fit.grid.volume.unit if is_scan else None,
        modality_hint=fit.grid.volume.modality_hint,
        notes=volume.notes + merged,
    )


def _lead_of(array: np.ndarray, meta: dict[str, Any], spatial: int, fit: grids.Fit) -> str:
    """Say what the axes before the spatial ones are, colours (which come right before) included."""
    colours = "c" if meta.get("rgb") else ""
    count = array.ndim - spatial - len(colours)
    labels = [str(label) for label in meta.get("axis_labels") or ()]
    letters = leading_letters(count, labels, array.shape[:count], fit.grid.volume)
    letters = "t" * count if colours else letters
    if letters + colours in ("", "t", "c", "tc"):
        return letters + colours
    raise SpadError(
        f"{meta.get('name')!r} has {array.ndim} axes (shape {array.shape}); expected three of "
        "space and at most one of times and one of channels; split it first."
    )


def _slice_of(fit: grids.Fit, array: np.ndarray, meta: dict[str, Any]) -> int | None:
    """Find which slice of its scan a flat layer is; None for a projection.

    napari keeps the axis labels in a projection; of a split stack it keeps only the names of the
    layers, "<scan> layer 7".
    """
    assert fit.flat is not None
    number = grids.split_number(meta)
    if number is not None and number < fit.shape[fit.flat]:
        return number
    if grids.is_projection(meta):
        return None
    scan = grids.scan_on(fit.grid.uuid)
    if scan is not None and scan.axes == "zyx" and array.ndim == 2:
        view, _ = to_canonical(scan, depth_first=False)
        slices = np.moveaxis(view, fit.flat, 0)
        middle = array.shape[0] // 2
        rows = scan_values(slices[:, middle], scan.slope, scan.intercept)
        equal = np.flatnonzero((np.asarray(rows) == array[middle]).all(axis=1))
        equal = np.array(
            [n for n in equal if np.array_equal(_unit(slices[n], scan), array)], dtype=int
        )
        if len(equal) == 1:
            return int(equal[0])
    raise SpadError(
        f"{meta.get('name')!r} is a flat picture of {fit.grid.name!r}, and nothing says which of "
        f"its {fit.shape[fit.flat]} slices; draw on the scan itself."
    )


def _stack_of(
    fit: grids.Fit, index: int, array: np.ndarray, meta: dict[str, Any]
) -> tuple[grids.Fit, int | None, np.ndarray, tuple[str, ...]]:
    """Tell slices that were merged again from one slice at several times."""
    assert fit.flat is not None
    lead, times = array.shape[:-2], fit.grid.volume.array.shape[:-3]
    if lead == times:
        return fit, index, array, ()
    count = fit.shape[fit.flat]
    if lead == (count,) and index == 0:
        said = f"It is taken for the {count} slices of {fit.grid.name!r}, merged in their order."
        return replace(fit, flat=None), None, np.moveaxis(array, 0, fit.flat), (said,)
    raise SpadError(
        f"{meta.get('name')!r} is a stack of {' x '.join(map(str, lead))} flat pictures of "
        f"{fit.grid.name!r}, and nothing says which of its {count} slices they are; merge all of "
        "them, in their order, or draw on the scan itself."
    )


def _unit(stored: np.ndarray, scan: Volume) -> np.ndarray:
    return np.asarray(scan_values(stored, scan.slope, scan.intercept))


def grid_of_layer(layer: Layer) -> grids.Grid | None:
    """Give the source grid of a layer, or None where it has none."""
    from napari.layers import Image, Labels

    if not isinstance(layer, Image | Labels) or layer.ndim < 3 or layer.multiscale:
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


def is_colours(layer: Layer) -> bool:
    """Whether a layer holds a 3D image of red, green and blue."""
    from napari.layers import Image

    return isinstance(layer, Image) and layer.ndim >= 3 and bool(layer.rgb)


def role_of(layer: Layer) -> str | None:
    """Say what a layer is to us: "scan", "organs", ... or None for a layer of another kind."""
    role = grids.role_in({"metadata": layer.metadata})
    # a layer that napari converted keeps the metadata of what it was
    return "labels" if role == "scan" and is_labels(layer) else role


def scan_volume(layer: Layer, *, colours: bool = False) -> Volume | None:
    """Give the scan that an image layer shows, or None if it shows none on an open grid.

    Args:
        layer: any layer.
        colours: whether a scan in colours counts.
    """
    if not is_image(layer) and not (colours and is_colours(layer)):
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


def scan_values(view: Any, slope: float, intercept: float) -> Any:
    """Give stored voxels in the scan's unit, in the smallest type that holds them exactly.

    Args:
        view: as stored.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.

    Returns:
        The view itself where stored numbers are the unit; else int16 or int32 where the scaled
        numbers are whole, float32 where they are not. Above 256 MiB these are no copy but a
        `ScaledArray`, whose type is the one that any stored number needs.
    """
    if slope == 1 and intercept == 0:
        if view.dtype == np.bool_:
            return view.view(np.uint8) if isinstance(view, np.ndarray) else view.astype(np.uint8)
        return view if view.dtype.isnative else view.astype(view.dtype.newbyteorder("="))
    widest = scaled_dtype(view.dtype, slope, intercept)
    size = int(np.prod(view.shape, dtype=np.int64))
    if size * widest.itemsize > LARGE_BYTES or not isinstance(view, np.ndarray):
        return ScaledArray(view, slope, intercept, widest)
    if np.issubdtype(view.dtype, np.integer) and widest.itemsize > 2:
        widest = scaled_dtype(view.dtype, slope, intercept, (float(view.min()), float(view.max())))
    return scaled(view, slope, intercept, widest)


def display_limits(volume: Volume) -> tuple[float, float]:
    """Give contrast limits in the scan's unit.

    The file's own window; else those of the intensity contract, by modality (of a large scan by
    a sample of it); a picture of 8 bits is shown as it is.
    """
    if volume.window is not None and volume.window[0] < volume.window[1]:
        return float(volume.window[0]), float(volume.window[1])
    if volume.source.format == "image" and volume.array.dtype == np.uint8:
        return 0.0, 255.0
    contract = CT if volume.modality == "CT" else MR
    try:
        low, high = contract.limits_of(volume, QUICK_VOXELS)
    except SpadError:
        return 0.0, 1.0
    return float(low), float(high)


def time_step(volume: Volume) -> tuple[float, str]:
    """Give the step of the time axis and its unit, (1, "pixel") where the file has none."""
    return volume.time_step or (1.0, "pixel")


def _frame(volume: Volume, placement: grids.Placement) -> dict[str, Any]:
    scale, translate = placement.scale.tolist(), placement.translate.tolist()
    units, labels = ["mm"] * 3, list(AXIS_LABELS)
    leading = volume.axes[:-3].replace("c", "") if volume.rgb else volume.axes[:-3]
    for letter in reversed(leading):
        step, unit = time_step(volume) if letter == "t" else (1.0, "pixel")
        scale, translate = [step, *scale], [0.0, *translate]
        units, labels = [unit, *units], ["time" if letter == "t" else "channel", *labels]
    return {"scale": scale, "translate": translate, "units": units, "axis_labels": labels}


def _label_data(view: Any) -> np.ndarray:
    """Give labels that can be painted on, in the smallest type that napari draws fast.

    Labels above 256 MiB that are mapped from a file stay mapped, in the file's type; a stroke
    copies into memory what it touches and leaves the file alone.
    """
    if isinstance(view, np.ndarray) and view.nbytes > LARGE_BYTES:
        mapped = paintable(view)
        if mapped is not None:
            return mapped
    view = np.asarray(view)
    low, high = int(view.min()), int(view.max())
    dtype = view.dtype.newbyteorder("=") if low < 0 else np.dtype(np.min_scalar_type(high))
    return np.array(view, dtype=dtype)


def _label_look(volume: Volume) -> dict[str, Any]:
    names, colors = volume.label_names or {}, volume.label_colors
    look: dict[str, Any] = {"opacity": 0.6}
    if names or colors:
        look["colormap"] = label_colormap(names, colors)
    if names:
        ids = sorted(names)
        named = ["background", *(names[label] for label in ids)]
        look["features"] = {"index": [0, *ids], "name": named}
    return look


def _image_look(volume: Volume) -> dict[str, Any]:
    look: dict[str, Any] = {
        "rgb": volume.rgb,
        "blending": "translucent_no_depth",
        "interpolation2d": "linear",
    }
    if volume.rgb:
        return look
    return look | {"colormap": "gray", "contrast_limits": display_limits(volume)}


def _meta(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "metadata": layer.metadata,
        "scale": layer.scale,
        "translate": layer.translate,
        "affine": layer.affine,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
        "rgb": getattr(layer, "rgb", False),
    }
