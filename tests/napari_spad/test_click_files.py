"""Sessions of clicks in files: what is written when, in which order, and to whom a file belongs."""

from __future__ import annotations

import hashlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Labels

from napari_spad import click_files, click_sessions, layers
from napari_spad.click_files import Autosave
from napari_spad.click_objects import ClickObjects
from napari_spad.click_sessions import ClickSessions
from napari_spad.click_signals import ClickSignals
from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.prompts import kept
from spad.prompts.session_file import Record, read_record, scan_entry
from spad.volumes.volume import Volume

SCAN = Volume.from_array(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(4))
AUTOMATIC = {"step": "start", "source": "the automatic result"}
THERE = {"step": "start", "source": click_files.WERE_THERE}


class FakeSession(ClickSignals):
    """What `Autosave` needs of a session."""

    def __init__(self, *steps) -> None:
        super().__init__()
        self.volume, self.phase, self.active = SCAN, 0, ""
        self.entry = zoo.find("clicks-tiny")
        self.answers = SimpleNamespace(device="cpu")
        self.log, self.objects = list(steps), {}
        self.session = SimpleNamespace(labels=np.zeros((3, 3, 3), np.uint8))

    def step(self, **step) -> None:
        self.log.append(step or {"step": "undo"})
        self.session.labels[0, 0, 0] += 1
        self.logged.emit()

    def close(self) -> None: ...


class Threads:
    """Threads that run when a test says so, and tell the main one at once."""

    def __init__(self) -> None:
        self.waiting = []

    def run(self, what, done, refused) -> None:
        self.waiting.append((what, done, refused))

    def go(self, which: int = 0) -> None:
        what, done, refused = self.waiting.pop(which)
        try:
            found = what()
        except SpadError as error:
            refused(str(error))
        else:
            done(found)


@pytest.fixture
def threads(qapp, tmp_path, monkeypatch) -> Threads:
    monkeypatch.setenv("SPAD_HOME", str(tmp_path))
    made = Threads()
    monkeypatch.setattr(click_files.threads, "run", made.run)
    return made


def saved(saving: Autosave) -> tuple[int, int]:
    """Give the number of steps in a session's file, and a voxel that counts them too."""
    found = kept.read(saving.path)
    assert found.labels is not None
    return len(found.record.steps), int(found.labels[0, 0, 0])


def files() -> list[str]:
    return sorted(one.name for one in click_files.folder().glob("*"))


@pytest.mark.parametrize(
    ("steps", "is_kept"),
    [
        ([], False),
        ([THERE], False),
        ([THERE, AUTOMATIC], True),
        ([AUTOMATIC], True),
        ([{"step": "start", "source": "nothing"}], True),
        ([{"step": "prompt"}], True),
    ],
)
def test_what_a_person_did_is_kept(threads, steps, is_kept) -> None:
    """An organ from the model and an object erased are steps as well."""
    session = FakeSession(*steps)
    saving = Autosave(session)
    threads.go()
    saving._save()
    for _ in list(threads.waiting):
        threads.go()
    assert bool(files()) is is_kept
    assert not saving.pending
    saving.close()
    assert bool(files()) is is_kept


def test_labels_that_were_there_are_no_step_of_a_person(qapp, ct_phantom) -> None:
    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "truth", role="labels")
    entry = zoo.find("clicks-tiny")
    objects = ClickObjects(ClickSignals(), Labels(data, **kwargs), ct_phantom.image, entry)
    log = objects.session.log
    assert len(log) > 3
    assert not click_files.by_person(log)
    objects.start_with("liver", None, "nothing")
    assert click_files.by_person(log)
    objects.close()


def test_a_late_thread_does_not_bring_an_older_state_back(threads) -> None:
    session = FakeSession()
    saving = Autosave(session)
    threads.go()
    told = []
    saving.saved.connect(told.append)
    session.step()
    saving._save()
    session.step()
    # the thread has not come to write yet
    saving.close()
    assert saved(saving) == (2, 2)
    threads.go()
    assert saved(saving) == (2, 2)
    # a closed one writes no more
    assert not threads.waiting
    assert not told
    saving.close()
    session.step()
    assert saved(saving) == (2, 2)


def test_closing_waits_for_a_thread_that_is_writing(threads, monkeypatch) -> None:
    session = FakeSession()
    saving = Autosave(session)
    threads.go()
    began, may_end, landed = threading.Event(), threading.Event(), []

    def slow(path, record, objects, labels):
        if not began.is_set():
            began.set()
            may_end.wait(20)
        landed.append(len(record.steps))
        return kept.write(path, record, objects, labels)

    monkeypatch.setattr(click_files, "write", slow)
    session.step()
    saving._save()
    worker = threading.Thread(target=threads.go)
    worker.start()
    assert began.wait(20)
    session.step()
    threading.Timer(0.2, may_end.set).start()
    saving.close()
    worker.join(20)
    assert landed == [1, 2]
    assert saved(saving) == (2, 2)


def test_nothing_is_lost_where_the_scan_is_not_hashed_yet(threads) -> None:
    session = FakeSession()
    saving = Autosave(session)
    session.step()
    assert saving.pending
    saving.close()
    assert saved(saving) == (1, 1)
    threads.go()
    assert len(files()) == 2
    assert not threads.waiting


def test_what_cannot_be_kept_is_said_and_tried_again(threads, monkeypatch) -> None:
    session = FakeSession()
    saving = Autosave(session)
    threads.go()
    told, full = [], [True]

    def write(*state):
        if full[0]:
            raise SpadError("the disk is full.")
        return kept.write(*state)

    monkeypatch.setattr(click_files, "write", write)
    saving.refused.connect(told.append)
    session.step()
    saving._save()
    threads.go()
    assert told == ["The session could not be kept: the disk is full."]
    assert saving.pending
    saving.close()
    assert told == ["The session could not be kept: the disk is full."] * 2
    # the same, but there is room again when it is closed
    session = FakeSession()
    saving = Autosave(session)
    threads.go()
    session.step()
    saving._save()
    threads.go()
    full[0] = False
    saving.close()
    assert saved(saving) == (1, 1)


def test_changes_while_a_thread_writes_are_written_after_it(threads) -> None:
    session = FakeSession()
    saving = Autosave(session)
    threads.go()
    session.step()
    saving._save()
    session.step()
    saving._timer.stop()
    saving._save()
    assert len(threads.waiting) == 1
    threads.go()
    assert len(threads.waiting) == 1
    threads.go()
    assert saved(saving) == (2, 2)
    assert not saving.pending


def test_a_file_belongs_to_one_open_session(threads, monkeypatch) -> None:
    held = ClickSessions(None, lambda session: None, lambda *told: None)
    first, second = FakeSession(), FakeSession()
    for one in (first, second):
        held._saves[one] = Autosave(one, None, held._paths)
        threads.go(-1)
        one.step()
        held._saves[one]._save()
    # both have begun before either file is there
    paths = [held._saves[one].path for one in (first, second)]
    assert paths[0] != paths[1]
    while threads.waiting:
        threads.go()
    sha256 = scan_entry(SCAN)["sha256"]
    third = FakeSession(THERE)
    assert click_files.latest(sha256) in paths
    assert held.earlier(third, sha256) is None
    held.drop(first)
    assert held.earlier(third, sha256) == (paths[0], 1)
    assert held.earlier(FakeSession(AUTOMATIC), sha256) is None
    # a kept session whose file another session writes goes on in a file of its own
    monkeypatch.setattr(click_sessions, "ClickSession", lambda *told: FakeSession())
    monkeypatch.setattr(FakeSession, "go_on_with", lambda *told: None, raising=False)
    for path, is_own in ((paths[0], True), (paths[1], False)):
        going_on = held._begin(None, None, None, 0, kept.read(path))
        assert (held._saves[going_on].path == path) is is_own
    held.close()


def test_a_session_of_another_file_of_its_model_is_refused(threads, tmp_path) -> None:
    path = tmp_path / "a.session.json"

    def write(name: str, sha256: str) -> None:
        models = {"clicker": {"name": name, "sha256": sha256}, "segmenter": None}
        record = Record(scan_entry(SCAN), models, {}, [])
        kept.write(path, record, {}, np.zeros((3, 3, 3), np.uint8))

    own = hashlib.sha256(zoo.find("clicks-tiny").path.read_bytes()).hexdigest()
    write("clicks-tiny", own)
    assert click_files.read(path, SCAN).labels is not None
    write("clicks-tiny", "f" * 64)
    with pytest.raises(SpadError, match=f"clicker 'clicks-tiny' .*ffffffffffff.*{own[:12]}"):
        click_files.read(path, SCAN)
    # the dock says that it is not here
    write("nowhere", own)
    assert click_files.read(path, SCAN).record == read_record(path)
