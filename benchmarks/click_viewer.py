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
    from napari_spad import jobs, layers
    from spad.cli.tables import table
    from spad.data.simulated_user import next_click

    npe2.PluginManager.instance().discover()
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    volume = spad.read(options.labels)
    truth = np.asarray(layers.to_layer(volume, "truth", role="labels")[0])
    opened = time.perf_counter()
    (scan,) = viewer.open(options.scan, plugin="napari-spad")
    part = viewer.window.add_plugin_dock_widget("napari-spad", "Segment")[1].click
    part.button.click()
    mouse = Mouse(viewer)
    answers: list[float] = []
    for signal in (part.session.previewed, part.session.answered):
        signal.connect(lambda *what: answers.append(time.perf_counter()))
    rows: list[dict[str, Any]] = []
    encoded = float("nan")
    for label, name in (volume.label_names or {}).items():
        wanted = truth == label
        if (options.label and name not in options.label) or not wanted.any():
            continue
        for number in range(options.clicks):
            session = part.session
            labels = None if session is None else session.layer
            thing = None if session is None else session.objects.get(name)
            found = np.zeros(wanted.shape, bool)
            if labels is not None and thing is not None:
                found = np.asarray(labels.data) == thing.label
            click = next_click(wanted, found, scan.scale)
            if click is None:
                break
            world = np.array(scan.data_to_world(click[0]))
            viewer.dims.set_point(0, world[0])
            if number == 0:
                part.names.setEditText(name)
                part.new_button.click()
            live(0.5)
            answers.clear()
            begun = mouse.press(world, click[1])
            live(120, lambda: bool(answers))
            live(1, lambda: mouse.drawn > answers[0])
            shown = mouse.drawn - begun
            live(120, lambda: not part.session.busy and not part.session.waiting)
            live(1, lambda: mouse.drawn > answers[-1])
            early = not part.session.features_ready
            rows.append(
                {
                    "label": name,
                    "click": number + 1,
                    "shown": shown,
                    "whole": mouse.drawn - begun,
                    "before_features": early,
                }
            )
            if len(rows) == 1:
                first_mask = mouse.drawn - opened
                live(300, lambda: part.session.features_ready)
                encoded = time.perf_counter() - opened
                live(1)
    after = rows[1:]
    print(
        table(
            ["label", "click", "shown", "whole"],
            [
                [row["label"], str(row["click"]), f"{row['shown']:.2f}", f"{row['whole']:.2f}"]
                for row in rows
            ],
        )
    )
    report = {
        "open_to_first_mask": first_mask,
        "open_to_features": encoded,
        **{
            f"{key}_{p}": float(np.percentile([row[key] for row in after], p))
            for key in ("shown", "whole")
            for p in (50, 95)
        },
        "clicks": len(after),
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps({**report, "rows": rows}, indent=1))
    jobs.close_client()
    viewer.close()


if __name__ == "__main__":
    main()
