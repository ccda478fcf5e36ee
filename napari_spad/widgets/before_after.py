"""What fine-tuning was good for: the model before and after, on a scan that was held out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QButtonGroup, QComboBox, QPushButton, QWidget

from napari_spad import grids, layers, view
from napari_spad.before_after import Comparison, Row, Trial, mean, trials
from napari_spad.widgets.choosers import is_scan
from napari_spad.widgets.figure_table import FigureTable
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.job_dock import add_layer
from napari_spad.widgets.judging import Judge
from napari_spad.widgets.organs import number
from spad.volumes.axes import to_canonical
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari import Viewer

DRAWN = "drawn"
_SHOWN = {DRAWN: "Your labels", "before": "Before", "after": "After"}


class DiceTable(FigureTable):
    """Label, Dice before, Dice after, and by how much it rose."""

    def __init__(self) -> None:
        super().__init__(4)
        self.setHorizontalHeaderLabels(["Dice of", "before", "after", "change"])

    def show_rows(self, rows: list[Row]) -> None:
        """Fill the table, with the mean in the last row where there are several labels."""
        shown = list(rows)
        if len(rows) > 1:
            means = (mean([one.before for one in rows]), mean([one.after for one in rows]))
            shown.append(Row("mean", *means))
        self.fill(
            [
                (readable(one.name), number(one.before, 2), number(one.after, 2), one.change)
                for one in shown
            ]
        )


class BeforeAfter(QWidget):
    """Compares both models on a held-out scan, and shows their labels in the viewer."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._run: Path | None = None
        self._trials: list[Trial] = []
        self._result: Comparison | None = None
        self._judge = Judge(self)
        self._shown: dict[str, Any] = {}
        self._cases = QComboBox()
        self.button = QPushButton()
        self.words = text(faint=True)
        self.table = DiceTable()
        self.switches = {side: QPushButton(words) for side, words in _SHOWN.items()}
        self._lay_out()
        self._judge.said.connect(self._say)
        self._judge.refused.connect(self._say)
        self._judge.done.connect(lambda found: self._show(found[0]))
        self.button.clicked.connect(self.compare)
        self._cases.currentIndexChanged.connect(self._case_chosen)
        for side, switch in self.switches.items():
            switch.setToolTip("Show these labels on the held-out scan")
            switch.clicked.connect(lambda _, side=side: self.show_labels(side))
        self._case_chosen()

    def _lay_out(self) -> None:
        group = QButtonGroup(self)
        for switch in self.switches.values():
            switch.setCheckable(True)
            group.addButton(switch)
        self._switch_row = QWidget()
        column(self._switch_row, bare=True).addLayout(row(*self.switches.values()))
        layout = column(self, bare=True)
        layout.addWidget(self._cases)
        layout.addWidget(self.button)
        layout.addWidget(self.words)
        layout.addWidget(self.table)
        layout.addWidget(self._switch_row)

    def show_run(self, run: Path | None) -> None:
        """Offer to compare what a run has made with what it began with."""
        found = [] if run is None else trials(run)
        if found == self._trials and run == self._run:
            return
        self._run, self._trials = run, found
        self._cases.blockSignals(True)
        self._cases.clear()
        self._cases.addItems([trial.scan_name for trial in found])
        self._cases.blockSignals(False)
        self._cases.setVisible(len(found) > 1)
        self._case_chosen()

    def compare(self) -> None:
        """Let both models segment the held-out scan, and compare with what was drawn there."""
        trial = self._trial
        if trial is None or self.is_busy:
            return
        self._forget()
        self._judge.start([trial])

    @property
    def is_busy(self) -> bool:
        """Whether it is comparing."""
        return self._judge.is_busy

    @property
    def result(self) -> Comparison | None:
        """What was compared, or None."""
        return self._result

    def show_labels(self, side: str) -> None:
        """Show what was drawn, or found before or after, on the scan, and nothing else."""
        result = self._result
        if result is None:
            return
        scan = self._scan_layer(result)
        shown = self._labels_layer(side, result, scan)
        for layer in self._viewer.layers:
            layer.visible = layer in (scan, shown)
        self.switches[side].setChecked(True)
        self._viewer.layers.selection.active = shown
        if not view.shows_any(self._viewer, shown):
            place = _place_in(shown)
            if place is not None:
                view.go_to(self._viewer, place)

    @property
    def _trial(self) -> Trial | None:
        index = self._cases.currentIndex()
        return self._trials[index] if 0 <= index < len(self._trials) else None

    def _case_chosen(self, index: int = 0) -> None:
        self._judge.leave()
        self._forget()
        trial = self._trial
        self.setVisible(trial is not None)
        if trial is not None:
            self.button.setText(f"Compare before and after on {trial.scan_name}")
            self._say("")

    def _forget(self) -> None:
        self._result, self._shown = None, {}
        self.table.hide()
        self._switch_row.hide()

    def _show(self, result: Comparison) -> None:
        self._result = result
        self.table.show_rows(result.rows())
        self.table.show()
        self._switch_row.show()
        trial = result.trial
        words = (
            f"Dice with your labels on {trial.scan_name}, which was not learnt from: "
            f"{trial.before}, and this run at step {result.step}."
        )
        if result.step == 0:
            words += " Nothing since was better on held-out scans: train longer, or on more scans."
        self._say(words)

    def _say(self, words: str) -> None:
        self.words.setText(words)
        self.words.setVisible(bool(words))
        self.button.setEnabled(not self.is_busy)

    def _scan_layer(self, result: Comparison) -> Any:
        """Find the scan among the open ones, by its voxels, or open it."""
        for layer in self._viewer.layers:
            if is_scan(layer) and _is_same(layers.scan_volume(layer), result.scan):
                return layer
        return add_layer(self._viewer, layers.to_layer(result.scan, result.trial.scan_name))

    def _labels_layer(self, side: str, result: Comparison, scan: Any) -> Any:
        if self._shown.get(side) not in self._viewer.layers:
            labels = result.drawn if side == DRAWN else result.found[side]
            name = f"{scan.name} - {_SHOWN[side].lower()}"
            self._shown[side] = add_layer(
                self._viewer, layers.to_layer(labels, name, role=f"{side} training")
            )
        return self._shown[side]


def _is_same(one: Any, other: Any) -> bool:
    """Whether two volumes are one scan: grid and voxels."""
    if one is None or one.axes != other.axes:
        return False
    place = grids.place(other)
    if not grids.place(one).matches(
        place.shape, {"scale": place.scale, "translate": place.translate}
    ):
        return False
    ours, theirs = (to_canonical(volume, depth_first=False)[0] for volume in (one, other))
    return bool(np.array_equal(ours, theirs))


def _place_in(labels: Any) -> Any:
    """Find a place inside the largest label."""
    counts = np.bincount(np.asarray(labels.data).ravel())
    counts[0] = 0
    return view.organ_place(labels, int(counts.argmax()))
