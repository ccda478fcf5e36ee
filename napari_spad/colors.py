"""Colormaps of Labels layers: organs by their names, codes by their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spad.volumes.colors import Rgba, color_of_name, organ_color

if TYPE_CHECKING:
    from napari.utils.colormaps import DirectLabelColormap

_UNNAMED = 64


def label_colormap(names: Mapping[int, str]) -> DirectLabelColormap:
    """Make the colormap of a Labels layer.

    Args:
        names: id to name; ids that a person paints later have a colour of their own too.

    Returns:
        The colormap, with 0 transparent.
    """
    from napari.utils.colormaps import DirectLabelColormap

    highest = max(names, default=0) + _UNNAMED
    colors: dict[int | None, Rgba] = {
        label: organ_color(names.get(label, f"label {label}")) for label in range(1, highest)
    }
    colors |= {label: organ_color(name) for label, name in names.items()}
    colors[0] = (0.0, 0.0, 0.0, 0.0)
    colors[None] = (1.0, 1.0, 1.0, 1.0)
    return DirectLabelColormap(color_dict=colors)


def code_colormap(codes: int) -> DirectLabelColormap:
    """Make the colormap of a layer of code indices; code 0 has a colour like all others."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Rgba] = {code: color_of_name(f"code {code}") for code in range(codes)}
    colors[None] = (0.0, 0.0, 0.0, 0.0)
    return DirectLabelColormap(color_dict=colors)
