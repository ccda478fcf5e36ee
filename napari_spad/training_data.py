"""Open layers as training data, without Qt: who is held out, and files that a run reads."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spad import jsonfile
from spad.checkpoints.zoo import make_folder, spad_home
from spad.volumes.intensity import modality_of_name
from spad.volumes.volume import Volume

_SHARE = 0.2
_LISTED = 5


@dataclass(frozen=True, eq=False)
class OpenCase:
    """An open scan to learn from.

    Attributes:
        name: what its layer is called.
        scan: the scan.
        labels: on its grid, or None.
        held_out: whether it is kept for judging the result.
    """

    name: str
    scan: Volume
    labels: Volume | None = None
    held_out: bool = False


def held_out(count: int) -> tuple[int, ...]:
    """Choose the scans to hold out, if nobody else does: one in five, at least one of two.

    Args:
        count: how many scans there are.

    Returns:
        Their places, spread evenly over the scans.
    """
    kept = max(1, round(_SHARE * count)) if count > 1 else 0
    return tuple((2 * number + 1) * count // (2 * kept) for number in range(kept))


def new_data_folder() -> Path:
    """Give a new folder for data from open layers."""
    return spad_home() / "data" / time.strftime("layers-%Y%m%d-%H%M%S")


def write_cases(cases: Sequence[OpenCase], folder: Path) -> tuple[Path, ...]:
    """Write open scans, with their labels, as folders to train from.

    Labels are numbered anew where one number has two names, since equal names are one label.
    Scans whose layers name other labels lie in folders of their own: what a layer does not name,
    nobody has looked for there.

    Args:
        cases: what to learn from.
        folder: a folder, made if it is not there.

    Returns:
        The folders: `img<ID>.nii.gz`, `label<ID>.nii.gz`, `labels.json`, `split.json`.

    Raises:
        SpadError: a folder cannot be made or a file in it cannot be written.
    """
    names = _names_of_all(cases)
    numbers = _numbered(names)
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, own in enumerate(names):
        groups.setdefault(tuple(sorted(set(own.values()))), []).append(place)
    folders = []
    for number, (known, members) in enumerate(groups.items(), start=1):
        part = folder if len(groups) == 1 else folder / f"part{number}"
        make_folder(part)
        ids = {place: _file_id(place + 1, cases[place]) for place in members}
        kept = [ids[place] for place in members if cases[place].held_out]
        learnt = [ids[place] for place in members if not cases[place].held_out]
        jsonfile.write(part / "split.json", {"train": learnt, "validation": kept})
        if known:
            named = sorted((numbers[name], name) for name in known)
            jsonfile.write(part / "labels.json", {str(label): name for label, name in named})
        for place in members:
            _write_case(cases[place], part, ids[place], names[place], numbers)
        folders.append(part)
    return tuple(folders)


def listed(names: Sequence[str], what: str) -> str:
    """Write names as people do: "a, b and c", or how many of what there are if that is long."""
    if len(names) > _LISTED:
        return f"{len(names)} {what}"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _names_of_all(cases: Sequence[OpenCase]) -> list[dict[int, str]]:
    """Give the labels of each case, id to name; labels without any name are alike in all cases."""
    found = [_drawn(case) for case in cases]
    nameless = {
        label: f"label_{label}"
        for case, drawn in zip(cases, found, strict=True)
        if case.labels is not None and not case.labels.label_names
        for label in drawn
    }
    names: list[dict[int, str]] = []
    for case, drawn in zip(cases, found, strict=True):
        own = {} if case.labels is None else dict(case.labels.label_names or nameless)
        names.append({label: f"label_{label}" for label in drawn} | own)
    return names


def _drawn(case: OpenCase) -> list[int]:
    if case.labels is None:
        return []
    return [label for label in np.unique(case.labels.array).tolist() if label > 0]


def _numbered(names: Sequence[Mapping[int, str]]) -> dict[str, int]:
    """Give each name one number: the one that it has first, or the next that is free."""
    numbers: dict[str, int] = {}
    late: list[str] = []
    for own in names:
        for label, name in own.items():
            if name in numbers or name in late:
                continue
            if label in numbers.values():
                late.append(name)
            else:
                numbers[name] = label
    for name in late:
        numbers[name] = max(numbers.values()) + 1
    return numbers


def _file_id(number: int, case: OpenCase) -> str:
    """Name a scan's file after its layer, where that says nothing else about what it holds."""
    from spad.volumes.files.labels import named_as_labels

    modality = f"_{case.scan.modality.lower()}" if case.scan.modality else ""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", case.name).strip("_")
    named = f"{number:04d}{modality}_{plain}"
    file = Path(f"img{named}.nii.gz")
    clear = modality_of_name(file.name) == case.scan.modality and not named_as_labels(file)
    return named if plain and clear else f"{number:04d}{modality}"


def _write_case(
    case: OpenCase, folder: Path, name: str, own: Mapping[int, str], numbers: Mapping[str, int]
) -> None:
    from spad.volumes.files import write

    write(case.scan, folder / f"img{name}.nii.gz")
    if case.labels is None:
        return
    array = np.zeros(case.labels.array.shape, np.min_scalar_type(max(numbers.values(), default=0)))
    for label, called in own.items():
        array[case.labels.array == label] = numbers[called]
    named = {numbers[called]: called for called in own.values()}
    labels = case.labels.with_array(array, label_names=named)
    write(labels, folder / f"label{name}.nii.gz")
    # the folder's labels.json says the names; one file is enough
    (folder / f"label{name}.labels.json").unlink(missing_ok=True)
