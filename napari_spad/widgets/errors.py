"""The error of a reconstruction: slice by slice, and organ by organ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLabel, QWidget

from napari_spad import jobs
from napari_spad.grids import AXIS_LABELS
from napari_spad.organ_layers import fits_as_organs, labels_on, on_same_grid
from napari_spad.widgets.choosers import LayerChooser
from napari_spad.widgets.decode import unit_words
from napari_spad.widgets.figure_table import FigureTable
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.notices import follow
from napari_spad.widgets.organs import number
from napari_spad.widgets.plots import ErrorProfile
from spad.volumes.colors import readable
from spad.worker.messages import Describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari import Viewer

    from spad.volumes.volume import Volume

Profiles = dict[str, "Sequence[float]"]


class ErrorTable(FigureTable):
    """Organ, mean error, voxels."""

    def __init__(self) -> None:
        super().__init__(3)
        self.figures: dict[str, dict[str, Any]] = {}
        self.show_organs({}, "")

    def show_organs(self, figures: dict[str, dict[str, Any]], unit: str) -> None:
        """Fill the table, the largest error first.

        Args:
            figures: NAME to mean (error) and voxels.
            unit: of the error.
        """
        found = {name: one for name, one in figures.items() if one["voxels"]}
        ranked = sorted(found.items(), key=lambda pair: -(pair[1]["mean"] or 0.0))
        self.figures = dict(ranked)
        self.setHorizontalHeaderLabels(["Organ", f"mean error{unit_words(unit)}", "voxels"])
        self.fill(
            [
                (readable(name), number(one["mean"], 1), number(one["voxels"], 0))
                for name, one in ranked
            ]
        )
        self.setVisible(bool(ranked))


class Errors(QWidget):
    """A profile of the error through the axis that the viewer's slider moves, and a table."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Any = None
        self._error: Volume | None = None
        self._unit = ""
        self._profiles: dict[str, Profiles] = {}
        self._job: jobs.RunningJob | None = None
        self.profile = ErrorProfile()
        self.organs = LayerChooser(viewer, self._fits, "open or make labels of this scan")
        self.table = ErrorTable()
        self.words = text(faint=True)
        self.words.hide()
        layout = column(self, bare=True)
        layout.addWidget(self.profile)
        chooser = row(QLabel("By organ"), self.organs)
        chooser.setStretch(1, 1)
        layout.addLayout(chooser)
        layout.addWidget(self.table)
        layout.addWidget(self.words)
        self.profile.picked.connect(self.go_to)
        self.organs.chosen.connect(self._measure)
        follow(self, viewer.dims.events.order, self._draw)
        follow(self, viewer.dims.events.point, self._mark)

    @property
    def axis(self) -> int:
        """The axis that the slider moves: 0 S-I, 1 A-P, 2 R-L."""
        dims = self._viewer.dims
        return max(0, int(dims.order[-3]) - (dims.ndim - 3))

    @property
    def slice_shown(self) -> int:
        """The slice of the scan that is shown along that axis."""
        if self._layer is None:
            return 0
        layer, place = self._layer, self._viewer.dims.point[-3:][self.axis]
        scale, start = layer.scale[-3:][self.axis], layer.translate[-3:][self.axis]
        last = error_shape(layer)[self.axis] - 1
        return min(max(round((place - start) / scale), 0), last)

    def show_errors(
        self, layer: Any, error: Volume, unit: str, profiles: Mapping[str, Profiles]
    ) -> None:
        """Show the error of a reconstruction.

        Args:
            layer: a layer on the scan's grid.
            error: the error on it.
            unit: of the error.
            profiles: name to axis to the mean error of every slice.
        """
        self._layer, self._error, self._unit = layer, error, unit
        self._profiles = dict(profiles)
        self._draw()
        self.organs._refill()
        self._measure(self.organs.layer)

    def go_to(self, index: int) -> None:
        """Move the viewer to a slice."""
        if self._layer is not None:
            axis, layer = self.axis, self._layer
            place = layer.translate[-3:][axis] + index * layer.scale[-3:][axis]
            self._viewer.dims.set_point(self._viewer.dims.ndim - 3 + axis, float(place))

    def _fits(self, labels: Any) -> bool:
        layer = getattr(self, "_layer", None)
        return layer is not None and fits_as_organs(labels) and on_same_grid(labels, layer)

    def _draw(self, event: Any = None) -> None:
        if not self._profiles:
            return
        name = AXIS_LABELS[self.axis]
        lines = {who: profiles[name] for who, profiles in self._profiles.items()}
        unit = "" if self._unit == "1" else self._unit
        self.profile.show_profiles(lines, name, unit, self.slice_shown)

    def _mark(self, event: Any = None) -> None:
        self.profile.mark(self.slice_shown)

    def _measure(self, labels: Any) -> None:
        """Measure the error under each label, in the worker."""
        if self._job is not None:
            job, self._job = self._job, None
            job.leave()
        self.table.show_organs({}, self._unit)
        self.words.hide()
        if labels is None or self._error is None:
            return
        if labels.ndim > 3:
            self._say("Labels of a series have no place on one time of it.")
            return
        job = jobs.run(self, Describe(self._error, labels_on(self._error, labels)), "")
        job.succeeded.connect(self._measured)
        for ended in (job.failed, job.died):
            ended.connect(self._say)
        self._job = job
        job.start()

    def _measured(self, report: dict[str, Any]) -> None:
        self._job = None
        self.table.show_organs(report["labels"], self._unit)

    def _say(self, sentence: str) -> None:
        self._job = None
        self.words.setText(sentence)
        self.words.show()


def error_shape(layer: Any) -> tuple[int, ...]:
    """Give a layer's voxels along S-I, A-P and R-L."""
    shape = layer.data.shape[: layer.ndim]
    return tuple(int(n) for n in shape[-3:])
