"""Flat phantoms: their form, their physics, and the same every time."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from spad.errors import SpadError
from spad.phantoms_2d import FLAT_MODALITIES, flat_phantom

flat = cache(flat_phantom)


@pytest.mark.parametrize("modality", FLAT_MODALITIES)
def test_form(modality: str) -> None:
    volume = flat(1, modality)
    assert volume.da == 5
    assert volume.modality == modality
    assert volume.rgb == (modality == "OP")
    assert volume.axes == ("czyx" if volume.rgb else "zyx")
    assert volume.array.dtype == (np.int16 if modality == "DX" else np.uint8)
    assert min(volume.array.shape[-2:]) >= 240
    # upright and radiological: rows run downwards, columns to the patient's left
    assert volume.orientation[1:] == ("PL" if modality == "US" else "IL")


@pytest.mark.parametrize("modality", ["US", "OP"])
def test_one_seed_is_one_patient(modality: str) -> None:
    again = flat_phantom(1, modality).array
    assert np.array_equal(again, flat(1, modality).array)
    assert (again != flat_phantom(2, modality).array).mean() > 0.2


def test_radiograph_shows_the_spine_bright_and_the_air_dark() -> None:
    plane = flat(1, "DX").values()[0]
    middle = plane.shape[1] // 2
    lungs = np.r_[middle - 60 : middle - 35, middle + 35 : middle + 60]
    assert plane[:60, middle - 8 : middle + 8].mean() > plane[:60, lungs].mean() + 500
    assert plane[60:180, middle - 90 : middle + 90].mean() > plane[60:180, :15].mean() + 1000


def test_speckle_has_rayleigh_statistics() -> None:
    """Mean over standard deviation of a Rayleigh distributed amplitude is 1.91, nearly."""
    volume = flat(1, "US")
    gray = volume.values()[0]
    amplitude = 10 ** (gray / 255 * 60 / 20)
    ratios = [
        amplitude[y : y + 24, x : x + 24].mean() / amplitude[y : y + 24, x : x + 24].std()
        for y in range(40, 200, 24)
        for x in range(100, 220, 24)
        if (gray[y : y + 24, x : x + 24] > 0).mean() > 0.99
    ]
    assert len(ratios) > 8
    # edges, vessels and shadows within a patch only lower it
    assert 1.6 < np.percentile(ratios, 80) < 2.1


def test_sector_is_black_outside() -> None:
    gray = flat(1, "US").array[0]
    assert (gray[:40, :60] == 0).all()
    assert (gray[:40, -60:] == 0).all()


def test_photograph_has_a_bright_disc_and_a_round_aperture() -> None:
    image = flat(1, "OP").array[:, 0].astype(float)
    assert (image[:, :20, :20] == 0).all()
    red, green, blue = (channel[160 - 60 : 160 + 60].mean() for channel in image)
    assert red > green > blue
    smooth = ndimage.gaussian_filter(image[1], 5)
    y, x = np.unravel_index(smooth.argmax(), smooth.shape)
    assert 120 < y < 200
    assert abs(x - 160) > 40


def test_unknown_modality() -> None:
    with pytest.raises(SpadError, match="expected DX, US, OP"):
        flat_phantom(1, "MG")
