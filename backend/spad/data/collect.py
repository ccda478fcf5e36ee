"""Which scans a folder tree, a manifest or a datalist holds: data sets, patients and labels.

A tree is one data set, or one per folder of its first level. `img<ID>` and `label<ID>`, folders
`images` and `labels`, and `scan` with `scan_seg` are known as pairs; `labels.json` and `split.json`
of a data set are read as in `spad.data.folder`, and so are CHAOS, BTCV, `dataset.json` and JSON
datalists. DICOM folders and OME-Zarr images are scans as a whole; each channel is a scan.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spad.data import layouts_chaos, layouts_lists
from spad.data.cases import Case, Folder
from spad.data.known_sets import UNKNOWN, KnownSet, known_set
from spad.data.layouts import names_by_layout
from spad.data.pairs import in_patients, is_labels_name, is_role, pair_key, without_roles
from spad.data.sidecars import label_names_of, stated_parts
from spad.errors import SpadError
from spad.volumes.files import catalog, readable, stem_of, suffix_of

COLUMNS = ("image", "labels", "data_set", "patient", "modality", "orientation", "weight", "part")
"""Of a manifest; only `image` must be there."""

PARTS = ("train", "validation")
_ZARR = (".zgroup", ".zarray", ".zattrs", "zarr.json")
_SET_FILES = ("labels.json", "split.json", "dataset.json")


@dataclass(frozen=True)
class Scan:
    """A scan that can go into a store.

    Attributes:
        data_set: its data set.
        name: its name, unlike any other of the data set; fit for a folder's name.
        path: the file or folder that `read` takes.
        source: the same as a person knows it, relative to the tree or manifest.
        patient: whose it is; scans of one patient are never on both sides of a split.
        series: DICOM series, where the folder holds them.
        labels: the file with its labels, or None.
        part: "train" or "validation" where that is stated, else None.
        modality: stated modality, or None.
        orientation: stated axes from depth to width (such as "SAR"), or None.
        weight: how often it is drawn.
    """

    data_set: str
    name: str
    path: Path
    source: str
    patient: str
    series: str | None = None
    labels: Path | None = None
    part: str | None = None
    modality: str | None = None
    orientation: str | None = None
    weight: float = 1.0

    @property
    def key(self) -> str:
        """Data set and name: what it is called in the store."""
        return f"{self.data_set}/{self.name}"


@dataclass(frozen=True)
class LeftOut:
    """Something that does not go into the store, and the sentence that says why."""

    data_set: str
    source: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """A data set of a tree.

    Attributes:
        name: folder, or as stated.
        known: what the table of known data sets says, if it is one of them.
        label_names: id to name, from `labels.json`; empty without.
        licence: its terms, or "unknown".
    """

    name: str
    known: KnownSet | None = None
    label_names: dict[int, str] = field(default_factory=dict)
    licence: str = UNKNOWN


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        scans: in the order of their keys.
        data_sets: by name.
        left_out: what could not even be listed.
    """

    scans: tuple[Scan, ...]
    data_sets: dict[str, DataSet]
    left_out: tuple[LeftOut, ...]


def collect(source: str | Path, data_set: str | None = None) -> Collection:
    """Find the scans of a folder tree, a manifest or a datalist.

    Args:
        source: a folder, a CSV file with the columns `COLUMNS`, or a JSON datalist.
        data_set: take the whole tree as this data set (one of the known ones or any name).

    Raises:
        SpadError: there is no such place, nothing in it can be read, or the manifest is wrong.
    """
    source = Path(source)
    if source.is_dir():
        found = _of_tree(source, data_set)
    elif source.is_file() and source.suffix.lower() == ".csv":
        found = _of_manifest(source, data_set)
    elif source.is_file() and (listed := layouts_lists.find(source)) is not None:
        found = _of_layout(listed, source.parent, data_set or source.resolve().parent.name)
    else:
        raise SpadError(
            f"{source} is neither a folder nor a manifest; expected a folder with scans, a JSON "
            f"datalist, or a CSV file with the columns {', '.join(COLUMNS)}; name one."
        )
    if not found.scans:
        reason = found.left_out[0].reason if found.left_out else "it holds no readable file"
        raise SpadError(f"{source} holds no scan ({reason}); expected at least one; name another.")
    return found


@dataclass(frozen=True)
class _File:
    """A scan or labels of a tree: `parts` is its path below the tree, `whole` for a folder."""

    path: Path
    parts: tuple[str, ...]
    series: str | None = None
    whole: bool = False

    @property
    def source(self) -> str:
        return "/".join(self.parts) + (f" ({self.series})" if self.series else "")

    @property
    def is_labels(self) -> bool:
        return not self.whole and is_labels_name(Path(*self.parts))


def _of_tree(root: Path, data_set: str | None) -> Collection:
    root_name = data_set or root.resolve().name
    chaos = layouts_chaos.find(root)
    if chaos is not None:
        return _of_layout(chaos, root, root_name)
    files, left_out = _walk(root, root_name)
    single = data_set is not None or _is_one_set(root, files)
    by_set: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_set[root_name if single else file.parts[0]].append(file)
    scans: list[Scan] = []
    data_sets = {}
    for name, members in sorted(by_set.items()):
        folder = root if single else root / name
        skip = 0 if single else 1
        try:
            listed = layouts_lists.find(folder)
        except SpadError as error:  # a dataset.json of another kind, or of files that are gone
            left_out.append(LeftOut(name, f"{name}/{layouts_lists.FILE}", str(error)))
            listed = None
        drawn = [Path(*file.parts[skip:]) for file in members if file.is_labels]
        names = label_names_of(folder) or (listed.stated_names if listed else {})
        one = _data_set(name, names or names_by_layout(drawn))
        data_sets[one.name] = one
        scans += _stated(_scans_of(one, folder, members, skip), listed)
    if not single:
        left_out = [replace(o, data_set=_plain(o.source.split("/")[0])) for o in left_out]
    return Collection(tuple(sorted(scans, key=lambda s: s.key)), data_sets, tuple(left_out))


def _stated(scans: Iterable[Scan], listed: Folder | None) -> Iterator[Scan]:
    """Take labels and part of the scans that a `dataset.json` lists from there."""
    cases = {path: case for case in (listed.cases if listed else ()) for path in case.images}
    for scan in scans:
        case = cases.get(scan.path)
        if case is None or listed is None:
            yield scan
        else:
            part = _part(case) if listed.split_stated else scan.part
            yield replace(scan, labels=case.labels, part=part)


def _part(case: Case) -> str:
    return "validation" if case.validation else "train"


def _of_layout(folder: Folder, root: Path, name: str) -> Collection:
    """Make scans of a layout's cases, one for each channel.

    Cases whose annotators drew other labels than the folder's make a data set of their own.
    """
    scans: list[Scan] = []
    data_sets = {}
    for case in folder.cases:
        names = folder.stated_names if case.label_names is None else case.label_names
        set_name = name if names == folder.stated_names else f"{name}-{'-'.join(names.values())}"
        one = _data_set(set_name, names)
        data_sets[one.name] = one
        for number, path in enumerate(case.images):
            own = case.name.partition("/")[2] + (f"-{number}" if len(case.images) > 1 else "")
            inside = path.relative_to(root) if path.is_relative_to(root) else path
            scans.append(
                Scan(
                    *(one.name, _plain(own.replace("/", "-")), path, inside.as_posix()),
                    patient=_plain((case.patient or case.name).partition("/")[2]),
                    labels=case.labels if names else None,
                    part=_part(case) if folder.split_stated else None,
                )
            )
    return Collection(tuple(sorted(scans, key=lambda s: s.key)), data_sets, ())


def _data_set(name: str, label_names: dict[int, str]) -> DataSet:
    known = known_set(name)
    return DataSet(_plain(name), known, label_names, known.licence if known else UNKNOWN)


def _walk(root: Path, name: str) -> tuple[list[_File], list[LeftOut]]:
    """List every scan and labels file below a folder, in the order of their paths."""
    files: list[_File] = []
    left_out: list[LeftOut] = []
    for place, folders, names in os.walk(root):
        folder = Path(place)
        parts = folder.relative_to(root).parts
        if folder != root and any(marker in names for marker in _ZARR):
            files.append(_File(folder, parts, whole=True))
            folders.clear()
            continue
        if {"store.json", "table.csv"} <= set(names):  # a store of ours
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        paths = [folder / n for n in sorted(names) if not n.startswith(".")]
        files += [_File(p, (*parts, p.name)) for p in paths if _is_scan_file(p, names)]
        if any(_is_dicom(path) for path in paths):
            try:
                series = [one for one in catalog(folder) if one.kind == "image"]
            except SpadError as error:
                left_out.append(LeftOut(name, "/".join(parts) or ".", str(error)))
                series = []
            files += [_File(folder, parts or (name,), one.uid, whole=True) for one in series]
            folders.clear()
    return files, left_out


def _is_scan_file(path: Path, beside: Sequence[str]) -> bool:
    suffix = suffix_of(path)
    if suffix.startswith(".img"):  # the voxels of a header that is listed itself
        return not any(f"{stem_of(path)}{header}" in beside for header in (".hdr", ".hdr.gz"))
    return readable(path) and suffix not in (".dcm", ".dicom", ".ima")


def _is_dicom(path: Path) -> bool:
    if readable(path) and suffix_of(path) not in (".dcm", ".dicom", ".ima"):
        return False
    from spad.volumes.files.dicom.discovery import starts_as_dicom

    return path.name.upper() != "DICOMDIR" and starts_as_dicom(path)


def _is_one_set(root: Path, files: Sequence[_File]) -> bool:
    """Tell whether a tree is one data set: scans lie in it, or in folders of patients or roles."""
    scans = [file for file in files if not file.is_labels]
    tops = {file.parts[0] for file in scans if len(file.parts) > 1}
    if any(len(file.parts) == 1 and not (file.whole and file.series) for file in scans):
        return True
    if any((root / name).is_file() for name in _SET_FILES) or all(map(is_role, tops)):
        return True
    return _of_patients(root, scans)


def _of_patients(root: Path, scans: Iterable[_File], skip: int = 0) -> bool:
    """Tell whether folders are patients: most hold files of the same names, or all hold DICOM."""
    scans = list(scans)
    folders = {scan.parts[skip] for scan in scans}
    if len(folders) < 2 or any((root / f / s).is_file() for f in folders for s in _SET_FILES):
        return False
    dicom = all(scan.series is not None for scan in scans)
    return dicom or in_patients(scan.parts[skip:] for scan in scans)


def _scans_of(data_set: DataSet, folder: Path, files: Sequence[_File], skip: int) -> Iterator[Scan]:
    """Give the scans of one data set with their names, patients, labels and parts."""
    images = [file for file in files if not file.is_labels]
    named = [file for file in files if file.is_labels and data_set.label_names]
    labels = {pair_key(file.parts[skip:]): file.path for file in named}
    parts = stated_parts(folder)
    inside = [replace(f, parts=without_roles(f.parts[skip:])) for f in images]
    deep = [f for f in inside if len(f.parts) > 1]
    patients = len(deep) == len(inside) > 0 and _of_patients(folder, deep)
    taken = Counter(_name(file) for file in inside)
    for file, short in zip(images, inside, strict=True):
        name = _name(short)
        if taken[name] > 1:
            name = _plain("-".join((*file.parts[skip:], file.series or "")).strip("-"))
        known = data_set.known or KnownSet(data_set.name)
        yield Scan(
            *(data_set.name, name, file.path, file.source),
            patient=short.parts[0] if patients else name,
            series=file.series,
            labels=labels.get(pair_key(file.parts[skip:])),
            part=parts.get(name, "train") if parts else None,
            modality=None if known.modality == UNKNOWN else known.modality,
            orientation=None if known.orientation == UNKNOWN else known.orientation,
            weight=known.weight,
        )


def _name(file: _File) -> str:
    """Name a scan by its path without suffix and `img`; "0001" for "img0001.nii.gz"."""
    if file.whole:
        return _plain("-".join(file.parts))
    stem = re.sub(r"^img(?=\d)", "", stem_of(file.path))
    return _plain("-".join((*file.parts[:-1], stem)))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def _of_manifest(path: Path, data_set: str | None) -> Collection:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpadError(f"{path} cannot be read as CSV ({error}); correct it.") from error
    unknown = sorted(set(reader.fieldnames or ()) - set(COLUMNS))
    if unknown or "image" not in (reader.fieldnames or ()):
        raise SpadError(
            f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}; expected "
            f"image and any of {', '.join(COLUMNS[1:])}; correct its first line."
        )
    names = label_names_of(path.parent)
    scans = [_of_line(path, n, row, data_set) for n, row in enumerate(rows, 2)]
    if len({scan.key for scan in scans}) < len(scans):
        scans = [replace(s, name=_plain(s.source)) for s in scans]
    data_sets = {name: _data_set(name, names) for name in sorted({s.data_set for s in scans})}
    return Collection(tuple(sorted(scans, key=lambda s: s.key)), data_sets, ())


def _of_line(path: Path, line: int, row: dict[str, str | None], data_set: str | None) -> Scan:
    given = {key: (value or "").strip() for key, value in row.items() if key in COLUMNS}
    image = given.get("image", "")
    part, orientation = given.get("part") or None, given.get("orientation") or None
    problem = None
    try:
        weight = float(given.get("weight") or 1)
    except ValueError:
        weight = -1
    if not image:
        problem = "no image"
    elif part not in (None, *PARTS):
        problem = f"the part {part!r}, where {' or '.join(PARTS)} is expected"
    elif orientation and sorted(orientation) != ["A", "R", "S"]:
        problem = f"the orientation {orientation!r}, where an order of S, A and R is expected"
    elif not 0 < weight < float("inf"):
        problem = f"the weight {given['weight']!r}, where a positive number is expected"
    if problem:
        raise SpadError(f"Line {line} of {path} has {problem}; correct it.")
    file = path.parent / image
    name = _plain(re.sub(r"^img(?=\d)", "", stem_of(file)))
    set_name = data_set or given.get("data_set") or path.stem
    known = known_set(set_name) or KnownSet(set_name)
    stated = None if known.modality == UNKNOWN else known.modality
    fixed = None if known.orientation == UNKNOWN else known.orientation
    return Scan(
        *(_plain(set_name), name, file, image),
        patient=given.get("patient") or name,
        labels=path.parent / given["labels"] if given.get("labels") else None,
        part=part,
        modality=given.get("modality") or stated,
        orientation=orientation or fixed,
        weight=weight * known.weight,
    )
