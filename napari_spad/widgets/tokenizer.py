"""The Tokenizer dock: what the visual tokenizer keeps of a scan, and which codes it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QVBoxLayout

from napari_spad import layers
from napari_spad.colors import code_colormap
from napari_spad.widgets.compare import Compare
from napari_spad.widgets.figures import Figures, tokenizer_rows
from napari_spad.widgets.forms import line
from napari_spad.widgets.job_dock import JobDock, add_layer
from napari_spad.widgets.plots import UsagePlot
from spad.worker.messages import Tokenize

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume
    from spad.worker.messages import Request


class TokenizerDock(JobDock):
    """Reconstructs a scan from its tokens: reconstruction, error, codes and their use."""

    kind = "tokenizer"
    verb = "Tokenize"
    title = "Tokenizing"

    def __init__(self, napari_viewer: Viewer) -> None:
        self.figures = Figures("Figures appear here.")
        self.usage = UsagePlot()
        self.compare = Compare(napari_viewer, "rebuilt")
        super().__init__(napari_viewer)

    def add_results(self, layout: QVBoxLayout) -> None:
        layout.addWidget(line())
        layout.addWidget(self.compare)
        layout.addWidget(self.figures)
        layout.addWidget(self.usage)
        layout.addStretch(1)

    def request(self, volume: Volume, model: str) -> Request:
        return Tokenize(volume, model=model)

    def show_result(self, value: Any, layer: Layer) -> str:
        grid = layers.grid_of_layer(layer)
        name = layer.name
        codes = layers.to_layer(
            value.codes,
            f"{name} - codes",
            role="codes",
            on=grid,
            colormap=code_colormap(len(value.usage)),
            opacity=1.0,
            visible=False,
        )
        error = layers.to_layer(
            value.error,
            f"{name} - error",
            role="error",
            colormap="inferno",
            contrast_limits=error_limits(value.error),
            visible=False,
        )
        reconstruction = layers.to_layer(
            value.reconstruction,
            f"{name} - reconstruction",
            role="reconstruction",
            contrast_limits=tuple(layer.contrast_limits),
        )
        added = [add_layer(self._viewer, data) for data in (reconstruction, error, codes)]
        self._viewer.layers.selection.active = added[0]
        self.usage.show_usage(value.usage)
        self.figures.show_rows(tokenizer_rows(value.report, len(value.usage)))
        self.compare.compare(
            added[0], fields=[layer, *added], overlay=[layer, added[0]], side_by_side=True
        )
        return "Top row: scan, reconstruction. Bottom row: error, codes."


def error_limits(error: Volume) -> tuple[float, float]:
    """Give contrast limits for an error map: 0 to its 99.5th percentile, in the scan's unit."""
    step = max(1, error.array.size // 1_000_000)
    values = error.values().ravel()[::step]
    values = values[np.isfinite(values)]
    high = float(np.percentile(values, 99.5)) if values.size else 0.0
    return 0.0, high if high > 0 else 1.0
