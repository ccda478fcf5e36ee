"""Abdominal phantoms: made-up patients, as CT and as MR would show them, with exact labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spad._phantom_anatomy import draw
from spad._phantom_canvas import ORGANS, Anatomy, Canvas
from spad.errors import SpadError
from spad.volumes.volume import Volume

LABELS: dict[int, str] = {index + 1: name for index, name in enumerate(ORGANS)}
"""The ids and names of the thirteen organs, as the BTCV challenge numbers them."""

MODALITIES = ("CT", "MR")
_WARP_MM = 5.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """A made-up scan and the labels of its organs on the same grid.

    Attributes:
        image: int16, HU for CT, arbitrary units (0 and more) for MR.
        labels: uint8, names as in `LABELS`.
    """

    image: Volume
    labels: Volume


def phantom(
    seed: int,
    modality: str = "CT",
    spacing: Sequence[float] = (3.0, 2.9, 2.9),
    shape: Sequence[int] = (96, 128, 128),
    tilt_degrees: float = 0.0,
) -> Phantom:
    """Make a random patient and scan them.

    CT looks like the portal venous phase, MR like T2 with fat suppression (SPIR). The same
    arguments always give the same voxels; one seed is one patient whatever the modality.

    Args:
        seed: which patient.
        modality: "CT" or "MR".
        spacing: mm along z (foot to head), y (front to back) and x (right to left).
        shape: voxels along z, y and x.
        tilt_degrees: how far the grid is tilted about the right-left axis; it is tilted by 7/12
            of that about the front-back axis too.

    Returns:
        Image and labels, their axes running to S, P and L (nearest axes if tilted).

    Raises:
        SpadError: unknown modality, or spacing or shape that no scan has.
    """
    if modality not in MODALITIES:
        raise SpadError(
            f"A phantom of modality {modality!r} was asked for; expected CT or MR; choose one."
        )
    size, steps = tuple(int(n) for n in shape), tuple(float(s) for s in spacing)
    if len(size) != 3 or min(size) < 1 or len(steps) != 3 or not all(0 < s < np.inf for s in steps):
        raise SpadError(
            f"A phantom of shape {shape} and spacing {spacing} was asked for; expected three "
            "positive numbers each; correct them."
        )
    patient, scanner = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    anatomy = Anatomy.random(patient)
    affine = _affine(size, steps, float(tilt_degrees), anatomy.centre)
    canvas = _canvas(affine, size, steps, anatomy, np.random.default_rng([seed, 3]))
    draw(canvas, anatomy, modality, np.random.default_rng([seed, 4]))
    field = canvas.image
    if steps[0] > 2 * steps[1]:
        # a thick slice is the mean over its thickness
        field = ndimage.convolve1d(field, [0.12, 0.76, 0.12], axis=0, mode="nearest")
    if modality == "CT":
        image = _scan_ct(field, canvas, steps, scanner)
    else:
        image = _scan_mr(field, canvas, scanner)
    return Phantom(
        image=Volume.from_array(image, affine, modality_hint=modality),
        labels=Volume.from_array(canvas.labels, affine, label_names=LABELS),
    )


def sample(modality: str) -> Phantom:
    """Make the phantom that ships as sample data.

    Args:
        modality: "ct" (axial, 5 mm slices) or "mr" (oblique by 12 and 7 degrees, 7 mm slices).

    Returns:
        The same voxels as the files in `sample_data/`.

    Raises:
        SpadError: another modality.
    """
    if modality.upper() == "MR":
        return phantom(12, "MR", (7.0, 3.0, 3.0), (36, 106, 124), tilt_degrees=12.0)
    return phantom(7, modality.upper(), (5.0, 2.45, 2.45), (56, 112, 146))


def _affine(
    shape: tuple[int, ...], spacing: tuple[float, ...], tilt: float, centre: np.ndarray
) -> np.ndarray:
    """Place the grid's middle at `centre` (RAS+ mm), axes to S, P, L before the tilt."""
    axes = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], float)
    a, b = np.radians(tilt), np.radians(tilt * 7 / 12)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_y @ about_x @ axes @ np.diag(spacing)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _canvas(
    affine: np.ndarray,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    anatomy: Anatomy,
    rng: np.random.Generator,
) -> Canvas:
    """Give each voxel its place in the reference body, bent by a smooth random warp."""
    index = np.ogrid[tuple(slice(0, n) for n in shape)]
    warp = _smooth_warp(affine, shape, spacing, rng)
    places = []
    for axis, sign in enumerate((-1, -1, 1)):
        place = np.full(shape, sign * affine[axis, 3], np.float32)
        for n in range(3):
            place += (sign * affine[axis, n] * index[n]).astype(np.float32)
        place += warp[axis]
        place /= np.float32(anatomy.scale[axis])
        places.append(place)
    return Canvas(places, edge=float(np.sqrt(spacing[1] * spacing[2])))


def _smooth_warp(
    affine: np.ndarray,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Give three displacement fields in mm: sums of long waves in space."""
    coarse = [max(2, round(n * step / 9)) for n, step in zip(shape, spacing, strict=True)]
    axes = [np.linspace(0, n - 1, c) for n, c in zip(shape, coarse, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    fields = []
    for _ in range(3):
        waves = rng.normal(size=(7, 3)) / rng.uniform(22, 45, size=(7, 1))
        phases, heights = rng.uniform(0, 2 * np.pi, 7), rng.normal(size=7) * _WARP_MM / 3
        field = (np.sin(world @ waves.T + phases) @ heights).astype(np.float32)
        fields.append(_enlarge(field, shape))
    return fields


def _enlarge(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate linearly, end points on end points, one axis after the other."""
    for axis, count in enumerate(shape):
        place = np.linspace(0, coarse.shape[axis] - 1, count)
        low = np.minimum(place.astype(int), coarse.shape[axis] - 2)
        weight = (
            (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        )
        first = np.take(coarse, low, axis=axis)
        coarse = first + weight * (np.take(coarse, low + 1, axis=axis) - first)
    return coarse


def _scan_ct(
    field: np.ndarray, canvas: Canvas, spacing: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    """Add the correlated noise of a reconstruction, less of it in the air; HU, int16."""
    noise = rng.standard_normal(field.shape, dtype=np.float32)
    sigma = 1.4 / spacing[1]
    noise = ndimage.gaussian_filter(noise, (0, sigma, sigma))
    noise *= np.float32(rng.uniform(6, 13)) / max(float(noise.std()), 1e-6)
    noise[canvas.outside] *= np.float32(0.15)
    np.rint(field + noise, out=noise)
    return np.clip(noise, -1024, 3071).astype(np.int16)


def _scan_mr(field: np.ndarray, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Add coil shading, Rician noise and a gain; background 0; int16."""
    u, v, w = (place[::4, ::4, ::4] if min(place.shape) > 8 else place for place in canvas.places)
    shading = np.zeros_like(u)
    for _ in range(3):
        a, b, c = rng.normal(size=3) / (170, 120, 190)
        shading += np.float32(0.11) * np.sin(a * u + b * v + c * w + rng.uniform(0, 6.28))
    # surface coils see the front and the back better than the middle
    shading += np.float32(rng.uniform(0.05, 0.3)) * ((v / 110) ** 2 - np.float32(0.35))
    signal = field * _enlarge(np.exp(shading), field.shape)
    sd = np.float32(rng.uniform(9, 17))
    real = rng.standard_normal(field.shape, dtype=np.float32) * sd
    real = ndimage.gaussian_filter1d(real, 0.4, axis=2) + signal
    imaginary = rng.standard_normal(field.shape, dtype=np.float32) * sd
    magnitude = np.hypot(real, imaginary)
    # scanners cut away what lies below the noise outside the body
    magnitude[canvas.outside] *= np.float32(0.06)
    return np.clip(np.rint(magnitude * rng.uniform(0.75, 1.4)), 0, 32767).astype(np.int16)
