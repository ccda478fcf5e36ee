"""From what the mouse does to the prompts of a session, and from prompts to their marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import places, plausible
from napari_spad.click_marks import ClickMarks
from napari_spad.click_mouse import ClickMouse, drawn
from spad.errors import SpadError
from spad.prompts.prompt import Prompt

if TYPE_CHECKING:
    from napari import Viewer

    from napari_spad.click_session import ClickSession

_SAME_PLACE_MM = 3.0


class ClickPrompts:
    """Prompts of the active object: given, drawn, dragged and deleted in the viewer.

    Args:
        viewer: the viewer.
        session: gives the session in question, or None.
        ready: whether that session may go on.
        begin_object: sees to it that there is an active object.
        refuse: called with a sentence.
    """

    def __init__(
        self,
        viewer: Viewer,
        session: Callable[[], ClickSession | None],
        ready: Callable[[], bool],
        begin_object: Callable[[], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._viewer, self._session = viewer, session
        self._ready, self._begin_object, self._refuse = ready, begin_object, refuse
        self._marks: ClickMarks | None = None
        self._on_air: np.ndarray | None = None
        self.doubt: Any = None
        """A doubtful place that is marked, too: an index of the layer, or None."""
        self.mouse = ClickMouse(viewer, self.give, self._draw, self._grab, self._drop, refuse)

    def give(self, tool: str, world: list[np.ndarray], positive: bool, modifiers: set[str]) -> None:
        """Take what the mouse did.

        Args:
            tool: one of `click_mouse.TOOLS`.
            world: where, in the viewer's world.
            positive: whether it adds.
            modifiers: keys that were held.
        """
        try:
            self._check_time()
            if not self._ready():
                return
            session = self._session()
            if session is None:
                return
            prompt = _prompt(session, tool, world, positive, modifiers)
            if tool == "point" and positive:
                self._refuse_air(session, world[0])
            if not session.active:
                self._begin_object()
            session.give(prompt)
        except SpadError as error:
            self._refuse(str(error))

    def delete(self, numbers: list[int], name: str = "") -> None:
        """Delete prompts of an object, by default the active one."""
        session = self._session()
        if session is None:
            return
        name = name or session.active
        kept = [p for n, p in enumerate(session.prompts_of(name)) if n not in numbers]
        try:
            session.change_prompts(name, kept)
        except SpadError as error:
            self._refuse(str(error))
            self.show()

    # marks

    def begin(self, session: ClickSession) -> None:
        """Have marks for the prompts of a session."""
        self.close_marks()
        self._marks = ClickMarks(self._viewer, session.scan, session.turned)
        self._marks.moved.connect(self._move)
        self._marks.deleted.connect(self.delete)
        self._marks.added.connect(self._add)

    def show(self) -> None:
        """Show the prompts of the active object, those that are not answered yet included."""
        session = self._session()
        if self._marks is None or session is None or self._marks.gone:
            return
        self._marks.show(session.prompts_of(session.active), self.doubt)

    def show_first(self, told: Any) -> None:
        """Show a first answer, (label, part), or hide it."""
        session = self._session()
        if self._marks is None or session is None:
            return
        color = None if told is None else session.layer.get_color(told[0])
        self._marks.show_first(told, color)

    def lost(self, layer: Any) -> bool:
        """Whether marks are gone with a layer that was removed."""
        return self._marks is not None and self._marks.is_ours(layer) and self._marks.gone

    def close_marks(self) -> None:
        """Take the marks out of the viewer."""
        marks, self._marks = self._marks, None
        if marks is not None:
            marks.close()

    def close(self) -> None:
        """Let go of the viewer."""
        self.mouse.stop()
        self.close_marks()

    # what the mouse and napari's own tools do to marks

    def _draw(self, tool: str, world: list[np.ndarray]) -> None:
        if self._marks is not None and not self._marks.gone:
            self._marks.draw(tool, world)

    def _grab(self, event: Any) -> int | None:
        session = self._session()
        return None if self._marks is None or session is None else self._marks.near(event)

    def _drop(self, number: int, world: np.ndarray) -> None:
        session = self._session()
        if session is not None:
            self._move(number, places.index_of(session.scan, world))

    def _move(self, number: int, index: Any) -> None:
        session = self._session()
        if session is None:
            return
        prompts = list(session.prompts_of(session.active))
        if number >= len(prompts):
            # it was taken back while it was dragged
            self.show()
            return
        try:
            self._check_time()
            place = session.turned.voxel(index)
            prompts[number] = Prompt("point", (place,), prompts[number].positive)
            session.change_prompts(session.active, prompts)
        except SpadError as error:
            self._refuse(str(error))
            self.show()

    def _add(self, index: Any) -> None:
        session = self._session()
        if session is not None:
            self.give("point", [places.world_of(session.scan, index)], True, set())

    def _refuse_air(self, session: ClickSession, world: np.ndarray) -> None:
        """Refuse a click on the air around the body, unless it is the second one there."""
        before, self._on_air = self._on_air, None
        z, y, x = np.floor(places.index_of(session.scan, world) + 0.5).astype(int).tolist()
        lead = (session.phase,) if session.scan.ndim > 3 else ()
        plane = np.asarray(session.scan.data[(*lead, z)])
        if not plausible.outside_body(plane, (y, x), session.volume.modality):
            return
        if before is not None and np.linalg.norm(world[-3:] - before[-3:]) <= _SAME_PLACE_MM:
            return
        self._on_air = world
        raise SpadError(
            "The click lies on the air around the body; click on the object itself, or there once "
            "more if that is what you mean."
        )

    def _check_time(self) -> None:
        session = self._session()
        if session is None:
            return
        shown = places.time_shown(self._viewer, session.scan)
        if shown != session.phase:
            # a scan has times or channels, never both
            one, whole = places.words_of_time(session.volume)
            raise SpadError(
                f"The session is on {one} {session.phase} of the {whole}, but {one} {shown} "
                f"is shown; go back to {one} {session.phase}, or switch Click off and on to begin "
                "on this one."
            )


def _prompt(
    session: ClickSession, tool: str, world: list[np.ndarray], positive: bool, modifiers: set[str]
) -> Prompt:
    """Make a prompt of what the mouse did.

    Raises:
        SpadError: it cannot be one.
    """
    indices = np.array([places.index_of(session.scan, one) for one in world])
    turn = session.turned.voxel
    if tool == "point":
        prompt = Prompt("point", (turn(indices[0]),), positive)
        prompt.check_inside(session.turned.shape)
        return prompt
    if tool == "scribble":
        return Prompt("scribble", tuple(turn(one) for one in drawn(indices)), positive)
    if not positive:
        raise SpadError(
            f"A {tool} says where the object is and cannot take away; draw it with the left "
            "button, and take away with points or scribbles."
        )
    if tool == "box":
        ends = [indices[0], indices[-1]]
        known = session.objects.get(session.active)
        boxes = [one for one in known.prompts if one.kind == "box"] if known is not None else []
        if "Shift" in modifiers and boxes:
            ends += list(session.turned.index(boxes[-1].voxels))
        low, high = np.min(ends, axis=0), np.max(ends, axis=0)
        return Prompt("box", (turn(low), turn(high)))
    corners = list(dict.fromkeys(turn(one) for one in drawn(indices)))
    if len(corners) < 3:
        raise SpadError("The lasso is too small; drag around the object.")
    return Prompt("lasso", tuple(corners))
