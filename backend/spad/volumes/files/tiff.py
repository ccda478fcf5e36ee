"""Reading TIFF: pages, stacks, ImageJ hyperstacks and OME-TIFF; a memory map where possible."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from spad.errors import SpadError
from spad.volumes.colors import Rgba
from spad.volumes.files import disk
from spad.volumes.files.options import Options
from spad.volumes.files.picture import (
    Picture,
    decoding,
    palette_colors,
    pixels_of,
    upright,
    wants_ids,
)
from spad.volumes.files.units import Steps, millimetres, spacing_of_density, time_step

_X_RESOLUTION, _Y_RESOLUTION, _UNIT, _ORIENTATION = 282, 283, 296, 274
_PER_INCH = {2: 1.0, 3: 2.54}
# what one byte can at most become: deflate, PackBits, LZW, LZMA and Zstandard, JPEG
_MOST = {8: 1032, 32946: 1032, 32773: 64, 5: 1366, 34925: 8000, 50000: 20000, 7: 1536, 6: 1536}
_GREY, _COLOURS, _PALETTE = (0, 1), (2, 6), 3
_PLANES = "ZIQ"


def load(path: Path, options: Options) -> Picture:
    """Read the first series of a TIFF file.

    Several pages are slices, unless ImageJ's or OME's metadata say that they are times or channels.

    Args:
        path: the file; classic or BigTIFF.
        options: what a person states.

    Returns:
        The pixels in file order (i along a row, j down a column, k through pages).

    Raises:
        SpadError: the file is damaged, or holds what is no scan.
    """
    from tifffile import TiffFile

    _check_directories(path)
    with decoding(path, "TIFF"), _quiet(), TiffFile(path) as tif:
        if not tif.series:
            raise SpadError(
                f"{path} holds no picture; expected a TIFF with at least one page; export it again."
            )
        return _load_series(path, tif, options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's remarks off the terminal; what matters is checked here."""
    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _check_directories(path: Path) -> None:
    """Follow the chain of pages (TIFF 6.0, section 2), at whose breaks tifffile stops silently."""
    size, seen = path.stat().st_size, set()
    with disk.open_checked(path) as file:
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = start[2:4] in (b"+\0", b"\0+")
        count_code, offset_code, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        places = start[8:16] if big else start[4:8]
        while len(places) == struct.calcsize(offset_code):
            (offset,) = struct.unpack(order + offset_code, places)
            if offset == 0:
                return
            if offset in seen or offset >= size:
                break
            seen.add(offset)
            file.seek(offset)
            counted = file.read(struct.calcsize(count_code))
            if len(counted) < struct.calcsize(count_code):
                break
            file.seek(struct.unpack(order + count_code, counted)[0] * entry, 1)
            places = file.read(struct.calcsize(offset_code))
    raise SpadError(
        f"{path} breaks off in its list of pages (after {len(seen)}); expected a complete TIFF; "
        "copy or export it again."
    )


def _load_series(path: Path, tif: Any, options: Options) -> Picture:
    series, page = tif.series[0], tif.series[0].keyframe
    notes: list[str] = []
    if len(tif.series) > 1:
        notes.append(
            f"The file holds {len(tif.series)} pictures of different kinds; the first "
            f"({' x '.join(map(str, series.shape))}) is read."
        )
    _check_kind(path, series, page)
    array = _pixels(path, tif, series, page)
    letters = [letter.upper() for letter in series.axes]
    array, colors, letters = _in_colours(path, array, letters, page, options, notes)
    array, axes, swapped = _in_file_order(path, array, letters, page, notes)
    steps, fields = _metadata(tif, page, notes)
    if swapped:
        steps = (steps[1], steps[0], steps[2])
    if "t" not in axes:
        fields.pop("time_step", None)
    return Picture(
        array=array,
        axes=axes,
        rgb="S" in letters and int(page.photometric) in (*_COLOURS, _PALETTE),
        steps=steps,
        notes=notes,
        colors=colors,
        fields=fields,
    )


def _check_kind(path: Path, series: Any, page: Any) -> None:
    """Refuse what no scan is, before a byte of it is read."""
    if series.is_multifile or any(one is None for one in series.pages):
        raise SpadError(
            f"{path} is one of several OME-TIFF files of one image; expected all of it in one "
            "file; export it as such."
        )
    if page.dtype is None or page.dtype.kind not in "biuf":
        kind = "unknown" if page.dtype is None else page.dtype.name
        raise SpadError(
            f"{path} holds pixels of type {kind}; expected integers or real numbers; export it "
            "again as such."
        )
    photometric = int(page.photometric)
    if photometric not in (*_GREY, *_COLOURS, _PALETTE):
        name = getattr(page.photometric, "name", photometric)
        raise SpadError(
            f"{path} holds colours of the kind {name}; expected grey values, RGB or a palette; "
            "convert it to RGB first."
        )
    if 0 in series.shape:
        raise SpadError(
            f"{path} is empty: its header gives the shape {tuple(series.shape)}; expected at "
            "least one pixel along each axis; export it again."
        )


def _pixels(path: Path, tif: Any, series: Any, page: Any) -> Any:
    """Give the pixels in the series' own order: a memory map if they lie in one piece."""
    count = math.prod(series.shape)
    dtype = page.dtype.newbyteorder(tif.byteorder)
    offset = series.dataoffset
    if offset is not None and page.is_final and page.dtype.kind != "b":
        return disk.load(path, dtype, count, int(offset)).reshape(series.shape)
    _check_segments(path, series, page)
    try:
        return series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    return _through_pillow(path, series, page)


def _check_segments(path: Path, series: Any, page: Any) -> None:
    """Check what pages claim against the bytes that they point to."""
    size = path.stat().st_size
    factor = _MOST.get(int(page.compression), 20000) if int(page.compression) != 1 else 1
    for one in series.pages:
        ends = [
            start + held for start, held in zip(one.dataoffsets, one.databytecounts, strict=False)
        ]
        held = sum(one.databytecounts)
        bits = page.imagewidth * page.imagelength * page.imagedepth
        bits *= page.samplesperpixel * page.bitspersample
        if page.is_subsampled:
            bits //= 2
        if not ends or max(ends) > size or held * factor * 8 < bits:
            raise SpadError(
                f"{path} holds at most {max(min(held, size), 0) * factor} bytes of a page, but its "
                f"header claims {bits // 8}; expected a complete file; copy or export it again."
            )


def _through_pillow(path: Path, series: Any, page: Any) -> np.ndarray:
    """Decode compressed pages with Pillow where tifffile lacks a codec (LZW, JPEG)."""
    from PIL.TiffImagePlugin import TiffImageFile

    planes = []
    with TiffImageFile(path) as image:
        for one in series.pages:
            image.seek(one.index)
            plane = pixels_of(image)
            if plane.shape != page.shape or plane.dtype.newbyteorder("=") != page.dtype:
                raise SpadError(
                    f"{path} is compressed as {page.compression.name}, which needs imagecodecs for "
                    f"pixels of type {page.dtype}; expected deflate or none without it; install "
                    "it with: pip install imagecodecs."
                )
            planes.append(plane)
    return np.stack(planes).reshape(series.shape)


def _in_colours(
    path: Path, array: Any, letters: list[str], page: Any, options: Options, notes: list[str]
) -> tuple[Any, dict[int, Rgba] | None, list[str]]:
    """Look a palette up, and turn grey values that count from white."""
    photometric = int(page.photometric)
    if photometric == 0:
        notes.append("The file counts grey values from white; they are turned to count from black.")
        if array.dtype.kind == "b":
            return ~np.asarray(array), None, letters
        if array.dtype.kind == "u":
            top = (1 << page.bitspersample) - 1
            return array.dtype.type(top) - array, None, letters
        return -np.asarray(array), None, letters
    if photometric != _PALETTE or page.colormap is None or array.dtype.kind != "u":
        return array, None, letters
    table = np.asarray(page.colormap)
    rgb = (table.T >> 8 if table.dtype.itemsize > 1 else table.T).astype(np.uint8)
    if wants_ids(path, options):
        rgba = np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], axis=1)
        return array, palette_colors(rgba, array), letters
    if int(array.max()) >= len(rgb):
        raise SpadError(
            f"{path} has a palette of {len(rgb)} colours but pixels up to {int(array.max())}; "
            "expected a colour for each; export it again."
        )
    return rgb[array], None, [*letters, "S"]


def _in_file_order(
    path: Path, array: Any, letters: list[str], page: Any, notes: list[str]
) -> tuple[Any, str, bool]:
    """Bring pixels to i, j, k[, t][, c]; also tell whether rows and columns changed places."""
    planes = [letter for letter in letters if letter in _PLANES]
    channels = [
        letter for letter in letters if letter in "CS" and array.shape[letters.index(letter)] > 1
    ]
    keep = {"Y", "X", "T", *planes[:1], *(channels[:1] or [])}
    for letter in letters:
        if letter not in keep and array.shape[letters.index(letter)] > 1:
            said = ", ".join(
                f"{name} {size}" for name, size in zip(letters, array.shape, strict=True)
            )
            raise SpadError(
                f"{path} has axes that no scan has ({said}); expected rows, columns, slices, times "
                "and channels or colours; export a part of it."
            )
    if not {"Y", "X"} <= set(letters):
        raise SpadError(
            f"{path} has the axes {''.join(letters)}; expected rows (Y) and columns (X); export "
            "it again."
        )
    array = array[tuple(slice(None) if letter in keep else 0 for letter in letters)]
    left = [letter for letter in letters if letter in keep]
    if planes and planes[0] in "IQ" and array.shape[left.index(planes[0])] > 1:
        notes.append("The file's pages are read as slices, the first at the bottom of the stack.")
    order = ["Y", "X", *planes[:1], *(["T"] if "T" in left else []), *channels[:1]]
    array = array.transpose([left.index(letter) for letter in order])
    orientation = page.tags.valueof(_ORIENTATION, 1)
    array, swapped = upright(array, int(orientation), notes)
    array = array.swapaxes(0, 1)
    if not planes:
        array = array[:, :, None]
    axes = "ijk" + "t" * ("T" in left) + "c" * bool(channels)
    if axes in ("ijkt", "ijktc") and array.shape[3] == 1:
        array, axes = array[:, :, :, 0], axes.replace("t", "")
    if array.dtype.kind == "b":
        array = np.asarray(array).view(np.uint8)
    return array, axes, swapped


def _metadata(tif: Any, page: Any, notes: list[str]) -> tuple[Steps, dict[str, Any]]:
    """Find spacing, time step and display window in ImageJ's, OME's or TIFF's own fields."""
    if tif.is_ome and tif.ome_metadata:
        return _of_ome(tif.ome_metadata)
    across, down = (_ratio(page, tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    if tif.is_imagej:
        return _of_imagej(tif.imagej_metadata or {}, across, down)
    unit = int(page.tags.valueof(_UNIT, 2))
    if across is None or down is None or unit not in _PER_INCH:
        return (None, None, None), {}
    steps, said = spacing_of_density(across * _PER_INCH[unit], down * _PER_INCH[unit])
    notes += said
    return steps, {}


def _of_imagej(
    metadata: dict[str, Any], across: float | None, down: float | None
) -> tuple[Steps, dict[str, Any]]:
    """Read ImageJ's fields: pixels per unit, slice spacing, frame interval and display range."""
    fields: dict[str, Any] = {}
    if "finterval" in metadata:
        fields["time_step"] = time_step(float(metadata["finterval"]), metadata.get("tunit", "s"))
    low, high = metadata.get("min"), metadata.get("max")
    if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
        fields["window"] = (float(low), float(high))
    unit = str(metadata.get("unit", ""))
    factor = millimetres(unit)
    if factor is None:
        return (None, None, None), fields
    spacing = metadata.get("spacing")
    return (
        None if across is None else factor / across,
        None if down is None else factor / down,
        float(spacing) * factor if isinstance(spacing, int | float) else None,
    ), fields


def _of_ome(text: str) -> tuple[Steps, dict[str, Any]]:
    """Read the first image's fields of OME-XML (2016-06: PhysicalSize, micrometres by default)."""
    pixels = next(
        node for node in ElementTree.fromstring(text).iter() if node.tag.endswith("}Pixels")
    )

    def step(axis: str) -> float | None:
        size = pixels.get(f"PhysicalSize{axis}")
        factor = millimetres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        return None if size is None or factor is None else float(size) * factor

    fields: dict[str, Any] = {}
    interval = pixels.get("TimeIncrement")
    if interval is not None:
        fields["time_step"] = time_step(float(interval), pixels.get("TimeIncrementUnit", "s"))
    return (step("X"), step("Y"), step("Z")), fields


def _ratio(page: Any, tag: int) -> float | None:
    """Give a resolution (a fraction) as a number; None if it is absent or not positive."""
    value = page.tags.valueof(tag)
    try:
        top, bottom = value
        ratio = float(top) / float(bottom)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return ratio if math.isfinite(ratio) and ratio > 0 else None
