"""Keys: no clash with napari's, a person's choice rules, and what they do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes, Surface, Tracks, Vectors
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import KeymapHandler, coerce_keybinding

from napari_spad import keys, layers, windows

PROVIDERS = (ViewerModel, Layer, Image, Labels, Points, Shapes, Surface, Tracks, Vectors)


@pytest.fixture
def fresh(monkeypatch):
    """As if the plugin had not been used yet."""
    for one in keys.KEYS:
        if one.action in action_manager._actions:
            action_manager.unbind_shortcut(one.action)
            del action_manager._actions[one.action]
    monkeypatch.setattr(keys, "_free", {})
    before = dict(get_settings().shortcuts.shortcuts)
    yield
    get_settings().shortcuts.shortcuts = before
    for one in keys.KEYS:
        if one.action in action_manager._actions:
            action_manager.unbind_shortcut(one.action)


@pytest.fixture
def viewer(ct_phantom):
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*layers.to_layer(ct_phantom.image, "ct")))
    return viewer


def press(viewer, key):
    handler = KeymapHandler()
    active = viewer.layers.selection.active
    handler.keymap_providers = [viewer] if active is None else [active, viewer]
    return handler.press_key(key)


def test_no_key_of_naparis_is_taken(fresh):
    from napari._app_model import get_app_model
    from napari.utils.shortcuts import default_shortcuts

    ours = {str(coerce_keybinding(one.key)) for one in keys.KEYS}
    assert len(ours) == len(keys.KEYS)
    theirs = {str(key) for found in default_shortcuts.values() for key in found}
    theirs |= {str(key) for provider in PROVIDERS for key in provider.class_keymap}
    theirs |= {str(one.keybinding) for one in get_app_model().keybindings}
    # zooming napari's interface, in its View menu
    theirs |= {"Ctrl+0", "Ctrl+-", "Ctrl+="}
    assert len(theirs) > 50
    assert not ours & theirs


def test_keys_work_whatever_is_selected(fresh, viewer):
    keys.install()
    keys.install()
    scan = viewer.layers["ct"]
    labels = viewer.add_labels(np.zeros(scan.data.shape, int), scale=scan.scale)
    for active in (scan, labels, None):
        viewer.layers.selection.active = active
        assert press(viewer, "Ctrl+2")
        assert tuple(scan.contrast_limits) == (-45, 105)
        assert "Liver" in viewer.status
        assert press(viewer, "Ctrl+3")
        assert tuple(scan.contrast_limits) == (-1350, 150)


def test_the_selected_scan_is_meant_else_the_topmost_visible(fresh, viewer, mr_phantom):
    keys.install()
    ct = viewer.layers["ct"]
    mr = viewer.add_layer(Layer.create(*layers.to_layer(mr_phantom.image, "mr")))
    viewer.layers.selection.active = ct
    assert keys.scan_in_question(viewer) is ct
    viewer.layers.selection.active = None
    assert keys.scan_in_question(viewer) is mr
    mr.visible = False
    assert keys.scan_in_question(viewer) is ct
    viewer.layers.selection.active = mr
    press(viewer, "Ctrl+1")
    volume = layers.scan_volume(mr)
    assert windows.chosen(volume, tuple(mr.contrast_limits)).name == "Full"


def test_the_files_own_window(fresh, ct_phantom):
    keys.install()
    viewer = ViewerModel()
    volume = dataclasses.replace(ct_phantom.image, window=(-77.0, 123.0))
    layer = viewer.add_layer(Layer.create(*layers.to_layer(volume, "ct")))
    press(viewer, "Ctrl+1")
    press(viewer, "Ctrl+9")
    assert tuple(layer.contrast_limits) == (-77, 123)


def test_a_window_that_is_not_there_changes_nothing(fresh, viewer, mr_phantom):
    keys.install()
    press(ViewerModel(), "Ctrl+2")
    scan = viewer.layers["ct"]
    before = tuple(scan.contrast_limits)
    assert press(viewer, "Ctrl+9")
    assert tuple(scan.contrast_limits) == before
    assert "no window" in viewer.status


def test_one_key_between_image_and_labels(fresh, viewer):
    keys.install()
    assert press(viewer, "Ctrl+L")
    assert isinstance(viewer.layers["ct"], Labels)
    assert press(viewer, "Ctrl+L")
    assert isinstance(viewer.layers["ct"], Image)


def test_a_refusal_is_a_sentence(fresh):
    from napari.utils.notifications import notification_manager

    keys.install()
    viewer = ViewerModel()
    viewer.add_image(np.full((3, 4, 5), 0.5), name="soft")
    press(viewer, "Ctrl+L")
    assert "'soft' holds 0.5" in notification_manager.records[-1].message
    viewer.layers.selection.active = None
    press(viewer, "Ctrl+L")
    assert "Select one layer" in viewer.status


def test_what_a_person_has_set_rules(fresh, viewer):
    shortcuts = get_settings().shortcuts.shortcuts
    action = keys.window_action(2)
    get_settings().shortcuts.shortcuts = {**shortcuts, action: ["Ctrl+K"], keys.TOGGLE: []}
    # as napari does when a viewer opens
    action_manager.bind_shortcut(action, "Ctrl+K")
    keys.install()
    scan = viewer.layers["ct"]
    before = tuple(scan.contrast_limits)
    assert not press(viewer, "Ctrl+2")
    assert not press(viewer, "Ctrl+L")
    assert tuple(scan.contrast_limits) == before
    assert press(viewer, "Ctrl+K")
    assert tuple(scan.contrast_limits) == (-45, 105)
    assert keys.key_of(action) == "Ctrl+K"
    assert keys.key_of(keys.TOGGLE) == ""


def test_a_key_that_somebody_uses_stays_theirs(fresh, viewer):
    pressed = []
    ViewerModel.bind_key("Ctrl+3", pressed.append)
    try:
        keys.install()
        assert press(viewer, "Ctrl+3")
        assert pressed == [viewer]
        assert keys.key_of(keys.window_action(3)) == ""
        assert keys.window_action(3) in action_manager._actions
    finally:
        ViewerModel.bind_key("Ctrl+3", None)


def test_they_stand_in_naparis_preferences(fresh):
    keys.install()
    found = action_manager._get_provider_actions(ViewerModel)
    for one in keys.KEYS:
        assert found[one.action].description == one.words
        assert keys.key_of(one.action) == one.key
