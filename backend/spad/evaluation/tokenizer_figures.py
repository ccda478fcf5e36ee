"""Pictures of a tokenizer over a data set: unseen scans beside what is left, and sorted usage.

After figures 2, 3 and 5 of PUMIT, arXiv 2312.07630.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from spad.evaluation.tokenizers import Row

COLUMNS = ("scan", "reconstruction", "absolute error", "trilinear", "its absolute error")
_DPI = 150
_LEFT, _TOP, _RIGHT, _GAP = 0.42, 0.3, 0.75, 0.08
_CELL = 1.75
_ERRORS = "inferno"


def grid_figure(rows: Sequence[Row]) -> Figure:
    """Draw one row for each modality and da: scan, reconstruction, error, trilinear, its error.

    Errors of all rows have one colour scale, as a share of what black to white stands for; the bar
    of each row gives it in the scan's unit.

    Args:
        rows: at least one.
    """
    heights = [_CELL * min(1.6, _proportion(row)) for row in rows]
    width = _LEFT + len(COLUMNS) * (_CELL + _GAP) + _RIGHT
    height = _TOP + sum(heights) + _GAP * len(rows)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    errors = [(_error(row.reconstruction, row), _error(row.trilinear, row)) for row in rows]
    highest = max(float(np.percentile(plane, 99.5)) for pair in errors for plane in pair)
    top = height - _TOP
    for row, tall, (error, plain) in zip(rows, heights, errors, strict=True):
        cells = [
            _add(figure, (_LEFT + n * (_CELL + _GAP), top - tall, _CELL, tall))
            for n in range(len(COLUMNS))
        ]
        _show(cells[0], row.scan, row)
        _show(cells[1], row.reconstruction, row)
        shown = _show(cells[2], error, row, highest)
        _show(cells[3], row.trilinear, row)
        _show(cells[4], plain, row, highest)
        for place, text, size in ((0.03, row.title, 8.5), (0.2, row.case, 7)):
            at = place / width, (top - tall / 2) / height
            figure.text(*at, text, rotation=90, ha="left", va="center", fontsize=size)
        thin = _add(figure, (width - _RIGHT + 0.05, top - 0.92 * tall, 0.09, 0.84 * tall))
        _bar(figure, thin, shown, row.unit)
        if row is rows[0]:
            for ax, title in zip(cells, COLUMNS, strict=True):
                ax.set_title(title, fontsize=9)
        top -= tall + _GAP
    return figure


def sorted_usage_figure(
    usage: Mapping[str, NDArray[np.floating]], groups: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Draw how often each code is used, most used first, for all scans and each modality.

    Args:
        usage: name to (K,) mean probabilities; "all" is drawn thickest.
        groups: name to the figures `codes_used` and `perplexity`.
    """
    figure = Figure(figsize=(10, 4.2), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    count = len(next(iter(usage.values())))
    ranks = np.arange(1, count + 1)
    for number, (name, shares) in enumerate(usage.items()):
        whole = name == "all"
        found = groups[name]
        ax.plot(
            ranks,
            np.sort(np.asarray(shares, float))[::-1],
            color="#1d2329" if whole else f"C{number}",
            linewidth=2.2 if whole else 1.2,
            zorder=3 if whole else 2,
            label=f"{name}: {found['codes_used']} first choices, "
            f"perplexity {found['perplexity']:.0f}",
        )
    ax.axhline(1 / count, color="#b04a3a", linestyle="--", linewidth=1, label="all codes alike")
    ax.set(
        xlim=(1, count),
        ylim=(0, None),
        xlabel=f"{count} codes, most used first",
        ylabel="mean probability",
    )
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _add(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Add axes at left, bottom, width and height in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))


def _bar(figure: Figure, ax: Axes, image: AxesImage, unit: str) -> None:
    """Draw the colour bar of a row."""
    bar = figure.colorbar(image, cax=ax)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    if unit != "1":
        bar.set_label(unit, fontsize=7, labelpad=1)


def _show(
    ax: Axes, plane: NDArray[np.floating], row: Row, highest: float | None = None
) -> AxesImage:
    """Show a plane in true proportions; an error, in the scan's unit, up to a share `highest`."""
    ax.set_axis_off()
    rows, columns = plane.shape[:2]
    extent = (0.0, float(columns), rows * row.aspect, 0.0)
    values, colours, top = plane, "gray", 1.0
    if highest is not None:
        values, colours, top = plane * row.width, _ERRORS, max(highest, 1e-6) * row.width
    return ax.imshow(values, cmap=colours, vmin=0, vmax=top, extent=extent, interpolation="none")


def _error(plane: NDArray[np.float32], row: Row) -> NDArray[np.float32]:
    """Absolute difference to the scan in [0, 1]; of colours the mean."""
    error = np.abs(plane - row.scan)
    return error if error.ndim == 2 else error.mean(axis=-1)


def _proportion(row: Row) -> float:
    return row.aspect * row.scan.shape[0] / row.scan.shape[1]
