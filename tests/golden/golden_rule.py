"""How the golden weights and inputs were made, and how far a tensor is from its golden figures."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text("utf-8"))


def weight(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Make the weight of that name, as `how.weights` says."""
    seed = int.from_bytes(hashlib.sha256(f"0:{name}".encode()).digest()[:4], "little")
    n = np.random.RandomState(seed).standard_normal(tuple(shape))
    if len(shape) >= 2 and "embed" not in name and "token" not in name:
        n = n / math.sqrt(math.prod(shape[1:]))
    elif len(shape) == 1 and name.endswith("weight"):
        n = 1 + 0.1 * n
    else:
        n = 0.1 * n
    return torch.from_numpy(n.astype(np.float32))


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Make all weights of a state dict from their names and shapes."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def golden_input(*shape: int) -> torch.Tensor:
    """Give the input of that shape, in [0, 1]."""
    values = np.random.RandomState(0).uniform(0, 1, shape)
    return torch.from_numpy(values.astype(np.float32))


def stats_error(x: torch.Tensor, golden: Mapping[str, Any]) -> float:
    """Give the largest deviation of a tensor from its figures; infinite for another shape."""
    if list(x.shape) != golden["shape"]:
        return math.inf
    x = x.detach().double()
    pairs = [
        (x.mean(), golden["mean"]),
        (x.std(), golden["std"]),
        (x.abs().max(), golden["absmax"]),
        *zip(x.flatten()[:4], golden["first"], strict=True),
    ]
    return max(abs(float(found) - wanted) for found, wanted in pairs)
