"""The Scan dock: what was opened, how it lies, where depth is, and which modality it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QPushButton,
    QWidget,
)

from napari_spad import grids, layers, notify, view
from napari_spad.widgets.choosers import ModalityChooser, ScanChooser
from napari_spad.widgets.forms import Form, column, line, row, text
from napari_spad.widgets.notices import follow, notices
from spad.volumes.axes import axis_assignment, degrees_off_axis, orientation_letters
from spad.volumes.volume import Volume

if TYPE_CHECKING:
    from napari import Viewer

_PLANE_OF_WORLD = ("sagittal", "coronal", "axial")
_RUNS = ("R-L", "A-P", "S-I")
_FILTER = "Scans (*.nii *.nii.gz *.hdr *.img);;All files (*)"
_SOLID = "3D"
_FIELDS = ("Size", "Spacing", "Orientation", "Tilt", "Anisotropy", "Values", "File")


class ScanDock(QWidget):
    """Shows a scan's geometry, and lets a person correct its depth axis and modality."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.open_button = QPushButton("Open ...")
        self.open_button.setToolTip("Open a NIfTI or Analyze file with its true geometry")
        self.open_button.clicked.connect(self._open)
        self.scans = ScanChooser(napari_viewer)
        self.samples = QWidget()
        self.planes = QButtonGroup(self)
        self.planes.setExclusive(True)
        self.depth_axis = QComboBox()
        self.depth_axis.activated.connect(self._state_depth)
        self.depth_reason = text(faint=True)
        self.modality = ModalityChooser()
        self.modality_reason = text(faint=True)
        self.fields = {name: text() for name in _FIELDS}
        self._lay_out()
        self.scans.chosen.connect(self._show)
        follow(self, notices.scan_changed, self._changed)
        follow(self, napari_viewer.dims.events.order, self._mark_plane)
        follow(self, napari_viewer.dims.events.ndisplay, self._mark_plane)
        self._show()

    def _lay_out(self) -> None:
        layout = column(self)
        chooser = row(self.scans, self.open_button)
        chooser.setStretch(0, 1)
        layout.addLayout(chooser)
        hint = text("Open a CT or MR scan (NIfTI), or try a sample:")
        ct, mr = QPushButton("CT phantom"), QPushButton("MR phantom")
        ct.clicked.connect(lambda: self._open_sample("ct_phantom"))
        mr.clicked.connect(lambda: self._open_sample("mr_phantom"))
        inner = column(self.samples, bare=True)
        inner.addWidget(hint)
        inner.addLayout(row(ct, mr))
        layout.addWidget(self.samples)
        self.details = QWidget()
        details = column(self.details, bare=True)
        details.addLayout(row(*self._plane_buttons()))
        details.addWidget(line())
        details.addLayout(self._form())
        layout.addWidget(self.details)
        layout.addStretch(1)

    def _plane_buttons(self) -> list[QPushButton]:
        buttons = []
        for number, plane in enumerate(view.PLANES):
            button = QPushButton(plane)
            button.setCheckable(True)
            button.setToolTip(f"Show {plane.lower()} slices as a radiologist does")
            button.clicked.connect(lambda _, plane=plane: view.show_plane(self._viewer, plane))
            self.planes.addButton(button, number)
            buttons.append(button)
        solid = QPushButton(_SOLID)
        solid.setCheckable(True)
        solid.setToolTip("Show the body in 3D, seen from the front")
        solid.clicked.connect(lambda: view.show_3d(self._viewer))
        self.planes.addButton(solid, len(buttons))
        return [*buttons, solid]

    def _form(self) -> Form:
        form = Form()
        for name in ("Size", "Spacing", "Orientation", "Tilt"):
            form.add(name, self.fields[name])
        form.add("Depth", self.depth_axis)
        form.add("", self.depth_reason)
        form.add("Anisotropy", self.fields["Anisotropy"])
        form.add("Modality", self.modality)
        form.add("", self.modality_reason)
        form.add("Values", self.fields["Values"])
        form.add("File", self.fields["File"])
        return form

    def _open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", _FILTER)
        if path:
            self._viewer.open(path, plugin="napari-spad")

    def _open_sample(self, key: str) -> None:
        self._viewer.open_sample("napari-spad", key)

    def _changed(self, uuid: str) -> None:
        volume = self.scans.volume
        if volume is not None and volume.source.uuid == uuid:
            layer = self.scans.layer
            layer.contrast_limits = layers.display_limits(volume)
            self._show()

    def _show(self, layer: object = None) -> None:
        volume = self.scans.volume
        self.samples.setVisible(volume is None)
        self.details.setVisible(volume is not None)
        self.modality.show_scan(volume)
        if volume is None:
            return
        self._mark_plane()
        self.modality_reason.setText(self.modality.reason)
        self._show_depth(volume)
        for name, words in describe(volume).items():
            self.fields[name].setText(words)
        self.fields["File"].setToolTip(volume.source.path or "")

    def _show_depth(self, volume: Volume) -> None:
        self.depth_axis.clear()
        for axis in range(3):
            self.depth_axis.addItem(depth_words(volume, axis))
        self.depth_axis.setCurrentIndex(volume.source.permutation[-3])
        self.depth_axis.setToolTip("Which axis is depth, along which slices are stacked")
        self.depth_reason.setText(volume.depth_reason)

    def _state_depth(self, axis: int) -> None:
        volume = self.scans.volume
        if volume is None or volume.source.permutation[-3] == axis:
            return
        grids.change(volume.source.uuid, lambda one: one.with_depth(axis))
        notices.scan_changed.emit(volume.source.uuid)
        notify.info(f"Depth is now {depth_words(volume, axis)}.")

    def _mark_plane(self, event: object = None) -> None:
        shown = _SOLID if self._viewer.dims.ndisplay == 3 else view.plane_of(self._viewer)
        self.planes.setExclusive(False)
        for button in self.planes.buttons():
            button.setChecked(button.text() == shown)
        self.planes.setExclusive(True)


def describe(volume: Volume) -> dict[str, str]:
    """Put a scan's geometry into words, in the order in which a layer shows it.

    Args:
        volume: a scan.

    Returns:
        Words for each of Size, Spacing, Orientation, Tilt, Anisotropy, Values and File.
    """
    place = grids.place(volume)
    size = " × ".join(str(n) for n in place.shape)
    if volume.array.ndim == 4:
        leading = "times" if volume.axes[0] == "t" else "channels"
        size = f"{size}, {volume.array.shape[0]} {leading}"
    source = volume.source
    letters = orientation_letters(source.affine)
    return {
        "Size": f"{size} voxels (S-I × A-P × R-L)",
        "Spacing": " × ".join(f"{step:.3g}" for step in place.scale) + " mm",
        "Orientation": f"{letters} in the file (i, j, k); shown S-I, A-P, R-L",
        "Tilt": _tilt_words(volume),
        "Anisotropy": _anisotropy_words(volume),
        "Values": _value_words(volume),
        "File": _file_words(volume),
    }


def depth_words(volume: Volume, axis: int) -> str:
    """Name a file's axis as a depth axis: "S-I: axial, 5 mm (axis k)"."""
    affine = volume.source.affine
    world, _ = axis_assignment(affine)
    toward = int(world[axis])
    step = float((affine[:3, axis] ** 2).sum() ** 0.5)
    return f"{_RUNS[toward]}: {_PLANE_OF_WORLD[toward]}, {step:.3g} mm (axis {'ijk'[axis]})"


def _tilt_words(volume: Volume) -> str:
    if not volume.is_oblique:
        return "none"
    degrees = degrees_off_axis(volume.affine)
    return f"{degrees:.1f}° off the body's axes; shown on its own voxel grid"


def _anisotropy_words(volume: Volume) -> str:
    if volume.da >= 5:
        return "da = 5: a flat (2D) scan"
    if volume.da == 0:
        return "da = 0: slices less than 2 times as thick as pixels"
    return f"da = {volume.da}: slices at least {2**volume.da} times as thick as pixels"


def _value_words(volume: Volume) -> str:
    low = float(volume.array.min()) * volume.slope + volume.intercept
    high = float(volume.array.max()) * volume.slope + volume.intercept
    low, high = sorted((low, high))
    return f"{low:.5g} to {high:.5g}{' HU' if volume.modality == 'CT' else ''}"


def _file_words(volume: Volume) -> str:
    kinds = {
        "nifti1": "NIfTI-1",
        "nifti2": "NIfTI-2",
        "analyze": "Analyze 7.5",
        "none": "made in memory",
    }
    kind = kinds.get(volume.source.format, volume.source.format)
    name = f"{Path(volume.source.path).name}, " if volume.source.path else ""
    return f"{name}{kind}, {volume.source.dtype}"
