"""The scans of one or more data sets, read one at a time, and phantoms beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from spad.data.folder import is_labels_name, read_folder
from spad.data.store import Row, Store, is_store, open_store
from spad.errors import SpadError
from spad.phantoms_2d import FLAT_MODALITIES, flat_phantom
from spad.volumes.files import catalog, read, readable, stem_of, suffix_of
from spad.volumes.volume import Volume

Which = Literal["validation", "all"]
PHANTOMS = "phantoms"
"""The name of the data set that phantoms make up."""
_DICOM = (".dcm", ".dicom", ".ima")
_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Axis of the world and sign of the direction that a letter names."""
_PHANTOM_SEEDS = 500_000
"""Far from those of training."""


@dataclass(frozen=True)
class Scan:
    """A scan that can be read.

    Attributes:
        name: data set and ID, such as "btcv/0005".
        data_set: the folder's name, or `PHANTOMS`.
        read: gives the volume; raises `SpadError`.
        phantom: whether it is made up.
        folder: where its file lies, which no report needs to tell; None if nowhere.
    """

    name: str
    data_set: str
    read: Callable[[], Volume]
    phantom: bool = False
    folder: Path | None = None


def scans_of(paths: Sequence[str | Path], which: Which = "validation") -> list[Scan]:
    """List the scans of folders and files.

    Args:
        paths: folders with `img<ID>.nii.gz` and perhaps `split.json`, other folders of scans, DICOM
            folders, stores of `spad prepare`, or scans.
        which: "validation": of a store, and of a folder with a `split.json`, only the scans that
            are kept for validation; or "all". A folder without one gives all its scans.

    Raises:
        SpadError: there is nothing to read at one of the paths.
    """
    return [scan for path in paths for scan in _scans_at(Path(path), which)]


def phantom_scans(count: int, seed: int = 0) -> list[Scan]:
    """List `count` flat phantoms of each modality that there is; the same seed, the same ones."""
    return [
        Scan(
            f"{PHANTOMS}/{modality}-{number + 1}",
            PHANTOMS,
            partial(flat_phantom, _PHANTOM_SEEDS + 1000 * seed + number, modality),
            phantom=True,
        )
        for modality in FLAT_MODALITIES
        for number in range(count)
    ]


def _scans_at(path: Path, which: Which) -> list[Scan]:
    name = path.resolve().name
    if not path.is_dir():
        return [_scan(path, path.resolve().parent.name)]
    if is_store(path):
        return _stored_scans(open_store(path), which)
    if (path / "split.json").is_file() or any(path.glob("img*.nii*")):
        return _cases(path, which)
    files = [file for file in sorted(path.iterdir()) if _is_scan(file)]
    if files:
        return [_scan(file, name) for file in files]
    series = [one for one in catalog(path) if one.kind == "image"]
    if not series:
        return _cases(path, which)
    return [
        Scan(f"{name}/{number + 1}", name, partial(read, one.path, series=one.uid), folder=path)
        for number, one in enumerate(series)
    ]


def _cases(path: Path, which: Which) -> list[Scan]:
    """The scans of the known layout, or of the folders below."""
    cases = read_folder(path).cases
    if which == "validation" and (path / "split.json").is_file():
        cases = tuple(case for case in cases if case.validation)
        if not cases:
            raise _nothing_kept(path)
    name = path.resolve().name
    return [_scan(c.image, name, c.name.partition("/")[2], path) for c in cases]


def _stored_scans(store: Store, which: Which) -> list[Scan]:
    rows = [row for row in store.rows if which == "all" or row.part == "validation"]
    if not rows:
        raise _nothing_kept(store.path)
    return [
        Scan(row.key, row.data_set, partial(_stored, store, row), folder=store.path) for row in rows
    ]


def _stored(store: Store, row: Row) -> Volume:
    """Read a volume of a store, in the values and on the grid in which it is stored."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (letter, step) in enumerate(zip(row.orientation, row.spacing, strict=True)):
        world, sign = _DIRECTIONS[letter]
        affine[world, axis] = sign * step
    voxels = store.image(row)[...].numpy()
    colour = len(voxels) > 1
    return Volume.from_array(
        voxels if colour else voxels[0],
        affine,
        axes="czyx" if colour else "zyx",
        modality_hint=None if row.modality == "unknown" else row.modality,
        rgb=colour,
    )


def _nothing_kept(path: Path) -> SpadError:
    return SpadError(
        f"{path} keeps no scan for validation; name some in its split.json, or ask for all scans."
    )


def _is_scan(file: Path) -> bool:
    """Tell by its name whether `read` takes a file as a scan, slices of a DICOM series aside."""
    suffix = suffix_of(file)
    if suffix in _DICOM or not readable(file) or is_labels_name(Path(file.name)):
        return False
    # of a pair the header is named
    return suffix != ".img" or not file.with_suffix(".hdr").exists()


def _scan(file: Path, data_set: str, name: str = "", folder: Path | None = None) -> Scan:
    name = f"{data_set}/{name or stem_of(file)}"
    return Scan(name, data_set, partial(read, file), folder=folder or file.parent)
