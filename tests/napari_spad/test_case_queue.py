"""A folder of scans, its queue.json, and what happens where it cannot be read or written."""

from __future__ import annotations

import json

import pytest

from napari_spad.case_queue import DONE, DOUBTFUL, UNCERTAINTY, CaseQueue
from spad.errors import SpadError
from spad.volumes.files import disk


@pytest.fixture
def folder(tmp_path):
    names = ("b.nii.gz", "A.nrrd", "c.mha", "d.hdr", "d.img", "b_labels.nii.gz", "c.seg.nrrd")
    for name in (*names, "label0001.nii.gz", "notes.txt", "photo.png", ".hidden.nii"):
        (tmp_path / name).touch()
    series = tmp_path / "patient.1"
    series.mkdir()
    (series / "0001.dcm").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(queue):
    return [case.name for case in queue.cases]


def test_scans_are_listed_and_labels_are_not(folder):
    queue = CaseQueue(folder)
    assert names(queue) == ["A.nrrd", "b.nii.gz", "c.mha", "d.hdr", "patient.1"]
    assert queue.counts() == {"open": 5, "doubtful": 0, "done": 0}
    assert queue["b.nii.gz"].labels_path == folder / "b_labels.nii.gz"
    assert queue["patient.1"].labels_path == folder / "patient.1_labels.nii.gz"
    assert not (folder / "queue.json").exists()


def test_next_goes_round_the_open_ones(folder):
    queue = CaseQueue(folder)
    assert queue.next().name == "A.nrrd"
    assert queue.next("A.nrrd").name == "b.nii.gz"
    assert queue.next("patient.1").name == "A.nrrd"
    queue.mark("b.nii.gz", DOUBTFUL)
    queue.mark("c.mha", DONE)
    assert queue.next("A.nrrd").name == "d.hdr"
    for name in ("A.nrrd", "d.hdr"):
        queue.mark(name, DONE)
    assert queue.next().name == "patient.1"
    assert queue.next("patient.1") is None


def test_states_last(folder):
    queue = CaseQueue(folder)
    queue.mark("A.nrrd", DONE)
    queue.set_uncertainty("A.nrrd", 0.25, "organs 1")
    again = CaseQueue(folder, {"organs 1"})
    assert (again["A.nrrd"].state, again["A.nrrd"].uncertainty) == (DONE, 0.25)
    assert again["b.nii.gz"].state == "open"


def test_the_least_sure_come_first(folder):
    queue = CaseQueue(folder, {"organs 1"})
    queue.set_uncertainty("c.mha", 0.9, "organs 1")
    queue.set_uncertainty("b.nii.gz", 0.1, "organs 1")
    queue.order = UNCERTAINTY
    assert names(queue) == ["c.mha", "b.nii.gz", "A.nrrd", "d.hdr", "patient.1"]
    assert queue.next("c.mha").name == "b.nii.gz"


def test_figures_of_another_model_do_not_count(folder):
    queue = CaseQueue(folder, {"organs 1"})
    queue.order = UNCERTAINTY
    queue.set_uncertainty("c.mha", 0.9, "organs 1")
    queue.set_uncertainty("b.nii.gz", 0.1, "organs 2")
    assert (queue["c.mha"].uncertainty, queue["b.nii.gz"].uncertainty) == (0.9, None)
    assert names(queue)[0] == "c.mha"
    queue.raters = {"organs 2"}
    assert (queue["c.mha"].uncertainty, queue["b.nii.gz"].uncertainty) == (None, 0.1)
    assert names(queue)[0] == "b.nii.gz"


def test_what_others_note_down_meanwhile_stays(folder):
    one, other = CaseQueue(folder), CaseQueue(folder)
    one.mark("A.nrrd", DONE)
    text = json.loads((folder / "queue.json").read_text())
    text["cases"]["gone.nii"] = {"state": "done", "by": "somebody"}
    text["project"] = "liver"
    (folder / "queue.json").write_text(json.dumps(text))
    other.mark("c.mha", DOUBTFUL)
    found = json.loads((folder / "queue.json").read_text())
    assert found == {
        "project": "liver",
        "cases": {
            "A.nrrd": {"state": "done"},
            "gone.nii": {"state": "done", "by": "somebody"},
            "c.mha": {"state": "doubtful"},
        },
    }
    assert "gone.nii" not in names(CaseQueue(folder))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"cases": {"A.nrrd"', "Expecting"),
        ("[]", 'no "cases"'),
        ('{"cases": 3}', 'no "cases"'),
        ('{"cases": {"A.nrrd": {"state": "perhaps"}}}', "none of open, doubtful, done"),
        ('{"cases": {"A.nrrd": {"uncertainty": "much"}}}', "no number"),
        ('{"cases": {"A.nrrd": {"rater": 3}}}', "no text"),
        ("\x00\xff", "holds no list"),
    ],
)
def test_a_broken_list_is_a_sentence_and_stays(folder, text, why):
    queue = CaseQueue(folder)
    file = folder / "queue.json"
    file.write_text(text, "latin-1")
    before = file.read_bytes()
    for call in (lambda: CaseQueue(folder), lambda: queue.mark("A.nrrd", DONE)):
        with pytest.raises(SpadError, match=r"queue\.json holds no list of cases") as error:
            call()
        assert why in str(error.value)
    assert file.read_bytes() == before
    assert queue["A.nrrd"].state == "open"


def test_empty_and_absent_folders_are_a_sentence(tmp_path):
    with pytest.raises(SpadError, match="holds no scan"):
        CaseQueue(tmp_path)
    with pytest.raises(SpadError, match="cannot be read"):
        CaseQueue(tmp_path / "absent")


def test_a_read_only_folder_is_a_sentence_and_the_state_stays(folder, monkeypatch):
    queue = CaseQueue(folder)
    queue.mark("A.nrrd", DONE)

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk.tempfile, "mkdtemp", refuse)
    with pytest.raises(SpadError, match="may not be written to"):
        queue.mark("c.mha", DONE)
    assert queue["c.mha"].state == "open"
    assert json.loads((folder / "queue.json").read_text()) == {
        "cases": {"A.nrrd": {"state": "done"}}
    }
