"""Learn from corrections: keep corrected scans, improve the automatic model by them, or go back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QMenu, QProgressBar, QPushButton, QWidget

from napari_spad import improving, layers, locks, notify, training_jobs
from napari_spad.before_after import Comparison, trials
from napari_spad.history import history_of
from napari_spad.improving import Correction, Improvement
from napari_spad.organ_layers import itself, labels_on, names_of
from napari_spad.run_progress import progress_of
from napari_spad.training_data import listed
from napari_spad.training_jobs import Curves
from napari_spad.widgets import threads
from napari_spad.widgets.before_after import DiceTable
from napari_spad.widgets.forms import MAIN, column, row, text
from napari_spad.widgets.judging import Judge
from napari_spad.widgets.notices import follow, notices
from spad.errors import SpadError
from spad.training import runs
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari_spad.click_session import ClickSession
    from napari_spad.widgets.choosers import ModelChooser
    from spad.volumes.volume import Volume

_LOOK_MS, _SECOND_MS, _STEPS = 200, 1000, 1000
_STOPPING = "Stopping: it makes a checkpoint first."
_HINT = "Correct an organ by clicks, brush or eraser, or lock one that is right; then keep it here."


class ImprovePart(QWidget):
    """Teaches the automatic model what a person corrected; the model before it always stays.

    Args:
        models: the choice of the automatic model.
        labels: gives the labels that are chosen in the dock, or None.
        scan: gives the scan that they lie on, or None.
        session: gives the session of clicks, or None.
    """

    called = Signal()
    """A person is asked for something: there are corrections to keep, or a run is there to see."""

    def __init__(
        self,
        models: ModelChooser,
        labels: Callable[[], Any],
        scan: Callable[[], Any],
        session: Callable[[], ClickSession | None],
    ) -> None:
        super().__init__()
        self._models, self._labels, self._scan, self._session = models, labels, scan, session
        self._watched: list[Callable[[], None]] = []
        self._kept: tuple[Any, ...] = ()
        self._listed: list[Correction] | None = None
        self._told = False
        self._busy = self._stopping = False
        self._shown = ""
        turns = self._turns = threads.Turns()
        self.destroyed.connect(lambda: turns.next())
        self._started: training_jobs.Started | None = None
        self._run: Path | None = None
        self._curves: Curves | None = None
        self._state = ""
        self.result: Improvement | None = None
        self.words, self.count, self.status = text(), text(faint=True), text()
        self.verdict = text()
        self.keep_button = QPushButton("Keep corrections")
        self.kept_button, self.kept_menu = QPushButton("Kept scans"), QMenu(self)
        self.improve_button = QPushButton("Improve the model")
        self.stop_button = QPushButton("Stop")
        self.bar = QProgressBar()
        self.table = DiceTable()
        self.use_button = QPushButton("Use the improved model")
        self.back_button = QPushButton("Go back")
        self._judge = Judge(self)
        self._soon, self._clock = QTimer(self), QTimer(self)
        self._lay_out()
        self._connect()
        self.look()

    @property
    def run(self) -> Path | None:
        """The run that improved this family of models last, or None."""
        return self._run

    @property
    def busy(self) -> bool:
        """Whether something is being kept, learnt or judged."""
        return self._busy or self._judge.is_busy or self._learning

    def show_labels(self, layer: Any) -> None:
        """Take note of the labels that are chosen in the dock."""
        while self._watched:
            self._watched.pop()()
        self._told = False
        if layer is not None and layer.ndim == 3 and not layer.multiscale:
            # the click session notes its prompts down after the step
            self._watched = [follow(self, history_of(layer).changed, self.look_soon)]
        self.look_soon()

    def look_soon(self, *_: object) -> None:
        """Look in a moment at what was corrected."""
        self._soon.start(_LOOK_MS)

    def use_again(self) -> None:
        """Choose the improved model that a person uses, in a dock that is new."""
        name = improving.in_use(self._family)
        if name:
            self._models.setCurrentText(name)

    def look(self) -> None:
        """Look at what was corrected, kept and learnt, and say what can be done."""
        if self._family != self._shown and self._started is None:
            self._shown = self._family
            self._watch(improving.latest_run(self._family))
        entry = self._models.entry
        names, why = self._to_keep()
        if names and not why and not self._told:
            self._told = True
            self.called.emit()
        self.keep_button.setEnabled(bool(names) and not why)
        self.keep_button.setStyleSheet(MAIN if self.keep_button.isEnabled() else "")
        told = listed([readable(name) for name in names.values()], "organs")
        self.words.setText(why or f"Corrected or locked here: {told}.")
        kept: list[Correction] = []
        cannot = "No model is chosen." if entry is None else improving.why_not(entry)
        if entry is not None:
            try:
                kept = improving.corrections(improving.family_of(entry.name))
            except SpadError as error:
                cannot = str(error)
        self._show_count(kept, cannot)
        self._show_result()

    def keep(self) -> None:
        """Keep the scan with the labels of the corrected organs."""
        entry, layer = self._models.entry, self._labels()
        names, why = self._to_keep()
        scan = self._volume()
        if entry is None or scan is None or why or not names:
            return
        family, name = improving.family_of(entry.name), str(self._scan().name)
        # what is drawn meanwhile does not count
        now = labels_on(scan, layer)
        now = now.with_array(np.array(now.array), label_names=now.label_names)
        kept = self._stamp()
        self._be_busy(f"Keeping {name} ...")

        def work() -> Correction:
            return improving.keep(family, name, scan, improving.only(now, names))

        def done(made: Correction) -> None:
            self._kept = kept
            organs = listed([readable(organ) for organ in made.organs], "organs")
            self._be_busy("", f"Kept: {organs} of {made.scan}.")

        self._in_thread(work, done)

    def improve(self) -> None:
        """Start a run that goes on from the chosen model with what was kept."""
        entry = self._models.entry
        if entry is None or self.busy:
            return
        self._be_busy("Starting ...")
        self._in_thread(lambda: improving.plan(entry), self._launch)

    def stop(self) -> None:
        """Stop the run."""
        if self._run is not None and self._state == "running":
            try:
                runs.request_stop(self._run)
            except SpadError as error:
                notify.error(str(error))
                return
            self._stopping = True
            self._say(_STOPPING)
        elif self._started is not None:
            self._started.process.terminate()
            self._started, self._shown = None, ""
            self.look()
            self._say("Stopped before it began.")

    def use(self) -> None:
        """Install the improved model and choose it in the dock."""
        run = self._run
        if run is None:
            return
        try:
            entry = improving.use(run)
        except SpadError as error:
            self._refuse(str(error))
            return
        self.result = improving.read_result(run)
        self._choose(entry.name)
        self._say(
            f"{entry.name} is chosen above, also when napari starts anew; clicks keep the model "
            "that they were made for."
        )

    def go_back(self) -> None:
        """Choose the model before the improved one, which is set aside."""
        entry = self._models.entry
        if entry is None:
            return
        try:
            name = improving.go_back(entry)
        except SpadError as error:
            self._refuse(str(error))
            return
        self._choose(name)
        self._say(f"{name} is chosen again; {entry.name} is set aside, and the corrections stay.")

    # what can be kept

    def _volume(self) -> Volume | None:
        scan = self._scan()
        return None if scan is None else layers.scan_volume(scan)

    def _to_keep(self) -> tuple[dict[int, str], str]:
        """Give the labels that can be kept, id to name, and why there is nothing to keep now."""
        entry, layer, scan = self._models.entry, self._labels(), self._volume()
        if entry is None or layer is None or scan is None:
            return {}, _HINT
        if scan.modality is None:
            return {}, "Say first whether this is CT or MR."
        if scan.array.ndim != 3 or layer.ndim != 3:
            return {}, "Corrections are kept of 3D scans of one time and one channel only."
        session = self._session()
        ours = session is not None and session.layer is itself(layer)
        objects = session.objects.values() if ours and session is not None else ()
        touched = improving.corrected(itself(layer), objects)
        organs = set(entry.card.label_names(scan.modality).values())
        named = {label: name for label, name in names_of(layer).items() if label in touched}
        names = {label: name for label, name in sorted(named.items()) if name in organs}
        if self._busy:
            return names, "One moment ..."
        if not names:
            others = listed([readable(name) for name in named.values()], "objects")
            unknown = f"{entry.name} has no organ called {others}; Train learns new labels."
            return {}, unknown if named else _HINT
        if self._stamp() == self._kept:
            return names, "All corrections of this scan are kept."
        return names, ""

    def _stamp(self) -> tuple[Any, ...]:
        """Say which labels are meant: those that are drawn or locked anew are others."""
        layer = itself(self._labels())
        return ref(layer), history_of(layer).version, frozenset(locks.locked(layer)), self._family

    @property
    def _family(self) -> str:
        entry = self._models.entry
        return "" if entry is None else improving.family_of(entry.name)

    # runs

    @property
    def _learning(self) -> bool:
        return self._started is not None or self._state == "running"

    def _launch(self, plan: training_jobs.Plan) -> None:
        self._busy = False
        try:
            self._started = training_jobs.start(plan)
        except SpadError as error:
            self._refuse(str(error))
            return
        self._watch(self._started.run)
        self._say("Starting: reading the scans takes a while. napari may be closed meanwhile.")
        self.look()

    def _watch(self, run: Path | None) -> None:
        self._judge.leave()
        self._run, self._state, self._stopping = run, "", False
        self._curves = None if run is None else Curves(run)
        self.result = None if run is None else improving.read_result(run)
        self._clock.stop()
        self._say("")
        if run is not None and self.result is None:
            if runs.is_run(run) and runs.read_state(run).state in ("running", "finished"):
                self.called.emit()
            self._clock.start()

    def _tick(self) -> None:
        """Read how the run stands; judge it at its end."""
        run, curves, failure = self._run, self._curves, ""
        if run is None or curves is None:
            return
        if self._started is not None and self._started.process.poll() is not None:
            failure = self._started.failure()
            self._started = None
        if not runs.is_run(run):
            if self._started is None:
                self._ended(failure)
            return
        try:
            state = runs.read_state(run)
        except SpadError as error:
            self._ended(str(error))
            return
        self._state = state.state
        curves.update()
        if self._learning:
            progress = progress_of(training_jobs.schedule_of(run), curves)
            self.bar.setValue(round(_STEPS * progress.fraction))
            self._say(_STOPPING if self._stopping else progress.words)
        elif state.state == "finished" and (found := trials(run)):
            self._clock.stop()
            self._judge.start(found)
        else:
            at = f"Stopped at step {state.step}; the Train dock can resume it."
            self._ended(at if state.state == "stopped" else failure or state.message)
        self.look()

    def _ended(self, sentence: str) -> None:
        self._clock.stop()
        self._say(sentence)
        self.look()

    def _judged(self, found: list[Comparison]) -> None:
        run = self._run
        assert run is not None
        self._be_busy("Comparing ...")

        def done(result: Improvement) -> None:
            if run == self._run:
                self.result = result
            self._be_busy("")

        self._in_thread(lambda: improving.note_result(run, found), done)

    def _in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do something off the main thread, for as long as the dock lives."""
        turn = self._turns.now

        def mine(call: Callable[[Any], None]) -> Callable[[Any], None]:
            return lambda told: call(told) if turn == self._turns.now else None

        threads.run(work, mine(done), mine(self._refuse))

    # what is shown

    def _show_kept(self, kept: list[Correction]) -> None:
        listed_now = [replace(one, left_out=False) for one in kept]
        if listed_now == self._listed:  # an action must not go while it is being triggered
            return
        self._listed = listed_now
        self.kept_button.setVisible(bool(kept))
        self.kept_menu.clear()
        for one in kept:
            organs = listed([readable(name) for name in one.organs], "organs")
            action = QAction(f"{one.scan}: {organs}", self.kept_menu)
            action.setCheckable(True)
            action.setChecked(not one.left_out)
            action.toggled.connect(lambda used, one=one: self._leave_out(one, left_out=not used))
            self.kept_menu.addAction(action)

    def _leave_out(self, one: Correction, *, left_out: bool) -> None:
        try:
            improving.leave_out(one, left_out=left_out)
        except SpadError as error:
            self._refuse(str(error))
            return
        self._say(
            f"{one.scan} is left out from now on; its corrections stay under {one.folder}."
            if left_out
            else f"{one.scan} is learnt from again."
            if not one.held_out
            else f"{one.scan} judges the result again."
        )
        self.look()

    def _show_count(self, kept: list[Correction], cannot: str) -> None:
        self._show_kept(kept)
        kept = [one for one in kept if not one.left_out]
        held = [one.scan for one in kept if one.held_out]
        words = f"{len(kept)} corrected scan{'' if len(kept) == 1 else 's'} kept"
        if held and len(held) < len(kept):
            are = "is" if len(held) == 1 else "are"
            words += f"; {listed(held, 'scans')} {are} held out to judge the result."
        else:
            need = "two are needed" if not kept else "one more is needed"
            why = f"{words}; {need}, since one is held out to judge the result."
            words = why
            cannot = cannot or why
        self.count.setText(words)
        self.count.setToolTip("\n".join(f"{one.scan}: {one.folder}" for one in kept))
        working = "It is at work."
        self.improve_button.setEnabled(not cannot and not self.busy)
        self.improve_button.setToolTip(
            cannot
            or (working if self.busy else "In the background, some minutes; you can go on working")
        )
        ready = self.improve_button.isEnabled() and not self.keep_button.isEnabled()
        # a result that waits for a decision comes first
        waits = self.result is not None and self.result.is_better and not self.result.model
        self.improve_button.setStyleSheet(MAIN if ready and not waits else "")
        self.stop_button.setVisible(self._learning)
        self.bar.setVisible(self._learning)

    def _show_result(self) -> None:
        entry, result = self._models.entry, self.result
        used = entry is not None and result is not None and entry.name == result.model
        self.table.setVisible(result is not None and not self._learning)
        self.use_button.setVisible(result is not None and not used and not self._learning)
        improved = entry is not None and improving.is_improved(entry.name)
        self.back_button.setVisible(improved)
        if improved and entry is not None:
            self.back_button.setText(f"Go back to {improving.before(entry)}")
        self.verdict.setVisible(self.table.isVisibleTo(self))
        if result is None:
            return
        self.verdict.setText(_verdict(result))
        self.table.show_rows(list(result.rows))
        better = result.is_better
        self.use_button.setText(
            "Use the improved model" if better else "Use the new model all the same"
        )
        self.use_button.setStyleSheet(MAIN if better and not result.model else "")

    def _choose(self, name: str) -> None:
        notices.models_changed.emit()
        self._models.setCurrentText(name)
        self.look()

    def _be_busy(self, words: str, then: str = "") -> None:
        self._busy = bool(words)
        self._say(words or then)
        self.look()

    def _refuse(self, sentence: str) -> None:
        self._be_busy("", sentence)
        notify.error(sentence)

    def _say(self, words: str) -> None:
        self.status.setText(words)
        self.status.setVisible(bool(words))

    def _lay_out(self) -> None:
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.keep_button.setToolTip("Save this scan with these organs, to learn from them later")
        self.back_button.setToolTip("The improved model is set aside, not deleted")
        layout = column(self, bare=True)
        layout.setSpacing(4)
        self.kept_button.setMenu(self.kept_menu)
        self.kept_button.setToolTip("Uncheck a scan to leave it out of what is learnt from")
        counted = row(self.count, self.kept_button)
        counted.setStretch(0, 1)
        buttons = row(self.improve_button, self.stop_button)
        buttons.setStretch(0, 1)
        layout.addWidget(self.words)
        layout.addWidget(self.keep_button)
        layout.addLayout(counted)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(self.verdict)
        layout.addWidget(self.table)
        layout.addWidget(self.use_button)
        layout.addWidget(self.back_button)

    def _connect(self) -> None:
        self.keep_button.clicked.connect(self.keep)
        self.improve_button.clicked.connect(self.improve)
        self.stop_button.clicked.connect(self.stop)
        self.use_button.clicked.connect(self.use)
        self.back_button.clicked.connect(self.go_back)
        self._models.currentIndexChanged.connect(self.look_soon)
        self._judge.said.connect(self._say)
        self._judge.refused.connect(self._ended)
        self._judge.done.connect(self._judged)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.look)
        self._clock.setInterval(_SECOND_MS)
        self._clock.timeout.connect(self._tick)


def _verdict(result: Improvement) -> str:
    """Say in a sentence whether the improved model is better."""
    where = listed(result.scans, "held-out scans")
    was, now = result.means
    figures = f"mean Dice {was:.3f} before and {now:.3f} after on {where}, not learnt from"
    if not result.is_better:
        return (
            f"Not better: {figures}. Keep the model that you have, correct more scans and try "
            "again."
        )
    words = f"Better: {figures}."
    if result.changed:
        organs = listed([readable(name) for name in result.changed], "organs")
        words += f" Not corrected there and yet changed: {organs}; look at them too."
    return words
