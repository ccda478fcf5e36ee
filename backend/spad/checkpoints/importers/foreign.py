"""Reading foreign weight files without running code, and putting weights in their places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from spad.checkpoints.header import read_header
from spad.checkpoints.importers.report import IncompleteImport, Report
from spad.errors import SpadError

State = dict[str, torch.Tensor]
CONTAINERS = ("model", "state_dict", "module")


@dataclass(frozen=True)
class Slot:
    """A place in our state dict: a whole tensor, or one of `parts` equal runs of its rows."""

    name: str
    part: int = 0
    parts: int = 1

    def of(self, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The tensor of this place, as a view."""
        tensor = state[self.name]
        return tensor.chunk(self.parts)[self.part] if self.parts > 1 else tensor


Plan = dict[str, Slot]
"""Foreign name -> place in our state dict."""


def read_state(file: str | Path, dropped: Callable[[str], bool]) -> tuple[State, list[str]]:
    """Read the weights of a foreign checkpoint.

    Takes safetensors, and what `torch.save` wrote of plain containers and tensors. The weights may
    lie under one of the keys `model`, `state_dict` or `module`; the prefix `module.` is stripped.

    Args:
        file: the file.
        dropped: says of a name whether it is left out on purpose.

    Returns:
        The weights, and the names that were left out.

    Raises:
        SpadError: the file cannot be read, needs code, or holds no weights.
    """
    file = Path(file)
    found = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    for key in CONTAINERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    items = found.items() if isinstance(found, Mapping) else ()
    state: State = {}
    left_out = []
    for key, value in items:
        name = str(key).removeprefix("module.")
        if isinstance(value, torch.Tensor) and not dropped(name):
            state[name] = value
        else:
            left_out.append(name)
    if not state:
        raise SpadError(
            f"{file} holds no weights; expected named tensors, alone or under one of the keys "
            f"{', '.join(CONTAINERS)}; give the model's own checkpoint."
        )
    return state, left_out


def compare(plan: Plan, model: nn.Module, state: State, left_out: list[str]) -> Report:
    """Hold the names and shapes of foreign weights against the places of a model."""
    ours = model.state_dict()
    shapes = {name: tuple(slot.of(ours).shape) for name, slot in plan.items()}
    report = Report(dropped=sorted(left_out))
    for name in sorted(shapes.keys() | state.keys()):
        if name not in state:
            report.missing.append(name)
        elif name not in shapes:
            report.unexpected.append(name)
        elif tuple(state[name].shape) != shapes[name]:
            report.mismatched.append(
                f"{name}: {tuple(state[name].shape)} instead of {shapes[name]}"
            )
        elif not state[name].is_floating_point():
            report.mismatched.append(f"{name}: {state[name].dtype} instead of a real number")
        else:
            report.matched.append(name)
    return report


def arrange(plan: Plan, model: nn.Module, state: State) -> State:
    """Give a model's state dict (float32) with foreign weights in their places.

    Args:
        plan: the places of all the model's weights.
        model: says the shapes; it may lie on the meta device.
        state: complete, as `compare` says.
    """
    ours = {
        name: torch.empty(tensor.shape, dtype=torch.float32)
        for name, tensor in model.state_dict().items()
    }
    for name, slot in plan.items():
        slot.of(ours).copy_(state[name])
    return ours


def fill(
    file: str | Path, as_kind: str, model: nn.Module, plan: Plan, state: State, left_out: list[str]
) -> tuple[State, Report]:
    """Compare and arrange in one step.

    Raises:
        IncompleteImport: a weight is missing, unexpected or of another shape.
        SpadError: a weight is NaN or infinite.
    """
    report = compare(plan, model, state, left_out)
    if not report.complete:
        raise IncompleteImport(file, as_kind, report)
    for name in report.matched:
        if not state[name].isfinite().all():
            raise SpadError(
                f"{file} cannot be imported as {as_kind}: the weight '{name}' is not finite "
                "everywhere; expected numbers; give a checkpoint from before its training failed."
            )
    return arrange(plan, model, state), report


def shape_of(file: str | Path, as_kind: str, state: State, name: str, axes: int) -> tuple[int, ...]:
    """Give the shape of a weight that tells the architecture.

    Raises:
        SpadError: it is not there or has another number of axes.
    """
    if name not in state or state[name].ndim != axes:
        found = f"of shape {tuple(state[name].shape)}" if name in state else "missing"
        raise SpadError(
            f"{file} cannot be imported as {as_kind}: the weight '{name}' is {found}, but expected "
            f"with {axes} axes; give the checkpoint of that very model."
        )
    return tuple(state[name].shape)


def provenance(file: str | Path, as_kind: str, source: str) -> dict[str, Any]:
    """Say where an imported model comes from."""
    digest = hashlib.sha256()
    with Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {
        "importer": as_kind,
        "file": Path(file).name,
        "sha256": digest.hexdigest(),
        "source": source,
    }


def _read_safetensors(file: Path) -> Any:
    read_header(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise SpadError(
            f"{file} cannot be read as safetensors ({error}); copy it again."
        ) from error


def _read_pickle(file: Path) -> Any:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise SpadError(
            f"{file} cannot be read ({error.strerror or error}); expected a checkpoint file; check "
            "the path."
        ) from error
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    # a broken or hostile file can raise anything from inside the unpickler
    except Exception as error:
        raise SpadError(
            f"{file} is no plain checkpoint, or a pickle that needs code, which is refused; "
            "expected tensors in plain dictionaries; save the weights alone (torch.save of the "
            "state dict, or safetensors)."
        ) from error
