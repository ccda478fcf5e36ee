"""Corrections that are kept, and models that come and go, without a screen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Labels

from napari_spad import improving, locks
from napari_spad.before_after import Comparison, Row, Trial
from napari_spad.history import history_of
from napari_spad.improving import Improvement
from spad.checkpoints import zoo
from spad.data.folder import read_source
from spad.errors import SpadError
from spad.prompts.prompt import point
from spad.prompts.session import Object
from spad.training import runs
from spad.volumes.files import read

SPLEEN, LIVER, STOMACH = 1, 6, 7


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def keep(ct_phantom):
    """Keep the phantom's scan, or one of another brightness, with some of its organs."""

    def one(number=0, names=None):
        scan = ct_phantom.image
        scan = scan.with_array(scan.array, slope=1.0, intercept=float(number))
        labels = improving.only(ct_phantom.labels, names or {LIVER: "liver"})
        return improving.keep("organs-tiny", f"scan{number}", scan, labels)

    return one


def test_one_scan_is_one_case_whose_organs_alone_are_known(home, keep, ct_phantom):
    first = keep()
    assert (first.scan, first.organs, first.held_out) == ("scan0", ("liver",), False)
    [case] = read_source(first.folder).cases
    assert read_source(first.folder).names_of(case) == {LIVER: "liver"}
    drawn = read(case.labels, labels=True)
    assert np.count_nonzero(drawn.array) == np.count_nonzero(ct_phantom.labels.array == LIVER)
    again = keep(names={LIVER: "liver", SPLEEN: "spleen"})
    assert improving.corrections("organs-tiny") == [again]
    assert again.organs == ("liver", "spleen")
    assert again.first_kept == first.first_kept
    assert not first.folder.exists()
    assert set(read_source(again.folder).label_names.values()) == {"liver", "spleen"}


def test_an_organ_that_was_erased_is_known_to_be_absent(home, keep, ct_phantom):
    labels = improving.only(ct_phantom.labels, {LIVER: "liver"})
    labels = labels.with_array(np.zeros_like(labels.array), label_names={LIVER: "liver"})
    made = improving.keep("organs-tiny", "scan", ct_phantom.image, labels)
    source = read_source(made.folder)
    assert source.names_of(source.cases[0]) == {LIVER: "liver"}


def test_the_second_and_then_every_fifth_scan_is_held_out_for_good(home, keep):
    held = [keep(number).held_out for number in range(8)]
    assert held == [False, True, False, False, False, False, True, False]
    assert keep(1).held_out
    assert not keep(0).held_out
    [case] = read_source(keep(1).folder).cases
    assert case.validation
    assert len(improving.corrections("organs-tiny")) == 8
    assert improving.corrections("another") == []


def test_a_scan_that_is_left_out_is_not_learnt_from_and_comes_back(home, keep):
    [first, second] = [keep(number) for number in range(2)]
    model = zoo.find("organs-tiny")
    improving.leave_out(second, left_out=True)
    assert [one.left_out for one in improving.corrections("organs-tiny")] == [False, True]
    assert len(improving.plan(model).data) == 1
    shutil.rmtree(home / "data")  # the name of the next plan may be the same
    assert keep(2).held_out  # in the place of the one that judged
    improving.leave_out(improving.corrections("organs-tiny")[1], left_out=False)
    assert len(improving.plan(model).data) == 3
    improving.leave_out(first, left_out=True)
    assert not keep(0).left_out  # kept anew


def test_what_was_kept_stays_when_it_cannot_be_replaced(home, keep, monkeypatch):
    first = keep()

    def full(*_):
        raise SpadError("The disk is full.")

    monkeypatch.setattr(improving, "write_cases", full)
    with pytest.raises(SpadError, match="full"):
        keep()
    assert improving.corrections("organs-tiny") == [first]
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name]


def test_a_damaged_note_is_told(home, keep):
    (keep().folder / "correction.json").write_text("{}")
    with pytest.raises(SpadError, match=r"correction\.json cannot be read"):
        improving.corrections("organs-tiny")


class TestCorrected:
    @pytest.fixture
    def layer(self):
        data = np.zeros((4, 16, 16), np.uint8)
        data[:, :8], data[:, 8:12] = LIVER, STOMACH
        layer = Labels(data)
        layer.brush_size = 1
        history_of(layer)
        return layer

    def test_nothing_at_first(self, layer):
        assert improving.corrected(layer) == set()

    def test_what_was_painted_and_not_what_lay_under_it(self, layer):
        layer.paint((1, 10, 3), LIVER)
        assert improving.corrected(layer) == {LIVER}
        layer.undo()
        assert improving.corrected(layer) == set()
        layer.redo()
        assert improving.corrected(layer) == {LIVER}

    def test_what_was_erased_or_edited(self, layer):
        layer.paint((1, 10, 3), 0)
        assert improving.corrected(layer) == {STOMACH}
        history_of(layer).change("Smooth", (slice(0, 1), slice(0, 2), slice(0, 2)), 0)
        assert improving.corrected(layer) == {STOMACH, LIVER}

    def test_what_is_locked(self, layer):
        locks.lock(layer, {STOMACH})
        assert improving.corrected(layer) == {STOMACH}

    def test_what_was_clicked_on(self, layer):
        liver, stomach = Object(LIVER, "liver", (point((1, 2, 3)),)), Object(STOMACH, "stomach")
        assert improving.corrected(layer, [liver, stomach]) == {LIVER}


def test_a_run_learns_from_what_is_kept_now(home, keep):
    for number in range(2):
        keep(number)
    plan = improving.plan(zoo.find("organs-tiny"))
    words = plan.arguments(home / "run")
    assert words[:2] == ["train", "improve"]
    assert words[words.index("--init") + 1] == "organs-tiny"
    assert words[words.index("--preset") + 1] == "tiny"
    assert plan.name.startswith("improve-organs-tiny-")
    keep(1, {SPLEEN: "spleen"})
    sources = [read_source(folder) for folder in plan.data]
    assert [source.cases[0].validation for source in sources] == [False, True]
    assert [source.label_names for source in sources] == [{LIVER: "liver"}] * 2
    assert all(case.image.is_file() for source in sources for case in source.cases)


def test_improved_models_are_one_family():
    assert improving.family_of("organs-tiny-improved-12") == "organs-tiny"
    assert improving.family_of("organs-tiny") == "organs-tiny"
    assert improving.is_improved("organs-tiny-improved-1")
    assert not improving.is_improved("much-improved")


def test_only_our_own_network_can_be_improved():
    entry = zoo.find("organs-tiny")
    assert improving.why_not(entry) == ""
    other = replace(entry, card=replace(entry.card, architecture={"network": "swin_unetr"}))
    assert improving.why_not(other).startswith("organs-tiny has another network")


@pytest.fixture
def run(home, tmp_path, ct_phantom):
    """A run that improved the shipped model, which learnt nothing."""
    place = home / "runs" / "improve-organs-tiny-20260101-120000"
    run = runs.create(place, {"task": "segmentation", "init": "organs-tiny"})
    with runs.RunWriter(run) as writer, writer.checkpoint(5) as folder:
        shutil.copy(zoo.find("organs-tiny").path, folder / zoo.MODEL_FILE)
    trial = Trial(run, "organs-tiny", runs.RunCase("c/0001_ct_mine", "i", "l", held_out=True))
    drawn = replace(ct_phantom.labels, label_names={LIVER: "liver", SPLEEN: "spleen"})
    names = {LIVER: "liver", SPLEEN: "spleen", STOMACH: "stomach", 8: "aorta"}
    labels = improving.only(ct_phantom.labels, names)
    other = labels.array.copy()
    other[:, :, ::2][other[:, :, ::2] == STOMACH] = 0
    found = [Comparison(trial, ct_phantom.image, drawn, step=5) for _ in range(2)]
    for number, one in enumerate(found):
        one.found.update(before=labels, after=labels.with_array(other, label_names=names))
        for side, rise in (("before", 0.0), ("after", 0.1)):
            dice = {"liver": {"dice": 0.5 + rise + 0.2 * number}, "spleen": {"dice": 0.25}}
            one.reports[side] = {"labels": dice if number else {"liver": dice["liver"]}}
    improving.note_result(run, found)
    return run


def test_what_came_of_a_run_is_noted_down(run):
    assert improving.latest_run("organs-tiny") == run
    assert improving.latest_run("organs") is None
    found = improving.read_result(run)
    assert found.scans == ("mine", "mine")
    rows = {row.name: row for row in found.rows}
    assert rows["liver"].before == pytest.approx(0.6)
    assert rows["liver"].after == pytest.approx(0.7)
    assert rows["spleen"] == Row("spleen", 0.25, 0.25)
    assert found.means == pytest.approx((0.425, 0.475))
    assert found.is_better
    assert found.changed == ("stomach",)
    assert found.model == ""
    assert improving.read_result(run.parent) is None


@pytest.mark.parametrize(("after", "better"), [(0.5, False), (0.49, False), (0.51, True)])
def test_equal_is_not_better(after, better):
    assert Improvement(("a",), (Row("liver", 0.5, after),), 10).is_better is better


def test_a_model_is_used_and_gone_back_from_and_used_again(home, run):
    entry = improving.use(run)
    assert entry.name == "organs-tiny-improved-1"
    assert improving.in_use("organs-tiny") == entry.name
    assert improving.read_result(run).model == entry.name
    assert improving.use(run) == entry
    tuned = replace(entry, card=replace(entry.card, provenance={"init": "organs-tiny"}))
    assert improving.go_back(tuned) == "organs-tiny"
    assert entry.name not in {one.name for one in zoo.models()}
    assert improving.in_use("organs-tiny") == ""
    assert zoo.aside(entry.name).is_file()
    assert improving.new_name("organs-tiny") == "organs-tiny-improved-2"
    assert improving.use(run).name == entry.name
    assert not zoo.aside(entry.name).exists()
    # a model before that is gone by now
    gone = replace(entry, card=replace(entry.card, provenance={"init": "organs-tiny-improved-7"}))
    assert improving.before(gone) == "organs-tiny"


def test_going_back_one_step_of_two(home, run):
    first = improving.use(run)
    shutil.copy(first.path, zoo.place_for("organs-tiny-improved-2"))
    second = zoo.find("organs-tiny-improved-2")
    second = replace(second, card=replace(second.card, provenance={"init": first.name}))
    assert improving.go_back(second) == first.name
    assert improving.in_use("organs-tiny") == first.name


def test_shipped_models_stay(home):
    with pytest.raises(SpadError, match="ships with the package"):
        zoo.set_aside("organs-tiny")
    with pytest.raises(SpadError, match="cannot be moved"):
        zoo.bring_back("organs-tiny-improved-1")


def test_a_kept_scan_is_written_as_the_train_dock_writes_it(home, keep):
    folder = keep().folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "correction.json",
        "img0001_ct_scan0.nii.gz",
        "label0001_ct_scan0.nii.gz",
        "labels.json",
        "split.json",
    ]
    assert json.loads((folder / "split.json").read_text())["train"] == ["0001_ct_scan0"]
