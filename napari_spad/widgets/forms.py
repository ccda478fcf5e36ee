"""How docks are laid out: compact columns, forms, texts that wrap."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDockWidget,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QMainWindow,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

FAINT = "#858585"
"""Grey that can be read on napari's dark and light backgrounds; its themes set no palette."""

MAIN = "QPushButton { font-weight: bold; padding: 7px; }"
"""The look of a button that a person is to click next."""

_WIDTH = 330


def text(words: str = "", *, faint: bool = False) -> QLabel:
    """Make a label that wraps and can be copied from."""
    label = QLabel(words)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    if faint:
        label.setStyleSheet(f"QLabel {{ color: {FAINT}; font-size: 11px; }}")
    return label


def line() -> QFrame:
    """Make a thin line between two parts of a dock."""
    frame = QFrame()
    frame.setFrameShape(QFrame.Shape.HLine)
    return frame


def column(widget: QWidget, *, bare: bool = False) -> QVBoxLayout:
    """Give a dock, which scrolls where it is too low, or a bare part of one its vertical layout."""
    if bare:
        layout = QVBoxLayout(widget)
        layout.setContentsMargins(0, 0, 0, 0)
    else:
        widget.setMinimumWidth(_WIDTH)
        layout = QVBoxLayout(_scrolling(widget))
        layout.setContentsMargins(8, 6, 8, 6)
    layout.setSpacing(6)
    return layout


def share_height(widget: QWidget) -> None:
    """Make a dock and those above and below it equally high; napari squeezes the older ones."""
    window, dock = widget.window(), widget.parentWidget()
    if not isinstance(window, QMainWindow) or not isinstance(dock, QDockWidget):
        return
    area = window.dockWidgetArea(dock)
    docks = [
        one
        for one in window.findChildren(QDockWidget)
        if one.isVisible() and not one.isFloating() and window.dockWidgetArea(one) == area
    ]
    window.resizeDocks(docks, [1] * len(docks), Qt.Orientation.Vertical)


def _scrolling(widget: QWidget) -> QWidget:
    area, inside = QScrollArea(), QWidget()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(inside)
    outside = QVBoxLayout(widget)
    outside.setContentsMargins(0, 0, 0, 0)
    outside.addWidget(area)
    return inside


class Form(QGridLayout):
    """Names on the left, fields on the right, as high as their wrapped texts need."""

    def __init__(self) -> None:
        super().__init__()
        self.setHorizontalSpacing(8)
        self.setVerticalSpacing(5)
        self.setColumnStretch(1, 1)

    def add(self, name: str, field: QWidget | QLayout) -> None:
        """Add a row."""
        at = self.rowCount()
        if name:
            side = Qt.AlignmentFlag.AlignTop
            if not isinstance(field, QLabel):
                side = Qt.AlignmentFlag.AlignVCenter
            self.addWidget(QLabel(name), at, 0, side)
        if isinstance(field, QLayout):
            self.addLayout(field, at, 1)
        else:
            self.addWidget(field, at, 1)


class Section(QWidget):
    """A part of a dock under a heading that folds and unfolds it.

    Args:
        title: the heading.
        body: what is folded.
        unfolded: whether it is open at first.
    """

    def __init__(self, title: str, body: QWidget, *, unfolded: bool = True) -> None:
        super().__init__()
        self.heading = QToolButton()
        self.heading.setText(title)
        self.heading.setCheckable(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.heading.setStyleSheet("QToolButton { font-weight: bold; text-align: left; }")
        self.body = body
        layout = column(self, bare=True)
        layout.setSpacing(3)
        layout.addWidget(self.heading)
        layout.addWidget(body)
        self.heading.toggled.connect(self._fold)
        self.heading.setChecked(unfolded)
        self._fold(unfolded)

    @property
    def unfolded(self) -> bool:
        """Whether its body is shown."""
        return self.heading.isChecked()

    def unfold(self, unfolded: bool = True) -> None:
        """Show its body, or fold it away."""
        self.heading.setChecked(unfolded)

    def _fold(self, unfolded: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow
        self.heading.setArrowType(arrow)
        self.body.setVisible(unfolded)


class Chooser(QComboBox):
    """A choice that leaves Ctrl and a key to the viewer: a click leaves the keyboard here."""

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            event.ignore()
            return
        super().keyPressEvent(event)


def row(*widgets: QWidget) -> QHBoxLayout:
    """Put widgets side by side."""
    layout = QHBoxLayout()
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    return layout
