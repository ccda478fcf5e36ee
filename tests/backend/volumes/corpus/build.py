"""Makes the corpus on disk, runs a child process over it, and counts what came of each file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, Reads

CHILD = Path(__file__).with_name("child.py")
Result = dict[str, Any]


def build(cases: Sequence[Case], folder: Path) -> list[dict[str, Any]]:
    """Make each file in a folder of its own; give what the child needs to know about each."""
    entries = []
    for number, case in enumerate(cases):
        if (reason := case.skip()) is not None:
            entries.append({"id": case.id, "skip": reason})
            continue
        place = folder / f"{number:04}"
        place.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = case.make(place)
            expect = case.expect(path) if callable(case.expect) else case.expect
        entry = {
            "id": case.id, "family": case.family, "place": str(place), "path": str(path),
            "options": case.options,
        }  # fmt: skip
        if isinstance(expect, Reads):
            truth = folder / f"{number:04}.npz"
            np.savez(truth, values=expect.values, affine=expect.affine)
            entry |= {"expect": "reads", "truth": str(truth), "or_refused": expect.or_refused}
            entry["or_noted"] = expect.or_noted
            entry |= {"labels": expect.labels, "values_matter": expect.values_matter}
        else:
            entry |= {"expect": "refused", "match": expect.match}
        entries.append(entry)
    return entries


def run(
    entries: list[dict[str, Any]], folder: Path, *, napari: bool = False, timeout: float = 600
) -> dict[str, Result]:
    """Read all files in one child process.

    Args:
        entries: as `build` gives them.
        folder: where the list and the results are written.
        napari: through the plugin's reader, with all memory traced, rather than the library's.
        timeout: seconds after which the child is ended.

    Returns:
        The result of each case by its id; a case at which the child hung or died has none.
    """
    kind = "napari" if napari else "library"
    listed, results = folder / f"{kind}.json", folder / f"{kind}.jsonl"
    listed.write_text(json.dumps(entries))
    command = [sys.executable, "-P", str(CHILD), kind, str(listed), str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
        said = done.stderr
    except subprocess.TimeoutExpired:
        said = f"no end after {timeout} s"
    lines = results.read_text().splitlines() if results.exists() else []
    found = {one["id"]: one for one in map(json.loads, lines)}
    if len(found) < sum("skip" not in entry for entry in entries):
        warnings.warn(f"the child ended early: {said[-3000:]}", stacklevel=2)
    return found


def table(entries: list[dict[str, Any]], results: dict[str, Result]) -> str:
    """Count outcomes by family, as Markdown."""
    counts: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if "skip" in entry:
            continue
        result = results.get(entry["id"], {"outcome": "hung"})
        counts[entry["family"], result["outcome"] if result.get("good") else "wrong"] += 1
    families = list(dict.fromkeys(family for family, _ in counts))
    rows = [
        "| format | files | read correctly | refused in a sentence | wrong |",
        "|---|---|---|---|---|",
    ]
    for family in [*families, None]:
        of = [
            sum(n for (one, kind), n in counts.items() if family in (one, None) and kind == outcome)
            for outcome in ("reads", "refused", "wrong")
        ]
        rows.append(f"| {family or 'all'} | {sum(of)} | " + " | ".join(map(str, of)) + " |")
    slowest = max((r["seconds"], r["id"]) for r in results.values())
    largest = max((r["growth_mb"], r["id"]) for r in results.values())
    rows.append("")
    rows.append(
        f"Slowest: {slowest[0]:.2f} s ({slowest[1]}); "
        f"most memory: {largest[0]:.0f} MB ({largest[1]})."
    )
    return "\n".join(rows)
