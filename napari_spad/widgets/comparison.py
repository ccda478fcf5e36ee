"""Organs beside a reference: the agreement in figures, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QWidget

from napari_spad import grids, layers, visibility
from napari_spad.differences import COLORS, KINDS, differences, keys_of, layer_look
from napari_spad.organ_layers import (
    fits_as_organs,
    itself,
    labels_on,
    on_same_grid,
    volumes_ml,
)
from napari_spad.widgets.choosers import LayerChooser
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.organ_words import Figures, comparison_words
from napari_spad.widgets.quiet_job import QuietJob, Work
from spad.worker.messages import Compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer

_NONE = "no other labels of this scan"


class Comparison(QWidget):
    """Compares the organs in question with another Labels layer on the same grid.

    Args:
        viewer: the viewer.
        scan: gives the layer of the scan that labels lie on, or None.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer, scan: Callable[[Any], Any]) -> None:
        super().__init__()
        self._viewer, self._scan = viewer, scan
        self._organs: Any = None
        self._report: dict[str, Any] | None = None
        self._shown: Any = None
        self._hid: list[Any] = []
        self._outlined: tuple[Any, dict[str, Any]] | None = None
        self.check = QCheckBox("Compare with")
        self.chooser = LayerChooser(viewer, self._fits, _NONE)
        self.words = text(faint=True)
        self.differences = QCheckBox("Show where they differ")
        self.legend = QLabel(legend_html())
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self._job = QuietJob(self, self._work)
        layout = column(self, bare=True)
        layout.setSpacing(3)
        choice = row(self.check, self.chooser)
        choice.setStretch(1, 1)
        layout.addLayout(choice)
        layout.addWidget(self.words)
        layout.addWidget(self.differences)
        layout.addWidget(self.legend)
        self.check.toggled.connect(self._switched)
        self.chooser.chosen.connect(self._reference_chosen)
        self.differences.toggled.connect(self._show_differences)
        self._job.done.connect(self._compared)
        self._job.failed.connect(lambda: self.words.setText("They could not be compared."))
        self._arrange()

    @property
    def on(self) -> bool:
        """Whether figures of a comparison are to be shown."""
        return self.check.isChecked() and self._report is not None

    def show_organs(self, layer: Any) -> None:
        """Take note of the organs in question."""
        self._organs, self._report = layer, None
        self.differences.setChecked(False)
        self._outline(None)
        self.chooser._refill()
        self._arrange()
        self.refresh(0)

    def refresh(self, milliseconds: int | None = None) -> None:
        """Compare anew: the organs or the reference have changed."""
        if not self.check.isChecked() or self.chooser.layer is None or self._organs is None:
            return
        if milliseconds is None:
            self._job.soon()
        else:
            self._job.soon(milliseconds)

    def redraw(self) -> None:
        """Show the differences of the organs that are visible now."""
        if self._shown is not None:
            self._shown.data = self._difference()

    def joined(self, figures: Figures) -> Figures:
        """Add the agreement to the figures of organs, and the organs that only the reference has.

        Args:
            figures: NAME to id, volume_ml and more.
        """
        reference = self.chooser.layer
        if not self.on or reference is None or self._report is None:
            return figures
        own, theirs = keys_of(self._organs, reference), keys_of(reference, self._organs)
        expected: dict[str, float] = {}
        for label, volume in volumes_ml(reference).items():
            expected[theirs(label)] = expected.get(theirs(label), 0.0) + volume
        made: Figures = {}
        for name, one in figures.items():
            word = own(int(one["id"]))
            before = expected.pop(word, 0.0)
            made[name] = {**one, **self._report["labels"].get(word, {}), "reference_ml": before}
        for word, before in expected.items():
            agreement = self._report["labels"].get(word, {})
            made[word] = {"id": 0, "volume_ml": 0.0, **agreement, "reference_ml": before}
        for one in made.values():
            one["difference_ml"] = one["volume_ml"] - one["reference_ml"]
        return made

    def _fits(self, labels: Any) -> bool:
        organs = getattr(self, "_organs", None)
        if organs is None or itself(labels) is itself(organs) or not fits_as_organs(labels):
            return False
        same = labels.data.shape == organs.data.shape and organs.ndim == 3
        return same and on_same_grid(labels, organs)

    def _switched(self, on: bool) -> None:
        self._report = None
        if not on:
            self.differences.setChecked(False)
        self._outline(self.chooser.layer if on else None)
        self._arrange()
        self.refresh(0)
        self.changed.emit()

    def _reference_chosen(self, layer: Any) -> None:
        self._report = None
        self.differences.setChecked(False)
        if layer is None:
            self.check.setChecked(False)
        self._outline(layer if self.check.isChecked() else None)
        self._arrange()
        self.refresh(0)

    def _outline(self, reference: Any) -> None:
        """Draw the reference as lines around the organs, and an earlier one as it was."""
        if self._outlined is not None:
            layer, before = self._outlined
            self._outlined = None
            for name, value in before.items():
                setattr(layer, name, value)
        if reference is not None and self._viewer.dims.ndisplay == 2:
            self._outlined = reference, {name: getattr(reference, name) for name in _LINES}
            for name, value in _LINES.items():
                setattr(reference, name, value)

    def _arrange(self) -> None:
        """Show what can be used now."""
        can = self.chooser.layer is not None
        self.check.setEnabled(can)
        self.check.setToolTip(
            "" if can else "Open other labels of this scan, such as a manual reference."
        )
        waiting = self.check.isChecked() and can and self._report is None
        if waiting:
            self.words.setText("Comparing ...")
        self.words.setVisible(waiting or self.on)
        self.differences.setVisible(self.on)
        self.legend.setVisible(self.on and self.differences.isChecked())

    def _work(self) -> Work | None:
        organs, reference = self._organs, self.chooser.layer
        scan = None if organs is None else self._scan(organs)
        volume = None if scan is None else layers.scan_volume(scan)
        if reference is None or volume is None or not self.check.isChecked():
            return None
        request = Compare(labels_on(volume, organs), labels_on(volume, reference))
        return request, f"Comparing {organs.name}", (organs, reference)

    def _compared(self, report: dict[str, Any], subject: Any) -> None:
        organs, reference = subject
        if organs is not self._organs or reference is not self.chooser.layer:
            return
        self._report = report
        self.words.setText(f"{comparison_words(report, reference.name)}. Lines: {reference.name}.")
        self._arrange()
        self.redraw()
        self.changed.emit()

    def _difference(self) -> Any:
        organs, reference = self._organs, self.chooser.layer
        key = keys_of(organs, reference)
        return differences(organs, reference, [key(n) for n in visibility.hidden(organs)])

    def _show_differences(self, on: bool) -> None:
        """Show a layer of the differences in the place of both label layers, or take it away."""
        self._arrange()
        viewer = self._viewer
        if on and self._organs is not None and self.chooser.layer is not None:
            both = (self._organs, self.chooser.layer)
            place = {key: getattr(both[0], key) for key in _PLACE}
            tag = {**(both[0].metadata.get(grids.KEY) or {}), "role": "difference"}
            tag = {key: tag[key] for key in ("uuid", "role") if key in tag}
            self._shown = viewer.add_labels(
                self._difference(),
                name=f"{both[0].name} - differences",
                metadata={grids.KEY: tag},
                **place,
                **layer_look(),
            )
            self._hid = [layer for layer in both if layer.visible]
            for layer in self._hid:
                layer.visible = False
            return
        shown, self._shown = self._shown, None
        if shown is not None and shown in viewer.layers:
            viewer.layers.remove(shown)
        for layer in self._hid:
            layer.visible = True
        self._hid = []


_LINES = {"contour": 1, "opacity": 1.0, "visible": True}
_PLACE = ("scale", "translate", "units", "axis_labels")


def legend_html() -> str:
    """Name the colours of the differences."""
    squares = []
    for kind, name in KINDS.items():
        red, green, blue = (round(255 * channel) for channel in COLORS[kind][:3])
        squares.append(f'<span style="color: rgb({red},{green},{blue})">■</span> {name}')
    return "&nbsp; ".join(squares)
