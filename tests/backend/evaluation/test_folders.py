"""Which labels files of two folders belong together, and means over cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from spad.errors import SpadError
from spad.evaluation.bootstrap import interval_of_mean
from spad.evaluation.folders import pair, summarize
from spad.evaluation.metrics import FIGURES, mean_figures


@pytest.fixture
def folders(tmp_path: Path):
    """Make two folders of empty files."""

    def make(ours: list[str], theirs: list[str]) -> tuple[Path, Path]:
        for name, files in (("ours", ours), ("theirs", theirs)):
            (tmp_path / name).mkdir()
            for file in files:
                (tmp_path / name / file).touch()
        return tmp_path / "ours", tmp_path / "theirs"

    return make


@pytest.mark.parametrize(
    ("ours", "theirs", "partner"),
    [
        (["a.nii.gz"], ["a.nii.gz"], "a.nii.gz"),
        (["a_labels.nii.gz"], ["a.nii.gz"], "a.nii.gz"),
        (["a_labels.nii.gz"], ["a.nii.gz", "a_seg.nii.gz"], "a_seg.nii.gz"),
        (["img07_labels.nii.gz"], ["img07.nii.gz", "label07.nii.gz"], "label07.nii.gz"),
        (["img07.nii"], ["img07.nii.gz", "label07.nii.gz"], "label07.nii.gz"),
        (["07_labels.nii.gz"], ["label07.nii.gz"], "label07.nii.gz"),
        (["label07.nii.gz"], ["label07.hdr", "label07.img", "labels.json"], "label07.hdr"),
    ],
)
def test_partners(folders, ours: list[str], theirs: list[str], partner: str) -> None:
    found = pair(*folders(ours, theirs))
    assert [(a.name, b.name) for a, b in found.pairs.values()] == [(ours[0], partner)]
    assert found.without_prediction == found.without_reference == []


def test_scans_beside_predictions_are_passed_over(folders) -> None:
    ours = ["a.nii.gz", "a_labels.nii.gz", "b.nii.gz", "b_labels.nii.gz"]
    found = pair(*folders(ours, ["a.nii.gz", "c.nii.gz"]))
    assert list(found.pairs) == ["a"]
    assert found.without_reference == ["b_labels.nii.gz"]
    assert found.without_prediction == ["c.nii.gz"]


def test_two_labels_of_one_case(folders) -> None:
    with pytest.raises(SpadError, match=r"a_labels\.nii\.gz and a_seg\.nii\.gz"):
        pair(*folders(["a_labels.nii.gz", "a_seg.nii.gz"], ["a.nii.gz"]))


def test_nothing_in_common(folders) -> None:
    with pytest.raises(SpadError, match="No labels file"):
        pair(*folders(["a.nii.gz"], ["b.nii.gz"]))


class TestSummary:
    @staticmethod
    def case(name: str, **dice: float) -> dict:
        """A case whose figures all equal its Dice, distances undefined where that is 0."""
        labels = {
            label: {f: value if value or f in ("dice", "nsd_1mm") else None for f in FIGURES}
            for label, value in dice.items()
        }
        return {"case": name, "labels": labels, "mean": mean_figures(labels.values())}

    def test_a_label_counts_where_it_occurs(self) -> None:
        cases = [self.case("a", liver=0.9, spleen=0.0), self.case("b", liver=0.8)]
        cases.append(self.case("c", liver=0.6, spleen=0.5))
        found = summarize(cases, "mm")
        assert found["cases"] == cases
        assert found["labels"]["spleen"]["dice"] == 0.25
        assert found["labels"]["spleen"]["hd"] == 0.5
        assert found["mean"]["dice"] == pytest.approx((0.45 + 0.8 + 0.55) / 3)
        intervals = found["intervals"]
        assert intervals["labels"]["liver"]["dice"] == interval_of_mean([0.9, 0.8, 0.6])
        assert intervals["labels"]["spleen"]["dice"] == interval_of_mean([0.0, 0.5])
        assert intervals["labels"]["spleen"]["hd"] is None
        means = [case["mean"]["dice"] for case in cases]
        assert intervals["mean"]["dice"] == interval_of_mean(means)
        assert (intervals["confidence"], intervals["resamples"]) == (0.95, 2000)

    def test_one_case_has_no_intervals(self) -> None:
        intervals = summarize([self.case("a", liver=0.9)], "mm")["intervals"]
        assert set(intervals["labels"]["liver"].values()) == {None}
        assert set(intervals["mean"].values()) == {None}
