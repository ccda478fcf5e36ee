"""Fixtures for tests with a real viewer: a screen, models, small ways to look and click."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import npe2
import numpy as np
import pytest

os.environ.setdefault("NAPARI_CONFIG", "")
VIT = {"dim": 32, "depth": 2, "heads": 2, "position_grid": (2, 4, 4)}
ORGANS = {1: "spleen", 2: "liver", 3: "right_kidney", 4: "left_kidney"}
CODES = 64
SMALL = {"Segment": "small-organs", "Tokenizer": "small-tokens", "Masking": "small-masks"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as needing a screen."""
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker("gui")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip where there is no screen, fail where one is required; Qt itself would abort."""
    if not sys.platform.startswith("linux"):
        return
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    if os.environ.get("SPAD_REQUIRE_SCREEN") == "1":
        pytest.fail("a screen is required (SPAD_REQUIRE_SCREEN=1) but there is none")
    pytest.skip("there is no screen; run under xvfb-run")


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a SPAD_HOME with three small untrained models: their answers are always the same."""
    import torch

    from spad.checkpoints.card import Card
    from spad.checkpoints.file import save
    from spad.models.segmenter import Segmenter
    from spad.models.tokenizer import Tokenizer
    from spad.models.vit import MaskedImageModel
    from spad.volumes.intensity import CT, MR

    home = tmp_path_factory.mktemp("home")
    folder = home / "models"
    folder.mkdir()
    torch.manual_seed(0)
    card = {"architecture": {}, "intensity": {"CT": CT, "MR": MR}, "licence": "none"}
    save(
        folder / "small-tokens.safetensors",
        Tokenizer(in_channels=1, channels=(8, 16, 32), codes=CODES),
        Card("tokenizer", "small-tokens", **card),
    )
    save(
        folder / "small-masks.safetensors",
        MaskedImageModel({"in_channels": 1, **VIT}, codes=CODES),
        Card("mim", "small-masks", tokenizer="small-tokens", **card),
    )
    segmenter = Segmenter(
        in_channels=1,
        classes=5,
        vit={**VIT, "depth": 4},
        blocks=(0, 1, 2, 3),
        decoder_channels=(16, 16, 16, 16),
        encoder_channels=(8, 8, 16, 16),
    )
    save(
        folder / "small-organs.safetensors",
        segmenter,
        Card("segmenter", "small-organs", labels=ORGANS, window=[16, 64, 64], **card),
    )
    return home


@pytest.fixture
def home(small_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use that SPAD_HOME."""
    monkeypatch.setenv("SPAD_HOME", str(small_models))
    return small_models


@pytest.fixture
def viewer(home: Path, make_napari_viewer_proxy: Callable) -> Iterator[object]:
    """Open a real viewer that knows the plugin; its worker ends with the test."""
    from napari_spad import jobs

    npe2.PluginManager.instance().discover()
    model = make_napari_viewer_proxy(show=True)
    model.window.resize(1500, 950)
    yield model
    jobs.close_client()


@pytest.fixture
def dock(viewer: object, qtbot: object) -> Callable[[str], object]:
    """Open a dock by its name, with a small model whatever models ship."""

    def open_dock(name: str) -> object:
        _, widget = viewer.window.add_plugin_dock_widget("napari-spad", name)
        if hasattr(widget, "models"):
            widget.models.setCurrentText(SMALL[name])
            assert widget.models.currentText() == SMALL[name]
        settle()
        return widget

    return open_dock


@pytest.fixture(scope="session")
def clicker(small_models):
    """Make a clicker that draws a ball where it is told, and less where it is told not to."""
    import torch

    from spad.checkpoints.card import Card
    from spad.checkpoints.file import save
    from spad.data.cohort import model_contracts
    from spad.models.clicker import INPUTS, Clicker

    width = 4
    network = Clicker(8, channels=(width, 4, 4, 4))
    first, last = network.encoder[0], network.ups[0].mix
    with torch.no_grad():
        for one in network.parameters():
            if one.ndim > 1:
                one.zero_()
        for name, weight in {"positive": 1, "previous": 1, "negative": -3}.items():
            first.conv1.weight[0, INPUTS.index(name), 1, 1, 1] = weight
        first.conv2.weight[0, 0, 1, 1, 1] = 1
        last.conv1.weight[0, width, 1, 1, 1] = 1
        last.conv2.weight[0, 0, 1, 1, 1] = 1
        network.head.weight[0, 0] = 1
        network.head.bias[0] = -1
    path = small_models / "models" / "small-clicks.safetensors"
    card = Card(
        "clicker",
        "small-clicks",
        architecture={},
        intensity=model_contracts(),
        segmenter="small-organs",
        licence="none",
    )
    save(path, network, card)
    return path


@pytest.fixture
def scan(viewer, ct_phantom):
    """Show the CT phantom."""
    from napari_spad import layers

    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    return viewer.add_image(data, **kwargs)


@pytest.fixture
def truth(viewer, scan, ct_phantom):
    """The phantom's true organs on it, as an opened labels file would be."""
    from napari_spad import layers

    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "truth", role="labels")
    return viewer.add_labels(data, **kwargs)


@pytest.fixture(scope="session")
def phantoms():
    """Three small abdomens."""
    from spad.phantoms import phantom

    return [phantom(seed, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64)) for seed in range(3)]


@pytest.fixture
def own_home(home, clicker, tmp_path, monkeypatch):
    """A SPAD_HOME of the test's own, with the small models and the clicker."""
    shutil.copytree(home / "models", tmp_path / "models")
    monkeypatch.setenv("SPAD_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def part(viewer, clicker, scan, dock):
    """The Click part of the Segment dock, switched on."""
    from napari_spad import click_files

    shutil.rmtree(click_files.folder(), ignore_errors=True)
    widget = dock("Segment")
    made = widget.click
    made.models.setCurrentText("small-clicks")
    made.button.click()
    settle()
    assert made.on, made.status.text()
    return made


@pytest.fixture
def deep(ct_phantom):
    """Give the index, along the layer's axes, of a voxel deep inside an organ."""
    from napari_spad import layers

    data, *_ = layers.to_layer(ct_phantom.labels, "truth", role="labels")
    return lambda label: inside(np.asarray(data), label)


def settle(seconds: float = 0.2) -> None:
    """Let Qt draw."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Let Qt work until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in time"
        settle(0.02)


def run(widget: object, seconds: float = 120) -> None:
    """Click a dock's Run and wait for its end."""
    assert widget.run_row.run_button.isEnabled(), widget.run_row.status.text()
    widget.run_row.run_button.click()
    assert widget.run_row.running
    wait_for(lambda: not widget.run_row.running, seconds)
    settle()


def picture(viewer: object) -> np.ndarray:
    """Take the canvas's pixels, (height, width, 4)."""
    settle()
    return viewer.screenshot(canvas_only=True, flash=False)


def pixel_of(viewer: object, world: np.ndarray) -> tuple[int, int]:
    """Find the canvas's pixel (row, column) that shows a place on the slice that is shown."""
    camera, shown = viewer.scene.camera, list(viewer.dims.displayed)
    place = np.asarray(world, float)[shown]
    size = np.array(viewer.canvas.size)
    row, column = (place - np.array(camera.center)[-2:]) * camera.zoom + size / 2
    return round(row), round(column)


def color_at(viewer: object, world: np.ndarray) -> np.ndarray:
    """Give the colour, 0..1, with which a place is drawn."""
    row, column = pixel_of(viewer, world)
    return picture(viewer)[row, column, :3] / 255


def click(viewer: object, world: np.ndarray) -> None:
    """Click with the mouse on a place in the canvas."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    row, column = pixel_of(viewer, world)
    canvases = [
        w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")
    ]
    canvas = next(w for w in canvases if w.isVisible())
    QTest.mouseMove(canvas, QPoint(column, row))
    settle(0.05)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(column, row))
    settle(0.1)


def inside(labels: np.ndarray, label: int) -> np.ndarray:
    """Give the index of a voxel deep inside a label."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(labels == label, 1))[1:-1, 1:-1, 1:-1]
    return np.array(np.unravel_index(int(depth.argmax()), labels.shape))


def mouse(viewer, world, *more, view=None, button="left", alt=False, shift=False, ctrl=False):
    """Click on a place, or drag from there through others; `view` is one of the three planes."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    pressed = Qt.MouseButton.RightButton if button == "right" else Qt.MouseButton.LeftButton
    keys = Qt.KeyboardModifier.NoModifier
    for held, key in ((alt, "Alt"), (shift, "Shift"), (ctrl, "Control")):
        keys = keys | getattr(Qt.KeyboardModifier, f"{key}Modifier") if held else keys
    places = (world, *more)
    if view is None:
        canvases = [
            w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")
        ]
        canvas = next(w for w in canvases if w.isVisible())
        points = [QPoint(*reversed(pixel_of(viewer, one))) for one in places]
    else:
        canvas = view.native
        points = [view.pixel_of(one[-3:]).toPoint() for one in places]
    QTest.mouseMove(canvas, points[0])
    settle(0.05)
    QTest.mousePress(canvas, pressed, keys, points[0])
    for one, other in pairwise(points):
        for share in (0.25, 0.5, 0.75, 1):
            step = one + (other - one) * share
            _move(canvas, step, pressed, keys)
            settle(0.02)
    QTest.mouseRelease(canvas, pressed, keys, points[-1])
    settle(0.05)


def _move(canvas, at, button, keys):
    """Move with a button held: QTest forgets the button."""
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    place = QPointF(at)
    everywhere = QPointF(canvas.mapToGlobal(at))
    event = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, button, button, keys)
    QApplication.sendEvent(canvas, event)


def alive(pid: int) -> bool:
    """Whether a process is still at work."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def beside(index, *step):
    return tuple(int(n) for n in np.add(index, step))


def said() -> str:
    """Give the last notification."""
    from napari.utils.notifications import notification_manager

    return str(notification_manager.records[-1].message)


def given(part):
    """Where the active object's prompts are, as indices of the layer, and whether they add."""
    session = part.session
    prompts = session.objects[session.active].prompts
    return [(tuple(session.turned.index(one.voxels)[0].tolist()), one.positive) for one in prompts]


def answered(part, seconds=60):
    wait_for(lambda: not part.session.busy and not part.session.answers.waiting, seconds)
    settle(0.05)


def show(viewer, scan, index):
    world = np.array(scan.data_to_world(index))
    viewer.dims.set_point(0, world[0])
    settle(0.05)
    return world
