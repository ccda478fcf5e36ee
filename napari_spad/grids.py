"""The source grids that are open: which file a layer belongs to, whatever happened to the layer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import canonical_affine
from spad.volumes.volume import SourceGrid, Volume

KEY = "napari_spad"
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a layer's three spatial axes (S-I, A-P, R-L) lie in napari's world.

    Attributes:
        shape: voxels along S-I, A-P and R-L.
        scale: positive spacing in mm.
        translate: centre of the first voxel: (-S, -A, -R) in mm.
    """

    shape: tuple[int, int, int]
    scale: np.ndarray
    translate: np.ndarray

    def matches(self, shape: Iterable[int], meta: Mapping[str, Any]) -> bool:
        """Whether a layer of this shape, scale, translate and affine lies exactly here."""
        shape = tuple(shape)
        if shape[-3:] != self.shape:
            return False
        ndim = len(shape)
        scale = _last_three(meta.get("scale"), ndim, 1.0)
        translate = _last_three(meta.get("translate"), ndim, 0.0)
        step = float(self.scale.min()) * _TOLERANCE * max(self.shape)
        return (
            bool(np.allclose(scale, self.scale, rtol=1e-6, atol=0))
            and bool(np.allclose(translate, self.translate, rtol=0, atol=max(step, 1e-3)))
            and not is_moved(meta)
        )


@dataclass(frozen=True, eq=False)
class Grid:
    """An open source grid.

    Attributes:
        name: the layer's name by which a person knows it.
        volume: its geometry; the array holds no data.
        placement: where napari shows it.
    """

    name: str
    volume: Volume
    placement: Placement

    @property
    def uuid(self) -> str:
        """The name in `metadata["napari_spad"]["uuid"]` of the layers on this grid."""
        return self.volume.source.uuid


@dataclass
class _Registry:
    """Grids by uuid, for ever; volumes by the array that shows them, as long as it lives."""

    grids: dict[str, Grid] = field(default_factory=dict)
    volumes: dict[int, Volume] = field(default_factory=dict)


_registry = _Registry()


def place(volume: Volume, reference: Grid | None = None) -> Placement:
    """Work out where napari shows a volume.

    An oblique scan keeps its voxel grid on the nearest axes, with its centre where it truly is.

    Args:
        volume: any volume.
        reference: the grid of a scan with the same directions, if the volume is derived from one:
            a coarser grid then lies exactly where its voxels lie in the scan.

    Returns:
        The placement.
    """
    affine = canonical_affine(volume.affine, volume.spatial_shape, depth_first=False)
    shape = _canonical_shape(volume)
    if reference is not None:
        grid = reference.volume
        base = canonical_affine(grid.affine, grid.spatial_shape, depth_first=False)
        relative = np.linalg.inv(base) @ affine
        scale = np.abs(np.diag(relative)[:3]) * reference.placement.scale
        offset = relative[:3, 3] * reference.placement.scale
        return Placement(shape, scale, reference.placement.translate + offset)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    middle = (np.array(shape) - 1) / 2
    centre = affine[:3, :3] @ middle + affine[:3, 3]
    return Placement(shape, spacing, -centre[::-1] - spacing * middle)


def register(volume: Volume, name: str, reference: Grid | None = None) -> Grid:
    """Take note of a volume's source grid, once for each uuid."""
    grid = _registry.grids.get(volume.source.uuid)
    if grid is None or grid.placement.shape != _canonical_shape(volume):
        grid = Grid(name, _without_data(volume), place(volume, reference))
        _registry.grids[grid.uuid] = grid
    return grid


def hold(volume: Volume, data: np.ndarray) -> None:
    """Keep a volume as long as the array that its layer shows."""
    _registry.volumes[id(data)] = volume
    weakref.finalize(data, _registry.volumes.pop, id(data), None).atexit = False


def shown_by(data: Any) -> Volume | None:
    """Give the volume whose voxels an array shows, or None if it shows none."""
    return _registry.volumes.get(id(data))


def change(uuid: str, how: Callable[[Volume], Volume]) -> None:
    """Correct all that lies on a grid: another depth axis, another modality."""
    for key, volume in list(_registry.volumes.items()):
        if volume.source.uuid == uuid:
            _registry.volumes[key] = how(volume)
    grid = _registry.grids[uuid]
    _registry.grids[uuid] = replace(grid, volume=how(grid.volume))


def grid_of(data: Any, meta: Mapping[str, Any]) -> Grid:
    """Find the source grid of a layer.

    The uuid in its metadata rules, then the very array, then the one registered grid with equal
    shape, scale, translate and affine. Grids that are the same in the file count as one.

    Args:
        data: the layer's data.
        meta: the layer's `name`, `metadata`, `scale`, `translate` and `affine`.

    Returns:
        The grid.

    Raises:
        SpadError: no open scan has this grid, or several do, or the layer was moved.
    """
    name = meta.get("name") or "The layer"
    shape = np.shape(data)
    shown = shown_by(data)
    known = "" if shown is None else shown.source.uuid
    grid = _registry.grids.get(_uuid_of(meta)) or _registry.grids.get(known)
    if grid is not None and grid.placement.matches(shape, meta):
        return grid
    found = _distinct(g for g in _registry.grids.values() if g.placement.matches(shape, meta))
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(repr(g.name) for g in found)
        raise SpadError(
            f"{name!r} lies equally on the grids of {names}, and nothing says which file it "
            "belongs to; close all but one of these scans and try again."
        )
    raise SpadError(_no_grid(name, shape, grid))


def find(data: Any, meta: Mapping[str, Any]) -> Grid | None:
    """Give the grid as `grid_of` does, or None where it has none."""
    try:
        return grid_of(data, meta)
    except SpadError:
        return None


def is_moved(meta: Mapping[str, Any]) -> bool:
    """Whether a layer has a rotation, a shear or an affine, which ours never have."""
    for key in ("affine", "rotate"):
        matrix = meta.get(key)
        if matrix is not None:
            matrix = np.asarray(getattr(matrix, "affine_matrix", matrix), float)
            if matrix.ndim != 2 or not np.allclose(matrix, np.eye(len(matrix)), atol=1e-6):
                return True
    shear = meta.get("shear")
    return shear is not None and not np.allclose(_off_diagonal(shear), 0, atol=1e-6)


def _off_diagonal(shear: Any) -> np.ndarray:
    shear = np.asarray(shear, float)
    return shear - np.eye(len(shear)) if shear.ndim == 2 else shear


def _no_grid(name: str, shape: tuple[int, ...], grid: Grid | None) -> str:
    if grid is not None:
        return (
            f"{name!r} has shape {shape} but was made on the grid of {grid.name!r} "
            f"({grid.placement.shape}, and at another place); undo its cropping or moving, so "
            "that it lies on its scan again."
        )
    return (
        f"{name!r} (shape {shape}) lies on the grid of no open scan; open the scan that it belongs "
        "to, and draw on a layer of the same shape and place."
    )


def _distinct(grids: Iterable[Grid]) -> list[Grid]:
    """Leave out grids that are equal in their files, and those of closed scans if open ones fit."""
    grids = list(grids)
    used = {volume.source.uuid for volume in _registry.volumes.values()}
    alive = [grid for grid in grids if grid.uuid in used]
    found: list[Grid] = []
    for grid in alive or grids:
        if not any(_same(grid.volume.source, other.volume.source) for other in found):
            found.append(grid)
    return found


def _same(one: SourceGrid, other: SourceGrid) -> bool:
    return (
        one.shape[:3] == other.shape[:3]
        and bool(np.allclose(one.affine, other.affine, rtol=0, atol=1e-5))
        and _codes(one.header) == _codes(other.header)
    )


def _codes(header: Any) -> tuple[int, ...] | None:
    try:
        return tuple(int(header[key]) for key in ("qform_code", "sform_code", "xyzt_units"))
    except (TypeError, KeyError, ValueError, IndexError):
        return None


def _uuid_of(meta: Mapping[str, Any]) -> str:
    tag = (meta.get("metadata") or {}).get(KEY)
    return str(tag.get("uuid", "")) if isinstance(tag, Mapping) else ""


def _canonical_shape(volume: Volume) -> tuple[int, int, int]:
    from spad.volumes.axes import canonical_order

    order, _ = canonical_order(volume.affine, depth_first=False)
    first, second, third = (volume.spatial_shape[axis] for axis in order)
    return first, second, third


def _without_data(volume: Volume) -> Volume:
    """Give the volume with an array of the same shape that takes no memory."""
    empty = np.broadcast_to(np.zeros((), volume.array.dtype), volume.array.shape)
    return replace(
        volume, array=empty, modality_hint=volume.modality, label_names=None, report=None
    )


def _last_three(values: Any, ndim: int, default: float) -> np.ndarray:
    if values is None:
        return np.full(3, default)
    values = np.asarray(values, float)
    return values[-3:] if len(values) >= 3 else np.full(3, np.nan if ndim >= 3 else default)
