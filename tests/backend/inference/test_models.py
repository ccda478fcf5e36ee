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
from spad.device import (
    WINDOWS_AT_ONCE,
    Effort,
    PeakMemory,
    choose,
    computes_bfloat16,
    inference,
    stepping_down,
)
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
        """Step by step; there is no GPU here whose memory could be too small."""
        tried, said = [], []

        def work(effort: Effort) -> str:
            tried.append((effort.place.type, effort.at_once, effort.cut))
            if effort.place.type == "cuda":
                raise torch.cuda.OutOfMemoryError("full")
            return "done"

        result, effort, steps = stepping_down(
            work, torch.device("cuda"), lambda fraction, text: said.append(text)
        )
        assert (result, effort.place.type) == ("done", "cpu")
        first, *rest = tried
        assert first == ("cuda", WINDOWS_AT_ONCE, 1)
        assert rest == [("cuda", 1, 1), ("cuda", 1, 2), ("cpu", 1, 1)]
        assert steps == [
            "one window at a time",
            "smaller windows",
            "the processor instead of the GPU",
        ]
        assert all(step in words for step, words in zip(steps, said, strict=True))

    def test_too_little_memory_of_the_processor(self) -> None:
        def work(effort: Effort) -> None:
            torch.empty(1 << 62, dtype=torch.uint8)

        with pytest.raises(SpadError, match="too little memory"):
            stepping_down(work, torch.device("cpu"), lambda *_: None)

    def test_other_errors_are_not_taken_for_want_of_memory(self) -> None:
        tried = []

        def work(effort: Effort) -> None:
            tried.append(effort)
            torch.ones(2) @ torch.ones(3)

        with pytest.raises(RuntimeError, match="size"):
            stepping_down(work, torch.device("cpu"), lambda *_: None)
        assert len(tried) == 1

    def test_peak_memory(self) -> None:
        with PeakMemory(torch.device("cpu")) as memory:
            held = np.ones(40_000_000)
        assert memory.megabytes > held.nbytes / 1e6
        assert "spad-memory" not in {thread.name for thread in threading.enumerate()}
