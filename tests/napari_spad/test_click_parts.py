"""What clicks are made of: turned voxels, drawn paths, what looks odd, keys, sessions in files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import KeymapHandler
from napari.utils.shortcuts import default_shortcuts

from napari_spad import click_files, keys, layers, plausible
from napari_spad.click_mouse import drawn
from napari_spad.held_session import HeldSession
from napari_spad.history import history_of
from napari_spad.turned import Turned
from spad.errors import SpadError
from spad.prompts.kept import labels_path
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt
from spad.prompts.session import Object, Session
from spad.prompts.session_file import Record, replay
from spad.prompts.steps import voxels_entry
from spad.volumes.axes import from_canonical


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_voxels_turn_there_and_back(ct_phantom, mr_phantom, depth):
    for image in (ct_phantom.image, mr_phantom.image):
        array = np.moveaxis(image.array, depth, 0)
        affine = image.affine @ np.eye(4)[:, [depth, *[a for a in range(3) if a != depth], 3]]
        volume = dataclasses.replace(image, array=array, affine=affine)
        data, *_ = layers.to_layer(volume, "scan")
        turned = Turned.of(volume)
        rng = np.random.default_rng(depth)
        index = rng.integers(0, data.shape)
        assert data[tuple(index)] == volume.values()[turned.voxel(index + 0.4)]
        assert np.array_equal(turned.index([turned.voxel(index)])[0], index)
        low = rng.integers(0, np.array(data.shape) - 4)
        box = np.array(data[tuple(slice(a, a + n) for a, n in zip(low, (2, 3, 4), strict=True))])
        start, back = turned.back(low, box)
        part = Part(start, back)
        assert np.array_equal(back, volume.values()[part.region])
        assert np.array_equal(data[turned.region(part.region)], box)
        assert np.array_equal(turned.box(back), box)


def test_a_drawn_path_has_no_gaps():
    path = drawn(np.array([[3, 2.2, 2], [3, 9.7, 4], [3, 9.7, 4], [3, 1, 1]]))
    assert np.array_equal(path[0], [3, 2, 2])
    assert [3, 10, 4] in path.tolist()
    assert len(np.unique(path, axis=0)) == len(path)
    assert (np.abs(np.diff(path[:9], axis=0)).max(axis=1) <= 1).all()


def test_what_looks_odd():
    box = (slice(0, 6), slice(10, 16), slice(20, 26))
    mask = np.zeros((6, 6, 6), bool)
    mask[2:5, 2:5, 2:5] = True

    def judge(name="left_kidney", middle=None):
        return plausible.judge(name, mask, box, (40, 40, 40), 0.1, middle)

    assert judge() == []
    assert judge(middle=10.0) == []
    [side] = judge(middle=30.0)
    assert (side.other, side.repair) == ("right_kidney", "Swap with right kidney")
    assert judge("spleen", 30.0) == []
    mask[0, 0, 0] = True
    pieces, edge = judge()
    assert pieces.words == "2 pieces, 0.1 mL beside the largest"
    assert pieces.mask.sum() == 27
    assert edge.words == "cut off by the scan's edge (top)"


def test_air_around_the_body_is_no_air_in_it(ct_phantom):
    data, *_ = layers.to_layer(ct_phantom.image, "ct")
    plane = np.array(data[16], float)
    middle = tuple(np.array(plane.shape) // 2)
    plane[middle] = -1000
    assert not plausible.outside_body(plane, middle)
    assert plausible.outside_body(plane, (0, 0))
    assert not plausible.outside_body(plane, (0, 0), "PT")
    assert abs(plausible.middle_of_body(plane) - (plane.shape[1] - 1) / 2) < 4


def test_gas_in_the_body_is_no_air_around_it_where_the_scan_is_cut_at_fat():
    """A window of -125 to 275 HU, a skin with gaps, noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :128] - 63.5
    away = np.hypot(rows, columns)
    plane = np.where(away < 56, -100.0, -1000.0)
    plane[(away > 54) & (away < 56) & (np.arange(128) % 8 > 1)] = 30
    plane[(away < 40) & (away > 30)] = 60
    plane[:, 58:70][away[:, 58:70] < 50] = -100
    plane[away < 20] = -1000
    plane[100:110, 50:80] = 250
    plane = np.clip(plane + rng.normal(0, 15, plane.shape), -125, 275)
    assert not plausible.outside_body(plane, (64, 64))
    assert not plausible.outside_body(plane, (64, 20))
    for corner in ((0, 0), (127, 64), (3, 120)):
        assert plausible.outside_body(plane, corner)


def test_click_keys_leave_naparis_own_alone(ct_phantom):
    """They hold while the scan is selected; what napari has for a selected layer goes first."""
    keys.install()
    ours = [one.key for one in keys.CLICK_KEYS]
    assert len(set(ours)) == len(ours)
    assert not set(ours) & {one.key for one in keys.KEYS}
    while_a_scan_is_selected = {
        str(key)
        for name, found in default_shortcuts.items()
        if action_manager._actions[name].keymapprovider in (ViewerModel, Image, Layer)
        for key in found
    }
    assert len(while_a_scan_is_selected) > 15
    assert not while_a_scan_is_selected & set(ours)
    assert {keys.key_of(keys.click_action(name)) for name in ("point", "scribble", "box")} == {
        *("P", "S", "B")
    }
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*layers.to_layer(ct_phantom.image, "ct")))
    labels = viewer.add_labels(np.zeros(viewer.layers[0].data.shape, int))
    pressed = []
    # as napari does for its own keys when a window opens
    labels.bind_key("P", pressed.append)
    handler = KeymapHandler()
    handler.keymap_providers = [labels, viewer]
    handler.press_key("P")
    assert pressed == [labels]
    assert viewer.status == "Ready"
    handler.keymap_providers = [viewer.layers[0], viewer]
    handler.press_key("P")
    assert "Segment first" in viewer.status


def test_boxes_of_labels_follow_what_is_written(qapp):
    rng = np.random.default_rng(1)
    layer = Labels(np.zeros((6, 9, 9), np.uint8))
    session = HeldSession(layer.data, lambda *_: None)
    session.find_boxes()
    history = history_of(layer)

    def follow(what, step):
        start, mask, before, after = step.joined()
        session.grow_boxes(start, mask, before if what == "undone" else after)
        session.forget_counts(np.unique([before[mask], after[mask]]).tolist())

    history.happened.connect(follow)
    for name, label in (("a", 1), ("b", 2)):
        session.add(name, label)
    for turn in range(40):
        if turn % 4 == 3:
            history.undo()
        else:
            low = rng.integers(0, 5, 3)
            region = tuple(slice(a, a + 3) for a in low)
            history.change("Edit", region, rng.integers(0, 3, layer.data[region].shape))
        for name, label in (("a", 1), ("b", 2)):
            part = session.part(name)
            count = np.count_nonzero(layer.data == label)
            assert (0 if part is None else part.mask.sum()) == count == session.count(label)


def test_changes_of_prompts_by_hand_are_played_undone_and_redone():
    def predict(thing, previous):
        mask = np.zeros((3, 3, 3), bool)
        mask[0, 0, : len(thing.prompts)] = True
        return Part((0, 0, 0), mask)

    session = Session(np.zeros((4, 4, 4), np.uint8), predict)
    dot = Prompt("point", ((1, 1, 1),))
    session.add("liver", 3)
    session.prompt("liver", dot)
    mask = np.ones((1, 1, 1), bool)
    more = Prompt("scribble", ((2, 2, 2),))
    entry = voxels_entry("Paint", (2, 2, 2), mask, np.array([3]))
    entry["added"] = {"liver": Object(3, "liver", (more,)).to_json()}
    swapped = {"liver": Object(3, "liver"), "spleen": Object(5, "spleen", (dot, more))}
    other = voxels_entry("Swap", (0, 0, 0), mask, np.array([5]), swapped)
    steps = [*session.log, entry, other]
    names = {3: "liver", 5: "spleen"}

    def played(*kinds):
        again = Session(np.zeros((4, 4, 4), np.uint8), predict)
        replay(Record({}, {}, {}, [*steps, *({"step": kind} for kind in kinds)], names), again)
        return again

    again = played()
    assert again.labels[0, 0, 0] == 5
    assert again.objects["spleen"].prompts == (dot, more)
    assert again.objects["liver"].prompts == ()
    again = played("undo")
    assert again.objects["liver"].prompts == (dot, more)
    assert again.objects["liver"].by_hand
    assert "spleen" not in again.objects
    assert again.labels[2, 2, 2] == 3
    again = played("undo", "undo", "redo")
    assert again.objects["liver"].prompts == (dot, more)
    # a damaged object is a sentence
    steps[-1] = other | {"objects": {"spleen": {"prompts": 3}}}
    with pytest.raises(SpadError, match="'spleen' is not as expected"):
        played()


def test_sessions_are_kept_side_by_side_and_found_again(ct_phantom, tmp_path, monkeypatch):
    monkeypatch.setenv("SPAD_HOME", str(tmp_path))
    labels = from_canonical(
        np.zeros((32, 64, 64), np.uint8), ct_phantom.image, depth_first=False
    ).copy()
    labels[3, 4, 5] = 7
    scan = {"path": "some where/My scan.nii.gz", "sha256": "ab" * 32}
    step = {"step": "undo"}
    record = Record(scan, {"clicker": None, "segmenter": None}, {}, [step], {7: "liver"})
    thing = Object(7, "liver", (Prompt("point", ((3, 4, 5),)),), Part((0, 0, 0), labels[:2] > 6))
    first = click_files.write(click_files.new_path(scan), record, {"liver": thing}, labels)
    assert first.name == f"My_scan-{'ab' * 6}.session.json"
    second = click_files.new_path(scan)
    assert second != first
    assert click_files.latest("ab" * 32) == first
    assert click_files.latest("cd" * 32) is None
    found = click_files.read(first)
    assert np.array_equal(found.labels, labels)
    assert found.objects["liver"].prompts == thing.prompts
    assert found.objects["liver"].start.digest() == "empty"
    with pytest.raises(SpadError, match="other voxels or geometry"):
        click_files.read(first, ct_phantom.image)
    labels_path(first).write_bytes(b"PK")
    with pytest.raises(SpadError, match="cannot be read"):
        click_files.read(first)
