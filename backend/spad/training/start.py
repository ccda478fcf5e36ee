"""Starting and resuming a run: from a recipe and folders of scans to a run directory."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spad.checkpoints import file, zoo
from spad.checkpoints.card import Card
from spad.data.click_features import KnownScan
from spad.data.click_samples import ClickSampler
from spad.data.cohort import Cohort, Contract, model_contracts
from spad.data.folder import Folder, read_source
from spad.data.fraction import fewer_labels
from spad.data.reading import prepare
from spad.data.samples import Sampler
from spad.data.store import Store
from spad.errors import SpadError
from spad.progress import Progress, silent
from spad.training import runs
from spad.training.clicks import ClickTask, known_scans
from spad.training.engine import fit
from spad.training.inherit import lasting, modality_labels, with_heritage
from spad.training.mim import MaskedImageTask
from spad.training.planning import planned, with_channels
from spad.training.ranks import Follower, Ranks
from spad.training.recipe import Recipe, resolve
from spad.training.segmentation import SegmentationTask
from spad.training.task import Task
from spad.training.tokenizer import TokenizerTask

KINDS = {"tokenizer": "tokenizer", "mim": "mim", "segmentation": "segmenter", "clicks": "clicker"}
LABELLED = ("segmentation", "clicks")
"""Tasks that need labels."""


def train(
    recipe: str,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    preset: str | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    init: str | None = None,
    overrides: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Path:
    """Train a model.

    Args:
        recipe: "tokenizer", "mim", "segmentation", or a YAML file.
        data: folders of scans, see `spad.data.folder`, or stores of `spad prepare`.
        out: the run's folder; where it is in use, a number is added.
        preset: "tiny", "small" or "base"; the first of the recipe when None.
        steps: generator updates.
        minutes: training time; whichever of both comes first ends the run.
        seed: sample n of the run is a function of it and n.
        init: a model whose weights of equal name and shape to start from.
        overrides: dotted recipe key -> YAML text.
        progress: told about reading and every logged step.

    Returns:
        The run's folder.

    Raises:
        SpadError: the recipe, the data or the folder cannot be used.
        KeyboardInterrupt: a person interrupted; `resume` goes on from the checkpoint that was made.
    """
    resolved = resolve(recipe, preset, overrides)
    schedule = dataclasses.replace(
        resolved.schedule,
        steps=steps or resolved.schedule.steps,
        minutes=minutes or resolved.schedule.minutes,
    )
    paths = [str(Path(path).resolve()) for path in data]
    init = init or resolved.init
    resolved = dataclasses.replace(resolved, schedule=schedule, seed=seed, init=init, sources=paths)
    sources = _sources(resolved)
    if init:
        zoo.find(init)
    resolved = planned(with_channels(resolved, sources), sources, progress)
    ranks = Ranks.of(resolved.trainer)
    run = ranks.share(
        lambda: runs.create(
            runs.new_run_path(out), dataclasses.asdict(resolved), _run_cases(resolved, sources)
        )
    )
    _run(run, resolved, sources, None, progress, ranks)
    return run


def resume(run: str | Path, progress: Progress = silent) -> Path:
    """Go on with a run that was stopped, from its last whole checkpoint.

    Raises:
        SpadError: the folder is no run, the run is finished or being written, or its data are gone.
        KeyboardInterrupt: a person interrupted again.
    """
    path = Path(run)
    runs.read_state(path)
    recipe = Recipe.from_yaml((path / "recipe.yaml").read_text(), "recipe.yaml")
    ranks = Ranks.of(recipe.trainer)
    ranks.share(lambda: _resumable(path))
    checkpoint = runs.load_checkpoint_folder(path) if runs.checkpoint_steps(path) else None
    _run(path, recipe, _sources(recipe), checkpoint, progress, ranks)
    return path


def _resumable(run: Path) -> Path:
    state = runs.read_state(run).state
    if state in ("finished", "running"):
        raise SpadError(
            f"{run} is {state}; expected a run that was stopped or failed; there is nothing to "
            f"resume."
        )
    return run


def _run(
    run: Path,
    recipe: Recipe,
    sources: Sequence[Folder | Store],
    checkpoint: runs.Checkpoint | None,
    progress: Progress,
    ranks: Ranks,
) -> None:
    if not ranks.leads:
        progress = silent
    with runs.RunWriter(run) if ranks.leads else Follower(run) as writer:
        writer.rewind(checkpoint.step if checkpoint else 0)
        scans = cohort(recipe, sources, progress)
        torch.manual_seed(recipe.seed)
        known = known_scans(recipe, scans, progress) if recipe.task == "clicks" else []
        task = _task(recipe, scans, known)
        if recipe.init and checkpoint is None:
            writer.log(start_from(task.model, recipe.init, scans.label_names))
        train_sampler: Any
        validation: Any
        if known:
            train_sampler, validation = click_samplers(recipe, known, ranks)
        else:
            train_sampler, validation = samplers(recipe, scans, ranks)
        batches = (
            [validation.batch(i) for i in range(recipe.schedule.validation_batches)]
            if validation
            else []
        )
        fit(
            *(task, recipe, writer, train_sampler, batches),
            progress=progress,
            checkpoint=checkpoint,
            ranks=ranks,
        )


def _sources(recipe: Recipe) -> list[Folder | Store]:
    return [read_source(path, recipe.data.validation) for path in recipe.sources]


def _run_cases(recipe: Recipe, sources: Sequence[Folder | Store]) -> list[runs.RunCase]:
    """List the files of the scans that a run uses; those in stores have none of their own."""
    return [
        runs.RunCase(
            case.name,
            str(case.image),
            None if case.labels is None else str(case.labels),
            case.validation,
            dict(source.names_of(case)) if case.labels else {},
        )
        for source in sources
        if isinstance(source, Folder)
        for case in source.cases
        if case.labels is not None or recipe.task not in LABELLED
    ]


def _working_spacing(recipe: Recipe) -> dict[str, Any] | None:
    data = recipe.data
    rule: dict[str, Any] = {} if data.in_plane_mm is None else {"in_plane": data.in_plane_mm}
    if data.isotropic:
        rule["isotropic"] = True
    if data.stated_da is not None:
        rule["da"] = data.stated_da
    return rule or None


def cohort(recipe: Recipe, sources: Sequence[Folder | Store], progress: Progress) -> Cohort:
    """Decode the scans that a recipe trains on and is validated on."""
    kept = lasting(recipe)
    return prepare(
        [fewer_labels(source, recipe.data.label_ratio, recipe.seed) for source in sources],
        Contract(model_contracts(recipe.data.ct_range), _working_spacing(recipe)),
        with_labels=recipe.task in LABELLED,
        phantom_count=recipe.data.phantoms,
        label_names=None if kept is None else kept.labels,
        seed=recipe.seed,
        progress=progress,
    )


def samplers(recipe: Recipe, scans: Cohort, ranks: Ranks) -> tuple[Sampler, Sampler | None]:
    """Give where the batches of training and of validation (None without such scans) come from."""
    classes = len(scans.label_names) + 1 if scans.label_names else 0
    train_scans, kept = scans.part(validation=False), scans.part(validation=True)
    sampler = Sampler(
        *(train_scans, recipe.data),
        classes=classes,
        seed=recipe.seed,
        augment=True,
        rank=ranks.number,
        ranks=ranks.count,
    )
    if not kept:
        return sampler, None
    # every process looks at all of a batch
    whole = dataclasses.replace(recipe.data, batch=recipe.data.batch * ranks.count)
    return sampler, Sampler(kept, whole, classes=classes, seed=recipe.seed + 1, augment=False)


def click_samplers(
    recipe: Recipe, known: Sequence[KnownScan], ranks: Ranks
) -> tuple[ClickSampler, ClickSampler | None]:
    """Give the same for clicks."""
    sampler = ClickSampler(
        *([one for one in known if not one.scan.validation], recipe.data),
        seed=recipe.seed,
        augment=True,
        rank=ranks.number,
        ranks=ranks.count,
    )
    kept = [one for one in known if one.scan.validation and one.boxes]
    if not kept:
        return sampler, None
    return sampler, ClickSampler(kept, recipe.data, seed=recipe.seed + 1, augment=False)


def _task(recipe: Recipe, scans: Cohort, known: Sequence[KnownScan]) -> Task:
    card = _card(recipe, scans)
    if recipe.task == "clicks":
        return ClickTask(recipe, card, known)
    if recipe.task == "tokenizer":
        return TokenizerTask(recipe, card)
    if recipe.task == "mim":
        return MaskedImageTask(recipe, card)
    return SegmentationTask(recipe, card, scans)


def _card(recipe: Recipe, scans: Cohort) -> Card:
    contracts = model_contracts(recipe.data.ct_range)
    segmenting = recipe.task == "segmentation"
    kept = lasting(recipe)
    counting = scans.modality_labels() if segmenting else {}
    if kept is not None:
        counting = modality_labels(kept, counting)
    if segmenting:
        modalities = scans.modalities() if kept is None else kept.intensity
        contracts = {m: contracts.get(m, contracts["*"]) for m in modalities}
    card = Card(
        kind=KINDS[recipe.task],
        name=f"{recipe.task}-{recipe.preset}",
        architecture=recipe.model,
        intensity=contracts,
        working_spacing=_working_spacing(recipe),
        window=recipe.data.window if segmenting else None,
        channels=list(scans.channels),
        tokenizer=recipe.tokenizer if recipe.task == "mim" else None,
        segmenter=recipe.segmenter if recipe.task == "clicks" else None,
        labels=scans.label_names,
        modality_labels=counting,
        provenance={
            "preset": recipe.preset,
            "data": sorted(scan.name for scan in scans.part(validation=False) if not scan.phantom),
            "phantoms": recipe.data.phantoms,
            "flips": recipe.data.flips,
            "init": recipe.init,
            "seed": recipe.seed,
            "hardware": _hardware(),
        },
        licence="As the data it was trained on allow.",
    )
    if recipe.task == "clicks":
        told = {
            "segmenter_sha256": zoo.find(str(recipe.segmenter)).sha256(),
            "without": list(recipe.data.without),
        }
        card = dataclasses.replace(card, labels={}, provenance=card.provenance | told)
    return with_heritage(card, recipe.init)


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"


def start_from(model: nn.Module, name: str, label_names: Mapping[int, str] | None = None) -> str:
    """Copy weights of equal name and shape; a bare transformer fits into a model with a head.

    Kernels on the scan are fitted to the model's number of channels, and of a segmenter's heads the
    rows of labels of the same name are taken.

    Args:
        model: what is to be trained.
        name: the model to start from.
        label_names: the labels of a segmenter, id to name.

    Returns:
        One sentence: how many weights were taken.

    Raises:
        SpadError: no such model, or nothing in it fits.
    """
    source, card = file.load(zoo.find(name).path)
    own = model.state_dict()
    given = {
        **{f"vit.{key}": value for key, value in source.state_dict().items()},
        **source.state_dict(),
    }
    rows = _rows(card.labels, label_names or {})
    fitting = {
        key: taken
        for key, value in given.items()
        if key in own and (taken := _fitted(key, value, own[key], rows)) is not None
    }
    if not fitting:
        raise SpadError(
            f"No weight of {name!r} has the name and shape of one of this model's; use one of "
            f"its family."
        )
    model.load_state_dict(fitting, strict=False)
    return f"Took {len(fitting)} of {len(own)} weights from {name}."


def _rows(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """Give, for rows of our heads, the row of the same name in theirs; the background is row 0."""
    if not theirs or not ours:
        return {}
    place = {name: number for number, name in theirs.items()}
    return {0: 0} | {number: place[name] for number, name in ours.items() if name in place}


def _fitted(
    key: str, value: torch.Tensor, own: torch.Tensor, rows: Mapping[int, int]
) -> torch.Tensor | None:
    """Bring a weight to the form that a model has; None where that cannot be."""
    if key.startswith("heads.") and rows and value.shape[1:] == own.shape[1:]:
        taken = own.clone()
        for ours, theirs in rows.items():
            taken[ours] = value[theirs]
        return taken
    if value.shape == own.shape:
        return value
    of_scan = key in ("vit.patch_embedding.weight", "decoder.encoder.0.conv1.weight")
    if of_scan and value.shape[0] == own.shape[0] and value.shape[2:] == own.shape[2:]:
        return value.sum(1, keepdim=True).expand(own.shape) / own.shape[1]
    return None
