"""Scan > Open: files, folders, lists of series, spacing, and a viewer that stays alive."""

from __future__ import annotations

import time

import nibabel
import numpy as np
import pytest

from napari_spad import layers, opening, view
from spad.volumes.files.series import Series

from .conftest import said, settle, wait_for


@pytest.fixture
def widget(dock):
    return dock("Scan")


@pytest.fixture
def scan_file(tmp_path):
    data = np.arange(8 * 9 * 10, dtype=np.int16).reshape(8, 9, 10)
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.5, 1.5, 4, 1])), path)
    return path


def open_path(widget, path):
    widget.opener.open(str(path))
    wait_for(lambda: not widget.opener.running, 30)
    settle()


def test_a_file_is_opened_and_what_is_wrong_is_a_sentence(
    viewer, widget, scan_file, tmp_path, monkeypatch
):
    assert widget.samples.isVisible()
    (tmp_path / "broken.nrrd").write_bytes(b"nothing of use")
    open_path(widget, tmp_path / "broken.nrrd")
    assert len(viewer.layers) == 0
    assert "broken.nrrd" in said()
    assert "Traceback" not in said()
    open_path(widget, scan_file)
    assert [layer.name for layer in viewer.layers] == ["scan"]
    assert widget.scans.layer == viewer.layers["scan"]
    assert widget.fields["File"].text().startswith("scan.nii.gz")
    assert not widget.samples.isVisible()

    def fail(wanted):
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(opening, "read", fail)
    open_path(widget, scan_file)
    assert "ZeroDivisionError: by nought" in said()
    assert widget.opener.file_button.isEnabled()


def test_the_buttons_ask_for_a_file_and_a_folder(viewer, widget, scan_file, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    asked = []

    def name(parent, title, folder, kinds):
        asked.append(kinds)
        return str(scan_file), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", staticmethod(name))
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", staticmethod(lambda *args: str(scan_file.parent))
    )
    widget.opener.file_button.click()
    wait_for(lambda: "scan" in viewer.layers, 30)
    assert "*.nrrd" in asked[0]
    assert "*.npz" in asked[0]
    settle()
    widget.opener.folder_button.click()
    wait_for(lambda: not widget.opener.running, 30)
    assert str(scan_file.parent) in said()
    assert widget.opener.folder_button.isEnabled()


def test_the_viewer_stays_alive_while_a_scan_is_read(viewer, widget, scan_file, monkeypatch):
    read = opening.read

    def slow(wanted):
        time.sleep(1.0)
        return read(wanted)

    monkeypatch.setattr(opening, "read", slow)
    widget.opener.open(str(scan_file))
    wait_for(lambda: widget.opener.status.text().startswith("Reading scan.nii.gz"), 10)
    longest, start = 0.0, time.monotonic()
    while time.monotonic() < start + 0.6:
        before = time.monotonic()
        settle(0.01)
        longest = max(longest, time.monotonic() - before)
    assert longest < 0.5
    assert widget.opener.running
    assert not widget.opener.file_button.isEnabled()
    wait_for(lambda: "scan" in viewer.layers, 10)


def test_what_is_cancelled_does_not_come(viewer, widget, scan_file, monkeypatch):
    read, ended = opening.read, []

    def slow(wanted):
        time.sleep(0.5)
        ended.append(read(wanted))
        return ended[-1]

    monkeypatch.setattr(opening, "read", slow)
    widget.opener.open(str(scan_file))
    wait_for(lambda: widget.opener.status.text().startswith("Reading"), 10)
    widget.opener.cancel_button.click()
    assert not widget.opener.running
    wait_for(lambda: bool(ended), 10)
    settle()
    assert len(viewer.layers) == 0


def test_an_array_asks_for_its_spacing(viewer, widget, tmp_path):
    np.save(tmp_path / "scan.npy", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    open_path(widget, tmp_path / "scan.npy")
    widget.opener.dialog.reject()
    settle()
    assert len(viewer.layers) == 0
    assert not widget.opener.running
    open_path(widget, tmp_path / "scan.npy")
    form = widget.opener.dialog
    assert form.isVisible()
    assert len(viewer.layers) == 0
    assert "last axis" in form.reason.text()
    assert form.skip_button is None
    across, down, between = form.steps
    across.setValue(0.6)
    assert (down.value(), between.value()) == (0.6, 1.0)
    for box, step in ((down, 0.75), (across, 0.5), (between, 3.0)):
        box.setValue(step)
    assert "2.5 × 3 × 9 mm" in form.extent.text()
    form.open_button.click()
    wait_for(lambda: "scan" in viewer.layers, 30)
    assert tuple(viewer.layers["scan"].scale) == (3.0, 0.75, 0.5)
    settle()
    assert widget.fields["Spacing"].text() == "3 × 0.75 × 0.5 mm"
    assert "no letters" in widget.fields["Orientation"].text()


def test_a_scan_that_lies_elsewhere_is_seen(viewer, widget, tmp_path):
    for name, start in (("here", 0), ("there", -900)):
        affine = np.diag([1.0, 1, 2, 1])
        affine[2, 3] = start
        data = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
        nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / f"{name}.nii")
    viewer.open(tmp_path / "here.nii", plugin="napari-spad")
    open_path(widget, tmp_path / "there.nii")
    wait_for(lambda: "there" in viewer.layers, 30)
    settle()
    assert view.shown_slice(viewer, viewer.layers["there"]).size


def test_a_picture_in_colours(viewer, widget, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    open_path(widget, tmp_path / "photo.png")
    widget.opener.dialog.skip_button.click()
    wait_for(lambda: "photo" in viewer.layers, 30)
    settle()
    assert viewer.layers["photo"].rgb
    assert "in colour" in widget.fields["Size"].text()
    viewer.layers.selection.active = viewer.layers["photo"]
    assert widget.switch.save_button.isVisible()
    assert not widget.switch.button.isVisible()
    assert not widget.windows.isEnabled()
    assert "no spacing" in widget.notes.text()


@pytest.fixture
def folder(tmp_path, scan_file):
    """Three series, of which one cannot be read."""
    shutil_copy = scan_file.read_bytes()
    (tmp_path / "second.nii.gz").write_bytes(shutil_copy)
    problem = "series c has slices at 0, 5 and 15 mm; expected equal steps; export it again."

    def series(uid, description, path, modality="CT", kind="image", problem=None):
        return Series(
            uid, description, modality, kind, 10, (8, 9, 10), (1.5, 1.5, 4.0), str(path), problem
        )

    return [
        series("a", "Thorax venous", scan_file),
        series("b", "Kidneys", tmp_path / "second.nii.gz", "SEG", "labels"),
        series("c", "Localizer", tmp_path, problem=problem),
    ]


@pytest.fixture
def listed(widget, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("spad.volumes.files.catalog", lambda path: folder)
    from spad.volumes import files

    plain = files.read
    monkeypatch.setattr(files, "read", lambda path, series=None, **rest: plain(path, **rest))
    open_path(widget, tmp_path)
    assert widget.opener.dialog.isVisible()
    return widget.opener.dialog


def rows(dialog):
    table = dialog.table
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def mouse(table, row, *, double=False):
    """Click on a row."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    place = table.visualItemRect(table.item(row, 0)).center()
    click = QTest.mouseDClick if double else QTest.mouseClick
    none = Qt.KeyboardModifier.NoModifier
    click(table.viewport(), Qt.MouseButton.LeftButton, none, place)


def test_several_series_are_listed_and_opened(viewer, widget, listed):
    assert rows(listed) == [
        ["Thorax venous", "CT", "10", "8 × 9 × 10", "1.5 × 1.5 × 4", ""],
        ["Kidneys (labels)", "SEG", "10", "8 × 9 × 10", "1.5 × 1.5 × 4", ""],
        ["Localizer", "CT", "10", "8 × 9 × 10", "1.5 × 1.5 × 4", "cannot be opened"],
    ]
    assert "3 series" in listed.windowTitle()
    assert [one.uid for one in listed.selection] == ["a"]
    mouse(listed.table, 2)
    assert "slices at 0, 5 and 15 mm" in listed.reason.text()
    assert not listed.open_button.isEnabled()
    listed.accept()
    assert listed.isVisible()
    listed.table.selectAll()
    assert listed.open_button.text() == "Open 2 series"
    listed.open_button.click()
    wait_for(lambda: len(viewer.layers) == 2 and not widget.opener.running, 30)
    assert {layer.name for layer in viewer.layers} == {"scan", "second"}


def test_a_double_click_opens_one(viewer, widget, listed):
    mouse(listed.table, 1)
    mouse(listed.table, 1, double=True)
    wait_for(lambda: len(viewer.layers) == 1 and not widget.opener.running, 30)
    assert [layer.name for layer in viewer.layers] == ["second"]
    assert not layers.is_labels(viewer.layers["second"])


def test_a_dock_that_is_closed_meanwhile_does_no_harm(viewer, widget, scan_file, monkeypatch):
    read, ended = opening.read, []

    def slow(wanted):
        time.sleep(0.5)
        ended.append(read(wanted))
        return ended[-1]

    monkeypatch.setattr(opening, "read", slow)
    widget.opener.open(str(scan_file))
    wait_for(lambda: widget.opener.status.text().startswith("Reading"), 10)
    viewer.window.remove_dock_widget(widget)
    wait_for(lambda: bool(ended), 10)
    settle()
    assert len(viewer.layers) <= 1
