"""The words of the Scan dock for size, tilt and values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_spad.widgets.geometry import FIELDS, describe
from spad.volumes import statistics
from spad.volumes.volume import Volume


def volume_of(degrees=0.0, gantry=0.0, array=None, **kwargs):
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 4, 1.5, 1.5, 1
    affine[1, 0] = 4 * np.tan(np.radians(gantry))
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    if array is None:
        array = np.arange(-100, 500, dtype=np.int16).reshape(6, 10, 10)
    return Volume.from_array(array, turn @ affine, **kwargs)


def test_every_field_has_words():
    words = describe(volume_of())
    assert tuple(words) == FIELDS
    assert words["Tilt"] == "none"
    assert words["Size"].startswith("6 × 10 × 10 voxels")


@pytest.mark.parametrize("degrees", [0.5, 12.0, -30.0])
def test_tilt_is_told_in_degrees(degrees):
    assert describe(volume_of(degrees))["Tilt"].startswith(f"{abs(degrees):.1f}° off the body's")


@pytest.mark.parametrize("degrees", [0.0, 7.0])
def test_gantry_tilt_is_told_as_such(degrees):
    assert describe(volume_of(degrees, gantry=15))["Tilt"].startswith("gantry tilt of 15.0°")


def test_values_have_their_unit():
    ct = volume_of(modality_hint="CT")
    assert describe(ct)["Values"] == "-100 to 499 HU"
    assert describe(ct.with_modality("MR"))["Values"] == "-100 to 499"
    assert describe(dataclasses.replace(ct, unit="SUV"))["Values"] == "-100 to 499 SUV"
    holes = np.ones((6, 10, 10), np.float32)
    holes[0, 0, :3] = np.nan
    assert describe(volume_of(array=holes))["Values"] == "1 to 1; 3 voxels are no number"


def test_of_a_large_scan_the_values_are_about(monkeypatch):
    """2 GB on disk must not be read through for two numbers."""
    looked = []
    stored = statistics._stored
    monkeypatch.setattr(
        statistics,
        "_stored",
        lambda array, *rest: looked.append(array.size) or stored(array, *rest),
    )
    array = np.broadcast_to(np.arange(256, dtype=np.int16), (300, 256, 256))
    words = describe(volume_of(array=array, modality_hint="CT"))["Values"]
    assert words.startswith("about ")
    assert words.endswith(" HU (from a sample)")
    assert max(looked) < 0.3 * array.size


def test_labels_are_named():
    labels = volume_of(array=np.ones((6, 10, 10), np.uint8), label_names={})
    assert describe(labels)["Values"] == "labels without names"
    names = {n: f"organ_{n}" for n in range(1, 6)}
    labels = dataclasses.replace(labels, label_names=names)
    assert describe(labels)["Values"] == "5 labels: organ 1, organ 2, organ 3, ..."


def test_times_and_colours():
    array = np.zeros((4, 6, 10, 10), np.uint8)
    assert "4 times" in describe(volume_of(array=array, axes="tzyx"))["Size"]
    assert "4 channels" in describe(volume_of(array=array, axes="czyx"))["Size"]
    assert "in colour" in describe(volume_of(array=array[:3], axes="czyx", rgb=True))["Size"]


def test_what_has_no_orientation_says_so():
    volume = volume_of()
    source = dataclasses.replace(volume.source, format="image")
    words = describe(dataclasses.replace(volume, source=source))
    assert words["Orientation"].startswith("not stated in the file")
