"""The JSON files of a data set: what its labels are called, and who is kept for validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spad.errors import SpadError


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        SpadError: it is not there, no JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SpadError(
            f"{path} could not be read as JSON ({error}); correct or remove it."
        ) from error
    if not isinstance(content, dict):
        raise SpadError(f"{path} holds no JSON object; correct or remove it.")
    return content


def label_names_of(path: Path) -> dict[int, str]:
    """Read a folder's `labels.json` (id to name, the background left out); empty without one.

    Raises:
        SpadError: it does not look as it should.
    """
    file = path / "labels.json"
    if not file.is_file():
        return {}
    try:
        names = {int(key): str(value) for key, value in json_object(file).items()}
    except ValueError as error:
        raise SpadError(
            f'{file} must look like {{"1": "spleen"}}; found a key that is no number ({error}).'
        ) from error
    return {number: name for number, name in names.items() if number != 0}


def stated_parts(path: Path) -> dict[str, str]:
    """Read a folder's `split.json`: ID to "validation"; "train" for those it names so.

    Returns:
        Empty where there is no such file; an ID that it does not name is for training.

    Raises:
        SpadError: it does not look as it should.
    """
    file = path / "split.json"
    if not file.is_file():
        return {}
    content = json_object(file)
    stated, train = content.get("validation"), content.get("train", [])
    if not isinstance(stated, list) or not isinstance(train, list):
        raise SpadError(
            f'{file} has no list under "validation"; expected {{"train": [...], '
            f'"validation": [...]}}.'
        )
    return {str(n): "train" for n in train} | {str(n): "validation" for n in stated}
