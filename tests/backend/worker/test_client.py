"""The client and its worker process, with real processes that are stopped, killed and orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from spad.errors import Cancelled, SpadError
from spad.processes import process_start
from spad.volumes.volume import Volume
from spad.worker.client import OurFault, WorkerClient, WorkerDied
from spad.worker.describe import describe
from spad.worker.messages import Describe, Request, Segment, Warm

posix_only = pytest.mark.skipif(os.name != "posix", reason="stops a process with a signal")


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Heard:
    """Callbacks that write down what they are told, and on which thread."""

    def __init__(self):
        self.progress, self.results, self.errors, self.threads = [], [], [], set()
        self.going = threading.Event()

    def on_progress(self, fraction, text):
        self.threads.add(threading.current_thread())
        self.progress.append((fraction, text))
        self.going.set()

    def on_result(self, value):
        self.threads.add(threading.current_thread())
        self.results.append(value)

    def on_error(self, error):
        self.threads.add(threading.current_thread())
        self.errors.append(error)

    @property
    def callbacks(self):
        return {
            "on_progress": self.on_progress,
            "on_result": self.on_result,
            "on_error": self.on_error,
        }


def running(client, request):
    """Submit a request and wait until the worker reports on it."""
    heard = Heard()
    job = client.submit(request, **heard.callbacks)
    assert heard.going.wait(30)
    return job, heard


def in_files(client):
    return sorted(path.name for folder in client.folders for path in folder.glob("in*"))


def test_nothing_starts_before_the_first_job(client, parents, scan):
    assert client.pid is None
    assert client.folders == ()
    assert [path for parent in parents for path in parent.iterdir()] == []
    client.submit(Describe(scan)).result(30)
    assert client.pid != os.getpid()
    assert process_start(client.pid) is not None
    for folder in client.folders:
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_answer_is_that_of_the_same_function_here(client, scan):
    marks = (scan.array > 1500).astype(np.uint8)
    labels = scan.with_array(marks, label_names={1: "bright"})
    heard = Heard()
    job = client.submit(Describe(scan, labels), **heard.callbacks)
    expected = describe(scan, labels)
    assert job.result(30) == expected
    wait_until(lambda: heard.results)
    assert heard.results == [expected]
    assert heard.errors == []
    assert job.done
    assert threading.main_thread() not in heard.threads
    assert len(heard.threads) == 1


def test_progress_arrives_in_order(client, endless):
    job, heard = running(client, Describe(endless))
    wait_until(lambda: len(heard.progress) >= 5)
    job.cancel()
    fractions = [fraction for fraction, _ in heard.progress]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[4] < 1
    assert {text for _, text in heard.progress} == {"Started", "Measuring"}


def test_a_large_array_crosses_exactly_and_once(client):
    array = np.random.default_rng(1).integers(-1000, 3000, (96, 512, 512)).astype(np.int16)
    view = array.transpose(0, 2, 1)[::-1, :, ::-1]
    scan = Volume.from_array(view, np.eye(4))
    report = client.submit(Describe(scan)).result(120)
    assert report["voxels"] == array.size
    assert report["mean"] == pytest.approx(array.mean(dtype=float), abs=1e-9)
    assert in_files(client) == ["in0"]
    [path] = [folder / "in0" for folder in client.folders if (folder / "in0").exists()]
    crossed = np.fromfile(path, dtype=np.int16).reshape(view.shape)
    np.testing.assert_array_equal(crossed, view)
    client.submit(Describe(scan)).result(120)
    assert in_files(client) == ["in0"]


def test_jobs_are_done_one_at_a_time_in_their_order(client, scan):
    done = []
    jobs = [
        client.submit(Describe(scan), on_result=lambda _, number=number: done.append(number))
        for number in range(8)
    ]
    for job in jobs:
        job.result(30)
    wait_until(lambda: len(done) == 8)
    assert done == list(range(8))
    assert [job.id for job in jobs] == list(range(1, 9))


def test_a_working_job_stops_within_half_a_second(client, endless, scan):
    job, heard = running(client, Describe(endless))
    pid = client.pid
    began = time.monotonic()
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(5)
    assert time.monotonic() - began < 0.5
    wait_until(lambda: heard.errors)
    assert isinstance(heard.errors[0], Cancelled)
    assert heard.results == []
    client.submit(Describe(scan)).result(30)
    assert client.pid == pid, "a job that listens must not cost the worker its life"


@posix_only
def test_a_job_that_does_not_listen_stops_too_and_the_worker_is_replaced(client, endless, scan):
    job, _ = running(client, Describe(endless))
    pid = client.pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(5)
    assert 0.3 < time.monotonic() - began < 0.5
    assert client.submit(Describe(scan)).result(30) == describe(scan)
    assert client.pid != pid
    assert not psutil.pid_exists(pid), "the killed worker was not waited for"


def test_waiting_jobs_can_be_cancelled_while_another_runs(client, endless, scan):
    first, _ = running(client, Describe(endless))
    second = client.submit(Describe(scan))
    third = client.submit(Describe(scan))
    second.cancel()
    with pytest.raises(Cancelled):
        second.result(0.5)
    assert not first.done
    assert not third.done
    first.cancel()
    assert third.result(30) == describe(scan)


def test_a_job_can_be_cancelled_at_any_moment(client, scan, endless):
    """At random instants from before the worker starts until after the job is done."""
    random = np.random.default_rng(7)
    longest = 0.0
    for wait in random.uniform(0.0, 0.3, 12):
        job = client.submit(Describe(endless))
        time.sleep(wait)
        began = time.monotonic()
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(5)
        longest = max(longest, time.monotonic() - began)
    assert longest < 0.5
    assert client.submit(Describe(scan)).result(30) == describe(scan)


def test_cancelling_what_is_done_changes_nothing(client, scan):
    job = client.submit(Describe(scan))
    expected = job.result(30)
    job.cancel()
    assert job.result(0) == expected
    assert client.submit(Describe(scan)).result(30) == expected


@posix_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_is_reported_and_restarted(client, endless, scan, number):
    client.submit(Describe(scan)).result(30)
    job, heard = running(client, Describe(endless))
    wait_until(lambda: heard.progress[-1][1] == "Measuring")
    waiting = client.submit(Describe(scan))
    pid = client.pid
    os.kill(pid, number)
    with pytest.raises(WorkerDied) as died:
        job.result(10)
    message = str(died.value)
    assert signal.Signals(number).name in message
    assert "while it was measuring a scan" in message
    assert "\n" not in message
    if number == signal.SIGSEGV:
        assert "'Fatal Python error: Segmentation fault'" in message
        assert "describe.py" in died.value.log
    assert waiting.result(30) == describe(scan)
    assert heard.errors == [died.value]
    assert client.pid != pid
    assert not psutil.pid_exists(pid)
    # what was sent is still there for the new worker
    assert in_files(client) == ["in0", "in1"]


@posix_only
def test_a_worker_killed_while_idle_costs_no_job(client, scan):
    client.submit(Describe(scan)).result(30)
    pid = client.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: client.pid is None)
    # nobody has waited for it yet, perhaps
    wait_until(lambda: not psutil.pid_exists(pid))
    # and with the next job on its way before anybody could see that it died
    for _ in range(10):
        assert client.submit(Describe(scan)).result(30) == describe(scan)
        os.kill(client.pid, signal.SIGKILL)
    assert client.submit(Describe(scan)).result(30) == describe(scan)


def test_a_worker_that_cannot_start_is_reported(client, scan, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(WorkerDied, match=r"exit code 1\b.*while it was starting"):
        client.submit(Describe(scan)).result(30)
    monkeypatch.delenv("PYTHONHOME")
    assert client.submit(Describe(scan)).result(30) == describe(scan)


def test_errors_of_input_and_errors_of_ours(client, scan):
    other = Volume.from_array(np.zeros((3, 3, 3), np.uint8), np.eye(4), label_names={})
    with pytest.raises(SpadError, match="another grid") as refused:
        client.submit(Describe(scan, other)).result(30)
    assert type(refused.value) is SpadError
    pid = client.pid
    with pytest.raises(OurFault, match="TypeError: no handler for a request of type Request"):
        client.submit(Request()).result(30)
    log = (client.folders[-1] / "worker.log").read_text()
    assert "Traceback" in log
    assert client.submit(Describe(scan)).result(30) == describe(scan)
    assert client.pid == pid


def test_a_callback_that_fails_harms_nobody(client, scan, caplog):
    def fail(*_):
        raise ZeroDivisionError

    job = client.submit(Describe(scan), on_progress=fail, on_result=fail)
    assert job.result(30) == describe(scan)
    assert client.submit(Describe(scan)).result(30) == describe(scan)
    assert "a callback of a job failed" in caplog.text


def test_a_scan_that_is_closed_leaves_shared_memory(client, scan):
    other = Volume.from_array(np.ones((30, 40, 50), dtype=np.int16), np.eye(4))
    client.submit(Describe(other)).result(30)
    client.submit(Describe(scan)).result(30)
    assert in_files(client) == ["in0", "in1"]
    worker = psutil.Process(client.pid)
    assert any(part.path.endswith("in0") for part in worker.memory_maps())
    del other
    wait_until(lambda: in_files(client) == ["in1"])
    wait_until(lambda: not any("in0" in part.path for part in worker.memory_maps()))


def test_closing_ends_everything_at_once(parents, scan, endless):
    client = WorkerClient(parents)
    job, heard = running(client, Describe(endless))
    waiting = client.submit(Describe(scan))
    pid = client.pid
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 1
    assert not psutil.pid_exists(pid)
    for ended in (job, waiting):
        with pytest.raises(Cancelled):
            ended.result(0)
    assert len(heard.errors) == 1
    assert [path for parent in parents for path in parent.iterdir()] == []
    with pytest.raises(SpadError, match="closed"):
        client.submit(Describe(scan))
    client.close()


def test_closing_from_a_callback(parents, scan):
    client = WorkerClient(parents)
    client.submit(Describe(scan), on_result=lambda _: client.close()).result(30)
    wait_until(lambda: not any(list(parent.iterdir()) for parent in parents))
    assert client.pid is None


PARENT = """
import os, sys, time
from pathlib import Path
import numpy as np
from spad.volumes.volume import Volume
from spad.worker.client import WorkerClient
from spad.worker.messages import Describe
parents = [Path(name) for name in sys.argv[2:]]
client = WorkerClient(parents)
endless = Volume.from_array(np.zeros((1_000_000, 2, 2), dtype=np.int16), np.eye(4))
client.submit(Describe(endless), on_progress=lambda *_: going.append(1))
going = []
while not going:
    time.sleep(0.01)
print(client.pid, flush=True)
if sys.argv[1] == "fork" and os.fork() == 0:
    os.close(1)
    time.sleep(60)
if sys.argv[1] != "exit":
    time.sleep(60)
"""


def start_parent(how, parents):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, how, *map(str, parents)], stdout=subprocess.PIPE, text=True
    )


@posix_only
@pytest.mark.parametrize("how", ["wait", "fork"])
def test_the_worker_ends_when_its_parent_is_killed(parents, how):
    """Even if a fork of the parent holds the worker's pipes open."""
    parent = start_parent(how, parents)
    worker = psutil.Process(int(parent.stdout.readline()))
    wait_until(lambda: how == "wait" or len(psutil.Process(parent.pid).children()) == 2)
    forks = [child for child in psutil.Process(parent.pid).children() if child != worker]
    parent.kill()
    parent.communicate()
    worker.wait(timeout=5)
    for fork in forks:
        fork.kill()
    # nobody was left to remove its folders; the next client does
    assert all(list(folder.iterdir()) for folder in parents)
    with WorkerClient(parents) as client:
        client.submit(Describe(Volume.from_array(np.ones((2, 2, 2)), np.eye(4)))).result(30)
        assert [len(list(folder.iterdir())) for folder in parents] == [1, 1]
    assert [path for folder in parents for path in folder.iterdir()] == []


def test_the_worker_ends_with_a_parent_that_just_exits(parents):
    parent = start_parent("exit", parents)
    pid = int(parent.stdout.readline())
    assert parent.wait(timeout=20) == 0
    parent.stdout.close()
    assert not psutil.pid_exists(pid)
    assert [path for folder in parents for path in folder.iterdir()] == []


def test_ctrl_c_in_the_terminal_is_not_for_the_worker(client, endless):
    job, _ = running(client, Describe(endless))
    assert os.getpgid(client.pid) != os.getpgid(0)
    job.cancel()


@posix_only
def test_the_viewer_goes_before_the_worker(client, scan):
    client.submit(Describe(scan)).result(30)
    assert psutil.Process(client.pid).nice() == psutil.Process().nice() + 5


def test_the_key_is_not_on_the_command_line(client, scan):
    client.submit(Describe(scan)).result(30)
    command = psutil.Process(client.pid).cmdline()
    assert command[1:] == ["-P", "-m", "spad.worker.server"]
    assert not [path for folder in client.folders for path in folder.glob("*.part")]


def test_a_long_folder_name_does_not_matter(tmp_path, scan):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with WorkerClient([deep]) as client:
        assert client.submit(Describe(scan)).result(30) == describe(scan)
    assert list(deep.iterdir()) == []


def test_the_client_imports_no_torch():
    code = (
        "import sys, spad.worker.client, spad.worker.messages; "
        "print(sorted({'torch', 'nibabel', 'napari', 'qtpy', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_warm_loads_torch_in_the_worker_only(client, scan):
    client.submit(Describe(scan)).result(30)
    worker = psutil.Process(client.pid)
    before = worker.memory_info().rss
    report = client.warm(device="cpu").result(120)
    assert report["device"] == "cpu"
    assert worker.memory_info().rss > before + 50e6
    again = client.submit(Warm(device="cpu")).result(30)
    assert again["seconds"] < 0.5 * report["seconds"]


def test_a_model_that_does_not_exist_is_an_error_of_input(client, scan):
    with pytest.raises(SpadError, match="no model called 'nothing'"):
        client.submit(Segment(scan, "nothing", "CT", "cpu")).result(120)


def test_default_folders_are_private_and_go_away(scan):
    with WorkerClient() as client:
        client.submit(Describe(scan)).result(30)
        folders = client.folders
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
        if Path("/dev/shm").is_dir():
            assert folders[0].parent == Path("/dev/shm")
    assert not any(folder.exists() for folder in folders)
