"""The module that Lightning trains: a task's steps, and when they are told, judged and saved."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn

from spad import turns
from spad.checkpoints import file
from spad.checkpoints.zoo import MODEL_FILE
from spad.data.samples import Batch
from spad.errors import SpadError
from spad.progress import Progress
from spad.training.checkpoint_state import (
    STATE_FILE,
    gathered,
    random_states,
    take_up_optimizer,
    take_up_random_states,
    write_state,
)
from spad.training.optimisers import learning_rate, parameter_groups
from spad.training.ranks import Follower, Ranks, sum_over_processes
from spad.training.recipe import Recipe, Schedule
from spad.training.runs import Checkpoint, RunWriter
from spad.training.task import Task

PATIENCE = 3
"""Validations in a row that must sound an alarm."""
_TURN_SECONDS = 0.05


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


class RunModule(lightning.LightningModule):
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
        models = [(self.model, options.lr, options.trained)]
        if self.critic is not None:
            models.append((self.critic, self.recipe.loss.critic_lr, []))
        return [
            torch.optim.AdamW(
                parameter_groups(one, options.weight_decay, options.layer_decay, trained),
                lr,
                fused=fused,
            )
            for one, lr, trained in models
        ]

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        return batch.to(device)

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
            rate = learning_rate(self.recipe.optimiser, self.done, peak)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("rate_factor", 1.0)
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
        figures["lr"] = learning_rate(self.recipe.optimiser, self.done)
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
        optimizers = self.trainer.optimizers
        weights, optimizer = gathered(self.model, optimizers[0], sharded=self._is_sharded)
        self._saved = self.step
        if isinstance(self.writer, Follower):
            return
        with self.writer.checkpoint(self.step) as folder:
            file.save(folder / MODEL_FILE, self.model, self.task.card(self.step), weights=weights)
            state = {**self._state(), **self._critic(), "optimizer": optimizer}
            write_state(folder / STATE_FILE, state)

    def _critic(self) -> dict[str, Any]:
        if self.critic is None:
            return {}
        state = self.trainer.optimizers[1].state_dict()
        return {"critic": self.critic.state_dict(), "critic_optimizer": state}

    @property
    def _is_sharded(self) -> bool:
        return self.ranks.count > 1 and self.recipe.trainer.strategy == "fsdp"

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best,
            "sums": self.sums,
            "alarms": self._alarms,
            "task": self.task.state(),
            "elapsed": self.clock.elapsed(),
            **random_states(),
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
        take_up_random_states(state)
        return state

    def take_up_optimizers(self, kept: dict[str, Any]) -> None:
        """Load the states of the optimisers, once Lightning has made them."""
        if self.critic is not None:
            self.trainer.optimizers[1].load_state_dict(kept["critic_optimizer"])
        take_up_optimizer(
            self.model, self.trainer.optimizers[0], kept["optimizer"], sharded=self._is_sharded
        )


def _blocks(model: nn.Module) -> list[nn.Module]:
    """List the parts of a model that are worth a shard of their own: those of its longest lists."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    longest = max(map(len, lists), default=0)
    return [part for found in lists if len(found) == longest for part in found]


def _eager() -> AbstractContextManager[None]:
    """Run uncompiled: every crop of a validation would be compiled for a few batches."""
    return torch.compiler.set_stance("force_eager")
