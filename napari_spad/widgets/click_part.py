"""The Click part of the Segment dock: objects by points, scribbles, boxes and lassos."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtGui import QShowEvent

from napari_spad import click_files, layers, locks, notify, places, view
from napari_spad.click_organs import lacking, organ_labels
from napari_spad.click_prompts import ClickPrompts
from napari_spad.click_sessions import ClickSessions
from napari_spad.doubts import Doubts
from napari_spad.looking_ahead import EarlyLook
from napari_spad.organ_layers import itself, on_same_grid
from napari_spad.session_opening import SessionOpening
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
        self.viewer, self._labels = viewer, labels
        self.scan: Any = None
        self.session: ClickSession | None = None
        self.sessions = ClickSessions(self, self._listen, lambda *told: self._files.offer(*told))
        self._files = SessionOpening(self, self._bring_back, self._refuse)
        self._doubts = Doubts(self._show_doubt, self.status.setText)
        self._early = EarlyLook(self, self.show_ahead)
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
        return self.sessions.saving(self.session)

    def show_scan(self, layer: Any) -> None:
        """Take note of the scan in question."""
        volume = None if layer is None else layers.scan_volume(layer)
        self.models.blockSignals(True)
        self.models.offer(None if volume is None else volume.modality)
        self.models.blockSignals(False)
        self._offer_names()
        if layer is not self.scan:
            self._files.stop()
            self._early.stop()
            self.show_ahead("")
            self.status.setText("")
            self.scan = layer
            self.button.setChecked(False)
            self.session = None
        self._show()
        self._look_early()

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._look_early()

    def _look_early(self) -> None:
        """Have the worker see the scan while a person reads what there is to click."""
        volume = None if self.scan is None else layers.scan_volume(self.scan)
        entry = self.models.entry
        if volume is None or entry is None or self.session is not None or self._why_not():
            return
        if self.isVisible() and not lacking(entry):
            phase = places.time_shown(self.viewer, self.scan)
            near = places.index_shown(self.viewer, self.scan)
            self._early.look(volume, entry, phase, near)

    def show_labels(self, layer: Any) -> None:
        """Take note of the labels that are chosen in the dock."""
        if self.on and layer is not None and self.session is not None:
            if itself(layer) is not self.session.layer and on_same_grid(layer, self.scan):
                self._open_session(layer)
        elif layer is None and self.session is not None:
            # the layer was removed
            self.button.setChecked(False)
            self.session = None
        elif self.session is not None and itself(layer) is not self.session.layer:
            # with Click off it is out of sight, and rests
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
        self._files.open(path)

    def _connect(self) -> None:
        self.button.toggled.connect(self._switch)
        for name, button in self.tools.items():
            button.clicked.connect(lambda _=False, name=name: self.use_tool(name))
        self.new_button.clicked.connect(self._begin_object)
        self.names.activated.connect(self._name_given)
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
        follow(self, self.viewer.layers.events.removed, self._layer_removed)
        prompts, sessions, files = self.prompts, self.sessions, self._files
        early = self._early

        def end() -> None:
            files.stop()
            early.stop()
            sessions.close()
            prompts.close()
            _parts.discard(self)

        self.end = end
        """Ends all sessions, and lets go of the viewer; the labels and the files stay."""
        self.destroyed.connect(end)

    # the session

    def _switch(self, on: bool) -> None:
        try:
            if on:
                self._open_session(self._labels_to_use())
                self.viewer.layers.selection.active = self.scan
        except SpadError as error:
            notify.error(str(error))
            self.button.setChecked(False)
            return
        self.prompts.mouse.on = on
        if not on:
            self.prompts.close_marks()
        self.switched.emit(on)
        self._show()

    def _labels_to_use(self) -> Any:
        """Give the labels that are chosen, those on which one clicked before, or new ones."""
        chosen, phase = self._labels(), places.time_shown(self.viewer, self.scan)
        if chosen is not None and on_same_grid(chosen, self.scan):
            if not self.sessions.is_of_other_time(chosen, self.scan, phase):
                return chosen
            chosen.visible = False
        found = self.sessions.labels_of(self.scan, phase)
        if found is None:
            return self._make_labels(phase)
        found.visible = True
        self.labels_made.emit(found)
        return found

    def _make_labels(self, phase: int) -> Any:
        volume = layers.scan_volume(self.scan)
        assert volume is not None
        empty = np.zeros(volume.spatial_shape, np.uint8)
        layer = self._add_labels(volume.with_array(empty, label_names={}))
        if phase:
            layer.name = f"{layer.name}, {places.words_of_time(volume)[0]} {phase}"
        self.labels_made.emit(layer)
        return layer

    def _add_labels(self, labels: Volume) -> Any:
        data = layers.to_layer(labels, f"{self.scan.name} - objects", role="labels")
        return add_layer(self.viewer, data)

    def _open_session(self, labels: Any, kept: click_files.Kept | None = None) -> None:
        """Go on with the session of the scan and these labels, or begin one."""
        phase = places.time_shown(self.viewer, self.scan)
        found = self.sessions.open(self.scan, labels, self.models.entry, phase, kept)
        if found is not self.session:
            self._files.hide_offer()
        self.session = found
        self._doubts.forget()
        self.prompts.begin(found)
        self._early.stop()
        found.look_ahead(places.index_shown(self.viewer, self.scan))
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
        session.doubted.connect(mine(lambda voxels: self._doubts.found(session, voxels)))
        session.failed.connect(lambda *told: self._failed(session, *told))

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
        self.sessions.drop(session)
        self._open_session(session.layer)
        return False

    def _model_chosen(self, index: int = 0) -> None:
        self._offer_names()
        try:
            self._is_other_model()
        except SpadError as error:
            self._refuse(str(error))
        self._show()
        self._look_early()

    def _layer_removed(self, event: Any) -> None:
        if self.prompts.lost(event.value):
            self.button.setChecked(False)
        for one in self.sessions.drop_of(event.value):
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
        typed = self._typed(self.session)
        if not typed or (typed == self.session.active and self.session.prompts_of(typed)):
            typed = _free_name(self.session)
        self._choose(typed)

    def _name_given(self, index: int = 0) -> None:
        """Go on with the object of the name that was chosen or typed, or begin it."""
        if self.session is not None and self._typed(self.session):
            self._choose(self._typed(self.session))

    def _typed(self, session: ClickSession) -> str:
        """Give the object whose name is typed; a name in its form where there is none."""
        text = self.names.currentText().strip()
        known = (one for one in session.objects if text in (one, readable(one)))
        return next(known, "_".join(text.split()))

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
        self._doubts.forget()
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
        prompts = () if session is None else session.prompts_of(name)
        if session is None or number >= len(prompts):
            return
        voxels = prompts[number].voxels
        self._go_to(session.turned.index(voxels)[len(voxels) // 2])

    def _next_doubt(self) -> None:
        session = self.session
        if session is not None:
            self._try(lambda: self._doubts.next(session))

    def _show_doubt(self, index: np.ndarray) -> None:
        self.prompts.doubt = index
        self._go_to(index)
        self.prompts.show()

    def _go_to(self, index: np.ndarray) -> None:
        view.go_to(self.viewer, places.world_of(self.scan, index))

    # sessions in files

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
        if why := lacking(entry):
            raise SpadError(why)
        layer = self.sessions.refill(self.session, kept, labels)
        if layer is None:
            layer = self._add_labels(labels)
        self.viewer.layers.selection.active = self.scan
        self._open_session(layer, kept)
        self.labels_made.emit(layer)
        if not self.on:
            self.button.setChecked(True)
        self.status.setText(
            f"{len(kept.objects)} objects are back, with {len(kept.record.steps)} steps."
        )
        self._show()

    # what is shown

    def _show(self) -> None:
        """Show the session as it is."""
        self.show_switch(self._why_not(), self.tool)
        self.open_button.setEnabled(self.scan is not None)
        self.show_session(self.session)
        self.prompts.show()
        self.odd.look_soon(self.session)

    def _why_not(self) -> str:
        volume = None if self.scan is None else layers.scan_volume(self.scan)
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
        volume = None if self.scan is None else layers.scan_volume(self.scan)
        modality = volume.modality if volume is not None else None
        self.offer_names(organ_labels(entry, modality) if entry is not None else ())

    def _answered(self, seconds: float, worker: float) -> None:
        self._files.hide_offer()
        self.prompts.doubt = None
        self._doubts.forget()
        self.status.setText(f"Click answered in {seconds:.2f} s ({worker:.2f} s in the worker).")
        self.prompts.show()

    def _try(self, call: Callable[[], None]) -> None:
        """Do something; what keeps it from being done is said."""
        try:
            call()
        except SpadError as error:
            self._refuse(str(error))

    def _refuse(self, sentence: str) -> None:
        self._doubts.forget()
        self.status.setText(sentence)
        notify.error(sentence)

    def _failed(self, session: ClickSession, sentence: str, again: Callable[[], None]) -> None:
        def retry() -> None:
            if self.sessions.saving(session) is None:
                notify.error("That session has ended meanwhile; click on the scan again.")
                return
            again()

        self.status.setText(sentence)
        notify.offer(sentence, "Click again", retry)


def _free_name(session: ClickSession) -> str:
    n = 1
    while f"object_{n}" in session.objects:
        n += 1
    return f"object_{n}"


def press(viewer: Any, name: str) -> bool:
    """Do what a key does in a viewer; False where it has no Click part."""
    own = getattr(viewer, "__wrapped__", viewer)
    for one in list(_parts):
        if getattr(one.viewer, "__wrapped__", one.viewer) is own:
            one.press(name)
            return True
    return False
