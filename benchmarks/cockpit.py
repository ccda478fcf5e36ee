"""How long the Tokenizer dock lets a person wait: the reconstruction, the next code, a slider.

Needs a screen: xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/cockpit.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SHAPE, SPACING = (150, 257, 257), (3.0, 1.5, 1.5)


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=int, default=40, help="codes to move through")
    parser.add_argument("--sliders", type=int, default=8, help="slider settings to decode")
    parser.add_argument("--model", default=None, help="a tokenizer, else the default")
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_CONFIG", "")
    import napari
    import npe2

    from napari_spad import jobs, layers
    from spad.phantoms import phantom

    volume = phantom(3, "CT", spacing=SPACING, shape=SHAPE).image
    npe2.PluginManager.instance().discover()
    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    data, kwargs, _ = layers.to_layer(volume, "ct")
    viewer.add_image(data, **kwargs)
    _, dock = viewer.window.add_plugin_dock_widget("napari-spad", "Tokenizer")
    if options.model:
        dock.models.setCurrentText(options.model)
    settle(1.0)
    shape = " x ".join(str(n) for n in reversed(SHAPE))
    print(f"{os.cpu_count()} cores; a CT of {shape}; model {dock.models.currentText()}\n")
    print("| what | seconds |\n|---|---|")
    for name in ("first reconstruction, with the start of the worker", "again, worker warm"):
        print(f"| {name} | {timed(lambda: reconstruct(dock)):.1f} |", flush=True)
        print(f"| ... of which in the worker | {stages(dock)} |", flush=True)
    pictures = timed(lambda: wait(lambda: dock.codebook._tiles is not None))
    print(f"| then until the pictures of all codes are there | {pictures:.1f} |", flush=True)
    report(dock, viewer, options)
    jobs.close_client()
    viewer.close()


def report(dock: Any, viewer: Any, options: argparse.Namespace) -> None:
    """Measure what moves once a scan is tokenized."""
    dock.compare.side_by_side.setChecked(False)
    ranking = dock.codebook.tokens.ranking
    dock.choose_code(int(ranking[0]))
    settle(0.5)
    codes = [int(code) for code in ranking[1 : options.codes]]
    taken = [timed(lambda code=code: choose(dock, viewer, code)) for code in codes]
    print(line("from code to code, drawn", taken), flush=True)
    first, whole = [], []
    for number in range(options.sliders):
        found = slide(dock, -60 + 7 * number)
        first.append(found[0])
        whole.append(found[1])
    print(line("from a slider to the slice that is shown", first))
    print(line("from a slider to all slices", whole))
    print(line("from Cancel in a tokenization to the end", [cancelled(dock) for _ in range(5)]))


def stages(dock: Any) -> str:
    """Write the seconds of each stage of the last tokenization."""
    seconds = dock.everything()["tokenize"]["seconds"]
    return ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())


def reconstruct(dock: Any) -> None:
    """Tokenize by the button, until the picture is there."""
    dock.run_row.run_button.click()
    wait(lambda: not dock.run_row.running)


def choose(dock: Any, viewer: Any, code: int) -> None:
    """Choose a code, and have it drawn."""
    from qtpy.QtWidgets import QApplication

    dock.choose_code(code)
    viewer.screenshot(canvas_only=True, flash=False)
    QApplication.processEvents()


def slide(dock: Any, value: int) -> tuple[float, float]:
    """Move the slider of the temperature; seconds to the slice and to all."""
    began = time.perf_counter()
    seen: list[float] = []
    dock.sliders.slice_decoded.connect(lambda *_: seen.append(time.perf_counter() - began))
    dock.sliders.temperature_slider.setValue(value)
    wait(lambda: not dock.sliders.busy)
    return seen[0], time.perf_counter() - began


def cancelled(dock: Any) -> float:
    """Cancel a tokenization in its middle; seconds until the dock is ready again."""
    dock.run_row.run_button.click()
    settle(1.0)
    began = time.perf_counter()
    dock.run_row.cancel_button.click()
    wait(lambda: not dock.run_row.running)
    return time.perf_counter() - began


def timed(call: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def line(name: str, seconds: list[float]) -> str:
    """Write a row with the median and the longest."""
    return f"| {name} | {statistics.median(seconds):.2f} (longest {max(seconds):.2f}) |"


def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Let Qt work until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("it took too long")
        settle(0.01)


def settle(seconds: float) -> None:
    """Let Qt work for a while."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
