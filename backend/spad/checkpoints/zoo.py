"""Named models: those that ship with the package, were imported, or were trained here."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spad.checkpoints.card import KINDS, Card
from spad.checkpoints.header import read_card
from spad.errors import SpadError

SUFFIX = ".safetensors"
MODEL_FILE = "model" + SUFFIX
"""The complete model file in each checkpoint of a run."""
_WEIGHTS = Path(__file__).parent / "weights"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Entry:
    """A model that can be used by name or path.

    Attributes:
        name: the file's stem, or for a run its folder's name.
        kind: the kind of its card.
        path: the safetensors file.
        origin: "shipped", "imported" or "trained".
        card: its card.
    """

    name: str
    kind: str
    path: Path
    origin: str
    card: Card

    def sha256(self) -> str:
        """Hash its file as it is now: 64 hex digits."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def spad_home() -> Path:
    """Give the folder for models and runs: the variable SPAD_HOME, else the user's data folder."""
    stated = os.environ.get("SPAD_HOME")
    if stated:
        return Path(stated).expanduser()
    from platformdirs import user_data_path

    return user_data_path("napari-spad", appauthor=False)


def make_folder(folder: Path) -> None:
    """Make a folder, where it is not there yet.

    Raises:
        SpadError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpadError(
            f"The folder {folder} cannot be made ({error.strerror or error}); choose a place that "
            "may be written (SPAD_HOME says where models and runs lie)."
        ) from error


def models() -> list[Entry]:
    """List the known models: shipped ones first, then by name; files that cannot be read are out.

    `find` says what is wrong with one of those.
    """
    entries = []
    for path in _files():
        try:
            entries.append(_entry(path, path.stem))
        except SpadError:
            continue
    return entries


def find(name_or_path: str | Path) -> Entry:
    """Find a model.

    Args:
        name_or_path: a name of the list; else a model file, or the folder of a training run,
            which stands for its best checkpoint (its last where none is marked best).

    Raises:
        SpadError: there is no such model, or its file cannot be used.
    """
    for path in _files():
        if path.stem == str(name_or_path):
            return _entry(path, path.stem)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _entry(_model_of_run(path), path.resolve().name)
    if path.is_file():
        return _entry(path, path.stem)
    known = ", ".join(entry.name for entry in models()) or "none"
    raise SpadError(
        f"There is no model called '{name_or_path}'; known models: {known}; use one of them, a "
        "model file or the folder of a training run."
    )


def default(kind: str, modality: str | None = None) -> Entry:
    """Choose the model to use when none is named.

    Shipped models go first, then those made for this very modality, then the first by name.

    Args:
        kind: a kind of `Card`.
        modality: "CT", "MR", ...; None if it is not known.

    Raises:
        SpadError: no model of that kind takes that modality.
    """
    of_kind = [entry for entry in models() if entry.kind == kind]
    fitting = [entry for entry in of_kind if entry.card.covers(modality)]
    if not fitting:
        known = ", ".join(f"{e.name} ({', '.join(sorted(e.card.intensity))})" for e in of_kind)
        scans = f" for {modality} scans" if modality else ""
        raise SpadError(
            f"There is no {kind if kind in KINDS else repr(kind)} model{scans}; known of that "
            f"kind: {known or 'none'}; name one, state another modality, or train or import one."
        )
    return min(
        fitting,
        key=lambda e: (e.origin != "shipped", (modality or "") not in e.card.intensity, e.name),
    )


def place_for(name: str) -> Path:
    """Give the path at which a new model of that name belongs, and make its folder.

    Raises:
        SpadError: the name is taken or cannot be a file's name, or the folder cannot be made.
    """
    if not _NAME.fullmatch(name):
        raise SpadError(
            f"{name!r} cannot be the name of a model; expected letters, digits, '-', '_' and '.', "
            "beginning with a letter or a digit."
        )
    taken = [path for path in _files() if path.stem.lower() == name.lower()]
    if taken:
        raise SpadError(
            f"There already is a model called '{taken[0].stem}' ({taken[0]}); choose another name."
        )
    folder = spad_home() / "models"
    make_folder(folder)
    return folder / (name + SUFFIX)


def install(path: str | Path, name: str) -> Entry:
    """Copy a model file into SPAD_HOME under a name.

    Args:
        path: a model file or the folder of a training run.
        name: a new name.

    Raises:
        SpadError: the file is no complete checkpoint, or the name cannot be used.
    """
    source = find(path) if Path(path).is_dir() else _entry(Path(path), Path(path).stem)
    target = place_for(name)
    _copy(source.path, target)
    return _entry(target, name)


def set_aside(name: str) -> Path:
    """Move an installed model to where no list shows it and `bring_back` finds it.

    Raises:
        SpadError: there is no such model, it ships with the package, or it cannot be moved.
    """
    entry = find(name)
    if entry.origin == "shipped":
        raise SpadError(f"'{name}' ships with the package and stays; choose an installed model.")
    return _move(entry.path, aside(name))


def bring_back(name: str) -> Entry:
    """Install a model again that was set aside.

    Raises:
        SpadError: none of that name was, the name is taken by now, or it cannot be moved.
    """
    return _entry(_move(aside(name), place_for(name)), name)


def aside(name: str) -> Path:
    """Give the file in which a model of that name is kept once it is set aside."""
    return spad_home() / "models" / "aside" / (name + SUFFIX)


def export(name: str | Path, path: str | Path) -> Path:
    """Copy a model to a file of one's own; a file that is there stays.

    Raises:
        SpadError: there is no such model, or the place is taken or cannot be written.
    """
    entry, target = find(name), Path(path)
    if target.is_dir():
        target = target / (entry.name + SUFFIX)
    if target.exists():
        raise SpadError(f"{target} is there already and stays as it is; choose another file name.")
    _copy(entry.path, target)
    return target


def _files() -> Iterator[Path]:
    seen = set()
    for folder in (_WEIGHTS, spad_home() / "models"):
        for path in sorted(folder.glob("*" + SUFFIX)):
            if path.stem not in seen:
                seen.add(path.stem)
                yield path


def _entry(path: Path, name: str) -> Entry:
    card = dataclasses.replace(read_card(path), name=name)
    if path.parent == _WEIGHTS:
        origin = "shipped"
    else:
        origin = "imported" if "importer" in card.provenance else "trained"
    return Entry(name, card.kind, path, origin, card)


def _model_of_run(run: Path) -> Path:
    folder = run / "checkpoints"
    for mark in ("best", "last"):
        try:
            step = (folder / mark).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        path = folder / Path(step).name / MODEL_FILE
        if path.is_file():
            return path
    raise SpadError(
        f"The folder {run} holds no finished checkpoint; expected the folder of a training run "
        "with 'checkpoints/last'; choose another one or train longer."
    )


def _move(source: Path, target: Path) -> Path:
    make_folder(target.parent)
    try:
        return source.replace(target)
    except OSError as error:
        raise SpadError(
            f"{source} cannot be moved to {target} ({error.strerror or error}); expected a model "
            "file and a folder that may be written; check that both are there."
        ) from error


def _copy(source: Path, target: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".spad-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            shutil.copyfile(source, part)
            part.replace(target)
    except OSError as error:
        raise SpadError(
            f"{target} cannot be written ({error.strerror or error}); "
            "expected a folder with free space that may be written: choose another place."
        ) from error
