"""The Scan dock: open, look, and see how a scan lies, where depth is and which modality it has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QPushButton,
    QWidget,
)

from napari_spad import edges, grids, layers, notify, start, view
from napari_spad.widgets.choosers import LayerChooser, ModalityChooser
from napari_spad.widgets.dock import Dock
from napari_spad.widgets.fit_line import FitLine
from napari_spad.widgets.forms import Chooser, Form, column, line, row, share_height, text
from napari_spad.widgets.geometry import FIELDS, depth_words, describe
from napari_spad.widgets.notices import follow, notices
from napari_spad.widgets.open_row import OpenRow
from napari_spad.widgets.readout import Readout
from napari_spad.widgets.switch_row import SwitchRow
from napari_spad.widgets.windows import WindowChooser
from spad.errors import SpadError

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume

_SOLID = "3D"
_LETTERS_TIP = (
    "R right, L left, A anterior, P posterior, S superior, I inferior: the patient's own sides. "
    "Two letters on a tilted scan: AS is mostly anterior, a little superior."
)


class OpenChooser(LayerChooser):
    """A choice among the scans and label files that are open; a scan goes first."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, was_opened, "no scan is open")

    @property
    def volume(self) -> Volume | None:
        """The chosen scan or labels, or None."""
        if self.layer is None:
            return None
        try:
            volume = layers.volume_of(self.layer)
        except SpadError:
            return None
        grid = layers.grid_of_layer(self.layer)
        # labels and edited copies are made on the grid, whose notes still hold
        if grid is None or volume.notes == grid.volume.notes:
            return volume
        return replace(volume, notes=grid.volume.notes)

    def _refill(self, event: Any = None) -> None:
        new = getattr(event, "value", None)
        labels_come = event is not None and event.type == "inserted" and layers.is_labels(new)
        # labels come after their scan, which stays the one in question
        super()._refill(None if labels_come and self.layer is not None else event)


class ScanDock(Dock):
    """Opens scans, shows how they lie, and lets a person correct what was guessed."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        start.use(napari_viewer)
        self.opener = OpenRow(napari_viewer)
        self.scans = OpenChooser(napari_viewer)
        self.samples = QWidget()
        self.planes = QButtonGroup(self)
        self.planes.setExclusive(True)
        self.readout = Readout(napari_viewer)
        self.windows = WindowChooser()
        self.letters = QCheckBox("Letters at the edges")
        self.letters.setToolTip(_LETTERS_TIP)
        self.letters.setChecked(edges.are_shown(napari_viewer))
        self.letters.toggled.connect(lambda on: edges.show(napari_viewer, on))
        self.fit = FitLine(napari_viewer)
        self.switch = SwitchRow(napari_viewer)
        self.depth_axis = Chooser()
        self.depth_axis.activated.connect(self._state_depth)
        self.depth_reason = text(faint=True)
        self.modality = ModalityChooser()
        self.modality_reason = text(faint=True)
        self.fields = {name: text() for name in FIELDS}
        self.notes = text(faint=True)
        self._room = QTimer(self)
        self._room.setSingleShot(True)
        self._room.timeout.connect(lambda: share_height(self))
        self._lay_out()
        self._connect()
        self._show()
        self._room.start(0)

    def _lay_out(self) -> None:
        layout = column(self)
        layout.addWidget(self.opener)
        layout.addWidget(self.scans)
        inner = column(self.samples, bare=True)
        inner.addWidget(text("Nothing is open yet. Open a scan, or try a sample:"))
        inner.addLayout(row(*self._sample_buttons()))
        layout.addWidget(self.samples)
        self.details = QWidget()
        details = column(self.details, bare=True)
        details.addLayout(row(*self._plane_buttons()))
        details.addWidget(self.readout)
        look = Form()
        look.add("Window", self.windows)
        details.addLayout(look)
        details.addWidget(self.letters)
        details.addWidget(self.fit)
        details.addWidget(line())
        details.addLayout(self._form())
        details.addWidget(self.notes)
        layout.addWidget(self.details)
        layout.addWidget(self.switch)
        layout.addStretch(1)

    def _connect(self) -> None:
        viewer = self._viewer
        self.scans.chosen.connect(self._show)
        self.scans.activated.connect(self._select)
        self.opener.opened.connect(self.scans.choose)
        self.fit.resampled.connect(self.scans.choose)
        follow(self, notices.scan_changed, self._changed)
        follow(self, viewer.dims.events.order, self._mark_plane)
        follow(self, viewer.dims.events.ndisplay, self._mark_plane)
        follow(self, viewer.layers.selection.events.active, self._follow_selection)

    def _sample_buttons(self) -> list[QPushButton]:
        buttons = []
        for words, key in (("CT phantom", "ct_phantom"), ("MR phantom", "mr_phantom")):
            button = QPushButton(words)
            button.clicked.connect(lambda _, key=key: self._open_sample(key))
            buttons.append(button)
        return buttons

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

    def _open_sample(self, key: str) -> None:
        self._viewer.open_sample("napari-spad", key)

    def _select(self, index: int) -> None:
        """Make the scan that a person chose here napari's selected layer too."""
        if self.scans.layer is not None:
            self._viewer.layers.selection.active = self.scans.layer

    def _follow_selection(self, event: Any = None) -> None:
        active = self._viewer.layers.selection.active
        if active is not None and layers.role_of(active) == "scan":
            self.scans.choose(active)

    def _changed(self, uuid: str) -> None:
        volume = self.scans.volume
        if volume is not None and volume.source.uuid == uuid:
            layer = self.scans.layer
            if layers.is_image(layer):
                layer.contrast_limits = layers.display_limits(volume)
            self._show()

    def _show(self, layer: object = None) -> None:
        volume, shown = self.scans.volume, self.scans.layer
        self.samples.setVisible(volume is None)
        self.scans.setVisible(shown is not None)
        self.details.setVisible(volume is not None)
        self.readout.show_scan(shown, volume)
        self.fit.show_scan(shown if volume is not None else None)
        has_window = volume is not None and layers.is_image(shown)
        self.windows.show_scan(shown, volume if has_window else None)
        if volume is None:
            self.modality.show_scan(None)
            return
        self._mark_plane()
        self._show_modality(volume)
        self._show_depth(volume)
        for name, words in describe(volume).items():
            self.fields[name].setText(words)
        self.fields["File"].setToolTip(volume.source.path or "")
        self.notes.setText("\n".join(volume.notes))
        self.notes.setVisible(bool(volume.notes))

    def _show_modality(self, volume: Volume) -> None:
        self.modality.show_scan(volume)
        self.modality_reason.setText(self.modality.reason)
        if volume.is_labels or volume.rgb:
            kind = "labels" if volume.is_labels else "colours"
            self.modality.setEnabled(False)
            self.modality_reason.setText(f"{kind}: it plays no part")

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


def was_opened(layer: Layer) -> bool:
    """Whether a layer shows a scan or a label file that a person opened, and no result of ours."""
    from napari.layers import Image

    role = layers.role_of(layer)
    if layers.grid_of_layer(layer) is None:
        return False
    return role in ("scan", None) if isinstance(layer, Image) else role == "labels"
