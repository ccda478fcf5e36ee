"""The Scan dock, and what a person sees when a scan is opened."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from .conftest import color_at, inside, picture, pixel_of, said, settle

LIVER, SPLEEN, STOMACH = 6, 1, 7


@pytest.fixture
def ct(viewer):
    viewer.open_sample("napari-spad", "ct_phantom")
    settle()
    return viewer.layers["CT phantom"], viewer.layers["CT phantom - true organs"]


def test_empty_dock_offers_samples(viewer, dock):
    widget = dock("Scan")
    assert widget.samples.isVisible()
    assert not widget.details.isVisible()
    widget._open_sample("mr_phantom")
    settle()
    assert not widget.samples.isVisible()
    assert widget.scans.layer == viewer.layers["MR phantom"]


def test_the_scan_is_active_after_a_sample(viewer, ct):
    assert viewer.layers.selection.active == ct[0]


def test_anatomy_is_upright_and_radiological(viewer, ct):
    scan, truth = ct
    labels = np.asarray(truth.data)
    for label, column_half in ((LIVER, "left"), (SPLEEN, "right")):
        index = inside(labels, label)
        viewer.dims.set_point(0, scan.data_to_world(index)[0])
        world = scan.data_to_world(index)
        shot = picture(viewer)
        row, column = pixel_of(viewer, world)
        assert (column < shot.shape[1] / 2) == (column_half == "left")
        low, high = scan.contrast_limits
        expected = np.clip((scan.data[tuple(index)] - low) / (high - low), 0, 1)
        assert shot[row, column, 0] / 255 == pytest.approx(expected, abs=0.08)


def test_bone_lies_below_in_the_picture(viewer, ct):
    scan, truth = ct
    index = inside(np.asarray(truth.data), LIVER)
    viewer.dims.set_point(0, scan.data_to_world(index)[0])
    shot = picture(viewer)[..., 0]
    middle = shot[:, shot.shape[1] * 2 // 5 : shot.shape[1] * 3 // 5]
    bright = np.argwhere(middle > 250)
    assert len(bright) > 200
    assert np.median(bright[:, 0]) > shot.shape[0] / 2


def test_coronal_has_the_head_above(viewer, ct, dock):
    scan, truth = ct
    widget = dock("Scan")
    widget.planes.button(1).click()
    settle()
    index = inside(np.asarray(truth.data), LIVER)
    kidney = inside(np.asarray(truth.data), 2)
    viewer.dims.set_point(1, scan.data_to_world(index)[1])
    liver_row, liver_column = pixel_of(viewer, scan.data_to_world(index))
    kidney_row, _ = pixel_of(viewer, scan.data_to_world(kidney))
    assert liver_row < kidney_row
    assert liver_column < picture(viewer).shape[1] / 2
    assert color_at(viewer, scan.data_to_world(index))[0] > 0.3
    assert widget.planes.button(1).isChecked()


def test_oblique_scan_is_described(viewer, dock):
    widget = dock("Scan")
    viewer.open_sample("napari-spad", "mr_phantom")
    settle()
    words = {name: label.text() for name, label in widget.fields.items()}
    layer = viewer.layers["MR phantom"]
    assert words["Spacing"] == " × ".join(f"{step:.3g}" for step in layer.scale) + " mm"
    assert words["Size"].startswith(" × ".join(str(n) for n in layer.data.shape))
    assert "°" in words["Tilt"]
    assert words["Anisotropy"].startswith("da = 1")
    assert widget.modality.currentText() == "MR"


def test_depth_can_be_changed_and_is_explained(viewer, dock, tmp_path):
    affine = np.diag([-1.5, 1.5, 1.5, 1])
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 8, 7), np.int16), affine), tmp_path / "cube.nii")
    widget = dock("Scan")
    viewer.open(tmp_path / "cube.nii", plugin="napari-spad")
    settle()
    assert widget.depth_axis.currentIndex() == 2
    assert "superior-inferior" in widget.depth_reason.text()
    widget.depth_axis.setCurrentIndex(0)
    widget.depth_axis.activated.emit(0)
    settle()
    assert "stated" in widget.depth_reason.text()
    assert widget.scans.volume.source.permutation[0] == 0


def test_modality_is_asked_where_nothing_tells(viewer, dock, tmp_path):
    data = np.random.default_rng(0).integers(0, 200, (16, 16, 16)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-2.0, 2, 2, 1])), tmp_path / "what.nii")
    widget, segment = dock("Scan"), dock("Segment")
    viewer.open(tmp_path / "what.nii", plugin="napari-spad")
    settle()
    assert "choose" in widget.modality_reason.text()
    assert not segment.run_row.run_button.isEnabled()
    assert "CT or MR" in segment.run_row.status.text()
    index = segment.modality.findText("MR")
    segment.modality.setCurrentIndex(index)
    segment.modality.activated.emit(index)
    settle()
    assert segment.run_row.run_button.isEnabled()
    assert widget.modality.currentText() == "MR"
    assert segment.modality_reason.text() == "as you said"


def test_a_broken_file_shows_a_sentence(viewer, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing of use")
    viewer.open(tmp_path / "broken.nii.gz", plugin="napari-spad")
    settle()
    assert len(viewer.layers) == 0
    assert "broken.nii.gz" in said()


def test_the_menus_hold_the_docks(viewer):
    from qtpy.QtWidgets import QApplication, QMainWindow

    def titles(menu):
        menu.aboutToShow.emit()
        for action in menu.actions():
            yield action.text().replace("&", "")
            if action.menu() is not None:
                yield from titles(action.menu())

    windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow)]
    bar = next(window.menuBar() for window in windows if window.isVisible())
    found = {action.text().replace("&", ""): set(titles(action.menu())) for action in bar.actions()}
    names = {f"{name} (SPAD)" for name in ("Scan", "Segment", "Tokenizer", "Masking", "Train")}
    assert names <= found["Plugins"]
    assert names <= found["Layers"]
    assert "Scan (SPAD)" in found["File"]
    assert any(title.startswith("CT phantom") for title in found["File"])


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_faint_texts_can_be_read(theme):
    from napari.utils.theme import get_theme
    from qtpy.QtGui import QColor

    from napari_spad.widgets.forms import FAINT

    def luminance(color):
        parts = np.array(color.getRgbF()[:3])
        linear = np.where(parts > 0.04045, ((parts + 0.055) / 1.055) ** 2.4, parts / 12.92)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    behind = QColor(get_theme(theme).background.as_hex(format="long"))
    dark, bright = sorted((luminance(QColor(FAINT)), luminance(behind)))
    assert (bright + 0.05) / (dark + 0.05) > 3
