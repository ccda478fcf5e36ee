"""What became of every weight of a foreign checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from spad.errors import SpadError

_SHOWN = 4


@dataclass
class Report:
    """The names of weights, spelt as in the foreign file.

    Attributes:
        matched: found in the file and in our model.
        missing: our model needs them, the file lacks them.
        unexpected: in the file, without a place in our model.
        mismatched: "name: shape found instead of shape expected".
        dropped: left out on purpose (optimiser state, tables that are computed, other networks).
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every weight of the model and of the file found its place."""
        return bool(self.matched) and not (self.missing or self.unexpected or self.mismatched)

    def to_json(self) -> dict[str, Any]:
        """Give the lists as plain JSON values, with `complete`."""
        return {"complete": self.complete, **asdict(self)}

    def __str__(self) -> str:
        """Count each list, and name the first weights of those that stop an import."""
        parts = [f"{len(self.matched)} matched"]
        for what in ("missing", "unexpected", "mismatched"):
            names = getattr(self, what)
            examples = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            parts.append(f"{len(names)} {what}" + (f" ({examples})" if names else ""))
        return ", ".join([*parts, f"{len(self.dropped)} dropped"])


class IncompleteImport(SpadError):
    """A foreign checkpoint that does not cover the model, or holds more than the model takes.

    Attributes:
        report: what was found.
    """

    def __init__(self, file: object, as_kind: str, report: Report) -> None:
        super().__init__(
            f"{file} cannot be imported as {as_kind}: {report}; expected every weight in its "
            "place; check the kind, or save the model's own weights alone."
        )
        self.report = report
