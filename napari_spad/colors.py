"""Colormaps of Labels layers: organs by their names, codes by their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from napari_spad import grids
from spad.volumes.colors import Rgba, color_of_name, organ_color

if TYPE_CHECKING:
    from napari.utils.colormaps import DirectLabelColormap

COLORS_WHEN_SHOWN = "colours"
"""Under which a layer notes down its colormap while some of its labels are hidden."""

_UNNAMED = 64
_MOST = 1024


def label_colormap(
    names: Mapping[int, str], stated: Mapping[int, Rgba] | None = None
) -> DirectLabelColormap:
    """Make the colormap of a Labels layer.

    Args:
        names: id to name; ids that a person paints later have a colour of their own too.
        stated: id to colour as the file says, which rules over ours.

    Returns:
        The colormap, with 0 transparent.
    """
    from napari.utils.colormaps import DirectLabelColormap

    stated = stated or {}
    known = {*names, *stated}
    first_ids = range(1, min(max(known, default=0), _MOST) + _UNNAMED)
    colors: dict[int | None, Rgba] = {
        label: organ_color(names.get(label, f"label {label}")) for label in {*first_ids, *known}
    }
    colors |= dict(stated.items())
    colors[0] = (0.0, 0.0, 0.0, 0.0)
    colors[None] = (1.0, 1.0, 1.0, 1.0)
    return DirectLabelColormap(color_dict=colors)


def colors_of(colormap: Any, ids: Iterable[int]) -> dict[int, Rgba] | None:
    """Read the colours of labels from a layer's colormap.

    Args:
        colormap: as a Labels layer has it.
        ids: the labels in question.

    Returns:
        id to colour, each channel 0 to 1; None where napari's own cyclic colours are shown.
    """
    from napari.utils.colormaps import DirectLabelColormap

    if not isinstance(colormap, DirectLabelColormap):
        return None
    table = colormap.color_dict
    found = {}
    for label in ids:
        if label in table:
            red, green, blue, alpha = (float(channel) for channel in table[label])
            found[label] = (red, green, blue, alpha)
    return found or None


def colors_when_shown(meta: Mapping[str, Any]) -> Any:
    """Give a layer's colormap as it is when none of its labels is hidden, by its attributes."""
    tag = (meta.get("metadata") or {}).get(grids.KEY) or {}
    return tag.get(COLORS_WHEN_SHOWN) or meta.get("colormap")


def code_colormap(codes: int) -> DirectLabelColormap:
    """Make the colormap of a layer of code indices; code 0 has a colour like all others."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Rgba] = {code: color_of_name(f"code {code}") for code in range(codes)}
    colors[None] = (0.0, 0.0, 0.0, 0.0)
    return DirectLabelColormap(color_dict=colors)
