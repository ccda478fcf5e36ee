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
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.utils.data import DataLoader, Dataset

from spad import turns
from spad.checkpoints import file
from spad.data.samples import Batch, Sampler
from spad.device import choose, computes_bfloat16
from spad.errors import SpadError
from spad.processes import step_back
from spad.progress import Progress
from spad.training.ranks import Follower, Ranks, sum_over_processes
from spad.training.recipe import Recipe, Schedule
from spad.training.runs import Checkpoint, RunWriter
from spad.training.task import Task

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.pt"
ROOM = 0.6
"""Share of a GPU's memory that a run takes which leaves room for the viewer."""
_TURN_SECONDS = 0.05
_STEPS_BACK = 10
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

    def leave_out(self, seconds: float) -> None:
        """Do not count seconds in which the run waited for somebody else."""
        self._before -= seconds

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
        writer: RunWriter | Follower,
        validation: Sequence[Batch],
        progress: Progress,
        ranks: Ranks,
    ) -> None:
        super().__init__()
        self.task, self.recipe, self.writer = task, recipe, writer
        self.model = task.model
        self.validation, self.progress, self.ranks = validation, progress, ranks
        self.step = 0
        self.done = 0.0
        self.best = -math.inf
        self.sums: dict[str, float] = {}
        self.clock = Clock(recipe.schedule)
        self.interrupted = False
        self._since = time.monotonic()
        self._saved: int | None = None
        self._looked: int | None = None

    def configure_model(self) -> None:
        """Share the model's parts out among the processes, where the recipe wants that."""
        if self._is_sharded and not hasattr(self.model, "unshard"):
            from torch.distributed.fsdp import fully_shard

            mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
            for part in _blocks(self.model):
                fully_shard(part, mesh=mesh)
            fully_shard(self.model, mesh=mesh)

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
        if self.recipe.trainer.leave_room:
            self._give_way()
        self.done = self._agreed()
        if self.done >= 1:
            self.trainer.should_stop = True
            return -1
        for group in self.optimizers().optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self.rate(self.done)
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss, figures = self.task.loss(batch, self.done)
        figures = self._mean({"loss": loss.item(), **figures})
        if not math.isfinite(figures["loss"]):
            raise SpadError(
                f"The loss became {figures['loss']} at step {self.step + 1}; expected a finite "
                f"number; lower "
                "--optimiser.lr or look for damaged scans."
            )
        for name, value in figures.items():
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

    def _give_way(self) -> None:
        """Wait while the viewer's worker has a job."""
        began = time.monotonic()
        while turns.is_taken() and not self.interrupted:
            self.writer.update(self.step, "Waiting while the viewer needs the device.")
            time.sleep(_TURN_SECONDS)
        waited = time.monotonic() - began
        if waited > _TURN_SECONDS:
            self.clock.leave_out(waited)
            self._since += waited

    def _agreed(self) -> float:
        """Give the fraction that is done, by the leader's clock; 1 if any process is to stop."""
        done = self.clock.progress(self.step)
        if self.ranks.count > 1:
            said = [float(self.interrupted), done if self.ranks.leads else 0.0]
            stops, done = sum_over_processes(
                torch.tensor(said, dtype=torch.float64, device=self.device)
            ).tolist()
            self.interrupted = stops > 0
        return 1.0 if self.interrupted else done

    def _mean(self, figures: dict[str, float]) -> dict[str, float]:
        """Take the mean of figures over the processes."""
        if self.ranks.count == 1:
            return figures
        local = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        mean = sum_over_processes(local) / self.ranks.count
        return dict(zip(figures, mean.tolist(), strict=True))

    def _log(self) -> None:
        steps = self.sums.pop("steps")
        figures = {name: value / steps for name, value in self.sums.items()}
        now = time.monotonic()
        figures["lr"] = self.rate(self.done)
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
            figures = self.trainer.strategy.broadcast(self.task.validate(batches))
            pictures = self.task.sample(batches[0])
        self.model.train()
        self.writer.append_metrics(self.step, "validation", figures)
        self.writer.add_sample(self.step, pictures)
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
        weights, optimizer = self._gathered()
        self._saved = self.step
        if isinstance(self.writer, Follower):
            return
        with self.writer.checkpoint(self.step) as folder:
            file.save(folder / MODEL_FILE, self.model, self.task.card(self.step), weights=weights)
            _write(folder / STATE_FILE, {**self._state(), "optimizer": optimizer})

    def _gathered(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Give the weights (None if this process has all of them) and the optimiser's state."""
        optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        if not self._is_sharded:
            return None, optimizer.state_dict()
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_state_dict(self.model, optimizer, options=whole)

    @property
    def _is_sharded(self) -> bool:
        return self.ranks.count > 1 and self.recipe.trainer.strategy == "fsdp"

    def _state(self) -> dict[str, Any]:
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
        return {
            "step": self.step,
            "best": self.best,
            "sums": self.sums,
            "elapsed": self.clock.elapsed(),
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

    def take_up_optimizer(self, state: dict[str, Any]) -> None:
        """Load the optimiser's state, once Lightning has made it."""
        optimizer = self.trainer.optimizers[0]
        if not self._is_sharded:
            optimizer.load_state_dict(state)
            return
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_optimizer_state_dict,
        )

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        set_optimizer_state_dict(self.model, optimizer, state, options=whole)


class _LoadOptimizer(lightning.Callback):
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, _Module)
        pl_module.take_up_optimizer(self.state)


def fit(
    task: Task,
    recipe: Recipe,
    writer: RunWriter | Follower,
    sampler: Sampler,
    validation: Sequence[Batch],
    *,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks,
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
        ranks: which of the run's processes this is.

    Raises:
        KeyboardInterrupt: a person interrupted; a checkpoint was written. Only in the leader:
            the processes that follow it just end.
        SpadError: the loss is not finite, or the run directory cannot be written.
    """
    torch.manual_seed(recipe.seed)
    place = choose(recipe.trainer.accelerator)
    wanted, there = recipe.trainer.devices, torch.cuda.device_count()
    if place.type == "cuda" and wanted > there:
        raise SpadError(
            f"The recipe asks for {wanted} GPUs on each machine, but this one has {there}; set "
            "--trainer.devices to at most that."
        )
    if recipe.trainer.leave_room:
        step_back(_STEPS_BACK)
        if place.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(ROOM)
    module = _Module(task, recipe, writer, validation, progress, ranks)
    callbacks = [_LoadOptimizer(module.take_up(checkpoint))] if checkpoint else []
    batches = Batches(sampler, module.step, recipe.schedule.steps)
    with _interrupts(module), _quiet():
        trainer = lightning.Trainer(
            accelerator="gpu" if place.type == "cuda" else "cpu",
            devices=recipe.trainer.devices,
            num_nodes=recipe.trainer.num_nodes,
            strategy=_strategy(recipe, ranks),
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
    if module.interrupted and ranks.leads:
        raise KeyboardInterrupt


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a state; torch hides the system's reason where a disk is full."""
    with path.open("wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            cause = error.__context__
            if isinstance(cause, OSError):
                raise cause from error
            raise


def _strategy(recipe: Recipe, ranks: Ranks) -> Any:
    """Give Lightning's way to train with several processes."""
    if ranks.count == 1:
        return "auto"
    if recipe.trainer.strategy == "fsdp":
        return ModelParallelStrategy(data_parallel_size=ranks.count, tensor_parallel_size=1)
    # a segmenter takes maps from between the transformer's blocks and never its last norm
    return DDPStrategy(find_unused_parameters=recipe.task == "segmentation")


def _blocks(model: nn.Module) -> list[nn.Module]:
    """List the parts of a model that are worth a shard of their own: those of its longest lists."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    longest = max(map(len, lists), default=0)
    return [part for found in lists if len(found) == longest for part in found]


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
