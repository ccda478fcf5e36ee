"""Tokenizers that differ in one choice, on equal data with equal steps and seeds.

The folder of the comparison holds a run for each row, and `table.json`, `table.csv` and
`usage.png`, which are written anew after each row.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spad import jsonfile
from spad.checkpoints import file, zoo
from spad.data.folder import read_source
from spad.data.samples import Batch
from spad.device import choose
from spad.errors import SpadError
from spad.evaluation.usage import Positions, Usage
from spad.progress import Progress, silent
from spad.training import runs, start
from spad.training.compare.rows import (
    CSV,
    DIVERGED,
    check,
    earlier,
    finish,
    part_of,
    recipe_of,
    write_table,
)
from spad.training.ranks import Ranks
from spad.training.recipe import Recipe, resolve
from spad.training.task import to_model_range
from spad.training.tokenizer import TokenizerTask
from spad.volumes.files.disk import replace_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "usage.png"

_NO_PRIOR = {"loss.divergence": "0", "loss.entropy": "0"}
_PLAIN_WEIGHT = {"loss.adversarial_adaptive": "false"}
_VQGAN_WEIGHT = {
    "loss.adversarial_adaptive": "true",
    "loss.adversarial": "0.8",
    "loss.adversarial_gate": "1e9",
}
TOKENIZERS: dict[str, dict[str, str]] = {
    "nearest": {"model.quantizer": "nearest", **_NO_PRIOR, **_PLAIN_WEIGHT},
    "gumbel": {"model.quantizer": "gumbel", **_NO_PRIOR, **_PLAIN_WEIGHT},
    "soft": {"model.quantizer": "soft", **_NO_PRIOR, **_PLAIN_WEIGHT},
    "soft-lambda1": {"model.quantizer": "soft", "loss.entropy": "0", **_PLAIN_WEIGHT},
    "soft-both": {"model.quantizer": "soft", **_PLAIN_WEIGHT},
    "soft-both-adaptive": {"model.quantizer": "soft", **_VQGAN_WEIGHT},
}
"""Row -> the keys of the recipe that make it; `lambda1` is `loss.divergence`, `both` adds
`loss.entropy`, with the recipe's values; `adaptive` is VQGAN's weight, 0.8 times the ratio of the
gradients, without the authors' gate.

Source: PUMIT, arXiv 2312.07630, section "visual tokenizer"; Esser et al. 2021 (VQGAN).
"""
_OF_ALL_ROWS = {"schedule.alarms": "false", "loss.adversarial": "3e-3"}
"""What a comparison sets unless it is told otherwise: each row has a critic and runs to its end."""
_COLUMNS, _DPI = 3, 120
_LEAST_SHOWN = 1e-3
"""Of what a code has where all are alike."""
_FOR_ROWS_ALONE = ("model.quantizer", "loss.adversarial_adaptive")

FIGURES = (
    *("codes_used", "most_over_least", "perplexity", "usage_entropy", "mean_entropy"),
    *("position_information", "l1", "psnr", "adversarial_weight"),
)
"""Those of validations, and the mean weight that the adversarial term had in training."""


@dataclass(frozen=True)
class Row:
    """One way to train, and what came of it.

    Attributes:
        name: a key of `TOKENIZERS`, and the folder of its run.
        steps: generator updates after which the figures were taken.
        figures: `FIGURES` on the validation batches, equal ones for all rows; None where undefined.
        diverged: its loss became no finite number.
        message: with which sentence it ended early; "" where it did not.
        alarm: the first alarm that its validations would have raised; "" if none.
        usage: mean probability of each code, most used first.
    """

    name: str
    steps: int
    figures: dict[str, float | None] = field(default_factory=dict)
    diverged: bool = False
    message: str = ""
    alarm: str = ""
    usage: list[float] = field(default_factory=list)


def compare_tokenizers(
    data: Sequence[str | Path],
    out: str | Path,
    *,
    preset: str | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    overrides: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Train each of `TOKENIZERS` and put their figures on one set of scans side by side.

    Called again with the same options it keeps the rows that are done and goes on with the one that
    was interrupted. A row that diverges is a row, too.

    Args:
        data: folders of scans, see `spad.data.folder`; some must be kept for validation.
        out: the folder of the comparison: a new one, an empty one or that of an earlier call.
        preset: "tiny", "small" or "base".
        steps: generator updates of each row.
        minutes: training time of each row; whichever of both comes first ends it.
        seed: that of every row.
        overrides: dotted recipe key -> YAML text, for every row.
        progress: told about every logged step of every row.

    Returns:
        The rows in the order of `TOKENIZERS`.

    Raises:
        SpadError: the options, the data or the folder cannot be used.
        KeyboardInterrupt: a person interrupted; the rows until then are in the table.
    """
    out, given = Path(out), dict(overrides or {})
    variants = {name: {**_OF_ALL_ROWS, **given, **own} for name, own in TOKENIZERS.items()}
    sources = [str(Path(path).resolve()) for path in data]
    _check(given, [resolve("tokenizer", preset, keys) for keys in variants.values()], sources)
    options = {
        "what": "tokenizers",
        "data": sources,
        "preset": preset,
        "steps": steps,
        "minutes": minutes,
        "seed": seed,
        "overrides": given,
    }
    before = earlier(out, options, lambda row: Row(**row))
    rows = {row.name: row for row in before if runs.is_run(out / row.name)}
    missing = [name for name in variants if name not in rows]
    batches = cache(lambda: _validation_batches(out / missing[0]))
    for name in missing:
        shown = part_of(progress, list(variants).index(name), len(variants), name)

        def begin(
            run: Path, keys: Mapping[str, str] = variants[name], shown: Progress = shown
        ) -> None:
            start.train(
                *("tokenizer", sources, run),
                preset=preset,
                steps=steps,
                minutes=minutes,
                seed=seed,
                overrides=keys,
                progress=shown,
            )

        message = finish(out / name, begin, shown)
        rows[name] = _row(out / name, message, batches)
        _write(out, options, [rows[name] for name in variants if name in rows])
    return [rows[name] for name in variants]


def _check(given: Mapping[str, str], recipes: Sequence[Recipe], sources: Sequence[str]) -> None:
    """Refuse, before anything is trained, what would end in no table."""
    for key in _FOR_ROWS_ALONE:
        if key in given:
            raise SpadError(f"The rows of the comparison differ in {key}; leave --{key} out.")
    check(recipes[0], sources)


def _row(run: Path, message: str, batches: Callable[[], list[Batch]]) -> Row:
    """Look at the last checkpoint of a run and at its metrics."""
    diverged = message.startswith(DIVERGED)
    if not runs.checkpoint_steps(run):
        return Row(run.name, 0, dict.fromkeys(FIGURES), diverged, message)
    checkpoint = runs.load_checkpoint_folder(run)
    recipe = recipe_of(run)
    place = choose(recipe.trainer.accelerator)
    model, card = file.load(checkpoint.path / zoo.MODEL_FILE)
    task = TokenizerTask(recipe, card)
    task.model.load_state_dict(model.state_dict())
    task.model.to(place).eval()
    moved = [batch.to(place) for batch in batches()]
    with torch.no_grad():
        found: dict[str, Any] = {**task.validate(moved)}
        usage, positions = _usage(task, moved)
    records = runs.read_metrics(run).records
    found |= usage.figures()
    found["position_information"] = positions.information
    found["adversarial_weight"] = _mean(records, "adversarial_weight")
    return Row(
        run.name,
        checkpoint.step,
        {name: _finite(found[name]) for name in FIGURES},
        diverged,
        message,
        _first_alarm(task, records, checkpoint.step),
        sorted(usage.mean.tolist(), reverse=True),
    )


def _mean(records: Sequence[Mapping[str, Any]], figure: str) -> float | None:
    values = [record[figure] for record in records if record.get(figure) is not None]
    return sum(values) / len(values) if values else None


def _first_alarm(task: TokenizerTask, records: Sequence[Mapping[str, Any]], last: int) -> str:
    """Say which alarm the validations of a run would have sounded first, and when."""
    total = last if task.recipe.schedule.minutes else task.recipe.schedule.steps
    for record in records:
        if record["phase"] == "validation" and None not in record.values():
            alarm = task.alarm(dict(record), record["step"] / total)
            if alarm:
                return f"Step {record['step']}: {alarm}"
    return ""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _validation_batches(run: Path) -> list[Batch]:
    """Draw the batches on which the run's recipe has it validated, the same for every row."""
    recipe = recipe_of(run)
    folders = [read_source(path, recipe.data.validation) for path in recipe.sources]
    sampler = start.samplers(recipe, start.cohort(recipe, folders, silent), Ranks())[1]
    assert sampler is not None, "_check saw scans for validation"
    return [sampler.batch(index) for index in range(recipe.schedule.validation_batches)]


def _usage(task: TokenizerTask, batches: Sequence[Batch]) -> tuple[Usage, Positions]:
    """Pool what the tokens of all batches say; a batch alone has too few images for positions."""
    model, usage, positions = task.model, Usage(task.model.codes), Positions()
    for batch in batches:
        x = to_model_range(batch.image, model.in_channels)
        for crop in model.probabilities(x, batch.da).cpu().numpy():
            usage.add(crop)
            positions.add(crop)
    return usage, positions


def _write(out: Path, options: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write the table and the plot; `table.json`, by which a later call goes, last."""
    jsonfile.write_text(out / CSV, _csv(rows))
    if rows:
        figure = usage_figure(rows)
        replace_files([out / PLOT], lambda files: figure.savefig(files[0], facecolor="white"))
    write_table(out, options, [asdict(row) for row in rows])


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "steps", *FIGURES, "diverged", "message", "alarm"])
    for row in rows:
        figures = [row.figures[name] for name in FIGURES]
        writer.writerow([row.name, row.steps, *figures, row.diverged, row.message, row.alarm])
    return text.getvalue()


def usage_figure(rows: Sequence[Row]) -> Figure:
    """Draw how often each code is used, most used first: a panel for each row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = -(-len(rows) // _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 2.8 * lines), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, _COLUMNS, squeeze=False, sharex=True, sharey=True).flat)
    for row, ax in zip(rows, axes, strict=False):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(f"{row.name}: nothing to show", fontsize=10)
        if row.usage:
            count = len(row.usage)
            ax.step(range(1, count + 1), row.usage, where="mid", color="#2a5d92", linewidth=1.2)
            ax.axhline(1 / count, color="#b04a3a", linestyle="--", linewidth=1)
            ax.set(yscale="log", ylim=(_LEAST_SHOWN / count, 1.5), xlim=(1, count))
            figures = row.figures
            used, perplexity = figures["codes_used"], figures["perplexity"]
            ax.set_title(f"{row.name}: {used} first choices, perplexity {perplexity:.0f}", size=10)
    for ax in axes[len(rows) :]:
        ax.set_axis_off()
    figure.supxlabel("codes, most used first (dashed: all codes alike)", fontsize=9)
    figure.supylabel("mean probability", fontsize=9)
    return figure
