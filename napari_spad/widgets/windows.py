"""The choice of a window preset for a scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox

from napari_spad import keys, windows
from napari_spad.widgets.forms import Chooser
from napari_spad.widgets.notices import follow

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

_BY_HAND = "By hand"


class WindowChooser(Chooser):
    """Lists the windows that fit a scan, shows which one it has, and applies what is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self._layer: Any = None
        self._volume: Volume | None = None
        self._presets: tuple[windows.Preset, ...] = ()
        self._watched: list[Callable[[], None]] = []
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.activated.connect(self._choose)

    def show_scan(self, layer: Any, volume: Volume | None) -> None:
        """Offer the windows of a scan; None offers nothing."""
        while self._watched:
            self._watched.pop()()
        self._layer, self._volume = layer, volume
        self._presets = () if volume is None else windows.presets(volume)
        if volume is not None:
            self._watched = [follow(self, layer.events.contrast_limits, self._mark)]
        self.setEnabled(volume is not None)
        self._mark()

    def _mark(self, event: Any = None) -> None:
        """Show the preset that the layer has, or its figures if it was set by hand."""
        self.blockSignals(True)
        self.clear()
        if self._volume is None:
            self.addItem("no window: colours or labels")
        else:
            self._fill(self._volume)
        self.blockSignals(False)

    def _fill(self, volume: Volume) -> None:
        low, high = (float(limit) for limit in self._layer.contrast_limits)
        now = windows.chosen(volume, (low, high))
        lines = []
        for preset in self._presets:
            key = keys.key_of(keys.window_action(windows.key_number(preset, volume)))
            self.addItem(preset.words, preset)
            lines.append(f"{preset.words}: {key or 'no key'}")
            self.setItemData(self.count() - 1, lines[-1], Qt.ItemDataRole.ToolTipRole)
        self.setToolTip(
            "Which values are black and white. The keys work on the selected scan all over the "
            "viewer; Preferences > Shortcuts changes them.\n" + "\n".join(lines)
        )
        if now is None:
            self.addItem(f"{_BY_HAND}  {windows.width_and_level(low, high)}", None)
        self.setCurrentIndex(self.count() - 1 if now is None else self._presets.index(now))

    def _choose(self, index: int) -> None:
        if self._volume is not None and 0 <= index < len(self._presets):
            windows.apply(self._layer, self._volume, self._presets[index])
        self._mark()
