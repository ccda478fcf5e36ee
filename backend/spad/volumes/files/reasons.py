"""What a library said, as one clause inside a sentence of ours."""

from __future__ import annotations

import re
from pathlib import Path

_LONGEST = 160


def reason(error: BaseException, path: Path | None = None) -> str:
    """Give the first line of an error's message without its full stops.

    Args:
        error: what a library raised.
        path: a path that the sentence names already; "the file" stands for it.

    Returns:
        The message, or the error's kind if it has none; at most 160 characters.
    """
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if path is None else lines[0].replace(str(path), "the file")
    text = re.sub(r"\.(\s+|$)", r"; ", text).strip("; .")
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rstrip()} ..."
    return text or type(error).__name__
