"""Clicks, scribbles, boxes and lassos by the mouse; a drag that draws nothing moves the picture."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari import Viewer

TOOLS = ("point", "scribble", "box", "lasso")
_STILL_PIXELS = 4.0


class ClickMouse:
    """Tells what a person does with the mouse while it is on; else it tells nothing.

    With the tool "point" a click counts that does not drag: left adds, right or Alt+left takes
    away; dragging moves and zooms the picture as ever, but a mark that is dragged moves. With the
    other tools a drag draws.

    Args:
        viewer: the viewer whose canvas is used.
        tell: called with the tool, world positions, whether it adds, and the modifiers.
        draw: called with the tool and the positions so far; with none when drawing ends.
        grab: gives the number of the prompt whose mark lies under an event, or None.
        drop: called with such a number and the position where it was let go.
        refuse: called with a sentence.
    """

    def __init__(
        self,
        viewer: Viewer,
        tell: Callable[[str, list[np.ndarray], bool, set[str]], None],
        draw: Callable[[str, list[np.ndarray]], None],
        grab: Callable[[Any], int | None],
        drop: Callable[[int, np.ndarray], None],
        refuse: Callable[[str], None],
    ) -> None:
        self.on, self.tool = False, TOOLS[0]
        self.held: Callable[[], bool] = lambda: False
        """Whether the next click is for somebody else."""
        self.drawing = False
        """Whether the button that is held draws, or moves a mark."""
        self._tell, self._draw, self._grab, self._drop = tell, draw, grab, drop
        self._refuse = refuse
        self._callbacks = viewer.mouse_drag_callbacks
        self._callbacks.append(self.press)

    def stop(self) -> None:
        """Listen no more."""
        self.on = False
        if self.press in self._callbacks:
            self._callbacks.remove(self.press)

    def press(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Follow a button from its press to its release, as a callback of napari's."""
        active = viewer.layers.selection.active
        painting = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if not self.on or self.held() or painting or event.button not in (1, 2):
            return
        modifiers = {str(getattr(one, "name", one)) for one in event.modifiers}
        positive = event.button == 1 and "Alt" not in modifiers
        if len(event.dims_displayed) > 2:
            yield from self._until_released(event)
            if event.type == "mouse_release" and self._is_still(event):
                self._refuse("Click in a slice, not in 3D: Ctrl+Y goes back to slices.")
            return
        grabbed = self._grab(event) if event.button == 1 else None
        self.drawing = self.tool != "point" or grabbed is not None
        camera = viewer.scene.camera
        before = camera.mouse_pan, camera.mouse_zoom
        if self.drawing:
            camera.mouse_pan = camera.mouse_zoom = False
        try:
            yield from self._drag(event, positive, modifiers, grabbed)
        finally:
            if self.drawing:
                camera.mouse_pan, camera.mouse_zoom = before
            self.drawing = False

    def _drag(
        self, event: Any, positive: bool, modifiers: set[str], grabbed: int | None
    ) -> Generator[None, None, None]:
        self._start = np.array(event.pos)
        path = [np.array(event.position, float)]
        yield
        while event.type == "mouse_move":
            path.append(np.array(event.position, float))
            if grabbed is None and self.tool != "point":
                self._draw(self.tool, path)
            yield
        if grabbed is None and self.tool != "point":
            self._draw(self.tool, [])
        still = self._is_still(event)
        path.append(np.array(event.position, float))
        if grabbed is not None and not still:
            self._drop(grabbed, path[-1])
        elif still and self.tool in ("point", "scribble"):
            self._tell("point", path[:1], positive, modifiers)
        elif self.tool != "point":
            self._tell(self.tool, path, positive, modifiers)

    def _until_released(self, event: Any) -> Generator[None, None, None]:
        self._start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            yield

    def _is_still(self, event: Any) -> bool:
        return bool(np.linalg.norm(np.array(event.pos) - self._start) <= _STILL_PIXELS)


def clicking(viewer: Any) -> ClickMouse | None:
    """Give what the clicks in a viewer go to at present, or None."""
    for call in viewer.mouse_drag_callbacks:
        mouse = getattr(call, "__self__", None)
        if isinstance(mouse, ClickMouse) and mouse.on:
            return mouse
    return None


def drawn(places: np.ndarray) -> np.ndarray:
    """Give the voxels along a drawn path, in its order and each once.

    Args:
        places: (n, 3) indices, not rounded.
    """
    pieces = [places[:1]]
    for one, other in pairwise(places):
        steps = max(1, int(np.ceil(np.abs(other - one).max())))
        share = np.linspace(0, 1, steps + 1)[1:, None]
        pieces.append(one + share * (other - one))
    voxels = np.floor(np.concatenate(pieces) + 0.5).astype(int)
    _, first = np.unique(voxels, axis=0, return_index=True)
    return voxels[np.sort(first)]
