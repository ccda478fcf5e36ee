"""The one writer: every format's files are written aside, opened again, compared, then moved."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import disk, suffix_of
from spad.volumes.files.encoders import LABELS_ONLY, Reopened, encoder_of
from spad.volumes.files.labels import label_array, names_json, read_names, sidecar_of
from spad.volumes.files.reasons import reason
from spad.volumes.volume import Volume

POINTS = 500
# float32, in which NIfTI keeps its affine, has no finer steps than this part of a number
_FLOAT32_STEP = 1.2e-7
_AFFINE_MM = 1e-5
_EDGE = 1e-3


def write(volume: Volume, path: Path) -> list[Path]:
    """Write a volume and prove it by reopening; see `spad.volumes.files.write`.

    Returns:
        The files written (a names file beside them included).
    """
    volume = _plain_names(volume)
    suffix = suffix_of(path)
    if suffix in LABELS_ONLY and not volume.is_labels:
        raise SpadError(
            f"{path} was to hold an image, but {suffix} files hold labels only; expected .nii.gz, "
            ".nrrd or .mha for an image; choose such a name."
        )
    encoder = encoder_of(suffix)
    array = np.asarray(to_file_order(volume.array, volume.source))
    # a file may have fewer or more axes of one voxel than the volume
    array = array.reshape((*array.shape, 1, 1)[: len(volume.axes)])
    array = label_array(array, "The volume to write") if volume.is_labels else _real(array, path)
    targets = encoder.targets(volume, path)
    sidecar = sidecar_of(path)
    names = None
    if encoder.sidecar and volume.label_names is not None:
        names = names_json(volume.label_names)
    elif encoder.sidecar and os.path.exists(sidecar):
        raise SpadError(
            f"{sidecar} says that {path.name} holds labels, but an image was to be written; "
            "choose another name or remove that file."
        )

    def fill(files: list[Path]) -> None:
        own = files[: len(targets)]
        try:
            encoder.encode(volume, array, own)
            if names is not None:
                files[-1].write_text(names, encoding="utf-8")
        except UnicodeEncodeError as error:
            raise SpadError(
                f"{path} was not written because its name or that of a label is not text (UTF-8); "
                "choose another name."
            ) from error
        if names is not None:
            _check(read_names(files[-1]) == _named(volume), path, "the names of the labels")
        try:
            encoder.verify(volume, array, own)
        except SpadError:
            raise
        except Exception as error:  # on damaged files their readers raise anything
            raise _unproven(path, reason(error, own[-1])) from error

    every = targets + ([sidecar] if names is not None else [])
    disk.replace_files(every, fill)
    return every


def compare(volume: Volume, array: np.ndarray, path: Path, found: Reopened) -> None:
    """Compare what an independent reader found with what was to be written.

    Args:
        volume: what was to be written.
        array: its voxels in file order.
        path: the file, for the error's sentence.
        found: what the reader found.

    Raises:
        SpadError: the shape, the affine (1e-5 mm, or float32's step where the format keeps that),
            a value, one of 500 random points of the world or a name differs.
    """
    affine = volume.source.affine
    again = _without_ones(found.array, array.shape)
    _check(
        again.shape == array.shape, path, f"the shape (found {again.shape}, wrote {array.shape})"
    )
    _check(
        np.allclose(found.affine, affine, rtol=_FLOAT32_STEP, atol=_AFFINE_MM),
        path,
        f"the affine (off by {np.abs(found.affine - affine).max():.3g} mm)",
    )
    _check(_same_values(volume, array, again, found), path, "the voxels")
    _check(_same_points(volume, array, again, found), path, "the voxels at given places in mm")
    if found.names is not None and volume.label_names is not None:
        _check(found.names == _named(volume), path, "the names of the labels")


def _same_values(volume: Volume, array: np.ndarray, again: np.ndarray, found: Reopened) -> bool:
    """Compare slab by slab along the last axis, so that no second copy is made."""
    stored = found.slope == volume.slope and found.intercept == volume.intercept
    for one, other in zip(np.atleast_2d(array.T), np.atleast_2d(again.T), strict=True):
        if stored and np.array_equal(one, other, equal_nan=array.dtype.kind == "f"):
            continue
        if stored and one.dtype.kind in "iu" and other.dtype.kind in "iu":
            return False
        wanted = one * volume.slope + volume.intercept
        have = np.asarray(other, float) * found.slope + found.intercept
        if not np.allclose(wanted, have, rtol=1e-6, atol=abs(volume.slope) * 1e-3, equal_nan=True):
            return False
    return True


def _same_points(volume: Volume, array: np.ndarray, again: np.ndarray, found: Reopened) -> bool:
    """Draw random points of the world and look each up in both, by way of both affines."""
    shape = np.array((*array.shape, 1, 1)[:3])
    rng = np.random.default_rng(0)
    index = rng.uniform(-0.5, shape - 0.5, size=(POINTS, 3))
    world = index @ volume.source.affine[:3, :3].T + volume.source.affine[:3, 3]
    back = np.linalg.inv(found.affine)
    there = world @ back[:3, :3].T + back[:3, 3]
    # a point on the border between two voxels belongs to either
    clear = (np.abs(index - np.floor(index) - 0.5) > _EDGE).all(axis=1)
    mine, theirs = (
        np.clip(np.rint(points[clear]).astype(int), 0, shape - 1) for points in (index, there)
    )
    flat = array.reshape((*shape, -1)) if array.ndim <= 3 else array
    other = again.reshape((*shape, -1)) if again.ndim <= 3 else again
    one = np.asarray(flat[tuple(mine.T)], float) * volume.slope + volume.intercept
    two = np.asarray(other[tuple(theirs.T)], float) * found.slope + found.intercept
    return bool(np.allclose(one, two, rtol=1e-6, atol=abs(volume.slope) * 1e-3, equal_nan=True))


def _without_ones(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give an array with axes of one voxel at its end as the other has them."""
    trimmed = tuple(n for n in found.shape)
    while len(trimmed) > len(shape) and trimmed[-1] == 1:
        trimmed = trimmed[:-1]
    trimmed += (1,) * (len(shape) - len(trimmed))
    return found.reshape(trimmed)


def _named(volume: Volume) -> dict[int, str]:
    return {int(key): str(name) for key, name in (volume.label_names or {}).items()}


def _plain_names(volume: Volume) -> Volume:
    """Give line ends in the names of labels the one form that every format can hold."""
    if volume.label_names is None:
        return volume
    names = {
        key: name.replace("\r\n", "\n").replace("\r", "\n") for key, name in _named(volume).items()
    }
    return replace(volume, label_names=names)


def _check(good: bool, path: Path, what: str) -> None:
    if not good:
        raise _unproven(path, f"a difference in {what}")


def _unproven(path: Path, why: str) -> SpadError:
    return SpadError(
        f"{path.name} did not read back as it was written ({why}), so nothing was saved and an "
        "older file is as it was; the disk or the folder may be faulty; choose another place or "
        "format."
    )


def _real(array: np.ndarray, path: Path) -> np.ndarray:
    """Give an image in a type that every format has."""
    if array.dtype.kind not in "biuf":
        raise SpadError(
            f"Voxels of type {array.dtype} were to be written to {path}; expected integers or "
            "real numbers; convert them first."
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array
