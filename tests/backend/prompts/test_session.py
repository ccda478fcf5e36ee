"""A session's objects, steps and file, with a model that draws a ball around the last prompt."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from spad.errors import SpadError
from spad.prompts.made_with import differences, made_with
from spad.prompts.part import Part, part_of
from spad.prompts.prompt import Prompt, point
from spad.prompts.session import Object, Session, merged
from spad.prompts.session_file import (
    Record,
    check_scan,
    labels_type,
    read_record,
    replay,
    scan_entry,
)
from spad.prompts.session_script import script
from spad.prompts.steps import labels_digest, moved_entry
from spad.volumes.volume import Volume

SHAPE = (20, 24, 28)


def ball(thing: Object, previous: Part | None) -> Part:
    """Add (or take) a box of 5 voxels around the last prompt, in a part that holds the object."""
    last = thing.prompts[-1]
    centre = np.array(last.voxels[0])
    low, high = np.maximum(centre - 2, 0), np.minimum(centre + 3, SHAPE)
    start, stop = low, high
    if previous is not None:
        start, stop = np.minimum(low, previous.start), np.maximum(high, previous.stop)
    mask = np.zeros(stop - start, bool)
    if previous is not None:
        at = np.array(previous.start) - start
        mask[tuple(slice(a, a + n) for a, n in zip(at, previous.mask.shape, strict=True))] = (
            previous.mask
        )
    mask[tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))] = last.positive
    return Part((int(start[0]), int(start[1]), int(start[2])), mask)


def session() -> Session:
    return Session(np.zeros(SHAPE, np.uint8), ball)


def played() -> Session:
    """Two objects, a negative click, an erasure, a lock, undo and redo, a prompt removed."""
    made = session()
    made.add("liver", 6)
    made.prompt("liver", point((5, 5, 5)))
    made.prompt("liver", point((5, 9, 5)))
    made.prompt("liver", point((5, 5, 5), positive=False))
    made.undo()
    made.locked = {"liver"}
    made.add("tumour")
    made.prompt("tumour", point((6, 10, 6)), point((12, 12, 12)))
    made.remove("liver", 0)
    made.voxels("Erase", (4, 8, 4), np.ones((2, 2, 2), bool), np.zeros(8, int))
    made.undo()
    made.redo()
    return made


def test_undo_and_redo_give_every_state_back() -> None:
    made = session()
    made.add("liver", 6)
    states, prompts = [made.labels.copy()], [0]
    for voxel, positive in (((5, 5, 5), True), ((9, 9, 9), True), ((5, 5, 5), False)):
        made.prompt("liver", point(voxel, positive))
        states.append(made.labels.copy())
        prompts.append(len(made.objects["liver"].prompts))
    for state, count in zip(states[-2::-1], prompts[-2::-1], strict=True):
        made.undo()
        np.testing.assert_array_equal(made.labels, state)
        assert len(made.objects["liver"].prompts) == count
    assert made.undo() is None
    for state in states[1:]:
        made.redo()
        np.testing.assert_array_equal(made.labels, state)
    assert made.redo() is None


def test_an_object_tells_whether_it_comes_of_prompts_alone() -> None:
    made = session()
    made.add("liver", 6)
    told = []

    def now() -> bool:
        return made.objects["liver"].by_prompts

    def seen(thing: Object, previous: Part | None) -> Part:
        told.append(thing.by_prompts)
        return ball(thing, previous)

    made.predict = seen
    made.prompt("liver", point((5, 5, 5)))
    assert now()
    part = made.part("liver")
    assert part is not None
    thing = replace(made.objects["liver"], by_hand=True)
    made.voxels("Smooth", (5, 5, 5), np.ones((1, 1, 1), bool), np.zeros(1, int), {"liver": thing})
    assert not now()
    made.prompt("liver", point((6, 5, 5)))
    made.undo()
    made.undo()
    assert now()
    made.redo()
    assert not now()
    assert not Object.from_json("liver", made.objects["liver"].to_json()).by_prompts
    made.remove("liver", 0)  # what is left is found anew
    assert now()
    made.begin_with("liver", part, "a mask")
    made.prompt("liver", point((5, 5, 5)))
    assert not now()
    assert told == [True, False, False]


def test_a_removed_prompt_is_as_if_it_had_never_been_given() -> None:
    first, second = session(), session()
    for one in (first, second):
        one.add("liver", 6)
        one.prompt("liver", point((5, 5, 5)))
    first.prompt("liver", point((15, 15, 15)))
    first.remove("liver", 1)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_locked_objects_keep_their_voxels_and_others_do_not() -> None:
    for locked in (True, False):
        made = session()
        made.add("liver", 6)
        made.prompt("liver", point((5, 5, 5)))
        before = int((made.labels == 6).sum())
        made.locked = {"liver"} if locked else set()
        made.add("tumour", 20)
        made.prompt("tumour", point((6, 6, 6)))
        assert (int((made.labels == 6).sum()) == before) is locked
        assert (made.labels == 20).any()


def test_a_session_file_played_again_gives_the_same_labels(tmp_path) -> None:
    made = played()
    scan = Volume.from_array(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), np.eye(4))
    names = {one.label: one.name for one in made.objects.values()}
    Record(scan_entry(scan), {"clicker": None}, {"modality": "CT"}, made.log, names).write(
        tmp_path / "a.session.json"
    )
    record = read_record(tmp_path / "a.session.json")
    check_scan(record, scan)
    again = session()
    found = replay(record, again)
    np.testing.assert_array_equal(again.labels, made.labels)
    assert found.differing == ()
    assert found.steps == len(made.log)
    assert record.names == {6: "liver", 1: "tumour"}
    compile(script(record, "a.session.json", "a.nii.gz"), "script", "exec")
    assert record.scan["affine"] == np.eye(4).tolist()


def test_a_replay_says_where_an_object_was_another() -> None:
    made = played()
    record = Record({}, {}, {}, made.log)

    def smaller(thing: Object, previous: Part | None) -> Part:
        part = ball(thing, previous)
        mask = part.mask.copy()
        mask[0] = False
        return Part(part.start, mask)

    again = Session(np.zeros(SHAPE, np.uint8), smaller)
    assert replay(record, again).differing[0] == 2


@pytest.mark.parametrize("kind", ["voxels", "undo", "redo"])
def test_a_replay_says_where_labels_were_others_before_a_step_by_hand(kind: str) -> None:
    """Steps by hand carry a hash of the labels that they change."""
    steps = [dict(step) for step in played().log]
    number = next(n for n, step in enumerate(steps, 1) if step["step"] == kind)
    hashed = steps[number - 1].pop("before")
    assert len(hashed) == 32
    # earlier files have none
    assert replay(Record({}, {}, {}, steps), session()).differing == ()
    steps[number - 1]["before"] = "0" * 32
    assert replay(Record({}, {}, {}, steps), session()).differing == (number,)


def test_an_undo_of_nothing_is_a_difference() -> None:
    assert replay(Record({}, {}, {}, [{"step": "undo"}]), session()).differing == (1,)


def test_the_hash_of_an_undo_is_that_of_the_voxels_that_change() -> None:
    now = np.zeros((4, 5, 6), np.int64)
    now[1:3, 2, 3] = 300
    then = np.zeros_like(now)
    wide = moved_entry("undo", (7, 8, 9), now, then)
    tight = moved_entry("undo", (8, 10, 12), now[1:3, 2:3, 3:4].astype(np.uint16), then[:2, :1, :1])
    assert wide == tight
    assert wide["before"] == labels_digest((8, 10, 12), np.full((2, 1, 1), 300))
    assert moved_entry("redo", (0, 0, 0), now, now)["before"] == "empty"


def test_labels_above_255_are_played_again_and_never_wrapped() -> None:
    def empty(kind: np.dtype | type) -> Session:
        return Session(np.zeros(SHAPE, kind), ball)

    made = empty(np.uint16)
    made.add("liver", 300)
    made.prompt("liver", point((5, 5, 5)))
    mask = np.ones((2, 2, 2), bool)
    made.voxels("Paint", (9, 9, 9), mask, np.full(8, 400))
    record = Record({}, {}, {}, json.loads(json.dumps(made.log)), {300: "liver"})
    assert labels_type(record) == np.uint16
    again = empty(labels_type(record))
    assert replay(record, again).differing == ()
    np.testing.assert_array_equal(again.labels, made.labels)
    narrow = session()
    for value in (300, -1):
        with pytest.raises(SpadError, match="from 0 to 255; give it labels of a wider type"):
            narrow.voxels("Paint", (9, 9, 9), mask, np.full(8, value))
    assert not narrow.labels.any()
    assert not narrow.log
    # what a change by hand brings counts without a step of the model
    assert labels_type(Record({}, {}, {}, made.log[1:])) == np.uint16
    assert labels_type(Record({}, {}, {}, [])) == np.uint8


def test_many_voxels_are_short_text_and_the_long_form_is_read(tmp_path) -> None:
    voxels = np.argwhere(np.ones((20, 16, 16), bool))[:5000] + np.array([30, 200, 40000])
    stroke = Prompt("scribble", tuple(map(tuple, voxels.tolist())))
    told = json.dumps(stroke.to_json())
    assert len(told) < 5000
    assert Prompt.from_json(json.loads(told)) == stroke
    assert Prompt.from_json({"kind": "scribble", "voxels": voxels.tolist()}) == stroke
    assert point((1, 2, 3)).to_json()["voxels"] == [[1, 2, 3]]
    for damaged in ({"shape": [4, 3]}, {"type": "<f8"}, {"differences": "abcd"}):
        broken = json.loads(told)
        broken["voxels"] |= damaged
        with pytest.raises(SpadError, match="not as expected"):
            Prompt.from_json(broken)
    # the labels of a change by hand had another form, too
    step = {
        "step": "voxels",
        "text": "Paint",
        "part": Part((0, 0, 0), np.ones((1, 1, 2), bool)).to_json(),
    }
    step["values"] = base64.b64encode(zlib.compress(np.array([5, 7], "<i4").tobytes())).decode()
    again = session()
    replay(Record({}, {}, {}, [step]), again)
    assert again.labels[0, 0, :3].tolist() == [5, 7, 0]
    Record({}, {}, {}, [{"step": "prompt", "prompts": [stroke.to_json()]}] * 20).write(
        tmp_path / "s.json"
    )
    assert (tmp_path / "s.json").stat().st_size < 50_000


def test_a_session_of_another_time_names_the_time() -> None:
    array = np.arange(2 * 8, dtype=np.int16).reshape(2, 2, 2, 2)
    series = Volume.from_array(array, np.eye(4), axes="tzyx")
    times = [series.with_array(one) for one in series.array]
    record = Record(scan_entry(times[1], 1) | {"path": "cine.nii.gz"}, {}, {}, [])
    with pytest.raises(SpadError, match=r"time 1 \(counted from 0\) of cine.nii.gz .* show time 1"):
        check_scan(record, times[0])
    check_scan(record, times[1])


def test_what_a_session_was_made_with_is_compared() -> None:
    now = made_with("cpu")
    assert set(now) == {"device", "threads", "spad", "torch", "python"}
    assert now["torch"]
    assert now["threads"] >= 1
    assert differences(now, now) is None
    assert differences({"device": "auto"}, now) is None
    assert differences({}, now) is None
    then = now | {"torch": "1.0", "device": "cuda"}
    assert differences(then, now) == (
        f"Made with torch 1.0, device cuda; here torch {now['torch']}, device cpu: labels may "
        "differ in a few voxels."
    )


def test_a_session_of_another_scan_is_refused(tmp_path) -> None:
    array = np.zeros(SHAPE, np.int16)
    scan = Volume.from_array(array, np.eye(4))
    record = Record(scan_entry(scan), {}, {}, [])
    array = array.copy()
    array[3, 3, 3] = 1
    with pytest.raises(SpadError, match="other voxels or geometry"):
        check_scan(record, Volume.from_array(array, np.eye(4)))
    with pytest.raises(SpadError, match="other voxels or geometry"):
        check_scan(record, Volume.from_array(scan.array, np.diag([1.0, 1.0, 2.0, 1.0])))


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"spad_session": 9}', '{"spad_session": 1, "steps": [{"step": "dance"}]}'],
)
def test_a_broken_session_file_is_one_sentence(tmp_path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SpadError):
        read_record(tmp_path / "s.json")


def test_a_step_with_a_damaged_mask_is_one_sentence() -> None:
    made = played()
    log = json.loads(json.dumps(made.log))
    edit = next(step for step in log if step["step"] == "voxels")
    edit["part"]["bits"] = edit["part"]["bits"][:6]
    with pytest.raises(SpadError, match="damaged"):
        replay(Record({}, {}, {}, log), session())


def test_bad_prompts_leave_all_as_it_was() -> None:
    made = session()
    made.add("liver", 6)
    with pytest.raises(SpadError, match="outside the scan"):
        made.prompt("liver", point((30, 5, 5)))
    with pytest.raises(SpadError, match="begin with a positive"):
        made.prompt("liver", point((5, 5, 5), positive=False))
    with pytest.raises(SpadError, match="no object 'spleen'"):
        made.prompt("spleen", point((5, 5, 5)))
    with pytest.raises(SpadError, match="cannot have the number 6"):
        made.add("spleen", 6)
    with pytest.raises(SpadError, match="prompts"):
        made.remove("liver", 0)
    assert not made.labels.any()
    assert not made.log
    assert not made.done


@pytest.mark.parametrize(
    ("kind", "voxels", "positive"),
    [
        ("circle", ((1, 1, 1),), True),
        ("point", ((1, 1, 1), (2, 2, 2)), True),
        ("box", ((1, 1, 1),), True),
        ("lasso", ((1, 1, 1), (1, 5, 5)), True),
        ("lasso", ((1, 1, 1), (2, 5, 5), (3, 1, 5)), True),
        ("box", ((1, 1, 1), (2, 2, 2)), False),
        ("scribble", (), True),
    ],
)
def test_what_is_no_prompt_is_refused(kind, voxels, positive) -> None:
    with pytest.raises(SpadError):
        Prompt(kind, voxels, positive)


def test_parts_survive_json_and_their_hash_ignores_the_box() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:7, 4:9, 5:12] = 2
    labels[4, 5, 6] = 0
    part = part_of(labels, 2)
    assert part is not None
    assert part.start == (3, 4, 5)
    again = Part.from_json(json.loads(json.dumps(part.to_json())))
    np.testing.assert_array_equal(again.mask, part.mask)
    wider = Part((0, 0, 0), labels == 2)
    assert wider.digest() == part.digest() == again.digest()
    moved = Part((3, 4, 6), part.mask)
    assert moved.digest() != part.digest()
    assert Part((0, 0, 0), np.zeros((2, 2, 2), bool)).digest() == "empty"


def test_a_part_decides_in_its_box_alone() -> None:
    previous = Part((0, 0, 0), np.ones((4, 4, 4), bool))
    part = Part((2, 2, 2), np.zeros((5, 5, 5), bool))
    found = merged(previous, part)
    assert found is not None
    assert found.mask.sum() == 64 - 8
    assert merged(None, part) is None
