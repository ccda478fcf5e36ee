"""The Train dock: fine-tune on one's own labels, watch the run, compare, install its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QLabel, QProgressBar, QWidget

from napari_spad import jobs, notify, training_data, training_jobs
from napari_spad.run_progress import progress_of
from napari_spad.training_jobs import Curves
from napari_spad.widgets import threads
from napari_spad.widgets.before_after import BeforeAfter
from napari_spad.widgets.dock import Dock
from napari_spad.widgets.forms import Section, column, line, row, text
from napari_spad.widgets.install_row import InstallRow
from napari_spad.widgets.notices import follow, notices
from napari_spad.widgets.plots import CurvePlot
from napari_spad.widgets.run_list import RunList
from napari_spad.widgets.samples import SampleView
from napari_spad.widgets.train_form import TrainForm
from spad.errors import SpadError
from spad.training import runs
from spad.worker.messages import Warm

if TYPE_CHECKING:
    from napari import Viewer

_SECOND_MS = 1000
_STEPS = 1000
_OVERVIEW = {"loss": "loss", "lr": "learning rate"}


class TrainDock(Dock):
    """Starts training as a process of its own and shows what any run has to tell."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._started: list[training_jobs.Started] = []
        self._curves: Curves | None = None
        self._schedule: dict[str, Any] = {}
        self._before = ""
        self._warming: jobs.RunningJob | None = None
        self._writing = False
        turns = self._turns = threads.Turns()
        self.destroyed.connect(lambda: turns.next())
        self.form = TrainForm(napari_viewer)
        self.runs = RunList()
        self.bar = QProgressBar()
        self.status = text()
        self.samples = SampleView()
        self.before_after = BeforeAfter(napari_viewer)
        self.install = InstallRow()
        self.figure = QComboBox()
        self.plot = CurvePlot()
        self.overview = {name: CurvePlot(words, 90) for name, words in _OVERVIEW.items()}
        self.figures = text(faint=True)
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setInterval(_SECOND_MS)
        self._timer.timeout.connect(self.refresh)
        self._timer.start()
        self._connect()
        self.refresh()

    def _lay_out(self) -> None:
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.hide()
        curves = QWidget()
        inner = column(curves, bare=True)
        chooser = row(QLabel("Curve of"), self.figure)
        chooser.setStretch(1, 1)
        inner.addLayout(chooser)
        inner.addWidget(self.plot, 1)
        inner.addLayout(row(*self.overview.values()))
        inner.addWidget(self.figures)
        self.curves = Section("Curves", curves)
        layout = column(self)
        layout.addWidget(self.form)
        layout.addWidget(line())
        layout.addWidget(self.runs)
        layout.addWidget(self.bar)
        for part in (self.status, self.samples, self.before_after, self.install, self.curves):
            layout.addWidget(part)
        layout.addStretch(1)

    def _connect(self) -> None:
        self.form.asked.connect(self.start)
        self.figure.currentIndexChanged.connect(self._draw)
        self.runs.chosen.connect(self._watch)
        self.runs.stop.connect(self._stop)
        self.runs.resume.connect(self._resume)
        self.runs.discard.connect(self._discard)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed):
            follow(self, event, self.form.check)
        follow(self, notices.scan_changed, self.form.check)
        follow(self, notices.models_changed, self.form.offer_models)

    @property
    def working(self) -> bool:
        return self._writing

    def start(self) -> None:
        """Start a run as the form says; open layers are written to files first."""
        if not self.form.from_layers:
            self._launch([self.form.folder.text().strip()])
            return
        try:
            cases = self.form.open_cases()
        except SpadError as error:
            self._refused(str(error))
            return
        folder, turn = training_data.new_data_folder(), self._turns.next()
        self._be_busy("Writing the open layers to files ...")
        self._writing = True

        def then(call: Callable[[Any], None]) -> Callable[[Any], None]:
            def ended(told: Any) -> None:
                if turn == self._turns.now:
                    self._writing = False
                    call(told)
                    self.end_if_closed()

            return ended

        threads.run(
            lambda: training_data.write_cases(cases, folder),
            then(lambda folders: self._launch([str(one) for one in folders])),
            then(self._refused),
        )

    def refresh(self) -> None:
        """Read what the runs have to tell now."""
        self._look_at_started()
        self.runs.refresh(training_jobs.runs_folder())
        run = self._run
        if self._curves is not None and self._curves.update():
            self._offer_figures()
            self._draw()
        state = self.runs.state_of(run)
        self._show_progress(state)
        self.samples.show_run(run, "" if run is None else training_jobs.task_of(run))
        self.before_after.show_run(run)
        self.install.show_run(run, state)
        self.curves.setVisible(self._curves is not None and bool(self._curves.names))
        if self._before == "running" and state == "finished":
            self.before_after.compare()
        self._before = state
        if self.isVisible():
            self.form.look()
            self._ask_device()

    @property
    def _run(self) -> Path | None:
        return None if self._curves is None else self._curves.run

    def _look_at_started(self) -> None:
        for started in list(self._started):
            failure = started.failure()
            if failure:
                self._refused(failure)
            if started.process.poll() is not None:
                self._started.remove(started)
                self._be_busy("")

    def _show_progress(self, state: str) -> None:
        self.bar.setVisible(state == "running")
        if self._before == "running" and state != "running":
            self._say("")  # the list says how it ended
        if state != "running" or self._curves is None:
            return
        progress = progress_of(self._schedule, self._curves)
        self.bar.setValue(round(_STEPS * progress.fraction))
        self._say(progress.words)

    def _ask_device(self) -> None:
        """Learn from the worker, once, whether there is a GPU: the plan says so."""
        if self._warming is not None or not self.form.pairs:
            return
        job = jobs.run(self, Warm(), "")
        job.succeeded.connect(lambda report: self._device_told(str(report["device"])))
        self._warming = job
        job.start()

    def _device_told(self, device: str) -> None:
        self.form.device = device.partition(":")[0]
        self.form.check()

    def _be_busy(self, why: str) -> None:
        self.form.busy = why
        self.form.check()

    def _refused(self, sentence: str) -> None:
        self._be_busy("")
        self._say(sentence)
        notify.error(sentence)

    def _say(self, words: str) -> None:
        if words != self.status.text():
            self.status.setText(words)
        self.status.setVisible(bool(words))

    def _launch(self, folders: list[str]) -> None:
        try:
            started = training_jobs.start(self.form.plan(folders))
        except SpadError as error:
            self._refused(str(error))
            return
        self._started.append(started)
        self._be_busy("A training that you started is under way; stop it or wait for its end.")
        self.runs.expect(started.run)
        self._watch(started.run)
        self._say("Starting: reading the scans takes a while. napari may be closed meanwhile.")

    def _watch(self, run: Path | None) -> None:
        if run is not None and run == self._run:
            return
        self._curves = None if run is None else Curves(run)
        self._schedule = {} if run is None else training_jobs.schedule_of(run)
        self._before = ""
        self.figure.clear()
        for plot in (self.plot, *self.overview.values()):
            plot.clear()
        self._say("")
        self.refresh()

    def _offer_figures(self) -> None:
        if self._curves is None:
            return
        names = self._curves.names
        shown = [self.figure.itemText(index) for index in range(self.figure.count())]
        if names == shown:
            return
        favourite = self._curves.favourite(training_jobs.task_of(self._curves.run))
        wanted = self.figure.currentText() if shown else favourite
        self.figure.blockSignals(True)
        self.figure.clear()
        self.figure.addItems(names)
        self.figure.setCurrentText(wanted)
        self.figure.blockSignals(False)

    def _draw(self, index: int = 0) -> None:
        if self._curves is None or not self.figure.currentText():
            return
        chosen = self.figure.currentText()
        self.plot.show_curves(self._curves.curves(chosen))
        for name, plot in self.overview.items():
            if name in self._curves.names:
                plot.show_curves(self._curves.curves(name))
        figures = {name: self._curves.newest(name) for name in ("loss", "lr", chosen)}
        words = [f"{name} {value:.4g}" for name, value in figures.items() if value is not None]
        self.figures.setText(", ".join(words))

    def _stop(self, run: Path) -> None:
        try:
            runs.request_stop(run)
        except SpadError as error:
            notify.error(str(error))
            return
        self._say("Stopping: it makes a checkpoint first, from which it can resume.")

    def _resume(self, run: Path) -> None:
        try:
            self._started.append(training_jobs.resume(run))
        except SpadError as error:
            notify.error(str(error))

    def _discard(self, run: Path) -> None:
        try:
            training_jobs.discard(run)
        except SpadError as error:
            notify.error(str(error))
            return
        self._say(f"{run.name} is in the trash.")
        self.refresh()
