"""Which labels files of two folders belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from spad.errors import SpadError
from spad.evaluation.folders import pair


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
