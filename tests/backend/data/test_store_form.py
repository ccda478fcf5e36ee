"""The form of a stored volume: depth, crop, size, values, series and pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spad.data.stored_form import Stored, volumes_of, weight_of_part
from spad.errors import SpadError
from spad.volumes.files import read
from spad.volumes.volume import Volume


def scan(array: np.ndarray, spacing=(3.0, 1.0, 1.0), **more) -> Volume:
    z, y, x = spacing
    affine = np.array([[0, 0, -x, 0], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume.from_array(array, affine, **more)


def form(volume: Volume, labels: Volume | None = None, side=512, orientation=None) -> Stored:
    (stored,) = volumes_of(volume, labels, side, orientation, None)
    return stored


def noise(shape=(10, 30, 40), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)


def test_background_is_cropped_and_labels_with_it() -> None:
    array = np.zeros((10, 30, 40), np.int16)
    array[2:7, 5:25, 8:30] = noise((5, 20, 22)) + 50
    labels = (array > 500).astype(np.uint8)
    stored = form(scan(array), scan(labels, label_names={}))
    assert stored.image.shape == (1, 5, 20, 22)
    assert np.array_equal(stored.image[0], array[2:7, 5:25, 8:30])
    assert stored.labels is not None
    assert np.array_equal(stored.labels, stored.image[0] > 500)
    assert stored.origin_shape == (10, 30, 40)


def test_axes_are_canonical_whatever_the_file_s_are() -> None:
    array = noise()
    turned = Volume.from_array(
        np.ascontiguousarray(array[:, ::-1, ::-1]),
        np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]]),
    )
    stored = form(turned)
    assert np.array_equal(stored.image[0], array)
    assert stored.orientation == "IPL"
    assert (stored.spacing, stored.da) == ((3.0, 1.0, 1.0), 1)


def test_a_wide_scan_shrinks_in_plane_by_area_means() -> None:
    array = noise((4, 32, 48))
    labels = np.zeros_like(array, np.uint8)
    labels[:, :16] = 1
    stored = form(scan(array), scan(labels, label_names={}), side=16)
    means = array.reshape(4, 16, 2, 24, 2).mean((2, 4))
    assert np.abs(stored.image[0] - means).max() <= 0.5
    assert stored.spacing == (3.0, 2.0, 2.0)
    assert stored.da == 0
    assert stored.labels is not None
    assert (stored.labels[:, :8] == 1).all()
    assert (stored.labels[:, 8:] == 0).all()


def test_values_that_are_no_integers_become_4096_steps() -> None:
    values = np.random.default_rng(0).gamma(2, 0.01, (6, 30, 30)).astype(np.float32)
    stored = form(scan(values, modality_hint="PT"))
    low, high = np.percentile(values[values > values.min()], (0.5, 99.5))
    unit = np.clip((values - low) / (high - low), 0, 1)
    assert stored.limits == (0, 4095)
    assert np.abs(stored.image[0] / 4095 - unit).max() < 2e-4
    assert stored.figures["max"] == pytest.approx(values.max())
    assert stored.figures["p99_5"] == pytest.approx(high, rel=1e-4)


def test_hu_with_a_slope_are_rounded_and_kept_beyond_the_window() -> None:
    array = np.arange(4 * 20 * 20, dtype=np.uint16).reshape(4, 20, 20)
    stored = form(scan(array, slope=1.5, intercept=-1024, modality_hint="CT"))
    assert stored.image.dtype == np.int16
    hu = array * 1.5 - 1024
    assert np.abs(stored.image[0] - hu[-4:]).max() <= 0.5
    assert stored.limits == (-125, 275)
    assert stored.span == pytest.approx(np.percentile(hu[hu > -1024], (0.5, 99.5)), abs=2)


def test_a_ct_that_is_not_in_hu_is_scaled_by_percentiles() -> None:
    stored = form(scan(noise(), modality_hint="CT"))
    assert stored.span is None
    assert stored.limits != (-125, 275)


def test_a_data_set_s_orientation_goes_before_the_scan_s_own() -> None:
    volume = scan(noise(), spacing=(1.0, 1.0, 1.0))
    assert form(volume).image.shape[1:] == (10, 30, 40)
    assert form(volume, orientation="SAR").orientation == "IPL"
    stored = form(volume, orientation="ASR")
    assert stored.orientation == "PIL"
    assert np.array_equal(stored.image[0], noise().transpose(1, 0, 2))


def test_depth_is_the_odd_axis_where_the_plane_is_uneven() -> None:
    # 1.15 is less than 1.2 times the others, so the scan's own rule takes superior-inferior
    stored = form(scan(noise(), spacing=(1.0, 1.15, 1.0)))
    assert stored.orientation == "PIL"
    assert stored.spacing == pytest.approx((1.15, 1.0, 1.0))


@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.5), (60.0, 1.0, 1.0), (1.0, 55.0, 55.0)])
def test_spacings_that_cannot_be_are_refused(spacing) -> None:
    with pytest.raises(SpadError, match=r"its spacing is .* mm; expected"):
        form(scan(noise(), spacing=spacing))


@pytest.mark.parametrize("array", [np.full((4, 9, 9), 7, np.int16), np.zeros((4, 9, 9))])
def test_a_scan_of_one_value_is_refused(array) -> None:
    with pytest.raises(SpadError, match="are alike"):
        form(scan(array))


def test_labels_are_no_scan_and_must_lie_on_it() -> None:
    labels = scan((noise() > 400).astype(np.uint8), label_names={})
    with pytest.raises(SpadError, match="holds labels"):
        form(labels)
    with pytest.raises(SpadError, match="another grid"):
        form(scan(noise(), spacing=(2.0, 1.0, 1.0)), labels)


def test_a_series_is_split_and_weighs_at_most_two() -> None:
    array = noise((5, 6, 20, 20))
    volumes = list(volumes_of(scan(array, axes="tzyx"), None, 512, None, None))
    assert len(volumes) == 5
    for time, stored in enumerate(volumes):
        assert np.array_equal(stored.image[0], array[time])
    assert weight_of_part(1) == 1
    assert [5 * weight_of_part(5), 1000 * weight_of_part(1000)] == pytest.approx([1.8, 1.999])


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_pictures_are_one_slice_of_whole_bytes(tmp_path, mode, channels) -> None:
    values = np.random.default_rng(0).integers(1, 256, (40, 60, 3)).astype(np.uint8)
    values[:5] = 0
    Image.fromarray(values).convert(mode).save(tmp_path / "photo.png")
    expected = np.asarray(Image.open(tmp_path / "photo.png")).reshape(40, 60, channels)
    stored = form(read(tmp_path / "photo.png"))
    assert stored.image.shape == (channels, 1, 35, 60)
    assert np.array_equal(stored.image[:, 0], np.moveaxis(expected[5:], 2, 0))
    assert (stored.da, stored.limits, stored.image.dtype) == (5, (0, 255), np.uint8)


def test_grey_that_is_saved_as_colour_is_grey(tmp_path) -> None:
    grey = Image.fromarray(noise((40, 60)).astype(np.uint8) | 1)
    grey.convert("RGB").save(tmp_path / "xray.png")
    assert form(read(tmp_path / "xray.png")).image.shape[0] == 1
