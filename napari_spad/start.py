"""What comes with the first use of the plugin in a viewer: keys, letters at edges, painting."""

from __future__ import annotations

from typing import Any


def use(viewer: Any = None) -> None:
    """Give a viewer the plugin's keys and the letters at its edges; once is enough.

    Args:
        viewer: the viewer; None takes the current one, if there is one.
    """
    from napari import current_viewer

    from napari_spad import edges, keys, painting, view

    keys.install()
    viewer = current_viewer() if viewer is None else viewer
    if viewer is not None:
        edges.install(viewer)
        painting.install(viewer)
        view.install(viewer)
