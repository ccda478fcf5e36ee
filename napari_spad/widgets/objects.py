"""The list of objects that are clicked on, and of each object's prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import QPoint, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QKeyEvent, QPixmap
from qtpy.QtWidgets import QHeaderView, QMenu, QTreeWidget, QTreeWidgetItem

from napari_spad.widgets import marks
from napari_spad.widgets.organs import number
from spad.prompts.prompt import Prompt
from spad.volumes.colors import readable

NAME, ML, PROMPTS, LOCK = range(4)
_LOCK_WIDTH = 24
_FEWEST, _MOST, _ROW = 2, 7, 20
_SIGNS = {True: "+", False: "\N{MINUS SIGN}"}


class ObjectList(QTreeWidget):
    """Objects with colour, volume, number of prompts and lock; unfolded, their prompts."""

    picked = Signal(str)
    """A person has chosen an object."""
    locked = Signal(str, bool)
    """A person has locked or unlocked an object."""
    removed = Signal(str, int)
    """A person wants a prompt of an object deleted."""
    shown = Signal(str, int)
    """A person wants to see where a prompt is."""
    erased = Signal(str)
    """A person wants an object emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.setColumnCount(4)
        self.setHeaderLabels(["Object", "mL", "prompts", ""])
        header = self.header()
        assert header is not None
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(LOCK, QHeaderView.ResizeMode.Fixed)
        self.setColumnWidth(LOCK, _LOCK_WIDTH)
        self._told: Any = None
        self.setIndentation(14)
        self.setUniformRowHeights(True)
        self._locks = marks.locks(self)
        self.setItemDelegateForColumn(LOCK, self._locks)
        self.itemExpanded.connect(self._fit)
        self.itemCollapsed.connect(self._fit)
        self._fit()
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setToolTip(
            "Click an object to go on with it; unfold it to see its prompts: Delete removes the "
            "selected prompt, or empties the selected object"
        )
        self.customContextMenuRequested.connect(self._menu)
        self.itemClicked.connect(self._clicked)
        self.itemChanged.connect(self._changed)

    def show_objects(
        self,
        prompts: Mapping[str, Sequence[Prompt]],
        volumes: Mapping[str, float],
        colors: Mapping[str, Any],
        locked: set[str],
        active: str,
    ) -> None:
        """Fill the list; what is unfolded stays so, and a prompt that is chosen stays chosen.

        Args:
            prompts: those of each object, by its name.
            volumes: in mL.
            colors: (red, green, blue, alpha), each 0 to 1.
            locked: names.
            active: the one that clicks go to.
        """
        told = (
            {name: [_words(one) for one in its] for name, its in prompts.items()},
            {name: number(ml, 1) for name, ml in volumes.items()},
            {name: tuple(map(float, color)) for name, color in colors.items()},
            set(locked),
            active,
        )
        if told == self._told:
            return
        same = self._told is not None and self._told[-1] == active
        self._told = told
        none, chosen = same and self.currentItem() is None, self._chosen()
        rows = [self.topLevelItem(n) for n in range(self.topLevelItemCount())]
        unfolded = {row.text(NAME) for row in rows if row is not None and row.isExpanded()}
        scrolled = self.verticalScrollBar()
        at = 0 if scrolled is None else scrolled.value()
        self.blockSignals(True)
        super().clear()
        for name, its in prompts.items():
            item = QTreeWidgetItem(
                [readable(name), number(volumes.get(name), 1), str(len(its) or "")]
            )
            item.setData(NAME, Qt.ItemDataRole.UserRole, name)
            item.setIcon(NAME, _swatch(colors[name]))
            item.setCheckState(
                LOCK, Qt.CheckState.Checked if name in locked else Qt.CheckState.Unchecked
            )
            item.setToolTip(LOCK, "Locked: neither clicks nor painting change it")
            for column in (ML, PROMPTS):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            for index, prompt in enumerate(its):
                child = QTreeWidgetItem([_words(prompt)])
                child.setData(NAME, Qt.ItemDataRole.UserRole, name)
                child.setData(ML, Qt.ItemDataRole.UserRole, index)
                item.addChild(child)
            font = item.font(NAME)
            font.setBold(name == active)
            item.setFont(NAME, font)
            self.addTopLevelItem(item)
            item.setExpanded(item.text(NAME) in unfolded)
            if name == active and not none:
                self._choose_again(item, chosen)
        self._fit()
        if scrolled is not None:
            scrolled.setValue(at)
        self.blockSignals(False)

    def clear(self) -> None:
        """Show no object."""
        self._told = None
        super().clear()

    def _chosen(self) -> tuple[str, int] | None:
        """Give the prompt whose row is chosen, or None."""
        item = self.currentItem()
        return None if item is None or item.parent() is None else _prompt_of(item)

    def _choose_again(self, item: QTreeWidgetItem, chosen: tuple[str, int] | None) -> None:
        """Choose the prompt that was chosen, or the one in its place; else the object.

        Once the last prompt is deleted nothing is chosen: Delete would then empty the object.
        """
        name = item.data(NAME, Qt.ItemDataRole.UserRole)
        if chosen is None or chosen[0] != name:
            self.setCurrentItem(item)
        elif item.childCount():
            self.setCurrentItem(item.child(min(chosen[1], item.childCount() - 1)))
        else:
            self.setCurrentItem(None)

    def row(self, name: str) -> QTreeWidgetItem | None:
        """Give an object's row."""
        for n in range(self.topLevelItemCount()):
            item = self.topLevelItem(n)
            if item is not None and item.data(NAME, Qt.ItemDataRole.UserRole) == name:
                return item
        return None

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        item = self.currentItem()
        if event is not None and event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            if item is None:
                return
            if item.parent() is None:
                name = item.data(NAME, Qt.ItemDataRole.UserRole)
                _soon(lambda: self.erased.emit(name))
            else:
                told = _prompt_of(item)
                _soon(lambda: self.removed.emit(*told))
            return
        super().keyPressEvent(event)

    def _fit(self, item: object = None) -> None:
        """Be as high as the rows that are shown, up to a few."""
        rows = [self.topLevelItem(n) for n in range(self.topLevelItemCount())]
        count = len(rows)
        count += sum(row.childCount() for row in rows if row is not None and row.isExpanded())
        self.setFixedHeight(26 + _ROW * min(max(count, _FEWEST), _MOST))

    def _clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == LOCK and item.parent() is None:
            return
        name = item.data(NAME, Qt.ItemDataRole.UserRole)
        prompt = None if item.parent() is None else _prompt_of(item)

        def tell() -> None:
            self.picked.emit(name)
            if prompt is not None:
                self.shown.emit(*prompt)

        _soon(tell)

    def _changed(self, item: QTreeWidgetItem, column: int) -> None:
        if column == LOCK and item.parent() is None:
            name = item.data(NAME, Qt.ItemDataRole.UserRole)
            on = item.checkState(LOCK) == Qt.CheckState.Checked
            _soon(lambda: self.locked.emit(name, on))

    def _menu(self, place: QPoint) -> None:
        item = self.itemAt(place)
        if item is None:
            return
        menu = QMenu(self)
        name = item.data(NAME, Qt.ItemDataRole.UserRole)
        if item.parent() is not None:
            told = _prompt_of(item)
            menu.addAction("Delete this prompt", lambda: self.removed.emit(*told))
        menu.addAction(f"Empty {readable(name)}", lambda: self.erased.emit(name))
        menu.exec(self.mapToGlobal(place))


def _soon(call: Callable[[], None]) -> None:
    """Tell once Qt is done with the row, which may be gone after that."""
    QTimer.singleShot(0, call)


def _prompt_of(item: QTreeWidgetItem) -> tuple[str, int]:
    name = item.data(NAME, Qt.ItemDataRole.UserRole)
    return name, int(item.data(ML, Qt.ItemDataRole.UserRole))


def _words(prompt: Prompt) -> str:
    sign = _SIGNS[prompt.positive]
    if prompt.kind == "point":
        return f"{sign} point at {', '.join(map(str, prompt.voxels[0]))}"
    if prompt.kind == "scribble":
        return f"{sign} scribble of {len(prompt.voxels)} voxels"
    return f"{sign} {prompt.kind}"


def _swatch(color: Any) -> QIcon:
    square = QPixmap(12, 12)
    square.fill(QColor.fromRgbF(*(float(channel) for channel in color)))
    return QIcon(square)
