"""How far a training run is and how long it will still take, told by its recipe and its curves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from napari_spad.jobs import left_words, time_left
from napari_spad.training_jobs import Curves


class RunProgress(NamedTuple):
    """How far a run is.

    Attributes:
        fraction: what is done of it, 0 to 1.
        words: the same for a person.
    """

    fraction: float
    words: str


def progress_of(
    schedule: Mapping[str, Any], curves: Curves, now: float | None = None
) -> RunProgress:
    """Tell how far a run that is under way is, by steps or by minutes, whichever comes first.

    Args:
        schedule: that of its recipe: `steps`, and `minutes` or None.
        curves: its figures so far.
        now: seconds since 1970; the present when None.
    """
    if curves.last_time is None:
        return RunProgress(0.0, "Reading the scans; the first figures come soon.")
    since = max(0.0, (time.time() if now is None else now) - curves.last_time)
    seconds = seconds_trained(curves) + since
    done = curves.last_step / max(1, int(schedule.get("steps") or 1))
    left = time_left(done, seconds)
    whole = 60 * float(schedule.get("minutes") or 0)
    if whole and seconds / whole > done:
        done = min(1.0, seconds / whole)
        left = left_words(whole - seconds)
    if done >= 1:
        return RunProgress(1.0, "The time is over; judging the result ...")
    told = (f"step {curves.last_step}", f"{100 * done:.0f} % done", left)
    return RunProgress(done, ", ".join(filter(None, told)))


def seconds_trained(curves: Curves) -> float:
    """Give for how long a run has learnt, in all its starts, until its last figures."""
    steps, seconds = curves.curves("seconds_per_step").get("train", ([], []))
    total, before = 0.0, 0.0
    for step, each in zip(steps, seconds, strict=True):
        total += (step - before) * each
        before = step
    return total
