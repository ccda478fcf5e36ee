"""The widgets of the Click part, and how a session is shown in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QButtonGroup, QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_spad import click_files
from napari_spad.keys import CLICK_KEYS, click_action, key_of, with_click_key
from napari_spad.widgets.choosers import ModelChooser
from napari_spad.widgets.forms import MAIN, Chooser, Form, column, row, text
from napari_spad.widgets.objects import ObjectList
from napari_spad.widgets.odd_row import OddRow
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari_spad.click_session import ClickSession

_FILTER = f"Session (*{click_files.SUFFIX} *.json)"
_HINTS = {
    "point": "Left click adds, right click or Alt+click takes away; drag a mark to move it.",
    "scribble": "Drag to draw on the object; right or Alt+drag draws what does not belong.",
    "box": "Drag a box on a slice; Shift+drag on another slice makes it reach from there to here. "
    "The object stays in it until you click.",
    "lasso": "Drag around the object on a slice; it stays in it there until you click.",
}
_IN_PLANES = "The same works in Three planes; there, Ctrl+click moves only the cross."


class ClickForm(QWidget):
    """Buttons, names, the list of objects and what is said of them; what they do comes on top."""

    def __init__(self) -> None:
        super().__init__()
        self.models = ModelChooser("clicker")
        self.names = Chooser()
        self.names.setEditable(True)
        field = self.names.lineEdit()
        assert field is not None
        field.setPlaceholderText("organ, or any name")
        self.new_button = QPushButton("New object")
        self.go_on_button = QPushButton()
        self.button = QPushButton("Click")
        self.button.setCheckable(True)
        self.button.setStyleSheet(MAIN)
        self.tools = {name: QPushButton(name.capitalize()) for name in _HINTS}
        self._group = QButtonGroup(self)
        self.hint, self.ahead, self.status = text(faint=True), text(faint=True), text()
        self.objects = ObjectList()
        self.odd = OddRow()
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.doubt_button = QPushButton("Next doubt")
        self.automatic_button = QPushButton("From automatic")
        self.save_button = QPushButton("Save session ...")
        self.open_button = QPushButton("Open session ...")
        self.keys = text(faint=True)
        self._lay_out()

    @property
    def on(self) -> bool:
        """Whether clicks in the viewer go to the active object."""
        return self.button.isChecked()

    def offer_names(self, known: Iterable[str]) -> None:
        """Offer the names of organs; what is typed stays."""
        typed = self.names.currentText()
        self.names.clear()
        self.names.addItems([readable(one) for one in known])
        self.names.setEditText(typed)

    def show_switch(self, why_not: str, tool: str) -> None:
        """Show whether clicking is on.

        Args:
            why_not: why it cannot be, "" if it can.
            tool: what the mouse does.
        """
        self.button.setEnabled(not why_not or self.on)
        self.button.setToolTip(why_not)
        self.button.setText(
            with_click_key("Clicking: the mouse finds objects" if self.on else "Click", "point")
        )
        for name, button in self.tools.items():
            button.setEnabled(not why_not)
            button.setToolTip(f"{_HINTS[name]} Key: {key_of(click_action(name)) or 'none'}")
        self.new_button.setEnabled(not why_not)
        self.hint.setText(why_not or (f"{_HINTS[tool]} {_IN_PLANES}" if self.on else ""))
        self.hint.setVisible(bool(self.hint.text()))
        self._show_keys()

    def show_session(self, session: ClickSession | None) -> None:
        """Show what can be done in a session, and its objects."""
        has = session is not None
        for button in (self.undo_button, self.redo_button, self.doubt_button, self.save_button):
            button.setEnabled(has)
        self.automatic_button.setEnabled(has and bool(session and session.active))
        self.show_objects(session)
        if session is None:
            return
        undo, redo = session.history.undo_text, session.history.redo_text
        self.undo_button.setEnabled(bool(undo) or session.busy)
        self.redo_button.setEnabled(bool(redo))
        self.undo_button.setToolTip(f"Undo: {undo}" if undo else "Nothing to undo.")
        self.redo_button.setToolTip(f"Redo: {redo}" if redo else "Nothing to redo.")
        if session.busy:
            again = session.answers.waiting > 1
            self.status.setText("Looking again ..." if again else "Looking ...")

    def show_objects(self, session: ClickSession | None) -> None:
        """Fill the list of objects."""
        self.objects.setVisible(session is not None)
        if session is None:
            self.objects.clear()
            return
        objects = session.objects
        self.objects.show_objects(
            {name: session.prompts_of(name) for name in objects},
            {name: session.ml(name) for name in objects},
            {name: session.layer.get_color(one.label) for name, one in objects.items()},
            session.locked,
            session.active,
        )

    def show_ahead(self, words: str) -> None:
        """Say what looking ahead does; "" hides it."""
        self.ahead.setText(f"{words}; clicks already work" if words else "")
        self.ahead.setVisible(bool(words))

    def ask_where_to_save(self) -> Path | None:
        """Ask where the session is to be saved; None for nowhere."""
        name = f"clicks{click_files.SUFFIX}"
        path, _ = QFileDialog.getSaveFileName(self, "Save the session", name, _FILTER)
        if not path:
            return None
        return Path(path if path.endswith(".json") else path + click_files.SUFFIX)

    def ask_what_to_open(self) -> Path | None:
        """Ask which session is to be opened; None for none."""
        folder = str(click_files.folder())
        path, _ = QFileDialog.getOpenFileName(self, "Open a session", folder, _FILTER)
        return Path(path) if path else None

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
        layout.addLayout(row(self.undo_button, self.redo_button, self.doubt_button))
        layout.addLayout(row(self.automatic_button, self.save_button, self.open_button))
        layout.addWidget(self.keys)

    def _show_keys(self) -> None:
        pairs = [(key_of(one.action), one.action.split("_", 1)[1]) for one in CLICK_KEYS]
        told = ", ".join(f"{key} {_KEY_WORDS.get(name, name)}" for key, name in pairs if key)
        self.keys.setText(
            f"Keys, while the scan is selected: {told}. Preferences > Shortcuts changes them."
        )


_KEY_WORDS = {"new_object": "new object", "doubt": "next doubt"}
