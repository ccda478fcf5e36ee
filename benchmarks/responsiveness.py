"""How long the viewer stands still while models work, how fast a job is cancelled, what it costs.

Needs a screen: xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

BEAT_MS, SCROLL_MS = 5, 100
WINDOW = (900, 700)
SCENARIOS = {
    "idle": "nothing",
    "outside segment": "(a) a segmentation outside napari",
    "shown segment": "the same, and plain napari shows a Labels layer for each scan",
    "segment": "(b) a segmentation in the dock",
    "thread segment": "the same with thread_worker",
    "outside train": "(a) a training outside napari",
    "train": "(c) a training from the dock",
    "thread train": "the same with thread_worker",
    "outside both": "(a) both outside napari",
    "both": "(d) both from the docks, where the training makes room",
    "crowded both": "the same with a training that makes none",
}
EQUALS = {"segment": "outside segment", "train": "outside train", "both": "outside both"}
TRAINING = {
    "data.batch": "1",
    "schedule.validate_every": "100000",
    "schedule.checkpoint_every": "100000",
}


def scan() -> Any:
    """Make a CT of an abdomen, 256 x 256 x 100."""
    from spad.phantoms import phantom

    return phantom(3, "CT", spacing=(3.0, 1.6, 1.6), shape=(100, 256, 256)).image


def main() -> None:
    """Measure all and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25, help="of each scenario")
    parser.add_argument("--cancels", type=int, default=100)
    parser.add_argument("--only", choices=("stalls", "cancel", "cost"))
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(*options.load)
    elif options.part:
        print(json.dumps(PARTS[options.part[0]](options.part[1], options)))
    else:
        with tempfile.TemporaryDirectory() as home:
            os.environ["SPAD_HOME"] = home
            report(options)


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.only in (None, "stalls"):
        stalls(options)
    if options.only in (None, "cancel"):
        found = part("cancel", "", options)
        print(f"\nCancel latency over {options.cancels} random moments, in seconds:")
        print(f"median {found['median']:.3f}, 95th {found['p95']:.3f}, largest {found['max']:.3f}.")
    if options.only in (None, "cost"):
        alone = part("cost", "alone", options)["seconds"]
        beside = part("cost", "viewer", options)["seconds"]
        print(f"\nA segmentation with one thread: {alone:.2f} s without a viewer, {beside:.2f} s")
        print(f"while slices scroll: {beside / alone:.2f} times.")


def stalls(options: argparse.Namespace) -> None:
    """Print how long the viewer's thread stands still under each load."""
    print(f"{os.cpu_count()} cores; window {WINDOW[0]} x {WINDOW[1]}, software GL; a beat each")
    print(
        f"{BEAT_MS} ms while slices scroll at {1000 / SCROLL_MS:.0f}/s, {options.seconds:.0f} s.\n"
    )
    print("| load | 99th percentile (ms) | longest (ms) | excess over (a): 99th, longest | work |")
    print("|---|---|---|---|---|")
    found: dict[str, dict[str, float]] = {}
    for name, words in SCENARIOS.items():
        one = found[name] = part("stall", name, options)
        excess = ""
        equal = EQUALS.get(name.rpartition(" ")[2])
        if equal is not None and not name.startswith("outside"):
            excess = f"{one['p99'] - found[equal]['p99']:+.0f}, "
            excess += f"{one['max'] - found[equal]['max']:+.0f}"
        print(
            f"| {words} | {one['p99']:.0f} | {one['max']:.0f} | {excess} | {one['work']} |",
            flush=True,
        )


def part(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one thing in a process of its own."""
    command = [sys.executable, __file__, "--part", kind, name]
    command += ["--seconds", str(options.seconds), "--cancels", str(options.cancels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr[-3000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# The load -----------------------------------------------------------------------------------


def load(kind: str, folder: str) -> None:
    """Be a load outside napari until killed; says in a file how often it was done."""
    if kind == "train":
        words = training(Path(folder), Path(folder) / "run")
        os.execv(sys.executable, [sys.executable, "-m", "spad", *words])
    from spad.inference.segment import segment

    volume, count = scan(), 0
    while True:
        segment(volume, device="cpu")
        count += 1
        (Path(folder) / "count").write_text(str(count))


def training(folder: Path, run: Path, *, leave_room: bool = False) -> list[str]:
    """The words of `spad` for a training that lasts."""
    room = ["--trainer.leave_room", "true"] if leave_room else []
    keys = [word for key, value in TRAINING.items() for word in (f"--{key}", value)]
    where = ["--data", str(data(folder)), "--out", str(run), "--minutes", "30"]
    return ["train", "segmentation", *where, *keys, *room]


def data(folder: Path) -> Path:
    """Write two phantoms to train from."""
    from spad.phantoms import LABELS, phantom
    from spad.volumes.files import write

    path = folder / "data"
    if not path.exists():
        path.mkdir(parents=True)
        for seed in range(2):
            made = phantom(seed, "CT", spacing=(5.0, 3.0, 3.0), shape=(60, 128, 128))
            write(made.image, path / f"img{seed}.nii.gz")
            write(made.labels, path / f"label{seed}.nii.gz")
        names = {str(key): name for key, name in LABELS.items()}
        (path / "labels.json").write_text(json.dumps(names))
        (path / "split.json").write_text('{"train": ["0", "1"], "validation": []}')
    return path


# The viewer ---------------------------------------------------------------------------------


class Heart:
    """Beats on the viewer's thread and notes the gaps."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._timer.start(BEAT_MS)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.gaps.append(now - self._last)
        self._last = now

    def forget(self) -> None:
        """Begin anew."""
        self.gaps.clear()
        self._last = time.perf_counter()


@contextmanager
def viewer() -> Iterator[Any]:
    """Open a viewer with the scan, whose slices scroll."""
    os.environ.setdefault("NAPARI_CONFIG", "")
    import napari
    import npe2
    from qtpy.QtCore import QTimer

    from napari_spad import jobs, layers

    npe2.PluginManager.instance().discover()
    model = napari.Viewer(show=True)
    model.window.resize(*WINDOW)
    made, kwargs, _ = layers.to_layer(scan(), "scan")
    model.add_image(made, **kwargs)
    timer, step = QTimer(), [0]

    def scroll() -> None:
        step[0] += 1
        model.dims.set_current_step(0, abs(step[0] % 160 - 80) + 10)

    timer.timeout.connect(scroll)
    timer.start(SCROLL_MS)
    try:
        yield model
    finally:
        timer.stop()
        jobs.close_client()
        model.close()


def live(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let Qt work."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop, watch = QEventLoop(), QTimer()
    end = time.monotonic() + seconds
    watch.timeout.connect(lambda: (until() or time.monotonic() > end) and loop.quit())
    watch.start(50)
    loop.exec()


def stall(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure gaps under one load."""
    where, _, what = name.rpartition(" ")
    with tempfile.TemporaryDirectory() as folder, viewer() as model:
        place, heart = Path(folder), Heart()
        kinds = {"both": ("segment", "train"), "idle": ()}.get(what, (what,))
        kind_of = {"outside": Outside, "shown": Shown, "thread": Threads, "": Docks}
        kind_of["crowded"] = Crowded
        loads = kind_of[where](model, kinds, place)
        live(60, loads.is_going)
        live(2)
        before = loads.done()
        heart.forget()
        live(options.seconds)
        gaps = 1000 * np.array(heart.gaps)
        work = " and ".join(
            f"{after - old:.3g} {unit}"
            for (unit, after), old in zip(loads.done().items(), before.values(), strict=True)
        )
        found = {"p99": float(np.percentile(gaps, 99)), "max": float(gaps.max()), "work": work}
        if where == "thread":
            # its threads do not end with it in any good way
            print(json.dumps(found), flush=True)
            os._exit(0)
        loads.end()
    return found


class Loads:
    """What works while the heart beats."""

    def is_going(self) -> bool:
        """Whether all of it is under way."""
        return True

    def done(self) -> dict[str, float]:
        """How much is done, by unit."""
        return {}

    def end(self) -> None:
        """Stop."""


def _steps(run: Path) -> float:
    from spad.training import runs

    return float(runs.read_state(run).step) if runs.is_run(run) else 0.0


class Outside(Loads):
    """Processes that have nothing to do with the viewer."""

    def __init__(self, model: Any, kinds: tuple[str, ...], place: Path) -> None:
        self._place, self._kinds = place, kinds
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--load", kind, str(place)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for kind in kinds
        ]

    def is_going(self) -> bool:
        return all(value > 0 for value in self.done().values())

    def done(self) -> dict[str, float]:
        found = {}
        if "segment" in self._kinds:
            file = self._place / "count"
            found["scans"] = float(file.read_text() or 0) if file.exists() else 0.0
        if "train" in self._kinds:
            found["steps"] = _steps(self._place / "run")
        return found

    def end(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


class Shown(Outside):
    """The same, and napari shows an empty Labels layer whenever a segmentation is done."""

    def __init__(self, model: Any, kinds: tuple[str, ...], place: Path) -> None:
        from qtpy.QtCore import QTimer

        super().__init__(model, kinds, place)
        self._model, self._seen = model, 0.0
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(200)

    def _look(self) -> None:
        count = self.done()["scans"]
        if count > self._seen:
            self._seen = count
            for layer in self._model.layers[1:]:
                layer.visible = False
            first = self._model.layers[0]
            self._model.add_labels(
                np.zeros(first.data.shape, np.uint8),
                **{key: getattr(first, key) for key in ("scale", "translate", "units")},
            )

    def end(self) -> None:
        self._timer.stop()
        super().end()


class Docks(Loads):
    """What a person starts from the docks: as soon as a segmentation is done, the next."""

    leave_room = True

    def __init__(self, model: Any, kinds: tuple[str, ...], place: Path) -> None:
        from qtpy.QtCore import QTimer

        self._kinds, self._count = kinds, 0
        self._timer = QTimer()
        if "segment" in kinds:
            _, self._dock = model.window.add_plugin_dock_widget("napari-spad", "Segment")
            self._dock.run_row.run_button.click()
            self._timer.timeout.connect(self._again)
            self._timer.start(200)
        self._training: subprocess.Popen[bytes] | None = None
        self._run = Path(os.environ["SPAD_HOME"]) / "runs" / "bench"
        if "train" in kinds:
            _, self._train = model.window.add_plugin_dock_widget("napari-spad", "Train")
            self._training = subprocess.Popen(
                [sys.executable, "-m", "spad", *self._words(place)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._train.runs.expect(self._run)

    def _words(self, place: Path) -> list[str]:
        return training(place, self._run, leave_room=self.leave_room)

    def _again(self) -> None:
        if not self._dock.run_row.running and self._dock.run_row.run_button.isEnabled():
            self._count += 1
            self._dock.run_row.run_button.click()

    def is_going(self) -> bool:
        return all(value > 0 for value in self.done().values())

    def done(self) -> dict[str, float]:
        found: dict[str, float] = {}
        if "segment" in self._kinds:
            found["scans"] = self._count
        if "train" in self._kinds:
            found["steps"] = _steps(self._run)
        return found

    def end(self) -> None:
        self._timer.stop()
        if self._training is not None:
            self._training.kill()
            self._training.wait()
            shutil.rmtree(self._run)


class Crowded(Docks):
    """The same with a training that makes no room, as one from the command line."""

    leave_room = False


class Threads(Loads):
    """The same work on a thread of the viewer's process, as other plugins do it."""

    def __init__(self, model: Any, kinds: tuple[str, ...], place: Path) -> None:
        from napari.qt.threading import create_worker

        self._kinds, self._place = kinds, place
        self._counts = {"scans" if kind == "segment" else "steps": 0.0 for kind in kinds}
        self._workers = [
            create_worker(getattr(self, f"_{kind}"), _start_thread=True) for kind in kinds
        ]

    def _segment(self) -> None:
        from spad.inference.segment import segment

        volume = scan()
        while True:
            segment(volume, device="cpu")
            self._counts["scans"] += 1

    def _train(self) -> None:
        from spad.training.start import train

        def progress(fraction: float, text: str) -> None:
            if text.startswith("step"):
                self._counts["steps"] = float(text.split()[1].strip(","))

        train(
            "segmentation",
            [data(self._place)],
            self._place / "run",
            minutes=30,
            overrides={**TRAINING, "schedule.log_every": "1"},
            progress=progress,
        )

    def is_going(self) -> bool:
        return all(value > 0 for value in self._counts.values())

    def done(self) -> dict[str, float]:
        return dict(self._counts)


# Cancelling, and the work's own speed -------------------------------------------------------


def cancel(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Cancel segmentations at random moments, those of a cold start and of loading included."""
    from spad.errors import Cancelled
    from spad.worker.client import WorkerClient
    from spad.worker.messages import Segment

    draw, volume, waits = random.Random(0), scan(), []
    with WorkerClient() as client:
        began = time.monotonic()
        client.submit(Segment(volume, device="cpu")).result()
        cold = time.monotonic() - began
        while len(waits) < options.cancels:
            if draw.random() < 0.2 and client.pid is not None:
                os.kill(client.pid, signal.SIGKILL)  # the next one starts cold
            job = client.submit(Segment(volume, device="cpu"))
            time.sleep(draw.uniform(0, cold))
            began = time.monotonic()
            job.cancel()
            try:
                job.result()
            except Cancelled:
                waits.append(time.monotonic() - began)
    middle, high = np.percentile(waits, [50, 95])
    return {"median": float(middle), "p95": float(high), "max": float(max(waits))}


def cost(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Time a segmentation that leaves a core free, with and without a viewer beside it."""
    from spad.worker.client import WorkerClient
    from spad.worker.messages import Segment

    os.environ |= {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "1"}
    volume, seconds = scan(), []
    with WorkerClient() as client:

        def measure(wait: Callable[[Any], None]) -> None:
            wait(client.submit(Segment(volume, device="cpu")))
            for _ in range(4):
                job = client.submit(Segment(volume, device="cpu"))
                wait(job)
                seconds.append(job.result().report["seconds"]["total"])

        if name == "alone":
            measure(lambda job: job.result())
        else:
            with viewer():
                measure(lambda job: live(120, lambda: job.done))
    return {"seconds": float(np.median(seconds))}


PARTS: dict[str, Callable[[str, argparse.Namespace], dict[str, Any]]] = {
    "stall": stall,
    "cancel": cancel,
    "cost": cost,
}


if __name__ == "__main__":
    main()
