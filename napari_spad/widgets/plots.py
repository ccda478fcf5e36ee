"""Plots that docks share: usage of codes, curves of training; pyqtgraph on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    import pyqtgraph

_COLORS = ("#5b8ff9", "#f6903d", "#5ad8a6", "#e8684a", "#9270ca", "#ff9d4d", "#6dc8ec")
_WIDTH = 2


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


class UsagePlot(Plot):
    """How often each code is used, the most used first."""

    def __init__(self) -> None:
        super().__init__("The use of the codes appears here.", height=140)

    def show_usage(self, usage: np.ndarray) -> None:
        """Draw sorted usage.

        Args:
            usage: (codes,) mean probability of each code.
        """
        import pyqtgraph

        plot = self.area()
        plot.clear()
        shares = sorted_usage(usage)
        even = 1 / len(shares)
        pen = pyqtgraph.mkPen(_COLORS[0], width=_WIDTH)
        brush = pyqtgraph.mkBrush(91, 143, 249, 90)
        ranks = np.arange(1, len(shares) + 1)
        plot.plot(ranks, 100 * shares, pen=pen, fillLevel=0, brush=brush)
        dashed = pyqtgraph.mkPen(_COLORS[1], width=1, style=_dash())
        plot.addItem(pyqtgraph.InfiniteLine(100 * even, angle=0, pen=dashed))
        plot.setLabel("bottom", f"codes, most used first (of {len(shares)})")
        plot.setLabel("left", "share of tokens, %")
        plot.setToolTip("The dashed line is even use of all codes.")
        plot.enableAutoRange()


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
    from qtpy.QtCore import Qt

    return Qt.PenStyle.DashLine
