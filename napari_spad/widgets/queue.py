"""The Case queue dock: a folder of scans to work through, one after the other."""

from __future__ import annotations

import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import numpy as np
from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QTableWidgetItem

from napari_spad import keys, layers, notify, opening, start
from napari_spad.case_doubts import CaseDoubts
from napari_spad.case_queue import DONE, DOUBTFUL, NAME, OPEN, UNCERTAINTY, Case, CaseQueue
from napari_spad.case_rating import raters
from napari_spad.organ_layers import fits_as_organs, itself, on_same_grid
from napari_spad.widgets import threads
from napari_spad.widgets.case_table import CaseTable
from napari_spad.widgets.dock import Dock
from napari_spad.widgets.forms import MAIN, Chooser, column, row, text
from napari_spad.widgets.notices import follow, notices
from spad.errors import SpadError

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume

_ORDERS = {"By name": NAME, "Least sure first": UNCERTAINTY}
_HINT = "Open a folder of scans; what is done stays noted in its queue.json."
_NO_CASE = "Open a case first."
_docks: WeakKeyDictionary[Any, ReferenceType[QueueDock]] = WeakKeyDictionary()


def open_next(viewer: Any) -> bool:
    """Open the next case of the queue in a viewer; False where none is open there."""
    found = _docks.get(itself(viewer))
    dock = None if found is None else found()
    if dock is None or dock.queue is None:
        return False
    dock.next()
    return True


class QueueDock(Dock):
    """Opens the scans of a folder one by one, saves their labels, and notes which are done.

    Labels go to `<stem>_labels.nii.gz` beside their scan, when its case is marked and, if they
    were changed, when another one is opened; a case whose labels cannot be saved stays open. The
    case that comes next is read and looked at ahead, so that clicks on it are quick at once.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        start.use(napari_viewer)
        self.queue: CaseQueue | None = None
        self.case: Case | None = None
        self._at: str | None = None
        self._scan: Any = None
        self._before: list[Any] = []
        self._saved: tuple[Any, int] | None = None
        self._ours: set[Path] = set()
        self._ahead: tuple[Any, Future[_Read]] | None = None
        self._reader = ThreadPoolExecutor(1, "spad-queue")
        turns, reader = threads.Turns(), self._reader
        self._turns = turns
        self._busy = self._is_new = False
        self._doubts = CaseDoubts(self, self._in_viewer, self._scan_of)
        self.folder_button = QPushButton("Open folder ...")
        self.order = Chooser()
        self.order.addItems(list(_ORDERS))
        self.summary = text(_HINT, faint=True)
        self.table = CaseTable()
        self.next_button = QPushButton("Next")
        self.next_button.setStyleSheet(MAIN)
        self.done_button = QPushButton("Done")
        self.doubtful_button = QPushButton("Doubtful")
        self.open_button = QPushButton("Not done")
        self.status = text()
        self._lay_out()
        self._connect()
        own = itself(napari_viewer)
        _docks[own] = ref(self)
        self.destroyed.connect(lambda: _docks.pop(own, None))
        self.destroyed.connect(lambda: turns.next())
        self.destroyed.connect(lambda: reader.shutdown(wait=False, cancel_futures=True))
        self._show()

    def open_folder(self, folder: str | Path) -> None:
        """Show the cases of a folder, and open the first that is open."""
        if not self._leave():
            return
        try:
            queue = CaseQueue(folder, raters())
        except SpadError as error:
            notify.error(str(error))
            return
        queue.order = _ORDERS[self.order.currentText()]
        self.queue, self._at = queue, None
        self._doubts.begin(queue)
        coming = queue.next()
        if coming is None:
            self._clear()
        self._is_new = True
        self._show()
        self._go(coming)

    def next(self) -> None:
        """Save what was changed, and open the next open case."""
        if self.queue is not None and not self._busy and self._leave():
            self._go(self._upcoming())

    def open(self, case: Case) -> None:
        """Save what was changed, and open a case."""
        if not self._busy and self._leave():
            self._go(case)

    def mark(self, state: str) -> None:
        """Note the state of the case in the viewer down, and go on to the next unless it is open.

        Args:
            state: "done" (needs labels, which are saved), "doubtful" or "open".
        """
        if self.queue is None or self.case is None or self._busy:
            return
        saved = self._save_labels() if state == DONE else self._leave()
        if not saved:
            return
        try:
            self.queue.mark(self.case.name, state)
        except SpadError as error:
            notify.error(str(error))
            return
        self._show()
        if state != OPEN:
            self._go(self._upcoming())

    # What is seen

    def _lay_out(self) -> None:
        layout = column(self)
        top = row(self.folder_button, QLabel("Sort"), self.order)
        top.setStretch(0, 1)
        layout.addLayout(top)
        layout.addWidget(self.summary)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.next_button)
        layout.addLayout(row(self.done_button, self.doubtful_button, self.open_button))
        layout.addWidget(self.status)

    def _connect(self) -> None:
        self.folder_button.clicked.connect(self._ask_folder)
        self.folder_button.setToolTip("A folder of NIfTI, NRRD or MetaImage files, or of DICOM")
        self.order.currentTextChanged.connect(self._sort)
        self.order.setToolTip("'Least sure first' has the model rate all open cases, meanwhile")
        self._doubts.changed.connect(self._show_figures)
        self._doubts.said.connect(self.status.setText)
        self._doubts.ended.connect(self._rated)
        follow(self, notices.scan_changed, self._scan_changed)
        follow(self, notices.models_changed, self._models_changed)
        self.table.itemActivated.connect(self._activated)
        self.next_button.clicked.connect(self.next)
        self.done_button.clicked.connect(lambda: self.mark(DONE))
        self.doubtful_button.clicked.connect(lambda: self.mark(DOUBTFUL))
        self.open_button.clicked.connect(lambda: self.mark(OPEN))

    def _show(self) -> None:
        """Fill the table and say what can be clicked."""
        queue = self.queue
        cases = [] if queue is None else queue.cases
        here = "" if self.case is None else self.case.name
        self.table.show_cases(cases, here, self._doubts.reasons)
        if queue is not None:
            said = ", ".join(f"{count} {state}" for state, count in queue.counts().items())
            self.summary.setText(f"{queue.folder.name}: {said}")
            self.summary.setToolTip(str(queue.folder))
        self._enable()

    def _enable(self) -> None:
        why = "Open a folder first." if self.queue is None else ""
        why = "A scan is being opened." if self._busy else why
        key = keys.key_of(keys.NEXT_CASE)
        self.next_button.setText(f"Next ({key})" if key else "Next")
        self.folder_button.setEnabled(not self._busy)
        for button, words, reason in (
            (self.next_button, "Save what was changed, and open the next open case", why),
            (self.done_button, "Save the labels beside the scan, and go on", why or self._no_case),
            (self.doubtful_button, "Somebody is to look again; go on", why or self._no_case),
            (self.open_button, "It is still to be done", why or self._no_case),
        ):
            button.setEnabled(not reason)
            button.setToolTip(reason or words)

    @property
    def _no_case(self) -> str:
        return "" if self.case is not None else _NO_CASE

    def _sort(self, words: str) -> None:
        if self.queue is None:
            return
        self.queue.order = _ORDERS[words]
        self._to_the_top()
        self._show()
        if self._doubts.rating:
            self._doubts.stop()
            self.status.setText("Rating stopped.")
        if self.case is not None and not self._busy:
            self._read_ahead()
        self._rate()

    def _to_the_top(self) -> None:
        """Have the least sure case come next where that is the order."""
        if self.queue is not None and self.queue.order == UNCERTAINTY:
            self._at = None

    def _upcoming(self) -> Case | None:
        """Give the case that comes next, None where no other is open."""
        if self.queue is None:
            return None
        found = self.queue.next(self._at)
        here = None if self.case is None else self.case.name
        return self.queue.next(here) if found is not None and found.name == here else found

    # Uncertainty

    def _rate(self) -> None:
        """Have all open cases rated where a person wants them sorted by that."""
        if self.queue is not None and self.queue.order == UNCERTAINTY:
            self._doubts.rate()

    def _begin_rating(self) -> None:
        """Rate the cases of another folder, once its first one is in the viewer."""
        if self._is_new:
            self._is_new = False
            self._rate()

    def _rated(self) -> None:
        cases = [] if self.queue is None else self.queue.cases
        unknown = sum(one.state == OPEN and one.uncertainty is None for one in cases)
        words = f"Rated, except {unknown} of them: hold the mouse over '?' to read why."
        self.status.setText(words if unknown else "All open cases are rated.")
        self._to_the_top()
        self._read_ahead()

    def _show_figures(self) -> None:
        """Show the table anew, with the same case selected and in the same place."""
        picked, place = self.table.picked, self.table.scrolled_to()
        self._show()
        self.table.pick(picked)
        self.table.scroll_to(place)

    def _in_viewer(self) -> tuple[Case, Volume | None] | None:
        """Give the case of the queue that is open, and its scan."""
        case, queue = self.case, self.queue
        volume = None if self._scan is None else layers.scan_volume(self._scan)
        # while another folder is being opened, a case of the one before is still there
        if case is None or queue is None or volume is None or case.path.parent != queue.folder:
            return None
        return case, volume

    def _scan_changed(self, uuid: str) -> None:
        """Look again where a person has said more about the open scan, such as its modality."""
        here = self._in_viewer()
        if here is not None and here[1] is not None and here[1].source.uuid == uuid:
            self._read_ahead()
            self._rate()

    def _models_changed(self, event: Any = None) -> None:
        if self.queue is not None:
            self.queue.raters = raters()
            self._show_figures()
            self._rate()

    def _activated(self, item: QTableWidgetItem) -> None:
        if self.queue is not None:
            self.open(self.queue.cases[item.row()])

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A folder of scans")
        if folder:
            self.open_folder(folder)

    # Opening

    def _go(self, case: Case | None) -> None:
        """Open a case in the place of the one that is in the viewer."""
        if case is None:
            self.status.setText("No other case is open.")
            return
        turn = self._turns.next()
        waiting, self._ahead = self._waiting(case), None
        self._at, self._busy = case.name, True
        self.status.setText(f"Opening {case.name} ...")
        self._enable()

        def work() -> list[opening.Opened]:
            return (_read(case) if waiting is None else waiting.result()).as_layers()

        def done(found: list[opening.Opened]) -> None:
            if turn == self._turns.now:
                self._busy = False
                self._opened(case, found)

        def refused(sentence: str) -> None:
            if turn == self._turns.now:
                self._busy = False
                self.status.setText(sentence)
                self._enable()
                notify.error(sentence)
                self._begin_rating()

        threads.run(work, done, refused)

    def _opened(self, case: Case, found: list[opening.Opened]) -> None:
        from napari.layers import Layer

        self._clear()
        self._before = [itself(layer) for layer in self._viewer.layers]
        made = [Layer.create(*one.data) for one in found]
        for layer, one in zip(made, found, strict=True):
            self._viewer.add_layer(layer)
            if one.notes:
                notify.info(f"{layer.name}: {' '.join(one.notes)}")
        self.case, self._scan = case, made[0]
        self._saved = None
        self._ours.discard(case.labels_path)
        words = f"{case.name} is open."
        if len(made) > 1:
            self._viewer.layers.selection.active = made[1]
            if on_same_grid(made[1], made[0]):
                self._saved = _print_of(made[1])
                self._ours.add(case.labels_path)
            else:
                words += f" {case.labels_path.name} lies on another grid."
        self.status.setText(words)
        self._show()
        self._read_ahead()
        self._begin_rating()

    def _clear(self) -> None:
        """Take the layers of the case away that is in the viewer."""
        if self._scan is None:
            return
        for layer in list(self._viewer.layers):
            came = itself(layer) not in self._before
            drawn = not (layers.is_labels(layer) or layers.is_image(layer))
            gone = layer not in self._viewer.layers  # with one before it, such as marks of clicks
            if came and not gone and (drawn or on_same_grid(layer, self._scan)):
                self._viewer.layers.remove(layer)
        self.case = self._scan = self._saved = None

    def _read_ahead(self) -> None:
        """Read the case that is likely to come next, while a person looks at this one."""
        case = self._upcoming()
        if case is None:
            self._doubts.look_ahead(None)
            return
        stamp = _stamp(case)
        if self._ahead is None or self._ahead[0] != stamp:
            self._ahead = stamp, self._reader.submit(_read, case)
        self._doubts.look_ahead(case)

    def _scan_of(self, case: Case) -> Volume:
        """Give a case's scan: as it was read ahead, so that it is the one that will be opened."""
        waiting = self._waiting(case)
        return (_read(case) if waiting is None else waiting.result()).scan

    def _waiting(self, case: Case) -> Future[_Read] | None:
        """Give what reads a case ahead; None where that is another, or its files have changed."""
        ahead = self._ahead
        return ahead[1] if ahead is not None and ahead[0] == _stamp(case) else None

    # Saving

    def _leave(self) -> bool:
        """Save labels that were changed; whether the case may be left."""
        labels = self._labels()
        if labels is None or _print_of(labels) == self._saved:
            return True
        if self._saved is None:
            return self._save_labels() if np.any(labels.data) else True
        if self._saved[0] is not itself(labels):
            assert self.case is not None
            notify.error(
                f"{labels.name} is not saved, and {self.case.labels_path.name} holds other labels "
                "of this case; click Done to replace them, or remove the layer, and go on."
            )
            return False
        return self._save_labels()

    def _labels(self) -> Any:
        """The labels of the case: the active layer if it holds some, else the topmost shown."""
        if self._scan is None:
            return None
        fits = [
            one
            for one in reversed(self._viewer.layers)
            if fits_as_organs(one) and on_same_grid(one, self._scan)
        ]
        active = self._viewer.layers.selection.active
        if active is not None and active in fits:
            return active
        return next((one for one in fits if one.visible), fits[0] if fits else None)

    def _save_labels(self) -> bool:
        """Save the labels of the case; what is wrong is shown in a sentence."""
        from napari_spad.writer import write_labels

        case, labels = self.case, self._labels()
        if case is None:
            return True
        try:
            if labels is None:
                raise SpadError(
                    f"{case.name} has no labels on its grid; expected some to save; segment or "
                    "draw them first, or mark the case as doubtful."
                )
            target = case.labels_path
            if target.exists() and target not in self._ours:
                raise SpadError(
                    f"{target} is there already and was not opened here; expected no file, or the "
                    "one that this case began with; move it away and try again."
                )
            data, attributes, _ = labels.as_layer_data_tuple()
            write_labels(str(target), data, attributes)
        except SpadError as error:
            notify.error(str(error))
            return False
        self._ours.add(target)
        self._saved = _print_of(labels)
        self.status.setText(f"Saved {target.name}.")
        return True


@dataclass(frozen=True, eq=False)
class _Read:
    """A case's scan and its labels, if it has any; not yet open, so that no layer fits them."""

    case: Case
    scan: Volume
    labels: Volume | None

    def as_layers(self) -> list[opening.Opened]:
        """Make them ready for napari."""
        made = [opening.to_data(self.scan, str(self.case.path))]
        if self.labels is not None:
            made.append(opening.to_data(self.labels, str(self.case.labels_path)))
        return made


def _read(case: Case) -> _Read:
    """Read a case's files.

    Raises:
        SpadError: a file cannot be read, or a person has to be asked about it.
    """
    from spad.volumes import files

    wanted = opening.find(str(case.path))
    if isinstance(wanted, opening.Choice):
        raise SpadError(
            f"{case.path} holds {len(wanted.series)} series; expected one in each folder of a "
            "queue; move the others elsewhere."
        )
    scan = opening.load(wanted)
    if isinstance(scan, opening.SpacingWanted):
        raise SpadError(
            f"{case.path} states no spacing; expected a scan that does; open it in the Scan dock, "
            "which asks for the spacing, and save it."
        )
    there = case.labels_path.exists()
    return _Read(case, scan, files.read(case.labels_path, labels=True) if there else None)


def _stamp(case: Case) -> tuple[Any, ...]:
    """Say which state of a case's files is meant: one that was changed is read again."""
    times = []
    for path in (case.path, case.labels_path):
        try:
            times.append(path.stat().st_mtime_ns)
        except OSError:
            times.append(0)
    return (case.path, *times)


def _print_of(layer: Layer) -> tuple[Any, int]:
    """Tell labels from others: the layer and a checksum of its voxels."""
    data = np.asarray(layer.data)
    total = 0
    for part in data:
        total = zlib.crc32(np.ascontiguousarray(part).data, total)
    return itself(layer), total
