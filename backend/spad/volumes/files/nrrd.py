"""Reading NRRD and NHDR: attached and detached, any order of axes, any encoding, any tilt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import segments
from spad.volumes.files.assemble import assemble
from spad.volumes.files.disk import open_checked
from spad.volumes.files.headers import whole
from spad.volumes.files.labels import with_labels
from spad.volumes.files.nrrd_header import COLOURS, Layout, NrrdHeader, layout, parse
from spad.volumes.files.options import Options
from spad.volumes.files.payload import FROM_END, Part, Payload, is_file, load, numbered_names

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

_INTEGERS = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
}
TYPES = {**_INTEGERS, "float": "f4", "double": "f8"}
"""NRRD's spellings of types, and numpy's code of each."""

_ENCODINGS = {
    "raw": "raw",
    **dict.fromkeys(("gzip", "gz"), "gzip"),
    **dict.fromkeys(("bzip2", "bz2"), "bzip2"),
    **dict.fromkeys(("ascii", "text", "txt"), "text"),
    "hex": "hex",
}
_MODALITIES = {"DWMRI": "MR", "CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "US": "US"}
_FARTHEST_SKIP = 1 << 40


@dataclass(frozen=True)
class Parsed:
    """What a file says, before any voxel is read."""

    header: NrrdHeader
    layout: Layout
    payload: Payload


def read(path: Path, options: Options) -> Volume:
    """Read an NRRD file.

    World coordinates are the header's space (LPS, RAS or LAS) turned to RAS+ mm. Axes of kind
    list or time become times, vectors and colours become channels, wherever they stand. A
    segmentation of 3D Slicer (key/value pairs `Segment<N>_...`) becomes labels with their names
    and colours; its layers are joined into one label map.

    Args:
        path: a .nrrd (.seg.nrrd) or .nhdr file.
        options: what a person states.

    Returns:
        The volume; a memory map where the voxels are raw.

    Raises:
        SpadError: the file cannot be used; the sentence says why.
    """
    parsed = parse_file(path)
    flat, excess = load(parsed.payload)
    found = parsed.layout
    array = flat.reshape(found.sizes, order="F").transpose(order_of(found.roles))
    array = array.reshape(logical_shape(found))
    notes = list(found.notes)
    if excess > 2:
        notes.append(f"The file holds {excess} bytes more than its header claims; they are left.")
    fields: dict[str, Any] = {
        "time_step": found.time_step,
        "rgb": _is_rgb(found, flat.dtype),
        "modality_hint": _modality(parsed.header.pairs),
        "unit": _unit(parsed.header.fields),
    }
    axes = "ijk" + "".join(letter for letter in "tc" if letter in found.roles)
    header = replace(parsed.header, roles=found.roles)
    if segments.is_fractional(parsed.header.pairs):
        notes.append("The file holds fractions of segments, not labels; it is read as an image.")
    said = segments.segments_of(parsed.header.pairs, path) if options.labels is not False else []
    if said and len(axes) == 4 and "time" not in found.kinds:
        array, names, colors, more = segments.joined(array, said, path)
        axes, header = "ijk", replace(header, roles=found.roles.translate({116: "l", 99: "l"}))
        fields = {"label_names": names, "label_colors": colors or None}
        notes += more
    elif said:
        names, colors, more = segments.named(said)
        fields |= {"label_names": names, "label_colors": colors or None, "unit": None}
        notes += more
    volume = assemble(
        array,
        found.affine,
        axes=axes,
        path=path,
        format="nrrd",
        options=options,
        header=header,
        dtype=parsed.payload.dtype,
        notes=tuple(notes),
        **fields,
    )
    return with_labels(volume, path, options)


def parse_file(path: Path) -> Parsed:
    """Read and check the header of a file, and find its voxels.

    Raises:
        SpadError: the header cannot be used.
    """
    header, length, names = parse(path)
    found = layout(header.fields, path)
    encoding = _ENCODINGS.get(header.fields["encoding"].lower())
    if encoding is None:
        raise SpadError(
            f"{path} holds voxels in the encoding {header.fields['encoding'][:40]!r}; expected "
            f"{', '.join(sorted(set(_ENCODINGS.values())))}; export it again."
        )
    dtype = _dtype(header.fields, encoding, path)
    count = math.prod(found.sizes)
    files = _data_files(header.fields, names, found.sizes, path)
    lines = whole(header.fields.get("line skip", "0"), "line skip", path, 0, 100_000)
    skip = whole(header.fields.get("byte skip", "0"), "byte skip", path, -1, _FARTHEST_SKIP)
    if skip == FROM_END and encoding != "raw":
        raise SpadError(
            f"{path} counts its voxels from the file's end (byte skip -1) although they are "
            f"{encoding}; expected that of raw voxels alone; correct the header."
        )
    start = 0 if files else length
    parts = tuple(_part(file, start, lines, skip, encoding) for file in files or [path])
    return Parsed(header, found, Payload(parts, encoding, dtype, count))


def order_of(roles: str) -> list[int]:
    """Give the file's axes in the order i, j, k, t, c; those that say nothing last."""
    return [roles.index(letter) for letter in "ijktc" if letter in roles] + [
        axis for axis, letter in enumerate(roles) if letter == "-"
    ]


def logical_shape(found: Layout) -> tuple[int, ...]:
    """Give the shape along i, j, k[, t][, c]; a flat image has one voxel along k."""
    sizes = dict(zip(found.roles, found.sizes, strict=True))
    return tuple(sizes.get(letter, 1) for letter in "ijk") + tuple(
        sizes[letter] for letter in "tc" if letter in sizes
    )


def _dtype(fields: dict[str, str], encoding: str, path: Path) -> np.dtype:
    code = TYPES.get(fields["type"].lower())
    if code is None:
        raise SpadError(
            f"{path} holds voxels of type {fields['type'][:40]!r}; expected integers or real "
            "numbers; export it again."
        )
    dtype = np.dtype(code)
    if dtype.itemsize == 1 or encoding == "text":
        return dtype
    endian = fields.get("endian", "").lower()
    if endian not in ("little", "big"):
        raise SpadError(
            f"{path} gives its byte order as {endian[:20]!r}; expected little or big; correct the "
            "header or export the scan again."
        )
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _data_files(
    fields: dict[str, str], names: list[str], sizes: tuple[int, ...], path: Path
) -> list[Path]:
    """Give the files with the voxels; none if they follow the header."""
    if "data file" not in fields:
        return []
    words = fields["data file"].split()
    ranged = 4 <= len(words) <= 5 and "%" in words[0]
    if words[:1] == ["LIST"]:
        subdim = words[1] if len(words) > 1 else None
    elif ranged:
        first, last, step = (whole(word, "data file", path, -(10**9), 10**9) for word in words[1:4])
        names = numbered_names(words[0], first, last, step, path)
        subdim = words[4] if len(words) == 5 else None
    else:
        names, subdim = [fields["data file"]], str(len(sizes))
    share = len(sizes) - 1
    if subdim is not None:
        share = whole(subdim, "data file's number of axes", path, 1, len(sizes))
    expected = math.prod(sizes[share:])
    fits = len(names) == expected or (share == len(sizes) and names and not sizes[-1] % len(names))
    if not fits or not all(names):
        raise SpadError(
            f"{path} names {len(names)} data files for sizes {' '.join(map(str, sizes))}; expected "
            f"{expected}; correct the header or add the files."
        )
    return [path.parent / name for name in names]


def _part(file: Path, start: int, lines: int, skip: int, encoding: str) -> Part:
    if skip == FROM_END:
        return Part(file, FROM_END)
    if lines and is_file(file):
        with open_checked(file) as opened:
            opened.seek(start)
            for _ in range(lines):
                if not opened.readline(1 << 16):
                    break
            start = opened.tell()
    if encoding in ("gzip", "bzip2"):
        return Part(file, start, skip)
    return Part(file, start + skip)


def _is_rgb(found: Layout, dtype: np.dtype) -> bool:
    """Whether the channels are colours; ITK calls them vectors of three or four bytes."""
    if "c" not in found.roles:
        return False
    axis = found.roles.index("c")
    kind, size = found.kinds[axis], found.sizes[axis]
    return COLOURS.get(kind) == size or (kind == "vector" and dtype == np.uint8 and size in (3, 4))


def _modality(pairs: dict[str, str]) -> str | None:
    said = pairs.get("modality") or pairs.get("Modality") or pairs.get("0008|0060") or ""
    return _MODALITIES.get(said.strip().upper())


def _unit(fields: dict[str, str]) -> str | None:
    """Give the unit of the voxels, if it is one that a screen can show."""
    said = fields.get("sample units", "").strip('"')
    return said if 0 < len(said) <= 16 and said != "???" else None
