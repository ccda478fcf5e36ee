"""Which scans a folder tree or a manifest holds, with their data sets, patients and labels.

A tree is one data set, or one per folder of its first level. `img<ID>` and `label<ID>`, folders
`images` and `labels`, and `scan` with `scan_seg` are known as pairs; `labels.json` and `split.json`
of a data set are read as in `spad.data.folder`. DICOM folders and OME-Zarr images are scans as a
whole.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spad.data.folder import LABELS_WORD, is_labels_name, label_names_of, stated_parts
from spad.data.known_sets import UNKNOWN, KnownSet, known_set
from spad.errors import SpadError
from spad.volumes.files import catalog, readable, stem_of, suffix_of

COLUMNS = ("image", "labels", "data_set", "patient", "modality", "orientation", "weight", "part")
"""Of a manifest; only `image` must be there."""

PARTS = ("train", "validation")
_ZARR = (".zgroup", ".zarray", ".zattrs", "zarr.json")
_SET_FILES = ("labels.json", "split.json", "dataset.json")
_ROLE = re.compile(
    r"(images?|imgs?|labels?|masks?|seg(mentation)?s?|scans?|data)(tr|ts|val)?", re.IGNORECASE
)


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
    """Find the scans of a folder tree or a manifest.

    Args:
        source: a folder, or a CSV file with the columns `COLUMNS`.
        data_set: take the whole tree as this data set (one of the known ones or any name).

    Raises:
        SpadError: there is no such place, nothing in it can be read, or the manifest is wrong.
    """
    source = Path(source)
    if source.is_dir():
        found = _of_tree(source, data_set)
    elif source.is_file() and source.suffix.lower() == ".csv":
        found = _of_manifest(source, data_set)
    else:
        raise SpadError(
            f"{source} is neither a folder nor a manifest; expected a folder with scans, or a CSV "
            f"file with the columns {', '.join(COLUMNS)}; name one."
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
    files, left_out = _walk(root, root_name)
    single = data_set is not None or _is_one_set(root, files)
    by_set: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_set[root_name if single else file.parts[0]].append(file)
    scans: list[Scan] = []
    data_sets = {}
    for name, members in sorted(by_set.items()):
        folder = root if single else root / name
        one = _data_set(name, label_names_of(folder))
        data_sets[one.name] = one
        scans += _scans_of(one, folder, members, 0 if single else 1)
    if not single:
        left_out = [replace(o, data_set=_plain(o.source.split("/")[0])) for o in left_out]
    return Collection(tuple(sorted(scans, key=lambda s: s.key)), data_sets, tuple(left_out))


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
    if any((root / name).is_file() for name in _SET_FILES) or all(map(_ROLE.fullmatch, tops)):
        return True
    return _of_patients(root, scans)


def _of_patients(root: Path, scans: Iterable[_File], skip: int = 0) -> bool:
    """Tell whether folders are patients: most hold files of the same names, or all hold DICOM."""
    names: dict[str, set[str]] = defaultdict(set)
    dicom = True
    for scan in scans:
        parts = scan.parts[skip:]
        dicom &= scan.series is not None
        names[parts[0]].add("/".join(parts[1:]).replace(parts[0], "*"))
    if len(names) < 2 or any((root / f / s).is_file() for f in names for s in _SET_FILES):
        return False
    shared = Counter(name for inside in names.values() for name in inside)
    alike = sum(any(shared[name] > 1 for name in inside) for inside in names.values())
    return dicom or alike > len(names) / 2


def _scans_of(data_set: DataSet, folder: Path, files: Sequence[_File], skip: int) -> Iterator[Scan]:
    """Give the scans of one data set with their names, patients, labels and parts."""
    images = [file for file in files if not file.is_labels]
    labels = {_base(f, skip): f.path for f in files if f.is_labels and data_set.label_names}
    parts = stated_parts(folder)
    inside = [replace(f, parts=_without_roles(f.parts[skip:])) for f in images]
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
            labels=labels.get(_base(file, skip)),
            part=parts.get(name, "train") if parts else None,
            modality=None if known.modality == UNKNOWN else known.modality,
            orientation=None if known.orientation == UNKNOWN else known.orientation,
            weight=known.weight,
        )


def _without_roles(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (*(part for part in parts[:-1] if not _ROLE.fullmatch(part)), *parts[-1:])


def _name(file: _File) -> str:
    """Name a scan by its path without suffix and `img`; "0001" for "img0001.nii.gz"."""
    if file.whole:
        return _plain("-".join(file.parts))
    stem = re.sub(r"^img(?=\d)", "", stem_of(file.path))
    return _plain("-".join((*file.parts[:-1], stem)))


def _base(file: _File, skip: int) -> tuple[str, ...]:
    """Give what a scan and its labels have in common: folders and words that tell neither."""
    *folders, _ = _without_roles(file.parts[skip:])
    stem = re.sub(r"^(img|label)(?=\d)|_0000$", "", stem_of(file.path))
    words = [
        word
        for word in re.split(r"[^A-Za-z0-9]+", stem)
        if not LABELS_WORD.fullmatch(word) and word.lower() not in ("image", "img")
    ]
    return (*folders, *words)


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
