"""Fixtures for tests with a real viewer: a screen, models, small ways to look and click."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
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
