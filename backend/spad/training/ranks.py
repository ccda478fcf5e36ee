"""Several processes that train one run: one of them leads and writes it, the others follow.

Lightning starts them (`--trainer.devices 4`), or torchrun or SLURM does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from spad.errors import SpadError
from spad.training.recipe import TrainerOptions

_RUN = "SPAD_RUN"
"""Tells the processes that Lightning starts which run they belong to."""


@dataclass(frozen=True)
class Ranks:
    """Which of a run's processes this is.

    Attributes:
        number: 0 for the leader.
        count: how many there are.
        environment: what started them all, None where Lightning does or there is one.
    """

    number: int = 0
    count: int = 1
    environment: ClusterEnvironment | None = None

    @classmethod
    def of(cls, options: TrainerOptions) -> Ranks:
        """Find out from what the starter of this process says.

        Raises:
            SpadError: the recipe asks for another number of processes than were started.
        """
        count = options.devices * options.num_nodes
        if TorchElasticEnvironment.detect():
            environment: ClusterEnvironment = TorchElasticEnvironment()
        elif SLURMEnvironment.detect():
            environment = SLURMEnvironment()
        elif options.num_nodes > 1:
            raise SpadError(
                f"The recipe asks for {options.num_nodes} machines, but one process was started by "
                "hand; expected torchrun or srun to start one on each; use one of those."
            )
        else:
            number = int(os.environ.get("LOCAL_RANK", "0")) if _RUN in os.environ else 0
            return cls(number, count)
        started = environment.world_size()
        if started != count:
            raise SpadError(
                f"{started} processes were started, but the recipe asks for {options.devices} "
                f"devices on {options.num_nodes} machines; expected as many; set "
                "--trainer.devices and --trainer.num_nodes to what torchrun or SLURM starts."
            )
        return cls(environment.global_rank(), count, environment if count > 1 else None)

    @property
    def leads(self) -> bool:
        """Whether this process writes the run."""
        return self.number == 0

    def share(self, make: Callable[[], Path]) -> Path:
        """Have the leader make the run, and tell the others where it is.

        Args:
            make: makes it and gives its path; called by the leader alone.

        Raises:
            SpadError: what the leader met, in every process.
        """
        if self.environment is None:
            if self.leads:
                path = make()
                if self.count > 1:
                    os.environ[_RUN] = str(path)
                return path
            return Path(os.environ[_RUN])
        _join(self.environment)
        said: list[str] = ["", ""]
        if self.leads:
            try:
                said[0] = str(make())
            except SpadError as error:
                said[1] = str(error)
        dist.broadcast_object_list(said)
        if said[1]:
            raise SpadError(said[1])
        return Path(said[0])


class Follower:
    """Stands in for the `RunWriter` in processes that do not write."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, step: int, message: str = "") -> None:
        """Write nothing."""

    def log(self, text: str) -> None:
        """Write nothing."""

    def append_metrics(self, step: int, phase: str, figures: Mapping[str, Any]) -> None:
        """Write nothing."""

    def add_sample(self, step: int, pictures: Any) -> None:
        """Write nothing."""

    def mark_best(self, step: int) -> None:
        """Write nothing."""

    def rewind(self, step: int) -> None:
        """Write nothing."""


def leads_here() -> bool:
    """Whether this process is the leader of those that have joined, or alone."""
    return not dist.is_initialized() or dist.get_rank() == 0


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over all processes, in place; alone it stays as it is."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def _join(environment: ClusterEnvironment) -> None:
    """Meet the other processes before Lightning does, which then takes over what it finds."""
    if dist.is_initialized():
        return
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank())
    dist.init_process_group(
        backend, rank=environment.global_rank(), world_size=environment.world_size()
    )
