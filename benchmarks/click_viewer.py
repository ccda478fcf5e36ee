"""Latency of clicks at the viewer: from mouse press to pixels, with the dock and its worker.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/click_viewer.py SCAN LABELS

Opens the scan in a real viewer, switches clicks on in the *Segment* dock and presses the mouse
where the robot user would. "shown": until the canvas has been drawn with the first answer; "whole":
with the last one, where a large object is drawn finer. The first row is a click right after
opening, before the scan's features are ready. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("NAPARI_CONFIG", "")
WINDOW = (1500, 950)


class Mouse:
    """Presses the mouse on a viewer's canvas and takes the times of what is drawn."""

    def __init__(self, viewer: Any) -> None:
        from qtpy.QtWidgets import QApplication

        self.viewer = viewer
        self.canvas: Any = next(
            one
            for one in QApplication.allWidgets()
            if type(one).__name__.startswith("CanvasBackend") and one.isVisible()
        )
        self.drawn = 0.0
        self.canvas.frameSwapped.connect(self._draw)

    def _draw(self) -> None:
        self.drawn = time.perf_counter()

    def press(self, world: np.ndarray, positive: bool) -> float:
        """Press and let go; gives the time of the press."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        camera, shown = self.viewer.scene.camera, list(self.viewer.dims.displayed)
        size = np.array(self.viewer.canvas.size)
        place = (world[shown] - np.array(camera.center)[-2:]) * camera.zoom + size / 2
        point = QPoint(round(place[1]), round(place[0]))
        button = Qt.MouseButton.LeftButton if positive else Qt.MouseButton.RightButton
        QTest.mouseMove(self.canvas, point)
        live(0.1)
        begun = time.perf_counter()
        QTest.mousePress(self.canvas, button, Qt.KeyboardModifier.NoModifier, point)
        QTest.mouseRelease(self.canvas, button, Qt.KeyboardModifier.NoModifier, point)
        return begun


def live(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let Qt work."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        QApplication.processEvents()
        time.sleep(0.002)


class Trial:
    """Clicks of the robot user in a viewer's *Segment* dock, each timed.

    Args:
        viewer: an empty one.
        path: the scan.
        labels: what is to be found, on its grid.

    Attributes:
        rows: seconds from the press until something new was `shown`, and until the `whole` answer
            was, of each click.
        first_mask, features: seconds from the opening of the scan.
    """

    def __init__(self, viewer: Any, path: Path, labels: Any) -> None:
        from napari_spad import layers

        self.viewer, self.names = viewer, labels.label_names or {}
        self.truth = np.asarray(layers.to_layer(labels, "truth", role="labels")[0])
        self.opened = time.perf_counter()
        (self.scan,) = viewer.open(path, plugin="napari-spad")
        self.part = viewer.window.add_plugin_dock_widget("napari-spad", "Segment")[1].click
        self.part.button.click()
        self.mouse = Mouse(viewer)
        self.answers: list[float] = []
        session = self.part.session
        for signal in (session.previewed, session.answered):
            signal.connect(lambda *what: self.answers.append(time.perf_counter()))
        self.rows: list[dict[str, Any]] = []
        self.first_mask = self.features = float("nan")

    def play(self, label: int, clicks: int) -> None:
        """Click on one object."""
        for number in range(clicks):
            if not self._click(label, number):
                break

    def _click(self, label: int, number: int) -> bool:
        from spad.data.simulated_user import next_click

        part, name, wanted = self.part, self.names[label], self.truth == label
        thing = part.session.objects.get(name)
        found = np.zeros(wanted.shape, bool)
        if thing is not None:
            found = np.asarray(part.session.layer.data) == thing.label
        click = next_click(wanted, found, self.scan.scale)
        if click is None:
            return False
        world = np.array(self.scan.data_to_world(click[0]))
        self.viewer.dims.set_point(0, world[0])
        if number == 0:
            part.names.setEditText(name)
            part.new_button.click()
        live(0.5)
        self.answers.clear()
        begun = self.mouse.press(world, click[1])
        live(120, lambda: bool(self.answers))
        live(1, lambda: self.mouse.drawn > self.answers[0])
        shown = self.mouse.drawn - begun
        live(120, lambda: not part.session.busy)
        live(1, lambda: self.mouse.drawn > self.answers[-1])
        self.rows.append(
            {
                "label": name,
                "click": number + 1,
                "shown": shown,
                "whole": self.mouse.drawn - begun,
                "before_features": not part.session.features_ready,
            }
        )
        if len(self.rows) == 1:
            self.first_mask = self.mouse.drawn - self.opened
            live(300, lambda: part.session.features_ready)
            self.features = time.perf_counter() - self.opened
            live(1)
        return True

    def report(self) -> dict[str, Any]:
        """Give the figures; percentiles leave the very first click out."""
        after = self.rows[1:]
        return {
            "open_to_first_mask": self.first_mask,
            "open_to_features": self.features,
            **{
                f"{key}_{p}": float(np.percentile([row[key] for row in after], p))
                for key in ("shown", "whole")
                for p in (50, 95)
            },
            "clicks": len(after),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--clicks", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    import napari
    import npe2

    import spad
    from napari_spad import jobs
    from spad.cli.tables import table

    npe2.PluginManager.instance().discover()
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    trial = Trial(viewer, options.scan, spad.read(options.labels))
    for label, name in trial.names.items():
        if (not options.label or name in options.label) and (trial.truth == label).any():
            trial.play(label, options.clicks)
    told = [
        [row["label"], str(row["click"]), f"{row['shown']:.2f}", f"{row['whole']:.2f}"]
        for row in trial.rows
    ]
    print(table(["label", "click", "shown", "whole"], told))
    report = trial.report()
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps({**report, "rows": trial.rows}, indent=1))
    jobs.close_client()
    viewer.close()


if __name__ == "__main__":
    main()
