"""Writing NRRD and NHDR: gzip data, the source's own header where there is one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import segments, stem_of, suffix_of
from spad.volumes.files.assemble import lps_to_ras
from spad.volumes.files.encoders import Reopened
from spad.volumes.files.headers import HEADER_LIMIT
from spad.volumes.files.itk import from_itk, itk_image
from spad.volumes.files.labels import names_beside, sidecar_of
from spad.volumes.files.nrrd import TYPES
from spad.volumes.files.nrrd_header import (
    PER_AXIS,
    NrrdHeader,
    escaped,
    layout,
    parse,
    unescaped,
)
from spad.volumes.files.payload import (
    Voxels,
    check_gzip,
    in_file_order,
    plain_type,
    write_gzip,
)
from spad.volumes.files.writer import compare
from spad.volumes.volume import Volume

_TYPES = {
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long int",
    "uint64": "unsigned long long int",
    "float32": "float",
    "float64": "double",
}
_OF_DATA = ("endian", "encoding", "data file", "line skip", "byte skip", "block size")
_OF_VALUES = ("min", "max", "old min", "old max", "number")
_OF_GEOMETRY = (
    *("space", "space dimension", "space units", "space origin", "space directions", "spacings"),
    *("thicknesses", "axis mins", "axis maxs", "centerings", "units", "measurement frame"),
)
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|\([^)]*\)|\S+')
# keys by which 3D Slicer takes a file for something else than labels
_OF_IMAGES = ("DWMRI", "modality", "MultiVolume.")
_COLOURS = {3: "RGB-color", 4: "RGBA-color"}


class NrrdEncoder:
    """Writes .nrrd, .seg.nrrd and .nhdr (with a .raw.gz); names of labels go into the header."""

    sidecar = False

    def targets(self, volume: Volume, path: Path) -> list[Path]:
        """Name the file, or the data and then the header of a pair.

        Raises:
            SpadError: a names file beside the target would say something else about it, or labels
                with times were to go into a .seg.nrrd.
        """
        names = names_beside(path) if os.path.isfile(sidecar_of(path)) else None
        if names is not None and names != volume.label_names:
            raise SpadError(
                f"{sidecar_of(path)} names other labels than {path.name} would hold, and readers "
                "heed it; remove that file or choose another name."
            )
        if suffix_of(path) == ".seg.nrrd" and volume.axes != "zyx":
            raise SpadError(
                f"{path} was to hold labels with times, but a .seg.nrrd holds one label map; write "
                "them to .nrrd or .nii.gz."
            )
        if suffix_of(path) == ".nhdr":
            return [path.with_name(f"{stem_of(path)}.raw.gz"), path]
        return [path]

    def encode(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Write the files: header and data, or data and then header."""
        dtype = plain_type(array, volume.slope, volume.intercept)
        axes = "ijk" + volume.axes[:-3]
        fields, roles = _fields(volume, array, axes, files[-1])
        view = in_file_order(array, axes, roles)
        if np.dtype(TYPES.get(fields.get("type", "").lower(), "V")) != dtype.newbyteorder("="):
            fields["type"] = _TYPES[dtype.newbyteorder("=").name]
        fields["dimension"] = str(view.ndim)
        fields["sizes"] = " ".join(str(n) for n in view.shape)
        if dtype.itemsize > 1:
            fields["endian"] = "little"
        fields["encoding"] = "gzip"
        if len(files) == 2:
            fields["data file"] = files[0].name
        if volume.unit and not volume.is_labels:
            fields["sample units"] = volume.unit
        pairs = _pairs(volume, array, files[-1])
        lines = ["NRRD0005", *(f"{name}: {text}" for name, text in _sorted(fields).items())]
        lines += [f"{key}:={escaped(value)}" for key, value in pairs.items()]
        text = ("\n".join(lines) + "\n\n").encode()
        voxels = Voxels(view, dtype.newbyteorder("<"), volume.slope, volume.intercept)
        with files[0].open("wb") as file:
            if len(files) == 1:
                file.write(text)
            write_gzip(voxels, file)
        if len(files) == 2:
            files[1].write_bytes(text)

    def verify(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Compare with what SimpleITK (or pynrrd, where that cannot) finds."""
        found, _image = reopened(files[-1])
        compare(volume, array, files[-1], found)
        check_gzip(files[0], parse(files[0])[1] if len(files) == 1 else 0)


ENCODER = NrrdEncoder()


def _sorted(fields: dict[str, str]) -> dict[str, str]:
    """Put the fields that others rest on before them, as the format asks."""
    first = ("type", "dimension", "space", "space dimension", "sizes")
    order = [name for name in first if name in fields]
    last = [name for name in ("data file",) if name in fields]
    order += [name for name in fields if name not in order and name not in last]
    return {name: fields[name] for name in (*order, *last)}


def _fields(volume: Volume, array: np.ndarray, axes: str, path: Path) -> tuple[dict[str, str], str]:
    """Give the fields of the header but sizes, and the roles of the axes."""
    old = volume.source.header
    if volume.source.format != "nrrd" or not isinstance(old, NrrdHeader):
        return _fresh(volume, array, axes, {})
    dropped = (*_OF_DATA, *_OF_VALUES, *(("sample units",) if volume.is_labels else ()))
    fields = {name: text for name, text in old.fields.items() if name not in dropped}
    kept = [axis for axis, role in enumerate(old.roles) if role == "-" or role in axes]
    roles = "".join(old.roles[axis] for axis in kept)
    if set(axes) - set(roles) - {"k"}:
        return _fresh(volume, array, axes, fields)
    for name in PER_AXIS:
        if name in fields:
            words = _TOKENS.findall(fields.pop(name))
            if len(words) == len(old.roles):
                fields[name] = " ".join(words[axis] for axis in kept)
    sizes = in_file_order(array, axes, roles).shape
    fields |= {"dimension": str(len(sizes)), "sizes": " ".join(str(n) for n in sizes)}
    if volume.is_labels and "t" in roles and "kinds" in fields:
        # a list would be read as the layers of a segmentation
        words = fields["kinds"].split()
        words[roles.index("t")] = "time"
        fields["kinds"] = " ".join(words)
    try:
        found = layout(fields, path)
    except SpadError:
        return _fresh(volume, array, axes, fields)
    same = np.allclose(found.affine, volume.source.affine, rtol=1e-12, atol=1e-9)
    if same and found.plain and found.roles == roles:
        return fields, roles
    return _fresh(volume, array, axes, fields)


def _fresh(
    volume: Volume, array: np.ndarray, axes: str, before: dict[str, str]
) -> tuple[dict[str, str], str]:
    """State the geometry anew, in LPS mm: channels first, times last, as ITK has them."""
    timed = "t" in axes
    roles = ("c" if "c" in axes else "") + "ijk" + ("t" if timed else "")
    step, unit = volume.time_step or (1.0, "pixel")
    lps = lps_to_ras(volume.source.affine)
    vectors = {letter: [*lps[:3, n], *[0.0] * timed] for n, letter in enumerate("ijk")}
    vectors["t"] = [0.0, 0.0, 0.0, step]
    kinds = dict.fromkeys("ijk", "domain") | {"t": "time", "c": "vector"}
    if volume.rgb:
        kinds["c"] = _COLOURS.get(array.shape[-1], "vector")
    fields = {
        name: text
        for name, text in before.items()
        if name not in (*_OF_GEOMETRY, *PER_AXIS, "dimension")
    }
    fields["space"] = "left-posterior-superior" + ("-time" if timed else "")
    fields["space directions"] = " ".join(
        _vector(vectors[role]) if role in vectors else "none" for role in roles
    )
    fields["kinds"] = " ".join(kinds[role] for role in roles)
    fields["space origin"] = _vector([*lps[:3, 3], *[0.0] * timed])
    if timed:
        words = ["mm", "mm", "mm", "" if unit == "pixel" else unit]
        fields["space units"] = " ".join(f'"{word}"' for word in words)
    frame = _frame_in_lps(before)
    if frame and not timed and not volume.is_labels:
        fields["measurement frame"] = frame
    return fields, roles


def _frame_in_lps(before: dict[str, str]) -> str | None:
    """Turn a measurement frame, whose vectors are stated in the file's space, to LPS."""
    text, space = before.get("measurement frame"), before.get("space", "").lower()
    signs = {"right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1)} | {
        "left-anterior-superior": (1, -1, 1),
        "las": (1, -1, 1),
    }
    vectors = [word.strip("()").split(",") for word in _TOKENS.findall(text or "")]
    if len(vectors) != 3 or any(len(vector) != 3 for vector in vectors):
        return None
    flips = signs.get(space, (1, 1, 1))
    return " ".join(
        _vector([float(x) * sign for x, sign in zip(vector, flips, strict=True)])
        for vector in vectors
    )


def _vector(values: list[Any]) -> str:
    # repr is the shortest text that gives the same float64 again; + 0.0 turns -0.0 into 0.0
    return "(" + ",".join(repr(float(value) + 0.0).removesuffix(".0") for value in values) + ")"


def _pairs(volume: Volume, array: np.ndarray, path: Path) -> dict[str, str]:
    """Give the key/value pairs: the source's own, and the segments of labels."""
    old = volume.source.header
    before = dict(old.pairs) if isinstance(old, NrrdHeader) else {}
    pairs = segments.without_segments(before)
    if volume.label_names is None:
        if volume.modality_hint and not {"modality", "Modality", "0008|0060"} & set(pairs):
            pairs["modality"] = volume.modality_hint
        return pairs
    pairs = {key: text for key, text in pairs.items() if not key.startswith(_OF_IMAGES)}
    present: set[int] = set()
    for slab in array.T:
        present.update(np.unique(slab).tolist())
    shape = (array.shape[0], array.shape[1], array.shape[2])
    return pairs | segments.segment_pairs(
        volume.label_names, volume.label_colors, present, shape, before, path
    )


def reopened(path: Path) -> tuple[Reopened, Any]:
    """Open a file as others do.

    Args:
        path: a .nrrd or .nhdr file.

    Returns:
        What SimpleITK finds; what pynrrd finds where SimpleITK cannot (a slice in three
        dimensions, times without a direction). Names of segments come from a plain search in the
        header, since pynrrd drops letters beyond ASCII. Second, what owns the voxels: SimpleITK
        frees them with its image.
    """
    try:
        image = itk_image(path, "NrrdImageIO")
        array, affine = from_itk(image)
    except RuntimeError:
        image = None
        array, affine = _through_pynrrd(path)
    return Reopened(array, affine, names=_names(path)), image


def _through_pynrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nrrd

    array, header = nrrd.read(str(path))
    steps = np.array(
        [[np.nan] * 3 if row is None else row for row in header["space directions"]], float
    )
    space = [axis for axis in range(array.ndim) if np.isfinite(steps[axis]).all()]
    space = [axis for axis in space if np.abs(steps[axis, :3]).max() > 0]
    kinds = list(header.get("kinds", [""] * array.ndim))
    rest = [axis for axis in range(array.ndim) if axis not in space]
    # times come before channels, and what is called time is the time
    rest.sort(key=lambda axis: ("time" not in kinds[axis], "list" not in kinds[axis], axis))
    array = array.transpose(*space, *rest)
    columns = steps[space, :3].T
    if len(space) == 2:
        array = array[:, :, np.newaxis]
        normal = np.cross(columns[:, 0], columns[:, 1])
        columns = np.column_stack([columns, normal / np.linalg.norm(normal)])
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = header.get("space origin", np.zeros(3))[:3]
    frames = {"right-anterior-superior": (1, 1, 1), "left-anterior-superior": (-1, 1, 1)}
    frames |= {"ras": (1, 1, 1), "las": (-1, 1, 1)}
    space_name = str(header.get("space", "")).lower().removesuffix("-time")
    return array, np.diag([*frames.get(space_name, (-1, -1, 1)), 1]) @ affine


def _names(path: Path) -> dict[int, str] | None:
    """Find the names of segments by a plain search, independent of this package's parser."""
    with path.open("rb") as file:
        head = file.read(HEADER_LIMIT).split(b"\n\n", 1)[0].decode()
    found: dict[str, dict[str, str]] = {}
    for number, key, value in re.findall(r"(?m)^Segment(\d+)_(\w+):=(.*)$", head):
        found.setdefault(number, {})[key] = value
    names = {
        int(entry["LabelValue"]): unescaped(entry["Name"])
        for entry in found.values()
        if entry["NameAutoGenerated"] == "0"
    }
    background = re.search(r"(?m)^Label0_Name:=(.*)$", head)
    if background:
        names[0] = unescaped(background[1])
    return names if found or background else None
