"""What is said of jobs under way and of what they used."""

from __future__ import annotations

import pytest

from napari_spad.jobs import time_left
from napari_spad.widgets.job_dock import use_words


@pytest.mark.parametrize(
    ("fraction", "seconds", "words"),
    [
        (0.5, 0.9, ""),
        (0.02, 10, ""),
        (0.25, 10, "about 30 s left"),
        (0.99, 10, "about 1 s left"),
        (0.1, 60, "about 9 min left"),
        (1.0, 10, ""),
    ],
)
def test_time_left_is_told_once_it_is_no_guess(fraction, seconds, words):
    assert time_left(fraction, seconds) == words


def test_use_of_device_time_and_memory():
    assert use_words({"device": "cuda"}, 1.26, 812.4) == (
        "On the GPU: 1.3 s; the worker holds 812 MB."
    )
    steps = {"device": "cpu", "stepped_down": ["one window at a time", "smaller windows"]}
    assert use_words(steps, 4, 90) == (
        "On the CPU: 4.0 s; the worker holds 90 MB. For want of memory it took one window at a "
        "time, then smaller windows."
    )
