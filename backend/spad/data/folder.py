"""Folders of scans: which files are scans or labels, and which are kept for validation.

The known layout is `img<ID>.nii.gz` with `label<ID>.nii.gz`, `labels.json` ({"1": "spleen"}) and
`split.json` ({"train": [ID], "validation": [ID]}); any other folder gives its files as scans
without labels, those of its subfolders where it holds none itself. NRRD and MetaImage do as well.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from spad.data.store import Store, is_store, open_store
from spad.errors import SpadError
from spad.volumes.files import stem_of, suffix_of

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LABELS_WORD = re.compile(r"(labels?|masks?|seg(mentation)?s?|gt|annotations?)\d*", re.IGNORECASE)
_LABELS_FOLDER = re.compile(r"(labels?|masks?|seg(mentation)?s?)(tr|ts|val)?", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One scan of a folder.

    Attributes:
        name: folder and ID, such as "btcv/0001".
        image: the scan.
        labels: its labels on the same grid, or None.
        validation: whether it is kept out of training.
    """

    name: str
    image: Path
    labels: Path | None
    validation: bool


@dataclass(frozen=True)
class Folder:
    """The cases of one folder and the names of its labels (id -> name)."""

    path: Path
    cases: tuple[Case, ...]
    label_names: dict[int, str]


def read_source(path: str | Path, validation_share: float = 0.2) -> Folder | Store:
    """List the scans of a folder, or those of a store that `spad prepare` made.

    Args:
        path: the folder or the store.
        validation_share: as for `read_folder`; a store says itself who is kept.

    Raises:
        SpadError: as `read_folder` and `open_store`.
    """
    return open_store(path) if is_store(path) else read_folder(path, validation_share)


def read_folder(path: str | Path, validation_share: float = 0.2) -> Folder:
    """List a folder of scans.

    Args:
        path: the folder.
        validation_share: fraction kept for validation where no `split.json` says which; spread
            evenly over the names.

    Raises:
        SpadError: no such folder, no scans in it, or a JSON file that does not say what it should.
    """
    path = Path(path)
    if not path.is_dir():
        raise SpadError(
            f"{path} is no folder; expected one with scans, or a store; give such a folder to "
            "--data."
        )
    files = _scans_in(path)
    images = {_identifier(p): p for p in files if p.name.startswith("img")}
    labels = {_identifier(p): p for p in files if p.name.startswith("label")}
    if not images:
        files = files or [p for p in sorted(path.rglob("*")) if _is_scan(p)]
        images = {_relative(p, path): p for p in files if not is_labels_name(p.relative_to(path))}
        labels = {}
    if not images:
        raise SpadError(
            f"{path} holds no .nii, .nii.gz, .nrrd or .mha file; expected scans such as "
            "img0001.nii.gz; give another, or make a store of it with `spad prepare`."
        )
    kept = _validation(path, sorted(images), validation_share)
    cases = tuple(
        Case(f"{path.name}/{name}", image, labels.get(name), name in kept)
        for name, image in sorted(images.items())
    )
    return Folder(path, cases, label_names_of(path))


def is_labels_name(path: Path) -> bool:
    """Tell labels by a path below its data set: a folder `labels`, or a word such as "seg"."""
    words = re.split(r"[^A-Za-z0-9]+", stem_of(path))
    return any(map(_LABELS_FOLDER.fullmatch, path.parts[:-1])) or any(
        map(LABELS_WORD.fullmatch, words)
    )


def _scans_in(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if _is_scan(p))


def _is_scan(path: Path) -> bool:
    return suffix_of(path) in SUFFIXES and not path.name.startswith(".")


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_name(stem_of(path)).as_posix()


def _identifier(path: Path) -> str:
    return stem_of(path).removeprefix("img").removeprefix("label")


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpadError(
            f"{path} could not be read as JSON ({error}); correct or remove it."
        ) from error
    if not isinstance(content, dict):
        raise SpadError(f"{path} holds no JSON object; correct or remove it.")
    return content


def label_names_of(path: Path) -> dict[int, str]:
    """Read a folder's `labels.json` (id to name); empty where there is none.

    Raises:
        SpadError: it does not look as it should.
    """
    file = path / "labels.json"
    if not file.is_file():
        return {}
    try:
        return {int(key): str(value) for key, value in _json(file).items()}
    except ValueError as error:
        raise SpadError(
            f'{file} must look like {{"1": "spleen"}}; found a key that is no number ({error}).'
        ) from error


def stated_parts(path: Path) -> dict[str, str]:
    """Read a folder's `split.json`: ID to "validation"; "train" for those it names so.

    Returns:
        Empty where there is no such file; an ID that it does not name is for training.

    Raises:
        SpadError: it does not look as it should.
    """
    file = path / "split.json"
    if not file.is_file():
        return {}
    content = _json(file)
    stated, train = content.get("validation"), content.get("train", [])
    if not isinstance(stated, list) or not isinstance(train, list):
        raise SpadError(
            f'{file} has no list under "validation"; expected {{"train": [...], '
            f'"validation": [...]}}.'
        )
    return {str(n): "train" for n in train} | {str(n): "validation" for n in stated}


def _validation(path: Path, names: list[str], share: float) -> set[str]:
    if (path / "split.json").is_file():
        return {name for name, part in stated_parts(path).items() if part == "validation"}
    count = round(share * len(names)) if len(names) > 1 else 0
    return {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
