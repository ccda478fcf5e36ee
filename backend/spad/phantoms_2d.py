"""Flat phantoms: made-up radiographs, ultrasound sectors and colour photographs of the fundus.

They stand in for 2D modalities of which no real scans are at hand, and are no patients. Radiograph
and ultrasound show the patients of `spad.phantoms`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from spad.errors import SpadError
from spad.phantoms import phantom
from spad.volumes.volume import Volume

_WATER = 0.0193
"""Attenuation of water per mm at about 70 keV."""
_PHOTONS = 4e5
"""Photons per pixel of the detector without a patient."""
_RADIOGRAPH_MM = 1.5
_RADIOGRAPH_SHAPE = (240, 48, 272)
_DEPTH_MM = 6.0

_ECHO_HU = (-1000, -400, -200, -100, -20, 6, 20, 45, 70, 96, 112, 130, 170, 250, 600)
_ECHO = (0.0, 0.9, 0.6, 0.4, 0.25, 0.004, 0.01, 0.12, 0.18, 0.4, 0.25, 0.03, 0.02, 0.5, 0.9)
"""How strongly tissue of a HU value scatters ultrasound: fluid and blood do not, gas and bone do.

Values between those of `_ECHO_HU` are interpolated.
"""
_SLAB_SHAPE = (6, 280, 340)
_SECTOR_MM = 0.7
_SECTOR_SHAPE = (256, 320)
_ANGLE = np.radians(38)
_APEX = 60.0
"""Pixels from the middle of the probe's arc to its centre."""
_BEAMS, _SAMPLES = 224, 560
_DYNAMIC_DB = 60.0

_PHOTOGRAPH_MM = 0.042
_PHOTOGRAPH_SIDE = 320


def flat_phantom(seed: int, modality: str) -> Volume:
    """Make a flat scan of a random patient.

    The same arguments always give the same pixels.

    Args:
        seed: which patient.
        modality: "DX" (radiograph: the abdomen projected from front to back, int16), "US"
            (ultrasound: a sector with speckle of Rayleigh statistics, uint8) or "OP" (a colour
            photograph of the fundus, three channels of uint8).

    Returns:
        One slice, (1, H, W), or (3, 1, H, W) for "OP".

    Raises:
        SpadError: another modality.
    """
    make = _MAKERS.get(modality)
    if make is None:
        raise SpadError(
            f"A flat phantom of modality {modality!r} was asked for; expected "
            f"{', '.join(_MAKERS)}; choose one."
        )
    return make(seed, np.random.default_rng([seed, *modality.encode()]))


def _volume(array: np.ndarray, mm: float, modality: str, upright: bool = True) -> Volume:
    """Put an image in a coronal plane (upright) or an axial one, seen as in radiology."""
    down = (0, 0, -mm) if upright else (0, -mm, 0)
    through = (0, -1, 0) if upright else (0, 0, -1)
    affine = np.eye(4)
    affine[:3, :3] = np.array([through, down, (-mm, 0, 0)], float).T
    colour = array.ndim == 4
    axes = "czyx" if colour else "zyx"
    return Volume.from_array(array, affine, axes=axes, modality_hint=modality, rgb=colour)


def _radiograph(seed: int, rng: np.random.Generator) -> Volume:
    """Project a CT phantom from front to back on a noisy detector; absorbing tissue is bright."""
    spacing = (_RADIOGRAPH_MM, _DEPTH_MM, _RADIOGRAPH_MM)
    values = phantom(seed, "CT", spacing, _RADIOGRAPH_SHAPE).image.values()
    density = np.maximum(1 + values / 1000, 0)
    density += 0.8 * np.maximum(values - 250, 0) / 1000  # bone absorbs more than its density tells
    path = _WATER * _DEPTH_MM * density.sum(axis=1)
    scattered = ndimage.gaussian_filter(np.exp(-path), 20 / _RADIOGRAPH_MM)
    counts = rng.poisson(_PHOTONS * (np.exp(-path) + 0.3 * scattered))
    shown = -np.log(np.maximum(counts, 1) / _PHOTONS)
    shown -= 0.6 * ndimage.gaussian_filter(shown, 40 / _RADIOGRAPH_MM)  # evens out the background
    low, high = np.percentile(shown, (0.5, 99.5))
    array = np.clip(500 + 3000 * (shown - low) / (high - low), 0, 4095).round().astype(np.int16)
    # the phantom's axes run to the head, so the head comes up by turning its rows round
    return _volume(array[None, ::-1], _RADIOGRAPH_MM, "DX")


def _ultrasound(seed: int, rng: np.random.Generator) -> Volume:
    """Send beams from the skin into an axial slice of a CT phantom and compress the echoes."""
    beams = _in_beams(seed, rng)
    smooth = ndimage.gaussian_filter(beams, (1.5, 1.5))
    scatter = np.interp(smooth, _ECHO_HU, _ECHO)
    surface = np.abs(ndimage.gaussian_filter1d(smooth, 2, axis=1, order=1)) / 60
    loss = 0.08 * (smooth < -300) + 0.06 * (smooth > 280)
    passed = np.exp(-np.cumsum(loss, axis=1))
    echoes = np.sqrt(scatter) * rng.normal(size=(2, *beams.shape))
    echoes[0] += np.minimum(surface, 2.0) * 1.5
    # pulse and beam: many scatterers fall into one cell, so the envelope is Rayleigh distributed
    echoes = ndimage.gaussian_filter(echoes, (0, 1.4, 1.8))
    envelope = np.hypot(*echoes) * passed
    decibels = 20 * np.log10(np.maximum(envelope, 1e-6) / np.percentile(envelope, 99.5))
    gray = 255 * np.clip(1 + decibels / _DYNAMIC_DB, 0, 1)
    array = _from_beams(gray).round().astype(np.uint8)
    return _volume(array[None], _SECTOR_MM, "US", upright=False)


def _in_beams(seed: int, rng: np.random.Generator) -> np.ndarray:
    """Sample a tilted slice of a patient: (beams, samples) HU, from the skin down."""
    tilt = float(rng.uniform(-25, 25))
    plane = phantom(seed, "CT", (2.0, 1.0, 1.0), _SLAB_SHAPE, tilt).image.values(
        _SLAB_SHAPE[0] // 2
    )
    body = ndimage.binary_opening(plane > -500, iterations=5)
    top = int(np.flatnonzero(body.any(axis=1))[0]) - 2
    centre = _SLAB_SHAPE[2] / 2 + float(rng.uniform(-65, 65))
    rows, columns = _beam_places()
    across = (columns - _SECTOR_SHAPE[1] / 2) * _SECTOR_MM + centre
    places = (rows * _SECTOR_MM + top, across)
    return np.asarray(ndimage.map_coordinates(plane, places, order=1, mode="nearest"))


def _beam_places() -> tuple[np.ndarray, np.ndarray]:
    """Row and column in the sector image of each sample of each beam."""
    angle = np.linspace(-_ANGLE, _ANGLE, _BEAMS)[:, None]
    radius = _APEX + np.linspace(0, _SECTOR_SHAPE[0] - 1, _SAMPLES)[None]
    return radius * np.cos(angle) - _APEX, radius * np.sin(angle) + _SECTOR_SHAPE[1] / 2


def _from_beams(beams: np.ndarray) -> np.ndarray:
    """Bring (beams, samples) into the sector image; 0 outside the sector."""
    row, column = np.indices(_SECTOR_SHAPE, dtype=float)
    y, x = row + _APEX, column - _SECTOR_SHAPE[1] / 2
    beam = (np.arctan2(x, y) + _ANGLE) / (2 * _ANGLE) * (_BEAMS - 1)
    sample = (np.hypot(x, y) - _APEX) / (_SECTOR_SHAPE[0] - 1) * (_SAMPLES - 1)
    return np.asarray(ndimage.map_coordinates(beams, (beam, sample), order=1, cval=0))


def _photograph(seed: int, rng: np.random.Generator) -> Volume:
    """Paint a retina: disc, fovea and vessels on an orange ground, in a round aperture."""
    side = _PHOTOGRAPH_SIDE
    y, x = np.indices((side, side)) / side - 0.5
    eye = rng.choice((-1, 1))
    disc = np.array((rng.normal(0, 0.02), eye * rng.uniform(0.2, 0.26)))
    from_disc = np.hypot((y - disc[0]) / 0.062, (x - disc[1]) / 0.055)
    from_fovea = np.hypot(y - disc[0] - 0.03, x - disc[1] + eye * 0.3)
    ground = np.array((0.78, 0.38, 0.16)) * rng.normal(1, (0.06, 0.1, 0.15))
    texture = ndimage.gaussian_filter(rng.normal(size=(side, side)), 5) * 5
    image = ground[:, None, None] * (1 + 0.07 * texture)
    image *= 1 - np.array((0.25, 0.4, 0.3))[:, None, None] * np.exp(-((from_fovea / 0.06) ** 2))
    for colour, width, veins in (((0.66, 0.2, 0.1), 4.4, True), ((0.78, 0.3, 0.13), 3.2, False)):
        cover = _vessels(disc, eye, width, veins, rng)
        image += 0.85 * cover * (np.array(colour)[:, None, None] - image)
    for colour, size in (((0.98, 0.8, 0.5), 1.0), ((1.0, 0.93, 0.74), rng.uniform(0.35, 0.6))):
        cover = 0.8 / (1 + np.exp((from_disc - size) * 14))
        image += cover * (np.array(colour)[:, None, None] - image)
    radius = np.hypot(y, x)
    image *= 1 - 2.2 * radius**2
    image += rng.normal(0, 0.012, image.shape)
    image *= np.clip((0.48 - radius) * side, 0, 1)
    array = (255 * np.clip(image, 0, 1)).round().astype(np.uint8)
    return _volume(array[:, None], _PHOTOGRAPH_MM, "OP")


def _vessels(
    disc: np.ndarray, eye: int, width: float, veins: bool, rng: np.random.Generator
) -> np.ndarray:
    """Cover of a tree of vessels that leaves the disc upwards and downwards: (H, W) in [0, 1]."""
    cover = np.zeros((2 * _PHOTOGRAPH_SIDE,) * 2, np.float32)
    for up in (-1, 1):
        for towards in (-1, 1):  # the branch around the fovea, and the one away from it
            angle = np.arctan2(up, -eye * towards * (0.25 if veins else 0.35))
            bend = up * eye * towards * rng.uniform(0.55, 0.8)
            _grow(cover, disc, angle, bend, width, 0.55 if towards > 0 else 0.35, rng)
    smooth = ndimage.gaussian_filter(cover, 1.0)
    side = _PHOTOGRAPH_SIDE
    return np.asarray(smooth.reshape(side, 2, side, 2).mean(axis=(1, 3)))


def _grow(
    cover: np.ndarray,
    place: np.ndarray,
    angle: float,
    bend: float,
    width: float,
    length: float,
    rng: np.random.Generator,
) -> None:
    """Draw one vessel and, from places along it, its branches.

    Args:
        cover: painted in place, twice as fine as the image.
        place: where it begins, (row, column) from the middle in sides of the image.
        angle: of its beginning.
        bend: how far it turns over its length, in radians.
        width: in pixels of the image.
        length: in sides of the image.
        rng: of its wiggles and branches.
    """
    steps = max(2, int(length * len(cover)))
    turns = bend / steps + rng.normal(0, 0.02, steps)
    angles = angle + np.cumsum(turns)
    path = place + np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1), axis=0) / len(cover)
    for step, (y, x) in enumerate((path + 0.5) * len(cover)):
        _stamp(cover, y, x, width * (1 - 0.6 * step / steps))
    if width < 1.6:
        return
    for at in np.sort(rng.uniform(0.15, 0.95, int(rng.integers(2, 5)))):
        step, side = int(at * steps), rng.choice((-1, 1))
        thin = width * (1 - 0.6 * at) * rng.uniform(0.45, 0.7)
        turn = angles[step] + side * rng.uniform(0.4, 0.9)
        _grow(cover, path[step], turn, -side * rng.uniform(0, 0.7), thin, length * 0.5, rng)


def _stamp(cover: np.ndarray, y: float, x: float, radius: float) -> None:
    """Paint a disc; what lies outside the image is left out."""
    top, left = max(0, int(y - radius)), max(0, int(x - radius))
    part = cover[top : max(0, int(y + radius) + 2), left : max(0, int(x + radius) + 2)]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    part[(rows + top - y) ** 2 + (columns + left - x) ** 2 <= radius**2] = 1


_MAKERS: dict[str, Callable[[int, np.random.Generator], Volume]] = {
    "DX": _radiograph,
    "US": _ultrasound,
    "OP": _photograph,
}
FLAT_MODALITIES = tuple(_MAKERS)
"""DICOM's words: digital radiography, ultrasound, ophthalmic photography."""
