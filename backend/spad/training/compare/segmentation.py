"""Segmenters trained in several ways on equal data, and what they make of whole scans.

The folder of the comparison holds a run for each arm, label ratio and seed, and `table.json`,
`table.csv`, `table.md` and `figure.png`, which are written anew after each row.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from spad import jsonfile
from spad.checkpoints import zoo
from spad.checkpoints.file import load
from spad.data.cases import Case, Folder, read_case_labels, read_channels
from spad.data.fraction import fewer_labels
from spad.errors import SpadError
from spad.evaluation.metrics import evaluate
from spad.inference.models import forget
from spad.inference.segment import segment
from spad.models.baselines import parameters
from spad.progress import Progress, silent
from spad.training import runs
from spad.training.compare import tables
from spad.training.compare.arms import (
    ARMS,
    FOR_ARMS_ALONE,
    Grid,
    arm_of,
    eva02_start,
    median_grid,
)
from spad.training.compare.rows import (
    CSV,
    DIVERGED,
    check,
    earlier,
    part_of,
    recipe_of,
    write_table,
)
from spad.training.compare.training import Job, train_at_once, train_here
from spad.training.planning import planned, with_channels
from spad.training.recipe import Recipe, resolve
from spad.volumes.files.disk import replace_files

MARKDOWN, FIGURE = "table.md", "figure.png"
COMMON = "recipe.yaml"
"""What all rows have in common, as the scans and the options make it."""
_TRAINING_SHARE = 0.9


@dataclass(frozen=True)
class Row:
    """One run, and what its model makes of the scans for validation.

    Attributes:
        arm: a key of `ARMS`.
        ratio: share of the labelled training scans.
        seed: that of the run.
        scans: how many scans it was trained on.
        steps: updates after which the figures were taken.
        parameters: numbers that the model learned.
        train_seconds: how long it was trained.
        cases: for each scan `case, da, seconds, peak_memory_mb`, and `labels` and `mean` as of
            `spad evaluate`, in mm.
        diverged: its loss became no finite number.
        message: with which sentence it ended early; "" where it did not.
    """

    arm: str
    ratio: float
    seed: int
    scans: int = 0
    steps: int = 0
    parameters: int = 0
    train_seconds: float = 0.0
    cases: list[dict[str, Any]] = field(default_factory=list)
    diverged: bool = False
    message: str = ""

    @property
    def name(self) -> str:
        """The folder of its run."""
        return f"{self.arm}-ratio{self.ratio:g}-seed{self.seed}"

    @property
    def key(self) -> tuple[str, float, int]:
        """What tells it from other rows."""
        return self.arm, self.ratio, self.seed


@dataclass(frozen=True)
class Choices:
    """What is compared, and how.

    Attributes:
        rows: keys of `ARMS`.
        ratios: shares of the labelled training scans.
        seeds: each of them is a run of each row.
        recipe: name of the recipe.
        preset: "tiny", "small" or "base"; the recipe's first when None.
        steps: updates of each run.
        minutes: training time of each run; whichever of both comes first ends it.
        pretrained: the model from which "pretrained" starts.
        eva02: a file with EVA-02's 2D weights; None for random ones.
        jobs: runs that are trained at once.
        overrides: dotted recipe key -> YAML text, for every row.
    """

    rows: Sequence[str] = tuple(ARMS)
    ratios: Sequence[float] = (1.0,)
    seeds: Sequence[int] = (0,)
    recipe: str = "segmentation"
    preset: str | None = None
    steps: int | None = None
    minutes: float | None = None
    pretrained: str = "mim-tiny"
    eva02: Path | None = None
    jobs: int = 1
    overrides: Mapping[str, str] = field(default_factory=dict)

    def options(self, what: str, sources: Sequence[str]) -> dict[str, Any]:
        """Give what must be equal for rows of two calls to stand in one table."""
        names = ("recipe", "preset", "steps", "minutes", "pretrained", "overrides")
        return {
            "what": what,
            "data": [Path(path).name for path in sources],
            **{name: getattr(self, name) for name in names},
            "eva02": self.eva02.name if self.eva02 else "random 2D weights",
        }


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        rows: one for each arm, ratio and seed.
        summary: one for each arm and ratio, see `tables.summary`.
        sentences: what is to be said below the table.
    """

    rows: list[Row]
    summary: list[dict[str, Any]]
    sentences: list[str]


def compare_segmentation(
    data: Sequence[str | Path],
    out: str | Path,
    choices: Choices | None = None,
    *,
    what: str = "segmentation",
    progress: Progress = silent,
) -> Comparison:
    """Train each arm at each label ratio with each seed, and judge all on whole scans.

    Called again it keeps the rows that are done, those that are not asked for this time included.

    Args:
        data: folders of scans with labels; some must be kept for validation.
        out: the folder of the comparison: a new one, an empty one or that of an earlier call.
        choices: what is compared; None for every arm once.
        what: "segmentation" or "pretraining".
        progress: told about every logged step of every row.

    Raises:
        SpadError: the options, the data or the folder cannot be used.
        KeyboardInterrupt: a person interrupted; the rows until then are in the table.
    """
    out, choices = Path(out), choices or Choices()
    sources = [str(Path(path).resolve()) for path in data]
    recipe, folders = _checked(choices, sources)
    options = choices.options(what, sources)
    rows = {row.key: row for row in earlier(out, options, lambda row: Row(**row))}
    wanted = [
        Row(arm, ratio, seed)
        for seed in choices.seeds
        for ratio in choices.ratios
        for arm in choices.rows
    ]
    missing = [row for row in wanted if row.key not in rows]
    jobs = _jobs(missing, out, choices, recipe, folders, sources) if missing else {}

    def judge(row: Row, message: str, shown: Progress) -> None:
        rows[row.key] = _judged(row, out / row.name, folders, message, shown)
        _write(out, options, list(rows.values()))

    _work(missing, jobs, choices.jobs, judge, progress)
    return _write(out, options, list(rows.values()))


def _work(
    missing: Sequence[Row],
    jobs: Mapping[tuple[str, float, int], Job],
    at_once: int,
    judge: Callable[[Row, str, Progress], None],
    progress: Progress,
) -> None:
    """Train and judge; where several are trained at once they are judged afterwards, alone."""
    count, told = len(missing), dict[Path, str]()
    if at_once > 1:
        unfinished = [job for job in jobs.values() if not _is_finished(job.run)]
        train_at_once(
            *(unfinished, at_once, lambda part, text: progress(_TRAINING_SHARE * part, text)),
            lambda job, message: told.update({job.run: message}),
        )
    for place, row in enumerate(missing):
        shown = part_of(progress, place, count, row.name)
        job = jobs[row.key]
        message = told.get(job.run, "") if at_once > 1 else train_here(job, shown)
        judge(row, message, shown)


def _is_finished(run: Path) -> bool:
    return runs.is_run(run) and runs.read_state(run).state == "finished"


def _checked(choices: Choices, sources: Sequence[str]) -> tuple[Recipe, list[Folder]]:
    """Refuse, before anything is trained, what would end in no table."""
    for key in FOR_ARMS_ALONE:
        if key in choices.overrides:
            raise SpadError(f"The rows of the comparison differ in {key}; leave --{key} out.")
    for name in choices.rows:
        if name not in ARMS:
            raise SpadError(f"There is no row {name!r}; expected some of {', '.join(ARMS)}.")
    if "pretrained" in choices.rows:
        zoo.find(choices.pretrained)
    recipe = resolve(choices.recipe, choices.preset, choices.overrides)
    if recipe.task != "segmentation":
        raise SpadError(
            f"The recipe {choices.recipe!r} is for {recipe.task}; expected one for segmentation; "
            "give another --recipe."
        )
    folders: list[Folder] = []
    for source in check(recipe, sources):
        if not isinstance(source, Folder):
            raise SpadError(
                f"{source.path} is a store, which does not hold the scans' own grids; give the "
                "folder of scans that it was made from."
            )
        folders.append(source)
        for ratio in choices.ratios:
            fewer_labels(source, ratio, 0)
    if not _cases(folders):
        raise SpadError(
            f"{', '.join(sources)} has no labels for the scans that are kept for validation; "
            "expected label<ID>.nii.gz beside img<ID>.nii.gz; add them."
        )
    return recipe, folders


def _cases(folders: Sequence[Folder]) -> list[tuple[Folder, Case]]:
    return [(f, c) for f in folders for c in f.cases if c.validation and c.labels is not None]


def _jobs(
    rows: Sequence[Row],
    out: Path,
    choices: Choices,
    recipe: Recipe,
    folders: Sequence[Folder],
    sources: Sequence[str],
) -> dict[tuple[str, float, int], Job]:
    """Say how each missing row is trained."""
    recipe = planned(with_channels(replace(recipe, init=None), folders), folders)
    jsonfile.write_text(out / COMMON, recipe.to_yaml())
    grid = median_grid(recipe, folders)
    models = {row.seed: out / f"eva02-seed{row.seed}.safetensors" for row in rows}
    for seed, path in models.items():
        if not path.is_file() and any(row.arm == "eva02" and row.seed == seed for row in rows):
            eva02_start(path, recipe, choices.eva02, seed)
    return {
        row.key: _job(row, out, choices, recipe, grid, models[row.seed], sources) for row in rows
    }


def _job(
    row: Row,
    out: Path,
    choices: Choices,
    recipe: Recipe,
    grid: Grid,
    eva02_model: Path,
    sources: Sequence[str],
) -> Job:
    arm = arm_of(row.arm, recipe, grid, pretrained=choices.pretrained, eva02_model=eva02_model)
    own = {**arm.overrides, "data.label_ratio": str(row.ratio)}
    path = out / f"{row.name}.yaml"
    jsonfile.write_text(path, resolve(str(out / COMMON), None, own).to_yaml())
    until = (choices.steps, choices.minutes)
    return Job(out / row.name, path, sources, *until, row.seed, arm.init)


def _judged(
    row: Row, run: Path, folders: Sequence[Folder], message: str, progress: Progress
) -> Row:
    """Run the last checkpoint on the whole scans for validation, on their own grids."""
    row = replace(row, message=message, diverged=message.startswith(DIVERGED))
    if not runs.checkpoint_steps(run):
        return row
    checkpoint = runs.load_checkpoint_folder(run)
    recipe = recipe_of(run)
    model = checkpoint.path / zoo.MODEL_FILE
    _free()
    cases = []
    for folder, case in _cases(folders):
        progress(1.0, f"judging on {case.name}")
        cases.append(_case(folder, case, model, recipe.trainer.accelerator))
    records = runs.read_metrics(run).records
    timed = [r for r in records if r["phase"] == "train"]
    network, card = load(model)
    return replace(
        row,
        scans=len(card.provenance["data"]),
        steps=checkpoint.step,
        parameters=parameters(network),
        train_seconds=_seconds(timed),
        cases=cases,
    )


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Add up the time between logged steps."""
    before, total = 0, 0.0
    for record in records:
        total += record["seconds_per_step"] * (record["step"] - before)
        before = record["step"]
    return total


def _case(folder: Folder, case: Case, model: Path, device: str) -> dict[str, Any]:
    """Segment one scan and compare it with its labels."""
    channels = read_channels(folder, case)
    modality = next((c.modality for c in channels if c.modality), None)
    found = segment(channels, model, modality, device)
    reference = read_case_labels(case, channels[0])
    assert reference is not None, "_cases gives scans with labels"
    report = found.report or {}
    figures = evaluate(found, replace(reference, label_names=folder.names_of(case)))
    return {
        "case": case.name,
        "da": report["da"],
        "seconds": report["seconds"]["total"] - report["seconds"]["load"],
        "peak_memory_mb": report["peak_memory_mb"],
        "labels": figures["labels"],
        "mean": figures["mean"],
    }


def _free() -> None:
    """Let go of what earlier runs and models held, so that a peak of memory is a model's own."""
    forget()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write(out: Path, options: Mapping[str, Any], rows: Sequence[Row]) -> Comparison:
    """Write tables and figure; `table.json`, by which a later call goes, last."""
    order = list(ARMS)
    ordered = sorted(rows, key=lambda row: (order.index(row.arm), -row.ratio, row.seed))
    plain = [asdict(row) for row in ordered]
    summary = tables.summary(plain)
    sentences = tables.sentences(plain, summary, options)
    jsonfile.write_text(out / CSV, tables.csv_text(plain))
    jsonfile.write_text(out / MARKDOWN, tables.markdown(summary, sentences))
    if summary:
        figure = tables.figure(summary)
        replace_files([out / FIGURE], lambda files: figure.savefig(files[0], facecolor="white"))
    write_table(out, options, plain, {"summary": summary, "sentences": sentences})
    return Comparison(ordered, summary, sentences)
