"""The engine: Lightning on a place for a run, its batches and interrupts."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.utils.data import DataLoader, Dataset

from spad.data.samples import Batch, Sampler
from spad.device import choose, computes_bfloat16
from spad.errors import SpadError
from spad.processes import step_back
from spad.progress import Progress
from spad.training.module import RunModule
from spad.training.ranks import Follower, Ranks
from spad.training.recipe import Recipe
from spad.training.runs import Checkpoint, RunWriter
from spad.training.task import Task

ROOM = 0.6
"""Share of a GPU's memory that a run takes which leaves room for the viewer."""
_STEPS_BACK = 10
DATA_SHARE = 0.25
"""Share of a GPU's free memory that the scans of a run may take."""
MOST_WORKERS = 8


class Batches(Dataset):
    """The batches of a run from a step on."""

    def __init__(self, sampler: Sampler, start: int, stop: int) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        return self.sampler.batch(self.start + index)


class _LoadOptimizers(lightning.Callback):
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, RunModule)
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
    module = RunModule(task, recipe, writer, validation, progress, ranks)
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


def _half(precision: str, device: torch.device) -> bool:
    if precision not in ("auto", "bf16", "float32"):
        raise SpadError(
            f"The recipe's precision is {precision!r}; expected auto, bf16 or float32; correct it."
        )
    return precision == "bf16" or (precision == "auto" and computes_bfloat16(device))


@contextmanager
def _interrupts(module: RunModule) -> Iterator[None]:
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
