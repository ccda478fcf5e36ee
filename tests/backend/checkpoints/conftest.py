"""An empty home, a small checkpoint, and the folders whose modules these tests import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spad.checkpoints import zoo
from spad.checkpoints.file import save

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "golden")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a SPAD_HOME and a folder of shipped weights that are this test's own."""
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(zoo, "_WEIGHTS", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    return tmp_path / "home"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Give the file of a small tokenizer."""
    from tiny_models import tiny_tokenizer, tokenizer_card

    return save(tmp_path / "tiny.safetensors", tiny_tokenizer(), tokenizer_card())
