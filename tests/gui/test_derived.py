"""napari's own menus in a real viewer: what they make of a scan is saved on its grid."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from .conftest import color_at, picture, settle

PSR = np.array([[0, 0, 3.0, -20], [-1, 0, 0, 50], [0, 2, 0, -60], [0, 0, 0, 1]])
SHAPE = (30, 24, 10)


def scan_file(path, times=None):
    shape = SHAPE if times is None else (*SHAPE, times)
    data = np.random.default_rng(1).integers(0, 200, shape).astype(np.int16)
    image = nibabel.Nifti1Image(data, PSR)
    image.set_qform(PSR, 1)
    image.set_sform(PSR, 2)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def execute(command):
    """Choose an entry of a menu."""
    from napari._app_model import get_app_model

    get_app_model().commands.execute_command(command).result()
    settle()


@pytest.fixture
def scan(viewer, tmp_path):
    viewer.open(scan_file(tmp_path / "scan.nii"), plugin="napari-spad")
    settle()
    viewer.layers.selection.active = viewer.layers["scan"]
    return viewer.layers["scan"]


@pytest.fixture
def save(viewer, monkeypatch):
    """Save the selected layer by File > Save, with a filter and a name as a person gives them."""
    from qtpy.QtWidgets import QFileDialog

    def save_as(layer, path, wanted):
        def answer(*args, **kwargs):
            filters = kwargs["filter"].split(";;")
            return str(path), next(one for one in filters if one.startswith(wanted))

        viewer.layers.selection = {layer}
        monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
        execute("napari.window.file.save_layers_dialog.selected")

    return save_as


def on_grid(path):
    image = nibabel.load(path)
    assert image.shape[:3] == SHAPE
    assert np.allclose(image.affine, PSR, atol=1e-5)
    assert int(image.header["sform_code"]) == 2
    return np.asarray(image.dataobj)


def test_duplicate_convert_and_save(viewer, scan, save, tmp_path):
    wanted = np.asarray(nibabel.load(tmp_path / "scan.nii").dataobj)
    execute("napari.layer.duplicate")
    assert [layer.name for layer in viewer.layers] == ["scan", "scan copy"]
    viewer.layers.selection.active = viewer.layers["scan copy"]
    execute("napari.layer.convert_to_labels")
    execute("napari.layer.convert_to_int64")
    labels = viewer.layers["scan copy"]
    assert hasattr(labels, "selected_label")
    assert labels.data.dtype == np.int64
    # the dialog proposes the layer's name, which has no suffix
    save(labels, tmp_path / "scan copy", "SPAD NIfTI labels")
    written = on_grid(tmp_path / "scan copy.nii.gz")
    assert written.dtype == np.uint8
    assert np.array_equal(written, wanted)


def test_a_converted_scan_can_be_painted_on(viewer, scan, save, tmp_path):
    before = (tmp_path / "scan.nii").read_bytes()
    wanted = np.asarray(nibabel.load(tmp_path / "scan.nii").dataobj)
    assert not scan.data.flags.writeable
    execute("napari.layer.convert_to_labels")
    labels = viewer.layers["scan"]
    labels.data_setitem((np.array([2]), np.array([5]), np.array([7])), 250)
    save(labels, tmp_path / "painted_labels.nii", "SPAD NIfTI labels")
    written = on_grid(tmp_path / "painted_labels.nii")
    assert np.count_nonzero(written != wanted) == 1
    assert written[written != wanted] == 250
    # and back: what was painted stays
    execute("napari.layer.convert_to_image")
    save(viewer.layers["scan"], tmp_path / "back.nii", "SPAD NIfTI image")
    assert np.array_equal(on_grid(tmp_path / "back.nii"), written)
    assert (tmp_path / "scan.nii").read_bytes() == before


def test_new_labels_painted_and_saved_in_each_format(viewer, scan, save, tmp_path):
    from spad.volumes.files import read

    execute("napari.window.file.new_layer.new_labels")
    labels = viewer.layers["scan - Labels"]
    labels.selected_label = 3
    labels.paint((2, 5, 7), 3)
    settle()
    painted = np.asarray(labels.data)
    assert painted.any()
    for kind, name in (
        ("SPAD NIfTI labels", "a_labels.nii.gz"),
        ("SPAD NRRD segmentation", "a.seg.nrrd"),
        ("SPAD MetaImage labels", "a_labels.mha"),
    ):
        save(labels, tmp_path / name, kind)
        again = read(tmp_path / name)
        assert again.is_labels
        assert np.count_nonzero(again.array == 3) == np.count_nonzero(painted == 3)
        assert np.allclose(again.source.affine, PSR, atol=1e-5)


def test_projection_is_drawn_and_saved(viewer, scan, save, tmp_path):
    execute("napari.layer.project_max")
    flat = viewer.layers["scan max-proj"]
    assert flat.ndim == 2
    save(flat, tmp_path / "flat", "SPAD NIfTI image")
    image = nibabel.load(tmp_path / "flat.nii.gz")
    wanted = np.asarray(nibabel.load(tmp_path / "scan.nii").dataobj)
    assert np.array_equal(np.asarray(image.dataobj), wanted.max(1, keepdims=True))


def test_split_times_are_saved_on_the_grid(viewer, save, tmp_path):
    viewer.open(scan_file(tmp_path / "series.nii", times=3), plugin="napari-spad")
    settle()
    viewer.layers.selection.active = viewer.layers["series"]
    execute("napari.layer.split_stack")
    save(viewer.layers["series layer 1"], tmp_path / "one.nii", "SPAD NIfTI image")
    wanted = np.asarray(nibabel.load(tmp_path / "series.nii").dataobj)
    assert np.array_equal(on_grid(tmp_path / "one.nii"), wanted[..., 1])


def test_a_refusal_is_shown_and_writes_nothing(viewer, scan, save, tmp_path):
    from spad.errors import SpadError

    moved = viewer.add_image(
        np.array(scan.data), name="moved", scale=np.array(scan.scale) * 2, metadata=scan.metadata
    )
    with pytest.raises(SpadError, match=r"'moved' has shape .* was made on the grid of 'scan'"):
        save(moved, tmp_path / "moved", "SPAD NIfTI image")
    assert not list(tmp_path.glob("moved*"))


def test_napari_asks_for_a_reader_once_at_most(viewer, tmp_path, monkeypatch):
    from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog
    from napari.settings import get_settings
    from qtpy.QtWidgets import QFileDialog

    settings = get_settings().plugins
    before, asked = dict(settings.extension2reader), []
    paths = [str(scan_file(tmp_path / "scan.nii.gz"))]
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_, **__: (paths, ""))
    # the first reader is the one that Enter takes
    monkeypatch.setattr(
        QtReaderDialog, "exec_", lambda dialog: asked.append(dialog._get_plugin_choice()) or True
    )
    try:
        execute("napari.window.file.open_files_dialog")
        assert asked == ["SPAD"]
        assert viewer.layers[-1].metadata["napari_spad"]["role"] == "scan"
        execute("napari-spad.open_without_asking")
        execute("napari.window.file.open_files_dialog")
        assert asked == ["SPAD"]
        assert len(viewer.layers) == 2
    finally:
        settings.extension2reader = before


def test_a_picture_in_colours_is_upright(viewer, tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    from napari_spad.reader import read_layer

    colours = {(5, 5): (1, 0, 0), (5, 50): (0, 1, 0), (35, 5): (0, 0, 1)}
    pixels = np.zeros((40, 60, 3), np.uint8)
    for (row, column), colour in colours.items():
        pixels[row - 5 : row + 5, column - 5 : column + 5] = np.array(colour) * 255
    imageio.imwrite(tmp_path / "photo.png", pixels)
    data, kwargs, _ = read_layer(tmp_path / "photo.png", spacing=(1.0, 1.0))
    layer = viewer.add_image(data, **kwargs)
    settle()
    for (row, column), colour in colours.items():
        shown = color_at(viewer, layer.data_to_world((0, row, column)))
        assert shown == pytest.approx(colour, abs=0.1)
    shot = picture(viewer)
    reds = np.argwhere((shot[..., 0] > 200) & (shot[..., 1] < 60) & (shot[..., 2] < 60))
    blues = np.argwhere((shot[..., 2] > 200) & (shot[..., 0] < 60) & (shot[..., 1] < 60))
    assert reds[:, 0].mean() < blues[:, 0].mean()


def test_phases_scroll_to_what_is_stored(viewer, tmp_path):
    viewer.open(scan_file(tmp_path / "series.nii", times=60), plugin="napari-spad")
    settle()
    layer = viewer.layers["series"]
    assert isinstance(layer.data, np.memmap)
    low, high = layer.contrast_limits
    for phase in (0, 31, 59):
        viewer.dims.set_current_step(0, phase)
        index = (phase, 12, 15, 5)
        viewer.dims.set_point(1, layer.data_to_world(index)[1])
        layer.interpolation2d = "nearest"
        shown = color_at(viewer, layer.data_to_world(index))
        wanted = np.clip((float(layer.data[index]) - low) / (high - low), 0, 1)
        assert shown[0] == pytest.approx(wanted, abs=0.03)
