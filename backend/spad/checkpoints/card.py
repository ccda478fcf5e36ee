"""What a checkpoint says about itself: architecture, contracts, labels, provenance and licence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spad.errors import SpadError
from spad.volumes.intensity import Intensity

KINDS = ("tokenizer", "mim", "segmenter", "clicker", "classifier", "vit")
ORIENTATION = "IPL"
"""How every scan is handed to a model: letters towards which the indices of (z, y, x) increase."""


@dataclass
class Card:
    """The JSON beside the weights.

    Attributes:
        kind: "tokenizer", "mim", "segmenter", "clicker", "classifier" or "vit".
        name: what the model is called.
        architecture: the model's constructor arguments.
        intensity: the intensity contract by modality; "*" holds for any other.
        orientation: letters towards which the indices of (z, y, x) of an axial scan increase;
            another depth axis is moved first, the other two keep their order.
        working_spacing: the grid on which the model works, such as {"in_plane": 1.5} in mm, see
            `spad.data.frames.working_grid`; None = any.
        window: voxels (depth, height, width) of the working grid that the model sees at once at
            `da` 0; None where it was trained on token windows.
        channels: names of the scan's channels, in the model's order (such as "in phase"); empty
            for a model of one channel, which needs no name.
        tokenizer: for a masked-image model, the name of the tokenizer whose codes it predicts.
        segmenter: for a clicker, the name of the model whose features of a scan it takes.
        labels: id to name, without the background.
        modality_labels: ids that count for a modality; a modality not named has all of them.
        least_piece: of organs by id, the share of their largest piece that a piece must have to
            be kept, where validation showed a gain; 1 keeps the largest alone.
        filled: ids of organs whose holes are filled, where validation showed a gain.
        provenance: where the weights come from (data, steps, tool, file, ...).
        licence: the terms of the weights.
        validation: figures measured before the file was made.
    """

    kind: str
    name: str
    architecture: dict[str, Any]
    intensity: dict[str, Intensity]
    orientation: str = ORIENTATION
    working_spacing: dict[str, Any] | None = None
    window: list[int] | None = None
    channels: list[str] = field(default_factory=list)
    tokenizer: str | None = None
    segmenter: str | None = None
    labels: dict[int, str] = field(default_factory=dict)
    modality_labels: dict[str, list[int]] = field(default_factory=dict)
    least_piece: dict[int, float] = field(default_factory=dict)
    filled: list[int] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    validation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a card that a model cannot be run by."""
        if self.kind not in KINDS:
            raise SpadError(
                f"A checkpoint calls itself a {self.kind!r}; expected one of {', '.join(KINDS)}; "
                "use a checkpoint that this version knows."
            )
        if not self.intensity:
            raise SpadError(
                f"The checkpoint '{self.name}' has no intensity contract; expected one per "
                "modality (or '*'), since a model fed another range gives wrong results; import "
                "it with 'spad models import' or use a complete checkpoint."
            )
        if self.orientation != ORIENTATION:
            raise SpadError(
                f"The checkpoint '{self.name}' states the orientation {self.orientation!r}; "
                f"expected {ORIENTATION!r}, which is how scans are handed to models here; use a "
                "checkpoint that was trained so."
            )
        unnamed = {i for ids in self.modality_labels.values() for i in ids} - set(self.labels)
        if unnamed:
            raise SpadError(
                f"The checkpoint '{self.name}' counts the labels {sorted(unnamed)} for a modality, "
                "but has no names for them; expected a name for each; use a complete checkpoint."
            )

    def contract(self, modality: str | None) -> Intensity:
        """Give the intensity contract for a modality.

        Raises:
            SpadError: the model was not made for that modality.
        """
        found = self.intensity.get(modality or "*", self.intensity.get("*"))
        if found is None:
            known = ", ".join(sorted(self.intensity))
            what = f"a {modality} scan" if modality else "a scan of unknown modality"
            raise SpadError(
                f"The model '{self.name}' was given {what}, but was made for {known}; choose "
                "another model or state the modality."
            )
        return found

    def covers(self, modality: str | None) -> bool:
        """Tell whether the model was made for a modality (None: whatever it is)."""
        return modality is None or modality in self.intensity or "*" in self.intensity

    def label_names(self, modality: str | None = None) -> dict[int, str]:
        """Give the labels that count for a modality: id to name."""
        ids = self.modality_labels.get(modality or "", list(self.labels))
        return {number: self.labels[number] for number in ids}

    def to_json(self) -> dict[str, Any]:
        """Give the card as plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["intensity"] = {name: one.to_json() for name, one in self.intensity.items()}
        for key in ("labels", "least_piece"):
            plain[key] = {str(number): value for number, value in plain[key].items()}
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Card:
        """Read a card from JSON values.

        Keys of later versions are passed over.

        Raises:
            SpadError: no intensity contract, no orientation, or values of another type.
        """
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str):
            raise SpadError(
                "A checkpoint has a card without a name; expected a JSON object with the keys "
                "kind, name, architecture, intensity and orientation; use a complete checkpoint."
            )
        if not isinstance(data.get("orientation"), str):
            raise SpadError(
                f"The checkpoint '{name}' does not state the orientation it wants its input in; "
                "expected three letters such as 'IPL'; use a complete checkpoint."
            )
        known = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values = {"kind": "", "architecture": {}, "intensity": {}} | values
        whole = data.get("one_piece", ())  # of older cards: ids of organs of one piece
        try:
            values["intensity"] = {
                str(key): Intensity.from_json(one) for key, one in dict(values["intensity"]).items()
            }
            values["labels"] = {int(k): str(v) for k, v in dict(values.get("labels", {})).items()}
            values["modality_labels"] = {
                str(key): [int(number) for number in ids]
                for key, ids in dict(values.get("modality_labels", {})).items()
            }
            values["least_piece"] = {int(number): 1.0 for number in whole} | {
                int(number): float(share)
                for number, share in dict(values.get("least_piece", {})).items()
            }
            values["architecture"] = dict(values["architecture"])
            values["channels"] = [str(name) for name in values.get("channels", ())]
        except (TypeError, ValueError) as error:
            raise SpadError(
                f"The card of the checkpoint '{name}' holds a value of the wrong type ({error}); "
                "expected the JSON that 'spad' writes; use a complete checkpoint."
            ) from error
        return cls(**values)
