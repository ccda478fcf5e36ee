"""What a clicker knows of organs: that is what its segmenter knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.checkpoints.zoo import Entry


def organ_labels(entry: Entry, modality: str | None) -> dict[str, int]:
    """Give name to number of the organs that a clicker's segmenter knows."""
    from spad.checkpoints import zoo

    if entry.card.segmenter is None:
        return {}
    try:
        card = zoo.find(entry.card.segmenter).card
    except SpadError:
        return {}
    return {name: label for label, name in card.label_names(modality).items()}


def lacking(entry: Entry) -> str:
    """Say that a clicker's segmenter is not here; "" if it is, or none is needed."""
    from spad.checkpoints import zoo

    if entry.card.segmenter is None:
        return ""
    try:
        zoo.find(entry.card.segmenter)
    except SpadError:
        return (
            f"'{entry.name}' works with the segmenter '{entry.card.segmenter}', which is not here; "
            "import it with 'spad models import', or choose another model for clicks."
        )
    return ""
