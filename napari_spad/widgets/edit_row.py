"""Editing labels by hand: an intensity range for strokes, tools for one label, undo and redo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QLabel, QPushButton, QWidget

from napari_spad import layers, locks, notify, strokes
from napari_spad.history import History, history_of
from napari_spad.organ_layers import itself, names_of, on_same_grid
from napari_spad.widgets import threads
from napari_spad.widgets.choosers import is_scan
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.notices import follow
from napari_spad.widgets.organs import Clicks, label_at
from spad.errors import SpadError
from spad.volumes import editing
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari import Viewer

_RADIUS_MM, _LEAST_MM, _MOST_MM = 3.0, 0.5, 50.0
_MOST = 1e6
_NO_LABELS = "Select a layer of labels first."
_BUSY = "An edit is under way."
_Made = tuple[strokes.Region, np.ndarray]
"""A box of the layer's last three axes, and the labels to come in it."""


class EditRow(QWidget):
    """Edits the selected label of the active labels layer; each edit is one step to undo.

    Edits give background to a label or take its own voxels away; other labels keep theirs, and
    locked ones stay as they are. *Paint only within* cuts the strokes of napari's tools to voxels
    of the scan in a range. What takes time is done in a thread.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Any = None
        self._scan: Any = None
        self._history: History | None = None
        self._watched: list[Callable[[], None]] = []
        self._busy = False
        turns = self._turns = threads.Turns()
        self.within = QCheckBox("Paint only within")
        self.low, self.high = _value_field(), _value_field()
        self.unit = QLabel()
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.fill_button = QPushButton("Fill between slices")
        self.smooth_button = QPushButton("Smooth")
        self.radius = QDoubleSpinBox()
        self.radius.setRange(_LEAST_MM, _MOST_MM)
        self.radius.setValue(_RADIUS_MM)
        self.radius.setSingleStep(0.5)
        self.radius.setDecimals(1)
        self.radius.setSuffix(" mm")
        self.radius.setToolTip("Bumps and gaps much narrower than this vanish")
        self.keep_button = QPushButton("Keep island")
        self.remove_button = QPushButton("Remove island")
        self.grow_button = QPushButton("Grow from seeds")
        self.status = text(faint=True)
        self._lay_out()
        self._connect()
        clicks = Clicks(viewer, self._clicked)
        self.destroyed.connect(clicks.stop)
        self.destroyed.connect(lambda: turns.next())
        self._follow_active()

    @property
    def layer(self) -> Any:
        """The labels that are edited, or None."""
        return self._layer

    @property
    def busy(self) -> bool:
        """Whether an edit is under way."""
        return self._busy

    def fill(self) -> None:
        """Fill the slices between drawn ones, along the axis of the view."""
        dims = self._viewer.dims
        axis = dims.order[-3] - (dims.ndim - 3)
        if axis < 0:
            self._say("Show slices of the scan first: the slider moves through time.")
            return
        spacing = self._spacing
        label = self._layer.selected_label
        words = f"Fill {_name(self._layer, label)} between slices"
        self._edit(words, label, lambda mask: editing.fill_between(mask, axis, spacing))

    def smooth(self) -> None:
        """Smooth the surface of the selected label."""
        radius, spacing = self.radius.value(), self._spacing
        label = self._layer.selected_label
        words = f"Smooth {_name(self._layer, label)} by {radius:g} mm"
        self._edit(words, label, lambda mask: editing.smooth(mask, spacing, radius))

    def grow(self) -> None:
        """Grow the strokes of all labels of the layer until they meet at edges of the scan."""
        voxels, spacing, lead = self._voxels, self._spacing, self._lead
        scan = self._scan
        if scan.data.ndim != len(lead) + 3:
            lead = (0,) * (scan.data.ndim - 3)
        values = scan.data

        def work() -> _Made:
            box = editing.seed_region(voxels, spacing)
            seeds = voxels[box]
            whole = tuple(slice(0, n) for n in seeds.shape)
            part = np.asarray(values[(*lead, *box)])
            return box, editing.grow_from_seeds(part, seeds, spacing, whole)

        self._start("Grow from seeds", work)

    def undo(self) -> None:
        """Undo the last step of the layer: a stroke, an edit or a click."""
        if self._history is not None:
            self._history.undo()

    def redo(self) -> None:
        """Do the step again that was undone last."""
        if self._history is not None:
            self._history.redo()

    def _lay_out(self) -> None:
        self.keep_button.setCheckable(True)
        self.remove_button.setCheckable(True)
        layout = column(self, bare=True)
        limits = row(self.within, self.low, QLabel("to"), self.high, self.unit)
        limits.setStretch(1, 1)
        limits.setStretch(3, 1)
        layout.addLayout(limits)
        grid = QGridLayout()
        grid.setSpacing(4)
        smoothing = row(self.smooth_button, self.radius)
        smoothing.setStretch(0, 1)
        grid.addWidget(self.fill_button, 0, 0)
        grid.addLayout(smoothing, 0, 1)
        grid.addWidget(self.keep_button, 1, 0)
        grid.addWidget(self.remove_button, 1, 1)
        grid.addWidget(self.grow_button, 2, 0)
        grid.addLayout(row(self.undo_button, self.redo_button), 2, 1)
        layout.addLayout(grid)
        layout.addWidget(self.status)

    def _connect(self) -> None:
        viewer = self._viewer
        self.fill_button.clicked.connect(self.fill)
        self.smooth_button.clicked.connect(self.smooth)
        self.grow_button.clicked.connect(self.grow)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self.keep_button.toggled.connect(lambda on: self._arm(self.keep_button, on))
        self.remove_button.toggled.connect(lambda on: self._arm(self.remove_button, on))
        self.low.valueChanged.connect(self.high.setMinimum)
        follow(self, viewer.layers.selection.events.active, self._follow_active)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            follow(self, event, self._find_scan)

    # The labels and the scan in question

    def _follow_active(self, event: Any = None) -> None:
        while self._watched:
            self._watched.pop()()
        layer = self._viewer.layers.selection.active
        can = layer is not None and layers.is_labels(layer)
        can = can and layer.ndim >= 3 and not layer.multiscale
        self._layer = layer if can else None
        self._history = None
        self._disarm()
        if self._layer is not None:
            own: Any = itself(self._layer)
            self._history = history_of(own)
            self._watched = [
                follow(self, self._history.changed, self._refresh),
                # locks and history are to see what is left of a stroke
                follow(self, own.events.paint, self._cut, first=True),
            ]
        self._find_scan()

    def _find_scan(self, event: Any = None) -> None:
        found = None
        if self._layer is not None:
            scans = [one for one in self._viewer.layers if is_scan(one)]
            found = next((one for one in scans if on_same_grid(self._layer, one)), None)
        if found is not None and found != self._scan:
            volume = layers.scan_volume(found)
            self.unit.setText("HU" if volume is not None and volume.modality == "CT" else "")
            low, high = (float(limit) for limit in found.contrast_limits)
            self.low.setValue(low)
            self.high.setValue(high)
        self._scan = found
        self._refresh()

    def _refresh(self, event: Any = None) -> None:
        history, why = self._history, ""
        if self._layer is None:
            why = _NO_LABELS
        elif self._busy:
            why = _BUSY
        no_scan = why or ("" if self._scan is not None else "No scan lies under these labels.")
        for button, words, reason in (
            (self.fill_button, _FILL_TIP, why),
            (self.smooth_button, _SMOOTH_TIP, why),
            (self.keep_button, "Then click on the island that is to stay", why),
            (self.remove_button, "Then click on the island that is to go", why),
            (self.grow_button, _GROW_TIP, no_scan),
            (self.within, _WITHIN_TIP, "" if self._scan is not None else no_scan),
        ):
            button.setEnabled(not reason)
            button.setToolTip(reason or words)
        if self._scan is None:
            self.within.setChecked(False)
        for field in (self.low, self.high):
            field.setEnabled(self._scan is not None)
        undo, redo = (history.undo_text, history.redo_text) if history else ("", "")
        self.undo_button.setEnabled(history is not None and history.can_undo)
        self.redo_button.setEnabled(history is not None and history.can_redo)
        self.undo_button.setToolTip(f"Undo: {undo}" if undo else "Nothing to undo.")
        self.redo_button.setToolTip(f"Redo: {redo}" if redo else "Nothing to redo.")

    @property
    def _spacing(self) -> tuple[float, ...]:
        return tuple(float(step) for step in self._layer.scale[-3:])

    @property
    def _lead(self) -> tuple[int, ...]:
        """The time that is shown, for labels of a series."""
        layer, dims = self._layer, self._viewer.dims
        offset = dims.ndim - layer.ndim
        places = []
        for axis in range(layer.ndim - 3):
            place = (dims.point[offset + axis] - layer.translate[axis]) / layer.scale[axis]
            places.append(min(max(round(place), 0), layer.data.shape[axis] - 1))
        return tuple(places)

    @property
    def _voxels(self) -> np.ndarray:
        """The labels along S-I, A-P and R-L."""
        return np.asarray(self._layer.data[self._lead] if self._lead else self._layer.data)

    # Strokes

    def _cut(self, event: Any) -> None:
        """Take out of a stroke what lies outside of the range."""
        if not event.value or not self.within.isChecked() or self._scan is None:
            return
        low, high, scan = self.low.value(), self.high.value(), self._scan

        def refuses(change: strokes.Change) -> np.ndarray:
            return ~editing.within(_values_at(scan.data, change.where), low, high)

        if strokes.cut(event.source, event.value, refuses):
            self._say(f"Painted only within {low:g} to {high:g} {self.unit.text()}".strip() + ".")

    # Islands

    def _arm(self, button: QPushButton, on: bool) -> None:
        if not on:
            self.status.setText("")
            return
        other = self.remove_button if button is self.keep_button else self.keep_button
        other.setChecked(False)
        self._layer.mode = "pan_zoom"
        fate = "stay" if button is self.keep_button else "go"
        self._say(f"Click on the island that is to {fate}.")

    @property
    def armed(self) -> bool:
        """Whether the next click in the viewer is on an island."""
        return self.keep_button.isChecked() or self.remove_button.isChecked()

    def _disarm(self) -> None:
        self.keep_button.setChecked(False)
        self.remove_button.setChecked(False)

    def _clicked(self, event: Any) -> None:
        if not self.armed or self._layer is None:
            return
        if len(event.dims_displayed) > 2:
            self._say("Click on the island in a slice, not in 3D.")
            return
        label = label_at(self._layer, event)
        if not label:
            self._say("There is no label; click on an island.")
            return
        place = np.asarray(event.position)[-self._layer.ndim :]
        at = tuple(int(n) for n in np.rint(self._layer.world_to_data(place))[-3:])
        keeps = self.keep_button.isChecked()
        self._disarm()
        call = editing.keep_island if keeps else editing.remove_island
        verb = "Keep" if keeps else "Remove"
        self._edit(
            f"{verb} island of {_name(self._layer, label)}", label, lambda mask: call(mask, at)
        )

    # Edits

    def _edit(self, words: str, label: int, call: Callable[[np.ndarray], np.ndarray]) -> None:
        """Change the mask of one label."""
        label, name, voxels = int(label), _name(self._layer, label), self._voxels
        if not label:
            self._say("The selected label is the background; select an organ's label.")
            return
        if label in locks.locked(itself(self._layer)):
            self._say(f"{name} is locked: unlock it to change it.")
            return

        def work() -> _Made | None:
            mask = voxels == label
            if not mask.any():
                raise SpadError(
                    f"The layer has no voxel of {name}; expected some to edit; draw them, or "
                    "select another label."
                )
            made = call(mask)
            box = editing.bounding_box(made != mask)
            if box is None:
                return None
            now, inside = voxels[box], made[box]
            new = np.where(inside & (now == 0), np.int64(label), now)
            new[(now == label) & ~inside] = 0
            return box, new

        self._start(words, work)

    def _start(self, words: str, work: Callable[[], _Made | None]) -> None:
        """Make an edit in a thread, and apply it if nothing has changed meanwhile."""
        history = self._history
        if history is None or self._busy:
            return
        turn, version, layer, lead = self._turns.next(), history.version, self._layer, self._lead

        def ended(sentence: str) -> None:
            self._busy = False
            self._say(sentence)
            self._refresh()

        def done(made: _Made | None) -> None:
            if turn != self._turns.now:
                return
            if made is None:
                ended(f"{words}: nothing to change.")
                return
            if history.version != version:
                ended(f"{words}: not done, since the labels have changed meanwhile; try again.")
                return
            box, new = made
            region = (*(slice(at, at + 1) for at in lead), *box)
            try:
                met = history.change(words, region, new.reshape(*(1 for _ in lead), *new.shape))
            except SpadError as error:
                refused(str(error))
                return
            if met:
                locks.refusals.refused.emit((itself(layer), met))
            kept = ", ".join(sorted(_name(layer, label) for label in met))
            ended(
                f"{words}: done; locked and left as it was: {kept}." if met else f"{words}: done."
            )

        def refused(sentence: str) -> None:
            if turn == self._turns.now:
                ended(sentence)
                notify.error(sentence)

        self._busy = True
        self._say(f"{words} ...")
        self._refresh()
        threads.run(work, done, refused)

    def _say(self, words: str) -> None:
        self.status.setText(words)


def _value_field() -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setRange(-_MOST, _MOST)
    field.setDecimals(2)
    field.setKeyboardTracking(False)
    field.setMinimumWidth(70)
    return field


def _name(layer: Any, label: int) -> str:
    return readable(names_of(layer).get(int(label), f"label {label}"))


def _values_at(data: Any, where: strokes.Where) -> np.ndarray:
    """Read the scan at some voxels of its labels; of more times than those have, the first."""
    where = where[-data.ndim :]
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in where)
    part = np.asarray(data[(*(0,) * (data.ndim - len(where)), *box)])
    return part[tuple(at - one.start for at, one in zip(where, box, strict=True))]


_WITHIN_TIP = "Brush, fill and polygon change only voxels of the scan in this range"
_FILL_TIP = (
    "Draw the selected label on some slices of this view; the ones between are filled from their "
    "outlines"
)
_SMOOTH_TIP = "Smooth the surface of the selected label; its volume stays"
_GROW_TIP = (
    "Paint a few strokes with two or more labels, one of them for the rest; they grow to the edges "
    "of the scan between them, up to 10 mm beyond the strokes"
)
