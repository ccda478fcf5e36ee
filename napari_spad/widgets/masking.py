"""The Masking dock: hide tokens of a scan and see what masked-image modelling fills in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import FloatSpinBox, SpinBox
from qtpy.QtWidgets import QVBoxLayout

from napari_spad import grids, layers
from napari_spad.widgets.compare import Compare
from napari_spad.widgets.figures import Figures, masking_rows
from napari_spad.widgets.forms import Form, line
from napari_spad.widgets.job_dock import JobDock, add_layer
from spad.worker.messages import Mask

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume
    from spad.worker.messages import Request

_LARGEST_SEED = 2**31 - 1


class MaskingDock(JobDock):
    """Hides a share of the tokens and shows what the model puts in their place."""

    kind = "mim"
    verb = "Mask and fill in"
    title = "Masking"

    def __init__(self, napari_viewer: Viewer) -> None:
        self.ratio = FloatSpinBox(
            value=0.55, min=0.05, max=0.95, step=0.05, tooltip="Share of the tokens to hide"
        )
        self.seed = SpinBox(
            max=_LARGEST_SEED,
            tooltip="Draws which tokens are hidden; the same seed hides the same ones",
        )
        self.figures = Figures("Figures appear here.")
        self.compare = Compare(napari_viewer, "filled in")
        super().__init__(napari_viewer)

    def add_options(self, form: Form) -> None:
        form.add("Ratio", self.ratio.native)
        form.add("Seed", self.seed.native)

    def add_results(self, layout: QVBoxLayout) -> None:
        layout.addWidget(line())
        layout.addWidget(self.compare)
        layout.addWidget(self.figures)
        layout.addStretch(1)

    def request(self, volume: Volume, model: str) -> Request:
        return Mask(volume, model=model, ratio=self.ratio.value, seed=self.seed.value)

    def show_result(self, value: Any, layer: Layer) -> str:
        grid = layers.grid_of_layer(layer)
        name, limits = layer.name, tuple(layer.contrast_limits)
        mask = layers.to_layer(value.mask, f"{name} - mask", role="mask", on=grid, opacity=0.25)
        seen = layers.to_layer(
            seen_by_model(value, layer),
            f"{name} - what the model saw",
            role="seen",
            contrast_limits=limits,
            visible=False,
        )
        filled = layers.to_layer(
            value.reconstruction,
            f"{name} - filled in",
            role="reconstruction",
            contrast_limits=limits,
        )
        added = [add_layer(self._viewer, data) for data in (seen, filled, mask)]
        self._viewer.layers.selection.active = added[1]
        self.figures.show_rows(masking_rows(value.report))
        self.compare.compare(
            added[1], fields=[layer, added[0], added[1]], overlay=[layer, added[1], added[2]]
        )
        return "Yellow: hidden tokens. Fade between the scan and what was filled in."


def seen_by_model(value: Any, layer: Layer) -> Volume:
    """Give the scan as the model saw it: black where tokens were hidden.

    Args:
        value: the answer, with the mask on the token grid.
        layer: the scan's layer.

    Returns:
        A volume on the scan's grid, in its unit.
    """
    from spad.volumes.axes import from_canonical, to_canonical

    scan = value.reconstruction
    canonical, _ = to_canonical(value.mask, depth_first=False)
    reference = layers.grid_of_layer(layer)
    hidden = on_finer_grid(canonical, grids.place(value.mask, reference), grids.place(scan))
    values = np.array(layer.data, dtype=np.float32)
    while values.ndim > 3:
        values = values[0]
    values[hidden.astype(bool)] = layer.contrast_limits[0]
    return scan.with_array(from_canonical(values, scan, depth_first=False))


def on_finer_grid(array: np.ndarray, coarse: grids.Placement, fine: grids.Placement) -> np.ndarray:
    """Give each voxel of a finer grid the value of the coarse voxel that it lies in.

    Args:
        array: (S-I, A-P, R-L) on the coarse grid.
        coarse: where that grid lies.
        fine: where the finer one lies.

    Returns:
        An array of the finer grid's shape.
    """
    index = []
    for axis in range(3):
        place = fine.translate[axis] + np.arange(fine.shape[axis]) * fine.scale[axis]
        at = np.rint((place - coarse.translate[axis]) / coarse.scale[axis]).astype(int)
        index.append(np.clip(at, 0, coarse.shape[axis] - 1))
    return np.asarray(array[np.ix_(*index)])
