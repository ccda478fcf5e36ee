"""Statistics of a scan and its labels, against numpy on the whole array."""

from __future__ import annotations

import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.volume import Volume
from spad.worker.describe import describe


def test_a_scan_and_its_labels(scan):
    marks = np.zeros(scan.array.shape, dtype=np.uint8)
    marks[3:9, 5:20, 10:30] = 2
    marks[12, 0, 0] = 7
    report = describe(scan, scan.with_array(marks, label_names={2: "liver"}))
    values = scan.values().astype(float)
    assert report["voxels"] == report["finite"] == values.size
    assert (report["min"], report["max"]) == (values.min(), values.max())
    assert report["mean"] == pytest.approx(values.mean())
    assert report["sd"] == pytest.approx(values.std())
    assert list(report["labels"]) == ["liver", "7"]
    liver = report["labels"]["liver"]
    assert (liver["id"], liver["voxels"]) == (2, 6 * 15 * 20)
    assert liver["volume_ml"] == pytest.approx(6 * 15 * 20 * 2.5 * 0.8 * 0.8 / 1000)
    assert liver["mean"] == pytest.approx(values[marks == 2].mean())
    assert liver["sd"] == pytest.approx(values[marks == 2].std())
    assert report["labels"]["7"]["sd"] == 0


def test_voxels_that_are_not_finite_do_not_count():
    array = np.ones((2, 3, 4), dtype=np.float32)
    array[0, 0, 0], array[0, 0, 1] = np.nan, np.inf
    volume = Volume.from_array(array, np.eye(4))
    marks = np.zeros(array.shape, dtype=np.int64)
    marks[0, 0] = 1
    marks[0, 0, 1] = 5
    report = describe(volume, volume.with_array(marks, label_names={}))
    assert (report["finite"], report["min"], report["max"]) == (22, 1, 1)
    one = {"id": 1, "voxels": 3, "volume_ml": 0.003, "mean": 1, "sd": 0}
    one |= {"slices": 1, "diameter_mm": 3}
    assert report["labels"]["1"] == pytest.approx(one)
    assert report["labels"]["5"]["mean"] is None
    nothing = describe(Volume.from_array(np.full((1, 2, 2), np.nan), np.eye(4)))
    assert (nothing["finite"], nothing["min"], nothing["mean"], nothing["sd"]) == (0,) + (None,) * 3


def test_labels_of_one_time_or_of_each():
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(np.int16)
    volume = Volume.from_array(array, np.eye(4), axes="tzyx")
    still = np.zeros((3, 4, 5), dtype=np.uint8)
    still[1] = 1
    moving = np.stack([still, np.roll(still, 1, axis=0)])
    one = describe(volume, volume.with_array(still, label_names={}))["labels"]["1"]
    each = describe(volume, volume.with_array(moving, label_names={}))["labels"]["1"]
    assert (one["voxels"], each["voxels"]) == (20, 40)
    assert one["volume_ml"] == each["volume_ml"] == pytest.approx(0.02)
    assert one["mean"] == pytest.approx(array[:, 1].mean())
    assert each["mean"] == pytest.approx(array[moving == 1].mean())


def test_labels_of_another_scan_are_refused(scan):
    elsewhere = scan.affine.copy()
    elsewhere[0, 3] += 5
    marks = np.zeros(scan.array.shape, dtype=np.uint8)
    with pytest.raises(SpadError, match="another grid"):
        describe(scan, Volume.from_array(marks, elsewhere, label_names={}))
    with pytest.raises(SpadError, match="another grid"):
        describe(scan, Volume.from_array(marks[1:], scan.affine, label_names={}))
    with pytest.raises(SpadError, match="whole numbers"):
        describe(scan, scan.with_array(marks.astype(float), label_names={}))


def test_a_callback_can_stop_it(scan):
    def stop(fraction, text):
        if fraction > 0.5:
            raise KeyError(text)

    with pytest.raises(KeyError, match="Measuring"):
        describe(scan, progress=stop)
