"""Writing MetaImage: zlib data in a .mha or beside a .mhd, the source's header kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spad.volumes.axes import orientation_letters
from spad.volumes.files import stem_of, suffix_of
from spad.volumes.files.assemble import lps_to_ras
from spad.volumes.files.encoders import Reopened
from spad.volumes.files.itk import from_itk, itk_image
from spad.volumes.files.metaimage import MetaHeader
from spad.volumes.files.payload import Voxels, in_file_order, plain_type, write_zlib
from spad.volumes.files.writer import compare
from spad.volumes.volume import Volume

_TYPES = {
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "int64": "MET_LONG_LONG",
    "uint64": "MET_ULONG_LONG",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}
_WRITTEN = {
    *("objecttype", "ndims", "binarydata", "binarydatabyteordermsb", "elementbyteordermsb"),
    *("compresseddata", "compresseddatasize", "transformmatrix", "rotation", "orientation"),
    *("offset", "position", "origin", "centerofrotation", "anatomicalorientation"),
    *("elementspacing", "elementsize", "dimsize", "elementnumberofchannels", "elementtype"),
    *("elementdatafile", "headersize", "distanceunits", "elementmin", "elementmax", "timeunits"),
    *("elementtointensityfunctionslope", "elementtointensityfunctionoffset", "sequenceid"),
    *("id", "parentid", "color", "elementnbits"),
}
_MODALITIES = {"CT": "MET_MOD_CT", "MR": "MET_MOD_MR", "NM": "MET_MOD_NM", "US": "MET_MOD_US"}
_FROM = str.maketrans("LRPAIS", "RLAPSI")
# room for the length of the compressed data, which is known only after them
_DIGITS = 20
# MetaIO refuses a file with a field of more than some 800 characters
_LONGEST = 500


class MetaImageEncoder:
    """Writes .mha and .mhd (with a .zraw); names of labels go to a file beside them."""

    sidecar = True

    def targets(self, volume: Volume, path: Path) -> list[Path]:
        """Name the file, or the data and then the header of a pair."""
        if suffix_of(path) == ".mhd":
            return [path.with_name(f"{stem_of(path)}.zraw"), path]
        return [path]

    def encode(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Write the files: header and data, or data and then header."""
        dtype = plain_type(array, volume.slope, volume.intercept).newbyteorder("<")
        axes = "ijk" + volume.axes[:-3]
        old = volume.source.header if isinstance(volume.source.header, MetaHeader) else None
        flat = old is not None and "k" not in old.roles and "t" not in axes
        roles = ("c" if "c" in axes else "") + ("ij" if flat else "ijkt" if "t" in axes else "ijk")
        view = in_file_order(array, axes, roles)
        voxels = Voxels(view, dtype, volume.slope, volume.intercept)
        local = len(files) == 1
        before, after = _header(
            volume, view, roles, dtype, old, "LOCAL" if local else files[0].name
        )
        with files[0].open("wb") as file:
            if local:
                file.write((before + " " * _DIGITS + after).encode())
            size = write_zlib(voxels, file)
            if local:
                file.seek(len(before.encode()))
                file.write(str(size).rjust(_DIGITS).encode())
        if not local:
            files[1].write_text(f"{before}{size}{after}", encoding="utf-8", newline="\n")

    def verify(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Compare with what SimpleITK finds."""
        image = itk_image(files[-1], "MetaImageIO")
        found, affine = from_itk(image)
        compare(volume, array, files[-1], Reopened(found, affine))


ENCODER = MetaImageEncoder()


def _header(
    volume: Volume,
    view: np.ndarray,
    roles: str,
    dtype: np.dtype,
    old: MetaHeader | None,
    data_file: str,
) -> tuple[str, str]:
    """Give the text before and after the length of the compressed data."""
    sizes = [n for n, role in zip(view.shape, roles, strict=True) if role != "c"]
    fields: dict[str, str] = {
        "ObjectType": "Image",
        "NDims": str(len(sizes)),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
    }
    before = "".join(f"{key} = {text}\n" for key, text in fields.items()) + "CompressedDataSize = "
    fields = _geometry(volume, len(sizes), old)
    if "t" in roles and volume.time_step is not None and volume.time_step[1] != "pixel":
        fields["TimeUnits"] = volume.time_step[1]
    if old is not None:
        fields |= {
            key: text
            for key, text in old.fields.items()
            if key.lower() not in _WRITTEN and len(text) <= _LONGEST
        }
    code = _MODALITIES.get(volume.modality_hint or "")
    if code and not volume.is_labels and "modality" not in {key.lower() for key in fields}:
        fields["Modality"] = code
    fields["DimSize"] = " ".join(str(n) for n in sizes)
    if "c" in roles:
        fields["ElementNumberOfChannels"] = str(view.shape[0])
    fields["ElementType"] = _TYPES[dtype.newbyteorder("=").name]
    fields["ElementDataFile"] = data_file
    return before, "\n" + "".join(f"{key} = {text}\n" for key, text in fields.items())


def _geometry(volume: Volume, dimension: int, old: MetaHeader | None) -> dict[str, str]:
    """State the geometry: columns of any shear as unit vectors, their lengths as spacing."""
    lps = lps_to_ras(volume.source.affine)
    used = min(dimension, 3)
    spacing = np.ones(dimension)
    spacing[:used] = np.linalg.norm(lps[:3, :3], axis=0)[:used]
    if dimension == 4 and volume.time_step is not None:
        spacing[3] = volume.time_step[0]
    rows = np.eye(dimension)
    rows[:used, :used] = (lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).T[:used, :used]
    place = np.zeros(dimension)
    place[:used] = lps[:used, 3]
    letters = orientation_letters(volume.source.affine).translate(_FROM)
    fields = {
        "TransformMatrix": _numbers(rows.ravel()),
        "Offset": _numbers(place),
        "CenterOfRotation": _numbers(np.zeros(dimension)),
        "AnatomicalOrientation": letters[:dimension],
        "ElementSpacing": _numbers(spacing),
    }
    if dimension == 4:
        del fields["AnatomicalOrientation"]
    if old is not None and np.array_equal(old.affine, volume.source.affine):
        fields |= _as_stated(old, dimension)
    return fields


def _as_stated(old: MetaHeader, dimension: int) -> dict[str, str]:
    """Give the source's own words for its geometry, if they fit: to the last digit the same."""
    lower = {key.lower(): text for key, text in old.fields.items()}
    if lower.get("distanceunits", "mm").lower() not in ("mm", "?", ""):
        return {}
    if len(old.roles.replace("c", "")) != dimension:
        return {}
    names = {
        "TransformMatrix": ("transformmatrix", "rotation", "orientation"),
        "Offset": ("offset", "position", "origin"),
        "CenterOfRotation": ("centerofrotation",),
        "AnatomicalOrientation": ("anatomicalorientation",),
        "ElementSpacing": ("elementspacing", "elementsize"),
    }
    found: dict[str, str] = {}
    for name, spellings in names.items():
        text = next((lower[spelling] for spelling in spellings if spelling in lower), None)
        if text is not None:
            found[name] = text
    return found


def _numbers(values: Any) -> str:
    # repr is the shortest text that gives the same float64 again; + 0.0 turns -0.0 into 0.0
    return " ".join(repr(float(value) + 0.0).removesuffix(".0") for value in values)
