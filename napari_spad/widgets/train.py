"""The Train dock: start a run on one's own scans, watch its curve, stop it, use its model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_spad import layers, notify, training_jobs
from napari_spad.training_jobs import Curves, Plan
from napari_spad.widgets.choosers import is_scan
from napari_spad.widgets.forms import Form, column, line, row, text
from napari_spad.widgets.notices import follow, notices
from napari_spad.widgets.plots import CurvePlot
from napari_spad.widgets.run_list import RunList
from napari_spad.widgets.samples import SampleView
from spad.errors import SpadError
from spad.training import runs

if TYPE_CHECKING:
    from napari import Viewer

_SECOND_MS = 1000
_FOLDER, _LAYERS = "a folder of scans", "the open layers"
_MINUTES, _STEPS = "minutes", "steps"
_SCRATCH = "random weights"
_OVERVIEW = {"loss": "loss", "lr": "learning rate"}


class TrainDock(QWidget):
    """Starts training as a process of its own and shows what any run has to tell."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._started: list[training_jobs.Started] = []
        self._curves: Curves | None = None
        self._writing: Any = None
        self._make_form()
        self.runs = RunList()
        self.figure = QComboBox()
        self.plot = CurvePlot()
        self.overview = {name: CurvePlot(words, 90) for name, words in _OVERVIEW.items()}
        self.samples = SampleView()
        self.status = text(faint=True)
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setInterval(_SECOND_MS)
        self._timer.timeout.connect(self.refresh)
        self._timer.start()
        self._connect()
        self._recipe_chosen()
        self.refresh()

    def _make_form(self) -> None:
        self.recipe = QComboBox()
        self.recipe.addItems(list(training_jobs.RECIPES))
        self.what = text(faint=True)
        self.source = QComboBox()
        self.source.addItems([_FOLDER, _LAYERS])
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("img0001.nii.gz, label0001.nii.gz, ...")
        self.browse = QPushButton("...")
        self.browse.setMaximumWidth(34)
        self.browse.setToolTip("Choose a folder of scans")
        self.cases = text(faint=True)
        self.preset = QComboBox()
        self.preset.addItems(list(training_jobs.PRESETS))
        self.preset.setToolTip("The model's size: tiny suits a laptop, base is the papers'")
        self.init = QComboBox()
        self.init.setToolTip("The weights to start from")
        self.amount = QDoubleSpinBox()
        self.amount.setDecimals(0)
        self.amount.setRange(1, 10_000_000)
        self.amount.setValue(10)
        self.amount_unit = QComboBox()
        self.amount_unit.addItems([_MINUTES, _STEPS])
        self.start_button = QPushButton("Start training")

    def _lay_out(self) -> None:
        layout = column(self)
        form = Form()
        form.add("Learn", self.recipe)
        form.add("", self.what)
        form.add("From", self.source)
        self._path_row = QWidget()
        inner = QHBoxLayout(self._path_row)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.folder, 1)
        inner.addWidget(self.browse)
        form.add("", self._path_row)
        form.add("", self.cases)
        form.add("Size", self.preset)
        form.add("Start from", self.init)
        length = row(self.amount, self.amount_unit)
        form.add("For", length)
        layout.addLayout(form)
        layout.addWidget(self.start_button)
        layout.addWidget(line())
        layout.addWidget(self.runs)
        chooser = row(QLabel("Curve of"), self.figure)
        chooser.setStretch(1, 1)
        layout.addLayout(chooser)
        layout.addWidget(self.plot, 1)
        layout.addLayout(row(*self.overview.values()))
        layout.addWidget(self.status)
        layout.addWidget(self.samples)

    def _connect(self) -> None:
        self.recipe.currentIndexChanged.connect(self._recipe_chosen)
        self.source.currentIndexChanged.connect(self._check)
        self.folder.textChanged.connect(self._check)
        self.browse.clicked.connect(self._browse)
        self.start_button.clicked.connect(self.start)
        self.figure.currentIndexChanged.connect(self._draw)
        self.runs.chosen.connect(self._watch)
        self.runs.stop.connect(self._stop)
        self.runs.resume.connect(self._resume)
        self.runs.use.connect(self._use)
        self.runs.discard.connect(self._discard)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed):
            follow(self, event, self._check)
        follow(self, notices.models_changed, self._offer_models)

    def start(self) -> None:
        """Start a run as the form says; open layers are written to files first."""
        if self.source.currentText() == _FOLDER:
            self._launch(self.folder.text().strip())
            return
        from napari.qt.threading import create_worker

        cases = self._open_cases()
        folder = training_jobs.new_data_folder()
        self._writing = create_worker(training_jobs.write_cases, cases, folder)
        self._writing.returned.connect(lambda path: self._written(str(path)))
        self._writing.errored.connect(self._not_written)
        self._check()
        self._writing.start()

    def refresh(self) -> None:
        """Read what the runs have to tell now."""
        for started in list(self._started):
            failure = started.failure()
            if failure:
                notify.error(failure)
                self.status.setText(failure)
            if started.process.poll() is not None:
                self._started.remove(started)
        self.runs.refresh(training_jobs.runs_folder())
        run = None if self._curves is None else self._curves.run
        if self._curves is not None and self._curves.update():
            self._offer_figures()
            self._draw()
        self.samples.show_run(run, "" if run is None else training_jobs.task_of(run))

    def _recipe_chosen(self, index: int = 0) -> None:
        self.what.setText(training_jobs.RECIPES[self.recipe.currentText()])
        self._offer_models()
        self._check()

    def _offer_models(self, event: object = None) -> None:
        from spad.checkpoints import zoo

        kind = training_jobs.KINDS[self.recipe.currentText()]
        names = [entry.name for entry in zoo.models() if entry.kind == kind]
        self.init.clear()
        self.init.addItems([*names, _SCRATCH])

    def _open_pairs(self) -> list[tuple[Any, Any]]:
        """Pair the layers of open scans with those of labels on them, as the recipe wants."""
        from napari_spad.widgets.segment import fits_as_organs, on_same_grid

        wants_labels = self.recipe.currentText() == "segmentation"
        marks = [layer for layer in self._viewer.layers if fits_as_organs(layer)]
        pairs: list[tuple[Any, Any]] = []
        for layer in self._viewer.layers:
            if not is_scan(layer):
                continue
            over = [mark for mark in marks if on_same_grid(mark, layer)]
            shown = [mark for mark in over if mark.visible] or over
            if not wants_labels:
                pairs.append((layer, None))
            elif shown:
                pairs.append((layer, shown[-1]))
        return pairs

    def _open_cases(self) -> list[tuple[Any, Any]]:
        """Give the pairs as volumes."""
        from napari_spad.widgets.segment import labels_on

        cases: list[tuple[Any, Any]] = []
        for layer, mark in self._open_pairs():
            scan = layers.volume_of(layer)
            cases.append((scan, None if mark is None else labels_on(scan, mark)))
        return cases

    def _check(self, event: object = None) -> None:
        from_folder = self.source.currentText() == _FOLDER
        self._path_row.setVisible(from_folder)
        why = self._why_not(from_folder)
        self.start_button.setEnabled(not why)
        self.start_button.setToolTip(why)
        self.cases.setText(why or self._cases_words(from_folder))
        self.cases.setVisible(bool(self.cases.text()))

    def _why_not(self, from_folder: bool) -> str:
        if self._writing is not None:
            return "Writing the open layers to files ..."
        if from_folder:
            path = self.folder.text().strip()
            if not path:
                return "Choose a folder with scans first."
            return "" if Path(path).is_dir() else f"{path} is no folder."
        if self._open_pairs():
            return ""
        if self.recipe.currentText() == "segmentation":
            return "Open scans and labels on them first (a labels file, or Segment and correct)."
        return "Open a scan first."

    def _cases_words(self, from_folder: bool) -> str:
        if from_folder:
            return ""
        pairs = self._open_pairs()
        words = [
            scan.name if mark is None else f"{scan.name} with {mark.name}" for scan, mark in pairs
        ]
        return f"{len(words)} scan{'s' if len(words) > 1 else ''}: {'; '.join(words)}"

    def _browse(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of scans", self.folder.text())
        if path:
            self.folder.setText(path)

    def _written(self, folder: str) -> None:
        self._writing = None
        self._check()
        self._launch(folder)

    def _not_written(self, error: Exception) -> None:
        self._writing = None
        self._check()
        notify.error(str(error))

    def _launch(self, folder: str) -> None:
        recipe = self.recipe.currentText()
        amount = self.amount.value()
        in_minutes = self.amount_unit.currentText() == _MINUTES
        init = self.init.currentText()
        plan = Plan(
            recipe=recipe,
            data=(folder,),
            preset=self.preset.currentText(),
            minutes=amount if in_minutes else None,
            steps=None if in_minutes else int(amount),
            init=None if init == _SCRATCH else init,
            name=time.strftime(f"{recipe}-%Y%m%d-%H%M%S"),
        )
        try:
            started = training_jobs.start(plan)
        except SpadError as error:
            notify.error(str(error))
            return
        self._started.append(started)
        self.status.setText("Starting: reading the scans takes a while. napari may be closed.")
        self.runs.expect(started.run)
        self._watch(started.run)

    def _watch(self, run: Path | None) -> None:
        if run is not None and self._curves is not None and self._curves.run == run:
            return
        self._curves = None if run is None else Curves(run)
        self.figure.clear()
        for plot in (self.plot, *self.overview.values()):
            plot.clear()
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
        self.status.setText(", ".join(words))

    def _stop(self, run: Path) -> None:
        try:
            runs.request_stop(run)
        except SpadError as error:
            notify.error(str(error))
            return
        self.status.setText("Stopping: it makes a checkpoint first, from which it can resume.")

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
        self.status.setText(f"{run.name} is in the trash.")
        self.refresh()

    def _use(self, run: Path) -> None:
        name, agreed = QInputDialog.getText(self, "Use this model", "Name:", text=run.name)
        if agreed and name:
            self.use(run, name)

    def use(self, run: Path, name: str) -> None:
        """Copy a run's best model into the zoo, so that the other docks offer it."""
        from spad.checkpoints import zoo

        try:
            entry = zoo.install(run, name.strip())
        except SpadError as error:
            notify.error(str(error))
            return
        notices.models_changed.emit()
        notify.info(f"The model {entry.name!r} can be chosen in the docks now.")
