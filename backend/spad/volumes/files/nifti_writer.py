"""Writing NIfTI: on the source's grid a file gets the source's geometry, to the last digit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import disk, suffix_of
from spad.volumes.files.labels import label_array, names_json, read_names, sidecar_of
from spad.volumes.files.nifti import INTENT_LABEL, intent_of, load, parse
from spad.volumes.volume import Volume


def write(volume: Volume, path: Path) -> Path:
    """Write a volume as NIfTI; see `spad.volumes.files.write`."""
    from nibabel.spatialimages import HeaderDataError

    if volume.axes == "czyx":
        raise SpadError(
            f"A volume with channels was to be written to {path}; expected one number per voxel; "
            "write one channel at a time."
        )
    sidecar = sidecar_of(path)
    if not volume.is_labels and os.path.exists(sidecar):
        raise SpadError(
            f"{sidecar} says that {path.name} holds labels, but an image was to be written; "
            "choose another name or remove that file."
        )
    array = np.asarray(to_file_order(volume.array, volume.source))
    array = label_array(array, "The volume to write") if volume.is_labels else _real(array, path)
    pair = suffix_of(path) in (".hdr", ".img")
    try:
        header = _header_for(volume, array, pair)
    except (HeaderDataError, ValueError, TypeError) as error:
        raise SpadError(
            f"{path} was not written because NIfTI cannot hold the volume ({error}); choose "
            "another type of voxel or a smaller grid."
        ) from error
    stem = path.name[: -len(suffix_of(path))]
    targets = [path.with_name(stem + end) for end in (".img", ".hdr")] if pair else [path]
    names = names_json(volume.label_names) if volume.label_names is not None else None

    def fill(files: list[Path]) -> None:
        _write_files(array, header, files[:2] if pair else files[:1])
        if names is not None:
            files[-1].write_text(names, encoding="utf-8")
        _check_written(files[1 if pair else 0], array, volume, header)

    disk.replace_files(targets + ([sidecar] if names is not None else []), fill)
    return path


def _real(array: np.ndarray, path: Path) -> np.ndarray:
    """Give an image in a type that NIfTI has."""
    if array.dtype.kind not in "biuf":
        raise SpadError(
            f"Voxels of type {array.dtype} were to be written to {path}; expected integers or "
            "real numbers; convert them first."
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array


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
        header = kind()
        header.set_xyzt_units("mm", "sec" if array.ndim == 4 else None)
        header.set_data_shape(array.shape)
        header.set_qform(volume.source.affine, 1, strip_shears=True)
        header.set_sform(volume.source.affine, 1)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(volume.slope, volume.intercept)
    for limit in ("cal_min", "cal_max"):
        header[limit] = 0
    if volume.is_labels:
        header["intent_code"] = INTENT_LABEL
        header["intent_name"] = b"labels"
        header.extensions.clear()
    elif intent_of(header) == INTENT_LABEL:
        header["intent_code"] = 0
        header["intent_name"] = b""
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


def _check_written(path: Path, array: np.ndarray, volume: Volume, header: Any) -> None:
    """Read a new file as anybody would and compare it with what was to be written."""
    import nibabel

    parsed = parse(path)
    again = load(parsed)
    good = (
        again.shape == array.shape
        and np.allclose(parsed.affine, volume.source.affine, rtol=1e-6, atol=1e-4)
        and all(
            np.array_equal(one, other, equal_nan=array.dtype.kind == "f")
            for one, other in zip(again.T, array.T, strict=True)
        )
    )
    if isinstance(header, nibabel.Nifti1Header):
        good = good and all(
            int(parsed.header[code]) == int(header[code]) for code in ("qform_code", "sform_code")
        )
    if volume.label_names is not None:
        good = good and read_names(sidecar_of(path)) == {
            int(key): name for key, name in volume.label_names.items()
        }
    if not good:
        raise SpadError(
            f"{path.name} did not read back as it was written, so nothing was saved; the disk or "
            "the folder may be faulty; choose another place."
        )
