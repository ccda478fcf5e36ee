"""A disk that fills, a folder that becomes read-only, a clock that jumps: runs go on exactly."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import faults

from spad.training import runs
from spad.training.start import resume, train

STEPS = 80


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.training_data(tmp_path_factory.mktemp("data") / "phantoms")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nobody touched."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return train("tokenizer", [data], out, steps=STEPS, overrides=faults.TRAINING)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Equality of two runs takes equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "small"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(options, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    """Try until no file is open for writing there."""
    for _ in range(2000):
        done = subprocess.run(["mount", "-o", f"remount,{how}", str(place)], capture_output=True)
        if done.returncode == 0:
            return
    pytest.fail(done.stderr.decode())


def fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            return


@pytest.mark.parametrize("harm", ["full", "read-only"])
def test_a_run_whose_disk_fails_is_told_and_goes_on_exactly(harm, small_disk, data, whole):
    run = small_disk / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "spad", *faults.train_words(data, run, STEPS)],
        stderr=subprocess.PIPE,
        text=True,
        env=faults.environment(),
    )
    for line in process.stderr:
        if "step" in line:
            break
    fill(small_disk) if harm == "full" else remount(small_disk, "ro")
    sentence = process.stderr.read().splitlines()[-1]
    assert process.wait(60) == 2
    reason = "No space left on device" if harm == "full" else "Read-only file system"
    assert sentence.startswith("spad train: ")
    assert f"cannot be written ({reason})" in sentence
    if harm == "full":
        (small_disk / "filler").unlink()
    else:
        remount(small_disk, "rw")
    assert runs.read_state(run).state in ("failed", "stopped")
    assert faults._damage(run) == []
    resume(run)
    assert faults._differences(run, whole) == []


def test_a_clock_that_jumps_back(data, whole, tmp_path, monkeypatch):
    """Times are for people alone: nothing is ordered or counted by them."""
    run, real = tmp_path / "run", time.time
    shift = 0.0
    monkeypatch.setattr(time, "time", lambda: real() - shift)
    seen = []

    def progress(fraction: float, text: str) -> None:
        nonlocal shift
        if text.startswith("step 5, loss"):
            shift = 7200.0
        if text.startswith("step"):
            seen.append(runs.read_state(run).state)

    train("tokenizer", [data], run, steps=STEPS, overrides=faults.TRAINING, progress=progress)
    assert set(seen) == {"running"}
    assert faults._differences(run, whole) == []
    assert [info.state.state for info in runs.list_runs(tmp_path)] == ["finished"]
    shift = 0.0
    assert runs.read_state(run).state == "finished"
