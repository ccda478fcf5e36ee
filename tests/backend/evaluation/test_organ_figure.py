"""The picture of Dice per organ shows the figures it was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from spad.evaluation.folders import summarize
from spad.evaluation.metrics import FIGURES, mean_figures
from spad.evaluation.organ_figure import organ_figure
from spad.volumes.colors import organ_color

LIVER, KIDNEY = [0.91, 0.95, 0.97, 0.93], [0.0, 0.88]


def figures(cases: int) -> dict:
    several = []
    for number in range(cases):
        labels = {"liver": dict.fromkeys(FIGURES, LIVER[number])}
        if number < len(KIDNEY):
            labels["right_kidney"] = dict.fromkeys(FIGURES, KIDNEY[number])
        row = {"case": str(number), "labels": labels, "mean": mean_figures(labels.values())}
        several.append(row)
    return summarize(several, "mm")


def dots(figure: Figure) -> list[list[float]]:
    return [c.get_offsets()[:, 0].tolist() for c in figure.axes[0].collections]


def test_a_dot_for_each_case() -> None:
    figure = organ_figure(figures(4))
    assert dots(figure) == [LIVER, KIDNEY, pytest.approx([0.455, 0.915, 0.97, 0.93])]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["liver", "right kidney", "mean over organs"]


def test_dots_have_the_colour_of_their_organ() -> None:
    liver = organ_figure(figures(4)).axes[0].collections[0]
    np.testing.assert_allclose(liver.get_facecolor(), [to_rgba(organ_color("liver"))])


def test_mean_and_interval_are_written() -> None:
    found = figures(4)
    texts = [text.get_text() for text in organ_figure(found).axes[0].texts]
    low, high = found["intervals"]["labels"]["liver"]["dice"]
    assert texts[0] == f"0.940  [{low:.3f}, {high:.3f}]  n = 4"


def test_one_case_has_no_interval() -> None:
    figure = organ_figure(figures(1))
    assert figure.axes[0].texts[0].get_text() == "0.910  n = 1"
    assert dots(figure)[0] == LIVER[:1]


def test_everything_drawn_lies_on_the_picture() -> None:
    figure = organ_figure(figures(4))
    figure.canvas.draw()
    low, high = figure.axes[0].get_xlim()
    assert low < 0 < 0.97 < high
    width, height = figure.get_size_inches() * figure.dpi
    for text in [*figure.axes[0].texts, *figure.axes[0].get_yticklabels()]:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
