"""How well labels agree with a reference: overlap and surface distances of every label, in mm.

Definitions are MONAI's with `spacing`. A label's surface is the set of its voxels with a face
neighbour outside the label (outside the grid counts as outside); a distance runs from the centre
of a surface voxel to that of the nearest surface voxel of the other mask. One pair of distance
lists per label gives all figures, where MONAI's functions would compute them once per figure, and
k-d trees of surface voxels give them several times faster than distance transforms of the box.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from spad.errors import SpadError
from spad.volumes.axes import from_file_order, to_file_order
from spad.volumes.files.labels import label_array

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

FIGURES = ("dice", "assd", "hd", "hd95", "nsd_1mm", "nsd_3mm")
GRID_TOLERANCE = 1e-3

Figures = dict[str, float | None]
Mask = NDArray[np.bool_]
Box = tuple[slice, ...]

_LEAF = 32
_WORTH_THREADS = 10_000


def evaluate(
    prediction: Volume, reference: Volume, unit: Literal["mm", "voxel"] = "mm"
) -> dict[str, object]:
    """Compare predicted labels with reference labels on the same grid.

    Labels are matched by name where both volumes have names, else by id. Label 0 is background.
    A label absent from both is left out. One that is absent from only one of them has a Dice and
    an NSD of 0 and no distances, which then do not count in the mean.

    Args:
        prediction: labels volume of one time point.
        reference: labels volume on the same grid.
        unit: "mm" measures distances with the grid's spacing; "voxel" takes every voxel as
            1 x 1 x 1, also for the tolerances of the two NSDs.

    Returns:
        ``{"unit", "matched_by", "labels": {name: figures}, "mean": figures}``; figures are
        ``dice, nsd_1mm, nsd_3mm`` in [0, 1] and ``assd, hd, hd95`` in the unit, or None.

    Raises:
        SpadError: if the grids differ (shape, or affine by more than 1e-3) or a volume does not
            hold whole-numbered labels of one time point.
    """
    predicted, expected, spacing = _on_one_grid(prediction, reference)
    distances = spacing if unit == "mm" else (1.0, 1.0, 1.0)
    boxes = _boxes(predicted), _boxes(expected)
    matched_by, pairs = _match(prediction, reference, list(boxes[0]), list(boxes[1]))
    labels = {}
    for name, (ours, theirs) in pairs.items():
        box = _around([*(boxes[0][i] for i in ours), *(boxes[1][i] for i in theirs)])
        masks = np.isin(predicted[box], ours), np.isin(expected[box], theirs)
        labels[name] = compare_masks(*masks, distances)
    return {
        "unit": unit,
        "matched_by": matched_by,
        "labels": labels,
        "mean": mean_figures(labels.values()),
    }


def compare_masks(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> Figures:
    """All figures of one label; at least one mask has a voxel.

    Args:
        prediction: mask, any number of spatial axes.
        reference: mask of the same shape.
        spacing: distance between voxel centres along each axis of the masks.
    """
    voxels = np.count_nonzero(prediction), np.count_nonzero(reference)
    if 0 in voxels:
        return {"dice": 0.0, "assd": None, "hd": None, "hd95": None, "nsd_1mm": 0.0, "nsd_3mm": 0.0}
    there, back = _surface_distances(prediction, reference, spacing)
    pooled = np.concatenate([there, back])
    return {
        "dice": 2.0 * np.count_nonzero(prediction & reference) / sum(voxels),
        "assd": float(pooled.mean(dtype=np.float64)),
        "hd": float(pooled.max()),
        "hd95": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "nsd_1mm": float(np.mean(pooled <= 1.0)),
        "nsd_3mm": float(np.mean(pooled <= 3.0)),
    }


def mean_figures(several: Iterable[Mapping[str, float | None]]) -> Figures:
    """The mean of each figure over those that are defined; None where none is."""
    rows = list(several)
    means: Figures = {}
    for figure in FIGURES:
        values = [value for row in rows if (value := row[figure]) is not None]
        means[figure] = float(np.mean(values)) if values else None
    return means


def _surface_distances(
    a: Mask, b: Mask, spacing: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of every surface voxel of `a` to the surface of `b`, and the other way round."""
    surfaces = _surface(a), _surface(b)
    points = [np.argwhere(surface) * np.asarray(spacing) for surface in surfaces]
    common = surfaces[0] & surfaces[1]
    apart = [p[~common[surface]] for p, surface in zip(points, surfaces, strict=True)]
    # Flat, unbalanced trees take the least time to build and query together.
    trees = [KDTree(p, _LEAF, compact_nodes=False, balanced_tree=False) for p in points]
    lists = []
    for start, tree in zip(apart, reversed(trees), strict=True):
        found, _ = tree.query(start, workers=-1 if len(start) > _WORTH_THREADS else 1)
        # Single precision, as in MONAI: 10 x 0.1 mm then counts as within 1 mm.
        shared = np.zeros(np.count_nonzero(common), np.float32)
        lists.append(np.concatenate([shared, found.astype(np.float32)]))
    return lists[0], lists[1]


def _surface(mask: Mask) -> Mask:
    """The voxels of a mask that have a face neighbour outside the mask or the grid."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        inside, whole = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        inside[1:] &= whole[:-1]
        inside[:-1] &= whole[1:]
        inside[0] = inside[-1] = False
    return mask & ~inner


def _boxes(labels: NDArray[np.integer]) -> dict[int, Box]:
    """Id -> bounding box of its voxels, of every id but 0, in ascending order."""
    ids: NDArray[np.integer] | None = None
    if labels.min() < 0 or labels.max() > np.iinfo(np.uint16).max:
        ids, labels = np.unique(labels, return_inverse=True)
        labels = labels + 1
    found = enumerate(find_objects(labels), start=1)
    boxes = {n if ids is None else int(ids[n - 1]): box for n, box in found if box is not None}
    return {value: box for value, box in boxes.items() if value != 0}


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds several."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _match(
    prediction: Volume, reference: Volume, predicted: list[int], expected: list[int]
) -> tuple[str, dict[str, tuple[list[int], list[int]]]]:
    """Name -> (ids in the prediction, ids in the reference), in the order of the reference."""
    ours, theirs = prediction.label_names or {}, reference.label_names or {}
    by_name = bool(ours and theirs)
    if not by_name:
        ours = theirs = {**ours, **theirs}
    pairs: dict[str, tuple[list[int], list[int]]] = {}
    for side, ids, names in ((1, expected, theirs), (0, predicted, ours)):
        for value in ids:
            pairs.setdefault(names.get(value, str(value)), ([], []))[side].append(value)
    return "name" if by_name else "id", pairs


def _on_one_grid(
    prediction: Volume, reference: Volume
) -> tuple[NDArray[np.integer], NDArray[np.integer], tuple[float, ...]]:
    """Both label arrays on the same axes and the spacing along those, in mm."""
    arrays = _labels(prediction, "prediction"), _labels(reference, "reference")
    if _same_affine(prediction.affine, reference.affine) and arrays[0].shape == arrays[1].shape:
        return *arrays, reference.spacing
    ours, theirs = prediction.source, reference.source
    if ours.shape[:3] == theirs.shape[:3] and _same_affine(ours.affine, theirs.affine):
        # One file grid, read with another axis as depth.
        moved = from_file_order(to_file_order(arrays[0], ours), theirs)
        return moved, arrays[1], reference.spacing
    raise SpadError(_other_grid(prediction, reference))


def _same_affine(a: NDArray[np.floating], b: NDArray[np.floating]) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=GRID_TOLERANCE))


def _labels(volume: Volume, role: str) -> NDArray[np.integer]:
    """The volume's labels as whole numbers in three dimensions."""
    stored = (volume.slope, volume.intercept) == (1, 0)
    array = np.asarray(volume.array if stored else volume.values())
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise SpadError(
            f"The {role} has the shape {array.shape}; labels of one time point (three axes) "
            "were expected: give one volume at a time."
        )
    return label_array(array, f"The {role}")


def _other_grid(prediction: Volume, reference: Volume) -> str:
    shapes = prediction.source.shape, reference.source.shape
    if shapes[0] != shapes[1]:
        found = f"the prediction has {_by(shapes[0])} voxels, the reference {_by(shapes[1])}"
    else:
        largest = np.abs(prediction.source.affine - reference.source.affine).max()
        found = f"their affines differ by up to {largest:.3g}"
    return (
        f"The prediction lies on another grid than the reference ({found}); "
        "evaluation needs both on the same voxels: save the labels on the grid of their scan."
    )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
