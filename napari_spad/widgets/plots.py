"""Plots that docks share: usage of codes, curves of training; pyqtgraph on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    import pyqtgraph

_COLORS = ("#5b8ff9", "#f6903d", "#5ad8a6", "#e8684a", "#9270ca", "#ff9d4d", "#6dc8ec")
_WIDTH = 2
_COLUMNS = 16


class Plot(QWidget):
    """A plot in the colours of napari's theme, without pyqtgraph until it shows something.

    Args:
        hint: what stands there while there is nothing to show.
        height: in pixels.
    """

    def __init__(self, hint: str, height: int = 170) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._hint = QLabel(hint)
        self._hint.setWordWrap(True)
        self._layout.addWidget(self._hint)
        self._height = height
        self.widget: pyqtgraph.PlotWidget | None = None

    def area(self) -> pyqtgraph.PlotWidget:
        """Give the plot, made on first use."""
        if self.widget is None:
            import pyqtgraph

            palette = self.palette()
            back = palette.color(QPalette.ColorRole.Window)
            self.widget = pyqtgraph.PlotWidget(background=back)
            self.widget.setMinimumHeight(self._height)
            self.widget.setMaximumHeight(self._height + 30)
            self.widget.setMenuEnabled(False)
            fore = palette.color(QPalette.ColorRole.WindowText)
            for side in ("left", "bottom"):
                axis = self.widget.getAxis(side)
                axis.setPen(fore)
                axis.setTextPen(fore)
                axis.enableAutoSIPrefix(False)
            self._hint.hide()
            self._layout.addWidget(self.widget)
        return self.widget

    def clear(self) -> None:
        """Show nothing."""
        if self.widget is not None:
            self.widget.clear()

    def on_click(self, call: Callable[[float, float], None]) -> None:
        """Call something with the place, in the plot's own numbers, of every click in it."""
        plot = self.area()

        def clicked(event: Any) -> None:
            box = plot.plotItem.vb
            if event.button() == Qt.MouseButton.LeftButton and box.sceneBoundingRect().contains(
                event.scenePos()
            ):
                place = box.mapSceneToView(event.scenePos())
                call(place.x(), place.y())

        plot.scene().sigMouseClicked.connect(clicked)


class UsagePlot(Plot):
    """How often each code is used, the most used first; a click on a bar tells its code."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__("The use of the codes appears here.", height=120)
        self._ranking = np.zeros(0, int)
        self._mark: Any = None

    def show_usage(self, usage: np.ndarray) -> None:
        """Draw sorted usage.

        Args:
            usage: (codes,) mean probability of each code.
        """
        import pyqtgraph

        first = self.widget is None
        plot = self.area()
        plot.clear()
        if first:
            plot.setMouseEnabled(x=True, y=False)
            self.on_click(self._clicked)
        self._ranking = np.argsort(-np.asarray(usage, float), kind="stable")
        shares = sorted_usage(usage)
        even = 1 / len(shares)
        pen = pyqtgraph.mkPen(_COLORS[0], width=_WIDTH)
        brush = pyqtgraph.mkBrush(91, 143, 249, 90)
        ranks = np.arange(1, len(shares) + 1)
        plot.plot(ranks, 100 * shares, pen=pen, fillLevel=0, brush=brush)
        self._mark = pyqtgraph.InfiniteLine(1, pen=pyqtgraph.mkPen(_COLORS[3], width=_WIDTH))
        self._mark.hide()
        plot.addItem(self._mark)
        dashed = pyqtgraph.mkPen(_COLORS[1], width=1, style=_dash())
        plot.addItem(pyqtgraph.InfiniteLine(100 * even, angle=0, pen=dashed))
        plot.setLabel("bottom", f"codes, most used first (of {len(shares)})")
        plot.setLabel("left", "% of tokens")
        plot.setToolTip("Click a bar to choose its code. The dashed line is even use of all codes.")
        plot.enableAutoRange()

    def mark(self, code: int) -> None:
        """Mark a code's bar."""
        if self._mark is not None:
            self._mark.setValue(int(np.flatnonzero(self._ranking == code)[0]) + 1)
            self._mark.show()

    def _clicked(self, x: float, y: float) -> None:
        rank = round(x) - 1
        if 0 <= rank < len(self._ranking):
            self.picked.emit(int(self._ranking[rank]))


class ErrorProfile(Plot):
    """The mean error of every slice; a click tells the slice."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__("The error of every slice appears here.", height=130)
        self._now: Any = None
        self._count = 0

    def show_profiles(
        self, profiles: Mapping[str, Sequence[float]], axis: str, unit: str, now: int
    ) -> None:
        """Draw profiles.

        Args:
            profiles: name to the mean error of each slice.
            axis: what the slices lie along.
            unit: of the error.
            now: the slice that is shown.
        """
        import pyqtgraph

        first = self.widget is None
        plot = self.area()
        plot.clear()
        if first:
            plot.setMouseEnabled(x=True, y=False)
            self.on_click(self._clicked)
        if plot.plotItem.legend is not None:
            plot.plotItem.legend.clear()
        elif len(profiles) > 1:
            fore = self.palette().color(QPalette.ColorRole.WindowText)
            plot.addLegend(offset=(-5, 5), labelTextSize="8pt", labelTextColor=fore)
        for index, (name, line) in enumerate(profiles.items()):
            self._count = len(line)
            alone = {"symbol": "o"} if len(line) == 1 else {}
            label = {"name": name} if len(profiles) > 1 else {}
            style = _style(index, name) | alone | label
            plot.plot(np.arange(len(line)), np.asarray(line, float), **style)
        self._now = pyqtgraph.InfiniteLine(now, pen=pyqtgraph.mkPen(_COLORS[3], width=1))
        plot.addItem(self._now)
        plot.setLabel("bottom", f"slice along {axis}")
        plot.setLabel("left", f"mean error, {unit}" if unit else "mean error")
        plot.setToolTip("Click to go to that slice. The red line is the slice that is shown.")
        plot.enableAutoRange()

    def mark(self, now: int) -> None:
        """Mark the slice that is shown."""
        if self._now is not None:
            self._now.setValue(now)

    def _clicked(self, x: float, y: float) -> None:
        if self._count:
            self.picked.emit(min(max(round(x), 0), self._count - 1))


class Mosaic(Plot):
    """A picture of every code alone, the most used first; a click on one tells its code."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__("A picture of every code appears here.", height=190)
        self._ranking = np.zeros(0, int)
        self._tile = (1, 1)
        self._mark: Any = None

    def show_codes(self, tiles: np.ndarray, ranking: np.ndarray) -> None:
        """Draw all codes.

        Args:
            tiles: (codes, height, width[, 3]) in [0, 1].
            ranking: the codes in the order in which they are shown.
        """
        import pyqtgraph

        first = self.widget is None
        plot = self.area()
        plot.clear()
        if first:
            plot.hideAxis("left")
            plot.hideAxis("bottom")
            plot.invertY(True)
            plot.setAspectLocked(True)
            self.on_click(self._clicked)
        self._ranking = np.asarray(ranking)
        self._tile = (tiles.shape[1], tiles.shape[2])
        page = mosaic(tiles[self._ranking], _COLUMNS)
        image = pyqtgraph.ImageItem(page, axisOrder="row-major", levels=(0, 1))
        plot.addItem(image)
        pen = pyqtgraph.mkPen(_COLORS[3], width=_WIDTH)
        self._mark = pyqtgraph.QtWidgets.QGraphicsRectItem(0, 0, *self._tile[::-1])
        self._mark.setPen(pen)
        self._mark.hide()
        plot.addItem(self._mark)
        width, height = page.shape[1], min(page.shape[0], page.shape[1] * 5 // 8)
        plot.setRange(xRange=(0, width), yRange=(0, height), padding=0)
        plot.setToolTip(
            "What each code alone decodes to, the most used first. Click one to choose it; drag to "
            "see the others, turn the wheel for larger ones."
        )

    def mark(self, code: int) -> None:
        """Mark a code's tile, and bring it into sight."""
        if self._mark is None:
            return
        at = int(np.flatnonzero(self._ranking == code)[0])
        high, wide = self._tile
        left, top = at % _COLUMNS * wide, at // _COLUMNS * high
        self._mark.setPos(left, top)
        self._mark.show()
        box = self.area().plotItem.vb
        (x0, x1), (y0, y1) = box.viewRange()
        if not (x0 <= left and left + wide <= x1 and y0 <= top and top + high <= y1):
            box.translateBy(y=top + high / 2 - (y0 + y1) / 2)

    def _clicked(self, x: float, y: float) -> None:
        high, wide = self._tile
        column, line = int(x // wide), int(y // high)
        at = line * _COLUMNS + column
        if 0 <= column < _COLUMNS and 0 <= at < len(self._ranking):
            self.picked.emit(int(self._ranking[at]))


class CurvePlot(Plot):
    """Curves of a run over its steps, one colour per figure.

    Args:
        title: what stands over the plot.
        height: in pixels.
    """

    def __init__(self, title: str = "", height: int = 190) -> None:
        super().__init__("The curve of a run appears here." if not title else "", height)
        self._title = title
        self._names: list[str] = []
        self._curves: dict[str, Any] = {}

    def clear(self) -> None:
        super().clear()
        self._names, self._curves = [], {}

    def show_curves(self, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        """Draw curves.

        Args:
            curves: name to steps and values; a gap is NaN.
        """
        import pyqtgraph

        plot = self.area()
        if list(curves) != self._names:
            plot.clear()
            if plot.plotItem.legend is not None:
                plot.plotItem.legend.clear()
            if self._title:
                plot.setTitle(self._title, size="8pt")
            else:
                legend = plot.addLegend(offset=(-5, 5), labelTextSize="8pt")
                legend.setBrush(pyqtgraph.mkBrush(0, 0, 0, 110))
            self._names = list(curves)
            self._curves = {
                name: plot.plot(name=name, connect="finite", **_style(index, name))
                for index, name in enumerate(curves)
            }
            if not self._title:
                plot.setLabel("bottom", "step")
        for name, (steps, values) in curves.items():
            self._curves[name].setData(np.asarray(steps, float), np.asarray(values, float))


def mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Lay tiles out in rows.

    Args:
        tiles: (N, height, width[, 3]).
        columns: tiles in a row.

    Returns:
        One picture; what the last row lacks is 0.
    """
    count, high, wide = tiles.shape[:3]
    lines = -(-count // columns)
    missing = np.zeros((lines * columns - count, *tiles.shape[1:]), tiles.dtype)
    table = np.concatenate([tiles, missing]).reshape(lines, columns, *tiles.shape[1:])
    return table.swapaxes(1, 2).reshape(lines * high, columns * wide, *tiles.shape[3:])


def sorted_usage(usage: np.ndarray) -> np.ndarray:
    """Sort usage from the most used code to the least; shares that sum to 1."""
    shares = np.sort(np.asarray(usage, float))[::-1]
    total = shares.sum()
    return shares / total if total > 0 else shares


def _style(index: int, name: str) -> dict[str, Any]:
    import pyqtgraph

    color = _COLORS[index % len(_COLORS)]
    pen = pyqtgraph.mkPen(color, width=_WIDTH)
    if name.startswith("validation"):
        return {"pen": pen, "symbol": "o", "symbolSize": 6, "symbolBrush": color, "symbolPen": None}
    return {"pen": pen}


def _dash() -> Any:
    return Qt.PenStyle.DashLine
