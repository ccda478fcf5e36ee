"""Writing NIfTI: on the source's grid a file gets the source's geometry, to the last digit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import suffix_of
from spad.volumes.files.encoders import Reopened
from spad.volumes.files.nifti import INTENT_LABEL, intent_of, millimetres
from spad.volumes.files.payload import check_gzip
from spad.volumes.files.writer import compare
from spad.volumes.volume import Volume

_INTENT_VECTOR = 1007
_TIME_CODES = {"s": "sec", "ms": "msec", "us": "usec"}
_COLOURS = {3: np.dtype([(c, "u1") for c in "RGB"]), 4: np.dtype([(c, "u1") for c in "RGBA"])}


class NiftiEncoder:
    """Writes .nii, .nii.gz and .hdr/.img pairs; names of labels go to a file beside them."""

    sidecar = True

    def targets(self, volume: Volume, path: Path) -> list[Path]:
        """Name the file, or the data and then the header of a pair."""
        if suffix_of(path) not in (".hdr", ".img"):
            return [path]
        stem = path.name[: -len(suffix_of(path))]
        ends = (".IMG", ".HDR") if path.suffix.isupper() else (".img", ".hdr")
        return [path.with_name(stem + end) for end in ends]

    def encode(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Write the files."""
        from nibabel.spatialimages import HeaderDataError

        voxels = _as_stored(volume, array)
        try:
            header = _header_for(volume, voxels, len(files) == 2)
        except (HeaderDataError, ValueError, TypeError) as error:
            raise SpadError(
                f"{files[-1].name} was not written because NIfTI cannot hold the volume ({error}); "
                "choose another type of voxel or a smaller grid."
            ) from error
        _write_files(voxels, header, files)

    def verify(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Compare with what nibabel finds."""
        import nibabel

        image: Any = nibabel.load(files[-1])
        compare(volume, array, files[-1], _reopened(image, volume))
        if suffix_of(files[-1]).endswith(".gz"):
            check_gzip(files[-1])
        old = volume.source.header
        if not volume.source.format.startswith("nifti") or old is None:
            return
        for code in ("qform_code", "sform_code"):
            if int(image.header[code]) != int(old[code]):
                raise SpadError(
                    f"{files[-1].name} did not read back as it was written ({code} is "
                    f"{int(image.header[code])}, not {int(old[code])}), so nothing was saved; "
                    "choose another place."
                )


ENCODER = NiftiEncoder()


def _reopened(image: Any, volume: Volume) -> Reopened:
    header = image.header
    voxels = np.asanyarray(image.dataobj.get_unscaled())
    if voxels.dtype.fields is not None:
        colours = len(voxels.dtype.names or ())
        voxels = np.moveaxis(np.stack([voxels[name] for name in voxels.dtype.names or ()]), 0, -1)
        voxels = voxels.reshape((*voxels.shape[:-1], 1, 1)[:3] + voxels.shape[3:-1] + (colours,))
    elif "c" in volume.source.axes and voxels.ndim == 5 and "t" not in volume.source.axes:
        voxels = voxels[:, :, :, 0]
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return Reopened(voxels, millimetres(header) @ image.affine, float(slope), float(intercept))


def _as_stored(volume: Volume, array: np.ndarray) -> np.ndarray:
    """Give voxels as NIfTI has them: colours as one element, other channels along the 5th axis."""
    if "c" not in volume.axes:
        # a slice stays one of two axes if its file had two
        shape = volume.source.shape
        return array.reshape(shape) if array.size == math.prod(shape) else array
    if volume.rgb and array.dtype == np.uint8 and array.shape[-1] in _COLOURS:
        packed = np.empty(array.shape[:-1], _COLOURS[array.shape[-1]], order="F")
        for number, name in enumerate(packed.dtype.names or ()):
            packed[name] = array[..., number]
        return packed
    return array if "t" in volume.axes else array[:, :, :, np.newaxis]


def _header_for(volume: Volume, array: np.ndarray, pair: bool) -> Any:
    """Make the header of a file on the volume's source grid."""
    import nibabel

    old = volume.source.header
    kind: Any
    wide = volume.source.format == "nifti2" or max(array.shape) > 32767
    if pair:
        kind = nibabel.nifti2.Nifti2PairHeader if wide else nibabel.nifti1.Nifti1PairHeader
    else:
        kind = nibabel.Nifti2Header if wide else nibabel.Nifti1Header
    if old is not None and volume.source.format.startswith("nifti"):
        header = kind.from_header(_little_endian(old), check=False)
        _copy_geometry(_little_endian(old), header)
    else:
        header = _fresh_header(kind(), volume, array)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(volume.slope, volume.intercept)
    header["cal_min"], header["cal_max"] = volume.window or (0, 0)
    if volume.is_labels:
        header["intent_code"] = INTENT_LABEL
        header["intent_name"] = b"labels"
        header.extensions.clear()
    elif intent_of(header) == INTENT_LABEL:
        header["intent_code"] = 0
        header["intent_name"] = b""
    if array.ndim == 5 and array.shape[4] > 1 and intent_of(header) == 0:
        header["intent_code"] = _INTENT_VECTOR
    return header


def _fresh_header(header: Any, volume: Volume, array: np.ndarray) -> Any:
    """Make a header for a grid that comes from no NIfTI file.

    A sheared grid (gantry tilt) has no quaternion, so it is stated by the sform alone.
    """
    affine = volume.source.affine
    header.set_data_shape(array.shape)
    step, unit = volume.time_step or (1.0, "pixel")
    timed = "t" in volume.axes
    header.set_xyzt_units("mm", _TIME_CODES.get(unit) if timed else None)
    if volume.is_sheared:
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    else:
        header.set_qform(affine, 1, strip_shears=True)
    header.set_sform(affine, 1)
    if timed:
        header["pixdim"][4] = step
    return header


def _little_endian(header: Any) -> Any:
    return header if header.endianness == "<" else header.as_byteswapped("<")


def _copy_geometry(old: Any, new: Any) -> None:
    """Copy the geometry field by field: by way of an affine its last digits would change."""
    for field in (
        *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
        *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
        *("xyzt_units", "dim_info", "toffset", "descrip", "aux_file"),
    ):
        new[field] = old[field]


def _write_files(array: np.ndarray, header: Any, files: list[Path]) -> None:
    """Write one file, or the data and then the header of a pair."""
    if len(files) == 2:
        header["vox_offset"] = 0
        with files[0].open("wb") as data:
            _write_voxels(array, data)
        with files[1].open("wb") as file:
            header.write_to(file)
        return
    # the length of extensions decides where the voxels start
    header["vox_offset"] = header.single_vox_offset + header.extensions.get_sizeondisk()
    if files[0].name.lower().endswith(".gz"):
        from isal import igzip

        with (
            files[0].open("wb") as raw,
            igzip.IGzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as packed,
        ):
            _write_single(array, header, packed)
    else:
        with files[0].open("wb") as file:
            _write_single(array, header, file)


def _write_single(array: np.ndarray, header: Any, file: Any) -> None:
    header.write_to(file)
    file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
    _write_voxels(array, file)


def _write_voxels(array: np.ndarray, file: Any) -> None:
    """Write voxels with the first axis fastest, a slab at a time."""
    little = array.dtype.newbyteorder("<")
    for slab in array.T:
        file.write(np.ascontiguousarray(slab, dtype=little).data)
