"""What can be done with the selected layer: turn it into image or labels, and save it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QPushButton, QSizePolicy, QWidget

from napari_spad import keys, layers
from napari_spad.widgets import saving
from napari_spad.widgets.forms import column, row
from napari_spad.widgets.notices import follow

if TYPE_CHECKING:
    from napari import Viewer

_SHORT = 15


class SwitchRow(QWidget):
    """Follows the layer that is selected in napari's list."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._watched: list[Callable[[], None]] = []
        self.button = QPushButton()
        self.button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.button.clicked.connect(lambda: keys.switch_labels(viewer))
        self.save_button = QPushButton("Save ...")
        self.save_button.clicked.connect(self._save)
        buttons = row(self.button, self.save_button)
        buttons.setStretch(0, 1)
        column(self, bare=True).addLayout(buttons)
        follow(self, viewer.layers.selection.events.active, self._refresh)
        self._refresh()

    def _save(self) -> None:
        layer = self._viewer.layers.selection.active
        if layer is not None:
            saving.ask_and_save(self, layer)

    def _refresh(self, event: Any = None) -> None:
        layer = self._viewer.layers.selection.active
        while self._watched:
            self._watched.pop()()
        if layer is not None:
            self._watched.append(follow(self, layer.events.name, self._refresh))
        is_colours = layer is not None and layers.is_colours(layer)
        can = layer is not None and (layers.is_labels(layer) or layers.is_image(layer))
        self.setVisible(can or is_colours)
        self.button.setVisible(can)
        if not (can or is_colours):
            return
        name = str(layer.name)
        name = name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"
        other = "an image" if layers.is_labels(layer) else "labels"
        self.button.setText(f"Show “{name}” as {other}")
        self.save_button.setToolTip(f"Save “{name}” on the grid of its scan, and prove it")
        key = keys.key_of(keys.TOGGLE)
        self.button.setToolTip(
            f"Turn the selected layer into {other}, with the same voxels, place and name"
            + (f" ({key})" if key else "")
        )
