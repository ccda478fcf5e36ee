"""Which labels belong to which scan, told by the names of files and folders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from spad.volumes.files import stem_of, suffix_of

LABELS_WORD = re.compile(r"(labels?|masks?|seg(mentation)?s?|gt|annotations?)\d*", re.IGNORECASE)
_PART = r"(?P<part>((averaged|avg)-)?(train|test|val)(ing|idation)?[-_])?"
_END = r"(?P<end>tr|ts|val)?"
_LABELS_FOLDER = re.compile(_PART + r"(labels?|masks?|seg(mentation)?s?)" + _END, re.IGNORECASE)
_ROLE = re.compile(
    _PART + r"(images?|imgs?|labels?|masks?|seg(mentation)?s?|scans?|data)" + _END, re.IGNORECASE
)


def is_labels_name(path: Path) -> bool:
    """Tell labels by a path below its data set: a folder `labels`, a word "seg", a .seg.nrrd."""
    if suffix_of(path).startswith(".seg."):
        return True
    words = re.split(r"[^A-Za-z0-9]+", stem_of(path))
    return any(map(_LABELS_FOLDER.fullmatch, path.parts[:-1])) or any(
        map(LABELS_WORD.fullmatch, words)
    )


def is_role(folder: str) -> bool:
    """Tell whether a folder's name says what lies in it (`images`, `labelsTr`), not whose it is."""
    return _ROLE.fullmatch(folder) is not None


def without_roles(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out of a path the folders that say what lies in them."""
    return (*(part for part in parts[:-1] if not is_role(part)), *parts[-1:])


def in_patients(paths: Iterable[tuple[str, ...]]) -> bool:
    """Tell whether first folders are patients: most of several hold files of the same names.

    Args:
        paths: each with at least one folder; its name within others counts for nothing.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for parts in paths:
        names[parts[0]].add("/".join(parts[1:]).replace(parts[0], "*"))
    shared = Counter(name for inside in names.values() for name in inside)
    alike = sum(any(shared[name] > 1 for name in inside) for inside in names.values())
    return len(names) > 1 and alike > len(names) / 2


def pair_key(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Give what a scan and its labels have in common: folders and words that tell neither.

    Args:
        parts: the path of either below its data set.
    """
    folders = []
    for folder in parts[:-1]:
        role = _ROLE.fullmatch(folder)
        if role is None:
            folders.append(folder)
        elif part := (role["part"] or "").strip("-_").lower() + (role["end"] or "").lower():
            folders.append(part)  # labelsTr go with imagesTr, not with imagesTs
    stem = re.sub(r"^(img|image|label|mask|seg)s?(?=\d)|_0000$", "", stem_of(parts[-1]))
    words = [
        word
        for word in re.split(r"[^A-Za-z0-9]+", stem)
        if not LABELS_WORD.fullmatch(word) and word.lower() not in ("image", "img")
    ]
    return (*folders, *words)
