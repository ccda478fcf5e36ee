"""Keys that work all over the viewer: windows, and image to labels; a person may change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.components import ViewerModel

from napari_spad import layers, notify, toggles, windows
from spad.errors import SpadError

TOGGLE = "napari-spad:image_or_labels"
BLINK = "napari-spad:blink"
NEXT_CASE = "napari-spad:next_case"
_free: dict[str, str] = {}


@dataclass(frozen=True)
class Key:
    """Something that a key does.

    Attributes:
        action: its name among napari's actions (Preferences > Shortcuts).
        key: the key that it has until a person gives it another.
        words: what it does.
        call: takes the viewer.
    """

    action: str
    key: str
    words: str
    call: Callable[[ViewerModel], None]


def install() -> None:
    """Give the keys to all viewers of this process; doing it again changes nothing.

    They are napari actions: they stand in Preferences > Shortcuts under "Viewer key bindings",
    where a person may change them. (napari 0.9 drops the `keybindings` of a plugin's manifest.)
    Nobody's key is taken: what a person has set rules, and a key that is in use stays as it is.
    """
    from napari.utils.action_manager import action_manager

    stated = _stated()
    for one in (*KEYS, *CLICK_KEYS):
        if one.action in _free:
            continue
        taken = _in_use(one.key, everywhere=one in KEYS)
        _free[one.action] = "" if taken else one.key
        action_manager.register_action(one.action, one.call, one.words, ViewerModel)
        if one.action not in stated and _free[one.action]:
            action_manager.bind_shortcut(one.action, one.key)


def key_of(action: str) -> str:
    """Give the key that an action has now, "" if none; as napari writes it on this system."""
    from napari.utils.interactions import Shortcut

    found = _stated().get(action, [_free[action]] if _free.get(action) else [])
    return str(Shortcut(found[0])) if found else ""


def window_action(number: int) -> str:
    """Name the action of a number key."""
    return f"napari-spad:window_{number}"


def scan_in_question(viewer: Any) -> Any:
    """Give the layer that a window key acts on: the selected scan, else the topmost visible one."""
    active = viewer.layers.selection.active
    candidates = [] if active is None else [active]
    candidates += [layer for layer in reversed(viewer.layers) if layer.visible]
    return next((layer for layer in candidates if layers.scan_volume(layer) is not None), None)


def show_window(viewer: Any, number: int) -> None:
    """Show the scan in question with the window of a number key."""
    layer = scan_in_question(viewer)
    volume = None if layer is None else layers.scan_volume(layer)
    if volume is None:
        viewer.status = "No scan is open."
        return
    preset = windows.by_key(number, volume)
    if preset is None:
        viewer.status = f"{layer.name} has no window {number}."
        return
    windows.apply(layer, volume, preset)
    viewer.status = f"{layer.name}: {preset.words}"


def switch_labels(viewer: Any) -> None:
    """Turn the selected layer from image to labels or back; what keeps it from that is shown."""
    layer = viewer.layers.selection.active
    if layer is None:
        viewer.status = "Select one layer first: an image or labels."
        return
    try:
        toggles.toggle(viewer, layer)
    except SpadError as error:
        notify.error(str(error))


def _window_key(number: int) -> Key:
    # napari's action manager looks at names and annotations
    def apply_window(viewer: ViewerModel) -> None:
        show_window(viewer, number)

    apply_window.__name__ = f"napari_spad_window_{number}"
    words = "Show the scan with the file's own window"
    if number != windows.OWN_KEY:
        words = f"Show the scan with window {number} of its kind"
        words += f" (CT: {windows.CT[number - 1].name})" if number <= len(windows.CT) else ""
    return Key(window_action(number), f"Ctrl+{number}", words, apply_window)


def napari_spad_image_or_labels(viewer: ViewerModel) -> None:
    """Turn the selected layer from image to labels or back."""
    switch_labels(viewer)


def napari_spad_blink(viewer: ViewerModel) -> None:
    """Blink between the scan and what a model made of it, or stop that."""
    from napari_spad.widgets import compare

    if not compare.blink(viewer):
        viewer.status = "Nothing to blink: tokenize or mask a scan first."


def napari_spad_next_case(viewer: ViewerModel) -> None:
    """Open the next case of the queue."""
    from napari_spad.widgets import queue

    if not queue.open_next(viewer):
        viewer.status = "No queue of cases is open: Plugins > SPAD > Case queue."


def _click_key(name: str, key: str, words: str) -> Key:
    # napari's action manager looks at names and annotations
    def click_key(viewer: ViewerModel) -> None:
        from napari_spad.widgets import click_part

        if not click_part.press(viewer, name):
            viewer.status = "Open Plugins > SPAD > Segment first: this key is for its clicks."

    click_key.__name__ = f"napari_spad_click_{name}"
    return Key(click_action(name), key, words, click_key)


def click_action(name: str) -> str:
    """Name the action of a key for clicks: "point", "new_object", ..."""
    return f"napari-spad:click_{name}"


def with_click_key(words: str, name: str) -> str:
    """Add the key of such an action, if it has one, to what a button says."""
    key = key_of(click_action(name))
    return f"{words} ({key})" if key else words


KEYS = (
    *(_window_key(number) for number in (*range(1, len(windows.CT) + 1), windows.OWN_KEY)),
    Key(TOGGLE, "Ctrl+L", "Turn image into labels or back", napari_spad_image_or_labels),
    Key(BLINK, "Ctrl+B", "Blink between scan and reconstruction", napari_spad_blink),
    Key(NEXT_CASE, "Ctrl+J", "Open the next case of the queue", napari_spad_next_case),
)

CLICK_KEYS = (
    _click_key("point", "P", "Clicks: points on, or off"),
    _click_key("scribble", "S", "Clicks: draw a scribble by dragging"),
    _click_key("box", "B", "Clicks: draw a box by dragging"),
    _click_key("lasso", "L", "Clicks: draw a lasso by dragging"),
    _click_key("new_object", "M", "Clicks: begin a new object"),
    _click_key("doubt", "N", "Clicks: go to the next doubtful place"),
    _click_key("repair", "R", "Clicks: repair what looks odd about the object"),
    _click_key("undo", "Ctrl+Z", "Clicks: undo"),
    _click_key("redo", "Ctrl+Shift+Z", "Clicks: redo"),
)
"""Keys that work while the scan is selected, as it is while one clicks.

napari's tools have most of these letters while labels, points or shapes are selected; they keep
them: the keys of the selected layer come first.
"""


def _stated() -> dict[str, list[Any]]:
    """Give the keys of the actions that stand in napari's settings: a person's, and napari's."""
    from napari.settings import get_settings

    return dict(get_settings().shortcuts.shortcuts)


def _in_use(key: str, *, everywhere: bool = True) -> bool:
    """Whether napari's keymaps have a key already, or those that hold while a scan is selected."""
    from napari.layers import Image, Labels
    from napari.utils.key_bindings import coerce_keybinding

    binding = coerce_keybinding(key)
    keymaps = [ViewerModel.class_keymap, Image.class_keymap]
    if everywhere:
        keymaps.append(Labels.class_keymap)
    return any(binding in keymap for keymap in keymaps)
