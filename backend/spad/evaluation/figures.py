"""Pictures of results: scans in three planes as a radiologist reads them, and code usage.

Every plane is upright and radiological (the patient's right on the left), in true proportions.
Drawn with Agg, so no screen is needed and no global state of pyplot is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from spad.volumes.axes import to_canonical
from spad.volumes.colors import Rgba, organ_color, readable
from spad.volumes.volume import Volume

Centre = tuple[int, ...]
Limits = tuple[float, float]

PLANES = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""Plane -> letters at its left, right, upper and lower edge; planes in order of the cut axis."""

HIDDEN = "#33506e"
"""The colour that covers a hidden token."""

_GAP_MM = 12.0
_INCHES_PER_MM = 1 / 100
_DPI = 150


@dataclass(frozen=True)
class Plane:
    """One cut through a volume.

    Attributes:
        name: "axial", "coronal" or "sagittal".
        pixels: (rows, columns), as seen on screen.
        height: in mm.
        width: in mm.
    """

    name: str
    pixels: NDArray[Any]
    height: float
    width: float


def middle_of_labels(labels: Volume) -> Centre:
    """Find, along each canonical axis, the cut with the most labels, then the most voxels.

    Returns:
        Indices from superior, anterior and right; the middle of the grid if nothing is labelled.
    """
    array, _ = to_canonical(labels, depth_first=False)
    ids = [value for value in np.unique(array) if value != 0]
    if not ids:
        return tuple(size // 2 for size in array.shape)
    centre = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        areas = np.stack([(array == value).sum(axis=others) for value in ids])
        score = (areas > 0).sum(axis=0) + areas.sum(axis=0) / (areas.sum() + 1)
        centre.append(int(score.argmax()))
    return tuple(centre)


def cut(volume: Volume, centre: Centre) -> list[Plane]:
    """Cut a volume in three planes through a voxel, values in its unit.

    Args:
        volume: one time point.
        centre: indices from superior, anterior and right (of the nearest axes if oblique).
    """
    array, affine = to_canonical(volume, depth_first=False)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    planes = []
    for axis, name in enumerate(PLANES):
        pixels = np.take(array, centre[axis], axis=axis)
        if (volume.slope, volume.intercept) != (1, 0):
            pixels = pixels * np.float32(volume.slope) + np.float32(volume.intercept)
        height, width = (
            size * step
            for other, (size, step) in enumerate(zip(array.shape, spacing, strict=True))
            if other != axis
        )
        planes.append(Plane(name, pixels, float(height), float(width)))
    return planes


def cut_like(volume: Volume, grid: Volume, centre: Centre) -> list[NDArray[Any]]:
    """Cut a volume of another grid where `cut(grid, centre)` cuts, by the nearest voxel.

    Args:
        volume: for instance a mask on the token grid.
        grid: the volume that gives planes and pixels.
        centre: indices from superior, anterior and right of `grid`.
    """
    _, affine = to_canonical(grid, depth_first=False)
    view, own_affine = to_canonical(volume, depth_first=False)
    shape = to_canonical(grid, depth_first=False)[0].shape
    to_own = np.linalg.inv(own_affine) @ affine
    cuts = []
    for axis in range(3):
        ranges = [np.arange(size) for size in shape]
        ranges[axis] = np.array([centre[axis]])
        index = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).squeeze(axis)
        own = np.rint(index @ to_own[:3, :3].T + to_own[:3, 3]).astype(int)
        own = np.clip(own, 0, np.array(view.shape) - 1)
        cuts.append(view[own[..., 0], own[..., 1], own[..., 2]])
    return cuts


def reconstruction_figure(
    scan: Volume, reconstruction: Volume, error: Volume, centre: Centre, window: Limits, unit: str
) -> Figure:
    """Scan, reconstruction and absolute error (one column each) in three planes (rows).

    Args:
        scan: the scan.
        reconstruction: on the scan's grid, in its unit.
        error: absolute error on the scan's grid, in its unit.
        centre: where to cut.
        window: values shown as black and as white.
        unit: the scan's unit, for the colour bar.
    """
    cuts = [cut(volume, centre) for volume in (scan, reconstruction, error)]
    highest = max(float(np.percentile(plane.pixels, 99.5)) for plane in cuts[2])
    titles = ["scan", "reconstruction", f"absolute error ({unit})"]
    figure, axes = _grid(cuts[0], titles, below=44.0)
    for row, planes in enumerate(zip(*cuts, strict=True)):
        for column, plane in enumerate(planes[:2]):
            show(axes[row][column], plane, window)
        shown = show(axes[row][2], planes[2], (0, max(highest, 1e-6)), "inferno")
    _scale_bar(axes[0][0], cuts[0][0])
    _colour_bar(figure, axes[-1][2], shown)
    return figure


def mask_figure(
    scan: Volume, mask: Volume, reconstruction: Volume, centre: Centre, window: Limits
) -> Figure:
    """Scan, scan with the hidden tokens covered, and the filled-in scan, in three planes.

    Args:
        scan: the scan.
        mask: on the token grid, 1 = hidden.
        reconstruction: what the model made of the visible tokens, on the scan's grid.
        centre: where to cut.
        window: values shown as black and as white.
    """
    scans, filled = cut(scan, centre), cut(reconstruction, centre)
    covers = cut_like(mask, scan, centre)
    figure, axes = _grid(scans, ["scan", "what the model sees", "what it fills in"])
    for row, (plane, cover, result) in enumerate(zip(scans, covers, filled, strict=True)):
        for column, shown in enumerate((plane, plane, result)):
            show(axes[row][column], shown, window)
        _overlay(axes[row][1], plane, cover != 0, HIDDEN, 1.0)
    _scale_bar(axes[0][0], scans[0])
    return figure


def organs_figure(
    scan: Volume, labels: Volume, centre: Centre, window: Limits, millilitres: Mapping[str, float]
) -> Figure:
    """The scan in three planes with coloured labels, and a legend with volumes.

    Args:
        scan: the scan.
        labels: on the scan's grid, with names.
        centre: where to cut.
        window: values shown as black and as white.
        millilitres: label name -> volume in mL; the labels that the legend names.
    """
    scans, marks = cut(scan, centre), cut(labels, centre)
    names = labels.label_names or {}
    figure, axes = _row(scans)
    for ax, plane, mark in zip(axes, scans, marks, strict=True):
        show(ax, plane, window)
        for number in np.unique(mark.pixels[mark.pixels != 0]):
            colour = organ_color(names.get(int(number), str(number)))
            _overlay(ax, plane, mark.pixels == number, colour, 0.4)
            _outline(ax, plane, mark.pixels == number, colour)
    _scale_bar(axes[0], scans[0])
    handles = [
        Patch(color=organ_color(name), label=f"{readable(name)}  {volume:.1f} mL")
        for _, name in sorted(names.items())
        if (volume := millilitres.get(name)) is not None
    ]
    figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def usage_figure(usage: NDArray[np.floating], codes_used: int, perplexity: float) -> Figure:
    """How often each code is used, most used first.

    Args:
        usage: (K,), mean probability of each code.
        codes_used: codes that are the most probable one of some token.
        perplexity: exp of the entropy of `usage`.
    """
    count = len(usage)
    figure = Figure(figsize=(10, 3.8), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    shares = np.sort(np.asarray(usage, float))[::-1]
    ranks = np.arange(1, count + 1)
    ax.fill_between(ranks, shares, step="mid", color="#7fa8d1", linewidth=0)
    ax.step(ranks, shares, where="mid", color="#2a5d92", linewidth=1.2)
    ax.axhline(1 / count, color="#b04a3a", linestyle="--", linewidth=1)
    ax.annotate(
        "all codes alike",
        (count, 1 / count),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color="#b04a3a",
        fontsize=9,
    )
    ax.set(
        xlim=(1, count),
        ylim=(0, None),
        xlabel="codes, most used first",
        ylabel="mean probability",
        title=f"{codes_used} of {count} codes are some token's first choice; "
        f"perplexity {perplexity:.0f}",
    )
    ax.title.set_fontsize(10)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    figure.savefig(path, dpi=_DPI, facecolor="white")
    return path


def show(ax: Axes, plane: Plane, limits: Limits, colours: str = "gray") -> Any:
    """Show a plane in mm with the letters of its edges; give the image."""
    image = ax.imshow(
        plane.pixels,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=_extent(plane),
        interpolation="nearest",
    )
    ax.set_axis_off()
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04))
    for letter, (x, y) in zip(PLANES[plane.name], places, strict=True):
        ax.text(
            x,
            y,
            letter,
            transform=ax.transAxes,
            ha="center",
            va="center",
            color="#ffe08a",
            fontsize=8,
            fontweight="bold",
        )
    return image


def _overlay(
    ax: Axes, plane: Plane, mask: NDArray[np.bool_], colour: str | Rgba, opacity: float
) -> None:
    shown = np.ma.masked_where(~mask, np.ones(mask.shape))
    ax.imshow(
        shown,
        cmap=ListedColormap([to_rgb(colour)]),
        extent=_extent(plane),
        alpha=opacity,
        interpolation="nearest",
    )


def _outline(ax: Axes, plane: Plane, mask: NDArray[np.bool_], colour: str | Rgba) -> None:
    rows, columns = mask.shape
    y = (np.arange(rows) + 0.5) * plane.height / rows
    x = (np.arange(columns) + 0.5) * plane.width / columns
    if min(mask.shape) > 1:
        ax.contour(x, y, mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.8)


def _extent(plane: Plane) -> tuple[float, float, float, float]:
    return 0.0, plane.width, plane.height, 0.0


def _grid(
    planes: Sequence[Plane], titles: Sequence[str], below: float = _GAP_MM
) -> tuple[Figure, list[list[Axes]]]:
    """Axes with one row per plane and one column per title, all to one scale."""
    width = max(plane.width for plane in planes)
    rows = [plane.height for plane in planes]
    return _axes(
        widths=[width] * len(titles),
        heights=rows,
        place=lambda row, column: (planes[row].width, planes[row].height),
        titles=titles,
        names=[plane.name for plane in planes],
        below=below,
    )


def _row(planes: Sequence[Plane]) -> tuple[Figure, list[Axes]]:
    """Axes side by side, one per plane, all to one scale, with room for a legend below."""
    figure, axes = _axes(
        widths=[plane.width for plane in planes],
        heights=[max(plane.height for plane in planes)],
        place=lambda row, column: (planes[column].width, planes[column].height),
        titles=[plane.name for plane in planes],
        names=[""],
        below=110.0,
    )
    return figure, axes[0]


def _axes(
    widths: Sequence[float],
    heights: Sequence[float],
    place: Callable[[int, int], tuple[float, float]],
    titles: Sequence[str],
    names: Sequence[str],
    below: float,
) -> tuple[Figure, list[list[Axes]]]:
    """Lay out axes in mm of the body: cells of the widths and heights, each image centred."""
    left, above = 30.0 if any(names) else _GAP_MM, 26.0
    total = (
        left + sum(widths) + _GAP_MM * len(widths),
        above + sum(heights) + _GAP_MM * (len(heights) - 1) + below,
    )
    scale = min(_INCHES_PER_MM, 10.0 / total[0])
    figure = Figure(figsize=(total[0] * scale, total[1] * scale), dpi=_DPI)
    FigureCanvasAgg(figure)
    grid: list[list[Axes]] = []
    top = total[1] - above
    for row, height in enumerate(heights):
        line, x = [], left
        for column, width in enumerate(widths):
            w, h = place(row, column)
            box = (x + (width - w) / 2, top - height + (height - h) / 2, w, h)
            line.append(figure.add_axes(_share(box, total)))
            if row == 0:
                at = (x + width / 2) / total[0], 1 - 9 / total[1]
                figure.text(*at, titles[column], ha="center", va="top", fontsize=10)
            x += width + _GAP_MM
        at = 8 / total[0], (top - height / 2) / total[1]
        figure.text(*at, names[row], rotation=90, ha="left", va="center", fontsize=10)
        grid.append(line)
        top -= height + _GAP_MM
    return figure, grid


def _scale_bar(ax: Axes, plane: Plane) -> None:
    """A bar of 5 cm in the lower left corner."""
    x, y = 0.05 * plane.width, 0.93 * plane.height
    ax.plot([x, x + 50], [y, y], color="white", linewidth=2, solid_capstyle="butt")
    ax.text(x + 25, y - 4, "5 cm", color="white", fontsize=8, ha="center", va="bottom")


def _share(box: tuple[float, ...], total: tuple[float, float]) -> tuple[float, float, float, float]:
    return box[0] / total[0], box[1] / total[1], box[2] / total[0], box[3] / total[1]


def _colour_bar(figure: Figure, ax: Axes, image: Any) -> None:
    """A thin colour bar under the axes."""
    box = ax.get_position()
    thin = figure.add_axes((box.x0, box.y0 - 0.02, box.width, 0.009))
    bar = figure.colorbar(image, cax=thin, orientation="horizontal")
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
