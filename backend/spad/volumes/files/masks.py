"""Reading a folder with one mask file per organ, as TotalSegmentator leaves it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import stem_of, suffix_of
from spad.volumes.files.assemble import assemble
from spad.volumes.files.options import Options

if TYPE_CHECKING:
    from spad.volumes.volume import SourceGrid, Volume

MASK_SUFFIXES = (
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".nhdr",
    ".seg.nrrd",
    ".mha",
    ".mhd",
    ".hdr",
    ".hdr.gz",
)
_SHOWN = 4
_AHEAD = 2


class _Mask(NamedTuple):
    """A mask file: its grid, its notes and where it is set, boolean (k, j, i)."""

    source: SourceGrid
    notes: tuple[str, ...]
    inside: np.ndarray


def mask_files(path: Path) -> list[Path]:
    """List the volume files of a folder that may each be a mask, by name.

    Args:
        path: a folder.

    Returns:
        NIfTI, NRRD, MetaImage and Analyze files (of a pair the header), names that start with a
        dot left out; empty if there are none or the folder cannot be listed.
    """
    try:
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError:
        return []
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and suffix_of(entry) in MASK_SUFFIXES and entry.is_file()
    ]


def is_mask_folder(path: Path) -> bool:
    """Tell by its first two volume files whether a folder holds masks.

    One mask among them is enough: `read` then names the file that is none.
    """
    return any(_is_mask(file) for file in mask_files(path)[:2])


def read(path: Path, options: Options) -> Volume:
    """Read a folder of masks as one labels volume.

    Each file holds one mask: 0 outside and one other value inside, or nothing but 0 where the
    organ is absent. Ids are 1, 2, ... in the order of the files' names; names are the files' stems,
    those of absent organs included, so that cases with the same files agree in their ids. Where
    masks overlap the later one wins, and a note tells. One mask at a time is kept in memory.

    Args:
        path: the folder.
        options: `depth` and `labels` are heeded.

    Returns:
        uint8 (uint16 for more than 255 masks) on the grid of the first file.

    Raises:
        SpadError: there is no volume file, a file is no mask, or lies on another grid.
    """
    files = mask_files(path)
    if not files:
        raise SpadError(
            f"{path} holds no volume file; expected one mask per organ ({', '.join(MASK_SUFFIXES)})"
            "; choose the folder that holds them."
        )
    names = _names(path, files)
    if options.series is not None and options.series not in (path.name, str(path)):
        raise SpadError(
            f"{path} holds masks and no series {options.series}; expected a folder with that DICOM "
            "series; leave the series out."
        )
    volumes = _volumes(files)
    first, notes, mask = next(volumes)
    dtype = np.dtype(np.uint8 if len(files) <= 255 else np.uint16)
    # in the order in which files hold voxels, k first, so that all are walked alike
    labels = np.zeros(mask.shape, dtype)
    labels[mask] = 1
    overlaps: dict[tuple[int, int], int] = {}
    for label, (source, _, mask) in enumerate(volumes, 2):
        _check_same_grid(files[label - 1], source, files[0], first)
        count_overlaps(labels, mask, label, overlaps)
        labels[mask] = label
    if overlaps:
        notes = (*notes, overlap_note(overlaps, names, "the later name in the folder"))
    return assemble(
        labels.T,
        first.affine,
        path=path,
        shape=first.shape,
        format=first.format,
        options=options,
        header=first.header,
        label_names=None if options.labels is False else names,
        notes=notes,
        name=path.name,
    )


def count_overlaps(
    labels: np.ndarray, inside: np.ndarray, label: int, overlaps: dict[tuple[int, int], int]
) -> None:
    """Count the voxels that a label is about to take from others.

    Args:
        labels: unsigned, as they are.
        inside: boolean, the same shape: the voxels of the new label.
        label: its id.
        overlaps: voxels per (id that loses, id that wins); added to.
    """
    taken = labels[inside]
    if not taken.any():
        return
    for other, count in enumerate(np.bincount(taken)[1:].tolist(), 1):
        if count and other != label:
            overlaps[other, label] = overlaps.get((other, label), 0) + count


def overlap_note(overlaps: dict[tuple[int, int], int], names: dict[int, str], winner: str) -> str:
    """Say which labels wanted the same voxels.

    Args:
        overlaps: voxels per pair of ids, the one that lost first.
        names: id to name.
        winner: what decides, such as "the later segment".

    Returns:
        One sentence with the number of voxels and the pairs, the largest four by name.
    """
    pairs = sorted(overlaps.items(), key=lambda item: -item[1])
    shown = [
        f"{names.get(lost, str(lost))} and {names.get(won, str(won))} ({count})"
        for (lost, won), count in pairs[:_SHOWN]
    ]
    more = f" and {len(pairs) - _SHOWN} more pairs" if len(pairs) > _SHOWN else ""
    return (
        f"{sum(overlaps.values())} voxels are claimed by two labels: {', '.join(shown)}{more}; "
        f"each went to {winner}."
    )


def _names(path: Path, files: list[Path]) -> dict[int, str]:
    # a file's name need not be text: its other bytes are shown as a question mark
    names = {
        label: os.fsencode(stem_of(file)).decode("utf-8", "replace")
        for label, file in enumerate(files, 1)
    }
    stems = [name.casefold() for name in names.values()]
    double = next((stem for stem in stems if stems.count(stem) > 1), None)
    if double is not None:
        raise SpadError(
            f"{path} holds several files named {double} with other suffixes; expected one "
            "mask per organ; remove all but one."
        )
    return names


def _volumes(files: list[Path]) -> Iterator[_Mask]:
    """Read the files in order, two ahead of time (decompression runs beside Python)."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting: deque[Future[_Mask]] = deque()
        for file in files:
            waiting.append(pool.submit(_read_mask, file))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_mask(file: Path) -> _Mask:
    from spad.volumes.files import read as read_file

    volume = read_file(file, labels=False)
    if volume.axes != "zyx":
        raise SpadError(
            f"{file} has more than three axes ({volume.axes}), so its folder is not one of masks; "
            "expected one mask per file; open the file itself."
        )
    array = np.asarray(to_file_order(volume.array, volume.source))
    array = array.reshape((*array.shape, 1, 1)[:3]).T
    inside: set[float] = set()
    for plane in array:
        low, high = plane.min(), plane.max()
        inside.update({float(low), float(high)} - {0.0})
        if len(inside) > 1 or not ((plane == low) | (plane == high)).all():
            raise SpadError(
                f"{file} holds more values than 0 and one other, so its folder is not one of "
                "masks; expected one binary mask per organ; open the file itself, or move it "
                "away from the masks."
            )
    return _Mask(volume.source, volume.notes, array != 0)


def _is_mask(file: Path) -> bool:
    try:
        _read_mask(file)
    except SpadError:
        return False
    return True


def _check_same_grid(file: Path, source: SourceGrid, first_file: Path, first: SourceGrid) -> None:
    shape, expected = source.shape, first.shape
    near = np.allclose(source.affine, first.affine, rtol=1e-5, atol=1e-3)
    if shape == expected and near:
        return
    what = f"another place or spacing than {first_file.name}"
    if shape != expected:
        what = f"the shape {shape} where {first_file.name} has {expected}"
    raise SpadError(
        f"{file} has {what}; expected all masks of a folder on one grid; move it away, or bring "
        "it onto the others' grid."
    )
