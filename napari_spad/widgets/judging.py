"""Two models on held-out scans, one after the other in the worker, judged by a person's labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_spad import jobs
from napari_spad.before_after import SIDES, Comparison, Trial, load
from napari_spad.widgets import threads
from spad.worker.messages import Compare, Request, Segment


class Judge(QObject):
    """Lets the models before and after segment scans, and compares both with what was drawn.

    Args:
        widget: the widget whose window the worker lives with.
    """

    said = Signal(str)
    """What is being done."""
    done = Signal(object)
    """All comparisons, a list."""
    refused = Signal(str)
    """Why it ended early, in a sentence."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._left: list[Trial] = []
        self._found: list[Comparison] = []
        self._busy = False
        self._job: jobs.RunningJob | None = None
        turns = self._turns = threads.Turns()
        widget.destroyed.connect(lambda: turns.next())

    @property
    def is_busy(self) -> bool:
        """Whether it is at work."""
        return self._busy

    def start(self, trials: Sequence[Trial]) -> None:
        """Compare on each of these scans, at least one."""
        self.leave()
        self._left, self._found, self._busy = list(trials), [], True
        self._next()

    def leave(self) -> None:
        """Stop, and tell nobody."""
        self._turns.next()
        self._busy = False
        if self._job is not None:
            job, self._job = self._job, None
            job.leave()

    def _next(self) -> None:
        if not self._left:
            self._busy = False
            self.done.emit(self._found)
            return
        trial, turn = self._left.pop(0), self._turns.now
        self.said.emit("Reading the held-out scan ...")

        def mine(call: Callable[..., None]) -> Callable[..., None]:
            return lambda *told: call(*told) if turn == self._turns.now else None

        threads.run(
            lambda: load(trial), mine(lambda one: self._segment(SIDES[0], one)), mine(self._stop)
        )

    def _segment(self, side: str, result: Comparison) -> None:
        def found(labels: Any) -> None:
            result.found[side] = labels
            self._begin(Compare(labels, result.drawn), f"Judging {who}", judged)

        def judged(report: Any) -> None:
            result.reports[side] = report
            if side == SIDES[0]:
                self._segment(SIDES[1], result)
            else:
                self._found.append(result)
                self._next()

        modality = result.scan.modality
        who = result.trial.before if side == SIDES[0] else "the new model"
        request = Segment(result.scan, model=result.trial.model(side), modality=modality)
        self._begin(request, f"Segmenting with {who}", found)

    def _begin(self, request: Request, title: str, done: Callable[[Any], None]) -> None:
        job = jobs.run(self._widget, request, title)
        self.said.emit(f"{title} ...")
        job.progressed.connect(lambda _, words: self.said.emit(f"{title}: {words}"))
        for ended in (job.failed, job.died):
            ended.connect(self._stop)
        job.cancelled.connect(lambda: self._stop("Cancelled."))

        def succeeded(value: Any) -> None:
            self._job = None
            done(value)

        job.succeeded.connect(succeeded)
        self._job = job
        job.start()

    def _stop(self, sentence: str) -> None:
        self._busy, self._job = False, None
        self.refused.emit(sentence)
