"""Fewer labels: a share of the labelled training scans of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spad.data.cases import Folder
from spad.data.store import Store
from spad.errors import SpadError


def fewer_labels(source: Folder | Store, ratio: float, seed: int) -> Folder | Store:
    """Keep a share of the labelled training scans; those for validation all stay.

    Args:
        source: a folder or store.
        ratio: above 0, at most 1; at least one scan is kept. With equal seeds a larger share holds
            a smaller one.
        seed: which scans are drawn.

    Raises:
        SpadError: the ratio is no share.
    """
    if not 0 < ratio <= 1:
        raise SpadError(
            f"The label ratio is {ratio:g}; expected a share above 0 and at most 1; correct it."
        )
    if ratio == 1:
        return source
    if isinstance(source, Store):
        ours = [row.part == "train" and row.labels for row in source.rows]
        kept = _kept(ours, ratio, seed)
        return replace(source, rows=tuple(source.rows[index] for index in kept))
    ours = [not case.validation and case.labels is not None for case in source.cases]
    return replace(source, cases=tuple(source.cases[index] for index in _kept(ours, ratio, seed)))


def _kept(drawn_from: Sequence[bool], ratio: float, seed: int) -> list[int]:
    """List the places that stay: all that are not drawn from, and a share of the others."""
    places = np.flatnonzero(drawn_from)
    count = max(1, round(ratio * len(places)))
    left_out = np.random.default_rng(seed).permutation(places)[count:]
    return [index for index in range(len(drawn_from)) if index not in left_out]
