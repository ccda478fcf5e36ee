"""Pixels of many files into one array: read or decoded in threads, each straight to its place.

Uncompressed planes are read into the array itself, so the peak is one array. Of the decoders that
pydicom calls none releases the GIL for all of its work (GDCM partly does), so threads overlap
reading with decoding and gain little beyond that.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.dicom import codestream
from spad.volumes.files.dicom.frames import Frame
from spad.volumes.files.dicom.grid import Grid
from spad.volumes.files.dicom.headers import (
    DEFLATED,
    UNDEFINED,
    Header,
    item,
    quiet,
    text,
    whole,
)
from spad.volumes.files.reasons import reason

_NATIVE = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREYS = ("MONOCHROME1", "MONOCHROME2")
_THREADS = 8
_HARMLESS = 1 << 26
_MOST_EXPANDED = 2000


@dataclass(frozen=True)
class Layout:
    """How a file's pixels are stored.

    Attributes:
        rows, columns, samples: of one frame; samples are 1, or 3 for colours.
        bits: BitsAllocated. stored: BitsStored. high: HighBit.
        signed: whether values are two's complement.
        photometric: PhotometricInterpretation.
        planar: PlanarConfiguration.
        frames: NumberOfFrames.
        keyword: of the element: "" for PixelData.
        order: "<" or ">" for uncompressed data, "" for compressed.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    stored: int
    high: int
    signed: bool
    photometric: str
    planar: int
    frames: int
    keyword: str
    order: str

    @property
    def dtype(self) -> np.dtype:
        """Type of one stored value in this machine's byte order."""
        if self.keyword:
            return np.dtype("f4" if self.keyword == "FloatPixelData" else "f8")
        size = max(1, (self.bits + 7) // 8)
        return np.dtype(f"{'i' if self.signed else 'u'}{size}")

    @property
    def frame_bits(self) -> int:
        """Bits of one uncompressed frame."""
        samples = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":
            samples = samples * 2 // 3
        return samples * self.bits

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame (rounded up)."""
        return (self.frame_bits + 7) // 8

    @property
    def plain(self) -> bool:
        """Whether a frame can be read straight into an array."""
        if self.order == "" or self.bits not in (8, 16, 32, 64):
            return False
        if self.samples == 3:
            return self.photometric == "RGB" and self.planar == 0 and self.order == "<"
        return self.photometric in _GREYS and (self.order == "<" or self.bits > 8)


@dataclass(frozen=True, eq=False)
class Pixels:
    """What was read.

    Attributes:
        array: (t, k, rows, columns) or, for colours, (t, k, rows, columns, 3).
        slope: unit per stored step.
        intercept: unit at a stored 0.
        dtype: type of a stored value.
        rgb: whether the last axis holds colours.
        notes: sentences for the person.
    """

    array: np.ndarray
    slope: float
    intercept: float
    dtype: np.dtype
    rgb: bool
    notes: list[str]


def layout_of(header: Header) -> Layout:
    """Read and check how a file's pixels are stored.

    Raises:
        SpadError: an element is missing or has a value that no image has, the photometric
            interpretation is not known, or the file is shorter than it claims.
    """
    dataset, place = header.dataset, header.pixels
    if place is None:
        raise SpadError(
            f"{header.path} has no pixel data; expected an image; copy or export it again."
        )
    wanted = ("Rows", "Columns") if place.keyword else ("Rows", "Columns", "BitsAllocated")
    for key in wanted:
        if (whole(dataset, key) or 0) < 1:
            raise SpadError(
                f"{header.path} states no usable {key}; expected a positive number; export it "
                "again."
            )
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(
        place.keyword, whole(dataset, "BitsAllocated") or 0
    )
    stored = whole(dataset, "BitsStored") or bits
    high = whole(dataset, "HighBit")
    layout = Layout(
        rows=whole(dataset, "Rows") or 0,
        columns=whole(dataset, "Columns") or 0,
        samples=whole(dataset, "SamplesPerPixel") or 1,
        bits=bits,
        stored=stored,
        high=stored - 1 if high is None else high,
        signed=whole(dataset, "PixelRepresentation") == 1,
        photometric=text(dataset, "PhotometricInterpretation") or "MONOCHROME2",
        planar=whole(dataset, "PlanarConfiguration") or 0,
        frames=whole(dataset, "NumberOfFrames") or 1,
        keyword=place.keyword,
        order=_NATIVE.get(header.syntax, "<" if header.syntax == DEFLATED else ""),
    )
    _check_layout(layout, header)
    if layout.order and header.syntax != DEFLATED:
        _check_length(layout, header)
    return layout


def _check_layout(layout: Layout, header: Header) -> None:
    known = (*_GREYS, *_COLOURS, "PALETTE COLOR")
    if layout.photometric not in known:
        raise SpadError(
            f"{header.path} has colours of kind {layout.photometric!r}; expected "
            f"{', '.join(known)}; export it as RGB."
        )
    samples = 3 if layout.photometric in _COLOURS else 1
    if layout.samples != samples:
        raise SpadError(
            f"{header.path} has {layout.samples} samples per pixel but is {layout.photometric}; "
            f"expected {samples}; export it again."
        )
    odd = layout.bits not in (1, 8, 16, 32, 64) or (layout.bits == 64 and not layout.keyword)
    if odd or not 1 <= layout.stored <= layout.bits or not 0 <= layout.high < layout.bits:
        raise SpadError(
            f"{header.path} stores {layout.stored} bits up to bit {layout.high} in words of "
            f"{layout.bits}; expected words of 1, 8, 16 or 32 bits that hold them; export it "
            "again."
        )


def _check_length(layout: Layout, header: Header) -> None:
    place = header.pixels
    assert place is not None
    if place.length == UNDEFINED:
        raise SpadError(
            f"{header.path} says that its pixels are not compressed but holds them in compressed "
            "fragments; expected one or the other; export it again."
        )
    need = (layout.frame_bits * layout.frames + 7) // 8
    held = max(0, min(place.length, header.size - place.offset))
    if held < need:
        raise SpadError(
            f"{header.path} holds {held} bytes of pixels, but its header claims {need} "
            f"({layout.frames} x {layout.rows} x {layout.columns} x {layout.samples} values of "
            f"{layout.bits} bits); expected a complete file; copy or export it again."
        )


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is read, and as what.

    Attributes:
        frames: in the order of the array.
        sources: by id of the header.
        first: layout of the first frame.
        lut: whether a modality lookup table gives the values.
        even: whether stored numbers are kept, with one slope and intercept for all.
        dtype: type of a stored value.
        shape: (frames, rows, columns[, 3]).
    """

    frames: list[Frame]
    sources: dict[int, codestream.Source]
    first: Layout
    lut: bool
    even: bool
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def rgb(self) -> bool:
        return self.first.photometric not in _GREYS


def load(grid: Grid, where: str, factor: float = 1.0) -> Pixels:
    """Read all planes of a grid into one array.

    Args:
        grid: whose frames are to be read.
        where: what they belong to, for sentences.
        factor: multiplies the values' slope and intercept (SUV per Bq/ml).

    Returns:
        The stored integers with one slope and intercept (a memory map where one uncompressed file
        holds them in order); float32 values (slope 1) where slices have different ones; colours
        as RGB.

    Raises:
        SpadError: pixels are missing, truncated, damaged, of mixed kinds, or compressed in a way
            that no installed package decodes. Lengths are checked before memory is taken.
    """
    plan = _plan(grid, where)
    _check_claim(plan, where)
    array = _mapped(plan)
    if array is None:
        array = _empty(plan.shape, plan.dtype if plan.even else np.dtype("f4"), where)
        _fill(array, plan, factor)
    first = plan.frames[0]
    slope, intercept = (first.slope, first.intercept)
    if plan.lut or plan.rgb or not plan.even:
        slope, intercept = 1.0, 0.0
    scale = factor if plan.even else 1.0
    return Pixels(
        array=array.reshape(len(grid.frames), -1, *plan.shape[1:]),
        slope=slope * scale,
        intercept=intercept * scale,
        dtype=plan.dtype,
        rgb=plan.rgb,
        notes=_notes(first, plan.first, plan.even),
    )


def _plan(grid: Grid, where: str) -> _Plan:
    """Check all files and choose the array's type and shape."""
    frames = [frame for time in grid.frames for frame in time]
    headers = {id(frame.header): frame.header for frame in frames}
    layouts = {key: layout_of(header) for key, header in headers.items()}
    first = layouts[id(frames[0].header)]
    if len({(each.samples, each.photometric in _GREYS) for each in layouts.values()}) > 1:
        raise SpadError(
            f"{where} mixes grey and coloured images; expected one kind; export them apart."
        )
    lut = item(frames[0].header.dataset, "ModalityLUTSequence") is not None
    rgb = first.photometric not in _GREYS
    dtype = np.result_type(*{layout.dtype for layout in layouts.values()})
    if lut:
        dtype = np.dtype("u2")
    elif rgb:
        dtype = np.dtype("u1") if first.photometric == "PALETTE COLOR" else first.dtype
    return _Plan(
        frames=frames,
        sources={key: codestream.Source(header, layouts[key]) for key, header in headers.items()},
        first=first,
        lut=lut,
        even=rgb or lut or len({(frame.slope, frame.intercept) for frame in frames}) == 1,
        dtype=dtype,
        shape=(len(frames), first.rows, first.columns, *((3,) if rgb else ())),
    )


def _fill(array: np.ndarray, plan: _Plan, factor: float) -> None:
    """Read or decode every frame to its place, in threads."""

    def one(n: int) -> None:
        frame, target = plan.frames[n], array[n]
        source = plan.sources[id(frame.header)]
        stored = plan.even and not plan.lut
        if stored and source.layout.plain and source.layout.dtype == array.dtype:
            source.read_into(frame.number, target)
            return
        plane = source.plane(frame.number)
        if not plan.even:
            np.multiply(plane, frame.slope * factor, out=target, casting="unsafe")
            target += np.float32(frame.intercept * factor)
        else:
            target[...] = _looked_up(plane, frame) if plan.lut else plane

    with quiet(), ThreadPoolExecutor(min(_THREADS, max(2, os.cpu_count() or 1))) as pool:
        for _ in pool.map(one, range(len(plan.frames))):
            pass


def _check_claim(plan: _Plan, where: str) -> None:
    """Refuse sizes that no compression can reach; uncompressed lengths are checked already."""
    need = int(np.prod(plan.shape, dtype=object)) * plan.dtype.itemsize
    held = sum(source.header.size for source in plan.sources.values())
    if need > max(_HARMLESS, held * _MOST_EXPANDED):
        raise SpadError(
            f"{where} claims {need} bytes of voxels in files of {held} bytes; expected a complete "
            "series; copy or export it again."
        )


def _mapped(plan: _Plan) -> np.ndarray | None:
    """Map the frames of one uncompressed file that has them in the array's own order.

    Only where the bits need no settling: unused ones can hold anything.
    """
    layout, header = plan.first, plan.frames[0].header
    place = header.pixels
    ordered = all(f.header is header and f.number == n for n, f in enumerate(plan.frames))
    settled = layout.stored == layout.bits or bool(layout.keyword)
    if len(plan.frames) < 2 or not ordered or not settled or not layout.plain or place is None:
        return None
    if plan.lut or not plan.even or header.syntax == DEFLATED:
        return None
    if (layout.order == ">") == (sys.byteorder == "little"):
        return None
    return np.memmap(header.path, layout.dtype, "r", place.offset, plan.shape)


def _empty(shape: tuple[int, ...], dtype: np.dtype, where: str) -> np.ndarray:
    """Take memory for an array, if there is enough of it."""
    import psutil

    need = int(np.prod(shape, dtype=object)) * dtype.itemsize
    try:
        if need > _HARMLESS and need > psutil.virtual_memory().available:
            raise MemoryError
        return np.empty(shape, dtype)
    except MemoryError as error:
        raise SpadError(
            f"{where} needs {need / 2**30:.1f} GiB of memory, more than is free; close other "
            "programs or crop the scan."
        ) from error


def _looked_up(plane: np.ndarray, frame: Frame) -> Any:
    """Apply the table of a ModalityLUTSequence (PS3.3 C.11.1.1)."""
    from pydicom.pixels import apply_modality_lut

    try:
        return apply_modality_lut(plane, frame.header.dataset)
    except Exception as error:  # pydicom reads the table only now and may raise anything
        raise SpadError(
            f"{frame.header.path} has a modality lookup table that cannot be applied "
            f"({reason(error)}); expected a descriptor and its values; export it again."
        ) from error


def _notes(frame: Frame, layout: Layout, even: bool) -> list[str]:
    dataset = frame.header.dataset
    notes = []
    if layout.photometric == "MONOCHROME1":
        notes.append(
            "The file is MONOCHROME1, in which low values are meant to be bright; the values are "
            "kept as they are."
        )
    padding = whole(dataset, "PixelPaddingValue")
    if padding is not None and layout.samples == 1:
        notes.append(
            f"Voxels outside of the scanned field are stored as {padding} (PixelPaddingValue)."
        )
    if text(dataset, "LossyImageCompression") == "01":
        notes.append("The images were compressed with loss.")
    if not even:
        notes.append("Slices have different rescale factors; the values are given as float32.")
    if item(dataset, "ModalityLUTSequence") is not None:
        notes.append("Values are those of the file's modality lookup table.")
    return notes
