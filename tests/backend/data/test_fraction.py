"""Fewer labels: how many scans stay, which, and that those for validation do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from spad.data.cases import Case, Folder
from spad.data.fraction import fewer_labels
from spad.errors import SpadError


def folder() -> Folder:
    path = Path("data")
    cases = [
        Case(f"data/{n}", (path / f"img{n}.nii",), path / f"label{n}.nii", n >= 10)
        for n in range(13)
    ]
    return Folder(path, (*cases, Case("data/x", (path / "imgx.nii",), None, False)), {1: "liver"})


def drawn(ratio: float, seed: int = 0) -> set[str]:
    kept = fewer_labels(folder(), ratio, seed)
    assert isinstance(kept, Folder)
    assert {"data/10", "data/11", "data/12", "data/x"} <= {case.name for case in kept.cases}
    return {case.name for case in kept.cases if case.labels and not case.validation}


def test_a_larger_share_holds_a_smaller_one() -> None:
    shares = [drawn(ratio) for ratio in (0.01, 0.2, 0.6, 1.0)]
    assert [len(share) for share in shares] == [1, 2, 6, 10]
    assert all(a < b for a, b in pairwise(shares))


def test_the_seed_says_which() -> None:
    assert drawn(0.3, 1) == drawn(0.3, 1)
    assert len({frozenset(drawn(0.3, seed)) for seed in range(8)}) > 3


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.2])
def test_no_share(ratio: float) -> None:
    with pytest.raises(SpadError, match="above 0 and at most 1"):
        fewer_labels(folder(), ratio, 0)
