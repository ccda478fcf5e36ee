"""Which parameters learn how fast: groups for AdamW, and the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from spad.errors import SpadError
from spad.training.recipe import Optimiser

UNDECAYED = ("position", "cls_token", "mask_token", "codebook")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    trained: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Split parameters: no decay for biases, norms, positions, tokens and the codebook.

    Args:
        model: what is trained.
        weight_decay: of all others.
        layer_decay: each block of the transformer learns by this factor slower than the next one,
            the last one by it slower than what stands behind the transformer (BEiT, arXiv
            2106.08254, appendix).
        trained: beginnings of the names of parameters that learn; all others are frozen. Empty for
            all.

    Returns:
        Groups for AdamW, each with the factor of its learning rate as `rate_factor`.

    Raises:
        SpadError: no parameter has such a name.
    """
    if trained:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(tuple(trained)))
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise SpadError(
                f"No weight of the model has a name that begins with {' or '.join(trained)}; "
                "correct 'optimiser.trained'."
            )
    depth = 1 + max((block for n, _ in model.named_parameters() if (block := _block(n))), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (1.0, weight_decay): [],
        (1.0, 0.0): [],
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
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


def learning_rate(options: Optimiser, done: float, peak: float | None = None) -> float:
    """Learning rate at a fraction of the run: linear warm-up, then a cosine."""
    peak = peak or options.lr
    if done < options.warm_up:
        return peak * (done + 1e-3) / (options.warm_up + 1e-3)
    angle = math.pi * (done - options.warm_up) / max(1e-9, 1 - options.warm_up)
    return options.final_lr + (peak - options.final_lr) * (1 + math.cos(angle)) / 2
