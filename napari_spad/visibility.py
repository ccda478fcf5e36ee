"""Labels that a person hides: transparent in slices and in 3D, whatever the layer holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad.colors import COLORS_WHEN_SHOWN
from napari_spad.organ_layers import mark, marked

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

_HIDDEN = "hidden"


def hidden(layer: Labels) -> set[int]:
    """Give the labels that are hidden."""
    return set(marked(layer, _HIDDEN) or ())


def hide(layer: Labels, labels: Iterable[int], among: Iterable[int]) -> None:
    """Hide these labels of a layer and show all others.

    Args:
        layer: the labels.
        labels: what to hide.
        among: the labels that it holds, which keep their colours.
    """
    gone = {int(label) for label in labels}
    colors = marked(layer, COLORS_WHEN_SHOWN) or layer.colormap
    selected = layer.show_selected_label
    if gone:
        layer.colormap = _without(colors, gone, {*among, *gone})
        mark(layer, {_HIDDEN: tuple(sorted(gone)), COLORS_WHEN_SHOWN: colors})
    elif hidden(layer):
        layer.colormap = colors
        mark(layer, {_HIDDEN: None, COLORS_WHEN_SHOWN: None})
    layer.show_selected_label = selected


def _without(colormap: Any, gone: set[int], among: set[int]) -> DirectLabelColormap:
    """Make the colormap in which some labels are transparent."""
    from napari.utils.colormaps import DirectLabelColormap

    if isinstance(colormap, DirectLabelColormap):
        colors: dict[int | None, Any] = dict(colormap.color_dict)
        other = colors[None]
    else:
        # napari's cyclic colours are worked out anew for every label
        colors = {label: colormap.map(label) for label in range(1, max(among, default=0) + 1)}
        colors[0], other = np.zeros(4), np.ones(4)
    colors[None] = other
    for label in gone:
        colors[label] = np.array([*np.asarray(colors.get(label, other))[:3], 0.0])
    return DirectLabelColormap(color_dict=colors)
