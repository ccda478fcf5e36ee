"""The engine: Lightning steps; batches, rates, the run directory and exact resume from here."""

from __future__ import annotations

import logging
import math
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from spad.checkpoints import file
from spad.data.samples import Batch, Sampler
from spad.device import choose, computes_bfloat16
from spad.errors import SpadError
from spad.progress import Progress
from spad.training.recipe import Recipe, Schedule
from spad.training.runs import Checkpoint, RunWriter
from spad.training.task import Task

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.pt"
UNDECAYED = ("position", "cls_token", "mask_token", "codebook")


class Clock:
    """How far a run is: by steps, and by minutes where those are given."""

    def __init__(self, schedule: Schedule, elapsed: float = 0.0) -> None:
        self.schedule = schedule
        self._before = elapsed
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._before + time.monotonic() - self._start

    def progress(self, step: int) -> float:
        """Fraction of the run that is done before update `step`, 0 to 1."""
        done = step / self.schedule.steps
        if self.schedule.minutes is not None:
            done = max(done, self.elapsed() / (60 * self.schedule.minutes))
        return min(1.0, done)


class Batches(Dataset):
    """The batches of a run from a step on."""

    def __init__(self, sampler: Sampler, start: int, stop: int) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        return self.sampler.batch(self.start + index)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters: no decay for biases, norms, positions, tokens and the codebook."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in UNDECAYED
        (free if plain else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


class _Module(lightning.LightningModule):
    """Joins a task, the run directory and Lightning."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        writer: RunWriter,
        validation: Sequence[Batch],
        progress: Progress,
    ) -> None:
        super().__init__()
        self.task, self.recipe, self.writer = task, recipe, writer
        self.model = task.model
        self.validation, self.progress = validation, progress
        self.step = 0
        self.best = -math.inf
        self.sums: dict[str, float] = {}
        self.clock = Clock(recipe.schedule)
        self.interrupted = False
        self._since = time.monotonic()
        self._saved: int | None = None
        self._looked: int | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = self.recipe.optimiser
        return torch.optim.AdamW(parameter_groups(self.model, options.weight_decay), lr=options.lr)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return batch.to(device)

    def rate(self, done: float) -> float:
        """Learning rate at a fraction of the run: linear warm-up, then a cosine."""
        options = self.recipe.optimiser
        if done < options.warm_up:
            return options.lr * (done + 1e-3) / (options.warm_up + 1e-3)
        angle = math.pi * (done - options.warm_up) / max(1e-9, 1 - options.warm_up)
        return options.final_lr + (options.lr - options.final_lr) * (1 + math.cos(angle)) / 2

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        done = self.clock.progress(self.step)
        if self.interrupted or done >= 1:
            self.trainer.should_stop = True
            return -1
        for group in self.optimizers().optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self.rate(done)
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss, figures = self.task.loss(batch, self.clock.progress(self.step))
        if not torch.isfinite(loss):
            raise SpadError(
                f"The loss became {loss.item()} at step {self.step + 1}; expected a finite "
                f"number; lower "
                "--optimiser.lr or look for damaged scans."
            )
        for name, value in {"loss": loss.item(), **figures}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums["steps"] = self.sums.get("steps", 0.0) + 1
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.step += 1
        schedule = self.recipe.schedule
        if self.step % schedule.log_every == 0:
            self._log()
        if self.step % schedule.validate_every == 0:
            self.look()
        if self.step % schedule.checkpoint_every == 0:
            self.save()

    def _log(self) -> None:
        steps = self.sums.pop("steps")
        figures = {name: value / steps for name, value in self.sums.items()}
        now = time.monotonic()
        figures["lr"] = self.rate(self.clock.progress(self.step - 1))
        figures["seconds_per_step"] = (now - self._since) / steps
        self.sums, self._since = {}, now
        self.writer.append_metrics(self.step, "train", figures)
        text = f"step {self.step}, loss {figures['loss']:.4f}"
        self.writer.update(self.step, text)
        self.progress(self.clock.progress(self.step), text)

    def look(self) -> None:
        """Validate, and remember the best."""
        if not self.validation or self._looked == self.step:
            return
        self._looked = self.step
        self.model.eval()
        batches = [batch.to(self.device) for batch in self.validation]
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            figures = self.task.validate(batches)
        self.model.train()
        self.writer.append_metrics(self.step, "validation", figures)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(figures.items())[:3])
        self.progress(self.clock.progress(self.step), f"step {self.step}, validation: {shown}")
        if figures[self.task.score] > self.best:
            self.best = figures[self.task.score]
            self.save()
            self.writer.mark_best(self.step)

    def save(self) -> None:
        """Write a checkpoint of this step, once."""
        if self._saved == self.step:
            return
        with self.writer.checkpoint(self.step) as folder:
            file.save(folder / MODEL_FILE, self.model, self.task.card(self.step))
            torch.save(self._state(), folder / STATE_FILE)
        self._saved = self.step

    def _state(self) -> dict[str, Any]:
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
        return {
            "step": self.step,
            "best": self.best,
            "sums": self.sums,
            "elapsed": self.clock.elapsed(),
            "optimizer": self.optimizers().optimizer.state_dict(),  # type: ignore[union-attr]
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": (
                name,
                torch.from_numpy(np.asarray(keys, dtype=np.int64)),
                position,
                has_gauss,
                gauss,
            ),
            "python": random.getstate(),
        }

    def take_up(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Load weights, counters and random states; give back the optimiser's state."""
        model, _ = file.load(checkpoint.path / MODEL_FILE)
        self.model.load_state_dict(model.state_dict())
        state = torch.load(checkpoint.path / STATE_FILE, weights_only=True)
        self.step, self.best, self.sums = state["step"], state["best"], state["sums"]
        self._saved = self.step
        self.clock = Clock(self.recipe.schedule, state["elapsed"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        random.setstate(state["python"])
        return state["optimizer"]


class _LoadOptimizer(lightning.Callback):
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        trainer.optimizers[0].load_state_dict(self.state)


def fit(
    task: Task,
    recipe: Recipe,
    writer: RunWriter,
    sampler: Sampler,
    validation: Sequence[Batch],
    *,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    device: str = "auto",
) -> None:
    """Train until the recipe's steps or minutes are over.

    Args:
        task: what is trained.
        recipe: its numbers.
        writer: the run directory.
        sampler: where batches come from.
        validation: fixed batches to judge by.
        progress: told about every logged step; an error it raises ends the run after a checkpoint.
        checkpoint: where to go on from, or None for a fresh run.
        device: "auto", "cpu" or "cuda".

    Raises:
        KeyboardInterrupt: a person interrupted; a checkpoint was written.
        SpadError: the loss is not finite, or the run directory cannot be written.
    """
    torch.manual_seed(recipe.seed)
    module = _Module(task, recipe, writer, validation, progress)
    callbacks = [_LoadOptimizer(module.take_up(checkpoint))] if checkpoint else []
    batches = Batches(sampler, module.step, recipe.schedule.steps)
    place = choose(device)
    with _interrupts(module), _quiet():
        trainer = lightning.Trainer(
            accelerator="gpu" if place.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if _half(recipe.precision, place) else "32-true",
            max_steps=-1,
            max_epochs=1,
            gradient_clip_val=recipe.optimiser.clip_norm,
            callbacks=callbacks,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=str(writer.run),
        )
        loader = DataLoader(batches, batch_size=None, shuffle=False)
        trainer.fit(module, loader)
        if not module.interrupted:
            module.look()
        module.save()
    if module.interrupted:
        raise KeyboardInterrupt


def _half(precision: str, device: torch.device) -> bool:
    if precision not in ("auto", "bf16", "float32"):
        raise SpadError(
            f"The recipe's precision is {precision!r}; expected auto, bf16 or float32; correct it."
        )
    return precision == "bf16" or (precision == "auto" and computes_bfloat16(device))


@contextmanager
def _interrupts(module: _Module) -> Iterator[None]:
    """Let the first interrupt end the run after a checkpoint, a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        if module.interrupted:
            raise KeyboardInterrupt
        module.interrupted = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield
    logger.setLevel(level)
