"""Tables, sentences and the figure of a comparison of segmenters."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.evaluation.bootstrap import interval_of_mean, paired_difference
from spad.evaluation.metrics import FIGURES, mean_figures
from spad.training.compare.arms import ARMS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = ("scratch", 1.0)
"""The arm and label ratio to which all others are compared."""
CLAIM = ("pretrained", 0.6)
"""What the paper says is better than the reference (PUMIT, arXiv 2312.07630, table 4)."""
HEADER = (
    *("row", "labels", "scans", "runs", "Dice", "95 %", "to scratch", "95 %", "ASSD mm", "HD mm"),
    *("s / scan", "memory MB", "parameters M", "trained min"),
)
_DPI = 120
_COLOURS = ("#2a5d92", "#b04a3a", "#4f8a4c", "#8a6fb0", "#c08a2a", "#4aa0a8", "#666666")

Table = Sequence[Mapping[str, Any]]


def summary(rows: Table) -> list[dict[str, Any]]:
    """Pool the runs of each arm and label ratio.

    Args:
        rows: as `table.json` holds them.

    Returns:
        For each: `arm, ratio, seeds, scans`, means over scans and seeds of `dice` (with
        `dice_interval`), `assd` and `hd` in mm, `labels` {organ: figures}, `difference` of Dice to
        `REFERENCE` on the same scans with the same seeds {mean, low, high, pairs} (None where that
        is missing), median `seconds` per scan, largest `peak_memory_mb`, `parameters`, mean
        `train_seconds` and how many `diverged`.
    """
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["ratio"]), []).append(row)
    reference = _dice(groups.get(REFERENCE, []))
    return [
        _pooled(arm, ratio, several, reference if (arm, ratio) != REFERENCE else {})
        for (arm, ratio), several in groups.items()
    ]


def _pooled(
    arm: str, ratio: float, rows: Table, reference: Mapping[tuple[int, str], float | None]
) -> dict[str, Any]:
    cases = [case for row in rows for case in row["cases"]]
    means = mean_figures(case["mean"] for case in cases)
    own = _dice(rows)
    names = dict.fromkeys(name for case in cases for name in case["labels"])
    return {
        "arm": arm,
        "ratio": ratio,
        "seeds": [row["seed"] for row in rows],
        "scans": max(row["scans"] for row in rows),
        "dice": means["dice"],
        "dice_interval": interval_of_mean(list(own.values())),
        "assd": means["assd"],
        "hd": means["hd"],
        "labels": {
            name: mean_figures(c["labels"][name] for c in cases if name in c["labels"])
            for name in names
        },
        "difference": _difference(own, reference),
        "seconds": _of(np.median, [case["seconds"] for case in cases]),
        "peak_memory_mb": _of(np.max, [case["peak_memory_mb"] for case in cases]),
        "parameters": max(row["parameters"] for row in rows),
        "train_seconds": _of(np.mean, [row["train_seconds"] for row in rows]),
        "diverged": sum(row["diverged"] for row in rows),
    }


def _of(statistic: Any, values: Sequence[float]) -> float | None:
    return float(statistic(values)) if values else None


def _dice(rows: Table) -> dict[tuple[int, str], float | None]:
    """Give the mean Dice of each scan by seed and name."""
    return {
        (row["seed"], case["case"]): case["mean"]["dice"] for row in rows for case in row["cases"]
    }


def _difference(
    own: Mapping[tuple[int, str], float | None], other: Mapping[tuple[int, str], float | None]
) -> dict[str, Any] | None:
    common = [key for key in own if key in other]
    if not common:
        return None
    found = paired_difference([own[key] for key in common], [other[key] for key in common])
    return {**found._asdict(), "pairs": len(common)}


def sentences(rows: Table, pooled: Table, options: Mapping[str, Any]) -> list[str]:
    """Say what a reader of the table must know."""
    said = [f"{_name(row)}: {row['message']}" for row in rows if row["message"]]
    present = {row["arm"] for row in rows}
    if "eva02" in present:
        said.append(f"eva02 starts from {options['eva02']}, inflated to 3D.")
    if "pretrained" in present:
        said.append(f"pretrained starts from {options['pretrained']}.")
    degrees = {case["da"] for row in rows if row["arm"] == "scratch" for case in row["cases"]}
    if degrees == {0} and {"da0", "isotropic"} & present:
        said.append(
            "All scans for validation have da 0 on the working grid: da0 is the same as scratch "
            "there; a smaller --data.in_plane_mm tells them apart."
        )
    if options["what"] == "pretraining":
        said.append(verdict(pooled))
    return said


def verdict(pooled: Table) -> str:
    """Say whether `CLAIM` beats `REFERENCE`, on the same scans with the same seeds."""
    claim = f"{CLAIM[0]} with {CLAIM[1]:.0%} of the labels"
    found = next((one for one in pooled if (one["arm"], one["ratio"]) == CLAIM), None)
    difference = found and found["difference"]
    if not difference or difference["mean"] is None:
        return f"Whether {claim} beats scratch with all cannot be told: a row is missing."
    mean, low, high = difference["mean"], difference["low"], difference["high"]
    interval = "" if low is None else f", 95 % interval {low:+.4f} to {high:+.4f}"
    word = "beats" if mean > 0 else "does not beat"
    sure = low is None or low <= 0 <= high
    doubt = ", which is no clear difference" if sure else ""
    return (
        f"{claim[0].upper()}{claim[1:]} {word} scratch with all of them: Dice {mean:+.4f} over "
        f"{difference['pairs']} pairs of scan and seed{interval}{doubt}."
    )


def cells(pooled: Table) -> list[list[str]]:
    """Give the cells below `HEADER`."""
    return [
        [
            one["arm"],
            f"{one['ratio']:.0%}",
            str(one["scans"]),
            str(len(one["seeds"])),
            _number(one["dice"], 4),
            _interval(one["dice_interval"], ".3f"),
            *_change(one["difference"]),
            _number(one["assd"], 2),
            _number(one["hd"], 1),
            _number(one["seconds"], 2),
            _number(one["peak_memory_mb"], 0),
            _number(one["parameters"] / 1e6, 2),
            _number(None if one["train_seconds"] is None else one["train_seconds"] / 60, 1),
        ]
        for one in pooled
    ]


def _change(difference: Mapping[str, Any] | None) -> list[str]:
    if difference is None or difference["mean"] is None:
        return ["-", "-"]
    ends = None if difference["low"] is None else (difference["low"], difference["high"])
    return [f"{difference['mean']:+.4f}", _interval(ends, "+.3f")]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(ends: Sequence[float] | None, form: str) -> str:
    return "-" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def markdown(pooled: Table, said: Sequence[str]) -> str:
    """Lay the table out for the documentation."""
    rule = ["---", *["---:"] * (len(HEADER) - 1)]
    lines = ["| " + " | ".join(line) + " |" for line in (HEADER, rule, *cells(pooled))]
    legend = [f"- `{arm}`: {ARMS[arm]}." for arm in dict.fromkeys(one["arm"] for one in pooled)]
    notes = [f"- {sentence}" for sentence in said]
    return "\n".join([*lines, "", *legend, *notes, ""])


def csv_text(rows: Table) -> str:
    """Lay out the figures of each run on each scan."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("arm", "ratio", "seed", "scans", "steps", "parameters", "train_seconds")
    of_case = ("case", "da", "seconds", "peak_memory_mb")
    writer.writerow([*names, *of_case, *FIGURES])
    for row in rows:
        for case in row["cases"]:
            figures = [case["mean"][name] for name in FIGURES]
            writer.writerow([*(row[n] for n in names), *(case[n] for n in of_case), *figures])
    return text.getvalue()


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['arm']} at {row['ratio']:.0%}, seed {row['seed']}"


def figure(pooled: Table) -> Figure:
    """Draw Dice with its interval: a line for each arm, or a bar where there is one label ratio."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(drawn)
    ax = drawn.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    arms = list(dict.fromkeys(one["arm"] for one in pooled if one["dice"] is not None))
    several = len({one["ratio"] for one in pooled}) > 1
    for place, (arm, colour) in enumerate(zip(arms, _COLOURS, strict=False)):
        ours = sorted(
            (one for one in pooled if one["arm"] == arm and one["dice"] is not None),
            key=lambda one: one["ratio"],
        )
        dice = [one["dice"] for one in ours]
        ends = [one["dice_interval"] or (one["dice"], one["dice"]) for one in ours]
        gaps = np.abs(np.transpose(ends) - dice)
        if several:
            at = [100 * one["ratio"] + 0.6 * (place - len(arms) / 2) for one in ours]
            ax.errorbar(at, dice, gaps, color=colour, marker="o", capsize=3, label=arm)
        else:
            ax.errorbar(dice, [arm], xerr=gaps, color=colour, marker="o", capsize=3)
    if several:
        ax.set(xlabel="labelled scans used (%)", ylabel="mean Dice")
        ax.legend(frameon=False)
    else:
        ax.invert_yaxis()
        ax.set(xlabel="mean Dice on the scans for validation, with 95 % interval")
    return drawn
