"""`spad models`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file

from .conftest import Command, assert_one_line


class TestList:
    def test_table(self, command: Command) -> None:
        end = command("models", "list")
        assert end.code == 0
        line = next(line for line in end.out.splitlines() if line.startswith("small-mim"))
        assert "CT, MR, any" in line

    def test_json(self, command: Command, home: Path) -> None:
        models = json.loads(command("models", "list", "--json").out)
        small = next(model for model in models if model["name"] == "small-segmenter")
        assert small["kind"] == "segmenter"
        assert small["labels"] == {"1": "spleen", "2": "right_kidney"}
        assert Path(small["path"]) == home / "models" / "small-segmenter.safetensors"


class TestShow:
    def test_card(self, command: Command) -> None:
        end = command("models", "show", "small-tokenizer")
        assert end.code == 0
        assert "kind: tokenizer" in end.out
        assert "licence: none" in end.out
        assert "weights: random" in end.out

    def test_unknown(self, command: Command) -> None:
        end = command("models", "show", "nothing")
        assert_one_line(end, 2)
        assert "small-tokenizer" in end.err


class TestExportAndImport:
    def test_there_and_back(self, command: Command, home: Path, tmp_path: Path) -> None:
        file = tmp_path / "mine.safetensors"
        assert command("models", "export", "small-tokenizer", file).code == 0
        assert file.read_bytes() == (home / "models" / "small-tokenizer.safetensors").read_bytes()
        assert command("models", "import", file, "--as", "spad", "--name", "again").code == 0
        try:
            assert "again" in command("models", "list").out
        finally:
            (home / "models" / "again.safetensors").unlink()

    def test_name_that_is_taken(self, command: Command, home: Path) -> None:
        file = home / "models" / "small-tokenizer.safetensors"
        end = command("models", "import", file, "--as", "spad", "--name", "small-mim")
        assert_one_line(end, 2)

    def test_pickle_that_needs_code(self, command: Command, home: Path, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self):
                return print, ("boom",)

        file = tmp_path / "model.pt"
        file.write_bytes(pickle.dumps(Bomb()))
        for kind in ("spad", "pumit-tokenizer"):
            before = {path.name for path in (home / "models").iterdir()}
            end = command("models", "import", file, "--as", kind, "--name", "bomb")
            assert_one_line(end, 2)
            assert "pickle" in end.err
            assert {path.name for path in (home / "models").iterdir()} == before

    def test_checkpoint_without_a_contract(
        self, command: Command, scan: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "bare.safetensors"
        save_file({"weight": torch.zeros(3)}, file)
        out = tmp_path / "rec.nii.gz"
        end = command("tokenize", scan, "--out", out, "--model", file)
        assert_one_line(end, 2)
        assert "intensity contract" in end.err
        assert not out.exists()

    def test_unknown_kind(self, command: Command, tmp_path: Path) -> None:
        end = command("models", "import", tmp_path / "x", "--as", "magic", "--name", "x")
        assert_one_line(end, 2)
        assert "pumit-tokenizer" in end.err

    def test_missing_file(self, command: Command, tmp_path: Path) -> None:
        end = command("models", "import", tmp_path / "x.pt", "--as", "pumit-vit", "--name", "x")
        assert_one_line(end, 2)

    def test_action_is_needed(self, command: Command) -> None:
        assert_one_line(command("models"), 2)
