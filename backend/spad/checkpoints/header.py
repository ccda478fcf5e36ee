"""The head of a safetensors file, read and checked without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spad.checkpoints.card import Card
from spad.errors import SpadError

KEY = "spad"
"""The one metadata key of our checkpoints; it holds the card as JSON."""
_LARGEST_HEADER = 100_000_000


def read_header(path: str | Path) -> dict[str, Any]:
    """Read the names, types and places of a safetensors file's tensors, and its metadata.

    Args:
        path: any file.

    Returns:
        The header: tensor name -> {"dtype", "shape", "data_offsets"}, and "__metadata__".

    Raises:
        SpadError: the file cannot be read, is a pickle, is no safetensors file or is truncated.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            fits = len(start) == 8 and 2 <= length <= min(_LARGEST_HEADER, max(size - 8, 0))
            text = file.read(length) if fits else b""
    except OSError as error:
        raise SpadError(
            f"{path} cannot be read ({error.strerror or error}); expected a checkpoint file "
            "(.safetensors); check the path."
        ) from error
    if not text.startswith(b"{"):
        raise _not_ours(path, start)
    try:
        header = json.loads(text)
        spans = [v["data_offsets"] for k, v in header.items() if k != "__metadata__"]
        end = max((int(span[1]) for span in spans), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _not_ours(path, start) from error
    if size != 8 + length + end:
        raise SpadError(
            f"{path} is {size} bytes long, but its header tells of {8 + length + end}; expected a "
            "whole file: copy it again."
        )
    return header


def read_card(path: str | Path) -> Card:
    """Read the card of one of our checkpoints.

    Raises:
        SpadError: as `read_header`; or there is no card, or it lacks a contract.
    """
    metadata = read_header(path).get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise SpadError(
            f"{path} holds weights but no card, and a checkpoint without an intensity contract is "
            "refused; import it with 'spad models import FILE --as KIND --name NAME'."
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpadError(
            f"{path} has a card that is not JSON ({error}); expected the JSON that 'spad' writes; "
            "copy or export the checkpoint again."
        ) from error
    return Card.from_json(data)


def _not_ours(path: Path, start: bytes) -> SpadError:
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return SpadError(
            f"{path} is a pickle or an archive that may hold one, and a pickle that needs code is "
            "refused; expected a safetensors file; bring a known model's file in with "
            "'spad models import FILE --as KIND --name NAME'."
        )
    return SpadError(
        f"{path} is not a safetensors file; expected a checkpoint that 'spad' wrote; choose one "
        "from 'spad models list'."
    )
