"""Choices: of a layer, a scan, a modality, a model."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox

from napari_spad import grids, layers
from napari_spad.widgets.forms import Chooser
from napari_spad.widgets.notices import follow, notices

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume

MODALITIES = ("CT", "MR")
_BRIEF = 120
_ASK = "choose ..."


class LayerChooser(Chooser):
    """A choice among the layers that fit, which follows the viewer's list."""

    chosen = Signal(object)

    def __init__(self, viewer: Viewer, fits: Callable[[Layer], bool], empty: str) -> None:
        super().__init__()
        self._viewer, self._fits, self._empty = viewer, fits, empty
        self._layers: list[Any] = []
        self._last: Any = None
        self._named: list[Callable[[], None]] = []
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            follow(self, event, self._refill)
        self.currentIndexChanged.connect(self._tell)
        self._refill()

    @property
    def layer(self) -> Any:
        """The chosen layer, or None."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Layer) -> None:
        """Choose a layer, if it is listed."""
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def _refill(self, event: Any = None) -> None:
        before = self.layer
        inserted = (
            getattr(event, "value", None) if getattr(event, "type", "") == "inserted" else None
        )
        self._layers = [layer for layer in self._viewer.layers if self._fits(layer)]
        self.blockSignals(True)
        self.clear()
        while self._named:
            self._named.pop()()
        for layer in self._layers:
            self.addItem(layer.name)
            self._named.append(follow(self, layer.events.name, self._rename))
        if not self._layers:
            self.addItem(self._empty)
        wanted = inserted if inserted in self._layers else before
        if wanted in self._layers:
            self.setCurrentIndex(self._layers.index(wanted))
        self.setEnabled(bool(self._layers))
        self.blockSignals(False)
        self._tell()

    def _rename(self, event: Any = None) -> None:
        for index, layer in enumerate(self._layers):
            self.setItemText(index, layer.name)

    def _tell(self) -> None:
        layer = self.layer
        if (layer is None and self._last is None) or (layer is not None and layer == self._last):
            return
        self._last = layer
        self.chosen.emit(layer)


class ScanChooser(LayerChooser):
    """A choice among the scans that are open; those in colours only if they are taken."""

    def __init__(self, viewer: Viewer, *, colours: bool = False) -> None:
        super().__init__(viewer, is_any_scan if colours else is_scan, "no scan is open")

    @property
    def volume(self) -> Volume | None:
        """The chosen scan, or None."""
        return None if self.layer is None else layers.scan_volume(self.layer, colours=True)


def is_scan(layer: Layer) -> bool:
    """Whether a layer shows a scan that a person opened, and not a result of ours."""
    return layers.is_image(layer) and is_any_scan(layer)


def is_any_scan(layer: Layer) -> bool:
    """Do as `is_scan`, for scans in colours too."""
    if not (layers.is_image(layer) or layers.is_colours(layer)):
        return False
    if layers.role_of(layer) not in ("scan", None):
        return False
    return layers.grid_of_layer(layer) is not None


class ModalityChooser(Chooser):
    """CT or MR: as the scan tells, and a person may overrule or, where nothing tells, must say."""

    def __init__(self) -> None:
        super().__init__()
        self._volume: Volume | None = None
        self._said: set[str] = set()
        self.activated.connect(self._say)

    def show_scan(self, volume: Volume | None) -> None:
        """Show the modality of a scan."""
        self._volume = volume
        self.clear()
        self.setEnabled(volume is not None)
        if volume is None:
            return
        if volume.rgb:
            self.addItem("colour picture")
            self.setEnabled(False)
            return
        told = volume.modality
        options = list(MODALITIES)
        if told is None:
            options.insert(0, _ASK)
        elif told not in options:
            options.insert(0, told)
        self.addItems(options)
        self.setCurrentText(told or _ASK)

    @property
    def reason(self) -> str:
        """Say why this modality is shown."""
        if self._volume is None or self._volume.rgb:
            return ""
        if self._volume.source.uuid in self._said:
            return "as you said"
        source = self._volume.modality_source
        if source is None:
            return "nothing in the file tells: please choose"
        ways = {
            "header": "told with the scan",
            "file name": "told by the file name",
            "intensity": "by its intensities",
        }
        return ways[source]

    def _say(self) -> None:
        said = self.currentText()
        if (
            self._volume is None
            or self._volume.rgb
            or said == _ASK
            or said == self._volume.modality
        ):
            return
        self._said.add(self._volume.source.uuid)
        self._volume = self._volume.with_modality(said)
        grids.change(self._volume.source.uuid, lambda one: one.with_modality(said))
        notices.scan_changed.emit(self._volume.source.uuid)


class ModelChooser(QComboBox):
    """A choice among the models of one kind that take a modality."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind
        self._entries: list[Entry] = []
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)

    def offer(self, modality: str | None, without: str = "") -> None:
        """List the models that take a modality; the default one is chosen.

        Args:
            modality: of the scan; None lists all.
            without: the name of one that is left out.
        """
        from spad.checkpoints import zoo
        from spad.errors import SpadError

        before = self.entry
        self._entries = [
            entry
            for entry in zoo.models()
            if entry.kind == self._kind and entry.card.covers(modality) and entry.name != without
        ]
        try:
            wanted = zoo.default(self._kind, modality).name
        except SpadError:
            wanted = ""
        names = [entry.name for entry in self._entries]
        if before is not None and before.name in names:
            wanted = before.name
        self.clear()
        self.addItems(names or ["no model fits"])
        self.setCurrentIndex(max(0, names.index(wanted) if wanted in names else 0))
        self.setEnabled(bool(names))

    @property
    def entry(self) -> Entry | None:
        """The chosen model, or None."""
        index = self.currentIndex()
        return self._entries[index] if 0 <= index < len(self._entries) else None

    @property
    def about(self) -> str:
        """Say in a line where the chosen model comes from and what it is for."""
        entry = self.entry
        if entry is None:
            return "No model of this kind takes such a scan."
        scans = ", ".join(sorted(entry.card.intensity)).replace("*", "any scan")
        licence = f"; {brief(entry.card.licence)}" if entry.card.licence else ""
        return f"{entry.origin}, for {scans}{licence}"

    @property
    def details(self) -> str:
        """Give the chosen model's licence, provenance and validation figures, line by line."""
        entry = self.entry
        if entry is None:
            return ""
        card = entry.card
        lines = [str(entry.path), *textwrap.wrap(f"licence: {card.licence}", 100)]
        for name, values in (("provenance", card.provenance), ("validation", card.validation)):
            lines += [f"{name}: {key}: {value}" for key, value in values.items()]
        return "\n".join(line if len(line) <= 160 else line[:157] + "..." for line in lines)


def brief(licence: str) -> str:
    """Give the beginning of a licence that is too long for a dock."""
    if len(licence) <= _BRIEF:
        return licence
    return textwrap.shorten(licence, _BRIEF, placeholder=" ... (all of it on hovering)")
