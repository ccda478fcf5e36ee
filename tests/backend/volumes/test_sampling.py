"""Statistics of large scans are those of a stated sample; small ones stay exact."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from spad.volumes import info, intensity, statistics
from spad.volumes.statistics import sample, stored_statistics
from spad.volumes.volume import Volume

SHAPES = [(1000, 64, 64), (64, 1000, 64), (60, 12, 128, 128), (1, 3000, 3000), (3000, 3000, 1)]


class Touched:
    """An array that tells how much of it was asked for."""

    def __init__(self, array):
        self.array, self.strides = array, array.strides
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getitem__(self, key):
        self.key = key
        return self.array[key]


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE_VOXELS", 1 << 16)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_is_small_and_spread(small_limits, shape, order):
    array = np.zeros(shape, np.int16, order=order)
    touched = Touched(array)
    found = sample(touched)
    assert (1 << 16) / 4 <= found.size <= (1 << 16) * 4
    fastest = int(np.argmin(array.strides))
    assert touched.key[fastest].step == 1
    for part, length in zip(touched.key, shape, strict=True):
        taken = range(length)[part]
        assert taken[0] <= length / 2
        assert length - taken[-1] <= max(2 * taken.step, 2)


def test_a_sample_of_a_small_array_is_all_of_it():
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(sample(array), array)


@pytest.mark.parametrize("chunks", [(1, 128, 128), (64, 64, 64), (500, 128, 128)])
def test_a_sample_of_dask_chunks_reads_few_of_them(small_limits, chunks):
    dask = pytest.importorskip("dask.array")
    read = []

    def load(block, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return block + np.int16(7)

    array = dask.zeros((500, 128, 128), chunks=chunks, dtype=np.int16)
    array = array.map_blocks(load, dtype=np.int16, meta=np.zeros((0, 0, 0), np.int16))
    found = sample(array)
    assert isinstance(found, np.ndarray)
    assert set(np.unique(found)) == {7}
    assert (1 << 16) / 4 <= found.size <= (1 << 16) * 4
    assert len(set(read)) == len(read) <= 8
    assert len(read) == min(8, np.prod(array.numblocks))
    volume = Volume.from_array(np.zeros((2, 2, 2), np.int16), np.eye(4))
    wanted = stored_statistics(replace(volume, array=array), (50,), exact_voxels=1000)
    assert (wanted.minimum, wanted.maximum, wanted.sampled) == (7, 7, True)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int32])
def test_exact_below_the_limit_and_close_above(small_limits, dtype):
    array = np.random.default_rng(0).normal(300, 100, (200, 64, 64)).astype(dtype)
    volume = Volume.from_array(array, np.eye(4), slope=2.0, intercept=5.0)
    exact = stored_statistics(volume, (0.5, 99.5), exact_voxels=array.size)
    assert not exact.sampled
    assert exact.voxels == array.size
    assert exact.maximum == pytest.approx(float(array.max()) * 2 + 5)
    found = stored_statistics(volume, (0.5, 99.5), exact_voxels=array.size - 1)
    assert found.sampled
    assert found.voxels < array.size
    assert found.percentiles == pytest.approx(exact.percentiles, abs=15)
    assert stored_statistics(volume, (50,), exact_voxels=None).sampled is False


@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_ends_without_percentiles(slope):
    array = np.random.default_rng(0).integers(-50, 90, (4, 5, 6)).astype(np.int16)
    volume = Volume.from_array(array, np.eye(4), slope=slope, intercept=5.0)
    found = stored_statistics(volume, ())
    units = array * slope + 5
    assert (found.minimum, found.maximum) == (units.min(), units.max())


def test_models_get_exact_limits_and_screens_quick_ones(small_limits, monkeypatch):
    array = np.random.default_rng(0).normal(300, 100, (200, 64, 64)).astype(np.float32)
    volume = Volume.from_array(array, np.eye(4))
    exact = intensity.MR.limits_of(volume)
    assert exact == pytest.approx(intensity.MR.limits(array))
    quick = intensity.MR.limits_of(volume, 1000)
    assert quick != exact
    assert quick == pytest.approx(exact, abs=15)


def test_the_modality_of_a_large_scan_is_guessed_by_a_sample(monkeypatch):
    array = np.full((300, 32, 32), -1000, np.int16)
    array[0, 0, 0] = 3000
    volume = Volume.from_array(array, np.eye(4))
    monkeypatch.setattr(intensity, "QUICK_VOXELS", 1000)
    assert (volume.modality, volume.modality_source) == ("CT", "intensity")


def test_info_says_that_it_sampled(tmp_path, small_limits, monkeypatch):
    array = np.random.default_rng(0).integers(0, 999, (40, 50, 60)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "scan.nii")
    exact = info.describe(tmp_path / "scan.nii")
    assert not any("sample" in note for note in exact["notes"])
    assert exact["intensity"]["max"] == array.max()
    monkeypatch.setattr(info, "EXACT_VOXELS", 1000)
    monkeypatch.setattr(
        info, "stored_statistics", lambda v, p: stored_statistics(v, p, exact_voxels=1000)
    )
    found = info.describe(tmp_path / "scan.nii")
    assert set(found) == set(exact)
    assert "larger than 1,000 voxels" in found["notes"][-1]
