"""Hundreds of broken and odd files: read correctly or refused in a sentence, fast and in little."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from corpus import CASES, Case
from corpus.build import build, run

SECONDS, MEGABYTES = 2.0, 200.0


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Make all files once."""
    return build(CASES, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def results(entries, tmp_path_factory) -> dict[str, Any]:
    """Read all files in one child process."""
    return run(entries, tmp_path_factory.mktemp("results"), timeout=240)


@pytest.fixture(scope="module")
def shown(entries, tmp_path_factory) -> dict[str, Any]:
    """Open all files through the plugin's reader in one child process."""
    return run(entries, tmp_path_factory.mktemp("shown"), napari=True, timeout=280)


def result_of(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    if (reason := case.skip()) is not None:
        pytest.skip(reason)
    assert case.id in results, "the process hung or died at this file or before it"
    found: dict[str, Any] = results[case.id]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_read_or_refused(case, results):
    result = result_of(case, results)
    assert result["good"], result["why"]
    assert result["seconds"] < SECONDS
    assert result["growth_mb"] < MEGABYTES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_in_napari(case, shown):
    """Layers, or nothing and one notification; claims count as taken memory here."""
    result = result_of(case, shown)
    assert result["good"], result["why"]
    assert result["growth_mb"] < MEGABYTES


def test_there_are_enough_of_each_kind(results):
    assert len(CASES) >= 200
    assert len({case.id for case in CASES}) == len(CASES)
    outcomes = [result["outcome"] for result in results.values()]
    assert outcomes.count("reads") >= 100
    assert outcomes.count("refused") >= 200


def test_the_corpus_can_fail(tmp_path):
    """A reader that takes all, and one that raises, are both found out."""
    from corpus.case import AFFINE, VALUES, Reads, Refused
    from corpus.nifti import cut, good

    wrong = AFFINE.copy()
    wrong[0, 3] += 1
    cases = [
        Case("X", "other place", good(), Reads(VALUES, wrong)),
        Case("X", "other voxels", good(), Reads(VALUES + 1, AFFINE)),
        Case("X", "not refused", good(), Refused(".")),
        Case("X", "refused", cut(good(), 100), Reads(VALUES, AFFINE)),
        Case("X", "other words", cut(good(), 100), Refused("no such words")),
        Case("X", "right", good(), Reads(VALUES, AFFINE)),
    ]
    (tmp_path / "files").mkdir()
    found = run(build(cases, tmp_path / "files"), tmp_path)
    assert [found[case.id]["good"] for case in cases] == [False] * 5 + [True]
