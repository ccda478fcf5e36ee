"""The Segment dock: organs in 3D with their names, volumes and mean intensities."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QVBoxLayout

from napari_spad import layers, locks, start, view
from napari_spad.box import in_volume
from napari_spad.organ_layers import fits_as_organs, itself, labels_on, names_of, on_same_grid
from napari_spad.solid import Solid
from napari_spad.widgets import organ_csv, saving
from napari_spad.widgets.answers import Answers, confidence_of, show_confidence
from napari_spad.widgets.choosers import LayerChooser, is_scan
from napari_spad.widgets.click_part import ClickPart
from napari_spad.widgets.comparison import Comparison
from napari_spad.widgets.edit_row import EditRow
from napari_spad.widgets.forms import Form, Section, line, row, text
from napari_spad.widgets.improve import ImprovePart
from napari_spad.widgets.job_dock import JobDock
from napari_spad.widgets.notices import follow
from napari_spad.widgets.organ_table import OrganTable
from napari_spad.widgets.organ_words import (
    Figures,
    feature_table,
    outcome_words,
    selection_words,
)
from napari_spad.widgets.organs import ClickPicker
from napari_spad.widgets.part import PartChooser
from napari_spad.widgets.quiet_job import QuietJob, Work
from spad.volumes.colors import readable
from spad.worker.messages import Describe, Organs, Segment

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume
    from spad.worker.messages import Request

_WIDTH = 430
_UNSURE = "In colours of fire: where the model is unsure."
_HINT = "Click an organ, in the picture or in the table."
_NO_ORGANS = "Organs appear here: click Segment organs, or open a labels file of this scan."


class SegmentDock(JobDock):
    """Segments the organs of a scan, and measures, shows and compares any labels on it."""

    kind = "segmenter"
    verb = "Segment organs"
    title = "Segmenting"

    def __init__(self, napari_viewer: Viewer) -> None:
        start.use(napari_viewer)
        self.part = PartChooser(napari_viewer)
        self.confidence = QCheckBox("Confidence layer")
        self.confidence.setToolTip(
            "With the organs, show how sure the model is of every voxel: colours of fire where it "
            "is unsure; the status bar says 0 to 100 % under the mouse"
        )
        self.organs = OrganChooser(napari_viewer)
        self.click = ClickPart(napari_viewer, lambda: self.organs.layer)
        self.edit = edit = EditRow(napari_viewer)
        self.click.prompts.mouse.held = lambda: edit.armed
        self.table = OrganTable()
        self.comparison = Comparison(napari_viewer, self._scan_under)
        self.selection = text(_HINT)
        self.all_button = QPushButton("Show all")
        self.only_button = QPushButton("Only this")
        self.solid_button = QPushButton("See in 3D")
        self.save_button = QPushButton("Save labels ...")
        self.table_button = QPushButton("Save table ...")
        self._figures: Figures = {}
        self._solid = Solid(napari_viewer)
        self._asked_box: Any = None
        self._watched: list[Callable[[], None]] = []
        self._steps = (0, 0)
        self._fresh = False
        self._answers = Answers(napari_viewer)
        super().__init__(napari_viewer)
        self.setMinimumWidth(_WIDTH)
        self._measuring = QuietJob(self, self._measuring_work)
        self._connect_results()
        self.improve.use_again()
        self._organs_chosen(self.organs.layer)

    def add_options(self, form: Form) -> None:
        form.add("Look at", self.part.chooser)
        form.addWidget(self.part, form.rowCount(), 0, 1, 2)
        form.add("", self.confidence)

    def add_results(self, layout: QVBoxLayout) -> None:
        self.click_section = Section("Click", self.click, unfolded=False)
        layout.addWidget(self.click_section)
        layout.addWidget(Section("Edit by hand", self.edit, unfolded=False))
        self.improve = ImprovePart(
            self.models,
            lambda: self.organs.layer,
            lambda: None if self.organs.layer is None else self._scan_under(self.organs.layer),
            lambda: self.click.session,
        )
        self.improve_section = Section("Learn from corrections", self.improve, unfolded=False)
        layout.addWidget(self.improve_section)
        layout.addWidget(line())
        chooser = row(QLabel("Organs of"), self.organs)
        chooser.setStretch(1, 1)
        layout.addLayout(chooser)
        layout.addWidget(self.selection)
        layout.addWidget(self.table, 1)
        layout.addLayout(row(self.all_button, self.only_button, self.solid_button))
        layout.addLayout(row(self.save_button, self.table_button))
        layout.addWidget(self.comparison)

    def request(self, volume: Volume, model: str) -> Request:
        box = self._asked_box = self.part.box
        return Segment(
            volume,
            model=model,
            modality=volume.modality,
            box=None if box is None else in_volume(box, volume),
            confidence=self.confidence.isChecked(),
        )

    def show_scan(self, layer: Layer | None) -> None:
        self.part.show_scan(layer)
        self.click.show_scan(layer)

    def show_result(self, value: Any, layer: Layer) -> str:
        answer, confidence = value, None
        if isinstance(value, Organs):
            answer, confidence = value.labels, value.confidence
        report = answer.report or {}
        box = self._asked_box
        self.part.rest()
        joined, fixed = self._answers.join(answer, layer, self.organs.layer, box)
        self._fresh = joined is answer
        organs = self._answers.show(joined, layer)
        if fixed:
            locks.lock(organs, fixed)
        self.organs.choose(organs)
        show_confidence(self._viewer, confidence, layer)
        figures = report.get("labels", {})
        if self._fresh:
            self._show_figures(figures, organs, self._unit_of(layer))
        else:
            self._measuring.soon(0)
        self._fresh = False
        self._bring_into_view(organs)
        where = "" if box is None else "the box"
        words = outcome_words(figures, report.get("seconds", {}).get("total"), where)
        return words if confidence is None else f"{words} {_UNSURE}"

    def closed(self) -> None:
        self.click.button.setChecked(False)
        self.click.session = None
        self.click.end()

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
        self.only_button.setEnabled(bool(label))
        found = [(n, f) for n, f in self._figures.items() if f["id"] == label]
        if not label:
            self.selection.setText(f"No organ there. {_HINT}")
            return
        layer.selected_label = label
        words = selection_words(*found[0], self.table.unit) if found else f"label {label}"
        self._say(words)
        if move:
            place = view.organ_place(layer, label)
            if place is not None:
                view.go_to(self._viewer, place)

    def _connect_results(self) -> None:
        self._measuring.done.connect(self._measured)
        self.organs.chosen.connect(self._organs_chosen)
        self.table.picked.connect(lambda label: self.select(label, move=True))
        self.table.changed.connect(self.comparison.redraw)
        self.comparison.changed.connect(self._show_table)
        self.all_button.clicked.connect(lambda: self.table.show_only(None))
        self.only_button.clicked.connect(lambda: self.table.show_only(self.table.selected))
        self.save_button.clicked.connect(lambda: saving.ask_and_save(self, self.organs.layer))
        self.table_button.clicked.connect(self._save_table)
        self.solid_button.setCheckable(True)
        self.solid_button.setToolTip(
            "Switch between slices and 3D, the organs alone, from the front"
        )
        self.solid_button.clicked.connect(self._switch_3d)
        self.only_button.setToolTip("Hide all organs but the selected one")
        self.confidence.toggled.connect(self._switch_confidence)
        follow(self, self._viewer.dims.events.ndisplay, self._mark_3d)
        follow(self, locks.refusals.refused, self._refused)
        self.click.labels_made.connect(self.organs.choose)
        self.click.switched.connect(self._clicking)
        self.click.objects.locked.connect(lambda *_: self._show_table())
        self.table.changed.connect(self.click.show_locks)
        self.table.changed.connect(self.improve.look_soon)
        self.click.objects.locked.connect(self.improve.look_soon)
        self.improve.called.connect(self.improve_section.unfold)
        picker = ClickPicker(
            self._viewer, lambda: None if self.click.on else self.organs.layer, self.select
        )
        self.destroyed.connect(picker.stop)

    def _clicking(self, on: bool) -> None:
        if on:
            self.click_section.unfold()

    def _switch_confidence(self, on: bool) -> None:
        scan = self.scans.layer
        found = [] if scan is None else confidence_of(self._viewer, scan)
        for layer in found:
            layer.visible = on
        if on and not found and self.organs.layer is not None:
            self._say(f"The confidence comes with the next click on {self.verb}.")

    def _bring_into_view(self, layer: Any) -> None:
        if not self._figures or view.shows_any(self._viewer, layer):
            return
        largest = max(self._figures.values(), key=lambda one: one["volume_ml"])
        place = view.organ_place(layer, largest["id"])
        if place is not None:
            view.go_to(self._viewer, place)

    # The labels in question

    def _organs_chosen(self, layer: Any) -> None:
        while self._watched:
            self._watched.pop()()
        self._figures = {}
        self.comparison.show_organs(layer)
        self.click.show_labels(layer)
        self.improve.show_labels(layer)
        self._show_table()
        self.selection.setText(_NO_ORGANS if layer is None else _HINT)
        if layer is None:
            return
        locks.guard(layer)
        events = (layer.events.paint, layer.events.data)
        self._watched = [follow(self, event, self._edited) for event in events]
        # napari tells of no undo
        self._steps = _steps_of(layer)
        self._watched.append(follow(self, layer.events.set_data, self._perhaps_undone))
        if not self._fresh:
            self._measuring.soon(0)

    def _perhaps_undone(self, event: Any = None) -> None:
        steps = _steps_of(self.organs.layer)
        if steps != self._steps:
            self._steps = steps
            self._edited()

    def _edited(self, event: Any = None) -> None:
        self._measuring.soon()
        self.comparison.refresh()

    def _refused(self, told: tuple[Any, set[int]]) -> None:
        """Say why a stroke did not change locked organs."""
        layer, labels = told
        if self.organs.layer is None or itself(self.organs.layer) is not layer:
            return
        names = names_of(layer)
        organs = ", ".join(readable(names.get(label, f"label {label}")) for label in sorted(labels))
        are = "is" if len(labels) == 1 else "are"
        self._say(f"{organs} {are} locked: click the lock in the table to change that.")

    def _measuring_work(self) -> Work | None:
        """Measure the chosen labels on the scan they lie on."""
        layer = self.organs.layer
        scan = None if layer is None else self._scan_under(layer)
        volume = None if scan is None else layers.scan_volume(scan)
        if volume is None:
            return None
        request = Describe(volume, labels_on(volume, layer))
        return request, f"Measuring {layer.name}", (layer, self._unit_of(scan))

    def _measured(self, report: dict[str, Any], subject: Any) -> None:
        layer, unit = subject
        if layer == self.organs.layer:
            self._show_figures(report["labels"], layer, unit)

    def _show_figures(self, figures: Figures, layer: Any, unit: str) -> None:
        self._figures = {name: one for name, one in figures.items() if one["voxels"]}
        self.table.unit = unit
        names = names_of(layer)
        if names:
            layer.features = feature_table(names, self._figures, unit)
        self._show_table()

    def _show_table(self) -> None:
        layer, compared = self.organs.layer, self.comparison.on
        selected = self.table.selected
        self.table.show_organs(self.comparison.joined(self._figures), self.table.unit, layer)
        self.table.show_comparison(compared)
        for button in (self.save_button, self.all_button, self.solid_button):
            button.setEnabled(layer is not None)
        self.save_button.setToolTip(
            "Save them as a file that overlays the scan" if layer is not None else "No organs yet."
        )
        self.table_button.setEnabled(bool(self._figures))
        self.table_button.setToolTip("All figures as CSV; Ctrl+C in the table copies what it shows")
        self.only_button.setEnabled(bool(selected))

    def _save_table(self) -> None:
        layer = self.organs.layer
        organ_csv.ask_and_save(self, self.table.figures, layer.name, self.table.unit)

    def _scan_under(self, labels: Any) -> Any:
        """Give the scan on whose grid the labels lie: the chosen one if it fits."""
        candidates = [self.scans.layer, *self._viewer.layers]
        for layer in candidates:
            if layer is not None and is_scan(layer) and on_same_grid(labels, layer):
                return layer
        return None

    def _unit_of(self, scan: Layer) -> str:
        volume = layers.scan_volume(scan)
        return "HU" if volume is not None and volume.modality == "CT" else ""

    def _say(self, words: str) -> None:
        self.selection.setText(words)
        self._viewer.status = words

    def _switch_3d(self, solid: bool) -> None:
        if solid:
            view.show_3d(self._viewer)
            self._solid.show(self.organs.layer)
        else:
            view.show_plane(self._viewer, "Axial")

    def _mark_3d(self, event: object = None) -> None:
        solid = self._viewer.dims.ndisplay == 3
        self.solid_button.setChecked(solid)
        if not solid:
            self._solid.end()


class OrganChooser(LayerChooser):
    """A choice among the labels of open scans; a reference opened later does not push in."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, fits_as_organs, "no organs yet")

    def _refill(self, event: Any = None) -> None:
        new, now = getattr(event, "value", None), self.layer
        comes = getattr(event, "type", "") == "inserted" and new is not None
        judged = now is not None and layers.role_of(now) == "organs" and now in self._viewer.layers
        opened = comes and layers.is_labels(new) and layers.role_of(new) != "organs"
        super()._refill(None if judged and opened and on_same_grid(new, now) else event)


def _steps_of(layer: Any) -> tuple[int, int]:
    """Give how many strokes on a layer can be undone and redone."""
    own = itself(layer)
    return len(own._undo_history), len(own._redo_history)
