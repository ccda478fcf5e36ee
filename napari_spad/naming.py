"""Giving a label of a layer a name, and the colour that goes with it."""

from __future__ import annotations

from typing import Any

from napari_spad import visibility
from napari_spad.colors import COLORS_WHEN_SHOWN, colors_of, label_colormap
from napari_spad.organ_layers import mark, marked, names_of


def name_label(layer: Any, label: int, name: str) -> None:
    """Give a label of a layer a name, and the colour of that name."""
    names = names_of(layer)
    if names.get(label) != name:
        names[label] = name
        ids = [0, *sorted(names)]
        features = layer.features
        if "index" in features and len(features):
            features = features.set_index("index").reindex(ids).reset_index()
        else:
            features = {"index": ids}
        features["name"] = ["background", *(names[one] for one in ids[1:])]
        layer.features = features
    shown = marked(layer, COLORS_WHEN_SHOWN)
    colors = label_colormap(names, colors_of(shown or layer.colormap, set(names) - {label}))
    hidden = visibility.hidden(layer)
    if hidden:
        mark(layer, {COLORS_WHEN_SHOWN: colors})
        visibility.hide(layer, hidden, names)
    else:
        selected = layer.show_selected_label
        layer.colormap = colors
        layer.show_selected_label = selected
