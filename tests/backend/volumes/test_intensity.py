"""Intensity contracts, statistics, degree of anisotropy, depth and modality."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.anisotropy import degree_of_anisotropy
from spad.volumes.depth import depth_axis
from spad.volumes.files import read
from spad.volumes.intensity import CT, MR, Intensity, modality_of_name
from spad.volumes.statistics import percentiles, stored_statistics
from spad.volumes.volume import Volume


def volume_of(array: np.ndarray, **more: object) -> Volume:
    return Volume.from_array(array, np.diag([3.0, 1, 1, 1]), **more)


def test_the_ct_window_makes_clipped_and_full_range_alike():
    full = np.array([-1024, -125, -124, 0, 75, 274, 275, 3000], np.float32)
    limits = CT.limits(full)
    assert limits == (-125, 275)
    unit = CT.to_unit(full, limits)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [0, 0, 1 / 400, 0.3125, 0.5, 399 / 400, 1, 1], atol=1e-7)
    np.testing.assert_array_equal(unit, CT.to_unit(np.clip(full, -125, 275), limits))


def test_percentiles_are_of_the_voxels_above_the_minimum():
    values = np.concatenate([np.zeros(5000), np.arange(1, 1001)]).astype(np.float32)
    assert MR.limits(values) == pytest.approx(tuple(np.percentile(np.arange(1, 1001), [0.5, 99.5])))
    padded = np.concatenate([np.zeros(100000, np.float32), values])
    assert MR.limits(padded) == MR.limits(values)


def test_nan_is_background_and_does_not_move_the_limits():
    values = np.arange(1000, dtype=np.float32)
    holed = np.concatenate([values, [np.nan, np.inf, -np.inf]]).astype(np.float32)
    assert MR.limits(holed) == MR.limits(values)
    unit = MR.to_unit(holed, MR.limits(holed))
    assert np.isfinite(unit).all()
    assert unit[-3:].tolist() == [0, 1, 0]
    with pytest.raises(SpadError, match="no finite voxel"):
        MR.limits(np.full(5, np.nan))


@pytest.mark.parametrize("values", [np.zeros(10), np.array([0.0, 1.0] * 5), np.full(4, 7.5)])
def test_nearly_constant_scans_still_have_limits(values):
    lo, hi = MR.limits(values)
    assert lo < hi
    unit = MR.to_unit(values, (lo, hi))
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_the_models_own_affine_and_the_way_back():
    contract = Intensity("window", -125, 275, shift=0.5, scale=0.5, unit="HU")
    values = np.linspace(-125, 275, 50, dtype=np.float32)
    unit = contract.to_unit(values, contract.limits(values))
    model = contract.to_model(unit)
    assert model[0] == -1
    assert model[-1] == 1
    np.testing.assert_allclose(contract.from_model(model), unit, atol=1e-6)
    np.testing.assert_allclose(contract.from_unit(unit, (-125, 275)), values, atol=1e-3)


def test_to_unit_leaves_its_input():
    values = np.array([0.0, 500.0], np.float32)
    CT.to_unit(values, (-125, 275))
    assert values.tolist() == [0, 500]


def test_json_there_and_back():
    for contract in (CT, MR, Intensity("percentiles", 1, 99, 0.2, 0.3, "1")):
        assert Intensity.from_json(json.loads(json.dumps(contract.to_json()))) == contract


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "guess"},
        {"low": 5.0, "high": 5.0},
        {"scale": 0},
        {"low": math.nan},
        {"low": "a"},
        {"kind": "percentiles", "low": -1.0, "high": 50.0},
        {"kind": "percentiles", "low": 1.0, "high": 101.0},
    ],
)
def test_contracts_that_cannot_be_applied(change):
    with pytest.raises(SpadError, match="contract"):
        Intensity.from_json({**CT.to_json(), **change})


def test_contracts_with_missing_or_unknown_keys():
    data = CT.to_json()
    for wrong in ({k: v for k, v in data.items() if k != "unit"}, {**data, "x": 1}, [], None):
        with pytest.raises(SpadError, match="expected the keys"):
            Intensity.from_json(wrong)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4"])
def test_stored_statistics_are_exact(dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 100, (6, 9, 11)).astype(dtype)
    volume = volume_of(array, slope=1.5, intercept=-20.0)
    values = array.astype(float) * 1.5 - 20
    found = stored_statistics(volume, (0.5, 50, 99.5))
    above = values[values > values.min()]
    assert found.minimum == values.min()
    assert found.maximum == values.max()
    assert found.percentiles == pytest.approx(np.percentile(above, [0.5, 50, 99.5]), rel=1e-6)
    assert MR.limits_of(volume) == pytest.approx(MR.limits(volume.values()), rel=1e-6)
    assert percentiles(values, (50,)) == pytest.approx((values.min(), np.percentile(above, 50)))


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_statistics_of_a_constant_scan(dtype):
    found = stored_statistics(volume_of(np.full((2, 3, 4), 7, dtype)), (0.5, 99.5))
    assert (found.minimum, found.maximum, found.percentiles) == (7, 7, (7, 7))


@pytest.mark.parametrize(
    ("spacing", "da"),
    [
        ((1, 1, 1), 0),
        ((1.99, 1, 1), 0),
        ((2, 1, 1), 1),
        ((2 * (1 - 1e-9), 1, 1), 1),
        ((4, 1, 1.5), 2),
        ((5, 0.8, 0.8), 2),
        ((7.7, 1.25, 1.25), 2),
        ((8, 1, 1), 3),
        ((31.9, 1, 1), 4),
        ((100, 1, 1), 5),
        ((0.5, 1, 1), 0),
        ((3, 5, 1.2), 1),
    ],
)
def test_degree_of_anisotropy(spacing, da):
    assert degree_of_anisotropy(spacing) == da


def test_a_single_slice_is_flat():
    assert volume_of(np.zeros((1, 5, 5))).da == 5
    assert volume_of(np.zeros((2, 5, 5))).da == 1


@pytest.mark.parametrize(
    ("shape", "spacing", "stated", "slice_axis", "axis", "word"),
    [
        ((9, 9, 9), (1, 1, 5), None, None, 2, "times the next"),
        ((9, 9, 9), (5, 1, 1), None, 2, 0, "times the next"),
        ((9, 9, 9), (5, 1, 1), 1, 2, 1, "stated"),
        ((9, 9, 9), (1.2, 1, 1), None, None, 0, "times the next"),
        ((9, 9, 9), (1.19, 1, 1), None, 1, 1, "header"),
        ((9, 9, 9), (1.19, 1, 1), None, None, 2, "superior-inferior"),
        ((9, 1, 9), (5, 1, 1), None, None, 1, "single slice"),
    ],
)
def test_which_axis_is_depth(shape, spacing, stated, slice_axis, axis, word):
    found, reason = depth_axis(shape, np.diag([*spacing, 1.0]), stated, slice_axis)
    assert found == axis
    assert word in reason


def test_superior_inferior_of_a_turned_isotropic_scan():
    turned = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert depth_axis((9, 9, 9), turned)[0] == 1


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("ct.nii.gz", "CT"),
        ("example_ct_sm.nii.gz", "CT"),
        ("CT-AVM.nii", "CT"),
        ("patient7_T1w.nii.gz", "MR"),
        ("sub-01_FLAIR.nii.gz", "MR"),
        ("x.mri.nii", "MR"),
        ("PET_image.nii.gz", "PT"),
        ("us 3.nii", "US"),
        ("ct_on_mr.nii.gz", None),
        ("doctor.nii.gz", None),
        ("img0001.nii.gz", None),
        ("act.nii", None),
    ],
)
def test_modality_by_name(name, modality):
    assert modality_of_name(name) == modality


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([-1000, 0, 80], np.int16), ("CT", "intensity")),
        (np.array([-100, 0, 80], np.int16), ("CT", "intensity")),
        (np.array([-99, 0, 80], np.int16), (None, None)),
        (np.array([0, 10, 51], np.int16), ("MR", "intensity")),
        (np.array([0, 10, 50], np.int16), (None, None)),
        (np.array([0, 10, 255], np.uint8), (None, None)),
        (np.array([0, 0.2, 900.0], np.float32), ("MR", "intensity")),
        (np.array([np.nan, 0.2, 900.0], np.float32), ("MR", "intensity")),
    ],
)
def test_modality_by_intensity(array, expected):
    volume = volume_of(array.reshape(1, 1, 3))
    assert (volume.modality, volume.modality_source) == expected


def test_a_person_or_header_comes_first(tmp_path, ct_phantom):
    from spad.volumes.files import write

    write(ct_phantom.image, tmp_path / "mr.nii.gz")
    volume = read(tmp_path / "mr.nii.gz")
    assert (volume.modality, volume.modality_source) == ("MR", "file name")
    stated = volume.with_modality("CT")
    assert (stated.modality, stated.modality_source) == ("CT", "header")
    (tmp_path / "mr_t2").mkdir()
    write(ct_phantom.image, tmp_path / "mr_t2" / "scan.nii.gz")
    assert read(tmp_path / "mr_t2" / "scan.nii.gz").modality_source == "intensity"
    assert read(tmp_path / "mr_t2" / "scan.nii.gz").modality == "CT"


def test_labels_have_no_modality():
    labels = volume_of(np.array([0, 500, 3], np.int16).reshape(1, 1, 3), label_names={})
    assert labels.modality is None


def test_real_scans_tell_their_modality(shared_data):
    for name, modality, source in (
        ("btcv/img0001", "CT", "intensity"),
        ("chaos_t2/img01", "MR", "intensity"),
        ("brain/chris_t1", "MR", "file name"),
        ("sts/STS_002/PET_image", "PT", "file name"),
    ):
        volume = read(shared_data / f"{name}.nii.gz")
        assert (volume.modality, volume.modality_source) == (modality, source)


def test_values_are_in_the_scans_unit():
    volume = volume_of(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), slope=2.0, intercept=-5.0)
    assert volume.values().dtype == np.float32
    np.testing.assert_array_equal(volume.values((slice(1, 2), 0)), [[19, 21, 23, 25]])
    plain = volume_of(np.ones((2, 2, 2), np.float32))
    plain.values()[:] = 9
    assert plain.array.max() == 1
