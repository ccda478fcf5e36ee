"""What the round trip is tried on: true voxels and affines, and how others write and read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

VARIANTS = (
    *("axial", "sagittal", "coronal", "oblique", "tilted"),
    *("4D", "RGB", "big-endian", "scaled"),
)
SPACING = (0.8, 0.7, 4.0)
SIZE = (6, 5, 4)
SLOPE, INTERCEPT = 0.5, -1024.0
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
_PLANES = {"axial": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (0, 2, 1)}


@dataclass(frozen=True, eq=False)
class Truth:
    """A scan as it is.

    Attributes:
        stored: voxels in file order (i, j, k[, t][, c]).
        affine: (4, 4), file index to RAS+ mm.
        variant: one of `VARIANTS`.
        orientation: three letters towards which i, j and k increase.
    """

    stored: np.ndarray
    affine: np.ndarray
    variant: str
    orientation: str

    @property
    def slope(self) -> float:
        return SLOPE if self.variant == "scaled" else 1.0

    @property
    def intercept(self) -> float:
        return INTERCEPT if self.variant == "scaled" else 0.0

    @property
    def values(self) -> np.ndarray:
        return self.stored * self.slope + self.intercept

    @property
    def big_endian(self) -> bool:
        return self.variant == "big-endian"


def truths(variant: str) -> Iterator[Truth]:
    """Make a scan of a variant in each of the eight directions that its axes can have."""
    rng = np.random.default_rng(VARIANTS.index(variant))
    tail = {"4D": (3,), "RGB": (3,)}.get(variant, ())
    for signs in product((1, -1), repeat=3):
        affine = _affine(variant, np.array(signs))
        stored = rng.integers(0, 250 if variant == "RGB" else 2000, (*SIZE, *tail))
        stored = stored.astype(np.uint8 if variant == "RGB" else np.int16)
        letters = "".join(nibabel.aff2axcodes(affine))
        yield Truth(stored, affine, variant, letters)


def _affine(variant: str, signs: np.ndarray) -> np.ndarray:
    directions = np.zeros((3, 3))
    for axis, world in enumerate(_PLANES.get(variant, (0, 1, 2))):
        directions[world, axis] = signs[axis]
    if variant == "oblique":
        first, second = np.radians((12, 7))
        about_x = [[1, 0, 0], [0, np.cos(first), -np.sin(first)], [0, np.sin(first), np.cos(first)]]
        about_z = [
            [np.cos(second), -np.sin(second), 0],
            [np.sin(second), np.cos(second), 0],
            [0, 0, 1],
        ]
        directions = np.array(about_z) @ np.array(about_x) @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING
    if variant == "tilted":
        affine[:3, 2] += directions[:, 1] * SPACING[2] * np.tan(np.radians(15))
    affine[:3, 3] = (-31.25, 14.5, 220.75)
    return affine


# Writing by others --------------------------------------------------------------------------


def nifti(truth: Truth, path: Path) -> Path:
    """Write with nibabel: .nii, .nii.gz or a pair."""
    stored = truth.stored
    if truth.variant == "RGB":
        stored = np.ascontiguousarray(stored).view(_RGB)[..., 0]
    if path.suffix == ".hdr":
        kind, header = nibabel.Nifti1Pair, nibabel.nifti1.Nifti1PairHeader
    elif "second" in path.name:
        kind, header = nibabel.Nifti2Image, nibabel.Nifti2Header
    else:
        kind, header = nibabel.Nifti1Image, nibabel.Nifti1Header
    made: Any = header(endianness=">" if truth.big_endian else "<")
    made.set_data_dtype(stored.dtype.newbyteorder(">") if truth.big_endian else stored.dtype)
    image = kind(stored, None, made)
    image.set_sform(truth.affine, 1)
    image.set_qform(truth.affine, 0 if truth.variant == "tilted" else 1)
    image.to_filename(path)
    if truth.variant == "scaled":
        _state_scale(path)
    return path


def _state_scale(path: Path) -> None:
    """State slope and intercept in a header; nibabel itself would choose others and round."""
    import gzip

    header = nibabel.load(path).header.copy()
    header.set_slope_inter(SLOPE, INTERCEPT)
    header["vox_offset"] = header.single_vox_offset if header.is_single else 0
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = header.binaryblock + content[len(header.binaryblock) :]
    path.write_bytes(gzip.compress(content) if packed else content)


def itk(truth: Truth, path: Path) -> Path | None:
    """Write with SimpleITK: NRRD or MetaImage, which have no slope."""
    if truth.variant == "scaled":
        return None
    image = to_itk(truth.stored, truth.affine, truth.variant == "RGB")
    SimpleITK.WriteImage(image, str(path), useCompression=path.suffix in (".mha", ".nrrd"))
    if truth.big_endian:
        _turn_bytes(truth, path)
    return path


def to_itk(stored: np.ndarray, affine: np.ndarray, vector: bool) -> SimpleITK.Image:
    """Give voxels in file order as an ITK image in LPS."""
    if stored.ndim == 4 and not vector:
        parts = [to_itk(stored[..., t], affine, False) for t in range(stored.shape[3])]
        return SimpleITK.JoinSeries(parts, 0.0, 2.0)
    axes = (2, 1, 0, 3) if vector else (2, 1, 0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(stored.transpose(axes)), vector)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _turn_bytes(truth: Truth, path: Path) -> None:
    """Put the voxels in the other byte order, uncompressed and attached."""
    SimpleITK.WriteImage(to_itk(truth.stored, truth.affine, False), str(path))
    content = path.read_bytes()
    data = path
    if path.suffix in (".mhd", ".nhdr"):
        data = path.with_suffix(".raw")
    voxels = truth.stored.astype(">i2").tobytes(order="F")
    if data == path:
        content = content[: -len(voxels)]
    words = (
        (b"endian: little", b"endian: big"),
        (b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = True"),
    )
    for little, big in words:
        content = content.replace(little, big)
    path.write_bytes(content + voxels if data == path else content)
    if data != path:
        data.write_bytes(voxels)


# Reading by others --------------------------------------------------------------------------


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give values and affine as nibabel reads them."""
    image: Any = nibabel.load(path)
    values = np.asanyarray(image.dataobj)
    if values.dtype.fields:
        values = np.stack([values[name] for name in values.dtype.names or ()], axis=-1)
    return values, image.affine


def by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give values and affine (RAS+) as SimpleITK reads them."""
    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image)
    vector = image.GetNumberOfComponentsPerPixel() > 1
    axes = list(range(values.ndim - vector))[::-1] + [values.ndim - 1] * vector
    n = image.GetDimension()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(n, n)[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return values.transpose(axes), np.diag([-1, -1, 1, 1]) @ affine
