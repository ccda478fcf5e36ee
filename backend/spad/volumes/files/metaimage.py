"""Reading MetaImage (.mha, .mhd): its text header, its data beside it or in it, any tilt."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import assemble, lps_to_ras
from spad.volumes.files.disk import open_checked
from spad.volumes.files.headers import (
    HEADER_LIMIT,
    check_lengths,
    lengths_in_mm,
    numbers,
    read_text,
    sizes_of,
    third_axis,
    whole,
)
from spad.volumes.files.labels import with_labels
from spad.volumes.files.options import Options
from spad.volumes.files.payload import FROM_END, Part, Payload, is_file, load, numbered_names
from spad.volumes.files.units import time_step

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

# MetaIO's own sizes: a MET_LONG has four bytes everywhere
_TYPES = {
    "MET_ASCII_CHAR": "i1",
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_ORIGIN = ("offset", "position", "origin")
_MATRIX = ("transformmatrix", "rotation", "orientation")
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_END = rb"(?im)^[ \t]*ElementDataFile[ \t]*[=:][^\n]*\n"


@dataclass(frozen=True)
class MetaHeader:
    """A header as it stands in the file.

    Attributes:
        fields: text by field, as spelt and in the order of the file.
        roles: one letter per axis of the data, fastest first ("cijkt" at most; no "k" if flat).
        affine: (4, 4), (i, j, k) to RAS+ mm, as the fields state it.
    """

    fields: dict[str, str]
    roles: str
    affine: np.ndarray


@dataclass(frozen=True)
class Parsed:
    """What a file says, before any voxel is read."""

    header: MetaHeader
    sizes: tuple[int, ...]
    payload: Payload
    slope: float
    intercept: float
    time_step: tuple[float, str] | None
    notes: list[str]


def read(path: Path, options: Options) -> Volume:
    """Read a MetaImage file.

    World coordinates are LPS mm as ITK takes them, turned to RAS+ mm: the columns of the
    direction are the rows of `TransformMatrix`, `CenterOfRotation` and `AnatomicalOrientation`
    play no part.

    Args:
        path: a .mha or .mhd file.
        options: what a person states.

    Returns:
        The volume; a memory map where the voxels are raw.

    Raises:
        SpadError: the file cannot be used; the sentence says why.
    """
    parsed = parse_file(path)
    flat, excess = load(parsed.payload)
    roles = parsed.header.roles
    array = flat.reshape(parsed.sizes, order="F")
    array = array.transpose([roles.index(letter) for letter in "ijktc" if letter in roles])
    if "k" not in roles:
        array = array[:, :, np.newaxis]
    axes = "ijk" + "".join(letter for letter in "tc" if letter in roles)
    if "t" in axes and array.shape[3] == 1:
        array, axes = array[:, :, :, 0], axes.replace("t", "")
    notes = list(parsed.notes)
    if excess > 2:
        notes.append(f"The file holds {excess} bytes more than its header claims; they are left.")
    fields = _lower(parsed.header.fields)
    volume = assemble(
        array,
        parsed.header.affine,
        axes=axes,
        path=path,
        format="mha",
        options=options,
        header=parsed.header,
        dtype=parsed.payload.dtype,
        slope=parsed.slope,
        intercept=parsed.intercept,
        time_step=parsed.time_step if "t" in axes else None,
        rgb="c" in axes and flat.dtype == np.uint8 and array.shape[-1] in (3, 4),
        modality_hint=_MODALITIES.get(fields.get("modality", "").upper()),
        notes=tuple(notes),
    )
    return with_labels(volume, path, options)


def parse_file(path: Path) -> Parsed:
    """Read and check the header of a file, and find its voxels.

    Raises:
        SpadError: the header cannot be used.
    """
    fields, length = _parse(path)
    lower = _lower(fields)
    if lower.get("objecttype", "Image").lower() != "image":
        raise SpadError(
            f"{path} holds a MetaIO object of type {lower['objecttype'][:40]!r}; expected Image; "
            "check that it is the right file."
        )
    dimension = whole(_given(lower, "ndims", path), "NDims", path, 1, 16)
    if not 2 <= dimension <= 4:
        raise SpadError(
            f"{path} has {dimension} axes (NDims); expected 2 to 4; split it into several files."
        )
    sizes = sizes_of(_given(lower, "dimsize", path), dimension, "DimSize", path)
    channels = whole(
        lower.get("elementnumberofchannels", "1"), "ElementNumberOfChannels", path, 1, 1 << 20
    )
    notes: list[str] = []
    with np.errstate(all="ignore"):  # what overflows is refused as infinite
        affine, step = _geometry(lower, dimension, notes, path)
    roles = "ijkt"[:dimension]
    if channels > 1:
        roles, sizes = "c" + roles, (channels, *sizes)
    payload = _payload(lower, sizes, dimension, length, path)
    slope, intercept = _scaling(lower, notes, path)
    unit = lower.get("timeunits", "")
    return Parsed(
        header=MetaHeader(fields, roles, affine),
        sizes=sizes,
        payload=payload,
        slope=slope,
        intercept=intercept,
        time_step=None if step is None else time_step(step, unit),
        notes=notes,
    )


def _parse(path: Path) -> tuple[dict[str, str], int]:
    """Read the fields, in order, and the byte after the header."""
    text, length = read_text(path, _END)
    fields: dict[str, str] = {}
    seen: set[str] = set()
    # not splitlines, which also breaks at characters that texts may hold, such as Latin-1's 0x85
    for line in text.split("\n"):
        found = re.match(r"\s*([^=:]{1,80}?)\s*[=:](.*)", line)
        if found is None:
            if line.strip():
                raise SpadError(
                    f"{path} has a line in its header that MetaImage does not know "
                    f"({line[:60]!r}); expected 'Field = value'; check that it is the right file."
                )
            continue
        key, value = found[1], found[2].strip()
        if key.lower() in seen:
            raise SpadError(
                f"{path} gives the field {key!r} twice in its header; expected it once; correct "
                "the header."
            )
        seen.add(key.lower())
        fields[key] = value
    if "elementdatafile" not in seen:
        raise SpadError(
            f"{path} lacks the field 'ElementDataFile' that ends a MetaImage header; expected a "
            "complete header; export the scan again."
        )
    return fields, length


def _lower(fields: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in fields.items()}


def _given(fields: dict[str, str], name: str, path: Path) -> str:
    if name not in fields:
        raise SpadError(
            f"{path} lacks the field {name!r} in its MetaImage header; expected NDims, DimSize, "
            "ElementType and ElementDataFile; export the scan again."
        )
    return fields[name]


def _flag(fields: dict[str, str], names: tuple[str, ...], default: bool, path: Path) -> bool:
    text = next((fields[name] for name in names if name in fields), None)
    if text is None:
        return default
    if text.lower() in ("true", "t", "1", "yes"):
        return True
    if text.lower() in ("false", "f", "0", "no"):
        return False
    raise SpadError(
        f"{path} gives {text[:40]!r} as its {names[0]}; expected True or False; correct the header."
    )


def _geometry(
    fields: dict[str, str], dimension: int, notes: list[str], path: Path
) -> tuple[np.ndarray, float | None]:
    """Give the affine to RAS+ mm, and the step of the fourth axis."""
    spacings = np.ones(dimension)
    name = next((name for name in ("elementspacing", "elementsize") if name in fields), None)
    if name is None:
        notes.append("The header states no spacing; 1 mm is taken along each axis.")
    else:
        spacings = np.array(numbers(fields[name], dimension, name, path))
    if not (np.isfinite(spacings).all() and (spacings > 0).all()):
        said = " x ".join(f"{value:g}" for value in spacings)
        raise SpadError(
            f"{path} gives a voxel spacing of {said} mm; expected positive, finite numbers; "
            "correct the header or export the scan again."
        )
    origin = _one_of(fields, _ORIGIN, dimension, path)
    flat = _one_of(fields, _MATRIX, dimension * dimension, path)
    if flat is None:
        notes.append(
            "The header states no directions; read as ITK does, the first axis running to the left "
            "and the second to posterior."
        )
    rows = np.eye(dimension) if flat is None else np.array(flat).reshape(dimension, dimension)
    place = np.zeros(dimension) if origin is None else np.array(origin)
    step = None
    if dimension == 4:
        if rows[:3, 3].any() or rows[3, :3].any():
            raise SpadError(
                f"{path} mixes space and time in its directions; expected a fourth axis that runs "
                "along time alone; export the scan again."
            )
        step = abs(float(rows[3, 3])) * float(spacings[3])
    used = min(dimension, 3)
    factor = _factor(fields.get("distanceunits", ""), notes)
    matrix = np.zeros((3, used))
    matrix[:used] = rows[:used, :used].T * spacings[:used] * factor
    corner = np.zeros(3)
    corner[:used] = place[:used] * factor
    check_lengths(matrix, corner, path)
    if used == 2:
        matrix = third_axis(matrix)
        notes.append("The file holds one slice and states no thickness; 1 mm is taken.")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, corner
    return lps_to_ras(affine) + 0.0, step  # no -0


def _one_of(
    fields: dict[str, str], names: tuple[str, ...], count: int, path: Path
) -> list[float] | None:
    """Give the numbers of a field that goes by several names."""
    given = [name for name in names if name in fields]
    found = [numbers(fields[name], count, name, path) for name in given]
    if any(other != found[0] for other in found[1:]):
        raise SpadError(
            f"{path} gives different values as its {' and '.join(given)}, which mean the same; "
            "expected one; correct the header."
        )
    return found[0] if found else None


def _factor(unit: str, notes: list[str]) -> float:
    factor = lengths_in_mm(unit)
    if factor is None:
        notes.append(f"The header gives lengths in {unit[:20]!r}; they are read as mm.")
        return 1.0
    if factor != 1:
        notes.append(f"The header gives lengths in {unit}; they are shown in mm.")
    return factor


def _scaling(fields: dict[str, str], notes: list[str], path: Path) -> tuple[float, float]:
    """Give slope and intercept, which ITK does not apply."""
    slope, intercept = (
        numbers(fields.get(f"elementtointensityfunction{name}", default), 1, name, path)[0]
        for name, default in (("slope", "1"), ("offset", "0"))
    )
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise SpadError(
            f"{path} gives a slope of {slope:g} and an offset of {intercept:g} for its voxels; "
            "expected finite numbers and a slope other than 0; correct the header."
        )
    if (slope, intercept) != (1, 0):
        notes.append(
            f"The header scales voxels by {slope:g} and adds {intercept:g}; this is applied here, "
            "while programs built on ITK show stored values."
        )
    return slope, intercept


def _payload(
    fields: dict[str, str], sizes: tuple[int, ...], dimension: int, length: int, path: Path
) -> Payload:
    code = _TYPES.get(_given(fields, "elementtype", path).upper())
    if code is None:
        raise SpadError(
            f"{path} holds voxels of type {fields['elementtype'][:40]!r}; expected integers or "
            "real numbers; export it again."
        )
    big = _flag(fields, ("binarydatabyteordermsb", "elementbyteordermsb"), False, path)
    dtype = np.dtype(code).newbyteorder(">" if big else "<")
    binary = _flag(fields, ("binarydata",), True, path)
    packed = _flag(fields, ("compresseddata",), False, path)
    files, local = _data_files(fields, sizes, dimension, length, path)
    start = length if local else 0
    skip = whole(fields.get("headersize", "0"), "HeaderSize", path, FROM_END, 1 << 40)
    if skip == FROM_END and (packed or not binary):
        raise SpadError(
            f"{path} counts its voxels from the file's end (HeaderSize -1) although they are not "
            "raw; expected that of raw voxels alone; correct the header."
        )
    if skip == FROM_END:
        # data in the same file follow the header anyway
        start = start if local else FROM_END
    elif skip and local and skip < length:
        raise SpadError(
            f"{path} says that its voxels start at byte {skip}, within its header of {length} "
            "bytes; expected a byte after it; correct the header."
        )
    elif skip:
        start = skip
    encoding = "raw" if binary else "text"
    if binary and packed:
        encoding = _packing(files[0], start)
    claimed = whole(fields.get("compresseddatasize", "0"), "CompressedDataSize", path, 0, 1 << 50)
    if packed and len(files) == 1 and is_file(files[0]):
        held = files[0].stat().st_size - start
        if held < claimed:
            raise SpadError(
                f"{files[0]} holds {max(held, 0)} bytes of compressed voxels, but its header "
                f"claims {claimed}; expected a complete file; copy or export it again."
            )
    parts = tuple(Part(file, start) for file in files)
    return Payload(parts, encoding, dtype, math.prod(sizes))


def _packing(file: Path, start: int) -> str:
    """Tell gzip from zlib by the first bytes: MetaIO takes both."""
    if not is_file(file):
        return "zlib"
    with open_checked(file) as opened:
        opened.seek(start)
        return "gzip" if opened.read(2) == b"\x1f\x8b" else "zlib"


def _data_files(
    fields: dict[str, str], sizes: tuple[int, ...], dimension: int, length: int, path: Path
) -> tuple[list[Path], bool]:
    """Give the files with the voxels, and whether that is the header's own."""
    text = fields["elementdatafile"]
    words = text.split()
    if text.upper() == "LOCAL":
        return [path], True
    each = dimension - 1
    if words[:1] == ["LIST"]:
        if len(words) > 1:
            each = whole(words[1].upper().removesuffix("D"), "LIST", path, 1, dimension)
        with open_checked(path) as file:
            file.seek(length)
            lines = file.read(HEADER_LIMIT).decode("utf-8", "replace").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    elif "%" in text and len(words) >= 3:
        first, last = (whole(word, "ElementDataFile", path, 0, 10**9) for word in words[1:3])
        step = whole(words[3], "ElementDataFile", path, 1, 10**9) if len(words) > 3 else 1
        names = numbered_names(words[0], first, last, step, path)
    else:
        names, each = [text], dimension
    expected = math.prod(sizes[len(sizes) - dimension :][each:])
    if len(names) != expected or not all(names):
        raise SpadError(
            f"{path} names {len(names)} data files for sizes {' '.join(map(str, sizes))}; expected "
            f"{expected}; correct the header or add the files."
        )
    return [path.parent / name for name in names], False
