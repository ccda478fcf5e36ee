"""The Click part of the Segment dock: objects by points, scribbles, boxes and lassos."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import Signal

from napari_spad import click_files, layers, locks, notify, places, view
from napari_spad.click_organs import lacking, organ_labels
from napari_spad.click_prompts import ClickPrompts
from napari_spad.click_sessions import ClickSessions
from napari_spad.organ_layers import itself, on_same_grid
from napari_spad.widgets import threads
from napari_spad.widgets.click_form import ClickForm
from napari_spad.widgets.job_dock import add_layer
from napari_spad.widgets.notices import follow
from spad.errors import SpadError
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari import Viewer

    from napari_spad.click_session import ClickSession
    from spad.volumes.volume import Volume

_parts: WeakSet[ClickPart] = WeakSet()


class ClickPart(ClickForm):
    """Finds objects by what a person clicks and draws, one session for each scan and labels.

    Args:
        viewer: the viewer.
        labels: gives the labels layer that is chosen in the dock, or None.
    """

    labels_made = Signal(object)
    """A labels layer was made for the objects, or taken again."""
    switched = Signal(bool)
    """Clicking was switched on or off."""

    def __init__(self, viewer: Viewer, labels: Callable[[], Any]) -> None:
        super().__init__()
        self._viewer, self._labels = viewer, labels
        self._scan: Any = None
        self.session: ClickSession | None = None
        self._sessions = ClickSessions(self, self._listen, self._offer)
        self._doubts: list[Any] = []
        self._offered: Path | None = None
        self._turns = threads.Turns()
        self.prompts = ClickPrompts(
            viewer,
            lambda: self.session,
            lambda: not self._is_other_model(),
            self._begin_object,
            self._refuse,
        )
        self._connect()
        _parts.add(self)
        self._show()

    @property
    def tool(self) -> str:
        """What the mouse does: "point", "scribble", "box" or "lasso"."""
        return self.prompts.mouse.tool

    @property
    def saving(self) -> click_files.Autosave | None:
        """What keeps the session."""
        return self._sessions.saving(self.session)

    def show_scan(self, layer: Any) -> None:
        """Take note of the scan in question."""
        volume = None if layer is None else layers.scan_volume(layer)
        self.models.blockSignals(True)
        self.models.offer(None if volume is None else volume.modality)
        self.models.blockSignals(False)
        self._offer_names()
        if layer is not self._scan:
            self._scan = layer
            self.button.setChecked(False)
            self.session = None
        self._show()

    def show_labels(self, layer: Any) -> None:
        """Take note of the labels that are chosen in the dock."""
        if self.on and layer is not None and self.session is not None:
            if itself(layer) is not self.session.layer and on_same_grid(layer, self._scan):
                self._open_session(layer)
        elif layer is None and self.session is not None:
            # the layer was removed
            self.button.setChecked(False)
            self.session = None
        self._show()

    def show_locks(self) -> None:
        """Show what is locked now."""
        self.show_objects(self.session)

    def use_tool(self, name: str) -> None:
        """Switch clicking on with a tool."""
        self.prompts.mouse.tool = name
        self.tools[name].setChecked(True)
        if not self.on and self.button.isEnabled():
            self.button.setChecked(True)
        self._show()

    def press(self, name: str) -> None:
        """Do what a key does: the name of a tool, or of one of `keys.CLICK_KEYS`."""
        if name in self.tools:
            if name == "point" and self.on and self.tool == "point":
                self.button.setChecked(False)
            else:
                self.use_tool(name)
            return
        buttons = {
            "new_object": self.new_button,
            "doubt": self.doubt_button,
            "repair": self.odd.repair_button,
            "undo": self.undo_button,
            "redo": self.redo_button,
        }
        buttons[name].click()

    def open_session(self, path: Path) -> None:
        """Bring the objects, prompts and labels of a session back.

        Args:
            path: of its file.
        """
        scan = None if self._scan is None else layers.scan_volume(self._scan)
        if scan is None:
            notify.error("Open the session's scan first, and choose it above.")
            return
        phase, turn = places.time_shown(self._viewer, self._scan), self._turns.next()
        self.status.setText(f"Opening {path.name} ...")

        def read() -> click_files.Kept:
            return click_files.read(path, click_files.one_time(scan, phase))

        def come(kept: click_files.Kept) -> None:
            if turn == self._turns.now:
                self._try(lambda: self._bring_back(kept, scan))

        def refuse(sentence: str) -> None:
            if turn == self._turns.now:
                self._refuse(sentence)

        threads.run(read, come, refuse)

    def _connect(self) -> None:
        self.button.toggled.connect(self._switch)
        for name, button in self.tools.items():
            button.clicked.connect(lambda _=False, name=name: self.use_tool(name))
        self.new_button.clicked.connect(self._begin_object)
        self.models.currentIndexChanged.connect(self._model_chosen)
        self.objects.picked.connect(self._choose)
        self.objects.locked.connect(self._lock)
        self.objects.removed.connect(lambda name, n: self.prompts.delete([n], name))
        self.objects.erased.connect(self._erase)
        self.objects.shown.connect(self._show_prompt)
        self.odd.refused.connect(self._refuse)
        self.undo_button.clicked.connect(
            lambda: self.session.undo() if self.session is not None else None
        )
        self.redo_button.clicked.connect(
            lambda: self.session.redo() if self.session is not None else None
        )
        self.doubt_button.clicked.connect(self._next_doubt)
        self.automatic_button.clicked.connect(
            lambda: self._try(self.session.start_automatic) if self.session is not None else None
        )
        self.save_button.clicked.connect(self._ask_to_save)
        self.open_button.clicked.connect(self._ask_to_open)
        self.go_on_button.clicked.connect(self._go_on)
        follow(self, self._viewer.layers.events.removed, self._layer_removed)
        prompts, sessions, turns = self.prompts, self._sessions, self._turns

        def end() -> None:
            turns.next()
            sessions.close()
            prompts.close()
            _parts.discard(self)

        self.destroyed.connect(end)

    # the session

    def _switch(self, on: bool) -> None:
        try:
            if on:
                labels = self._labels()
                if labels is None or not on_same_grid(labels, self._scan):
                    labels = self._labels_before() or self._make_labels()
                self._open_session(labels)
                self._viewer.layers.selection.active = self._scan
        except SpadError as error:
            notify.error(str(error))
            self.button.setChecked(False)
            return
        self.prompts.mouse.on = on
        if not on:
            self.prompts.close_marks()
        self.switched.emit(on)
        self._show()

    def _labels_before(self) -> Any:
        """Give the labels on which the scan's objects were found before, or None."""
        found = self._sessions.labels_of(self._scan)
        if found is not None:
            self.labels_made.emit(found)
        return found

    def _make_labels(self) -> Any:
        volume = layers.scan_volume(self._scan)
        assert volume is not None
        empty = np.zeros(volume.spatial_shape, np.uint8)
        layer = self._add_labels(volume.with_array(empty, label_names={}))
        self.labels_made.emit(layer)
        return layer

    def _add_labels(self, labels: Volume) -> Any:
        data = layers.to_layer(labels, f"{self._scan.name} - objects", role="labels")
        return add_layer(self._viewer, data)

    def _open_session(self, labels: Any, kept: click_files.Kept | None = None) -> None:
        """Go on with the session of the scan and these labels, or begin one."""
        phase = places.time_shown(self._viewer, self._scan)
        found = self._sessions.open(self._scan, labels, self.models.entry, phase, kept)
        if found is not self.session:
            self._hide_offer()
        self.session = found
        self._doubts = []
        self.prompts.begin(found)
        found.look_ahead(places.index_shown(self._viewer, self._scan))
        self._show()

    def _listen(self, session: ClickSession) -> None:
        def mine(call: Callable[..., None]) -> Callable[..., None]:
            return lambda *told: call(*told) if self.session is session else None

        session.changed.connect(mine(self._show))
        session.said.connect(mine(self.status.setText))
        session.refused.connect(self._refuse)
        session.previewed.connect(mine(self.prompts.show_first))
        session.answered.connect(mine(self._answered))
        session.looked_ahead.connect(mine(self.show_ahead))
        session.doubted.connect(mine(self._doubted))
        session.failed.connect(self._failed)

    def _is_other_model(self) -> bool:
        """Go on with another model, or refuse it where the log has prompts of one already."""
        session, entry = self.session, self.models.entry
        if session is None or entry is None or entry.path == session.entry.path:
            return False
        why = lacking(entry)
        if any(step["step"] in ("prompt", "again", "dropped") for step in session.log):
            why = (
                f"This session was made with '{session.entry.name}', and one session has one "
                f"model; save it, and start '{entry.name}' on other labels."
            )
        if why:
            self.models.setCurrentText(session.entry.name)
            self._refuse(why)
            return True
        self._sessions.drop(session)
        self._open_session(session.layer)
        return False

    def _model_chosen(self, index: int = 0) -> None:
        self._offer_names()
        try:
            self._is_other_model()
        except SpadError as error:
            self._refuse(str(error))
        self._show()

    def _layer_removed(self, event: Any) -> None:
        if self.prompts.lost(event.value):
            self.button.setChecked(False)
        for one in self._sessions.drop_of(event.value):
            if one is self.session:
                self.session = None
                self.button.setChecked(False)
        self._show()

    # objects

    def _begin_object(self) -> None:
        """Begin the object of the name that is typed, or of a free one."""
        if not self.on:
            self.button.setChecked(True)
        if self.session is None:
            return
        typed = "_".join(self.names.currentText().split())
        if not typed or (typed == self.session.active and self.session.objects[typed].prompts):
            typed = _free_name(self.session)
        self._choose(typed)

    def _choose(self, name: str) -> None:
        session = self.session
        if session is None:
            return
        new = name not in session.objects
        try:
            session.choose(name)
        except SpadError as error:
            self._refuse(str(error))
            return
        self._doubts = []
        self.names.setEditText(readable(session.active))
        known = organ_labels(session.entry, session.volume.modality)
        if new and known and session.active not in known and not name.startswith("object_"):
            near = difflib.get_close_matches(session.active, known, 1)
            hint = f"; did you mean {readable(near[0])}?" if near else "."
            self.status.setText(
                f"The model knows no {readable(session.active)} by name, so the prompts alone say "
                f"what it is{hint}"
            )

    def _lock(self, name: str, on: bool) -> None:
        session = self.session
        if session is None:
            return
        label, fixed = session.objects[name].label, locks.locked(session.layer)
        locks.lock(session.layer, fixed | {label} if on else fixed - {label})
        self._show()

    def _erase(self, name: str) -> None:
        session = self.session
        if session is not None:
            session.choose(name)
            self._try(session.erase)

    def _show_prompt(self, name: str, number: int) -> None:
        session = self.session
        if session is None or number >= len(session.objects[name].prompts):
            return
        voxels = session.objects[name].prompts[number].voxels
        self._go_to(session.turned.index(voxels)[len(voxels) // 2])

    def _next_doubt(self) -> None:
        session = self.session
        if session is None:
            return
        if self._doubts:
            self._go_to_doubt(session)
            return
        whole = not session.active or not session.ml(session.active)
        self._try(lambda: session.find_doubts(None if whole else session.active))

    def _doubted(self, voxels: list[Any]) -> None:
        session = self.session
        assert session is not None
        if not voxels:
            self.status.setText(
                "No doubtful place is left."
                if session.features_ready
                else "Doubtful places are known once 'Looking ahead' has ended."
            )
            return
        self._doubts = list(voxels)
        self._go_to_doubt(session)

    def _go_to_doubt(self, session: ClickSession) -> None:
        self.prompts.doubt = session.turned.index([self._doubts.pop(0)])[0]
        self._go_to(self.prompts.doubt)
        self.prompts.show()
        left = f"{len(self._doubts)} more" if self._doubts else "the last one"
        self.status.setText(f"A doubtful place is marked in yellow ({left}).")

    def _go_to(self, index: np.ndarray) -> None:
        view.go_to(self._viewer, places.world_of(self._scan, index))

    # sessions in files

    def _offer(self, session: ClickSession, sha256: str) -> None:
        """Offer to go on with what was done on this scan before."""
        found = self._sessions.earlier(session, sha256) if session is self.session else None
        if found is not None:
            self._offered, count = found
            date = click_files.date_of(self._offered)
            self.go_on_button.setText(f"Go on with the session of {date} ({count} steps)")
            self.go_on_button.show()

    def _hide_offer(self) -> None:
        self._offered = None
        self.go_on_button.hide()

    def _go_on(self) -> None:
        path = self._offered
        self._hide_offer()
        if path is not None:
            self.open_session(path)

    def _bring_back(self, kept: click_files.Kept, scan: Volume) -> None:
        if kept.labels is None:
            raise SpadError(
                f"The labels of {kept.path.name} are not beside it; make them again with "
                f"'spad replay {kept.path.name} --out LABELS'."
            )
        model = str((kept.record.models.get("clicker") or {}).get("name"))
        self.models.blockSignals(True)
        self.models.setCurrentText(model)
        self.models.blockSignals(False)
        entry = self.models.entry
        if entry is None or entry.name != model:
            raise SpadError(
                f"The session was made with the model '{model}', which is not here; import it "
                "with 'spad models import'."
            )
        labels = scan.with_array(kept.labels, label_names=dict(kept.record.names))
        layer = self._sessions.refill(self.session, kept, labels)
        if layer is None:
            layer = self._add_labels(labels)
        self._viewer.layers.selection.active = self._scan
        self._open_session(layer, kept)
        self.labels_made.emit(layer)
        if not self.on:
            self.button.setChecked(True)
        self.status.setText(
            f"{len(kept.objects)} objects are back, with {len(kept.record.steps)} steps."
        )
        self._show()

    def _ask_to_save(self) -> None:
        saving = self.saving
        path = None if saving is None else self.ask_where_to_save()
        if saving is None or path is None:
            return
        try:
            saving.save_to(path)
        except SpadError as error:
            self._refuse(str(error))
            return
        notify.info(f"Saved {path}; 'spad replay' makes its labels again.")

    def _ask_to_open(self) -> None:
        path = self.ask_what_to_open()
        if path is not None:
            self.open_session(path)

    # what is shown

    def _show(self) -> None:
        """Show the session as it is."""
        self.show_switch(self._why_not(), self.tool)
        self.open_button.setEnabled(self._scan is not None)
        self.show_session(self.session)
        self.prompts.show()
        self.odd.look_soon(self.session)

    def _why_not(self) -> str:
        volume = None if self._scan is None else layers.scan_volume(self._scan)
        if volume is None:
            return "Open a scan first."
        if volume.modality is None:
            return "Say first whether this is CT or MR."
        if volume.axes not in ("zyx", "tzyx", "czyx"):
            return "A scan with times and channels cannot be clicked on; split it first."
        if self.models.entry is None:
            return f"There is no model for clicks on {volume.modality}; train or import one."
        return ""

    def _offer_names(self) -> None:
        entry = self.models.entry
        volume = None if self._scan is None else layers.scan_volume(self._scan)
        modality = volume.modality if volume is not None else None
        self.offer_names(organ_labels(entry, modality) if entry is not None else ())

    def _answered(self, seconds: float, worker: float) -> None:
        self._hide_offer()
        self.prompts.doubt = None
        self.status.setText(f"Click answered in {seconds:.2f} s ({worker:.2f} s in the worker).")
        self.prompts.show()

    def _try(self, call: Callable[[], None]) -> None:
        """Do something; what keeps it from being done is said."""
        try:
            call()
        except SpadError as error:
            self._refuse(str(error))

    def _refuse(self, sentence: str) -> None:
        self.status.setText(sentence)
        notify.error(sentence)

    def _failed(self, sentence: str, again: Callable[[], None]) -> None:
        self.status.setText(sentence)
        notify.offer(sentence, "Click again", again)


def _free_name(session: ClickSession) -> str:
    n = 1
    while f"object_{n}" in session.objects:
        n += 1
    return f"object_{n}"


def press(viewer: Any, name: str) -> bool:
    """Do what a key does in a viewer; False where it has no Click part."""
    own = getattr(viewer, "__wrapped__", viewer)
    for one in list(_parts):
        if getattr(one._viewer, "__wrapped__", one._viewer) is own:
            one.press(name)
            return True
    return False
