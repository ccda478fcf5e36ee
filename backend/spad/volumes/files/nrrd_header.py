"""The text header of NRRD: its fields, what each axis is, and where the voxels lie in the body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.headers import (
    check_lengths,
    lengths_in_mm,
    numbers,
    read_text,
    sizes_of,
    third_axis,
    whole,
)
from spad.volumes.files.units import time_step

PER_AXIS = (
    *("sizes", "spacings", "thicknesses", "axis mins", "axis maxs", "centerings", "kinds"),
    *("labels", "units", "space directions"),
)
_FIELDS = {
    *PER_AXIS,
    *("dimension", "type", "block size", "encoding", "endian", "content", "old min", "old max"),
    *("min", "max", "data file", "line skip", "byte skip", "number", "sample units"),
    *("space", "space dimension", "space units", "space origin", "measurement frame"),
}
_ALIASES = {name.replace(" ", ""): name for name in _FIELDS} | {"centers": "centerings"}
_CHANNELS = {
    *("vector", "covariant-vector", "normal", "point", "rgb-color", "hsv-color", "xyz-color"),
    *("rgba-color", "2-vector", "3-color", "3-vector", "3-gradient", "3-normal", "4-color"),
    *("4-vector", "quaternion", "2d-symmetric-matrix", "2d-masked-symmetric-matrix"),
    *("2d-matrix", "2d-masked-matrix", "3d-symmetric-matrix", "3d-masked-symmetric-matrix"),
    *("3d-matrix", "3d-masked-matrix"),
}
COLOURS = {"rgb-color": 3, "rgba-color": 4, "3-color": 3, "4-color": 4}
_SPACE = {"domain", "space"}
_FRAMES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
_LPS = _FRAMES["lps"]
_WITH_TIME = {"lpst": "lps", "rast": "ras", "last": "las"}
_OTHER_FRAMES = ("scanner-xyz", "3d-right-handed", "3d-left-handed")
_LONGEST = 1 << 14


@dataclass(frozen=True)
class NrrdHeader:
    """A header as it stands in the file.

    Attributes:
        fields: NRRD's own fields, in order, by their names in lower case; the text as it stands.
        pairs: key/value pairs, in order; escapes resolved.
        roles: one letter per axis of the file: "i", "j", "k" (space), "t", "c", "-" for an axis
            of one voxel that says nothing, "l" for layers of segments.
    """

    fields: dict[str, str]
    pairs: dict[str, str]
    roles: str = ""


@dataclass(frozen=True)
class Layout:
    """What the axes of a file are.

    Attributes:
        sizes: voxels along each axis of the file.
        roles: as in `NrrdHeader`; "k" is absent from a flat image.
        kinds: the kind of each axis in lower case, "" where none is stated.
        affine: (4, 4), (i, j, k) to RAS+ mm.
        time_step: step of the time axis and its unit, or None.
        plain: whether other readers take this geometry for the same.
        notes: sentences for a person.
    """

    sizes: tuple[int, ...]
    roles: str
    kinds: tuple[str, ...]
    affine: np.ndarray
    time_step: tuple[float, str] | None
    plain: bool
    notes: tuple[str, ...]


def parse(path: Path) -> tuple[NrrdHeader, int, list[str]]:
    """Read the header of a file.

    Args:
        path: a .nrrd or .nhdr file.

    Returns:
        The header (roles still empty), the byte after it, and the names of data files that a
        `data file: LIST` gives.

    Raises:
        SpadError: it is no NRRD header.
    """
    text, length = read_text(path, rb"\r?\n\r?\n|\A(?!NRRD)")
    # not splitlines, which also breaks at characters that texts may hold, such as Latin-1's 0x85
    lines = text.split("\n")
    magic = lines[0].strip() if lines else ""
    if magic not in ("NRRD00.01", *(f"NRRD000{version}" for version in range(1, 6))):
        raise SpadError(
            f"{path} is not an NRRD file (it starts with {magic[:12]!r}); expected NRRD0001 to "
            "NRRD0005; check that it is the right file and complete."
        )
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    names: list[str] = []
    for line in lines[1:]:
        line = line.rstrip()
        if not line:
            break
        if line.startswith("#"):
            continue
        if fields.get("data file", "").upper().split()[:1] == ["LIST"]:
            names.append(line.strip())
        else:
            _take(line, fields, pairs, path)
    missing = [name for name in ("dimension", "type", "sizes", "encoding") if name not in fields]
    if missing:
        raise SpadError(
            f"{path} lacks the field {missing[0]!r} in its NRRD header; expected dimension, type, "
            "sizes and encoding; export the scan again."
        )
    return NrrdHeader(fields, pairs), length, names


def _take(line: str, fields: dict[str, str], pairs: dict[str, str], path: Path) -> None:
    """Sort one line: a field ("name: value") or a key/value pair ("key:=value")."""
    name, colon, value = line.partition(":")
    name = name.strip().lower()
    name = _ALIASES.get(name.replace(" ", ""), name)
    if colon and name in _FIELDS and not value.startswith("="):
        if name in fields:
            raise SpadError(
                f"{path} gives the field {name!r} twice in its NRRD header; expected it once; "
                "correct the header."
            )
        if len(value) > _LONGEST:
            raise SpadError(
                f"{path} has a field {name!r} of {len(value)} characters; expected a header that "
                "describes a scan; check that it is the right file."
            )
        fields[name] = " ".join(value.split())
        return
    key, mark, value = line.partition(":=")
    if not mark:
        raise SpadError(
            f"{path} has a line in its header that NRRD does not know ({line[:60]!r}); expected "
            "'field: value' or 'key:=value'; export the scan again."
        )
    pairs[key.strip()] = unescaped(value.strip())


def unescaped(text: str) -> str:
    r"""Resolve the escapes of a key/value pair: `\n` and a doubled backslash."""
    parts = (part.replace("\\n", "\n") for part in text.split("\\\\"))
    return "\\".join(parts)


def escaped(text: str) -> str:
    """Write a text so that it fits into one line, as `unescaped` reads it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def layout(fields: dict[str, str], path: Path) -> Layout:
    """Find what each axis is and where the voxels lie.

    Args:
        fields: of an `NrrdHeader`.
        path: the file, for sentences.

    Returns:
        The layout.

    Raises:
        SpadError: the axes or the geometry cannot be used.
    """
    dimension = whole(fields["dimension"], "dimension", path, 1, 16)
    sizes = sizes_of(fields["sizes"], dimension, "sizes", path)
    parsed = _through_pynrrd(fields, dimension, path)
    kinds = tuple(str(kind).lower() for kind in parsed.get("kinds", [""] * dimension))
    if "complex" in kinds:
        raise SpadError(
            f"{path} holds complex numbers; expected integers or real numbers; export the "
            "magnitude instead."
        )
    notes: list[str] = []
    of_geometry = _stated if "space directions" in parsed else _unstated
    with np.errstate(all="ignore"):  # what overflows is refused as infinite
        roles, matrix, time, plain = of_geometry(fields, parsed, sizes, kinds, notes, path)
    if "k" not in roles:
        matrix = np.column_stack([third_axis(matrix[:, :2]), matrix[:, 2]])
        notes.append("The file holds one slice and states no thickness; 1 mm is taken.")
    affine = np.eye(4)
    affine[:3] = matrix + 0.0  # no -0
    return Layout(sizes, roles, kinds, affine, time, plain, tuple(notes))


def _through_pynrrd(fields: dict[str, str], dimension: int, path: Path) -> dict[str, Any]:
    """Parse the fields that hold lists, quoted texts and vectors, and check their lengths."""
    import nrrd
    from nrrd.errors import NRRDError

    wanted = ("kinds", "units", "space units", "space origin", "space directions")
    given = {name: fields[name] for name in (*wanted, "measurement frame") if name in fields}
    lines = ["NRRD0005\n"]
    for name, text in given.items():
        if "(" in text:
            text = text.replace("( ", "(").replace(" )", ")").replace(" ,", ",").replace(", ", ",")
            text = text.replace(")(", ") (")
        lines.append(f"{name}: {text}\n")
    try:
        with np.errstate(all="ignore"):
            parsed = dict(nrrd.read_header(lines))
    except (NRRDError, ValueError, TypeError, IndexError) as error:
        raise SpadError(
            f"{path} has an NRRD header that cannot be used ({error}); expected lists, quoted "
            "texts and vectors as the format has them; export the scan again."
        ) from error
    for name in ("kinds", "units", "space directions"):
        if name in parsed and len(parsed[name]) != dimension:
            raise SpadError(
                f"{path} gives {len(parsed[name])} entries as its {name!r} for {dimension} axes; "
                "expected one per axis; export the scan again."
            )
    return parsed


def _stated(
    fields: dict[str, str],
    parsed: dict[str, Any],
    sizes: tuple[int, ...],
    kinds: tuple[str, ...],
    notes: list[str],
    path: Path,
) -> tuple[str, np.ndarray, tuple[float, str] | None, bool]:
    """Give roles and the (3, 3 or 4) matrix to RAS+ mm of a file with directions in space."""
    rows = [row for row in parsed["space directions"] if row is not None]
    wide = max((len(row) for row in rows), default=0)
    steps = np.array(
        [np.full(wide, np.nan) if row is None else row for row in parsed["space directions"]], float
    )
    flips, dimension = _frame(fields, wide, notes, path)
    if wide != dimension or wide not in (2, 3, 4):
        raise SpadError(
            f"{path} gives space directions of {wide} numbers in a space of {dimension} "
            "dimensions; expected 2, 3 or 4 and as many; export the scan again."
        )
    unset = np.isnan(steps).all(axis=1)
    space = [axis for axis in range(len(sizes)) if not unset[axis]]
    clock = None
    if wide == 4:
        space, clock = _without_clock(steps, space, path)
    if len(space) not in (2, 3):
        raise SpadError(
            f"{path} gives directions in space to {len(space)} of its {len(sizes)} axes; expected "
            "two or three; export the scan again."
        )
    roles = _roles(sizes, kinds, space, notes, path)
    origin = np.asarray(parsed.get("space origin", np.full(wide, np.nan)), float)
    if len(origin) != wide:
        raise SpadError(
            f"{path} gives a space origin of {len(origin)} numbers in a space of {wide} "
            "dimensions; expected as many; export the scan again."
        )
    if np.isnan(origin).all():
        notes.append("The header states no origin; the first voxel is taken as 0, 0, 0 mm.")
        origin = np.zeros(wide)
    matrix = np.zeros((3, len(space) + 1))
    matrix[: min(wide, 3), :-1] = steps[space, :3].T
    matrix[: min(wide, 3), -1] = origin[:3]
    units = [str(unit) for unit in parsed.get("space units", [])]
    factors = _factors((units + [""] * 4)[:3], notes)
    matrix = matrix * (np.array(factors) * flips)[:, None]
    check_lengths(matrix[:, :-1], matrix[:, -1], path)
    time = None
    if clock is not None and "t" in roles:
        time = time_step(abs(float(steps[clock, 3])), units[3] if len(units) > 3 else "")
    # ITK knows spaces with time by no other name than left-posterior-superior-time
    itk_knows = wide < 4 or (clock is not None and tuple(flips) == _LPS)
    plain = set(factors) == {1.0} and itk_knows
    return roles, matrix, time, plain


def _without_clock(steps: np.ndarray, space: list[int], path: Path) -> tuple[list[int], int | None]:
    """Take the axis that runs along time out of those of a space with time."""
    steps = np.nan_to_num(steps, nan=0.0)
    clocks = [axis for axis in space if steps[axis, 3] != 0]
    mixed = [axis for axis in clocks if (steps[axis, :3] != 0).any()]
    if len(clocks) > 1 or mixed:
        raise SpadError(
            f"{path} mixes space and time in its space directions; expected one axis that runs "
            "along time alone; export the scan again."
        )
    return [axis for axis in space if axis not in clocks], (clocks[0] if clocks else None)


def _unstated(
    fields: dict[str, str],
    parsed: dict[str, Any],
    sizes: tuple[int, ...],
    kinds: tuple[str, ...],
    notes: list[str],
    path: Path,
) -> tuple[str, np.ndarray, tuple[float, str] | None, bool]:
    """Give roles and matrix of a file without directions: axes aligned, as ITK reads it."""
    count = len(sizes)

    def stated(name: str) -> np.ndarray:
        if name not in fields:
            return np.full(count, np.nan)
        return np.array(numbers(fields[name], count, name, path))

    spacings, lows, highs = stated("spacings"), stated("axis mins"), stated("axis maxs")
    node = [word.lower() == "node" for word in fields.get("centerings", "").split()]
    node = (node + [False] * count)[:count]
    named = [axis for axis in range(count) if kinds[axis] in _SPACE]
    if not named:
        named = [axis for axis in range(count) if not kinds[axis] and not np.isnan(spacings[axis])]
        named = named if len(named) > 1 else [axis for axis in range(count) if not kinds[axis]]
    space = named[:3]
    if len(space) < 2:
        raise SpadError(
            f"{path} has {len(space)} axis or axes of space (kinds {' '.join(kinds)!r}); expected "
            "two or three; check that it is a scan."
        )
    roles = _roles(sizes, kinds, space, notes, path)
    intervals = np.array([n - 1 if at_node else n for n, at_node in zip(sizes, node, strict=True)])
    spanned = (highs - lows) / np.maximum(intervals, 1)
    spacings = _checked_spacings(
        np.where(np.isnan(spacings), spanned, spacings), space, notes, path
    )
    places = np.where(np.isnan(lows), 0.0, lows + np.where(node, 0.0, spacings / 2))
    matrix = np.zeros((3, len(space) + 1))
    matrix[: len(space), :-1] = np.diag(spacings[space])
    matrix[: len(space), -1] = places[space]
    origin = np.asarray(parsed.get("space origin", ()), float)
    if len(origin) == 3 and np.isfinite(origin).all():
        matrix[:, -1] = origin
    units = [str(unit) for unit in parsed.get("units", [""] * count)]
    factors = _factors([units[axis] for axis in space], notes)
    matrix = matrix * np.array([*factors, 1.0])
    matrix[: len(space), -1] *= factors
    flips, _ = _frame(fields, 3, [], path) if "space" in fields else (np.array(_LPS), 3)
    matrix = matrix * flips[:, None]
    check_lengths(matrix[:, :-1], matrix[:, -1], path)
    clock = roles.find("t")
    time = time_step(float(spacings[clock]), units[clock]) if clock >= 0 else None
    # ITK takes spacings from nothing but the field of that name, and wants no space beside it
    plain = set(factors) == {1.0} and "space" not in fields and "axis maxs" not in fields
    return roles, matrix, time, plain


def _checked_spacings(
    spacings: np.ndarray, space: list[int], notes: list[str], path: Path
) -> np.ndarray:
    if np.isnan(spacings[space]).all():
        notes.append("The header states no spacing; 1 mm is taken along each axis.")
        spacings = np.where(np.isnan(spacings), 1.0, spacings)
    notes.append(
        "The header states no directions; read as ITK does, the first axis running to the left and "
        "the second to posterior."
    )
    if not (spacings[space] > 0).all():
        said = " x ".join(f"{spacings[axis]:g}" for axis in space)
        raise SpadError(
            f"{path} gives a voxel spacing of {said} mm; expected positive numbers; correct the "
            "header or export the scan again."
        )
    return spacings


def _frame(
    fields: dict[str, str], wide: int, notes: list[str], path: Path
) -> tuple[np.ndarray, int]:
    """Give the signs that turn the header's space into RAS+, and its number of dimensions."""
    said = fields.get("space", "").lower()
    if "space" not in fields:
        if "space dimension" in fields:
            wide = whole(fields["space dimension"], "space dimension", path, 1, 16)
        notes.append(
            "The header does not name its space; it is read as left-posterior-superior, as ITK "
            "does."
        )
        return np.array(_LPS), wide
    name = _WITH_TIME.get(said, said.removesuffix("-time"))
    dimension = 3 if name == said else 4
    if name in _FRAMES:
        return np.array(_FRAMES[name]), dimension
    if name in _OTHER_FRAMES:
        notes.append(
            f"The header gives its space as {said!r}, which does not say where the patient's left "
            "is; it is read as left-posterior-superior, as ITK does."
        )
        return np.array(_LPS), dimension
    raise SpadError(
        f"{path} gives its space as {fields['space'][:40]!r}; expected left-posterior-superior, "
        "right-anterior-superior or another that NRRD knows; correct the header."
    )


def _roles(
    sizes: tuple[int, ...], kinds: tuple[str, ...], space: list[int], notes: list[str], path: Path
) -> str:
    """Name each axis by one letter, those of space given."""
    roles = ["-"] * len(sizes)
    for letter, axis in zip("ijk", space, strict=False):
        roles[axis] = letter
    others = [axis for axis in range(len(sizes)) if axis not in space and sizes[axis] > 1]
    for axis in others:
        roles[axis] = "c" if kinds[axis] in _CHANNELS else "t"
    if roles.count("t") == 2 and "c" not in roles:
        # times of several echoes or directions: the axis that is not called time is the channels
        listed = next((axis for axis in others if kinds[axis] != "time"), others[0])
        roles[listed] = "c"
    if roles.count("t") > 1 or roles.count("c") > 1:
        raise SpadError(
            f"{path} has {len(sizes)} axes (sizes {' '.join(map(str, sizes))}, kinds "
            f"{' '.join(kind or '???' for kind in kinds)}); expected two or three of space, at "
            "most one of time and one of channels; split it into several files."
        )
    guessed = [axis for axis in others if roles[axis] == "t" and kinds[axis] in ("", "domain")]
    if guessed and len(space) == 3 and kinds[guessed[0]] == "":
        notes.append(f"The header does not say what axis {guessed[0]} is; it is read as time.")
    return "".join(roles)


def _factors(units: list[str], notes: list[str]) -> list[float]:
    """Give what one unit of each axis is in mm."""
    factors = [lengths_in_mm(unit) for unit in units]
    strange = [unit for unit, factor in zip(units, factors, strict=True) if factor is None]
    if strange:
        notes.append(f"The header gives lengths in {strange[0][:20]!r}; they are read as mm.")
    elif any(factor != 1.0 for factor in factors):
        unit = next(u for u, factor in zip(units, factors, strict=True) if factor != 1.0)
        notes.append(f"The header gives lengths in {unit}; they are shown in mm.")
    return [1.0 if factor is None else factor for factor in factors]
