"""Small tokenizers with random weights, gray and in colours, under a home of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.inference.models import forget
from spad.models.tokenizer import Tokenizer
from spad.volumes.intensity import CT, MR, Intensity

CODES = 12


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a home with the models gray, ct (for CT alone) and colours."""
    folder = tmp_path_factory.mktemp("evaluation-home")
    models = folder / "models"
    models.mkdir()
    torch.manual_seed(4)
    every = {"CT": CT, "*": Intensity("percentiles", MR.low, MR.high)}
    for name, channels, contracts in (
        ("gray", 1, every),
        ("ct", 1, {"CT": CT}),
        ("colours", 3, every),
    ):
        card = Card("tokenizer", name, {}, contracts, licence="none")
        save(models / f"{name}.safetensors", Tokenizer(channels, (8, 8, 8), codes=CODES), card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAD_HOME", str(folder))
        yield folder
        forget()
