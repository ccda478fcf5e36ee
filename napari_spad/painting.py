"""Labels that napari makes of a mapped scan ("Convert to labels") can be painted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad.scaled import LARGE_BYTES, ScaledArray, paintable

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel


def install(viewer: Viewer | ViewerModel) -> None:
    """Look after the labels that are added to a viewer; doing it again changes nothing."""
    viewer.layers.events.inserted.connect(_inserted)


def _inserted(event: Any) -> None:
    from napari.layers import Labels

    layer = event.value
    if not isinstance(layer, Labels) or layer.multiscale:
        return
    own = own_copy(layer.data)
    if own is not None:
        layer.data = own


def own_copy(data: Any) -> np.ndarray | None:
    """Give voxels that may be painted on, where the ones given may not.

    napari gives the converted layer the scan's own array: a read-only map of the file, which
    painting must not reach.

    Args:
        data: a layer's data.

    Returns:
        A copy, of a large mapped file one that takes memory only where it is painted on; None for
        what can be painted on already, and for arrays of other libraries.
    """
    if isinstance(data, ScaledArray):
        return np.asarray(data)
    if not isinstance(data, np.ndarray) or data.flags.writeable:
        return None
    mapped = paintable(data) if data.nbytes > LARGE_BYTES else None
    return np.array(data) if mapped is None else mapped
