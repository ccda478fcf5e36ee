"""A recipe: every number of a training run, typed, from YAML and the command line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spad.data.options import DataOptions
from spad.errors import SpadError

FOLDER = Path(__file__).parent / "recipes"
TASKS = ("tokenizer", "mim", "segmentation", "clicks")
ACCELERATORS = ("auto", "cpu", "cuda")
STRATEGIES = ("ddp", "fsdp")


@dataclass
class Optimiser:
    """AdamW with a linear warm-up and a cosine to `final_lr`.

    Attributes:
        lr: peak learning rate.
        final_lr: the one at the end.
        weight_decay: of all but biases, norms, positions and tokens.
        warm_up: fraction of the run until the peak.
        clip_norm: largest norm of the gradient, or None.
        layer_decay: factor by which a transformer block learns slower than the next one; 1 is the
            authors'.
        trained: beginnings of the names of the weights that learn, such as "heads"; empty for all.
    """

    lr: float = 1e-3
    final_lr: float = 1e-6
    weight_decay: float = 0.05
    warm_up: float = 0.05
    clip_norm: float | None = 1.0
    layer_decay: float = 1.0
    trained: list[str] = field(default_factory=list)


@dataclass
class Loss:
    """Weights of the terms.

    Attributes:
        divergence: lambda 1, on KL(mean code distribution || uniform).
        entropy: lambda 2, on the mean entropy of a token.
        prior_start: fraction of the run at which the regulariser begins to rise.
        prior_full: fraction of the run at which it has its full weight.
        perceptual: weight of LPIPS; the authors' is 1, and 0 needs no weights.
        perceptual_weights: files that together hold the weights of VGG-16 and LPIPS.
        adversarial: weight of the discriminator's term; the authors' is 3e-3, 0 trains none.
        adversarial_gate: the term counts only while the discriminator's loss is at most this.
        adversarial_adaptive: multiply the weight by VQGAN's ratio of gradients.
        critic_channels: widths of the discriminator.
        critic_lr: its learning rate.
        balance: for segmentation, voxels of a class of n voxels count n ** -balance times in the
            cross entropy; 0 is the authors'.
    """

    divergence: float = 1.0
    entropy: float = 0.2
    prior_start: float = 0.1
    prior_full: float = 0.3
    perceptual: float = 0.0
    perceptual_weights: list[str] = field(default_factory=list)
    adversarial: float = 0.0
    adversarial_gate: float = 0.025
    adversarial_adaptive: bool = False
    critic_channels: list[int] = field(default_factory=lambda: [128, 256, 512])
    critic_lr: float = 1e-3
    balance: float = 0.0


@dataclass
class Schedule:
    """How long, and how often to look.

    Attributes:
        steps: generator updates; when `minutes` is given, an upper bound.
        minutes: wall-clock training time, or None.
        log_every: steps between lines of `metrics.jsonl`.
        first_look: a step after which to validate as well, so that pictures are there early; 0
            does so before the first step, which shows what a model that is gone on with was.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        validation_batches: fixed batches that a validation looks at.
        alarms: end a run early whose figures say that it is hopeless.
    """

    steps: int = 1000
    minutes: float | None = None
    log_every: int = 10
    first_look: int = 25
    validate_every: int = 100
    checkpoint_every: int = 100
    validation_batches: int = 8
    alarms: bool = True


@dataclass
class TrainerOptions:
    """On what a run is trained.

    Attributes:
        accelerator: "auto", "cpu" or "cuda".
        devices: processes on each machine, one for each GPU; the batch is that of one process.
        num_nodes: machines; more than one are started by torchrun or SLURM.
        strategy: "ddp" (every process holds the model) or "fsdp" (its parts are shared out).
        leave_room: stop between two steps while the viewer's worker has a job for the same device,
            and take at most 60 % of a GPU's memory.
        compile: let torch compile the model once for each `da`, on a GPU; pays in long runs.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "ddp"
    leave_room: bool = False
    compile: bool = False


@dataclass
class Recipe:
    """A resolved recipe, as `recipe.yaml` of a run holds it.

    Attributes:
        task: "tokenizer", "mim", "segmentation" or "clicks".
        preset: the preset it started from.
        seed: sample n of a run is a function of it and n.
        init: a model to start from, or None.
        tokenizer: for "mim", the name of the frozen tokenizer.
        segmenter: for "clicks", the name of the model whose features of a scan it takes.
        mask_ratio: for "mim", the fraction of tokens hidden.
        same_labels: the model keeps all labels and modalities of `init`, also such as no
            scan has.
        model: the model's constructor arguments.
        sources: folders of scans.
    """

    task: str
    preset: str = "tiny"
    seed: int = 0
    init: str | None = None
    tokenizer: str = "tokenizer-tiny"
    segmenter: str | None = None
    mask_ratio: float = 0.55
    same_labels: bool = False
    precision: str = "auto"
    model: dict[str, Any] = field(default_factory=dict)
    data: DataOptions = field(default_factory=DataOptions)
    optimiser: Optimiser = field(default_factory=Optimiser)
    loss: Loss = field(default_factory=Loss)
    schedule: Schedule = field(default_factory=Schedule)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    sources: list[str] = field(default_factory=list)

    def to_yaml(self) -> str:
        """The recipe as YAML text that `from_yaml` reads back."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, where: str) -> Recipe:
        """Read a resolved recipe.

        Raises:
            SpadError: the text is no YAML, or a key or a value is not a recipe's.
        """
        return _build(cls, _mapping(text, where), where)


def resolve(
    name: str, preset: str | None = None, overrides: Mapping[str, str] | None = None
) -> Recipe:
    """Make a recipe from a named recipe or a YAML file, a preset and overrides.

    Args:
        name: "tokenizer", "mim", "segmentation", another name in the package's `recipes` folder, or
            a YAML file.
        preset: a name under the recipe's `presets`; the first one when None.
        overrides: dotted key -> YAML text, such as {"optimiser.lr": "3e-4"}.

    Raises:
        SpadError: an unknown recipe, preset or key, or a value of another type.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise SpadError(
            f"There is no recipe {name!r}; expected one of {known} or a YAML file; choose one of "
            f"those."
        )
    content = _extended(_mapping(path.read_text(), path.name))
    presets = content.pop("presets", {})
    if presets:
        preset = preset or next(iter(presets))
        if preset not in presets:
            raise SpadError(
                f"Recipe {name!r} has no preset {preset!r}; expected one of {', '.join(presets)}."
            )
        content = _merge(_merge(content, presets[preset]), {"preset": preset})
    for key, text in (overrides or {}).items():
        content = _merge(content, _nested(key, yaml.safe_load(text)))
    recipe = _build(Recipe, content, f"recipe {name!r}")
    _check(recipe, name)
    return recipe


def _check(recipe: Recipe, name: str) -> None:
    trainer = recipe.trainer
    for key, value, known in (
        ("task", recipe.task, TASKS),
        ("trainer.accelerator", trainer.accelerator, ACCELERATORS),
        ("trainer.strategy", trainer.strategy, STRATEGIES),
    ):
        if value not in known:
            raise SpadError(
                f"Recipe {name!r} has the {key} {value!r}; expected one of {', '.join(known)}."
            )
    for key, count in (("devices", trainer.devices), ("num_nodes", trainer.num_nodes)):
        if count < 1:
            raise SpadError(f"Recipe {name!r} has {count} trainer.{key}; expected at least 1.")


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpadError(
            f"{where} is not YAML ({str(error).splitlines()[0]}); correct it and try again."
        ) from error
    if not isinstance(content, dict):
        raise SpadError(
            f"{where} holds {type(content).__name__}; expected keys and values; correct it."
        )
    return content


def _extended(content: dict[str, Any]) -> dict[str, Any]:
    """Put a recipe's keys over those of the named recipe that it extends, if it does."""
    parent = content.pop("extends", None)
    if parent is None:
        return content
    path = FOLDER / f"{parent}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise SpadError(f"A recipe extends {parent!r}; expected one of {known}; correct it.")
    return _merge(_extended(_mapping(path.read_text(), path.name)), content)


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _build(cls: type, content: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(content) - set(hints))
    if unknown:
        raise SpadError(
            f"{where} has the unknown key {unknown[0]!r}; expected one of {', '.join(hints)}."
        )
    return cls(
        **{key: _value(hints[key], value, f"{where}, {key}") for key, value in content.items()}
    )


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise SpadError(f"{where} is {value!r}; expected keys and values.")
        return _build(hint, value, where)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    wanted = options[0]
    kind = typing.get_origin(wanted) or wanted
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        value = _number(value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise SpadError(f"{where} is {value!r}; expected {kind.__name__}; correct the value.")
    if kind is list:
        return [_value(typing.get_args(wanted)[0], item, where) for item in value]
    return value


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpadError(f"{where} is {text!r}; expected a number; correct the value.") from None
