"""The tokens of a scan on the screen's axes: what any click or move of the mouse asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.volumes.axes import canonical_order, to_canonical

if TYPE_CHECKING:
    from napari.layers import Layer

    from spad.worker.messages import Tokenization


@dataclass(frozen=True)
class Token:
    """One token.

    Attributes:
        index: along S-I, A-P and R-L.
        codes: its likeliest codes, the likeliest first.
        probabilities: of these.
        entropy: of all its probabilities, nats.
    """

    index: tuple[int, int, int]
    codes: tuple[int, ...]
    probabilities: tuple[float, ...]
    entropy: float


class TokenMap:
    """The probabilities of all tokens of a scan, and what follows from them.

    Args:
        answer: of the worker.
    """

    def __init__(self, answer: Tokenization) -> None:
        self.answer = answer
        order, flips = canonical_order(answer.codes.affine, depth_first=False)
        flip = tuple(slice(None, None, -1) if one else slice(None) for one in flips)
        self.probabilities = answer.probabilities.transpose(*order, 3)[flip]
        self.codes, _ = to_canonical(answer.codes, depth_first=False)
        self.entropy, _ = to_canonical(answer.entropy, depth_first=False)
        self.usage = np.asarray(answer.usage, float)
        self.counts = np.bincount(self.codes.ravel(), minlength=len(self.usage))
        self.ranking = np.argsort(-self.usage, kind="stable")
        self.ranks = np.argsort(self.ranking)

    @property
    def dead(self) -> np.ndarray:
        """The codes that are the likeliest of no token."""
        return np.flatnonzero(self.counts == 0)

    def token(self, index: Sequence[int], most: int = 5) -> Token:
        """Give the token at an index along S-I, A-P and R-L, with its likeliest codes."""
        z, y, x = (int(n) for n in index)
        p = self.probabilities[z, y, x]
        best = np.argpartition(-p, min(most, len(p) - 1))[:most]
        best = best[np.argsort(-p[best], kind="stable")]
        return Token(
            (z, y, x),
            tuple(best.tolist()),
            tuple(float(one) for one in p[best]),
            float(self.entropy[z, y, x]),
        )

    def map_of(self, code: int) -> np.ndarray:
        """Give (S-I, A-P, R-L) probabilities of a code: where it occurs."""
        return np.ascontiguousarray(self.probabilities[..., code])


def token_under(layer: Layer, position: Sequence[float]) -> tuple[int, int, int] | None:
    """Find the token under a place of napari's world.

    Args:
        layer: a layer on the token grid.
        position: as many axes as the viewer has.

    Returns:
        Its index along S-I, A-P and R-L, or None outside of the grid.
    """
    if len(position) < layer.ndim:
        return None
    at = np.floor(np.asarray(layer.world_to_data(position), float)[-3:] + 0.5)
    shape: Any = layer.data.shape[-3:]
    if not np.all(np.isfinite(at)) or np.any(at < 0) or np.any(at >= shape):
        return None
    return int(at[0]), int(at[1]), int(at[2])


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending whole numbers briefly: "1, 4-7, 9"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in parts)
