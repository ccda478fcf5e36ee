"""The scans of a run and which of them it never trains on: `cases.json` in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.errors import SpadError
from spad.training.run_files import replace_text

FILE = "cases.json"


@dataclass(frozen=True)
class RunCase:
    """One scan of a run.

    Attributes:
        name: folder and ID.
        image: the scan's file.
        labels: the file of its labels, or None.
        held_out: whether it is kept for validation.
        label_names: of the labels in that file, id to name.
    """

    name: str
    image: str
    labels: str | None
    held_out: bool
    label_names: dict[int, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunCase:
        """Read a case from JSON values; may raise `ValueError`, `TypeError` or `KeyError`."""
        names = {int(label): str(name) for label, name in values["label_names"].items()}
        return cls(**{**values, "label_names": names})


def note_cases(run: Path, cases: Sequence[RunCase]) -> None:
    """Write the scans of a run into its folder; may raise `OSError`."""
    replace_text(run / FILE, jsonfile.dumps([asdict(case) for case in cases]) + "\n")


def read_cases(run: str | Path) -> list[RunCase]:
    """Read the scans of a run; none for a run that learns from stores or has no such file.

    Raises:
        SpadError: the file is damaged.
    """
    path = Path(run) / FILE
    if not path.is_file():
        return []
    try:
        return [RunCase.from_json(case) for case in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SpadError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected a list of scans: "
            "remove the file."
        ) from error
