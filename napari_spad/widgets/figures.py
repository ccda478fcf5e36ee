"""Figures of a report as a small table: name, value, what it means on hovering."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_spad.widgets.forms import Form, column, text
from napari_spad.widgets.organs import number

Row = tuple[str, str, str]


class Figures(QWidget):
    """Rows of a name and a value."""

    def __init__(self, hint: str) -> None:
        super().__init__()
        self._layout = column(self, bare=True)
        self._body = QWidget()
        self.values: dict[str, str] = {}
        self._hint = hint
        self.show_rows([])

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show rows, or the hint where there are none.

        Args:
            rows: name, value and meaning of each figure.
        """
        self.show_columns({"": rows})

    def show_columns(self, columns: Mapping[str, Sequence[Row]]) -> None:
        """Show the same rows of several reports side by side; `values` are the first's.

        Args:
            columns: a heading for each (none where it is empty) and its rows.
        """
        self._body.deleteLater()
        self._body = QWidget()
        self._layout.addWidget(self._body)
        first = next(iter(columns.values()))
        self.values = {name: value for name, value, _ in first}
        if not first:
            column(self._body, bare=True).addWidget(text(self._hint, faint=True))
            return
        form = Form()
        form.setContentsMargins(0, 0, 0, 0)
        self._body.setLayout(form)
        for at, heading in enumerate(columns):
            if heading:
                form.setColumnStretch(1 + at, 1)
                form.addWidget(text(heading, faint=True), 0, 1 + at)
        for line, (name, _, meaning) in enumerate(first, start=1):
            form.addWidget(QLabel(name), line, 0, Qt.AlignmentFlag.AlignTop)
            for at, rows in enumerate(columns.values()):
                words = text(rows[line - 1][1])
                words.setToolTip(meaning)
                form.addWidget(words, line, 1 + at)


def tokenizer_rows(report: dict[str, Any], codes: int) -> list[Row]:
    """Make the rows of a `tokenize` report of a tokenizer with so many codes."""
    plain = report.get("trilinear") or {}
    unit = report.get("l1_unit") or ""
    unit = "" if unit == "1" else f" {unit}"
    grid = " × ".join(str(n) for n in report.get("grid", ()))
    return [
        (
            "PSNR",
            f"{number(report.get('psnr'), 1)} dB (interpolated {number(plain.get('psnr'), 1)})",
            "Peak signal-to-noise ratio; in brackets, of interpolating one value per token",
        ),
        (
            "SSIM",
            f"{number(report.get('ssim'), 3)} (interpolated {number(plain.get('ssim'), 3)})",
            "Structural similarity, 11 × 11 × 11 Gaussian window",
        ),
        (
            "Mean error",
            f"{number(report.get('l1'), 1)}{unit}",
            "Mean absolute error, in the scan's own unit",
        ),
        ("Tokens", f"{grid} (da = {report.get('da')})", "The token grid: depth × height × width"),
        (
            "Codes used",
            f"{number(report.get('codes_used'), 0)} of {codes}",
            "Codes that are the likeliest of some token",
        ),
        (
            "Perplexity",
            f"{number(report.get('perplexity'), 1)} of {codes}",
            "How many codes are in even use: exp of the entropy of the mean distribution",
        ),
        (
            "Entropy",
            f"{number(report.get('mean_entropy'), 2)} of {number(math.log(codes), 2)} nats",
            "Mean over tokens of the entropy of their codes; the most if all codes were even",
        ),
    ]


def masking_rows(report: dict[str, Any]) -> list[Row]:
    """Make the rows of a `mask` report."""
    unit = report.get("l1_unit") or ""
    unit = "" if unit == "1" else f" {unit}"
    hidden, visible = report.get("masked"), report.get("visible")
    mean, neighbour = (
        number(report.get(key), 2) for key in ("baseline_mean", "baseline_neighbour")
    )
    return [
        (
            "Hidden tokens",
            f"{number(hidden, 0)} (visible {number(visible, 0)})",
            "Tokens that the model did not see",
        ),
        (
            "Cross-entropy",
            f"{number(report.get('cross_entropy'), 2)} nats",
            "Between the tokenizer's soft tokens and the model's guesses where tokens were hidden",
        ),
        (
            "Plain guesses",
            f"mean {mean}, neighbour {neighbour} nats",
            "The same for guesses without a model: the mean and the nearest of the visible tokens",
        ),
        (
            "KL divergence",
            f"{number(report.get('kl'), 2)} nats",
            "Cross-entropy less what no model can know",
        ),
        (
            "Mean error",
            f"{number(report.get('l1_masked'), 1)}{unit}",
            "Mean absolute error where tokens were hidden, in the scan's own unit",
        ),
    ]
