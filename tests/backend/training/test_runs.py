"""The run directory: what a killed, full or doubled writer must not harm."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spad.errors import SpadError
from spad.processes import ProcessIdentity, process_start, this_process
from spad.training import run_files, runs
from spad.training.runs import RunWriter

RECIPE = {"task": "mim", "optimiser": {"lr": 3e-4}, "data": [Path("scans")], "rate": float("nan")}

WRITER = """
import sys, time
from pathlib import Path
from spad.training.runs import RunWriter
run = Path(sys.argv[1])
try:
    with RunWriter(run) as writer:
        writer.update(7, "training")
        writer.append_metrics(7, "train", {"loss": 1.0})
        with writer.checkpoint(7) as folder:
            (folder / "model.safetensors").write_bytes(b"seven")
        print("ready", flush=True)
        time.sleep(120)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def run(tmp_path):
    return runs.create(tmp_path / "run", RECIPE)


@pytest.fixture
def start_writer(run):
    """Start another process that writes the run and wait until it does."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        assert line.strip() == "ready", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write_checkpoint(writer, step, content=b"weights"):
    with writer.checkpoint(step) as folder:
        (folder / "model.safetensors").write_bytes(content)
        (folder / "state").mkdir()
        (folder / "state" / "optimiser.safetensors").write_bytes(content * 2)


def fail_in_checkpoint(writer, step, error):
    with writer.checkpoint(step) as folder:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error


def append_many(writer, count):
    for step in range(count):
        writer.append_metrics(step, "train", {"note": "x" * 500})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_is_listed_and_waits(run):
    assert names(run) == [
        "cases.json",
        "checkpoints",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "recipe.yaml",
        "samples",
        "state.json",
    ]
    assert runs.read_recipe(run) == {
        "task": "mim",
        "optimiser": {"lr": 3e-4},
        "data": ["scans"],
        "rate": None,
    }
    assert runs.read_state(run).state == "stopped"
    assert runs.read_metrics(run) == ([], 0, False)
    [info] = runs.list_runs(run.parent)
    assert (info.path, info.recipe, info.state.state) == (run, "mim", "stopped")


def test_a_run_never_takes_the_place_of_another(run):
    with pytest.raises(SpadError, match="training run already"):
        runs.create(run, RECIPE)
    assert runs.new_run_path(run) == run.with_name("run-2")
    runs.create(runs.new_run_path(run), RECIPE)
    assert runs.new_run_path(run) == run.with_name("run-3")
    assert runs.new_run_path(run.with_name("other")) == run.with_name("other")
    (run.parent / "empty").mkdir()
    assert runs.create(run.parent / "empty", RECIPE) == run.parent / "empty"


def test_the_list_shows_damaged_runs_and_leaves_other_folders_out(run):
    (run.parent / "pictures").mkdir()
    damaged = runs.create(run.with_name("damaged"), RECIPE)
    (damaged / "state.json").write_text('{"state": "runn')
    found = {info.path.name: info.state for info in runs.list_runs(run.parent)}
    assert set(found) == {"run", "damaged"}
    assert found["damaged"].state == "failed"
    assert "cannot be read" in found["damaged"].message
    assert runs.list_runs(run.parent / "nowhere") == []
    assert [info.path for info in runs.list_runs(run)] == [run]


def test_states_follow_how_the_writer_ends(run):
    with RunWriter(run) as writer:
        writer.update(3, "step 3")
        assert runs.read_state(run).state == "running"
        assert runs.read_state(run).process == this_process()
    assert runs.read_state(run).state == "finished"
    assert runs.read_state(run).step == 3
    with RunWriter(run) as writer:
        writer.stop("Its minutes are over.")
    assert runs.read_state(run).state == "stopped"
    assert runs.read_state(run).message == "Its minutes are over."
    assert runs.read_state(run).step == 3
    with pytest.raises(KeyboardInterrupt), RunWriter(run):
        raise KeyboardInterrupt
    assert runs.read_state(run).state == "stopped"
    with pytest.raises(ZeroDivisionError), RunWriter(run):
        raise ZeroDivisionError("no\nvoxels")
    assert runs.read_state(run).state == "failed"
    assert runs.read_state(run).message == "ZeroDivisionError: no voxels"
    assert not (run / "lock").exists()
    starts = json.loads((run / "environment.json").read_text())["starts"]
    assert len(starts) == 4
    assert starts[0]["packages"]["numpy"]


def test_the_heartbeat_goes_on_while_the_step_takes_long(run, monkeypatch):
    monkeypatch.setattr(runs, "HEARTBEAT_SECONDS", 0.05)
    with RunWriter(run) as writer:
        first = runs.read_state(run).heartbeat
        writer.update(11, "a long step")
        time.sleep(0.5)
        state = runs.read_state(run)
    assert state.heartbeat > first
    assert (state.step, state.message) == (11, "a long step")


def test_one_writer_at_a_time(run, start_writer):
    start_writer()
    with pytest.raises(SpadError, match="is being written by process"), RunWriter(run):
        pass
    assert runs.read_state(run).state == "running"


def test_of_many_writers_at_once_one_gets_the_lock(run):
    (run / "lock").write_text(json.dumps(dead_process().to_json() | {"time": time.time()}))
    start, won, refused = threading.Barrier(8), [], []

    def take():
        start.wait()
        try:
            won.append(run_files.take_lock(run, this_process(), 0.0))
        except SpadError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [(run / "lock").read_text()]
    assert len(refused) == 7
    assert [name for name in names(run) if "lock" in name] == ["lock"]


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = this_process()
    identity = ProcessIdentity(me.host, process.pid, process_start(process.pid))
    assert identity.is_alive() is True
    process.kill()
    process.communicate()
    assert identity.is_alive() is False
    return identity


def test_kill_9_leaves_a_run_that_the_next_process_continues(run, start_writer):
    process = start_writer()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ti')
    (run / "checkpoints" / ".step-8").mkdir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = runs.read_state(run)
    assert state.state == "stopped"
    assert "without a word" in state.message
    assert (run / "lock").exists()
    with RunWriter(run) as writer:
        found = runs.load_checkpoint_folder(run)
        assert (found.step, found.torn) == (7, ())
        writer.rewind(found.step)
        writer.append_metrics(8, "train", {"loss": 0.5})
        assert runs.read_state(run).state == "running"
        assert runs.read_state(run).step == 7
    assert [record["step"] for record in runs.read_metrics(run).records] == [7, 8]
    assert names(run / "checkpoints") == ["last", "step-7"]


def test_an_id_that_is_used_again_is_another_process(run):
    with RunWriter(run):
        pass
    me = this_process()
    other = {**me.to_json(), "start": me.start + "1"}
    state = json.loads((run / "state.json").read_text()) | {"state": "running"} | other
    state["heartbeat"] = time.time()
    (run / "state.json").write_text(json.dumps(state))
    (run / "lock").write_text(json.dumps({**other, "time": time.time()}))
    assert runs.read_state(run).state == "stopped"
    with pytest.raises(SpadError, match="not running"):
        runs.request_stop(run)
    with RunWriter(run):
        assert runs.read_state(run).state == "running"


@pytest.mark.parametrize("silent_for", [10, 70])
def test_a_run_on_another_machine_is_judged_by_its_heartbeat(run, silent_for):
    with RunWriter(run):
        pass
    beat = time.time() - silent_for
    other = {"host": "another-machine", "pid": 1, "start": "x-1"}
    state = json.loads((run / "state.json").read_text())
    state |= {"state": "running", "heartbeat": beat, **other}
    (run / "state.json").write_text(json.dumps(state))
    (run / "lock").write_text(json.dumps({**other, "time": beat}))
    if silent_for < 60:
        assert runs.read_state(run).state == "running"
        with pytest.raises(SpadError, match="another-machine"):
            runs.request_stop(run)
        with pytest.raises(SpadError, match="on another-machine"), RunWriter(run):
            pass
    else:
        assert runs.read_state(run).state == "stopped"
        with RunWriter(run):
            assert runs.read_state(run).process == this_process()


def test_a_writer_that_lost_its_run_stops(run, monkeypatch):
    monkeypatch.setattr(runs, "HEARTBEAT_SECONDS", 0.05)

    def train():
        with RunWriter(run) as writer:
            (run / "lock").write_text("another's")
            for step in range(100):
                writer.append_metrics(step, "train", {})
                time.sleep(0.05)

    with pytest.raises(SpadError, match="Another process has taken"):
        train()
    assert (run / "lock").read_text() == "another's"
    # how the run stands is for the new owner to say
    assert json.loads((run / "state.json").read_text())["state"] == "running"


def test_an_interrupt_reaches_the_running_process(run, start_writer):
    process = start_writer()
    runs.request_stop(run)
    assert process.wait(timeout=20) == 130
    state = runs.read_state(run)
    assert (state.state, state.step) == ("stopped", 7)
    with pytest.raises(SpadError, match="nothing to stop"):
        runs.request_stop(run)


def test_metrics_are_plain_json_and_read_in_pieces(run):
    with RunWriter(run) as writer:
        writer.append_metrics(1, "train", {"loss": float("nan"), "lr": 1e-3})
        first = runs.read_metrics(run)
        writer.append_metrics(2, "validation", {"dice": float("inf")})
        second = runs.read_metrics(run, first.offset)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3')
        third = runs.read_metrics(run, second.offset)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for line in (run / "metrics.jsonl").read_text().splitlines()[:2]:
        json.loads(line, parse_constant=refuse)
    assert first.records[0] | {"time": 0} == {
        "step": 1,
        "time": 0,
        "phase": "train",
        "loss": None,
        "lr": 1e-3,
    }
    assert [record["step"] for record in second.records] == [2]
    assert third == ([], second.offset, False)


def test_a_reader_notices_that_the_metrics_were_cut_back(run):
    with RunWriter(run) as writer:
        for step in range(10):
            writer.append_metrics(step, "train", {"loss": step / 7})
        offset = runs.read_metrics(run).offset
        writer.rewind(3)
        again = runs.read_metrics(run, offset)
        assert again.restarted
        assert [record["step"] for record in again.records] == [0, 1, 2, 3]
        # grown past the old place, which now lies within a line
        writer.append_metrics(4, "train", {"text": "x" * 2000})
        again = runs.read_metrics(run, offset)
        assert again.restarted
        assert [record["step"] for record in again.records] == [0, 1, 2, 3, 4]
        assert runs.read_metrics(run, again.offset) == ([], again.offset, False)


def test_the_best_and_the_last_two_checkpoints_stay(run):
    with RunWriter(run) as writer:
        for step in (10, 20, 30, 40, 50):
            write_checkpoint(writer, step)
            if step == 20:
                writer.mark_best(step)
    assert names(run / "checkpoints") == ["best", "last", "step-20", "step-40", "step-50"]
    assert (run / "checkpoints" / "last").read_text() == "step-50\n"
    assert runs.load_checkpoint_folder(run, "best").step == 20
    assert runs.load_checkpoint_folder(run).step == 50
    sums = json.loads((run / "checkpoints" / "step-50" / "checksums.json").read_text())["files"]
    assert sorted(sums) == ["model.safetensors", "state/optimiser.safetensors"]
    assert sums["model.safetensors"]["bytes"] == 7


@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "unseal"])
def test_a_torn_checkpoint_gives_way_to_the_one_before(run, harm):
    with RunWriter(run) as writer:
        write_checkpoint(writer, 10)
        write_checkpoint(writer, 20)
    model = run / "checkpoints" / "step-20" / "model.safetensors"
    if harm == "flip":
        model.write_bytes(b"Weights")
    elif harm == "cut":
        model.write_bytes(b"wei")
    elif harm == "lose":
        (model.parent / "state" / "optimiser.safetensors").unlink()
    else:
        (model.parent / "checksums.json").write_text("{")
    found = runs.load_checkpoint_folder(run)
    assert (found.step, found.path.name, found.torn) == (10, "step-10", ("step-20",))
    with RunWriter(run) as writer:
        writer.rewind(10)
        assert names(run / "checkpoints") == ["last", "step-10"]
        write_checkpoint(writer, 20)
    assert runs.load_checkpoint_folder(run).step == 20


def test_without_any_whole_checkpoint_there_is_one_sentence(run):
    with pytest.raises(SpadError, match="no whole checkpoint;"):
        runs.load_checkpoint_folder(run)
    with RunWriter(run) as writer:
        write_checkpoint(writer, 10)
    (run / "checkpoints" / "step-10" / "checksums.json").unlink()
    with pytest.raises(SpadError, match="step-10 are damaged"):
        runs.load_checkpoint_folder(run)


def test_a_checkpoint_that_fails_leaves_nothing_and_harms_nothing(run):
    with RunWriter(run) as writer:
        write_checkpoint(writer, 10)
        with pytest.raises(ZeroDivisionError):
            fail_in_checkpoint(writer, 20, ZeroDivisionError())
        full = OSError(28, "No space left on device", "model.safetensors")
        with pytest.raises(SpadError, match=r"model\.safetensors cannot be written"):
            fail_in_checkpoint(writer, 20, full)
        assert names(run / "checkpoints") == ["last", "step-10"]
        # the same step again takes the place of the older one
        write_checkpoint(writer, 10, b"again")
    found = runs.load_checkpoint_folder(run)
    assert (found.path / "model.safetensors").read_bytes() == b"again"
    assert names(run / "checkpoints") == ["last", "step-10"]


@pytest.mark.skipif(sys.platform != "linux", reason="a small tmpfs needs Linux")
def test_a_full_disk_loses_no_line_that_was_written(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        run = runs.create(small / "run", RECIPE)
        with RunWriter(run) as writer:
            write_checkpoint(writer, 10)
            with pytest.raises(SpadError, match="No space left"):
                append_many(writer, 10_000)
            with pytest.raises(SpadError, match="No space left"):
                write_checkpoint(writer, 20, b"w" * 200_000)
        text = (run / "metrics.jsonl").read_bytes()
        assert text.endswith(b"\n")
        steps = [record["step"] for record in runs.read_metrics(run).records]
        assert steps == list(range(len(steps)))
        assert len(steps) > 100
        assert runs.load_checkpoint_folder(run).step == 10
        assert runs.read_state(run).state in ("finished", "running", "stopped")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_folder_that_cannot_be_written_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpadError, match="cannot be written"):
        runs.create(tmp_path / "file" / "run", RECIPE)


def test_no_run_here(tmp_path):
    for read in (runs.read_recipe, runs.read_state):
        with pytest.raises(SpadError, match="expected the folder of a training run"):
            read(tmp_path)
    with pytest.raises(SpadError), RunWriter(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_reading_runs_imports_no_torch():
    code = (
        "import sys, spad.training.runs; "
        "print(sorted({'torch', 'lightning', 'napari', 'qtpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
