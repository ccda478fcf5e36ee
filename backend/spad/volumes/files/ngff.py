"""The metadata of OME-Zarr (NGFF 0.1 to 0.5): axes, units, transforms, display, label names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.colors import Rgba
from spad.volumes.files.units import millimetres, time_step

_OLD_AXES = "tczyx"
# RFC 4: where an axis runs to; the RAS world axis and the sign of it
_TOWARDS = {
    "right": (0, 1),
    "left": (0, -1),
    "anterior": (1, 1),
    "posterior": (1, -1),
    "superior": (2, 1),
    "inferior": (2, -1),
}


@dataclass
class Layout:
    """What the metadata say about an array.

    Attributes:
        axes: one letter per axis of the array: x, y, z (space), t (time) or c (channel).
        scale: per axis, mm for space; None where nothing is stated.
        origin: per axis, mm for space.
        towards: RAS axis and sign per letter of space, if an anatomical orientation is stated.
        notes: sentences for the person who opens it.
        fields: more fields of `Volume`.
        rgb: whether the three channels are red, green and blue.
    """

    axes: str
    scale: list[float | None]
    origin: list[float]
    towards: dict[str, tuple[int, int]] | None = None
    notes: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    rgb: bool = False


@dataclass
class Labelling:
    """The `image-label` metadata of a labels group."""

    names: dict[int, str]
    colors: dict[int, Rgba]


def attributes_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """Give a group's NGFF metadata: at the top in 0.4, under "ome" from 0.5 on."""
    ome = attributes.get("ome")
    return {**attributes, **ome} if isinstance(ome, dict) else attributes


def multiscales_of(path: Path, attributes: dict[str, Any]) -> dict[str, Any]:
    """Give the first image that a group's metadata describe."""
    found = attributes["multiscales"]
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise _wrong(path, "'multiscales' is no list of images")
    first: dict[str, Any] = found[0]
    return first


def datasets_of(path: Path, multiscales: dict[str, Any]) -> list[str]:
    """Give the places of an image's resolutions in its group, the finest first."""
    datasets = multiscales.get("datasets")
    if (
        not isinstance(datasets, list)
        or not datasets
        or not all(isinstance(one, dict) and isinstance(one.get("path"), str) for one in datasets)
    ):
        raise _wrong(path, "'datasets' names no arrays")
    paths = [one["path"].strip("/") for one in datasets]
    if any(".." in one.split("/") for one in paths):
        raise _wrong(path, "'datasets' points outside the image")
    return paths


def layout_of(
    path: Path, attributes: dict[str, Any], key: str, shape: tuple[int, ...], dtype: np.dtype
) -> Layout:
    """Read axes, units, transformations and display settings of one resolution.

    Args:
        path: the image, for the error's sentence.
        attributes: the group's metadata (`attributes_of`).
        key: the resolution's place in the group.
        shape: the array's shape.
        dtype: the array's type.

    Returns:
        The layout, lengths in mm.

    Raises:
        SpadError: the metadata are not as NGFF has them.
    """
    multiscales = multiscales_of(path, attributes)
    level = multiscales["datasets"][datasets_of(path, multiscales).index(key)]
    layout = _axes(path, multiscales, len(shape))
    scale, origin = _transform(path, multiscales, level, len(shape))
    units = layout.scale
    layout.origin = [(unit or 1.0) * at for unit, at in zip(units, origin, strict=True)]
    if scale is None:
        layout.scale = [None] * len(shape)
    else:
        layout.scale = [(unit or 1.0) * step for unit, step in zip(units, scale, strict=True)]
    _time(layout, multiscales)
    if len(attributes["multiscales"]) > 1:
        layout.notes.append("The group holds several images; the first is read.")
    name = multiscales.get("name")
    if isinstance(name, str) and name.strip("/ "):
        layout.fields["name"] = name.strip("/ ")
    _display(layout, shape, dtype, attributes.get("omero"))
    return layout


def plain_layout(path: Path, shape: tuple[int, ...]) -> Layout:
    """Take an array without NGFF metadata as numpy users have it, (z, y, x).

    Raises:
        SpadError: it has no such axes.
    """
    ndim = len(shape)
    if not 2 <= ndim <= 5:
        raise SpadError(
            f"{path} has {ndim} axes (shape {shape}); expected (y, x), (z, y, x), (t, z, y, x) or "
            "(t, c, z, y, x); save the part that is a scan."
        )
    axes = {2: "yx", 3: "zyx", 4: "tzyx", 5: "tczyx"}[ndim]
    note = f"The array has no OME-Zarr metadata; its axes are read as ({', '.join(axes)})."
    return Layout(axes, [None] * ndim, [0.0] * ndim, notes=[note])


def _wrong(path: Path, what: str) -> SpadError:
    return SpadError(
        f"{path} has wrong OME-Zarr metadata ({what}); expected NGFF 0.4 or 0.5; correct them or "
        "export the image again."
    )


def _axes(path: Path, multiscales: dict[str, Any], ndim: int) -> Layout:
    """Read the axes; `scale` holds the millimetres of each one's unit for now."""
    said = multiscales.get("axes")
    if said is None and ndim == 5:
        said = list(_OLD_AXES)
    if not isinstance(said, list) or len(said) != ndim:
        raise _wrong(path, f"'axes' does not name the {ndim} axes of the array")
    entries = [{"name": one} if isinstance(one, str) else one for one in said]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in entries):
        raise _wrong(path, "an axis has no name")
    letters = _letters(path, entries)
    layout = Layout(letters, [1.0] * ndim, [0.0] * ndim)
    missing = False
    for n, (letter, entry) in enumerate(zip(letters, entries, strict=True)):
        if letter not in "xyz":
            continue
        unit = entry.get("unit")
        factor = millimetres(unit) if isinstance(unit, str) else None
        if unit is not None and factor is None:
            raise _wrong(path, f"axis {entry['name']!r} has the unit {unit!r:.40}")
        missing = missing or unit is None
        layout.scale[n] = 1.0 if factor is None else factor
    if missing:
        layout.notes.append("The file states no unit of length; its numbers are taken as mm.")
    layout.towards = _orientation(letters, entries, layout.notes)
    return layout


def _letters(path: Path, entries: list[dict[str, Any]]) -> str:
    """Give each axis a letter: by its type, spatial ones by name or else z, y, x in their order."""
    kinds = []
    for entry in entries:
        name = entry["name"].lower()
        guess = {"t": "time", "c": "channel"}.get(name, "space" if name in "xyz" else None)
        kinds.append(entry.get("type") or guess)
    names = [entry["name"].lower() for entry in entries]
    space = [n for n, kind in enumerate(kinds) if kind == "space"]
    known = sorted(names[n] for n in space) == sorted("zyx"[-len(space) :] if space else "")
    letters = {"time": "t", "channel": "c"}
    found = []
    for n, kind in enumerate(kinds):
        if kind == "space":
            found.append(names[n] if known else "zyx"[3 - len(space) :][space.index(n)])
        elif kind in letters:
            found.append(letters[kind])
        else:
            found.append("?")
    text = "".join(found)
    distinct = len(set(text)) == len(text) and len(set(names)) == len(names)
    if not 2 <= len(space) <= 3 or "?" in text or not distinct:
        raise SpadError(
            f"{path} has the axes {', '.join(names)}; expected two or three of space and at most "
            "one each of time and channels; export a part of it."
        )
    return text


def _orientation(
    letters: str, entries: list[dict[str, Any]], notes: list[str]
) -> dict[str, tuple[int, int]] | None:
    """Read the anatomical orientation of axes (RFC 4), if all of space have one."""
    found: dict[str, tuple[int, int]] = {}
    for letter, entry in zip(letters, entries, strict=True):
        said = entry.get("orientation", entry.get("anatomicalOrientation"))
        said = said.get("value") if isinstance(said, dict) else said
        if letter in "xyz" and isinstance(said, str) and "-to-" in said:
            place = _TOWARDS.get(said.split("-to-")[1].lower())
            if place is not None:
                found[letter] = place
    space = [letter for letter in letters if letter in "xyz"]
    different = len({place[0] for place in found.values()}) == len(found)
    if len(found) == len(space) == 3 and different:
        return found
    if found:
        notes.append("The anatomical orientation that the file states is not complete; not used.")
    return None


def _transform(
    path: Path, multiscales: dict[str, Any], level: dict[str, Any], ndim: int
) -> tuple[list[float] | None, list[float]]:
    """Join the level's scale and translation with the multiscales' own, which come after."""
    scale, origin, stated = np.ones(ndim), np.zeros(ndim), False
    for place in (level, multiscales):
        steps = place.get("coordinateTransformations", [])
        if not isinstance(steps, list):
            raise _wrong(path, "'coordinateTransformations' is no list")
        for step in steps:
            kind = step.get("type") if isinstance(step, dict) else None
            if kind == "identity":
                continue
            if kind not in ("scale", "translation"):
                raise _wrong(path, f"a coordinate transformation of type {kind!r:.40}")
            numbers = _numbers(path, step.get(kind), ndim, kind)
            if kind == "scale":
                scale, origin, stated = scale * numbers, origin * numbers, True
            else:
                origin = origin + numbers
    return (scale.tolist() if stated else None), origin.tolist()


def _numbers(path: Path, said: Any, ndim: int, kind: str) -> np.ndarray:
    good = isinstance(said, list) and len(said) == ndim
    if not good or not all(isinstance(n, int | float) and math.isfinite(n) for n in said):
        raise _wrong(path, f"a {kind} that is not {ndim} finite numbers")
    return np.array(said, float)


def _time(layout: Layout, multiscales: dict[str, Any]) -> None:
    if "t" not in layout.axes:
        return
    n = layout.axes.index("t")
    entry = (multiscales.get("axes") or list(_OLD_AXES))[n]
    unit = entry.get("unit") if isinstance(entry, dict) else None
    step = layout.scale[n]
    if step is not None:
        layout.fields["time_step"] = time_step(step, unit if isinstance(unit, str) else None)


def _display(layout: Layout, shape: tuple[int, ...], dtype: np.dtype, omero: Any) -> None:
    """Take the display window of the first channel; three colours in bytes are a colour image."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or not channels or not isinstance(channels[0], dict):
        return
    colors = [str(one.get("color", "")).upper() for one in channels if isinstance(one, dict)]
    if colors == ["FF0000", "00FF00", "0000FF"] and dtype == np.uint8:
        layout.rgb = "c" in layout.axes and shape[layout.axes.index("c")] == 3
    window = channels[0].get("window")
    if isinstance(window, dict) and not layout.rgb:
        low, high = window.get("start"), window.get("end")
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            return
        if -math.inf < low < high < math.inf:
            layout.fields["window"] = (float(low), float(high))


def labelling_of(path: Path, said: Any) -> Labelling | None:
    """Read ids, names and colours of a labels group (NGFF, "labels" metadata)."""
    if said is None:
        return None
    if not isinstance(said, dict):
        raise _wrong(path, "'image-label' is no object")
    names: dict[int, str] = {}
    colors: dict[int, Rgba] = {}
    for entry in _entries(said.get("properties")):
        name = next((entry[key] for key in ("name", "label", "class") if key in entry), None)
        if isinstance(name, str) and entry["label-value"] > 0:
            names[entry["label-value"]] = name
    for entry in _entries(said.get("colors")):
        rgba = entry.get("rgba")
        if not isinstance(rgba, list) or len(rgba) not in (3, 4):
            continue
        if all(isinstance(n, int | float) and 0 <= n <= 255 for n in rgba):
            r, g, b, a = (n / 255 for n in [*rgba, 255][:4])
            if entry["label-value"] > 0:
                colors[entry["label-value"]] = (r, g, b, a)
    return Labelling(names, colors)


def _entries(said: Any) -> list[dict[str, Any]]:
    if not isinstance(said, list):
        return []
    return [one for one in said if isinstance(one, dict) and type(one.get("label-value")) is int]
