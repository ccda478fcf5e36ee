"""Reading NIfTI-1, NIfTI-2 and Analyze 7.5: any axis order and any tilt."""

from __future__ import annotations

import io
import logging
import math
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import disk, suffix_of
from spad.volumes.files.assemble import assemble
from spad.volumes.files.labels import with_labels
from spad.volumes.files.options import Options
from spad.volumes.volume import Volume, checked_affine

if TYPE_CHECKING:
    from collections.abc import Iterator

INTENT_LABEL = 1002
_TO_MM = {1: 1000.0, 3: 0.001}
_UNITS = {1: "metres", 3: "micrometres"}
_TIME_UNITS = {"sec": "s", "msec": "ms", "usec": "us"}


@dataclass
class Parsed:
    """What a header says, before any voxel is read."""

    header: Any
    format: str
    data: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    slope: float
    intercept: float
    notes: list[str]


def read(path: Path, options: Options) -> Volume:
    """Read a NIfTI or Analyze file; see `spad.volumes.files.read`."""
    parsed = parse(path)
    array = load(parsed)
    rgb = parsed.dtype.fields is not None
    array, axes, shape = _logical(array, parsed.shape, rgb)
    volume = assemble(
        array,
        parsed.affine,
        axes=axes,
        path=path,
        format=parsed.format,
        options=options,
        header=parsed.header,
        slice_axis=_slice_axis(parsed.header),
        dtype=np.dtype(np.uint8) if rgb else parsed.dtype,
        shape=shape,
        slope=parsed.slope,
        intercept=parsed.intercept,
        notes=tuple(parsed.notes),
        rgb=rgb,
        time_step=_time_step(parsed.header) if "t" in axes else None,
        window=_window(parsed.header),
    )
    said = intent_of(parsed.header) == INTENT_LABEL
    return with_labels(volume, path, options, header_says=said)


def _logical(
    array: np.ndarray, shape: tuple[int, ...], rgb: bool
) -> tuple[np.ndarray, str, tuple[int, ...]]:
    """Give the voxels along i, j, k[, t][, c], their axes, and the shape to write again."""
    full = (*shape, 1, 1)[: max(3, len(shape))]
    while len(full) > 3 and full[-1] == 1:
        full = full[:-1]
    if rgb:
        axes = "ijk" + "t" * (len(full) == 4)
        channels = array.dtype.itemsize
        # colours lie one after the other in the file, so they are its fastest axis
        bytes_ = array.reshape(-1, order="F").view(np.uint8)
        array = np.moveaxis(bytes_.reshape((channels, *full), order="F"), 0, -1)
        return array, axes + "c", array.shape
    array = array.reshape(full)
    if len(full) < 5:
        return array, "ijk" + "t" * (len(full) == 4), shape
    if full[3] == 1:
        return array[:, :, :, 0], "ijkc", (*full[:3], full[4])
    return array, "ijktc", full


def load(parsed: Parsed) -> np.ndarray:
    """Give the voxels that a header describes, in file order, as stored, read-only."""
    flat = disk.load(parsed.data, parsed.dtype, math.prod(parsed.shape), parsed.offset)
    return flat.reshape(parsed.shape, order="F")


def intent_of(header: Any) -> int:
    """Give the intent code of a header; 0 where the format has none."""
    return int(header["intent_code"]) if "intent_code" in header else 0


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel's remarks on headers off the terminal; what matters is checked here."""
    logger = logging.getLogger("nibabel.global")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def parse(path: Path) -> Parsed:
    """Read and check the header of a file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    header_path, data_path = _pair(path)
    _check_compression(header_path)
    if data_path != header_path:
        _check_compression(data_path)
    try:
        with _quiet_nibabel():
            return _parse_header(path, header_path, data_path)
    except SpadError:
        raise
    except (
        *(HeaderDataError, ImageFileError, ArithmeticError, OSError, zlib.error),
        *(ValueError, TypeError, KeyError, EOFError, np.linalg.LinAlgError),
    ) as error:
        raise SpadError(
            f"{header_path} has a header that cannot be used ({error}); expected a NIfTI or "
            "Analyze header; export the scan again from its source."
        ) from error


def _pair(path: Path) -> tuple[Path, Path]:
    """Give the header's and the data's file: the same one, or the two of a pair."""
    suffix = suffix_of(path)
    if suffix.startswith(".nii"):
        return path, path
    other = {".hdr": ".img", ".img": ".hdr"}[suffix[:4]]
    stem = path.name[: -len(suffix)]
    wanted = [f"{stem}{other}{gz}" for gz in (suffix[4:], "", ".gz")]
    wanted += [name.replace(other, other.upper()) for name in wanted]
    found = next((path.with_name(name) for name in wanted if path.with_name(name).is_file()), None)
    if found is None:
        raise SpadError(
            f"{path} is half of a pair and {wanted[0]} is not beside it; expected both files; "
            "put them into one folder."
        )
    return (path, found) if other == ".img" else (found, path)


def _check_compression(path: Path) -> None:
    named = suffix_of(path).endswith(".gz")
    if disk.is_gzip(path) == named:
        return
    if named:
        raise SpadError(
            f"{path} is not gzip data although its name ends in .gz; expected a compressed file; "
            "rename it without .gz, or copy it again if it is damaged."
        )
    raise SpadError(
        f"{path} holds gzip data although its name does not end in .gz; expected an uncompressed "
        f"file; rename it to {path.name}.gz."
    )


def _parse_header(path: Path, header_path: Path, data_path: Path) -> Parsed:
    block = disk.read_start(header_path, 540)
    kind, single = _kind(block, header_path)
    if single and data_path != header_path:
        data_path = header_path
    if not single and data_path == header_path:
        raise SpadError(
            f"{path} says that its voxels are in a separate .img file; expected a single-file "
            f"NIfTI; rename it to {path.name.split('.')[0]}.hdr beside its .img file."
        )
    header, affine, offset = _load_header(kind, header_path, data_path, block)
    shape = _shape(header, path)
    dtype = _dtype(header, path)
    slope, intercept = header.get_slope_inter()
    notes: list[str] = []
    if kind == "analyze":
        notes.append(
            "Analyze files do not state left and right; read as the format's default says "
            "(radiological, the first axis runs from right to left)."
        )
    else:
        affine = _nifti_geometry(header, affine, path, notes)
    return Parsed(
        header=header,
        format=kind,
        data=data_path,
        offset=offset,
        shape=shape,
        dtype=dtype,
        affine=checked_affine(affine, str(path)),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        notes=notes,
    )


def _kind(block: bytes, path: Path) -> tuple[str, bool]:
    """Tell format and layout from the first bytes: `(format, one file holds all)`."""
    sizes = {int.from_bytes(block[:4], order, signed=True) for order in ("little", "big")}
    if 348 in sizes and len(block) >= 348:
        magic = block[344:348]
        if magic in (b"n+1\0", b"ni1\0"):
            return "nifti1", magic == b"n+1\0"
        if suffix_of(path).startswith(".hdr"):
            return "analyze", False
    elif 540 in sizes and len(block) >= 540:
        magic = block[4:8]
        if magic in (b"n+2\0", b"ni2\0"):
            return "nifti2", magic == b"n+2\0"
    raise SpadError(
        f"{path} is not a NIfTI file (it starts with {block[:4]!r} and lacks the NIfTI mark); "
        "expected a NIfTI-1, NIfTI-2 or Analyze header; check that it is the right file and "
        "complete."
    )


def _load_header(
    kind: str, header_path: Path, data_path: Path, block: bytes
) -> tuple[Any, np.ndarray, int]:
    """Give nibabel's header (extensions included), its affine and where the voxels start."""
    import nibabel

    header: Any
    if kind == "analyze":
        order = "<" if int.from_bytes(block[:4], "little") == 348 else ">"
        header = nibabel.Spm2AnalyzeHeader(block[:348], endianness=order, check=False)
        _check_pixdim(header, header_path)
        offset = float(header["vox_offset"])
        affine = header.get_best_affine()
        matrix = header_path.with_suffix(".mat")
        if matrix.is_file():
            affine = _spm_matrix(header_path, data_path)
    else:
        length = 348 if kind == "nifti1" else 540
        single = block[4:8] == b"n+2\0" or block[344:348] == b"n+1\0"
        names = {
            ("nifti1", True): nibabel.Nifti1Header,
            ("nifti1", False): nibabel.nifti1.Nifti1PairHeader,
            ("nifti2", True): nibabel.Nifti2Header,
            ("nifti2", False): nibabel.nifti2.Nifti2PairHeader,
        }
        header = names[kind, single](block[:length], check=False)
        _check_pixdim(header, header_path)
        offset = float(header["vox_offset"])
        if not np.isfinite(offset) or offset < (length if single else 0) or offset % 1:
            raise SpadError(
                f"{header_path} says that its voxels start at byte {offset:g}; expected a whole "
                f"number of at least {length + 4 if single else 0}; export it again."
            )
        start = disk.read_start(header_path, min(int(offset), 1 << 26) if single else 1 << 26)
        if len(start) >= length + 4 and start[length] != 0:
            header = names[kind, single].from_fileobj(io.BytesIO(start), check=False)
        affine = _best_affine(header)
    return header, np.asarray(affine, float), int(offset)


def _best_affine(header: Any) -> np.ndarray:
    """Give nibabel's affine, with the defaults that the standard has for fields left at 0."""
    filled = header.copy()
    if float(filled["pixdim"][0]) not in (-1.0, 1.0):
        filled["pixdim"][0] = 1
    flat = int(filled["dim"][0]) < 3 or int(filled["dim"][3]) == 1
    if flat and float(filled["pixdim"][3]) == 0:
        filled["pixdim"][3] = 1
    return np.asarray(filled.get_best_affine(), float)


def _spm_matrix(header_path: Path, data_path: Path) -> np.ndarray:
    """Read the affine that SPM keeps in a .mat file beside an Analyze pair."""
    import nibabel

    image = nibabel.Spm99AnalyzeImage.from_filename(str(data_path))
    if image.affine is None:
        raise SpadError(
            f"{header_path.with_suffix('.mat')} holds no matrix; expected SPM's 'M' or 'mat'; "
            "correct or remove it."
        )
    return np.asarray(image.affine, float)


def _shape(header: Any, path: Path) -> tuple[int, ...]:
    dim = np.asarray(header["dim"]).astype(np.int64)
    axes = int(dim[0])
    if not 1 <= axes <= 7:
        raise SpadError(f"{path} says that it has {axes} axes; expected 2 to 4; export it again.")
    shape = tuple(int(n) for n in header.get_data_shape())
    if any(n < 1 for n in shape) or not shape:
        raise SpadError(
            f"{path} is empty: its header gives the shape {shape}; expected at least one voxel "
            "along each axis; export it again."
        )
    most = 4 if np.dtype(header.get_data_dtype()).fields is not None else 5
    if any(n > 1 for n in shape[most:]):
        raise SpadError(
            f"{path} has {len(shape)} axes (shape {shape}); expected two or three of space, one of "
            "time and one of channels; split it into several files."
        )
    if sum(n > 1 for n in shape[:3]) < 2 and len(shape) < 2:
        raise SpadError(
            f"{path} has one axis (shape {shape}); expected a slice or a volume; check that it "
            "is a scan."
        )
    return shape


def _dtype(header: Any, path: Path) -> np.dtype:
    dtype = np.dtype(header.get_data_dtype())
    if dtype.fields is not None:
        return dtype
    if dtype.kind not in "iuf":
        raise SpadError(
            f"{path} holds voxels of type {dtype.name}; expected integers or real numbers; "
            "export the magnitude instead."
        )
    return dtype


def _check_pixdim(header: Any, path: Path) -> None:
    """Refuse spacing that no scan has; nibabel would put a 1 there without a word."""
    axes = min(max(int(header["dim"][0]), 1), 3)
    spacing = np.asarray(header["pixdim"][1 : 1 + axes], float)
    if axes == 3 and int(header["dim"][3]) == 1:
        spacing = spacing[:2] if spacing[2] == 0 else spacing
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        said = " x ".join(f"{value:g}" for value in spacing)
        raise SpadError(
            f"{path} gives a voxel spacing of {said} mm; expected positive numbers; correct the "
            "header or export the scan again."
        )


def _nifti_geometry(header: Any, affine: np.ndarray, path: Path, notes: list[str]) -> np.ndarray:
    """Bring the affine to mm and note what a person should know about it."""
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        notes.append(
            "The header states no orientation (qform and sform codes are 0); read as nibabel "
            "does, the first axis running from right to left."
        )
    for form in ("sform", "qform"):
        code = int(header[f"{form}_code"])
        if not 0 <= code <= 5:
            notes.append(f"The header has an unknown {form} code ({code}); its matrix is used.")
    factor = millimetres(header)[0, 0]
    if factor != 1.0:
        unit = _UNITS[int(header["xyzt_units"]) & 7]
        notes.append(f"The header gives lengths in {unit}; they are shown in mm.")
        affine = millimetres(header) @ affine
    said = np.asarray(header["pixdim"][1:4], float) * factor
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    several = np.asarray(header["dim"][1:4]) > 1
    if int(header["sform_code"]) != 0 and not np.allclose(
        said[several], spacing[several], rtol=0.01
    ):
        notes.append(
            f"The header gives two spacings, {_times(said)} mm and {_times(spacing)} mm; the "
            "second (its sform) is used."
        )
    return affine


def millimetres(header: Any) -> np.ndarray:
    """Give the (4, 4) scaling from a NIfTI header's unit of length (xyzt_units) to mm."""
    factor = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return np.diag([factor, factor, factor, 1.0])


def _time_step(header: Any) -> tuple[float, str] | None:
    """Give the step of the time axis and its unit, None where the header states none."""
    step = float(header["pixdim"][4])
    if not np.isfinite(step) or step <= 0:
        return None
    unit = header.get_xyzt_units()[1] if "xyzt_units" in header else "unknown"
    return step, _TIME_UNITS.get(unit, "pixel")


def _window(header: Any) -> tuple[float, float] | None:
    """Give the values that the header wants displayed, None where it states none."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return (low, high) if -math.inf < low < high < math.inf else None


def _times(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _slice_axis(header: Any) -> int | None:
    if "dim_info" not in header:
        return None
    axis = header.get_dim_info()[2]
    return None if axis is None or axis > 2 else int(axis)
