"""Data sets that a JSON file describes: nnU-Net raw, MONAI's datalists, Medical Decathlon.

Formats: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md (version 2,
and version 1, whose `labels` are id to name), https://docs.monai.io ("decathlon datalist").
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spad.data.cases import Case, Folder
from spad.data.sidecars import json_object, label_names_of
from spad.errors import SpadError
from spad.volumes.files import stem_of

FILE = "dataset.json"
IMAGES, LABELS = "imagesTr", "labelsTr"
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_IGNORED = "ignore"


def find(path: Path) -> Folder | None:
    """List the cases that a JSON file, or a folder's `dataset.json`, describes; None without one.

    Raises:
        SpadError: the file is not as it should be, or a scan or labels that it names is absent.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() != ".json":
        return None
    about = json_object(file)
    if isinstance(about.get("dataset"), dict):
        return _nnunet(path, file, about, _listed(file, about["dataset"]))
    if file.name == FILE and (groups := _numbered(file.parent / IMAGES, _ending(about))):
        return _nnunet(path, file, about, groups)
    return _datalist(path, file, about)


Images = dict[str, list[Path]]
"""The files of each case, in the order of the channels."""


def _ending(about: Mapping[str, Any]) -> str:
    return str(about.get("file_ending", ".nii.gz"))


def _numbered(folder: Path, ending: str) -> Images:
    """Group `<case>_0000`, `<case>_0001`, ... by their case."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob(f"*{ending}")) if folder.is_dir() else ():
        name = _CHANNEL.fullmatch(path.name[: len(path.name) - len(ending)])
        if name and not path.name.startswith("."):
            found[name[1]].append(path)
    return dict(found)


def _listed(file: Path, data_set: Mapping[str, Any]) -> Images:
    """Take the cases of the key `dataset`: {case: {"images": [...], "label": ...}}."""
    return {
        str(case): [_there(file, one) for one in _paths(file, entry, "images")]
        for case, entry in data_set.items()
    }


def _nnunet(path: Path, file: Path, about: Mapping[str, Any], images: Images) -> Folder:
    channels = _channels(about)
    for case, files in images.items():
        if channels and len(files) != len(channels):
            raise SpadError(
                f"The case {case} of {file} has {len(files)} channels ({files[0].name}, ...); "
                f"expected {len(channels)} ({', '.join(channels)}); add or remove files."
            )
    kept = _fold(file.parent)
    listed = about.get("dataset")
    cases = []
    for case, files in sorted(images.items()):
        if isinstance(listed, dict):
            labels = _there(file, str(listed[case].get("label", "")))
        else:
            labels = file.parent / LABELS / f"{case}{_ending(about)}"
        found = labels if labels.is_file() else None
        name = f"{file.parent.resolve().name}/{case}"
        cases.append(Case(name, tuple(files), found, case in kept, times_are_channels=True))
    if not isinstance(listed, dict):
        _check_labels(file.parent / LABELS, _ending(about), set(images))
    names = _names(about, file)
    return Folder(path, tuple(cases), names, channels, split_stated=bool(kept))


def _check_labels(folder: Path, ending: str, cases: set[str]) -> None:
    """Refuse labels whose scan is absent."""
    for path in sorted(folder.glob(f"*{ending}")) if folder.is_dir() else ():
        case = path.name[: len(path.name) - len(ending)]
        if case not in cases and not case.startswith("."):
            raise SpadError(
                f"{path} has no scan; expected {case}_0000{ending} in {IMAGES}; add it, or remove "
                "the labels."
            )


def _fold(folder: Path) -> set[str]:
    """List the cases of fold 0 that `splits_final.json` keeps for validation."""
    file = folder / "splits_final.json"
    if not file.is_file():
        return set()
    try:
        folds = json.loads(file.read_text(encoding="utf-8-sig"))
        return {str(case) for case in folds[0]["val"]}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise SpadError(
            f'{file} does not say who is kept for validation; expected [{{"train": [...], '
            f'"val": [...]}}, ...]; correct or remove it ({error}).'
        ) from error


def _datalist(path: Path, file: Path, about: Mapping[str, Any]) -> Folder:
    """Take the lists `training` and `validation`, or fold 0 of one list."""
    training, stated = about.get("training", about.get("train")), about.get("validation")
    if not isinstance(training, list) or not isinstance(stated, list | None):
        raise SpadError(
            f'{file} has no list under "training"; expected {{"training": [{{"image": ..., '
            f'"label": ...}}], ...}} or the dataset.json of an nnU-Net data set; correct it.'
        )
    folds = [isinstance(entry, dict) and entry.get("fold") == 0 for entry in training]
    by_fold = stated is None and any(folds) and not all(folds)
    entries = [(entry, by_fold and fold) for entry, fold in zip(training, folds, strict=True)]
    entries += [(entry, True) for entry in stated or ()]
    cases = [_entry(file, entry, validation) for entry, validation in entries]
    names = _names(about, file) or label_names_of(file.parent)
    cases = _unlike(cases, file.parent)
    return Folder(path, tuple(cases), names, _channels(about), bool(stated) or by_fold)


def _entry(file: Path, entry: Any, validation: bool) -> Case:
    images = tuple(_there(file, one) for one in _paths(file, entry, "image"))
    given = entry.get("label") if isinstance(entry, dict) else None
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    labels = _there(file, given) if isinstance(given, str) else None  # a number is of a whole scan
    name = re.sub(r"_0000$", "", stem_of(images[0]))
    name = f"{file.parent.resolve().name}/{name}"
    return Case(name, images, labels, validation, times_are_channels=True)


def _unlike(cases: Sequence[Case], folder: Path) -> list[Case]:
    """Name cases by their paths where file names alone are alike ("p1/ct", "p2/ct")."""
    if len({case.name for case in cases}) == len(cases):
        return list(cases)
    return [
        replace(case, name=f"{folder.resolve().name}/{_below(case.image, folder).as_posix()}")
        for case in cases
    ]


def _below(path: Path, folder: Path) -> Path:
    inside = path.relative_to(folder) if path.is_relative_to(folder) else Path(*path.parts[1:])
    return inside.with_name(stem_of(path))


def _paths(file: Path, entry: Any, key: str) -> list[str]:
    """Give the paths of an entry: a path, a list of paths, or such under a key."""
    value = entry.get(key) if isinstance(entry, dict) else entry
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise SpadError(
            f'{file} has an entry without a path under "{key}" ({str(entry)[:80]}); expected a '
            "path or a list of paths, one for each channel; correct it."
        )
    return paths


def _there(file: Path, name: str) -> Path:
    path = file.parent / name
    if not name or not path.exists():
        raise SpadError(
            f"{file} lists {name or 'no file'!r}, which is absent from {file.parent}; expected "
            "each listed file there; copy it, or correct the list."
        )
    return path


def _channels(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the names of the channels: {"0": "T1", ...} under `channel_names` or `modality`."""
    stated = about.get("channel_names", about.get("modality"))
    if not isinstance(stated, dict) or not all(str(key).isdigit() for key in stated):
        return ()
    return tuple(str(stated[key]) for key in sorted(stated, key=int))


def _names(about: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Read `labels`, {"liver": 1} or {"1": "liver"}, without the background.

    Raises:
        SpadError: labels are regions of several ids or are to be ignored, or are no names at all.
    """
    stated = about.get("labels") or {}
    pairs = stated.items() if isinstance(stated, dict) else enumerate(list(stated))
    names = {}
    for key, value in pairs:
        number, name = (key, value) if str(key).isdigit() else (value, key)
        if name == _IGNORED or isinstance(number, list) or isinstance(name, list):
            raise SpadError(
                f"{file} has the label {str(key)!r}, which stands for "
                f"{'voxels to be ignored' if name == _IGNORED else f'the ids {value}'}; expected "
                "one id for each name; give the labels such ids."
            )
        if not str(number).isdigit():
            raise SpadError(
                f"{file} has the label {str(key)!r} without an id ({value!r}); expected "
                f'{{"liver": 1}} or {{"1": "liver"}}; correct it.'
            )
        names[int(number)] = str(name)
    return {number: name for number, name in sorted(names.items()) if number != 0}
