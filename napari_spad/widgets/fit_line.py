"""A line that says which open scan does not lie over the chosen one, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QPushButton, QSizePolicy, QWidget

from napari_spad import layers, notify, overlap
from napari_spad.widgets import threads
from napari_spad.widgets.choosers import is_scan
from napari_spad.widgets.forms import column, text
from napari_spad.widgets.notices import follow
from spad.errors import SpadError

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume

_SHORT = 14


class FitLine(QWidget):
    """Hidden as long as all visible scans lie truly over the chosen one.

    The new layer comes with `resampled`.
    """

    resampled = Signal(object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Any = None
        self._others: list[Any] = []
        self._working = False
        self.sentence = text()
        self.others = QComboBox()
        self.others.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.others.setMinimumContentsLength(8)
        self.button = QPushButton()
        self.button.clicked.connect(self.resample)
        self.button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.others.currentIndexChanged.connect(self._name)
        layout = column(self, bare=True)
        layout.addWidget(self.sentence)
        layout.addWidget(self.others)
        layout.addWidget(self.button)
        self.hide()
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            follow(self, event, self._refresh)
        follow(self, viewer.layers.events.inserted, self._watch)
        for layer in viewer.layers:
            follow(self, layer.events.visible, self._refresh)

    def show_scan(self, layer: Any) -> None:
        """Compare the other scans with this one; None compares nothing."""
        self._layer = layer
        self._refresh()

    def resample(self) -> None:
        """Put the chosen scan onto the grid of the other one, in a thread."""
        layer, onto = self._layer, self._onto
        if layer is None or onto is None or self._working:
            return
        try:
            work = overlap.resampler(layer, onto)
        except SpadError as error:
            notify.error(str(error))
            return
        self._set_working(True)
        name = f"{layer.name} on {onto.name}"
        limits = tuple(layer.contrast_limits) if layers.is_image(layer) else None

        def done(volume: Volume) -> None:
            self._set_working(False)
            self._add(volume, name, layer, limits)

        def refused(sentence: str) -> None:
            self._set_working(False)
            notify.error(sentence)

        threads.run(work, done, refused)

    @property
    def _onto(self) -> Any:
        index = self.others.currentIndex()
        return self._others[index] if 0 <= index < len(self._others) else None

    def _add(self, volume: Volume, name: str, layer: Any, limits: Any) -> None:
        from napari.layers import Layer

        data, kwargs, kind = layers.to_layer(volume, name)
        if limits is not None and kind == "image":
            kwargs |= {"contrast_limits": limits, "colormap": layer.colormap.name}
        made = self._viewer.add_layer(Layer.create(data, kwargs, kind))
        layer.visible = False
        self.resampled.emit(made)

    def _set_working(self, on: bool) -> None:
        self._working = on
        self._refresh()

    def _watch(self, event: Any) -> None:
        follow(self, event.value.events.visible, self._refresh)

    def _refresh(self, event: Any = None) -> None:
        layer = self._layer
        there = layer is not None and layer in self._viewer.layers and layer.visible
        scans = [other for other in self._viewer.layers if is_scan(other)] if there else []
        self._others = overlap.misfits(layer, scans) if there else []
        self.others.blockSignals(True)
        self.others.clear()
        self.others.addItems([other.name for other in self._others])
        self.others.blockSignals(False)
        self.others.setVisible(len(self._others) > 1)
        self._name()
        self.setVisible(bool(self._others) or self._working)

    def _name(self, index: int = 0) -> None:
        onto = self._onto
        if self._working:
            self.button.setText("Resampling ...")
        elif onto is not None:
            names = " and ".join(f"“{other.name}”" for other in self._others)
            self.sentence.setText(
                f"“{self._layer.name}” is tilted against {names}: here they do not lie truly over "
                "each other."
            )
            self.button.setText(f"Resample {_short(self._layer)} onto {_short(onto)}")
            self.button.setToolTip(
                f"Make a new layer of “{self._layer.name}” on the voxels of “{onto.name}”; "
                "the original stays as it is, hidden"
            )
        self.button.setEnabled(onto is not None and not self._working)


def _short(layer: Layer) -> str:
    name = str(layer.name)
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"
