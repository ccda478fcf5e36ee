"""Real runs of small models: they learn, they stop, and they go on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from spad.checkpoints import file
from spad.errors import SpadError
from spad.phantoms import LABELS
from spad.training import runs
from spad.training.start import resume, train

from .conftest import CRITIC, SMALL

OFTEN = {
    "precision": "float32",
    "schedule.log_every": "1",
    "schedule.validate_every": "4",
    "schedule.checkpoint_every": "2",
    "schedule.validation_batches": "1",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run_of(
    task: str, folder: Path, out: Path, steps: int, stop_at: int | None = None, **more: Any
) -> Path:
    def progress(fraction: float, text: str) -> None:
        if stop_at is not None and text.startswith(f"step {stop_at}, loss"):
            signal.raise_signal(signal.SIGINT)

    overrides = {**SMALL[task], **OFTEN, **more.pop("overrides", {})}
    return train(task, [folder], out, steps=steps, overrides=overrides, progress=progress, **more)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [
        {
            k: v
            for k, v in record.items()
            if k not in ("time", "seconds_per_step", "waiting_for_data")
        }
        for record in runs.read_metrics(run).records
    ]


class TestResume:
    @pytest.mark.parametrize(
        ("task", "overrides"),
        [
            ("tokenizer", {}),
            ("tokenizer", {**CRITIC, "model.quantizer": "gumbel"}),
            ("tokenizer", {"loss.adversarial_adaptive": "true", **CRITIC}),
            ("segmentation", {}),
            ("clicks", {}),
        ],
        ids=["soft", "gumbel with a critic", "adaptive weight", "segmentation", "clicks"],
    )
    def test_an_interrupted_run_goes_on_bit_for_bit(
        self, task: str, overrides: dict[str, str], folder: Path, tmp_path: Path
    ) -> None:
        whole = run_of(task, folder, tmp_path / "whole", 6, overrides=overrides)
        with pytest.raises(KeyboardInterrupt):
            run_of(task, folder, tmp_path / "cut", 6, stop_at=3, overrides=overrides)
        cut = tmp_path / "cut"
        assert runs.read_state(cut).state == "stopped"
        assert runs.checkpoint_steps(cut)[-1] == 3
        resume(cut)
        assert runs.read_state(cut).state == "finished"
        assert metrics(cut) == metrics(whole)
        one, two = (
            file.load(runs.load_checkpoint_folder(run).path / "model.safetensors")[0].state_dict()
            for run in (whole, cut)
        )
        assert all(torch.equal(one[name], two[name]) for name in one)

    def test_a_killed_run_goes_on_from_its_last_checkpoint(
        self, folder: Path, tmp_path: Path
    ) -> None:
        whole = run_of("tokenizer", folder, tmp_path / "whole", 8)
        out = tmp_path / "killed"
        options = {**SMALL["tokenizer"], **OFTEN}
        keys = [word for key, value in options.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-m", "spad", "train", "tokenizer", "--data", str(folder)]
        process = subprocess.Popen([*command, "--out", str(out), "--steps", "8", *keys])
        wait_until(lambda: runs.is_run(out) and len(runs.checkpoint_steps(out)) >= 1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert runs.read_state(out).state != "running"
        if runs.read_state(out).state == "stopped":
            resume(out)
        assert metrics(out) == metrics(whole)

    def test_a_finished_run_cannot_be_resumed(self, folder: Path, tmp_path: Path) -> None:
        run = run_of("tokenizer", folder, tmp_path / "run", 1)
        with pytest.raises(SpadError, match="finished"):
            resume(run)


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class TestLearning:
    def test_a_tokenizer_learns_to_reconstruct(self, folder: Path, tmp_path: Path) -> None:
        run = run_of(
            "tokenizer",
            folder,
            tmp_path / "run",
            60,
            overrides={"optimiser.lr": "1e-2", "loss.prior_start": "1", "loss.prior_full": "2"},
        )
        l1 = [r["l1"] for r in metrics(run) if r["phase"] == "train"]
        assert sum(l1[-5:]) < 0.7 * sum(l1[:5])

    @pytest.mark.parametrize("mode", ["gumbel", "nearest"])
    def test_the_other_quantisers_learn_too(self, mode: str, folder: Path, tmp_path: Path) -> None:
        overrides = {
            "model.quantizer": mode,
            "optimiser.lr": "1e-2",
            "loss.divergence": "0",
            "loss.entropy": "0",
            "schedule.alarms": "false",  # the nearest code is one code at first
        }
        run = run_of("tokenizer", folder, tmp_path / "run", 40, overrides=overrides)
        l1 = [r["l1"] for r in metrics(run) if r["phase"] == "train"]
        assert sum(l1[-5:]) < 0.85 * sum(l1[:5])

    def test_a_critic_learns_and_its_gate_decides(self, folder: Path, tmp_path: Path) -> None:
        shut = run_of(
            "tokenizer",
            folder,
            tmp_path / "shut",
            8,
            overrides=CRITIC | {"loss.adversarial_gate": "0.025"},
        )
        assert {r["adversarial"] for r in metrics(shut) if r["phase"] == "train"} == {0}
        wide = run_of("tokenizer", folder, tmp_path / "wide", 30, overrides=CRITIC)
        records = [r for r in metrics(wide) if r["phase"] == "train"]
        assert all(r["adversarial_weight"] == pytest.approx(3e-3) for r in records)
        assert records[-1]["critic"] < 0.8 * records[0]["critic"]

    def test_the_perceptual_loss_needs_weights(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(SpadError, match=r"--loss\.perceptual 0"):
            run_of("tokenizer", folder, tmp_path / "run", 1, overrides={"loss.perceptual": "1"})

    def test_samples_made_ahead_are_the_same(self, folder: Path, tmp_path: Path) -> None:
        here = run_of("tokenizer", folder, tmp_path / "here", 3)
        ahead = run_of("tokenizer", folder, tmp_path / "ahead", 3, overrides={"data.workers": "2"})
        assert metrics(ahead) == metrics(here)
        assert all(0 <= r["waiting_for_data"] <= 1 for r in runs.read_metrics(ahead).records[:2])

    def test_organs_are_learnt(self, folder: Path, tmp_path: Path) -> None:
        run = run_of(
            "segmentation", folder, tmp_path / "run", 40, overrides={"optimiser.lr": "1e-2"}
        )
        loss = [r["loss"] for r in metrics(run) if r["phase"] == "train"]
        assert sum(loss[-5:]) < 0.8 * sum(loss[:5])
        best = max(r["dice"] for r in metrics(run) if r["phase"] == "validation")
        assert best > 0.03

    def test_masked_tokens_from_a_tokenizer_of_ones_own(self, folder: Path, tmp_path: Path) -> None:
        tokenizer = run_of("tokenizer", folder, tmp_path / "tokenizer", 20)
        run = run_of(
            "mim",
            folder,
            tmp_path / "mim",
            30,
            overrides={"tokenizer": str(tokenizer), "optimiser.lr": "1e-2"},
        )
        kl = [r["kl"] for r in metrics(run) if r["phase"] == "train"]
        assert sum(kl[-5:]) < 0.85 * sum(kl[:5])
        best = runs.load_checkpoint_folder(run, "best").path  # from which others start
        model, card = file.load(best / "model.safetensors")
        assert card.kind == "mim"
        assert card.tokenizer == str(tokenizer)
        segmenter = run_of(
            "segmentation",
            folder,
            tmp_path / "organs",
            1,
            init=str(run),
            overrides={
                "model.vit": "{dim: 32, depth: 4, heads: 2, position_grid: [2, 4, 4]}",
                "optimiser.lr": "1e-9",
            },
        )
        log = (segmenter / "log.txt").read_text()
        assert "Took" in log
        assert str(run) in log
        trained = file.load(runs.load_checkpoint_folder(segmenter).path / "model.safetensors")[0]
        own = trained.state_dict()["vit.blocks.0.attention.qkv.weight"]
        taken = model.state_dict()["vit.blocks.0.attention.qkv.weight"]
        torch.testing.assert_close(own, taken, atol=1e-5, rtol=0)


class TestCards:
    def test_a_checkpoint_is_a_whole_model(self, folder: Path, tmp_path: Path) -> None:
        run = run_of("segmentation", folder, tmp_path / "run", 2)
        model, card = file.load(runs.load_checkpoint_folder(run).path / "model.safetensors")
        assert card.kind == "segmenter"
        assert set(card.labels.values()) == set(LABELS.values())
        assert card.intensity["CT"].low == -125
        assert card.working_spacing == {"in_plane": 8.0}
        assert card.provenance["data"] == ["phantoms/0", "phantoms/1"]
        assert model.architecture == card.architecture


class TestBadInput:
    def test_a_rate_that_diverges_is_said(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(SpadError, match="loss became"):
            run_of(
                "tokenizer",
                folder,
                tmp_path / "run",
                30,
                overrides={"optimiser.lr": "1e30", "optimiser.clip_norm": "null"},
            )
        assert runs.read_state(tmp_path / "run").state == "failed"

    def test_nothing_is_made_for_a_folder_without_scans(self, tmp_path: Path) -> None:
        with pytest.raises(SpadError, match="is no folder"):
            train("tokenizer", [tmp_path / "none"], tmp_path / "run", steps=1)
        assert not (tmp_path / "run").exists()

    def test_a_mim_recipe_must_fit_its_tokenizer(self, folder: Path, tmp_path: Path) -> None:
        tokenizer = run_of("tokenizer", folder, tmp_path / "tokenizer", 1)
        with pytest.raises(SpadError, match=r"--model\.codes 32"):
            run_of(
                "mim",
                folder,
                tmp_path / "run",
                1,
                overrides={"tokenizer": str(tokenizer), "model.codes": "64"},
            )
