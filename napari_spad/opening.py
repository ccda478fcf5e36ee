"""Scan > Open: what a path holds, what a person has to say first, and reading it; no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spad.errors import SpadError

if TYPE_CHECKING:
    from napari_spad.layers import LayerData
    from spad.volumes.files.series import Series
    from spad.volumes.volume import Volume

SUFFIX_GROUPS = (
    ("NIfTI", (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")),
    ("NRRD", (".nrrd", ".nhdr", ".seg.nrrd")),
    ("MetaImage", (".mha", ".mhd")),
    ("Analyze", (".hdr", ".img")),
    ("DICOM", (".dcm", ".dicom", ".ima", "DICOMDIR")),
    ("Pictures", (".png", ".jpg", ".jpeg", ".tif", ".tiff")),
    ("Numpy", (".npy", ".npz")),
    ("OME-Zarr in one file", (".ozx", ".zarr.zip")),
)
"""What a file dialog offers, by the names that people know."""

_ZARR_MARKS = (".zgroup", ".zarray", ".zattrs", "zarr.json")


@dataclass(frozen=True)
class Wanted:
    """Something to read.

    Attributes:
        path: a file or folder.
        series: which series of a DICOM folder, by the uid of the list.
        spacing: mm along i, j(, k), as a person states it.
        accept_notes: whether a spacing that is only assumed will do.
    """

    path: str
    series: str | None = None
    spacing: tuple[float, ...] | None = None
    accept_notes: bool = False

    @property
    def name(self) -> str:
        """The name of the file or folder."""
        return Path(self.path).name or self.path


@dataclass(frozen=True)
class Choice:
    """Several series, of which a person chooses."""

    path: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class SpacingWanted:
    """A file that states no spacing.

    Attributes:
        wanted: what was to be read.
        sentence: what the reader said.
        shape: voxels along the file's axes i, j, k.
        order: how the axes of the file are named, a sentence, or "".
        can_skip: whether it can be read with 1 mm.
    """

    wanted: Wanted
    sentence: str
    shape: tuple[int, int, int]
    order: str
    can_skip: bool


@dataclass(frozen=True)
class Opened:
    """A layer data tuple, and what a person should read about it."""

    data: LayerData
    notes: tuple[str, ...]


def find(path: str) -> Choice | Wanted:
    """Look what a path holds.

    Args:
        path: a file or a folder.

    Returns:
        The one thing to read, or a choice of several DICOM series.

    Raises:
        SpadError: there is nothing that can be read; a lone series says what is wrong with it.
    """
    from spad.volumes.files import catalog

    if _is_zarr(Path(path)):
        return Wanted(path)
    found = tuple(catalog(path))
    if not found:
        return Wanted(path)
    if len(found) > 1:
        return Choice(path, found)
    return wanted_of(found[0])


def wanted_of(series: Series) -> Wanted:
    """Give what to read for a series.

    Raises:
        SpadError: it cannot be read as a volume; the series' own sentence.
    """
    if series.problem:
        raise SpadError(series.problem)
    return Wanted(series.path, series.uid)


def read(wanted: Wanted) -> Opened | SpacingWanted:
    """Read a file or series as a layer.

    Raises:
        SpadError: it cannot be read.
    """
    found = load(wanted)
    return found if isinstance(found, SpacingWanted) else to_data(found, wanted.path)


def load(wanted: Wanted) -> Volume | SpacingWanted:
    """Read a file or series, without any sign in the viewer that it is open.

    Raises:
        SpadError: it cannot be read.
    """
    from spad.volumes import files

    options = {"series": wanted.series, "spacing": wanted.spacing}
    try:
        volume = files.read(wanted.path, **options)  # type: ignore[arg-type]
    except SpadError as error:
        if wanted.spacing is not None or not _asks_for_spacing(str(error)):
            raise
        trial = files.read(wanted.path, series=wanted.series, spacing=(1.0, 1.0, 1.0))
        return _ask(wanted, str(error), trial, can_skip=False)
    asking = [note for note in volume.notes if _asks_for_spacing(note)]
    if asking and wanted.spacing is None and not wanted.accept_notes:
        return _ask(wanted, asking[0], volume, can_skip=True)
    return volume


def to_data(volume: Volume, path: str) -> Opened:
    """Make the layer data of a volume that was read; it works off the main thread too."""
    from napari_spad.layers import to_layer

    role = "labels" if volume.is_labels else "scan"
    return Opened(to_layer(volume, volume.name or name_of(path), role=role), volume.notes)


def name_of(path: str) -> str:
    """Name what has no name of its own: a file without its suffix, a folder as it is called."""
    from spad.volumes.files import stem_of, suffix_of

    place = Path(path)
    if place.is_dir() and not suffix_of(place).endswith(".zarr"):
        return place.resolve().name
    return stem_of(place)


def file_filter() -> str:
    """Give the filter of a file dialog: all scans first, then each kind, then all files."""
    patterns = {name: _patterns(suffixes) for name, suffixes in SUFFIX_GROUPS}
    every = " ".join(dict.fromkeys(p for found in patterns.values() for p in found.split()))
    groups = ";;".join(f"{name} ({found})" for name, found in patterns.items())
    return f"Scans ({every});;{groups};;All files (*)"


def with_spacing(asked: SpacingWanted, spacing: tuple[float, ...] | None) -> Wanted:
    """Give what to read once a person has answered; None takes 1 mm."""
    return replace(asked.wanted, spacing=spacing, accept_notes=True)


def _patterns(suffixes: tuple[str, ...]) -> str:
    names = [f"*{one}" if one.startswith(".") else one for one in suffixes]
    # Qt minds the case of patterns where the file system does
    upper = [f"*{one.upper()}" for one in suffixes if one.startswith(".")]
    return " ".join([*names, *upper])


def _ask(wanted: Wanted, sentence: str, volume: Volume, *, can_skip: bool) -> SpacingWanted:
    shape = (*volume.source.shape, 1, 1, 1)
    order = ""
    if volume.source.format == "numpy":
        from spad.volumes.files.arrays import ORDER

        order = ORDER
    i, j, k = (int(n) for n in shape[:3])
    return SpacingWanted(wanted, sentence, (i, j, k), order, can_skip)


def _asks_for_spacing(sentence: str) -> bool:
    from spad.volumes.files.units import HOW_TO_STATE

    return HOW_TO_STATE in sentence


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / mark).is_file() for mark in _ZARR_MARKS)
