"""A model's answer laid into earlier labels: inside a box, and around what is locked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from napari_spad.organ_layers import counts, renumbered

if TYPE_CHECKING:
    from napari_spad.box import Intervals

Names = dict[int, str]


def merge(
    new: np.ndarray,
    names: Mapping[int, str],
    old: np.ndarray,
    old_names: Mapping[int, str],
    box: Intervals | None = None,
    locked: Iterable[int] = (),
) -> tuple[np.ndarray, Names, set[int]]:
    """Lay an answer into earlier labels.

    Args:
        new: the answer, (S-I, A-P, R-L).
        names: its id to name.
        old: earlier labels on the same voxels.
        old_names: their id to name; labels are matched by their names.
        box: where the answer counts; None for everywhere.
        locked: ids of earlier labels that stay where they are, and come nowhere else.

    Returns:
        The labels in the answer's ids, id to name, and the ids of the locked ones.
    """
    table, all_names = _table(counts(old), old_names, names)
    before = renumbered(old, table)
    made = np.array(new, dtype=before.dtype)
    if box is not None:
        made, inside = before.copy(), tuple(slice(*pair) for pair in box)
        made[inside] = new[inside]
    fixed = {table[label] for label in locked if label in table}
    if fixed:
        made[np.isin(made, list(fixed))] = 0
        stays = np.isin(before, list(fixed))
        made[stays] = before[stays]
    return made.astype(np.min_scalar_type(max(all_names, default=0))), all_names, fixed


def _table(
    ids: Iterable[int], old_names: Mapping[int, str], names: Mapping[int, str]
) -> tuple[dict[int, int], Names]:
    """Give earlier ids the answer's ids of the same names, to others one that is free."""
    by_name = {name: label for label, name in names.items()}
    all_names, table = dict(names), {}
    for label in ids:
        name = old_names.get(label, str(label))
        if name not in by_name:
            by_name[name] = label if label not in all_names else max(all_names) + 1
            all_names[by_name[name]] = name
        table[label] = by_name[name]
    return table, all_names
