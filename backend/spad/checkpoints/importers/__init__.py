"""Importers for other people's checkpoints; every weight must find its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.checkpoints.importers.report import Report
    from spad.checkpoints.zoo import Entry

AS_KINDS = ("pumit-tokenizer", "pumit-vit", "eva02")
"""What `spad models import --as` takes."""


def import_file(file: str | Path, as_kind: str, name: str) -> tuple[Entry, Report]:
    """Import a foreign checkpoint into SPAD_HOME under a name.

    A masked-image model is tied to the authors' tokenizer if that was imported before.

    Args:
        file: the foreign file.
        as_kind: one of `AS_KINDS`.
        name: a new name.

    Returns:
        The installed model, and which of its weights came from where.

    Raises:
        SpadError: unknown kind, a name that is taken, or a file that cannot be imported in full.
    """
    from spad.checkpoints import zoo

    if as_kind not in AS_KINDS:
        raise SpadError(
            f"There is no importer called {as_kind!r}; expected one of {', '.join(AS_KINDS)}."
        )
    target = zoo.place_for(name)

    from spad.checkpoints.file import save
    from spad.checkpoints.importers import eva02, pumit

    importer = eva02 if as_kind == "eva02" else pumit
    model, card, report = importer.import_checkpoint(file, as_kind)
    card.name = name
    if card.kind == "mim":
        card.tokenizer = _tokenizer_for(card.architecture["codes"])
    save(target, model, card)
    return zoo.find(name), report


def _tokenizer_for(codes: int) -> str | None:
    """Name the imported tokenizer of the authors with that many codes; None if there is none."""
    from spad.checkpoints import zoo

    fitting = (
        entry.name
        for entry in zoo.models()
        if entry.card.provenance.get("importer") == "pumit-tokenizer"
        and entry.card.architecture.get("codes") == codes
    )
    return next(fitting, None)
