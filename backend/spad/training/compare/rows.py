"""What comparisons have in common: rows that are runs in one folder, and a table of them.

A row is kept once it is in `table.json`; a second call with the same options trains those that
are missing, and goes on with the one that was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spad import jsonfile
from spad.data.cases import Folder
from spad.data.folder import read_source
from spad.data.store import Store
from spad.errors import Cancelled, SpadError
from spad.progress import Progress
from spad.training import runs, start
from spad.training.recipe import Recipe

TABLE, CSV = "table.json", "table.csv"
DIVERGED, HOPELESS = "The loss became", "Stopped at step"
"""How the sentences begin that say something about a row, unlike that of a full disk."""

R = TypeVar("R")


def check(recipe: Recipe, sources: Sequence[str]) -> list[Folder | Store]:
    """Refuse, before anything is trained, what would end in no table.

    Returns:
        The sources, as the recipe splits them.

    Raises:
        SpadError: the recipe wants several processes, or no scan is kept for validation.
    """
    if recipe.trainer.devices * recipe.trainer.num_nodes > 1:
        raise SpadError(
            "A comparison trains each row in one process; leave --trainer.devices and "
            "--trainer.num_nodes out."
        )
    found = [read_source(path, recipe.data.validation) for path in sources]
    if not any(map(_keeps_some, found)):
        raise SpadError(
            f"{', '.join(sources)} keeps no scan for validation, on which the rows are compared; "
            "give more scans, a larger --data.validation or a split.json."
        )
    return found


def _keeps_some(source: Folder | Store) -> bool:
    """Tell whether a folder or store has scans for validation."""
    if isinstance(source, Store):
        return any(row.part == "validation" for row in source.rows)
    return any(case.validation for case in source.cases)


def earlier(
    out: Path, options: Mapping[str, Any], row: Callable[[Mapping[str, Any]], R]
) -> list[R]:
    """Give the rows of an earlier call; make the folder for a first one.

    Args:
        out: the folder of the comparison.
        options: what must be the same as in the earlier call.
        row: makes a row of what the table holds.

    Raises:
        SpadError: the folder holds something else, or a comparison with other options.
    """
    path = out / TABLE
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SpadError(
                f"{out} holds something that is no comparison; choose another --out for it."
            )
        out.mkdir(parents=True, exist_ok=True)
        write_table(out, options, [])
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, rows = dict(content["options"]), [row(one) for one in content["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpadError(
            f"{path} cannot be read ({type(error).__name__}); choose another --out."
        ) from error
    wanted = json.loads(jsonfile.dumps(options))
    for key, value in wanted.items():
        if before.get(key) != value:
            raise SpadError(
                f"{out} holds a comparison with another choice of {key} ({before.get(key)}, not "
                f"{value}); give the same options or another --out."
            )
    return rows


def write_table(
    out: Path,
    options: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `table.json`, by which a later call goes; last, after all other files."""
    jsonfile.write(out / TABLE, {"options": options, "rows": rows, **(more or {})})


def part_of(progress: Progress, place: int, count: int, name: str) -> Progress:
    """Give the progress of one of several rows as part of all of them."""

    def shown(fraction: float, text: str) -> None:
        progress((place + fraction) / count, f"{name}: {text}")

    return shown


def finish(run: Path, begin: Callable[[Path], None], progress: Progress) -> str:
    """Train a row to its end, from where it was left.

    Returns:
        The sentence with which it ended early, or "".

    Raises:
        SpadError: it could not be trained for reasons that say nothing about the row.
    """
    try:
        if not runs.is_run(run):
            begin(run)
        elif runs.read_state(run).state != "finished":
            start.resume(run, progress)
    except Cancelled:
        raise
    except SpadError as error:
        if not is_verdict(str(error)):
            raise
        return str(error)
    return ""


def is_verdict(sentence: str) -> bool:
    """Tell whether the sentence with which a run failed says something about its row."""
    return sentence.startswith((DIVERGED, HOPELESS))


def recipe_of(run: Path) -> Recipe:
    """Read the recipe of a run."""
    return Recipe.from_yaml((run / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml")
