"""The round trip: written by others, opened here, shown in napari, saved, read by others again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from formats import Format
from scans import Truth

NOWHERE = float("inf")


@dataclass(frozen=True)
class Errors:
    """The largest differences of one trip.

    Attributes:
        affine: mm, over all entries, of what is read, of the image saved and of labels saved.
        value: in the scan's unit; labels count as values.
    """

    affine: float
    value: float

    def worst(self, other: Errors) -> Errors:
        return Errors(max(self.affine, other.affine), max(self.value, other.value))


def trip(form: Format, truth: Truth, folder: Path) -> Errors | None:
    """Go all the way with one scan; None where the format has no such scan."""
    from napari.layers import Labels, Layer

    from napari_spad.layers import to_layer
    from napari_spad.writer import write_image, write_labels
    from spad.volumes.axes import to_file_order
    from spad.volumes.files import read

    truth = form.truth(truth)
    made = form.make(truth, folder / form.file)
    if made is None:
        return None
    volume = read(made)
    inside = to_file_order(volume.array, volume.source) * volume.slope + volume.intercept
    errors = _errors(truth, inside.reshape(truth.stored.shape), volume.source.affine)

    image = Layer.create(*to_layer(volume, "scan"))
    write_image(str(folder / form.again), *image.as_layer_data_tuple()[:2])
    errors = errors.worst(_errors(truth, *form.read(folder / form.again)))

    # labels that a person draws: a new layer with nothing but the image's place
    ndim = 3
    shape = image.data.shape[:-1] if image.rgb else image.data.shape
    drawn = np.random.default_rng(1).integers(0, 9, shape[-ndim:]).astype(np.int64)
    labels = Labels(drawn, scale=image.scale[-ndim:], translate=image.translate[-ndim:])
    write_labels(str(folder / form.labels), *labels.as_layer_data_tuple()[:2])
    found, affine = form.read_labels(folder / form.labels)
    return errors.worst(_label_errors(truth, drawn, found, affine))


def _errors(truth: Truth, values: np.ndarray, affine: np.ndarray) -> Errors:
    if values.shape != truth.stored.shape:
        return Errors(NOWHERE, NOWHERE)
    away = np.abs(np.asarray(values, float) - truth.values)
    return Errors(float(np.abs(affine - truth.affine).max()), float(away.max()))


def _label_errors(truth: Truth, drawn: np.ndarray, found: np.ndarray, affine: np.ndarray) -> Errors:
    """Compare labels with what was drawn, voxel by voxel, by way of the true affine alone."""
    if found.shape != truth.stored.shape[:3] or found.dtype != np.uint8:
        return Errors(NOWHERE, NOWHERE)
    # napari shows (S-I, A-P, R-L): find each drawn voxel by the direction of the file's axes
    matrix = truth.affine[:3, :3]
    world = np.abs(matrix / np.linalg.norm(matrix, axis=0)).argmax(axis=0)
    shown = found.transpose([int(np.flatnonzero(world == axis)[0]) for axis in (2, 1, 0)])
    for place, axis in enumerate((2, 1, 0)):
        column = int(np.flatnonzero(world == axis)[0])
        if matrix[axis, column] > 0:
            shown = np.flip(shown, place)
    wrong = float(np.abs(shown.astype(int) - drawn).max())
    return Errors(float(np.abs(affine - truth.affine).max()), wrong)
