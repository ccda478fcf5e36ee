"""Window presets: the figures, which fit which scan, and what a large scan costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from napari.layers import Image

from napari_spad import windows
from spad.volumes.volume import Volume


def scan(modality="MR", unit=None, window=None, dtype=np.int16, shape=(12, 30, 30)):
    array = np.random.default_rng(0).gamma(2.0, 100.0, shape).astype(dtype)
    volume = Volume.from_array(array, np.eye(4), modality_hint=modality)
    return dataclasses.replace(volume, unit=unit, window=window)


def named(volume, name):
    return next(preset for preset in windows.presets(volume) if preset.name == name)


@pytest.mark.parametrize(
    ("name", "low", "high", "words"),
    [
        ("Soft tissue", -160, 240, "Soft tissue  W 400 L 40"),
        ("Liver", -45, 105, "Liver  W 150 L 30"),
        ("Lung", -1350, 150, "Lung  W 1500 L -600"),
        ("Bone", -500, 1300, "Bone  W 1800 L 400"),
        ("Brain", 0, 80, "Brain  W 80 L 40"),
        ("Mediastinum", -125, 225, "Mediastinum  W 350 L 50"),
    ],
)
def test_ct_windows(name, low, high, words):
    volume = scan("CT")
    preset = named(volume, name)
    assert windows.limits(preset, volume) == (low, high)
    assert preset.words == words


def test_the_files_own_window_comes_last():
    volume = scan("CT", window=(-100.0, 300.0))
    assert len(windows.presets(volume)) == 8
    own = windows.presets(volume)[-1]
    assert own.words == "The file's own  W 400 L 100"
    assert windows.limits(own, volume) == (-100, 300)
    assert all(preset.kind != "file" for preset in windows.presets(scan("CT")))


def test_pet_in_suv_has_suv_windows_and_other_pet_has_not():
    names = [preset.name for preset in windows.presets(scan("PT", unit="SUV", dtype=np.float32))]
    assert names[:2] == ["SUV 0 to 5", "SUV 0 to 10"]
    assert "Full" in names
    unknown = [preset.words for preset in windows.presets(scan("PT"))]
    assert unknown[0] == "0 to 5, if SUV"
    counts = [preset.name for preset in windows.presets(scan("PT", unit="Bq/ml"))]
    assert not any("SUV" in name for name in counts)


def test_percentiles_are_those_of_the_voxels_above_the_lowest():
    volume = scan()
    above = volume.array[volume.array > volume.array.min()]
    for name, low, high in (("Full", 0.5, 99.5), ("More contrast", 2, 98)):
        found = windows.limits(named(volume, name), volume)
        assert found == pytest.approx(np.percentile(above, (low, high)), abs=1)


def test_a_constant_scan_has_limits_apart():
    volume = Volume.from_array(np.full((3, 4, 5), 7, np.int16), np.eye(4), modality_hint="MR")
    for preset in windows.presets(volume):
        low, high = windows.limits(preset, volume)
        assert low < high


def test_of_a_large_scan_only_a_sample_is_read(monkeypatch):
    """A file of 2 GB that is mapped must not be read through when it is shown."""
    from spad.volumes import statistics

    looked = []
    stored = statistics._stored
    monkeypatch.setattr(
        statistics,
        "_stored",
        lambda array, *rest: looked.append(array.size) or stored(array, *rest),
    )
    array = np.broadcast_to(np.arange(256, dtype=np.int16), (300, 256, 256))
    volume = Volume.from_array(array, np.eye(4), modality_hint="MR")
    assert windows.limits(named(volume, "Full"), volume) == pytest.approx((2, 254), abs=4)
    windows.limits(named(volume, "More contrast"), volume)
    assert len(looked) == 1
    assert looked[0] < 0.3 * array.size


def test_a_layer_takes_a_window_beyond_its_values():
    volume = scan("CT")
    layer = Image(volume.array, contrast_limits=(0, 100))
    for preset in windows.presets(volume):
        windows.apply(layer, volume, preset)
        assert tuple(layer.contrast_limits) == windows.limits(preset, volume)
        assert windows.chosen(volume, tuple(layer.contrast_limits)) == preset


def test_a_window_set_by_hand_is_none_of_them():
    volume = scan("CT")
    assert windows.chosen(volume, (-1.0, 17.0)) is None


def test_small_windows_keep_their_decimals():
    assert windows.width_and_level(0.0, 0.5) == "W 0.5 L 0.25"
    assert windows.width_and_level(-20.0, 20.0) == "W 40 L 0"
    assert windows.width_and_level(0, 1000) == "W 1000 L 500"


def test_keys_keep_their_window_whatever_the_file_says():
    plain, stated = scan("CT"), scan("CT", window=(-100.0, 300.0))
    assert windows.by_key(3, plain) == windows.by_key(3, stated) == named(plain, "Lung")
    assert windows.by_key(windows.OWN_KEY, plain) is None
    own = windows.by_key(windows.OWN_KEY, stated)
    assert own.kind == "file"
    assert windows.by_key(8, stated) is None
    assert windows.key_number(own, stated) == windows.OWN_KEY
    for volume in (plain, stated, scan("PT", unit="SUV", window=(0.0, 7.0)), scan("MR")):
        for preset in windows.presets(volume):
            assert windows.by_key(windows.key_number(preset, volume), volume) == preset
