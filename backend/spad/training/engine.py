"""The engine: Lightning steps; batches, rates, the run directory and exact resume from here."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
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
PATIENCE = 3
"""Validations in a row that must sound an alarm."""
DATA_SHARE = 0.25
"""Share of a GPU's free memory that the scans of a run may take."""
MOST_WORKERS = 8
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


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Split parameters: no decay for biases, norms, positions, tokens and the codebook.

    Args:
        model: what is trained.
        weight_decay: of all others.
        layer_decay: each block of the transformer learns by this factor slower than the next one,
            the last one by it slower than what stands behind the transformer (BEiT, arXiv
            2106.08254, appendix).

    Returns:
        Groups for AdamW, each with the factor of its learning rate as `rate_factor`.
    """
    depth = 1 + max((block for n, _ in model.named_parameters() if (block := _block(n))), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (1.0, weight_decay): [],
        (1.0, 0.0): [],
    }
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in UNDECAYED
        block = _block(name)
        factor = 1.0 if block is None else layer_decay ** (depth - block)
        groups.setdefault((factor, 0.0 if plain else weight_decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_factor": factor}
        for (factor, decay), parameters in groups.items()
    ]


def _block(name: str) -> int | None:
    """Count a parameter's transformer block from 1; 0 is the embedding; None stands behind."""
    if not name.startswith("vit.") or name.startswith("vit.norm."):
        return None
    parts = name.split(".")
    return int(parts[2]) + 1 if parts[1] == "blocks" else 0


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
        # a task may have a second optimiser, so that Lightning leaves all updates to us
        self.automatic_optimization = False
        self.task, self.recipe, self.writer = task, recipe, writer
        self.model, self.critic = task.model, task.critic
        self.validation, self.progress, self.ranks = validation, progress, ranks
        self.step = 0
        self.done = 0.0
        self.best = -math.inf
        self.sums: dict[str, Any] = {}
        self.clock = Clock(recipe.schedule)
        self.interrupted = False
        self._since = self._ended = time.monotonic()
        self._waited = 0.0
        self._alarms: list[str] = []
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

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        options, fused = self.recipe.optimiser, self.device.type == "cuda"
        models = [(self.model, options.lr)]
        if self.critic is not None:
            models.append((self.critic, self.recipe.loss.critic_lr))
        return [
            torch.optim.AdamW(
                parameter_groups(one, options.weight_decay, options.layer_decay), lr, fused=fused
            )
            for one, lr in models
        ]

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return batch.to(device)

    def rate(self, done: float, peak: float | None = None) -> float:
        """Learning rate at a fraction of the run: linear warm-up, then a cosine."""
        options = self.recipe.optimiser
        peak = peak or options.lr
        if done < options.warm_up:
            return peak * (done + 1e-3) / (options.warm_up + 1e-3)
        angle = math.pi * (done - options.warm_up) / max(1e-9, 1 - options.warm_up)
        return options.final_lr + (peak - options.final_lr) * (1 + math.cos(angle)) / 2

    def on_train_start(self) -> None:
        is_fresh = self._saved is None
        if is_fresh and self.recipe.schedule.first_look == 0:
            self.look()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        self._waited += time.monotonic() - self._ended
        if self.recipe.trainer.leave_room:
            self._give_way()
        self.done = self._agreed()
        if self.done >= 1:
            self.trainer.should_stop = True
            return -1
        peaks = (self.recipe.optimiser.lr, self.recipe.loss.critic_lr)
        for optimizer, peak in zip(self.trainer.optimizers, peaks, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = self.rate(self.done, peak) * group.get("rate_factor", 1.0)
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        loss, figures = self.task.loss(batch, self.done)
        self._update(0, loss)
        if self.critic is not None:
            critic_loss, more = self.task.critic_loss()
            self._update(1, critic_loss)
            figures |= more
        if self.device.type == "cpu" and self.ranks.count == 1:
            self._check_finite(loss.item())
        for name, value in {"loss": loss.detach(), **figures, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def _update(self, number: int, loss: torch.Tensor) -> None:
        """Step one of the optimisers down its loss."""
        optimizer = self._optimizers()[number]
        optimizer.zero_grad()
        self.manual_backward(loss)
        clip = self.recipe.optimiser.clip_norm
        if clip is not None:  # Lightning refuses to clip for fused optimisers
            torch.nn.utils.clip_grad_norm_(
                [p for g in optimizer.param_groups for p in g["params"]], clip
            )
        optimizer.step()

    def _optimizers(self) -> list[LightningOptimizer]:
        given = self.optimizers()
        return given if isinstance(given, list) else [given]

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise SpadError(
                f"The loss became {loss} at step {self.step + 1}; expected a finite number; lower "
                "--optimiser.lr or look for damaged scans."
            )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.step += 1
        schedule = self.recipe.schedule
        if self.step % schedule.log_every == 0:
            self._log()
        if self.step % schedule.validate_every == 0 or self.step == schedule.first_look:
            self.look()
        if self.step % schedule.checkpoint_every == 0:
            self.save()
        self._ended = time.monotonic()

    def on_train_end(self) -> None:
        """Look and save, once, while the model is still on its device."""
        if not self.interrupted:
            self.look()
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

    def _gather_sums(self) -> None:
        """Make the sums plain numbers, the means over all processes.

        Until then they stay on the device, so that a GPU need not be waited for at every step.
        """
        if "steps" not in self.sums:
            return
        local = torch.stack(
            [
                torch.as_tensor(v, dtype=torch.float64, device=self.device)
                for v in self.sums.values()
            ]
        )
        if self.ranks.count > 1:
            local = sum_over_processes(local) / self.ranks.count
        self.sums = dict(zip(self.sums, local.tolist(), strict=True))
        self._check_finite(self.sums["loss"])

    def _log(self) -> None:
        self._gather_sums()
        steps = self.sums.pop("steps")
        figures = {name: value / steps for name, value in self.sums.items()}
        now = time.monotonic()
        figures["lr"] = self.rate(self.done)
        figures["seconds_per_step"] = (now - self._since) / steps
        figures["waiting_for_data"] = self._waited / max(now - self._since, 1e-9)
        self.sums, self._since, self._waited = {}, now, 0.0
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
        half, eager = self.trainer.precision_plugin.forward_context(), _eager()
        with torch.no_grad(), half, eager:
            figures = self.trainer.strategy.broadcast(self.task.validate(batches))
            pictures = self.task.sample(batches[0])
        self.model.train()
        self.writer.append_metrics(self.step, "validation", figures)
        self.writer.add_sample(self.step, pictures)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(figures.items())[:3])
        self.progress(self.clock.progress(self.step), f"step {self.step}, validation: {shown}")
        score = self.task.score(figures, self.done)
        if score > self.best:
            self.best = score
            self.save()
            self.writer.mark_best(self.step)
        if self.recipe.schedule.alarms:
            self._listen(self.task.alarm(figures, self.clock.progress(self.step)))

    def _listen(self, alarm: str | None) -> None:
        """End the run at the third validation in a row that sounds an alarm."""
        self._alarms = [*self._alarms, alarm] if alarm else []
        if len(self._alarms) < PATIENCE or self.done >= 1:
            return
        self.save()
        raise SpadError(f"Stopped at step {self.step}, since going on is hopeless. {alarm}")

    def save(self) -> None:
        """Write a checkpoint of this step, once."""
        if self._saved == self.step:
            return
        self._gather_sums()
        weights, optimizer = self._gathered()
        self._saved = self.step
        if isinstance(self.writer, Follower):
            return
        with self.writer.checkpoint(self.step) as folder:
            file.save(folder / MODEL_FILE, self.model, self.task.card(self.step), weights=weights)
            _write(folder / STATE_FILE, {**self._state(), **self._critic(), "optimizer": optimizer})

    def _critic(self) -> dict[str, Any]:
        if self.critic is None:
            return {}
        state = self.trainer.optimizers[1].state_dict()
        return {"critic": self.critic.state_dict(), "critic_optimizer": state}

    def _gathered(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Give the weights (None if this process has all of them) and the optimiser's state."""
        optimizer = self.trainer.optimizers[0]
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
            "alarms": self._alarms,
            "task": self.task.state(),
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
        """Load weights, counters and random states; give back all that was kept."""
        model, _ = file.load(checkpoint.path / MODEL_FILE)
        self.model.load_state_dict(model.state_dict())
        state = torch.load(checkpoint.path / STATE_FILE, weights_only=True)
        self.step, self.best, self.sums = state["step"], state["best"], state["sums"]
        self._alarms = state["alarms"]
        self.task.take_up(state["task"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
        self._saved = self.step
        self.clock = Clock(self.recipe.schedule, state["elapsed"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        random.setstate(state["python"])
        return state

    def take_up_optimizers(self, kept: dict[str, Any]) -> None:
        """Load the states of the optimisers, once Lightning has made them."""
        optimizer, state = self.trainer.optimizers[0], kept["optimizer"]
        if self.critic is not None:
            self.trainer.optimizers[1].load_state_dict(kept["critic_optimizer"])
        if not self._is_sharded:
            optimizer.load_state_dict(state)
            return
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_optimizer_state_dict,
        )

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        set_optimizer_state_dict(self.model, optimizer, state, options=whole)


class _LoadOptimizers(lightning.Callback):
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, _Module)
        pl_module.take_up_optimizers(self.state)


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
    if recipe.trainer.strategy == "fsdp" and task.critic is not None:
        raise SpadError(
            "A discriminator cannot be shared out by fsdp; use --trainer.strategy ddp or "
            "--loss.adversarial 0."
        )
    sampler, workers = _placed(sampler, recipe, place)
    # the instance norms of segmenters copy to the other order on a GPU, which costs more than the
    # convolutions gain (104 against 89 ms for a step on an H100)
    last = _half(recipe.precision, place)
    last &= not (place.type == "cuda" and recipe.task == "segmentation")
    for part in (task.model, task.critic):
        if part is not None and last:
            part.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if recipe.trainer.compile and place.type == "cuda":
        torch._dynamo.config.cache_size_limit = 64  # a version for each `da` and mode
        task.model.compile(dynamic=False)
    module = _Module(task, recipe, writer, validation, progress, ranks)
    callbacks = [_LoadOptimizers(module.take_up(checkpoint))] if checkpoint else []
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
            callbacks=callbacks,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=str(writer.run),
        )
        trainer.fit(module, _loader(batches, workers, place))
        module.on_train_end()  # Lightning leaves it out where no step was left
    if module.interrupted and ranks.leads:
        raise KeyboardInterrupt


def _placed(sampler: Sampler, recipe: Recipe, place: torch.device) -> tuple[Sampler, int]:
    """Put the scans onto the GPU if they take a small part of it, else make samples ahead.

    Returns:
        The sampler, and in how many processes of their own samples are made.
    """
    wanted = recipe.data.workers
    if place.type == "cpu":
        return sampler, wanted or 0
    held = sampler.held()
    if wanted is None and held is not None and held < DATA_SHARE * torch.cuda.mem_get_info()[0]:
        return sampler.to(torch.device("cuda", torch.cuda.current_device())), 0
    return sampler, min(MOST_WORKERS, os.cpu_count() or 1) if wanted is None else wanted


def _loader(batches: Batches, workers: int, place: torch.device) -> DataLoader:
    return DataLoader(
        batches,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        pin_memory=workers > 0 and place.type == "cuda",
        generator=torch.Generator(),  # else it draws from the state that a resume brings back
    )


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
    # a segmenter takes maps from between the transformer's blocks and never its last norm; the
    # losses of a tokenizer and of its critic each leave out the other's weights
    partial = recipe.task == "segmentation" or recipe.loss.adversarial > 0
    return DDPStrategy(find_unused_parameters=partial)


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


def _eager() -> AbstractContextManager[None]:
    """Run uncompiled: every crop of a validation would be compiled for a few batches."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield
    logger.setLevel(level)
