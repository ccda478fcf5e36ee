"""Reading a DICOM series, file or medium as a `Volume`.

Slices are ordered by their place along the normal, never by file name or instance number; the
affine holds oblique planes and a tilted gantry exactly. See `geometry` for the tolerances.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import assemble
from spad.volumes.files.dicom import catalog, pixels, suv
from spad.volumes.files.dicom.catalog import Found
from spad.volumes.files.dicom.grid import Grid
from spad.volumes.files.dicom.headers import quiet, text, whole
from spad.volumes.files.dicom.source import DicomSource, Slice
from spad.volumes.files.labels import with_labels

if TYPE_CHECKING:
    from spad.volumes.files.dicom.frames import Frame
    from spad.volumes.files.dicom.headers import Header
    from spad.volumes.files.options import Options
    from spad.volumes.volume import Volume

_SLICE_AXIS = 2
_LISTED = 8


def read(path: Path, options: Options) -> Volume:
    """Read the one series of a place, or the one that is asked for.

    Args:
        path: a folder, a DICOMDIR, or one file of a series (its other files are found beside
            it); a segmentation or structure set is read as labels.
        options: `series` chooses by `Series.uid`; `spacing` counts for files that state none.

    Returns:
        The volume: stored integers with slope and intercept (float32 where slices differ), CT
        in HU, PET in SUV where its headers allow, colours as RGB; `source.header` is a
        `DicomSource`.

    Raises:
        SpadError: several series and none chosen, a series that is no volume (the sentence names
            the positions), or pixels that cannot be read.
    """
    found = catalog.scan(path, options.spacing)
    chosen, left_out = choose(found, path, options.series)
    if chosen.series.kind == "labels":
        return _read_labels(chosen, options)
    if chosen.series.problem or chosen.grid is None:
        raise SpadError(chosen.series.problem or f"{path} is no volume; expected one; choose it.")
    with quiet():
        volume = _read_images(path, chosen, chosen.grid, options, left_out)
    return with_labels(volume, path, options) if options.labels else volume


def choose(found: list[Found], path: Path, series: str | None) -> tuple[Found, list[Found]]:
    """Choose one of several series.

    Args:
        found: by `catalog.scan`.
        path: what was scanned.
        series: a `Series.uid`, a SeriesInstanceUID with one volume, or None for the only one.

    Returns:
        The series, and the localizers of the same series that were passed over.

    Raises:
        SpadError: it is not there, or several are and none was chosen; they are listed.
    """
    if series is not None:
        exact = [one for one in found if series in (one.series.uid, one.instance)]
        same = [one for one in found if one.series_uid == series]
        for matches in (exact, [one for one in same if not one.scout], same):
            if len(matches) == 1:
                return matches[0], []
        what = f"has no series {series!r}" if not same else f"has several volumes in {series!r}"
        raise SpadError(f"{path} {what}; expected one of {_list(found)}; choose one of these.")
    images = [one for one in found if one.series.kind == "image" and not one.scout]
    candidates = images or [one for one in found if one.series.kind == "labels"] or found
    if len(candidates) == 1:
        return candidates[0], [one for one in found if one.scout and one is not candidates[0]]
    kind = "series" if candidates[0].series.kind == "image" else "segmentations"
    raise SpadError(
        f"{path} holds {len(candidates)} {kind}: {_list(candidates)}; expected one, or a choice; "
        "choose one by its UID (series=)."
    )


def _list(found: list[Found]) -> str:
    said = []
    for one in found[:_LISTED]:
        series = one.series
        size = " x ".join(str(n) for n in series.shape)
        fault = ", not readable" if series.problem else ""
        words = f"{(series.modality or 'unknown')[:16]}, {series.description[:64]}"
        said.append(f"{series.uid[:72]} ({words}, {size}{fault})")
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(said) + more


def _read_labels(chosen: Found, options: Options) -> Volume:
    from spad.volumes.files.dicom import rtstruct, seg

    header = chosen.headers[0]
    module: Any = rtstruct if header.sop_class.endswith(".481.3") else seg
    volume: Volume = module.read(header.path, options)
    return volume


def _read_images(
    path: Path, found: Found, grid: Grid, options: Options, left_out: list[Found]
) -> Volume:
    first = grid.frames[0][0]
    dataset = first.header.dataset
    modality = text(dataset, "Modality")
    factor, unit, notes = 1.0, _unit(first, modality), list(grid.notes)
    if modality == "PT":
        taken = suv.uptake([header.dataset for header in found.headers])
        factor, unit = taken.factor, taken.unit
        notes += taken.notes
    read_pixels = pixels.load(grid, found.where, factor)
    if read_pixels.rgb:
        unit = None
    notes += read_pixels.notes
    if left_out:
        count = sum(one.series.slices for one in left_out)
        notes.append(
            f"{count} localizer image{'s' if count > 1 else ''} of the same series "
            f"{'are' if count > 1 else 'is'} left out."
        )
    array, axes = _file_order(read_pixels.array, read_pixels.rgb)
    return assemble(
        array,
        grid.affine,
        axes=axes,
        path=path,
        format="dicom",
        options=options,
        header=source_of(found, grid),
        slice_axis=_SLICE_AXIS if grid.shape[2] > 1 else None,
        dtype=read_pixels.dtype,
        slope=read_pixels.slope,
        intercept=read_pixels.intercept,
        notes=tuple(notes),
        name=text(dataset, "SeriesDescription") and found.series.description,
        modality_hint=modality,
        unit=unit,
        rgb=read_pixels.rgb,
        time_step=grid.time_step,
        window=None if read_pixels.rgb else _window(grid, factor),
    )


def _file_order(array: np.ndarray, rgb: bool) -> tuple[np.ndarray, str]:
    """View (t, k, rows, columns[, 3]) as i, j, k[, t][, c]."""
    view = array.transpose(3, 2, 1, 0, *((4,) if rgb else ()))
    axes = "ijktc" if rgb else "ijkt"
    if array.shape[0] == 1:
        return view[:, :, :, 0], axes.replace("t", "")
    return view, axes


def _unit(frame: Frame, modality: str | None) -> str | None:
    if frame.unit is not None:
        return frame.unit
    if modality == "CT":
        return "HU"
    dose = text(frame.header.dataset, "DoseUnits")
    return {"GY": "Gy"}.get(dose or "") if modality == "RTDOSE" else None


def _window(grid: Grid, factor: float) -> tuple[float, float] | None:
    """Give the file's display window; one that holds all where slices have different ones."""
    windows = {frame.window for time in grid.frames for frame in time}
    pairs = [window for window in windows if window is not None]
    if not pairs or len(pairs) != len(windows):
        return None
    low = min(center - width / 2 for center, width in pairs)
    high = max(center + width / 2 for center, width in pairs)
    return low * factor, high * factor


def source_of(found: Found, grid: Grid) -> DicomSource:
    """Give what a writer needs to refer to the slices of a grid."""
    index: dict[int, int] = {}
    headers: list[Header] = []
    for frame in (frame for time in grid.frames for frame in time):
        if id(frame.header) not in index:
            index[id(frame.header)] = len(headers)
            headers.append(frame.header)
    several = any(
        "PerFrameFunctionalGroupsSequence" in header.dataset
        or (whole(header.dataset, "NumberOfFrames") or 1) > 1
        for header in headers
    )
    slices = tuple(
        tuple(
            Slice(
                file=index[id(frame.header)],
                frame=frame.number + 1 if several else None,
                sop_class_uid=frame.header.sop_class,
                sop_instance_uid=frame.header.sop_instance,
                position=frame.position,
                orientation=frame.orientation,
            )
            for frame in time
        )
        for time in grid.frames
    )
    dataset = headers[0].dataset
    return DicomSource(
        files=tuple(header.path for header in headers),
        headers=tuple(header.dataset for header in headers),
        slices=slices,
        study_uid=text(dataset, "StudyInstanceUID") or "",
        series_uid=text(dataset, "SeriesInstanceUID") or "",
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID") or "",
        modality=text(dataset, "Modality"),
    )
