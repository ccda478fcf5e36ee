"""Doubtful places of a result, from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_spad.click_session import ClickSession

SAME_MM = 10.0
"""A place so near to one that was shown is that one."""


class Doubts:
    """Leads a person to the doubtful places that a session has found, the most doubtful first.

    Args:
        show: called with the index of a place in the scan's layer.
        say: called with a sentence about it.
    """

    def __init__(self, show: Callable[[np.ndarray], None], say: Callable[[str], None]) -> None:
        self._show, self._say = show, say
        self._left: list[Any] = []
        self._of: tuple[int, str | None] | None = None
        self._version = 0
        self._asked = False
        self._shown: list[Any] = []

    def forget(self) -> None:
        """Drop the places that are left or asked for: the object is another, or none can be had."""
        self._left, self._asked = [], False

    def next(self, session: ClickSession) -> None:
        """Go to the next place; without one, or on an object that has changed, look for them.

        They are those of the active object, or of all the scan where it has no object yet.

        Raises:
            SpadError: the session cannot look for them.
        """
        whole = not session.active or not session.ml(session.active)
        name = None if whole else session.active
        # an id, since a closed session should not be kept for this
        of, version = (id(session), name), session.history.version
        if (of, version) == (self._of, self._version):
            if self._left:
                self._go_to(session)
                return
            if self._asked:
                return
        if of != self._of:
            self._shown = []
        self._of, self._version = of, version
        session.find_doubts(name)
        self._asked = True
        self._say("Looking for doubtful places ...")

    def found(self, session: ClickSession, voxels: list[Any]) -> None:
        """Take the places that a session has found, as voxels of the scan, and go to the first.

        Those that were shown before, and left as they are, are passed over until none is left.
        An answer that comes once a person has gone on is dropped.
        """
        if not self._asked:
            return
        self._asked = False
        if session.history.version != self._version:
            self._say("The object has changed meanwhile; ask for the next doubt once more.")
            return
        spacing = np.array(session.volume.spacing)
        self._left = [
            one
            for one in voxels
            if all(
                np.linalg.norm((np.array(one) - shown) * spacing) >= SAME_MM
                for shown in self._shown
            )
        ]
        if self._left:
            self._go_to(session)
            return
        self._shown = []
        self._say("No other doubtful place is left." if voxels else "No doubtful place is left.")

    def _go_to(self, session: ClickSession) -> None:
        place = self._left.pop(0)
        self._shown.append(place)
        self._show(session.turned.index([place])[0])
        left = f"{len(self._left)} more" if self._left else "the last one"
        self._say(f"A doubtful place is marked in yellow ({left}).")
