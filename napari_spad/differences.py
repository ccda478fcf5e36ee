"""Where labels and a reference differ, voxel by voxel, label by label."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad.organ_layers import counts, names_of, renumbered

if TYPE_CHECKING:
    from napari.layers import Labels

AGREED, MISSED, EXTRA, OTHER = 1, 2, 3, 4
KINDS = {AGREED: "agreed", MISSED: "missed", EXTRA: "too much", OTHER: "another organ"}
COLORS = {
    AGREED: (0.62, 0.62, 0.62, 0.55),
    MISSED: (0.10, 0.62, 1.00, 1.0),
    EXTRA: (1.00, 0.45, 0.05, 1.0),
    OTHER: (0.95, 0.20, 0.85, 1.0),
}
"""Blue and orange are told apart by all eyes, and stand out from grey."""


def keys_of(layer: Labels, other: Labels) -> Callable[[int], str]:
    """Say by which word a label of one layer is matched with those of another.

    As `spad evaluate` does: by name where both have names, else by id.
    """
    own, others = names_of(layer), names_of(other)
    names = own if own and others else {**own, **others}
    return lambda label: names.get(label, str(label))


def differences(organs: Labels, reference: Labels, without: Iterable[str] = ()) -> np.ndarray:
    """Compare two label layers on the same voxels.

    Args:
        organs: the labels that are judged.
        reference: what they ought to be.
        without: words (see `keys_of`) of labels that are left out.

    Returns:
        uint8 of the same shape: 0 where neither has a label, else one of `KINDS`.
    """
    left_out = set(without)
    number: dict[str, int] = {}
    found, expected = (
        _numbered(np.asarray(one.data), keys_of(one, other), number, left_out)
        for one, other in ((organs, reference), (reference, organs))
    )
    made = np.zeros(found.shape, np.uint8)
    made[(found == expected) & (found != 0)] = AGREED
    made[(found == 0) & (expected != 0)] = MISSED
    made[(found != 0) & (expected == 0)] = EXTRA
    made[(found != 0) & (expected != 0) & (found != expected)] = OTHER
    return made


def layer_look() -> dict[str, Any]:
    """Give the colours and names of a Labels layer of differences."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Any] = dict(COLORS.items())
    colors[None] = colors[0] = (0, 0, 0, 0)
    features = {"index": [0, *KINDS], "name": ["background", *KINDS.values()]}
    return {
        "colormap": DirectLabelColormap(color_dict=colors),
        "features": features,
        "opacity": 0.7,
    }


def _numbered(
    data: np.ndarray, key: Callable[[int], str], number: dict[str, int], left_out: set[str]
) -> np.ndarray:
    """Give every word one number in both layers."""
    table = {label: key(label) for label in counts(data)}
    kept = {label: word for label, word in table.items() if word not in left_out}
    return renumbered(
        data, {label: number.setdefault(word, len(number) + 1) for label, word in kept.items()}
    )
