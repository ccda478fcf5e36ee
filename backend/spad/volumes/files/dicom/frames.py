"""The image planes of a DICOM file: one, or the frames of a multi-frame object."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.dicom.headers import (
    Header,
    item,
    number,
    numbers,
    text,
    texts,
    value,
    whole,
)


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One image plane and where it belongs.

    Attributes:
        header: its file.
        form: what planes of one grid share: rows, columns, samples, and the file itself where
            it has several frames.
        number: index in the file, from 0.
        position: centre of its first pixel, LPS mm, or None.
        orientation: direction of a row (along the columns), then of a column; or None.
        spacing: mm between rows, then between columns; or None.
        thickness: SliceThickness in mm, or None.
        apart: SpacingBetweenSlices in mm (negative in nuclear medicine), or None.
        slope: unit per stored step.
        intercept: unit at a stored 0.
        unit: RescaleType, or None.
        window: centre and width, or None.
        kind: ImageType or FrameType.
        marks: what tells it from others at its place (see `stacks`); values that compare.
    """

    header: Header
    form: tuple[Any, ...]
    number: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    apart: float | None
    slope: float
    intercept: float
    unit: str | None
    window: tuple[float, float] | None
    kind: tuple[str, ...]
    marks: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name, with the frame's number if it has several."""
        frames = whole(self.header.dataset, "NumberOfFrames") or 1
        return f"{self.header.path.name}" + (f" frame {self.number + 1}" if frames > 1 else "")


def frames_of(header: Header) -> list[Frame]:
    """Give the planes of a file in its own order.

    Geometry comes from the functional groups of enhanced objects (PS3.3 C.7.6.16), from
    GridFrameOffsetVector of doses (C.8.8.3), from the detector of nuclear medicine (C.8.4.11), or
    from ImagePositionPatient of single frames (C.7.6.2).

    Raises:
        SpadError: the file claims more frames than it can hold, or its groups do not match.
    """
    dataset = header.dataset
    count = whole(dataset, "NumberOfFrames") or 1
    pixels = header.pixels
    held = header.size if pixels is None else header.size - pixels.offset
    if count < 1 or count > max(1, held * 8):
        raise SpadError(
            f"{header.path} claims {count} frames but holds {held} bytes of pixels; expected a "
            "complete file; copy or export it again."
        )
    per_frame = value(dataset, "PerFrameFunctionalGroupsSequence")
    if per_frame is not None:
        return _enhanced(header, count, per_frame)
    if count == 1:
        return [_plain(header)]
    return _classic(header, count)


def rescale(dataset: Any, path: Any) -> tuple[float, float, str | None]:
    """Give RescaleSlope, RescaleIntercept and RescaleType; 1 and 0 where none is stated.

    Raises:
        SpadError: the slope is 0.
    """
    slope = number(dataset, "RescaleSlope")
    slope = number(dataset, "DoseGridScaling") if slope is None else slope
    intercept = number(dataset, "RescaleIntercept")
    if slope == 0:
        raise SpadError(
            f"{path} has a RescaleSlope of 0, which makes all voxels equal; expected another "
            "number; correct the header or export it again."
        )
    unit = text(dataset, "RescaleType")
    return 1.0 if slope is None else slope, intercept or 0.0, None if unit == "US" else unit


def _window(dataset: Any) -> tuple[float, float] | None:
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    return (center, width) if center is not None and width is not None and width >= 1e-6 else None


def _triple(dataset: Any, key: str) -> tuple[float, float, float] | None:
    found = numbers(dataset, key, 3)
    return None if found is None else (found[0], found[1], found[2])


def _pair(dataset: Any, key: str) -> tuple[float, float] | None:
    found = numbers(dataset, key, 2)
    return None if found is None else (found[0], found[1])


@cache
def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    return int(tag_for_keyword(keyword) or 0)


def _form(header: Header) -> tuple[Any, ...]:
    dataset = header.dataset
    several = (whole(dataset, "NumberOfFrames") or 1) > 1
    return (
        *(whole(dataset, key) for key in ("Rows", "Columns", "SamplesPerPixel")),
        text(dataset, "ConcatenationUID") or (header.sop_instance if several else ""),
    )


def _plain(header: Header) -> Frame:
    dataset = header.dataset
    slope, intercept, unit = rescale(dataset, header.path)
    return Frame(
        header=header,
        form=_form(header),
        number=0,
        position=_triple(dataset, "ImagePositionPatient"),
        orientation=numbers(dataset, "ImageOrientationPatient", 6),
        spacing=_pair(dataset, "PixelSpacing"),
        thickness=number(dataset, "SliceThickness"),
        apart=number(dataset, "SpacingBetweenSlices"),
        slope=slope,
        intercept=intercept,
        unit=unit,
        window=_window(dataset),
        kind=texts(dataset, "ImageType"),
        marks=_marks(dataset),
    )


def _marks(dataset: Any) -> dict[str, Any]:
    found = {
        "temporal": whole(dataset, "TemporalPositionIdentifier"),
        "b-value": _b_value(dataset),
        "echo": number(dataset, "EchoTime"),
        "inversion": number(dataset, "InversionTime"),
        "trigger": number(dataset, "TriggerTime"),
        "stack": text(dataset, "StackID"),
        "acquisition": whole(dataset, "AcquisitionNumber"),
        "reference": number(dataset, "FrameReferenceTime"),
        "acquired": moment(dataset, "Acquisition"),
        "content": moment(dataset, "Content"),
        "instance": whole(dataset, "InstanceNumber"),
    }
    return {key: mark for key, mark in found.items() if mark is not None}


def _b_value(dataset: Any) -> tuple[float, ...] | None:
    """Give b-value and gradient direction: the standard's, else what the makers write."""
    b = number(dataset, "DiffusionBValue")
    direction = numbers(dataset, "DiffusionGradientOrientation", 3)
    if b is None:
        creators = (text(dataset, 0x00190010), text(dataset, 0x00430010), text(dataset, 0x20010010))
        if (creators[0] or "").startswith("SIEMENS MR"):
            b = number(dataset, 0x0019100C)
            direction = numbers(dataset, 0x0019100E, 3)
        elif (creators[1] or "").startswith("GEMS_PARM"):
            b = number(dataset, 0x00431039)
            b = None if b is None else b % 1e6
        elif (creators[2] or "").startswith("Philips"):
            b = number(dataset, 0x20011003)
    if b is None:
        return None
    return (b, *(round(part, 4) for part in direction or ()))


def moment(dataset: Any, prefix: str) -> float | None:
    """Give `<prefix>DateTime`, or `<prefix>Date` and `<prefix>Time`, in seconds; None if absent.

    Without a date the seconds count from midnight.
    """
    whole_moment = text(dataset, f"{prefix}DateTime")
    if whole_moment and len(whole_moment) >= 14:
        return seconds(whole_moment[:8], whole_moment[8:].split("+")[0].split("-")[0])
    return seconds(text(dataset, f"{prefix}Date"), text(dataset, f"{prefix}Time"))


def seconds(date: str | None, time: str | None) -> float | None:
    """Give a DICOM date (DA) and time (TM) in seconds; None where the time is not stated."""
    if not time:
        return None
    digits = time.replace(":", "")
    try:
        hours, minutes = int(digits[:2]), int(digits[2:4] or 0)
        result = hours * 3600 + minutes * 60 + float(digits[4:] or 0)
        if date:
            plain = date.replace(".", "")
            day = datetime.date(int(plain[:4]), int(plain[4:6]), int(plain[6:8]))
            result += day.toordinal() * 86400.0
    except ValueError:
        return None
    return result


def _enhanced(header: Header, count: int, per_frame: Any) -> list[Frame]:
    if len(per_frame) != count:
        raise SpadError(
            f"{header.path} claims {count} frames but describes {len(per_frame)}; expected one "
            "item of PerFrameFunctionalGroupsSequence per frame; export it again."
        )
    shared = item(header.dataset, "SharedFunctionalGroupsSequence")
    form = _form(header)
    return [_enhanced_frame(header, form, n, own, shared) for n, own in enumerate(per_frame)]


def _enhanced_frame(
    header: Header, form: tuple[Any, ...], index: int, own: Any, shared: Any
) -> Frame:
    holders = [(held, set(held.keys())) for held in (own, shared) if held is not None]

    def group(keyword: str) -> Any:
        tag = _tag(keyword)
        return next((item(held, keyword) for held, tags in holders if tag in tags), None)

    measures = group("PixelMeasuresSequence")
    transform = group("PixelValueTransformationSequence")
    slope, intercept, unit = rescale(
        header.dataset if transform is None else transform, header.path
    )
    content = group("FrameContentSequence")
    kind: tuple[str, ...] = ()
    component = None
    for name in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence"):
        frame_type = group(name)
        if frame_type is not None:
            kind = texts(frame_type, "FrameType")
            component = text(frame_type, "ComplexImageComponent")
    plane, turned = group("PlanePositionSequence"), group("PlaneOrientationSequence")
    window = group("FrameVOILUTSequence")
    return Frame(
        header=header,
        form=form,
        number=index,
        position=None if plane is None else _triple(plane, "ImagePositionPatient"),
        orientation=None if turned is None else numbers(turned, "ImageOrientationPatient", 6),
        spacing=None if measures is None else _pair(measures, "PixelSpacing"),
        thickness=None if measures is None else number(measures, "SliceThickness"),
        apart=None if measures is None else number(measures, "SpacingBetweenSlices"),
        slope=slope,
        intercept=intercept,
        unit=unit,
        window=_window(header.dataset if window is None else window),
        kind=(*(kind or texts(header.dataset, "ImageType")), *((component,) if component else ())),
        marks=_enhanced_marks(group, content, index),
    )


def _enhanced_marks(group: Any, content: Any, index: int) -> dict[str, Any]:
    found: dict[str, Any] = {"instance": index}
    if content is not None:
        found["temporal"] = whole(content, "TemporalPositionIndex")
        found["stack"] = text(content, "StackID")
        found["acquisition"] = whole(content, "FrameAcquisitionNumber")
        found["acquired"] = moment(content, "FrameAcquisition") or moment(content, "FrameReference")
    echo, diffusion = group("MREchoSequence"), group("MRDiffusionSequence")
    if echo is not None:
        found["echo"] = number(echo, "EffectiveEchoTime")
    if diffusion is not None:
        b = number(diffusion, "DiffusionBValue")
        along = item(diffusion, "DiffusionGradientDirectionSequence")
        direction = () if along is None else numbers(along, "DiffusionGradientOrientation", 3)
        found["b-value"] = None if b is None else (b, *(round(p, 4) for p in direction or ()))
    heart = group("CardiacSynchronizationSequence")
    if heart is not None:
        found["trigger"] = number(heart, "NominalCardiacTriggerDelayTime")
    return {key: mark for key, mark in found.items() if mark is not None}


def _classic(header: Header, count: int) -> list[Frame]:
    """Give the frames of older multi-frame objects, whose geometry is stated once, if at all."""
    first = _plain(header)
    positions: list[Any] = [None] * count
    grid = numbers(header.dataset, "GridFrameOffsetVector", count)
    detector = item(header.dataset, "DetectorInformationSequence")
    if detector is not None and "TOMO" in " ".join(first.kind) and first.apart:
        first = replace(
            first,
            position=_triple(detector, "ImagePositionPatient"),
            orientation=numbers(detector, "ImageOrientationPatient", 6),
        )
        grid = tuple(first.apart * n for n in range(count)) if first.apart else None
    if grid is not None and first.position is not None and first.orientation is not None:
        place = np.array(first.position)
        if grid[0] == 0:
            row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
            positions = [tuple(place + np.cross(row, column) * offset) for offset in grid]
        else:  # C.8.8.3.2: a first offset other than 0 means that the vector holds z itself
            positions = [(place[0], place[1], z) for z in grid]
    return [
        replace(first, number=n, position=positions[n], marks={**first.marks, "instance": n})
        for n in range(count)
    ]
