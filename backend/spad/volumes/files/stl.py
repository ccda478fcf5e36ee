"""Writing surfaces of labels as binary STL: closed, outward, in true millimetres."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spad.errors import SpadError
from spad.volumes.files import stem_of

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# just below a half: at exactly a half marching cubes has ties where voxels touch along an edge,
# and leaves edges that four triangles share
_LEVEL = 0.4999
# marching cubes cuts the corners of voxels: at most 5/12 of a voxel in each cell it crosses
_CUT = 5 / 12
# find_objects makes a list as long as the largest id
_DENSE = 65535
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class StlEncoder:
    """Writes one surface per label; see `spad.volumes.files.encoders.Encoder`.

    Each surface is that of marching cubes through the middle between voxels inside and outside
    (no smoothing, so it encloses the label's voxels and nothing else), closed where the label
    touches the border of the scan. Coordinates are mm in LPS, and the 80-byte header says
    `SPACE=LPS`, which is 3D Slicer's convention and its default for files that say nothing.
    """

    sidecar = False

    def targets(self, volume: Volume, path: Path) -> list[Path]:
        """Give the files: `<stem>.stl` for one label, `<stem>_<name>.stl` each for several.

        Raises:
            SpadError: the volume is an image, has times, or holds no labelled voxel.
        """
        if not volume.is_labels or volume.axes != "zyx":
            what = "an image" if not volume.is_labels else "labels with times or channels"
            raise SpadError(
                f"{path} was to be written from {what}; expected labels in three dimensions, "
                "since a surface is that of an organ; choose a labels layer or another format."
            )
        ids = label_ids(volume.array)
        if not ids:
            raise SpadError(
                f"{path} was to be written from labels without a single labelled voxel; expected "
                "at least one organ, since an STL file holds its surface; segment one first."
            )
        if len(ids) == 1:
            return [path]
        return [path.with_name(name) for name in _file_names(path, ids, volume.label_names or {})]

    def encode(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Write the surfaces, one file per label in the order of ids.

        Args:
            volume: the labels.
            array: the same in file order (i, j, k), integers.
            files: one path per label that is present.
        """
        names = volume.label_names or {}
        affine = _LPS @ volume.source.affine
        for (label, low, mask), file in zip(_pieces(array), files, strict=True):
            corners = _surface(mask, low, affine)
            name = names.get(label, f"label {label}").encode("ascii", "replace").decode()
            header = f"napari-spad SPACE=LPS UNIT=mm {name}".encode("ascii")[:80].ljust(80)
            _write(file, header, corners)

    def verify(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Parse the files again and compare each surface with the voxels that it encloses.

        Checked are the number of triangles, finite corners, that every edge is met once from
        either side (watertight), normals that point outwards, the extent in voxels (to 0.01
        voxel) and the enclosed volume: within 5/12 of a voxel for each cell of eight voxels that
        the surface crosses, which is the most that marching cubes can cut off.

        Raises:
            SpadError: one of them differs.
        """
        to_index = np.linalg.inv(_LPS @ volume.source.affine)
        voxel = float(abs(np.linalg.det(volume.source.affine[:3, :3])))
        for (_, low, mask), file in zip(_pieces(array), files, strict=True):
            problem = _problem(_parse(file), mask, low, to_index, voxel)
            if problem:
                raise SpadError(
                    f"{file.name} did not read back as the surface of its label ({problem}), so "
                    "nothing was saved; choose another place, or save the labels as NIfTI."
                )


ENCODER = StlEncoder()


def label_ids(array: np.ndarray) -> list[int]:
    """Give the ids that labels hold, ascending, without the background (0).

    Args:
        array: integers, any shape.
    """
    found: set[int] = set()
    for slab in array:
        found.update(np.unique(slab).tolist())
    return sorted(int(label) for label in found - {0})


def _file_names(path: Path, ids: list[int], names: dict[int, str]) -> list[str]:
    """Name one file per label; names that a file system would confuse get their id."""
    stem, suffix = stem_of(path), path.name[len(stem_of(path)) :]
    plain = {label: re.sub(r"[^\w.-]+", "_", names.get(label, "")).strip("._") for label in ids}
    folded = [text.casefold() for text in plain.values()]
    given = []
    for label, text in plain.items():
        unique = text and folded.count(text.casefold()) == 1
        given.append(f"{stem}_{text if unique else f'{text}_{label}'.strip('_')}{suffix}")
    return given


def _pieces(array: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Give each label's id, the index of its box's first voxel and its mask in that box."""
    from scipy import ndimage

    ids = label_ids(array)
    numbers = ids
    if ids and (ids[0] < 0 or ids[-1] > _DENSE):
        numbers = list(range(1, len(ids) + 1))
        array = np.where(array == 0, 0, np.searchsorted(ids, array) + 1)
    boxes = ndimage.find_objects(array)
    for label, number in zip(ids, numbers, strict=True):
        box = boxes[number - 1]
        low = np.array([part.start for part in box], float)
        yield label, low, array[box] == number


def _surface(mask: np.ndarray, low: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Give the triangles around a mask, outward by the right-hand rule.

    Args:
        mask: boolean (i, j, k), not empty.
        low: the index of its first voxel.
        affine: (4, 4), index to mm.

    Returns:
        float32 corners in mm, shape (triangles, 3, 3).
    """
    from skimage.measure import marching_cubes

    padded = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, _LEVEL)
    world = (vertices + (low - 1)) @ affine[:3, :3].T + affine[:3, 3]
    # adding zero makes -0.0 and 0.0 the same bits
    corners = world.astype(np.float32)[faces] + np.float32(0)
    # an affine that mirrors turns the triangles inside out
    return corners if _enclosed(corners) > 0 else corners[:, ::-1]


def _enclosed(corners: np.ndarray) -> float:
    """Give the volume inside a closed surface; negative if its triangles point inwards."""
    centred = corners.astype(float) - corners.mean((0, 1), dtype=float)
    normals = np.cross(centred[:, 1], centred[:, 2])
    return float(np.einsum("ij,ij->", centred[:, 0], normals)) / 6


def _write(file: Path, header: bytes, corners: np.ndarray) -> None:
    triangles = np.zeros(len(corners), _TRIANGLE)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = normals / np.maximum(lengths, np.finfo(np.float32).tiny)
    triangles["corners"] = corners
    with file.open("wb") as out:
        out.write(header)
        out.write(np.uint32(len(triangles)).astype("<u4").tobytes())
        out.write(triangles.data)


def _parse(file: Path) -> np.ndarray:
    """Read the triangles of a binary STL file; empty if its size contradicts its count."""
    size = file.stat().st_size
    with file.open("rb") as data:
        data.seek(80)
        count = int.from_bytes(data.read(4), "little")
        if size != 84 + count * _TRIANGLE.itemsize:
            return np.zeros(0, _TRIANGLE)
        return np.fromfile(data, _TRIANGLE, count)


def _problem(
    triangles: np.ndarray, mask: np.ndarray, low: np.ndarray, to_index: np.ndarray, voxel: float
) -> str | None:
    """Say what is wrong with a surface, if anything."""
    corners = triangles["corners"]
    if not len(corners):
        return "its number of triangles does not fit its size"
    if not np.isfinite(corners).all() or not np.isfinite(triangles["normal"]).all():
        return "some corners are not finite"
    if not _watertight(corners):
        return "it is not closed"
    index = corners.reshape(-1, 3).astype(float) @ to_index[:3, :3].T + to_index[:3, 3]
    extent = np.array([index.min(0) - low, index.max(0) - low - mask.shape])
    if np.abs(extent + 0.5).max() > 0.01:
        return f"its extent is {np.abs(extent + 0.5).max():.2g} voxels off"
    enclosed, expected = _enclosed(corners) / voxel, np.count_nonzero(mask)
    if abs(enclosed - expected) > _CUT * _crossed(mask):
        return f"it encloses {enclosed:.1f} voxels of {expected}"
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if np.einsum("ij,ij->i", sides, triangles["normal"]).min() < 0:
        return "some normals point inwards"
    return None


def _watertight(corners: np.ndarray) -> bool:
    """Tell whether every edge of the triangles is met as often one way as the other."""
    bits = np.ascontiguousarray(corners).view(np.uint32).astype(np.uint64)
    odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
    place = (bits * odd).sum(-1, dtype=np.uint64)
    place ^= place >> np.uint64(29)
    start, end = place.ravel(), place[:, [1, 2, 0]].ravel()
    twist = np.uint64(0xFF51AFD7ED558CCD)
    return bool(np.array_equal(np.sort(start * twist + end), np.sort(end * twist + start)))


def _crossed(mask: np.ndarray) -> int:
    """Count the cells of eight voxels that lie partly inside a mask."""
    padded = np.pad(mask, 1).view(np.uint8)
    inside = padded
    for axis in range(3):
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        inside = inside[first] + inside[second]
    return int(np.count_nonzero((inside > 0) & (inside < 8)))
