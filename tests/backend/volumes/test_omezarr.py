"""OME-Zarr: what zarr and the NGFF text say lies where, and lazily if it is large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import omezarr, read

SCAN = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
AXES = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
TIME = {"name": "t", "type": "time", "unit": "millisecond"}
CHANNEL = {"name": "c", "type": "channel"}


def scale(*numbers: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(numbers)}


def translation(*numbers: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(numbers)}


def image(
    path: Path,
    levels: list[np.ndarray],
    transforms: list[list[dict[str, Any]]],
    *,
    axes: Any = AXES,
    version: str = "0.4",
    attributes: dict[str, Any] | None = None,
    chunks: tuple[int, ...] | None = None,
    **more: Any,
) -> Path:
    """Write an NGFF image with zarr itself."""
    form = 2 if version < "0.5" else 3
    group = zarr.open_group(path, mode="w", zarr_format=form)
    for n, level in enumerate(levels):
        array = group.create_array(
            str(n), shape=level.shape, dtype=level.dtype, chunks=chunks or level.shape
        )
        array[...] = level
    datasets = [
        {"path": str(n), "coordinateTransformations": steps} for n, steps in enumerate(transforms)
    ]
    found = {"axes": axes, "datasets": datasets, **more}
    metadata = {"multiscales": [found], **(attributes or {})}
    if form == 2:
        metadata["multiscales"][0]["version"] = version
        group.attrs.update(metadata)
    else:
        group.attrs["ome"] = {"version": version, **metadata}
    return path


def in_file_order(path: Path, **options: Any) -> np.ndarray:
    volume = read(path, **options)
    return np.asarray(to_file_order(volume.array, volume.source))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_units_and_transforms(tmp_path, version):
    """Level first, multiscales after: p = S (s i + t) + T."""
    path = image(
        tmp_path / "scan.zarr",
        [SCAN, SCAN[::2, ::2, ::2]],
        [[scale(3, 0.7, 0.5), translation(10, 20, 30)], [scale(6, 1.4, 1), translation(1, 2, 3)]],
        version=version,
        coordinateTransformations=[scale(1, 1, 2), translation(100, 0, 0)],
        name="abdomen",
    )
    volume = read(path)
    assert np.array_equal(in_file_order(path), SCAN.T)
    assert volume.source.format == "ome-zarr"
    assert volume.source.affine.tolist() == [
        [-1.0, 0, 0, -60],
        [0, -0.7, 0, -20],
        [0, 0, 3, 110],
        [0, 0, 0, 1],
    ]
    assert volume.name == "abdomen"
    assert any("no anatomical orientation" in note for note in volume.notes)
    coarse = read(path / "1")
    assert np.array_equal(to_file_order(coarse.array, coarse.source), SCAN[::2, ::2, ::2].T)
    assert coarse.source.affine[:3, 3].tolist() == [-6, -2, 101]
    assert np.array_equal(in_file_order(path / "0"), SCAN.T)


def test_micrometres_and_stated_spacing(tmp_path):
    axes = [{**axis, "unit": "micrometer"} for axis in AXES]
    path = image(tmp_path / "a.zarr", [SCAN], [[scale(3000, 700, 500)]], axes=axes)
    assert read(path).source.affine.diagonal()[:3] == pytest.approx([-0.5, -0.7, 3])
    stated = read(path, spacing=(1, 2, 4))
    assert stated.source.affine.diagonal()[:3] == pytest.approx([-1, -2, 4])
    assert "the stated spacing of 1 x 2 x 4 mm is used" in " ".join(stated.notes)


def test_no_unit_is_noted(tmp_path):
    path = image(
        tmp_path / "a.zarr",
        [SCAN],
        [[scale(3, 2, 1)]],
        axes=[{"name": name, "type": "space"} for name in "zyx"],
    )
    assert read(path).spacing[0] == 3
    assert "taken as mm" in " ".join(read(path).notes)


def test_times_channels_and_window(tmp_path):
    data = np.arange(2 * 3 * SCAN.size, dtype=np.int32).reshape(2, 3, *SCAN.shape)
    path = image(
        tmp_path / "a.zarr",
        [data],
        [[scale(40, 1, 3, 2, 1)]],
        axes=[TIME, CHANNEL, *AXES],
        attributes={"omero": {"channels": [{"window": {"start": -100, "end": 300}}] * 3}},
    )
    volume = read(path)
    assert volume.axes == "tczyx"
    assert np.array_equal(in_file_order(path), data.transpose(4, 3, 2, 0, 1))
    assert volume.time_step == (40, "ms")
    assert volume.window == (-100, 300)
    one = image(
        tmp_path / "b.zarr", [data[:1, :1]], [[scale(1, 1, 3, 2, 1)]], axes=[TIME, CHANNEL, *AXES]
    )
    assert read(one).axes == "zyx"
    assert read(one).time_step is None


def test_axes_in_another_order(tmp_path):
    path = image(
        tmp_path / "a.zarr", [SCAN.T], [[scale(0.5, 0.7, 3)]], axes=[AXES[2], AXES[1], AXES[0]]
    )
    assert np.array_equal(in_file_order(path), SCAN.T)
    assert read(path).source.affine.diagonal().tolist() == [-0.5, -0.7, 3, 1]


def test_colours(tmp_path):
    data = np.arange(3 * 9 * 8, dtype=np.uint8).reshape(3, 9, 8)
    colours = [{"color": code} for code in ("FF0000", "00FF00", "0000FF")]
    path = image(
        tmp_path / "a.zarr",
        [data],
        [[scale(1, 0.5, 0.5)]],
        axes=[CHANNEL, *AXES[1:]],
        attributes={"omero": {"channels": colours}},
    )
    assert read(path).rgb
    assert in_file_order(path).shape == (8, 9, 1, 3)


@pytest.mark.parametrize("form", ["orientation", "anatomicalOrientation"])
def test_anatomical_orientation_of_the_draft(tmp_path, form):
    said = ("superior-to-inferior", "posterior-to-anterior", "left-to-right")
    axes = [
        {**axis, form: {"type": "anatomical", "value": value} if form == "orientation" else value}
        for axis, value in zip(AXES, said, strict=True)
    ]
    path = image(tmp_path / "a.zarr", [SCAN], [[scale(3, 2, 1), translation(7, 8, 9)]], axes=axes)
    volume = read(path)
    assert volume.source.affine[:3].tolist() == [[1, 0, 0, 9], [0, 2, 0, 8], [0, 0, -3, -7]]
    assert not volume.notes


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels(tmp_path, version):
    path = image(tmp_path / "a.zarr", [SCAN], [[scale(3, 2, 1)]], version=version)
    group = zarr.open_group(path, mode="r+").create_group("labels")
    metadata = {"labels": ["organs"]}
    group.attrs.update(metadata if version == "0.4" else {"ome": metadata})
    labelled = image(
        path / "labels" / "organs",
        [(SCAN % 3).astype(np.int64)],
        [[scale(3, 2, 1)]],
        version=version,
        attributes={
            "image-label": {
                "colors": [{"label-value": 1, "rgba": [255, 0, 51, 255]}],
                "properties": [
                    {"label-value": 1, "name": "liver"},
                    {"label-value": 2, "class": "spleen"},
                ],
            }
        },
    )
    volume = read(labelled)
    assert volume.label_names == {1: "liver", 2: "spleen"}
    assert volume.label_colors == {1: pytest.approx((1, 0, 0.2, 1))}
    assert volume.array.dtype == np.uint8
    assert np.array_equal(in_file_order(labelled), (SCAN % 3).T)
    assert not read(labelled, labels=False).is_labels
    assert "labels (organs)" in " ".join(read(path).notes)
    with pytest.raises(SpadError, match="it holds organs"):
        read(path / "labels")


def test_missing_chunks_are_the_fill_value(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    array = group.create_array("0", shape=(8, 8, 8), chunks=(4, 4, 4), dtype="i2", fill_value=-5)
    array[:4, :4, :4] = 9
    found = {
        "axes": AXES,
        "datasets": [{"path": "0", "coordinateTransformations": [scale(1, 1, 1)]}],
    }
    group.attrs["multiscales"] = [found]
    expected = np.full((8, 8, 8), -5)
    expected[:4, :4, :4] = 9
    assert np.array_equal(in_file_order(tmp_path / "a.zarr"), expected)


def test_plain_arrays_need_spacing(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.save_array(path, SCAN)
    with pytest.raises(SpadError, match="states no spacing"):
        read(path)
    volume = read(path, spacing=(0.5, 0.7, 3))
    assert volume.source.affine.diagonal().tolist() == [-0.5, -0.7, 3, 1]
    assert np.array_equal(to_file_order(volume.array, volume.source), SCAN.T)


def test_large_arrays_are_lazy(tmp_path, monkeypatch):
    import dask.array

    monkeypatch.setattr(omezarr, "LAZY_BYTES", 1)
    path = image(tmp_path / "a.zarr", [SCAN], [[scale(3, 2, 1)]], chunks=(2, 5, 6))
    volume = read(path)
    assert isinstance(volume.array, dask.array.Array)
    assert np.array_equal(in_file_order(path), SCAN.T)
    next(path.glob("0/1*")).write_bytes(b"\x02junk")
    with pytest.raises(SpadError, match="cannot be read as OME-Zarr"):
        np.asarray(read(path).array)


def test_two_gigabytes_open_at_once(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("0", shape=(1000, 1000, 1000), chunks=(10, 500, 500), dtype="i2")
    array[500:510] = 7
    found = {
        "axes": AXES,
        "datasets": [{"path": "0", "coordinateTransformations": [scale(1, 1, 1)]}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [found]}
    volume = read(tmp_path / "a.zarr")
    assert volume.array.shape == (1000, 1000, 1000)
    assert int(np.asarray(volume.array[505, 3, 3])) == 7


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip(tmp_path):
    store = zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w")
    group = zarr.open_group(store, mode="w")
    group.create_array("0", shape=SCAN.shape, dtype=SCAN.dtype)[...] = SCAN
    found = {
        "axes": AXES,
        "datasets": [{"path": "0", "coordinateTransformations": [scale(3, 2, 1)]}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [found]}
    store.close()
    volume = read(tmp_path / "a.zarr.zip")
    assert np.array_equal(to_file_order(volume.array, volume.source), SCAN.T)


def changed(path: Path, **changes: Any) -> Path:
    image(path, [SCAN], [[scale(3, 2, 1)]])
    attributes = json.loads((path / ".zattrs").read_text())
    for key, value in changes.items():
        if key == "transforms":
            attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"] = value
        elif key in ("axes", "datasets"):
            attributes["multiscales"][0][key] = value
        else:
            attributes[key] = value
    (path / ".zattrs").write_text(json.dumps(attributes))
    return path


def array_file(path: Path, **changes: Any) -> Path:
    changed(path)
    header = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps({**header, **changes}))
    return path


def replaced(path: Path, name: str, content: bytes) -> Path:
    changed(path)
    (path / name).write_bytes(content)
    return path


def without_level(path: Path) -> Path:
    changed(path)
    (path / "0").rename(path / "elsewhere")
    return path


HUGE = [30000, 30000, 30000]
BAD = {
    "multiscales": (lambda p: changed(p, multiscales={}), "'multiscales' is no list"),
    "datasets": (lambda p: changed(p, datasets=[]), "'datasets' names no arrays"),
    "outside": (lambda p: changed(p, datasets=[{"path": "../b"}]), "outside the image"),
    "axes": (lambda p: changed(p, axes=AXES[:2]), "does not name the 3 axes"),
    "same axes": (lambda p: changed(p, axes=[CHANNEL, CHANNEL, AXES[0]]), "expected two or three"),
    "unit": (lambda p: changed(p, axes=[*AXES[:2], {**AXES[2], "unit": "parsec"}]), "'parsec'"),
    "zero": (lambda p: changed(p, transforms=[scale(0, 1, 1)]), "spacing of 0 mm"),
    "negative": (lambda p: changed(p, transforms=[scale(1, -1, 1)]), "spacing of -1 mm"),
    "NaN": (lambda p: changed(p, transforms=[scale(1, float("nan"), 1)]), "finite numbers"),
    "short": (lambda p: changed(p, transforms=[scale(1, 1)]), "not 3 finite numbers"),
    "text": (lambda p: changed(p, transforms=[scale("1", 1, 1)]), "not 3 finite numbers"),
    "affine": (lambda p: changed(p, transforms=[{"type": "affine"}]), "type 'affine'"),
    "no scale": (lambda p: changed(p, transforms=[]), "states no spacing"),
    "absent level": (without_level, "resolution '0' that is not there"),
    "plate": (lambda p: changed(p, multiscales=None, plate={}), "wrong OME-Zarr metadata"),
    "no JSON": (lambda p: replaced(p, ".zattrs", b"{"), "cannot be read as OME-Zarr"),
    "no chunk": (lambda p: replaced(p, "0/0.0.0", b"junk"), "cannot be read as OME-Zarr"),
    "huge": (lambda p: array_file(p, shape=HUGE), "1 of its 225000000000 chunks"),
    "huge chunk": (lambda p: array_file(p, shape=HUGE, chunks=HUGE), "its largest chunk has"),
    "negative shape": (lambda p: array_file(p, shape=[-1, 5, 6]), "."),
    "empty": (lambda p: array_file(p, shape=[0, 5, 6]), "is empty"),
    "codec": (lambda p: array_file(p, compressor={"id": "rar"}), "cannot be read as OME-Zarr"),
    "type": (lambda p: array_file(p, dtype="<x9"), "cannot be read as OME-Zarr"),
    "complex": (lambda p: array_file(p, dtype="<c8", fill_value=None), "."),
}


@pytest.mark.parametrize(("make", "sentence"), BAD.values(), ids=BAD.keys())
def test_refused_in_one_sentence(tmp_path, make, sentence):
    path = make(tmp_path / "a.zarr")
    with pytest.raises(SpadError, match=sentence) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    assert "expected" in message


def test_groups_without_an_image(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(SpadError, match="empty zarr group"):
        read(tmp_path / "a.zarr")
    group.create_group("A/1/0")
    with pytest.raises(SpadError, match="it holds A"):
        read(tmp_path / "a.zarr")
    group.attrs["ome"] = {"plate": {}}
    with pytest.raises(SpadError, match="plate or a well"):
        read(tmp_path / "a.zarr")
