"""The Segment dock: organs in 3D with their names, volumes and mean intensities."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout

from napari_spad import jobs, layers, notify, view
from napari_spad.widgets import saving
from napari_spad.widgets.choosers import LayerChooser, is_scan
from napari_spad.widgets.forms import line, row, text
from napari_spad.widgets.job_dock import JobDock, add_layer
from napari_spad.widgets.notices import follow
from napari_spad.widgets.organs import ClickPicker, OrganTable, number
from spad.volumes.axes import from_canonical
from spad.volumes.colors import readable
from spad.worker.messages import Describe, Segment

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume
    from spad.worker.messages import Request

_QUIET_MS = 800
_WHOLE_FROM = 100
_HINT = "Click an organ, in the picture or in the table."
_COVERING = ("mask", "seen", "reconstruction", "error", "codes")
"""Roles of the results of other docks, which would cover the scan that the organs lie on."""


class SegmentDock(JobDock):
    """Segments the organs of a scan, and measures and shows any labels on it."""

    kind = "segmenter"
    verb = "Segment organs"
    title = "Segmenting"

    def __init__(self, napari_viewer: Viewer) -> None:
        self.organs = LayerChooser(napari_viewer, fits_as_organs, "no organs yet")
        self.table = OrganTable()
        self.selection = text(_HINT)
        self.save_button = QPushButton("Save labels ...")
        self.solid_button = QPushButton("See in 3D")
        self.solid_button.setCheckable(True)
        self.solid_button.setToolTip("Switch between slices and 3D, seen from the front")
        self._figures: dict[str, dict[str, Any]] = {}
        self._unit = ""
        self._measuring: jobs.RunningJob | None = None
        self._watched: list[Callable[[], None]] = []
        self._fresh = False
        self._untouched: WeakKeyDictionary[Any, dict[int, str]] = WeakKeyDictionary()
        self._quiet = QTimer()
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(_QUIET_MS)
        super().__init__(napari_viewer)
        self._quiet.timeout.connect(self._measure)
        self.organs.chosen.connect(self._organs_chosen)
        self.table.picked.connect(lambda label: self.select(label, move=True))
        self.save_button.clicked.connect(lambda: saving.ask_and_save(self, self.organs.layer))
        self.solid_button.clicked.connect(self._switch_3d)
        follow(self, napari_viewer.dims.events.ndisplay, self._mark_3d)
        picker = ClickPicker(napari_viewer, lambda: self.organs.layer, self.select)
        self.destroyed.connect(picker.stop)
        self._organs_chosen(self.organs.layer)

    def add_results(self, layout: QVBoxLayout) -> None:
        layout.addWidget(line())
        chooser = row(QLabel("Organs of"), self.organs)
        chooser.setStretch(1, 1)
        layout.addLayout(chooser)
        layout.addWidget(self.selection)
        layout.addWidget(self.table, 1)
        layout.addLayout(row(self.solid_button, self.save_button))

    def request(self, volume: Volume, model: str) -> Request:
        return Segment(volume, model=model, modality=volume.modality)

    def show_result(self, value: Any, layer: Layer) -> str:
        self._fresh = True
        made = layers.to_layer(value, f"{layer.name} - organs", role="organs")
        found = self._untouched_like(made, value.label_names)
        for other in self._viewer.layers:
            earlier = layers.role_of(other) == "organs" and on_same_grid(other, layer)
            if other is not found and (earlier or layers.role_of(other) in _COVERING):
                other.visible = False
        self._viewer.canvas.grid.enabled = False
        if found is None:
            found = add_layer(self._viewer, made)
            for event in (found.events.paint, found.events.data):
                event.connect(self._touched)
        else:
            found.data = made[0]
            found.visible = True
        self._untouched[itself(found)] = value.label_names
        self.organs.choose(found)
        self._fresh = False
        report = value.report or {}
        self._unit = "HU" if self._modality_of(layer) == "CT" else ""
        figures = report.get("labels", {})
        self._show_figures(figures, found)
        self._bring_into_view(found)
        return outcome_words(figures, report.get("seconds", {}).get("total"))

    def select(self, label: int, *, move: bool = False) -> None:
        """Select an organ: highlight its row and say its volume and mean.

        Args:
            label: its id; 0 selects nothing.
            move: whether to move the view to it.
        """
        layer = self.organs.layer
        if layer is None:
            return
        self.table.highlight(label)
        found = [(n, f) for n, f in self._figures.items() if f["id"] == label]
        if not label:
            self.selection.setText(f"No organ there. {_HINT}")
            return
        layer.selected_label = label
        words = selection_words(*found[0], self._unit) if found else f"label {label}"
        self.selection.setText(words)
        self._viewer.status = words
        if move:
            place = view.organ_place(layer, label)
            if place is not None:
                view.go_to(self._viewer, place)

    def _untouched_like(self, made: layers.LayerData, names: dict[int, str]) -> Any:
        """Give the layer of an earlier answer that nobody has changed since, if this one fits it.

        napari takes a quarter of a second to make a Labels layer, in which nothing moves.
        """
        data, kwargs, _ = made
        for old in reversed(self._viewer.layers):
            names_of_old = self._untouched.get(itself(old))
            alike = names_of_old == names and old.data.shape == data.shape
            if alike and old.data.dtype == data.dtype and old.metadata == kwargs["metadata"]:
                return old
        return None

    def _touched(self, event: Any) -> None:
        self._untouched.pop(event.source, None)

    def _modality_of(self, layer: Layer) -> str | None:
        volume = layers.scan_volume(layer)
        return None if volume is None else volume.modality

    def _bring_into_view(self, layer: Any) -> None:
        if not self._figures or view.shows_any(self._viewer, layer):
            return
        largest = max(self._figures.values(), key=lambda f: f["volume_ml"])
        place = view.organ_place(layer, largest["id"])
        if place is not None:
            view.go_to(self._viewer, place)

    def _organs_chosen(self, layer: Any) -> None:
        while self._watched:
            self._watched.pop()()
        self.save_button.setEnabled(layer is not None)
        self.save_button.setToolTip(
            "Save them as a file that overlays the scan" if layer is not None else "No organs yet."
        )
        self.table.setRowCount(0)
        if layer is None:
            self.selection.setText("Organs appear here after segmentation, or open a labels file.")
            return
        self.selection.setText(_HINT)
        events = (layer.events.paint, layer.events.data)
        self._watched = [follow(self, event, self._edited) for event in events]
        if not self._fresh:
            self._quiet.start(0)

    def _edited(self, event: Any = None) -> None:
        self._quiet.start(_QUIET_MS)

    def _measure(self) -> None:
        """Measure the chosen labels on the scan they lie on, in the worker."""
        layer = self.organs.layer
        scan = None if layer is None else self._scan_under(layer)
        if layer is None or scan is None:
            return
        if self._measuring is not None:
            self._quiet.start(_QUIET_MS)
            return
        volume = layers.scan_volume(scan)
        assert volume is not None
        self._unit = "HU" if volume.modality == "CT" else ""
        request = Describe(volume, labels_on(volume, layer))
        job = jobs.run(self, request, f"Measuring {layer.name}")
        job.succeeded.connect(lambda report: self._measured(report, layer))
        job.failed.connect(self._not_measured)
        job.died.connect(self._not_measured)
        job.cancelled.connect(lambda: self._not_measured(""))
        self._measuring = job
        job.start()

    def _measured(self, report: dict[str, Any], layer: Any) -> None:
        self._measuring = None
        if layer == self.organs.layer:
            self._show_figures(report["labels"], layer)

    def _not_measured(self, sentence: str) -> None:
        self._measuring = None
        if sentence:
            notify.error(sentence)

    def _show_figures(self, figures: dict[str, dict[str, Any]], layer: Any) -> None:
        selected = self.table.selected
        self._figures = {name: one for name, one in figures.items() if one["voxels"]}
        self.table.show_organs(self._figures, self._unit, layer)
        names = layers.label_names({"features": layer.features})
        if names:
            layer.features = feature_table(names, self._figures, self._unit)
        if selected is not None:
            self.select(selected)

    def _scan_under(self, labels: Any) -> Any:
        """Give the scan on whose grid the labels lie: the chosen one if it fits."""
        candidates = [self.scans.layer, *self._viewer.layers]
        for layer in candidates:
            if layer is not None and is_scan(layer) and on_same_grid(labels, layer):
                return layer
        return None

    def _switch_3d(self, solid: bool) -> None:
        if solid:
            view.show_3d(self._viewer)
        else:
            view.show_plane(self._viewer, "Axial")

    def _mark_3d(self, event: object = None) -> None:
        self.solid_button.setChecked(self._viewer.dims.ndisplay == 3)


def itself(layer: Layer) -> Layer:
    """Give a layer without the wrapping in which a plugin's viewer hands it out."""
    return getattr(layer, "__wrapped__", layer)


def fits_as_organs(layer: Layer) -> bool:
    """Whether a layer holds labels on the grid of an open scan."""
    if not layers.is_labels(layer) or layers.role_of(layer) not in ("organs", "labels", None):
        return False
    return layers.grid_of_layer(layer) is not None


def on_same_grid(one: Layer, other: Layer) -> bool:
    """Whether two layers lie voxel on voxel."""
    first, second = layers.grid_of_layer(one), layers.grid_of_layer(other)
    if first is None or second is None:
        return False
    place = {"scale": second.placement.scale, "translate": second.placement.translate}
    return first.placement.matches(second.placement.shape, place)


def labels_on(scan: Volume, layer: Layer) -> Volume:
    """Give a labels layer as a volume with the axes of the scan that it lies on."""
    names = layers.label_names({"features": layer.features})
    array = from_canonical(layer.data, scan, depth_first=False)
    return scan.with_array(array, label_names=names)


def feature_table(
    names: dict[int, str], figures: dict[str, dict[str, Any]], unit: str
) -> dict[str, Any]:
    """Make the features of a Labels layer, which the status bar shows under the mouse."""
    ids = sorted(names)
    found = [figures.get(names[label], {}) for label in ids]
    mean = f"mean {unit}".strip()
    volumes = [_rounded(f.get("volume_ml")) for f in found]
    means = [_rounded(f.get("mean")) for f in found]
    return {
        "index": [0, *ids],
        "name": ["background", *(names[label] for label in ids)],
        "volume mL": np.array([nan, *volumes], dtype=object),
        mean: np.array([nan, *means], dtype=object),
    }


def outcome_words(figures: dict[str, dict[str, Any]], seconds: float | None) -> str:
    """Say how many organs were found, in which time, and which were not."""
    missing = [readable(name) for name, one in figures.items() if not one["voxels"]]
    took = "" if seconds is None else f" in {seconds:.0f} s"
    if len(missing) == len(figures):
        return f"No organ was found{took}."
    words = f"{len(figures) - len(missing)} organs found{took}."
    return f"{words} Not found: {', '.join(missing)}." if missing else words


def _rounded(value: float | None) -> float:
    """Round so that napari's status bar, which writes floats as "1.52e+03", reads well."""
    if value is None:
        return nan
    return round(value) if abs(value) >= _WHOLE_FROM else round(float(value), 1)


def selection_words(name: str, figures: dict[str, Any], unit: str) -> str:
    """Say an organ's name, volume and mean: "right kidney: 151.2 mL, mean 178 HU"."""
    mean = figures.get("mean")
    words = f"{readable(name)}: {number(figures.get('volume_ml'), 1)} mL"
    return words if mean is None else f"{words}, mean {number(mean, 0)} {unit}".rstrip()
