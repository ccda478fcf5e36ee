"""From one doubtful place to the next, without a viewer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_spad.doubts import Doubts


class Session(SimpleNamespace):
    """As much of a session as doubts need; what it is asked for is noted."""

    def __init__(self) -> None:
        self.asked, self.active, self.size = [], "liver", 1.0
        self.history = SimpleNamespace(version=0)
        self.volume = SimpleNamespace(spacing=(3.0, 1.0, 1.0))
        self.turned = SimpleNamespace(index=lambda voxels: np.array(voxels))

    def ml(self, name: str) -> float:
        return self.size

    def find_doubts(self, name) -> None:
        self.asked.append(name)


@pytest.fixture
def made():
    """Doubts, a session, the places shown and the words said."""
    shown, words = [], []
    doubts = Doubts(lambda index: shown.append(index.tolist()), words.append)
    return doubts, Session(), shown, words


PLACES = [(0, 0, 0), (0, 0, 20), (0, 0, 40)]


def test_one_place_after_the_other(made):
    doubts, session, shown, words = made
    doubts.next(session)
    assert words == ["Looking for doubtful places ..."]
    doubts.found(session, PLACES)
    for _ in range(2):
        doubts.next(session)
    assert shown == [list(one) for one in PLACES]
    assert words[1:] == [
        "A doubtful place is marked in yellow (2 more).",
        "A doubtful place is marked in yellow (1 more).",
        "A doubtful place is marked in yellow (the last one).",
    ]
    assert session.asked == ["liver"]


def test_after_a_change_it_looks_anew_and_passes_over_what_was_shown(made):
    doubts, session, shown, words = made
    doubts.next(session)
    doubts.found(session, PLACES)
    session.history.version += 1
    doubts.next(session)
    assert session.asked == ["liver"] * 2
    doubts.found(session, [(1, 5, 5), (4, 0, 0), (0, 0, 40)])
    assert shown[1:] == [[4, 0, 0]]
    session.history.version += 1
    doubts.next(session)
    doubts.found(session, [(1, 5, 5)])
    assert words[-1] == "No other doubtful place is left."
    # once more from the beginning
    doubts.next(session)
    doubts.found(session, [(1, 5, 5)])
    assert shown[-1] == [1, 5, 5]
    doubts.next(session)
    doubts.found(session, [])
    assert words[-1] == "No doubtful place is left."


def test_another_object_has_its_own(made):
    doubts, session, shown, _ = made
    doubts.next(session)
    doubts.found(session, PLACES)
    session.active = "spleen"
    doubts.next(session)
    doubts.found(session, PLACES)
    assert shown == [[0, 0, 0]] * 2
    session.size = 0.0
    doubts.next(session)
    assert session.asked == ["liver", "spleen", None]


def test_pressing_twice_asks_once_and_late_answers_are_dropped(made):
    doubts, session, shown, words = made
    doubts.next(session)
    doubts.next(session)
    assert session.asked == ["liver"]
    doubts.found(session, PLACES)
    assert shown == [[0, 0, 0]]
    # of an object that was left meanwhile
    session.active = "spleen"
    doubts.next(session)
    doubts.forget()
    doubts.found(session, PLACES)
    assert shown == [[0, 0, 0]]
    # of one that was changed meanwhile
    doubts.next(session)
    session.history.version += 1
    doubts.found(session, PLACES)
    assert shown == [[0, 0, 0]]
    assert words[-1].startswith("The object has changed meanwhile")
    doubts.next(session)
    doubts.found(session, PLACES)
    assert shown == [[0, 0, 0]] * 2
