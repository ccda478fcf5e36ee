"""Models that are held, and where they run."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spad.checkpoints import zoo
from spad.checkpoints.file import load, save
from spad.device import PeakMemory, choose, computes_bfloat16, inference, stepping_down
from spad.errors import SpadError
from spad.inference import models
from spad.inference.models import chosen, forget, loaded


class TestLoaded:
    def test_a_model_is_read_once(self, home: Path) -> None:
        forget()
        first, card = loaded("tok", "cpu")
        assert loaded(zoo.find("tok"), "cpu")[0] is first
        assert loaded(home / "models" / "tok.safetensors")[0] is first
        assert card.name == "tok"
        assert not first.training

    def test_a_file_that_changed_is_read_again(self, home: Path, tmp_path: Path) -> None:
        path = tmp_path / "mine.safetensors"
        model, card = load(home / "models" / "tok.safetensors")
        save(path, model, replace(card, name="mine"))
        first, _ = loaded(path, "cpu")
        with torch.no_grad():
            model.quantizer.codebook.add_(1)
        save(path, model, replace(card, name="mine"))
        os.utime(path, ns=(1, 1))
        second, _ = loaded(path, "cpu")
        assert second is not first
        assert torch.allclose(second.quantizer.codebook, first.quantizer.codebook + 1)
        assert sum(key[0] == str(path.resolve()) for key in models._held) == 1

    def test_few_are_held(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        forget()
        monkeypatch.setattr(models, "KEPT", 2)
        tok, _ = loaded("tok", "cpu")
        mim, _ = loaded("mim", "cpu")
        assert loaded("tok", "cpu")[0] is tok
        loaded("organs", "cpu")
        assert loaded("tok", "cpu")[0] is tok
        assert loaded("mim", "cpu")[0] is not mim

    def test_a_file_that_is_gone(self, home: Path, tmp_path: Path) -> None:
        entry = replace(zoo.find("tok"), path=tmp_path / "gone.safetensors")
        with pytest.raises(SpadError, match="cannot be read"):
            loaded(entry, "cpu")

    def test_chosen(self, home: Path) -> None:
        assert chosen("tokenizer", "tok", "CT").name == "tok"
        assert chosen("tokenizer", None, "CT").kind == "tokenizer"
        with pytest.raises(SpadError, match="is a segmenter, but a mim is needed"):
            chosen("mim", "organs", "CT")


class TestDevice:
    def test_choose(self) -> None:
        assert choose("cpu") == torch.device("cpu")
        assert choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
        with pytest.raises(SpadError, match="expected one of auto, cpu, cuda"):
            choose("tpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self) -> None:
        with pytest.raises(SpadError, match="torch sees none"):
            choose("cuda")

    def test_exact_stays_in_float32(self) -> None:
        layer = torch.nn.Linear(4, 4)
        cpu = torch.device("cpu")
        with inference(cpu, exact=True):
            assert layer(torch.ones(4)).dtype == torch.float32
        with inference(cpu):
            fast = layer(torch.ones(4))
        assert fast.dtype == (torch.bfloat16 if computes_bfloat16(cpu) else torch.float32)
        assert not fast.requires_grad

    def test_too_little_gpu_memory_steps_down_and_says_so(self) -> None:
        tried, said = [], []

        def work(device: torch.device) -> str:
            tried.append(device.type)
            if device.type == "cuda":
                raise torch.cuda.OutOfMemoryError("full")
            return "done"

        result, device = stepping_down(
            work, torch.device("cuda"), lambda fraction, text: said.append(text)
        )
        assert (result, device.type, tried) == ("done", "cpu", ["cuda", "cpu"])
        assert "GPU's memory is too small" in said[0]

    def test_peak_memory(self) -> None:
        with PeakMemory(torch.device("cpu")) as memory:
            held = np.ones(40_000_000)
        assert memory.megabytes > held.nbytes / 1e6
        assert "spad-memory" not in {thread.name for thread in threading.enumerate()}
