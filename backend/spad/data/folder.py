"""Folders of scans: which files are scans or labels, and which are kept for validation.

The known layout is `img<ID>.nii.gz` with `label<ID>.nii.gz`, `labels.json` ({"1": "spleen"}) and
`split.json` ({"train": [ID], "validation": [ID]}); any other folder gives all its NIfTI files as
scans without labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from spad.errors import SpadError

SUFFIXES = (".nii.gz", ".nii")


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
            f"{path} is no folder; expected one with NIfTI scans; give such a folder to --data."
        )
    files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES))
    images = {_identifier(p): p for p in files if p.name.startswith("img")}
    labels = {_identifier(p): p for p in files if p.name.startswith("label")}
    if not images:
        images = {_stem(p): p for p in files}
        labels = {}
    if not images:
        raise SpadError(
            f"{path} holds no .nii or .nii.gz file; expected scans such as img0001.nii.gz; give "
            f"another."
        )
    kept = _validation(path, sorted(images), validation_share)
    cases = tuple(
        Case(f"{path.name}/{name}", image, labels.get(name), name in kept)
        for name, image in sorted(images.items())
    )
    return Folder(path, cases, _label_names(path))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _identifier(path: Path) -> str:
    return _stem(path).removeprefix("img").removeprefix("label")


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


def _label_names(path: Path) -> dict[int, str]:
    file = path / "labels.json"
    if not file.is_file():
        return {}
    try:
        return {int(key): str(value) for key, value in _json(file).items()}
    except ValueError as error:
        raise SpadError(
            f'{file} must look like {{"1": "spleen"}}; found a key that is no number ({error}).'
        ) from error


def _validation(path: Path, names: list[str], share: float) -> set[str]:
    file = path / "split.json"
    if file.is_file():
        stated = _json(file).get("validation")
        if not isinstance(stated, list):
            raise SpadError(
                f'{file} has no list under "validation"; expected {{"train": [...], '
                f'"validation": [...]}}.'
            )
        return {str(name) for name in stated}
    count = round(share * len(names)) if len(names) > 1 else 0
    return {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
