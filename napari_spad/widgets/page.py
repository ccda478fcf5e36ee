"""The page that a dock exports: the canvas and the dock as a picture, the figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRect, Qt
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from spad import jsonfile
from spad.errors import SpadError
from spad.volumes.files.disk import replace_files

if TYPE_CHECKING:
    from napari import Viewer

_MARGIN, _TITLE = 16, 34
_HALF = 128


def ask(parent: QWidget, name: str) -> Path | None:
    """Ask for the page's file name; None if a person thinks better of it."""
    path, _ = QFileDialog.getSaveFileName(parent, "Export the page", f"{name}.png", "Page (*.png)")
    return Path(path) if path else None


def export(
    path: Path, viewer: Viewer, parts: Sequence[QWidget], title: str, figures: dict[str, Any]
) -> tuple[Path, Path]:
    """Write a page as PNG, and its figures as JSON beside it.

    Args:
        path: of the PNG; another ending is taken for a part of the name.
        viewer: whose canvas is shown.
        parts: of one dock, from its top on; they and what is above them are shown.
        title: stands above.
        figures: what goes into the JSON.

    Returns:
        The two files.

    Raises:
        SpadError: the folder cannot be written.
    """
    path = path if path.suffix.lower() == ".png" else path.with_name(path.name + ".png")
    beside = path.with_suffix(".json")
    picture = page(viewer, parts, title)
    text = jsonfile.dumps(figures) + "\n"

    def fill(files: list[Path]) -> None:
        if not picture.save(str(files[0]), "PNG"):
            raise SpadError(f"{path} cannot be written; choose a folder that may be written.")
        files[1].write_text(text, encoding="utf-8")

    replace_files([path, beside], fill)
    return path, beside


def page(viewer: Viewer, parts: Sequence[QWidget], title: str) -> QImage:
    """Draw the canvas, and beside it the dock in as many columns as its height asks for."""
    canvas = _image(viewer.screenshot(canvas_only=True, flash=False))
    dock = parts[0].parentWidget()
    assert dock is not None
    for _ in range(3):
        QApplication.processEvents()
    whole = dock.grab().toImage()
    whole.setDevicePixelRatio(1)
    ratio = whole.height() / max(dock.height(), 1)
    cuts = [0, *(round(part.y() * ratio) for part in parts), whole.height()]
    runs = columns_of(cuts, canvas.height())
    height = max(canvas.height(), *(stop - start for start, stop in runs))
    made = QImage(
        canvas.width() + len(runs) * (whole.width() + _MARGIN) + 2 * _MARGIN,
        height + _TITLE + 2 * _MARGIN,
        QImage.Format.Format_RGB32,
    )
    made.fill(whole.pixelColor(0, 0))
    painter = QPainter(made)
    dark = whole.pixelColor(0, 0).lightness() < _HALF
    painter.setPen(QColor("white" if dark else "black"))
    font = painter.font()
    font.setPointSize(13)
    font.setBold(True)
    painter.setFont(font)
    line = QRect(_MARGIN, _MARGIN, made.width() - 2 * _MARGIN, _TITLE)
    painter.drawText(line, Qt.AlignmentFlag.AlignVCenter, title)
    painter.drawImage(_MARGIN, _MARGIN + _TITLE, canvas)
    left = canvas.width() + 2 * _MARGIN
    for start, stop in runs:
        column = whole.copy(0, start, whole.width(), stop - start)
        painter.drawImage(left, _MARGIN + _TITLE, column)
        left += whole.width() + _MARGIN
    painter.end()
    return made


def columns_of(cuts: Sequence[int], height: int) -> list[tuple[int, int]]:
    """Cut a long strip into columns.

    Args:
        cuts: where it may be cut, its ends included, ascending.
        height: what a column should not exceed; a piece that is higher is a column of its own.

    Returns:
        Start and stop of each column.
    """
    runs: list[tuple[int, int]] = []
    for start, stop in pairwise(cuts):
        if runs and stop - runs[-1][0] <= height:
            runs[-1] = (runs[-1][0], stop)
        elif stop > start:
            runs.append((start, stop))
    return runs


def _image(pixels: np.ndarray) -> QImage:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    kind = QImage.Format.Format_RGBA8888
    return QImage(pixels.tobytes(), width, height, pixels.strides[0], kind).copy()
