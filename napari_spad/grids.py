"""The source grids that are open: which file a layer belongs to, whatever happened to the layer."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import canonical_affine, canonical_order
from spad.volumes.volume import SourceGrid, Volume

KEY = "napari_spad"
AXIS_LABELS = ("S-I", "A-P", "R-L")
_TOLERANCE = 1e-4
_WHOLE_VOXEL = 0.01
_MADE_BY = re.compile(r" layer (\d+)\b| \w+-proj\b")


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
        scale = _last(meta.get("scale"), ndim, 3, 1.0)
        translate = _last(meta.get("translate"), ndim, 3, 0.0)
        return (
            bool(np.allclose(scale, self.scale, rtol=1e-6, atol=0))
            and bool(np.allclose(translate, self.translate, rtol=0, atol=self._slack))
            and not is_moved(meta)
        )

    def part(self, shape: Iterable[int], meta: Mapping[str, Any]) -> tuple[int, int, int] | None:
        """Give the first voxel of a layer that is cropped from here by whole voxels, or None."""
        shape = tuple(shape)
        if len(shape) < 3 or is_moved(meta):
            return None
        scale = _last(meta.get("scale"), len(shape), 3, 1.0)
        offset = (_last(meta.get("translate"), len(shape), 3, 0.0) - self.translate) / self.scale
        if not np.allclose(scale, self.scale, rtol=1e-6, atol=0) or not np.isfinite(offset).all():
            return None
        start = np.rint(offset).astype(int)
        inside = (start >= 0).all() and (start + shape[-3:] <= self.shape).all()
        if not inside or np.abs(offset - start).max() > _WHOLE_VOXEL:
            return None
        return int(start[0]), int(start[1]), int(start[2])

    def lacks(self, shape: Iterable[int], meta: Mapping[str, Any]) -> list[int]:
        """Give the axes of the three that a flat layer may lack: it has the other two."""
        shape = tuple(shape)
        said = lacking_axis(meta)
        # three axes of which two lie on the scan may as well be a scan that was resized
        surely = said is not None or len(shape) == 2 or split_number(meta) is not None
        if len(shape) < 2 or not surely or is_moved(meta):
            return []
        scale = _last(meta.get("scale"), len(shape), 2, 1.0)
        translate = _last(meta.get("translate"), len(shape), 2, 0.0)
        return [
            axis
            for axis in ((0, 1, 2) if said is None else (said,))
            if shape[-2:] == tuple(np.delete(self.shape, axis))
            and np.allclose(scale, np.delete(self.scale, axis), rtol=1e-6, atol=0)
            and np.allclose(translate, np.delete(self.translate, axis), rtol=0, atol=self._slack)
        ]

    @property
    def _slack(self) -> float:
        """Millimetres that float noise may move a layer."""
        return max(float(self.scale.min()) * _TOLERANCE * max(self.shape), 1e-3)


@dataclass(frozen=True, eq=False)
class Grid:
    """An open source grid.

    Attributes:
        name: the layer's name by which a person knows it.
        volume: its geometry; the array holds no data.
        placement: where napari shows it.
        is_labels: whether labels were opened on it, and no scan.
    """

    name: str
    volume: Volume
    placement: Placement
    is_labels: bool = False

    @property
    def uuid(self) -> str:
        """The name in `metadata["napari_spad"]["uuid"]` of the layers on this grid."""
        return self.volume.source.uuid


@dataclass(frozen=True, eq=False)
class Fit:
    """How a layer lies on an open grid.

    Attributes:
        grid: the grid.
        start: the first voxel along S-I, A-P and R-L of a layer that is cropped from it.
        shape: how many voxels of the grid it covers.
        flat: the axis of the three that the layer lacks (a projection, one slice), or None.
    """

    grid: Grid
    start: tuple[int, int, int]
    shape: tuple[int, int, int]
    flat: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the layer has every voxel of the grid."""
        return self.flat is None and self.shape == self.grid.placement.shape


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
        grid = Grid(name, _without_data(volume), place(volume, reference), volume.is_labels)
        _registry.grids[grid.uuid] = grid
    return grid


def hold(volume: Volume, data: Any) -> None:
    """Keep a volume as long as the array that its layer shows."""
    _registry.volumes[id(data)] = volume
    weakref.finalize(data, _registry.volumes.pop, id(data), None).atexit = False


def shown_by(data: Any) -> Volume | None:
    """Give the volume whose voxels an array shows, or None if it shows none."""
    return _registry.volumes.get(id(data))


def scan_on(uuid: str) -> Volume | None:
    """Give an open scan (no labels) that lies on a grid, or None."""
    found = (
        v for v in list(_registry.volumes.values()) if v.source.uuid == uuid and not v.is_labels
    )
    return next(found, None)


def change(uuid: str, how: Callable[[Volume], Volume]) -> None:
    """Correct all that lies on a grid: another depth axis, another modality."""
    for key, volume in list(_registry.volumes.items()):
        if volume.source.uuid == uuid:
            _registry.volumes[key] = how(volume)
    grid = _registry.grids[uuid]
    _registry.grids[uuid] = replace(grid, volume=how(grid.volume))


def grid_of(data: Any, meta: Mapping[str, Any]) -> Grid:
    """Find the source grid of a layer that covers all of it.

    The uuid in its metadata rules, then the very array, then the one registered grid with equal
    shape, scale, translate and affine. Grids that are the same in the file count as one, and a
    scan's rules over that of labels.

    Args:
        data: the layer's data.
        meta: the layer's `name`, `metadata`, `scale`, `translate`, `affine` and `rgb`.

    Returns:
        The grid.

    Raises:
        SpadError: no open scan has this grid, or several do, or the layer was moved.
    """
    fit = fit_of(data, meta)
    if not fit.is_whole:
        raise SpadError(_no_grid(_name(meta), spatial_shape(data, meta), meta, fit.grid))
    return fit.grid


def find(data: Any, meta: Mapping[str, Any]) -> Grid | None:
    """Give the grid as `grid_of` does, or None where it has none."""
    try:
        return grid_of(data, meta)
    except SpadError:
        return None


def fit_of(data: Any, meta: Mapping[str, Any]) -> Fit:
    """Find how a layer lies on an open grid: on all of it, a part of it, or flat on two axes.

    Args:
        data: the layer's data.
        meta: the layer's attributes, as `grid_of` takes them, and `axis_labels`.

    Returns:
        The fit; grids are looked up as in `grid_of`.

    Raises:
        SpadError: no open scan has this grid, or several do, or the layer was moved.
    """
    shape = spatial_shape(data, meta)
    shown = shown_by(data)
    known = "" if shown is None else shown.source.uuid
    own = _registry.grids.get(_uuid_of(meta)) or _registry.grids.get(known)
    if own is not None and (fits := _fits(own, shape, meta)):
        return _only(fits, meta)
    others = [fit for grid in list(_registry.grids.values()) for fit in _fits(grid, shape, meta)]
    for kind in (_is_whole, _is_flat, _is_part):
        found = _distinct([fit for fit in others if kind(fit)])
        # any stranger of 1 mm may lie on voxels of an open scan by chance
        if found and (kind is not _is_part or _in_millimetres(meta)):
            return _only(found, meta)
    raise SpadError(_no_grid(_name(meta), shape, meta, own))


def role_in(meta: Mapping[str, Any]) -> str | None:
    """Read a layer's role ("scan", "organs", ...) from its attributes; None if it has none."""
    return _tag_of(meta).get("role")


def spatial_shape(data: Any, meta: Mapping[str, Any]) -> tuple[int, ...]:
    """Give a layer's shape without the colours that an RGB layer has last."""
    shape = tuple(int(n) for n in np.shape(data))
    return shape[:-1] if meta.get("rgb") else shape


def lacking_axis(meta: Mapping[str, Any]) -> int | None:
    """Tell by its axis labels which of S-I, A-P and R-L a layer lacks; None if they tell nothing.

    napari keeps the labels of the other two in a projection and drops all when it splits a stack.
    """
    labels = tuple(str(label) for label in meta.get("axis_labels") or ())
    here = [label for label in labels if label in AXIS_LABELS]
    lacking = [axis for axis, label in enumerate(AXIS_LABELS) if label not in here]
    return lacking[0] if len(lacking) == 1 and labels[-2:] == tuple(here) else None


def split_number(meta: Mapping[str, Any]) -> int | None:
    """Read the number that napari gives to a layer that it splits from a stack.

    The layers are named "<scan> layer 7", and a projection of one "<scan> layer 7 max-proj".
    """
    mark = _last_mark(meta)
    return None if mark is None or mark.group(1) is None else int(mark.group(1))


def is_projection(meta: Mapping[str, Any]) -> bool:
    """Tell by its name or its axis labels whether a flat layer is a projection."""
    mark = _last_mark(meta)
    if mark is not None:
        return mark.group(1) is None
    return lacking_axis(meta) is not None


def _last_mark(meta: Mapping[str, Any]) -> re.Match[str] | None:
    marks = list(_MADE_BY.finditer(str(meta.get("name"))))
    return marks[-1] if marks else None


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


def _fits(grid: Grid, shape: tuple[int, ...], meta: Mapping[str, Any]) -> list[Fit]:
    """Give the ways in which a layer lies on a grid; several only if it is flat on a cube."""
    place = grid.placement
    if place.matches(shape, meta):
        return [Fit(grid, (0, 0, 0), place.shape)]
    if lacking_axis(meta) is None and (start := place.part(shape, meta)) is not None:
        return [Fit(grid, start, (shape[-3], shape[-2], shape[-1]))]
    return [Fit(grid, (0, 0, 0), place.shape, flat) for flat in place.lacks(shape, meta)]


def _is_whole(fit: Fit) -> bool:
    return fit.is_whole


def _is_flat(fit: Fit) -> bool:
    return fit.flat is not None


def _is_part(fit: Fit) -> bool:
    return fit.flat is None and not fit.is_whole


def _only(fits: list[Fit], meta: Mapping[str, Any]) -> Fit:
    """Give the one fit, or refuse to choose."""
    if len(fits) == 1:
        return fits[0]
    name = _name(meta)
    # so napari calls the new labels of a layer
    named = [fit for fit in fits if name == f"{fit.grid.name} - Labels"]
    if len(named) == 1:
        return named[0]
    if all(fit.grid is fits[0].grid for fit in fits):
        planes = " or ".join(AXIS_LABELS[fit.flat] for fit in fits if fit.flat is not None)
        raise SpadError(
            f"{name!r} is a flat picture of {fits[0].grid.name!r}, and nothing says whether its "
            f"slices lie along {planes}; draw on the scan itself."
        )
    names = " and ".join(dict.fromkeys(repr(fit.grid.name) for fit in fits))
    raise SpadError(
        f"{name!r} lies equally on the grids of {names}, and nothing says which file it "
        "belongs to; close all but one of these scans and try again."
    )


def _in_millimetres(meta: Mapping[str, Any]) -> bool:
    units = [str(unit) for unit in meta.get("units") or ()][-3:]
    return len(units) == 3 and all(unit in ("mm", "millimeter") for unit in units)


def _off_diagonal(shear: Any) -> np.ndarray:
    shear = np.asarray(shear, float)
    return shear - np.eye(len(shear)) if shear.ndim == 2 else shear


def _name(meta: Mapping[str, Any]) -> str:
    return str(meta.get("name") or "The layer")


def _no_grid(name: str, shape: tuple[int, ...], meta: Mapping[str, Any], grid: Grid | None) -> str:
    if grid is None:
        return (
            f"{name!r} (shape {shape}) lies on the grid of no open scan; open the scan that it "
            "belongs to, and draw on a layer of the same shape and place."
        )
    place = grid.placement
    differs = "; ".join(_differences(place, shape, meta))
    return (
        f"{name!r} has shape {shape} but was made on the grid of {grid.name!r} ({place.shape}), "
        f"and {differs}; undo its resizing or moving, so that it lies on its scan again."
    )


def _differences(
    place: Placement, shape: tuple[int, ...], meta: Mapping[str, Any]
) -> Iterable[str]:
    """Say what keeps a layer off a grid."""
    if is_moved(meta):
        yield "it is rotated, sheared or has an affine"
    if len(shape) < 3:
        yield f"it has {len(shape)} axes"
        return
    scale = _last(meta.get("scale"), len(shape), 3, 1.0)
    translate = _last(meta.get("translate"), len(shape), 3, 0.0)
    if not np.allclose(scale, place.scale, rtol=1e-6, atol=0):
        yield f"its voxels are {_times(scale)} mm, not {_times(place.scale)} mm"
    elif not np.allclose(translate, place.translate, rtol=0, atol=place._slack):
        away = (translate - place.translate) / place.scale
        yield f"it begins {_times(away)} voxels from the scan's first, not whole ones inside it"
    elif shape[-3:] != place.shape:
        yield "it is larger than the scan"


def _times(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _distinct(fits: list[Fit]) -> list[Fit]:
    """Leave out grids that are equal in their files, closed scans if open ones fit, and labels."""
    used = {volume.source.uuid for volume in list(_registry.volumes.values())}
    alive = [fit for fit in fits if fit.grid.uuid in used] or fits
    scans = [fit for fit in alive if not fit.grid.is_labels] or alive
    found: list[Fit] = []
    for fit in scans:
        source = fit.grid.volume.source
        if not any(
            fit.flat == other.flat and _same(source, other.grid.volume.source) for other in found
        ):
            found.append(fit)
    return found


def _same(one: SourceGrid, other: SourceGrid) -> bool:
    return (
        one.shape[:3] == other.shape[:3]
        and bool(np.allclose(one.affine, other.affine, rtol=0, atol=1e-5))
        and len({_codes(one.header), _codes(other.header)} - {None}) < 2
    )


def _codes(header: Any) -> tuple[int, ...] | None:
    try:
        return tuple(int(header[key]) for key in ("qform_code", "sform_code", "xyzt_units"))
    except (TypeError, KeyError, ValueError, IndexError):
        return None


def _uuid_of(meta: Mapping[str, Any]) -> str:
    return str(_tag_of(meta).get("uuid", ""))


def _tag_of(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    tag = (meta.get("metadata") or {}).get(KEY)
    return tag if isinstance(tag, Mapping) else {}


def _canonical_shape(volume: Volume) -> tuple[int, int, int]:
    order, _ = canonical_order(volume.affine, depth_first=False)
    first, second, third = (volume.spatial_shape[axis] for axis in order)
    return first, second, third


def _without_data(volume: Volume) -> Volume:
    """Give the volume with an array of the same shape that takes no memory."""
    empty = np.broadcast_to(np.zeros((), volume.array.dtype), volume.array.shape)
    return replace(
        volume, array=empty, modality_hint=volume.modality, label_names=None, report=None
    )


def _last(values: Any, ndim: int, count: int, default: float) -> np.ndarray:
    """Give a layer's last values (of its spatial axes); NaN where it has too few of them."""
    if values is None:
        return np.full(count, default)
    values = np.asarray(values, float)
    if len(values) >= count:
        return values[-count:]
    return np.full(count, np.nan if ndim >= count else default)
