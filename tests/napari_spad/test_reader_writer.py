"""File > Open and File > Save: nothing is lost, nothing is flipped, errors are sentences."""

from __future__ import annotations

import json

import nibabel
import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from napari.utils.notifications import notification_manager

from napari_spad.reader import get_reader, read_layer
from napari_spad.writer import write_image, write_labels
from spad.errors import SpadError

AFFINES = {
    "LAS": np.array([[-2.0, 0, 0, 90], [0, 2, 0, -80], [0, 0, 5, -30], [0, 0, 0, 1]]),
    "LPS": np.array([[-2.0, 0, 0, 90], [0, -2, 0, 80], [0, 0, 5, -30], [0, 0, 0, 1]]),
    "PSR": np.array([[0, 0, 3.0, -20], [-1, 0, 0, 50], [0, 1, 0, -60], [0, 0, 0, 1]]),
    "SRA": np.array([[0, 1.5, 0, -20], [0, 0, 1.5, -60], [4, 0, 0, 7], [0, 0, 0, 1]]),
}


@pytest.fixture(scope="module", autouse=True)
def plugin():
    """Let napari find the plugin, as its start does."""
    npe2.PluginManager.instance().discover()


def scan_file(path, affine, dtype=">i2", codes=(1, 2), series=False):
    shape = (10, 12, 6, 2) if series else (10, 12, 6)
    data = np.random.default_rng(0).integers(-1000, 1000, shape).astype(dtype)
    image = nibabel.Nifti1Image(data, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def header_facts(path):
    image = nibabel.load(path)
    header = image.header
    return (
        image.shape[:3],
        np.round(image.affine, 5).tolist(),
        int(header["qform_code"]),
        int(header["sform_code"]),
        header.get_xyzt_units()[0],
    )


def write_through_napari(viewer, layer, path):
    viewer.layers.selection = {layer}
    return viewer.layers.save(str(path), selected=True, plugin="napari-spad")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("name", AFFINES)
def test_new_labels_get_the_geometry_of_their_scan(tmp_path, name, suffix):
    source = scan_file(tmp_path / f"scan{suffix}", AFFINES[name])
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    labels = viewer.layers[-1]
    spot = (1, 2, 3)
    labels.data[spot] = 4
    value = viewer.layers[0].data[spot]
    out = tmp_path / f"out{suffix}"
    assert write_through_napari(viewer, labels, out) == [str(out)]
    assert header_facts(out) == header_facts(source)
    written = np.asarray(nibabel.load(out).dataobj)
    assert written.sum() == 4
    assert nibabel.load(source).get_fdata()[written == 4].tolist() == [value]


def test_labels_of_a_series_lie_on_each_time(tmp_path):
    source = scan_file(tmp_path / "scan.nii", AFFINES["LAS"], series=True)
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    viewer.layers[-1].data[1, 0, 0, 0] = 1
    write_through_napari(viewer, viewer.layers[-1], tmp_path / "out.nii")
    written = nibabel.load(tmp_path / "out.nii")
    assert written.shape == nibabel.load(source).shape
    assert np.argwhere(np.asarray(written.dataobj))[0].tolist()[-1] == 1


def test_oblique_labels_overlay_in_an_independent_reader(tmp_path, mr_phantom):
    import SimpleITK

    from spad.volumes.files import write

    source = tmp_path / "mr.nii.gz"
    write(mr_phantom.image, source)
    viewer = ViewerModel()
    viewer.open(source, plugin="napari-spad")
    viewer._new_labels()
    viewer.layers[-1].data[:] = viewer.layers[0].data > 200
    write_through_napari(viewer, viewer.layers[-1], tmp_path / "out.nii.gz")
    one = SimpleITK.ReadImage(str(source))
    other = SimpleITK.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.allclose(one.GetDirection(), other.GetDirection(), atol=1e-5)
    assert np.allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-4)
    pixels = SimpleITK.GetArrayFromImage(one) > 200
    assert np.array_equal(pixels, SimpleITK.GetArrayFromImage(other) > 0)


def test_names_go_beside_the_labels(tmp_path, ct_phantom):
    from napari_spad.layers import to_layer
    from spad.volumes.files import read

    layer = Layer.create(*to_layer(ct_phantom.labels, "organs", role="labels"))
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels(str(tmp_path / "organs.nii.gz"), data, attributes)
    names = json.loads((tmp_path / "organs.labels.json").read_text())
    assert names["6"] == "liver"
    assert read(tmp_path / "organs.nii.gz").label_names == ct_phantom.labels.label_names


def test_an_opened_scan_is_written_as_stored(tmp_path):
    source = tmp_path / "scan.nii"
    data = np.arange(720, dtype=np.uint8).reshape(10, 12, 6)
    image = nibabel.Nifti1Image(data, AFFINES["PSR"])
    image.header.set_slope_inter(1.5686274, -125)
    nibabel.save(image, source)
    layer = Layer.create(*read_layer(source))
    written, attributes, _ = layer.as_layer_data_tuple()
    write_image(str(tmp_path / "copy.nii"), written, attributes)
    copy = nibabel.load(tmp_path / "copy.nii")
    assert np.array_equal(copy.get_fdata(), nibabel.load(source).get_fdata())
    assert copy.get_data_dtype() == np.uint8


def test_a_stranger_is_not_written(tmp_path):
    stranger = Labels(np.zeros((3, 4, 5), int), scale=(7, 8, 9), name="stranger")
    data, attributes, _ = stranger.as_layer_data_tuple()
    with pytest.raises(SpadError, match="stranger"):
        write_labels(str(tmp_path / "out.nii"), data, attributes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a.nii", "a.NII.GZ", "a.hdr", "a.img", ["a.nii", "b.nii.gz"]])
def test_reader_offers_itself_by_name(path):
    assert callable(get_reader(path))


@pytest.mark.parametrize("path", ["a.png", "a.nii.txt", [], ["a.nii", "a.tif"], 7, None])
def test_reader_keeps_out_of_other_files(path):
    assert get_reader(path) is None


def test_a_broken_file_is_a_notification_and_no_layer(tmp_path):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(b"\x1f\x8b not gzip at all")
    before = len(notification_manager.records)
    assert get_reader(str(path))(str(path)) == [(None,)]
    said = notification_manager.records[before:]
    assert [str(one.severity) for one in said] == ["error"]
    assert "broken.nii.gz" in said[0].message


def test_a_good_file_opens_beside_a_broken_one(tmp_path):
    good = scan_file(tmp_path / "good.nii", AFFINES["LPS"])
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"nothing")
    opened = get_reader([str(bad), str(good)])([str(bad), str(good)])
    assert [meta["name"] for _, meta, _ in opened] == ["good"]


def test_manifest_is_valid_and_complete():
    manager = npe2.PluginManager.instance()
    manager.discover(include_npe1=False)
    manifest = manager.get_manifest("napari-spad")
    manifest.validate_imports()
    found = manifest.contributions
    assert {widget.display_name for widget in found.widgets} == {
        "Scan",
        "Segment",
        "Tokenizer",
        "Masking",
        "Train",
    }
    assert {sample.key for sample in found.sample_data} == {
        "ct_phantom",
        "mr_phantom",
        "nibabel_example",
    }
    menus = {menu: {item.command for item in items} for menu, items in found.menus.items()}
    assert "napari-spad.segment" in menus["napari/layers/segment"]


@pytest.mark.parametrize("key", ["ct_phantom", "mr_phantom", "nibabel_example"])
def test_samples_open(key):
    viewer = ViewerModel()
    viewer.open_sample("napari-spad", key)
    assert viewer.layers[0].data.ndim == (4 if key == "nibabel_example" else 3)
    assert viewer.layers[0].data.max() > viewer.layers[0].data.min()
    if key != "nibabel_example":
        truth = viewer.layers[1]
        assert isinstance(truth, Labels)
        assert not truth.visible
        assert truth.data.shape == viewer.layers[0].data.shape
