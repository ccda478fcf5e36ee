"""A small tokenizer and its card."""

from __future__ import annotations

import torch

from spad.checkpoints.card import Card
from spad.models.tokenizer import Tokenizer
from spad.volumes.intensity import CT, MR


def tiny_tokenizer(seed: int = 0) -> Tokenizer:
    torch.manual_seed(seed)
    return Tokenizer(in_channels=1, channels=(16, 16), codes=8)


def tokenizer_card(**more: object) -> Card:
    values = {"name": "tiny", "intensity": {"CT": CT, "*": MR}, "licence": "Apache-2.0"} | more
    return Card(kind="tokenizer", architecture={}, **values)  # type: ignore[arg-type]
