"""Labels layers that hold the organs of an open scan."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import grids, layers
from spad.volumes.axes import from_canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Layer

    from spad.volumes.volume import Volume

_ROLES = ("organs", "labels", None)


def itself(layer: Layer) -> Layer:
    """Give a layer without the wrapping in which a plugin's viewer hands it out."""
    return getattr(layer, "__wrapped__", layer)


def fits_as_organs(layer: Layer) -> bool:
    """Whether a layer holds labels on the grid of an open scan."""
    if not layers.is_labels(layer) or layers.role_of(layer) not in _ROLES:
        return False
    return layers.grid_of_layer(layer) is not None


def on_same_grid(one: Layer, other: Layer) -> bool:
    """Whether two layers lie voxel on voxel."""
    first, second = layers.grid_of_layer(one), layers.grid_of_layer(other)
    if first is None or second is None:
        return False
    place = {"scale": second.placement.scale, "translate": second.placement.translate}
    return first.placement.matches(second.placement.shape, place)


def names_of(layer: Layer) -> dict[int, str]:
    """Give id to name of a labels layer; {} where it names none."""
    return layers.label_names({"features": layer.features})


def labels_on(scan: Volume, layer: Layer) -> Volume:
    """Give a labels layer as a volume with the axes of the scan that it lies on."""
    array = from_canonical(layer.data, scan, depth_first=False)
    return scan.with_array(array, label_names=names_of(layer))


def counts(data: Any) -> dict[int, int]:
    """Give the voxels of every label that has any, background left out; slice by slice."""
    found: Counter[int] = Counter()
    for index in np.ndindex(data.shape[:-2]):
        ids, voxels = np.unique(np.asarray(data[index]), return_counts=True)
        found.update(dict(zip(ids.tolist(), voxels.tolist(), strict=True)))
    found.pop(0, None)
    return dict(sorted(found.items()))


def renumbered(data: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """Replace the ids of labels, int32; an id that the table lacks becomes background."""
    made = np.zeros(data.shape, np.int32)
    for label, other in table.items():
        made[data == label] = other
    return made


def volumes_ml(layer: Layer) -> dict[int, float]:
    """Give the volume in mL of every label of a layer of one time that has a voxel."""
    voxel_ml = float(np.prod(np.asarray(layer.scale)[-3:])) / 1000
    return {label: voxels * voxel_ml for label, voxels in counts(layer.data).items()}


def marked(layer: Layer, key: str) -> Any:
    """Read what we noted down about a layer, None if nothing."""
    return dict(layer.metadata.get(grids.KEY) or {}).get(key)


def mark(layer: Layer, notes: Mapping[str, Any]) -> None:
    """Note something down about a layer; None strikes a note out.

    A copy of the layer shares the notes that it has now, and none that come later.
    """
    tag = {**(layer.metadata.get(grids.KEY) or {}), **notes}
    kept = {key: value for key, value in tag.items() if value is not None}
    layer.metadata = {**layer.metadata, grids.KEY: kept}
