"""A picture of how well each organ is found: Dice of every case, their mean and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spad.evaluation.bootstrap import Interval
from spad.volumes.colors import Rgba, organ_color, readable

_DPI = 150
_INCHES_PER_ROW = 0.34
_ALL: Rgba = (0.45, 0.49, 0.53, 1.0)
_INK = "#1d2329"
_JITTER, _ABOVE, _BELOW = 0.14, 0.1, 0.2
_GOLDEN = 0.618034


@dataclass(frozen=True)
class _Row:
    """Dice of a label in the cases in which it occurs; interval of the mean if there are two."""

    name: str
    colour: Rgba
    values: NDArray[np.float64]
    interval: Interval | None


def organ_figure(figures: Mapping[str, Any]) -> Figure:
    """Draw one row for each label, and one for the means of the cases.

    A dot is a case; the box behind the dots runs from the first to the third quartile, with a line
    at the median (from four cases on); the diamond is the mean, and the bar through it the
    interval of the mean, which the text on the right repeats.

    Args:
        figures: as `spad.evaluation.folders.summarize` gives them, at least one label.
    """
    rows = _rows(figures)
    size = 8.5, 1.35 + _INCHES_PER_ROW * len(rows)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for place, row in enumerate(rows):
        _draw(ax, place, row)
    ax.axhline(len(rows) - 1.5, color="#c9ced3", linewidth=0.8)
    least = min(row.values.min() for row in rows)
    ax.set(
        xlim=(max(-0.01, np.floor(least * 10) / 10 - 0.01), 1.005),
        ylim=(len(rows) - 0.4, -0.6),
        xlabel="Dice",
    )
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#e4e7ea", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title(_title(len(figures["cases"])), fontsize=10, loc="left")
    return figure


def _rows(figures: Mapping[str, Any]) -> list[_Row]:
    cases, intervals = figures["cases"], figures["intervals"]
    rows = []
    for name in figures["labels"]:
        values = [case["labels"][name]["dice"] for case in cases if name in case["labels"]]
        interval = intervals["labels"][name]["dice"]
        rows.append(_Row(readable(name), organ_color(name), np.array(values, float), interval))
    means = [case["mean"]["dice"] for case in cases if case["labels"]]
    interval = intervals["mean"]["dice"]
    return [*rows, _Row("mean over organs", _ALL, np.array(means, float), interval)]


def _draw(ax: Axes, place: int, row: _Row) -> None:
    """Draw box, dots, mean and interval of a row, and write mean, interval and number of cases."""
    count, mean = len(row.values), float(row.values.mean())
    if count > 3:
        low, median, high = np.percentile(row.values, [25, 50, 75])
        ax.barh(place, high - low, 0.66, low, color="#eef0f2", edgecolor="#aeb5bc", linewidth=0.8)
        ax.plot([median] * 2, [place - 0.33, place + 0.33], color="#8a929a", linewidth=1.2)
    shifts = _JITTER * (np.arange(count) * _GOLDEN % 1 * 2 - 1) - _ABOVE if count > 1 else [0.0]
    ax.scatter(
        row.values, place + np.array(shifts), s=22, color=row.colour, edgecolor=_INK, linewidth=0.4
    )
    text = f"{mean:.3f}"
    if row.interval:
        text += f"  [{row.interval[0]:.3f}, {row.interval[1]:.3f}]"
        ax.plot(row.interval, [place + _BELOW] * 2, color=_INK, linewidth=2)
        ax.plot(mean, place + _BELOW, "D", color=_INK, markerfacecolor="white", markersize=5)
    right = ax.get_yaxis_transform()
    ax.text(1.015, place, f"{text}  n = {count}", transform=right, va="center", fontsize=8)


def _title(cases: int) -> str:
    if cases == 1:
        return "Dice of each organ in one case"
    return f"Dice in {cases} cases (dots); box: quartiles; diamond, bar: mean, its 95 % interval"
