"""Large scans: mapped, never copied, and right where one looks."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import textwrap

import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_spad import layers, scaled
from napari_spad.reader import read_layer
from napari_spad.scaled import ScaledArray, paintable, scaled_dtype
from napari_spad.writer import write_labels
from spad.volumes import statistics
from spad.volumes.volume import Volume

AFFINE = np.diag([-0.7, -0.7, 1.0, 1.0])
GROWTH_MB = 250

MEASURE = """
import json, resource, sys
import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer, Labels
from napari_spad.reader import read_layer
from napari_spad.layers import volume_of

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None

def look(path):
    viewer = ViewerModel()
    layer = Layer.create(*read_layer(path))
    viewer.add_layer(layer)
    for axis in range(layer.ndim - 2):
        for step in (3, 40, 20):
            viewer.dims.set_current_step(axis, step)
    volume = volume_of(layer)
    spot = tuple(np.array(layer.data.shape) // 2)
    found = {"value": float(layer.data[spot]), "mapped": mapped(volume.array)}
    found |= {"layer": type(layer.data).__name__, "dtype": str(layer.data.dtype)}
    if isinstance(layer, Labels):
        layer.data_setitem(tuple(np.array([n // 3]) for n in layer.data.shape), 1)
        found["painted"] = int(layer.data[tuple(n // 3 for n in layer.data.shape)])
    return found

look(sys.argv[1])
start, result = peak(), {}
for path in sys.argv[2:]:
    before = peak()
    result[path.rpartition("/")[2]] = look(path) | {"growth": peak() - start}
print(json.dumps(result))
"""


def sparse(path, size, head):
    """Write a header and a hole that takes no room on the disk, with one number in the middle."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    if path.stat().st_blocks * 512 > 1 << 24:
        pytest.skip("this file system has no sparse files")
    return path


def put(path, offset, shape, index, value, dtype="<i2"):
    place = int(np.ravel_multi_index(index, shape, order="F"))
    with path.open("rb+") as file:
        file.seek(offset + place * np.dtype(dtype).itemsize)
        file.write(np.array(value, dtype).tobytes())


def nifti(path, shape, slope=1.0, inter=0.0):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_qform(AFFINE, 1)
    header.set_sform(AFFINE, 1)
    header.set_slope_inter(slope, inter)
    header["vox_offset"] = 352
    head = header.binaryblock + b"\0\0\0\0"
    sparse(path, 2 * int(np.prod(shape, dtype=np.int64)), head)
    return path, len(head)


def nrrd(path, shape):
    head = textwrap.dedent(f"""\
        NRRD0004
        type: short
        dimension: 3
        space: left-posterior-superior
        sizes: {" ".join(map(str, shape))}
        space directions: (0.7,0,0) (0,0.7,0) (0,0,1)
        kinds: domain domain domain
        endian: little
        encoding: raw
        space origin: (0,0,0)

        """).encode()
    return sparse(path, 2 * int(np.prod(shape, dtype=np.int64)), head), len(head)


def mha(path, shape):
    head = textwrap.dedent(f"""\
        ObjectType = Image
        NDims = 3
        BinaryData = True
        BinaryDataByteOrderMSB = False
        CompressedData = False
        TransformMatrix = 1 0 0 0 1 0 0 0 1
        Offset = 0 0 0
        ElementSpacing = 0.7 0.7 1
        DimSize = {" ".join(map(str, shape))}
        ElementType = MET_SHORT
        ElementDataFile = LOCAL
        """).encode()
    return sparse(path, 2 * int(np.prod(shape, dtype=np.int64)), head), len(head)


def test_two_gigabytes_open_without_a_copy(tmp_path):
    pytest.importorskip("resource", reason="the peak of memory is read from the resource module")
    big, series = (1024, 1024, 1024), (256, 256, 273, 60)
    small, _ = nifti(tmp_path / "small.nii", (50, 50, 50))
    files = [
        (*nifti(tmp_path / "plain.nii", big), big),
        (*nifti(tmp_path / "scaled.nii", big, 0.5, -1024.0), big),
        (*nifti(tmp_path / "ct.nii", big, 1.0, -1024.0), big),
        (*nifti(tmp_path / "series.nii", series), series),
        (*nifti(tmp_path / "big_labels.nii", big), big),
        (*nrrd(tmp_path / "plain.nrrd", big), big),
        (*mha(tmp_path / "plain.mha", big), big),
    ]
    (tmp_path / "big_labels.labels.json").write_text('{"7": "liver"}')
    for path, offset, shape in files:
        # the middle as a layer shows it, whose spatial axes may run backwards
        for corner in np.ndindex((2,) * 3):
            spot = [n // 2 - back for n, back in zip(shape, corner, strict=False)]
            put(path, offset, shape, (*spot, *(n // 2 for n in shape[3:])), 7)
    untouched = {path: path.stat().st_mtime_ns for path, _, _ in files}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(small), *(str(f[0]) for f in files)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, one in found.items():
        assert one["mapped"], name
        assert one["growth"] < GROWTH_MB, (name, one)
    units = {name: one["value"] for name, one in found.items()}
    assert units.pop("scaled.nii") == 0.5 * 7 - 1024
    assert units.pop("ct.nii") == 7 - 1024
    assert set(units.values()) == {7.0}
    assert found["big_labels.nii"]["painted"] == 1
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(layers, "LARGE_BYTES", 0)
    monkeypatch.setattr(layers, "QUICK_VOXELS", 10)


def scan_file(path, slope, inter, affine=AFFINE, shape=(6, 7, 8)):
    data = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("slope", "inter"), [(0.5, -3.0), (1, -1024), (3, 2), (-1, 0)])
def test_a_scaled_view_is_what_a_copy_would_be(tmp_path, monkeypatch, slope, inter):
    path = scan_file(tmp_path / "scan.nii", slope, inter)
    plain = np.asarray(read_layer(path)[0])
    monkeypatch.setattr(layers, "LARGE_BYTES", 0)
    data, kwargs, _ = read_layer(path)
    assert isinstance(data, ScaledArray)
    assert data.shape == plain.shape
    assert len(data) == len(plain)
    assert (data.size, data.ndim) == (plain.size, 3)
    for key in (
        (1, 2, 3),
        1,
        (slice(None), 2),
        (..., 3),
        (slice(5, None, -2), slice(1, 3)),
        (np.array([0, 1]), np.array([2, 3]), np.array([1, 1])),
        slice(None),
    ):
        assert np.array_equal(data[key], plain[key])
    assert np.array_equal(np.asarray(data), plain)
    assert np.array_equal(data > 0, plain > 0)
    assert np.array_equal(data.astype(np.float64), plain.astype(np.float64))
    assert np.max(data) == plain.max()
    twin = copy.deepcopy(data)
    assert twin.stored is data.stored
    layer = Layer.create(data, kwargs, "image")
    assert layer.data is data
    assert layers.volume_of(layer).slope == slope


def test_a_duplicate_of_a_large_scan_can_be_written(tmp_path, everything_is_large):
    from napari.layers import _layer_actions as actions

    path = scan_file(tmp_path / "scan.nii", 0.5, -3.0)
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*read_layer(path)))
    viewer.layers.selection.active = viewer.layers[0]
    actions._duplicate_layer(viewer.layers)
    actions._convert_to_labels(viewer.layers)
    volume = layers.volume_of(viewer.layers[1])
    assert np.allclose(volume.values(), nibabel.load(path).get_fdata().transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "ends", "wanted"),
    [
        (np.int16, 1, -1024, (0, 4095), np.int16),
        (np.int16, 1, -1024, None, np.int32),
        (np.uint8, 2, 0, None, np.int16),
        (np.int16, 0.5, 0, (0, 10), np.float32),
        (np.int32, 10, 0, None, np.float32),
        (np.float32, 2, 0, None, np.float32),
    ],
)
def test_the_type_of_scaled_voxels(dtype, slope, intercept, ends, wanted):
    assert scaled_dtype(np.dtype(dtype), slope, intercept, ends) == wanted


def test_scaling_keeps_the_layout_and_takes_no_second_copy():
    stored = np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    result = scaled.scaled(stored, 2, 1, np.dtype(np.int16))
    assert result.strides == stored.strides
    assert np.array_equal(result, stored * 2 + 1)


def test_large_labels_are_painted_in_memory_alone(tmp_path, everything_is_large, monkeypatch):
    data = np.random.default_rng(0).integers(0, 3, (6, 7, 8)).astype(np.int16)
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    path = tmp_path / "scan_labels.nii"
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    before = path.read_bytes()
    layer = Layer.create(*read_layer(path))
    assert isinstance(layer, Labels)
    assert np.array_equal(np.sort(layer.data, axis=None), np.sort(data, axis=None))
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 9)
    assert layer.data[1, 2, 3] == 9
    layer.undo()
    assert layer.data[1, 2, 3] != 9
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 9)
    assert path.read_bytes() == before
    attributes = layer.as_layer_data_tuple()[1]
    # onto the very file that is mapped
    write_labels(str(path), layer.data, attributes)
    again = np.asarray(nibabel.load(path).dataobj)
    assert np.count_nonzero(again != data) == 1
    assert again[again != data] == 9
    assert layer.data[1, 2, 3] == 9


def test_labels_in_memory_cannot_be_mapped():
    assert paintable(np.zeros((3, 4, 5))) is None


def test_contrast_of_a_large_scan_is_that_of_a_sample(monkeypatch):
    monkeypatch.setattr(layers, "QUICK_VOXELS", 1000)
    monkeypatch.setattr(statistics, "SAMPLE_VOXELS", 4000)
    rng = np.random.default_rng(0)
    array = rng.normal(500, 100, (40, 32, 32)).astype(np.float32)
    volume = Volume.from_array(array, AFFINE, modality_hint="MR")
    low, high = layers.display_limits(volume)
    exact = np.percentile(array, (0.5, 99.5))
    assert (low, high) != tuple(exact)
    assert (low, high) == pytest.approx(exact, abs=15)


def test_the_file_s_own_window_rules():
    volume = Volume.from_array(np.zeros((3, 4, 5), np.int16), AFFINE, modality_hint="CT")
    import dataclasses

    assert layers.display_limits(volume) == (-125, 275)
    own = dataclasses.replace(volume, window=(-1000.0, 400.0))
    assert layers.display_limits(own) == (-1000, 400)


def test_a_series_of_sixty_phases_scrolls(tmp_path):
    data = np.random.default_rng(0).integers(0, 400, (16, 16, 6, 60)).astype(np.int16)
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((0.7, 0.7, 1.0, 800.0))
    nibabel.save(image, tmp_path / "phases.nii")
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*read_layer(tmp_path / "phases.nii")))
    layer = viewer.layers[0]
    assert isinstance(layer.data, np.memmap)
    assert str(layer.units[0]) == "millisecond"
    assert layer.scale[0] == 800
    for phase in (0, 31, 59):
        viewer.dims.set_point(0, 800.0 * phase)
        viewer.dims.set_current_step(1, 2)
        assert np.array_equal(layer._slice.image.raw, layer.data[phase, 2])
