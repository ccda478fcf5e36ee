"""The Click part of the Segment dock: objects by points, scribbles, boxes and lassos."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QButtonGroup, QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_spad import click_files, layers, locks, notify, plausible, view
from napari_spad.click_marks import ClickMarks
from napari_spad.click_mouse import ClickMouse, drawn
from napari_spad.click_session import ClickSession, lacking, organ_names
from napari_spad.keys import CLICK_KEYS, click_action, key_of
from napari_spad.naming import name_label
from napari_spad.organ_layers import itself, on_same_grid
from napari_spad.widgets import threads
from napari_spad.widgets.choosers import ModelChooser
from napari_spad.widgets.forms import MAIN, Chooser, Form, column, row, text
from napari_spad.widgets.job_dock import add_layer
from napari_spad.widgets.notices import follow
from napari_spad.widgets.objects import ObjectList
from spad.errors import SpadError
from spad.prompts.prompt import Prompt
from spad.prompts.session_file import read_record
from spad.volumes.axes import to_canonical
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari import Viewer

    from spad.volumes.volume import Volume

_JUDGE_MS = 300
_FILTER = f"Session (*{click_files.SUFFIX} *.json)"
_HINTS = {
    "point": "Left click adds, right click or Alt+click takes away; drag a mark to move it.",
    "scribble": "Drag to draw on the object; right or Alt+drag draws what does not belong.",
    "box": "Drag a box on a slice; Shift+drag on another slice makes it reach from there to here.",
    "lasso": "Drag around the object on a slice.",
}
_IN_PLANES = "The same works in Three planes; there, Ctrl+click moves only the cross."
_parts: WeakSet[ClickPart] = WeakSet()


class ClickPart(QWidget):
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
        self._saves: dict[ClickSession, click_files.Autosave] = {}
        self._marks: ClickMarks | None = None
        self._shown: list[ClickMarks] = []
        self._findings: list[plausible.Finding] = []
        self._doubts: list[Any] = []
        self._doubt: Any = None
        self._offered: Path | None = None
        self._turns = threads.Turns()
        self._watched: list[Any] = []
        self.models = ModelChooser("clicker")
        self.names = Chooser()
        self.names.setEditable(True)
        field = self.names.lineEdit()
        assert field is not None
        field.setPlaceholderText("organ, or any name")
        self.new_button = QPushButton("New object")
        self.button = QPushButton("Click")
        self.button.setCheckable(True)
        self.button.setStyleSheet(MAIN)
        self.tools = {name: QPushButton(name.capitalize()) for name in _HINTS}
        self._group = QButtonGroup(self)
        self.objects = ObjectList()
        self.hint, self.status = text(faint=True), text()
        self.ahead, self.odd = text(faint=True), text()
        self.repair_button = QPushButton("Repair")
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.doubt_button = QPushButton("Next doubt")
        self.automatic_button = QPushButton("From automatic")
        self.save_button, self.open_button = (
            QPushButton("Save session ..."),
            QPushButton("Open session ..."),
        )
        self.go_on_button = QPushButton()
        self.keys = text(faint=True)
        self._judging = QTimer(self)
        self._judging.setSingleShot(True)
        self._judging.timeout.connect(self._judge)
        self._lay_out()
        self.mouse = ClickMouse(
            *(viewer, self._told, self._draw, self._grab, self._drop, self._refuse)
        )
        self._connect()
        _parts.add(self)
        self._show()

    @property
    def on(self) -> bool:
        """Whether clicks in the viewer go to the active object."""
        return self.button.isChecked()

    @property
    def tool(self) -> str:
        """What the mouse does: "point", "scribble", "box" or "lasso"."""
        return self.mouse.tool

    @property
    def saving(self) -> click_files.Autosave | None:
        """What keeps the session."""
        return None if self.session is None else self._saves.get(self.session)

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

    def use_tool(self, name: str) -> None:
        """Switch clicking on with a tool."""
        self.mouse.tool = name
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
            "repair": self.repair_button,
            "undo": self.undo_button,
            "redo": self.redo_button,
        }
        buttons[name].click()

    # what a person does

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
        self.mouse.on = on
        if not on:
            self.close_marks()
        self.switched.emit(on)
        self._show()

    def _labels_before(self) -> Any:
        """Give the labels on which the scan's objects were found before, or None."""
        found = [one.layer for one in self._saves if one.scan is itself(self._scan)]
        if not found:
            return None
        self.labels_made.emit(found[-1])
        return found[-1]

    def _make_labels(self) -> Any:
        volume = layers.scan_volume(self._scan)
        assert volume is not None
        empty = np.zeros(volume.spatial_shape, np.uint8)
        made = volume.with_array(empty, label_names={})
        layer = add_layer(
            self._viewer, layers.to_layer(made, f"{self._scan.name} - objects", role="labels")
        )
        self.labels_made.emit(layer)
        return layer

    def _open_session(
        self, labels: Any, kept: click_files.Kept | None = None, path: Path | None = None
    ) -> None:
        """Go on with the session of the scan and these labels, or begin one."""
        phase, own = self._phase(), itself(labels)
        entry = self.models.entry
        if entry is None:
            raise SpadError("There is no model for clicks on such scans; train or import one.")
        if why := lacking(entry):
            raise SpadError(why)
        found = None
        for one in self._saves:
            if one.layer is own and one.scan is itself(self._scan) and one.phase == phase:
                found = one
        # one that has begun on the labels of a kept session knows nothing of its prompts
        if found is not None and (kept is not None or not self._is_current(found)):
            self._drop_session(found)
            found = None
        if found is None:
            going_on = None if kept is None else (kept.objects, kept.record.steps)
            found = ClickSession(self, self._scan, labels, entry, phase, going_on)
            save = click_files.Autosave(found, path)
            self._saves[found] = save
            save.ready.connect(lambda sha: self._offer(found, sha))
            save.refused.connect(notify.error)
            self._listen(found)
            if kept is not None:
                active = str(kept.record.settings.get("active") or "")
                found.active = active if active in found.objects else ""
        if found is not self.session:
            self._hide_offer()
        self.session = found
        self._doubts = []
        self._find_marks()
        found.look_ahead(self._index_shown())
        self._show()

    def _is_current(self, session: ClickSession) -> bool:
        try:
            session.check_scan()
        except SpadError:
            return False
        return True

    def _drop_session(self, session: ClickSession) -> None:
        saving = self._saves.pop(session, None)
        if saving is not None:
            saving.close()
        session.close()

    def _listen(self, session: ClickSession) -> None:
        def mine(call: Callable[..., None]) -> Callable[..., None]:
            return lambda *told: call(*told) if self.session is session else None

        session.changed.connect(mine(self._show))
        session.said.connect(mine(self.status.setText))
        session.refused.connect(self._refuse)
        session.previewed.connect(mine(self._preview))
        session.answered.connect(mine(self._answered))
        session.looked_ahead.connect(mine(self._show_ahead))
        session.doubted.connect(mine(self._doubted))
        session.failed.connect(self._failed)

    def _begin_object(self) -> None:
        """Begin the object of the name that is typed, or of a free one."""
        if not self.on:
            self.button.setChecked(True)
        if self.session is None:
            return
        typed = "_".join(self.names.currentText().split())
        if not typed or (typed == self.session.active and self.session.objects[typed].prompts):
            typed = self._free_name()
        self._choose(typed)

    def _free_name(self) -> str:
        assert self.session is not None
        n = 1
        while f"object_{n}" in self.session.objects:
            n += 1
        return f"object_{n}"

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
        known = organ_names(session.entry, session.volume.modality)
        if new and known and session.active not in known and not name.startswith("object_"):
            near = difflib.get_close_matches(session.active, known, 1)
            hint = f"; did you mean {readable(near[0])}?" if near else "."
            self.status.setText(
                f"The model knows no {readable(session.active)} by name, so the prompts alone say "
                f"what it is{hint}"
            )

    def _told(
        self, tool: str, world: list[np.ndarray], positive: bool, modifiers: set[str]
    ) -> None:
        """Take what the mouse did."""
        session = self.session
        if session is None:
            return
        try:
            self._check_phase()
            if self._is_other_model():
                return
            places = np.array([self._index(one) for one in world])
            prompt = self._prompt(tool, places, positive, modifiers)
            if not session.active:
                self._begin_object()
            session.give(prompt)
        except SpadError as error:
            self._refuse(str(error))

    def _prompt(self, tool: str, places: np.ndarray, positive: bool, modifiers: set[str]) -> Prompt:
        session = self.session
        assert session is not None
        turn = session.turned.voxel
        if tool == "point":
            prompt = Prompt("point", (turn(places[0]),), positive)
            prompt.check_inside(session.turned.shape)
            if positive:
                self._refuse_air(np.floor(places[0] + 0.5).astype(int))
            return prompt
        if tool == "scribble":
            return Prompt("scribble", tuple(turn(one) for one in drawn(places)), positive)
        if not positive:
            raise SpadError(
                f"A {tool} says where the object is and cannot take away; draw it with the left "
                "button, and take away with points or scribbles."
            )
        if tool == "box":
            ends = [places[0], places[-1]]
            name = session.active
            boxes = [one for one in session.objects[name].prompts if one.kind == "box"]
            if "Shift" in modifiers and name and boxes:
                ends += list(session.turned.index(boxes[-1].voxels))
            low, high = np.min(ends, axis=0), np.max(ends, axis=0)
            return Prompt("box", (turn(low), turn(high)))
        corners = list(dict.fromkeys(turn(one) for one in drawn(places)))
        if len(corners) < 3:
            raise SpadError("The lasso is too small; drag around the object.")
        return Prompt("lasso", tuple(corners))

    def _refuse_air(self, at: np.ndarray) -> None:
        """Refuse a click on the air around the body."""
        data = self._scan.data
        lead = (self._phase(),) if self._scan.ndim > 3 else ()
        plane = np.asarray(data[(*lead, int(at[0]))])
        if plausible.outside_body(plane, (int(at[1]), int(at[2]))):
            raise SpadError(
                "The click lies on the air around the body; click on the object itself."
            )

    def _check_phase(self) -> None:
        session = self.session
        if session is not None and self._phase() != session.phase:
            raise SpadError(
                f"The session is on time {session.phase} of the series, but time {self._phase()} "
                f"is shown; go back to time {session.phase}, or switch Click off and on to begin "
                "on this one."
            )

    def _check_model(self) -> None:
        self._is_other_model()

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
        self._drop_session(session)
        self._open_session(session.layer)
        return False

    def _grab(self, event: Any) -> int | None:
        session = self.session
        if self._marks is None or session is None or session.busy:
            return None
        number = self._marks.near(event)
        known = session.objects.get(session.active)
        return number if known is not None and number in range(len(known.prompts)) else None

    def _drop(self, number: int, world: np.ndarray) -> None:
        self._move_prompt(number, self._index(world))

    def _move_prompt(self, number: int, index: Any) -> None:
        session = self.session
        if session is None:
            return
        prompts = list(session.objects[session.active].prompts)
        try:
            self._check_phase()
            place = session.turned.voxel(index)
            prompts[number] = Prompt("point", (place,), prompts[number].positive)
            session.change_prompts(session.active, prompts)
        except (SpadError, IndexError) as error:
            self._refuse(str(error))
            self._show_marks()

    def _delete_prompts(self, numbers: list[int], name: str = "") -> None:
        session = self.session
        if session is None:
            return
        name = name or session.active
        kept = [p for n, p in enumerate(session.objects[name].prompts) if n not in numbers]
        try:
            session.change_prompts(name, kept)
        except SpadError as error:
            self._refuse(str(error))
            self._show_marks()

    def _add_point(self, index: Any) -> None:
        scale, start = self._scan.scale[-3:], self._scan.translate[-3:]
        self._told("point", [np.asarray(index) * scale + start], True, set())

    def _lock(self, name: str, on: bool) -> None:
        session = self.session
        if session is None:
            return
        label, fixed = session.objects[name].label, locks.locked(session.layer)
        locks.lock(session.layer, fixed | {label} if on else fixed - {label})
        self._show()

    def show_locks(self) -> None:
        """Show what is locked now."""
        self._show_objects()

    def _try(self, call: Callable[[], None]) -> None:
        """Do something; what keeps it from being done is said."""
        try:
            call()
        except SpadError as error:
            self._refuse(str(error))

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

    def _undo(self) -> None:
        if self.session is not None:
            self.session.undo()

    def _redo(self) -> None:
        if self.session is not None:
            self.session.redo()

    def _next_doubt(self) -> None:
        session = self.session
        if session is None:
            return
        if self._doubts:
            self._go_to_doubt()
            return
        whole = not session.active or not session.ml(session.active)
        self._try(lambda: session.find_doubts(None if whole else session.active))

    def _doubted(self, voxels: list[Any]) -> None:
        if not voxels:
            self.status.setText(
                "No doubtful place is left."
                if self.session is not None and self.session.features_ready
                else "Doubtful places are known once 'Looking ahead' has ended."
            )
            return
        self._doubts = list(voxels)
        self._go_to_doubt()

    def _go_to_doubt(self) -> None:
        session = self.session
        assert session is not None
        self._doubt = session.turned.index([self._doubts.pop(0)])[0]
        self._go_to(self._doubt)
        self._show_marks()
        left = f"{len(self._doubts)} more" if self._doubts else "the last one"
        self.status.setText(f"A doubtful place is marked in yellow ({left}).")

    def _go_to(self, index: np.ndarray) -> None:
        world = np.asarray(self._scan.scale)[-3:] * index + np.asarray(self._scan.translate)[-3:]
        view.go_to(self._viewer, world)

    # sessions in files

    def _offer(self, session: ClickSession, sha256: str) -> None:
        """Offer to go on with what was done on this scan before."""
        if session is not self.session or (session.log and session.log[-1]["step"] != "start"):
            return
        path = click_files.latest(sha256)
        saving = self._saves.get(session)
        if path is None or (saving is not None and saving.path == path):
            return
        try:
            count = len(read_record(path).steps)
        except SpadError:
            return
        if count:
            self._offered = path
            date = click_files.date_of(path)
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

    def open_session(self, path: Path) -> None:
        """Bring the objects, prompts and labels of a session back.

        Args:
            path: of its file.
        """
        scan = None if self._scan is None else layers.scan_volume(self._scan)
        if scan is None:
            notify.error("Open the session's scan first, and choose it above.")
            return
        phase = self._phase()
        self.status.setText(f"Opening {path.name} ...")

        def read() -> click_files.Kept:
            return click_files.read(path, click_files.one_time(scan, phase))

        def come(kept: click_files.Kept) -> None:
            self._try(lambda: self._bring_back(kept, scan))

        threads.run(read, come, self._refuse)

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
        own = kept.path if kept.path.parent == click_files.folder() else None
        volume = scan.with_array(kept.labels, label_names=dict(kept.record.names))
        before = self.session
        if before is not None and not before.log:
            layer = before.layer
            self._drop_session(before)
            layer.data = np.array(to_canonical(volume, depth_first=False)[0])
            for one in kept.objects.values():
                name_label(layer, one.label, one.name)
        else:
            data = layers.to_layer(volume, f"{self._scan.name} - objects", role="labels")
            layer = add_layer(self._viewer, data)
        self._viewer.layers.selection.active = self._scan
        self._open_session(layer, kept, own)
        self.labels_made.emit(layer)
        if not self.on:
            self.button.setChecked(True)
        self.status.setText(
            f"{len(kept.objects)} objects are back, with {len(kept.record.steps)} steps."
        )
        self._show()

    def _ask_to_save(self) -> None:
        saving = self.saving
        if saving is None:
            return
        path, _ = QFileDialog.getSaveFileName(
            self,
            "Save the session",
            "clicks" + click_files.SUFFIX,
            _FILTER,
        )
        if not path:
            return
        target = Path(path if path.endswith(".json") else path + click_files.SUFFIX)
        self._try(lambda: self._save_to(saving, target))

    def _save_to(self, saving: click_files.Autosave, path: Path) -> None:
        saving.save_to(path)
        notify.info(f"Saved {path}; 'spad replay' makes its labels again.")

    def _ask_to_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Open a session",
            str(click_files.folder()),
            _FILTER,
        )
        if path:
            self.open_session(Path(path))

    # what is odd

    def _judge(self) -> None:
        session = self.session
        if session is None or session.active not in session.objects:
            self._show_odd("", [])
            return
        name = session.active
        part = session.session.part(name)
        turn = self._turns.next()
        if part is None:
            self._show_odd(name, [])
            return
        box = session.turned.region(part.region)
        mask = np.array(session.turned.box(part.mask))
        shape = tuple(session.turned.shape[axis] for axis in session.turned.order)
        lead = (session.phase,) if self._scan.ndim > 3 else ()
        plane = np.asarray(self._scan.data[(*lead, (box[0].start + box[0].stop) // 2)])
        ml = float(np.prod(session.volume.spacing)) / 1000

        def work() -> list[plausible.Finding]:
            middle = plausible.middle_of_body(plane)
            return plausible.judge(name, mask, box, shape, ml, middle)

        def done(found: list[plausible.Finding]) -> None:
            if turn == self._turns.now:
                self._box = box
                self._show_odd(name, found)

        threads.run(work, done, self._refuse)

    def _show_odd(self, name: str, found: list[plausible.Finding]) -> None:
        self._findings = found
        words = "; ".join(one.words for one in found)
        self.odd.setText(f"{readable(name)}: {words}." if words else "")
        self.odd.setVisible(bool(words))
        first = next((one for one in found if one.repair), None)
        self.repair_button.setVisible(first is not None)
        if first is not None:
            self.repair_button.setText(self._with_key(first.repair, "repair"))

    def _repair(self) -> None:
        session = self.session
        finding = next((one for one in self._findings if one.repair), None)
        if session is None or finding is None:
            return
        name = session.active
        if finding.mask is not None:
            label = session.objects[name].label
            if name in session.locked:
                self._refuse(f"{readable(name)} is locked; unlock it in the list to change it.")
                return
            session.edit(f"{finding.repair} of {readable(name)}", label, self._box, finding.mask)
        else:
            self._try(lambda: session.swap(name, finding.other))
            session.choose(finding.other)

    # what is shown

    def _lay_out(self) -> None:
        layout = column(self, bare=True)
        layout.setSpacing(4)
        form = Form()
        form.add("Clicks by", self.models)
        names = row(self.names, self.new_button)
        names.setStretch(0, 1)
        form.add("Object", names)
        layout.addLayout(form)
        layout.addWidget(self.go_on_button)
        self.go_on_button.hide()
        layout.addWidget(self.button)
        tools = row(*self.tools.values())
        for button in self.tools.values():
            button.setCheckable(True)
            self._group.addButton(button)
        self.tools["point"].setChecked(True)
        layout.addLayout(tools)
        for widget in (self.hint, self.ahead, self.status, self.objects):
            layout.addWidget(widget)
        self._lay_out_below(layout)

    def _lay_out_below(self, layout: QVBoxLayout) -> None:
        layout.addWidget(self.odd)
        layout.addWidget(self.repair_button)
        layout.addLayout(row(self.undo_button, self.redo_button, self.doubt_button))
        layout.addLayout(row(self.automatic_button, self.save_button, self.open_button))
        layout.addWidget(self.keys)

    def _connect(self) -> None:
        self.button.toggled.connect(self._switch)
        for name, button in self.tools.items():
            button.clicked.connect(lambda _=False, name=name: self.use_tool(name))
        self.new_button.clicked.connect(self._begin_object)
        self.models.currentIndexChanged.connect(self._model_chosen)
        self.objects.picked.connect(self._choose)
        self.objects.locked.connect(self._lock)
        self.objects.removed.connect(lambda name, n: self._delete_prompts([n], name))
        self.objects.erased.connect(self._erase)
        self.objects.shown.connect(self._show_prompt)
        self.undo_button.clicked.connect(self._undo)
        self.redo_button.clicked.connect(self._redo)
        self.doubt_button.clicked.connect(self._next_doubt)
        self.repair_button.clicked.connect(self._repair)
        self.automatic_button.clicked.connect(
            lambda: self._try(self.session.start_automatic) if self.session is not None else None
        )
        self.save_button.clicked.connect(self._ask_to_save)
        self.open_button.clicked.connect(self._ask_to_open)
        self.go_on_button.clicked.connect(self._go_on)
        follow(self, self._viewer.layers.events.removed, self._layer_removed)
        mouse, saves, turns, shown = self.mouse, self._saves, self._turns, self._shown

        def end() -> None:
            mouse.stop()
            turns.next()
            for session, saving in saves.items():
                saving.close()
                session.close()
            saves.clear()
            for marks in shown:
                marks.close()

        self.destroyed.connect(end)

    def close_marks(self) -> None:
        """Take the marks out of the viewer."""
        marks, self._marks = self._marks, None
        self._shown.clear()
        if marks is not None:
            marks.close()

    def _model_chosen(self, index: int = 0) -> None:
        self._offer_names()
        self._try(self._check_model)
        self._show()

    def _offer_names(self) -> None:
        entry, volume = self.models.entry, None
        if self._scan is not None:
            volume = layers.scan_volume(self._scan)
        typed = self.names.currentText()
        known = organ_names(entry, volume.modality if volume else None) if entry else []
        self.names.clear()
        self.names.addItems([readable(one) for one in known])
        self.names.setEditText(typed)

    def _find_marks(self) -> None:
        session = self.session
        if session is None:
            return
        self.close_marks()
        self._marks = ClickMarks(self._viewer, self._scan, session.turned)
        self._shown.append(self._marks)
        self._marks.moved.connect(self._move_prompt)
        self._marks.deleted.connect(self._delete_prompts)
        self._marks.added.connect(self._add_point)

    def _layer_removed(self, event: Any) -> None:
        if self._marks is not None and self._marks.is_ours(event.value) and self._marks.gone:
            self.button.setChecked(False)
        for one in [s for s in self._saves if itself(event.value) in (s.layer, s.scan)]:
            self._drop_session(one)
            if one is self.session:
                self.session = None
                self.button.setChecked(False)
        self._show()

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

    def _show(self) -> None:
        """Show the session as it is."""
        why, session = self._why_not(), self.session
        self.button.setEnabled(not why or self.on)
        self.button.setToolTip(why)
        self.button.setText(
            self._with_key("Clicking: the mouse finds objects" if self.on else "Click", "point")
        )
        for name, button in self.tools.items():
            button.setEnabled(not why)
            button.setToolTip(f"{_HINTS[name]} Key: {key_of(click_action(name)) or 'none'}")
        self.new_button.setEnabled(not why)
        self.hint.setText(why or (f"{_HINTS[self.tool]} {_IN_PLANES}" if self.on else ""))
        self.hint.setVisible(bool(self.hint.text()))
        has = session is not None
        for button in (self.undo_button, self.redo_button, self.doubt_button, self.save_button):
            button.setEnabled(has)
        self.open_button.setEnabled(self._scan is not None)
        self.automatic_button.setEnabled(has and bool(session and session.active))
        self._show_keys()
        self._show_objects()
        if session is None:
            return
        undo, redo = session.history.undo_text, session.history.redo_text
        self.undo_button.setEnabled(bool(undo) or session.busy)
        self.redo_button.setEnabled(bool(redo))
        self.undo_button.setToolTip(f"Undo: {undo}" if undo else "Nothing to undo.")
        self.redo_button.setToolTip(f"Redo: {redo}" if redo else "Nothing to redo.")
        if session.busy:
            self.status.setText("Looking ..." if session.waiting < 2 else "Looking again ...")
        self._show_marks()
        self._judging.start(_JUDGE_MS)

    def _show_objects(self) -> None:
        session = self.session
        if session is None:
            self.objects.clear()
            self.objects.setVisible(False)
            return
        self.objects.setVisible(True)
        objects = session.objects
        self.objects.show_objects(
            objects,
            {name: session.ml(name) for name in objects},
            {name: session.layer.get_color(one.label) for name, one in objects.items()},
            session.locked,
            session.active,
        )

    def _show_marks(self) -> None:
        session = self.session
        if self._marks is None or session is None or self._marks.gone:
            return
        known = session.objects.get(session.active)
        shown = () if known is None else (*known.prompts, *session.unanswered(session.active))
        self._marks.show(shown, self._doubt if self._doubt is not None else None)

    def _show_keys(self) -> None:
        words = {
            "point": "point",
            "scribble": "scribble",
            "box": "box",
            "lasso": "lasso",
            "new_object": "new object",
            "doubt": "next doubt",
            "repair": "repair",
            "undo": "undo",
            "redo": "redo",
        }
        pairs = [(key_of(one.action), words[one.action.split("_", 1)[1]]) for one in CLICK_KEYS]
        told = ", ".join(f"{key} {what}" for key, what in pairs if key)
        self.keys.setText(
            f"Keys, while the scan is selected: {told}. Preferences > Shortcuts changes them."
        )

    def _with_key(self, words: str, name: str) -> str:
        key = key_of(click_action(name))
        return f"{words} ({key})" if key else words

    def _show_ahead(self, words: str) -> None:
        self.ahead.setText(f"{words}; clicks already work" if words else "")
        self.ahead.setVisible(bool(words))

    def _draw(self, tool: str, world: list[np.ndarray]) -> None:
        if self._marks is not None and not self._marks.gone:
            self._marks.draw(tool, world)

    def _preview(self, told: Any) -> None:
        session = self.session
        if self._marks is None or session is None:
            return
        color = None if told is None else session.layer.get_color(told[0])
        self._marks.show_first(told, color)

    def _answered(self, seconds: float, worker: float) -> None:
        self._hide_offer()
        self._doubt = None
        self.status.setText(f"Click answered in {seconds:.2f} s ({worker:.2f} s in the worker).")
        self._show_marks()

    def _refuse(self, sentence: str) -> None:
        self.status.setText(sentence)
        notify.error(sentence)

    def _failed(self, sentence: str, again: Callable[[], None]) -> None:
        self.status.setText(sentence)
        notify.offer(sentence, "Click again", again)

    def _phase(self) -> int:
        """The time of the series that is shown."""
        scan = self._scan
        if scan is None or scan.ndim < 4:
            return 0
        at = scan.world_to_data(self._viewer.dims.point[-scan.ndim :])[0]
        return int(np.clip(round(float(at)), 0, scan.data.shape[0] - 1))

    def _index(self, world: np.ndarray) -> np.ndarray:
        """Bring a place of the viewer to the last three axes of the scan's layer."""
        scan = self._scan
        return np.asarray(scan.world_to_data(world[-scan.ndim :]), float)[-3:]

    def _index_shown(self) -> np.ndarray:
        shape = np.array(self._scan.data.shape[-3:])
        at = self._index(np.array(self._viewer.dims.point, float))
        if self._viewer.dims.ndisplay == 2:
            # where the camera looks, along the axes that are shown
            centre = np.array(self._viewer.scene.camera.center)[-2:]
            world = np.array(self._viewer.dims.point, float)
            world[list(self._viewer.dims.displayed)] = centre
            at = self._index(world)
        return np.asarray(np.clip(at, 0, shape - 1))


def press(viewer: Any, name: str) -> bool:
    """Do what a key does in a viewer; False where it has no Click part."""
    own = getattr(viewer, "__wrapped__", viewer)
    for one in list(_parts):
        if getattr(one._viewer, "__wrapped__", one._viewer) is own:
            one.press(name)
            return True
    return False
