"""Evaluation of several cases: files of two folders paired by name, and means over the cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spad.errors import SpadError
from spad.evaluation.bootstrap import METHOD, Interval, interval_of_mean
from spad.evaluation.metrics import FIGURES, Figures, evaluate, mean_figures
from spad.progress import Progress, silent
from spad.volumes.files import read, readable, stem_of

_ENDING = re.compile(r"[_-](labels?|seg|mask)$", re.IGNORECASE)
_START = re.compile(r"^(labels?|seg|mask|img|image)[_-]?(?=\d)", re.IGNORECASE)
_IMAGE = re.compile(r"^(img|image)[_-]?(?=\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Pairing:
    """Labels files of two folders that belong together.

    Attributes:
        pairs: case -> (predicted file, reference file), in order of the names.
        without_reference: names of predicted files that have no partner.
        without_prediction: names of reference files that have no partner.
    """

    pairs: dict[str, tuple[Path, Path]]
    without_reference: list[str]
    without_prediction: list[str]


def evaluate_folders(
    predictions: Path,
    references: Path,
    unit: Literal["mm", "voxel"] = "mm",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compare every labels file of one folder with the one of the same case in another.

    Args:
        predictions: folder with predicted labels.
        references: folder with reference labels.
        unit: as in `spad.evaluation.metrics.evaluate`.
        progress: is told how many cases are done.

    Returns:
        The figures of `summarize`, and ``without_reference, without_prediction``: names of files
        that have no partner.

    Raises:
        SpadError: if no file has a partner, two files claim one case, or a case cannot be compared.
    """
    pairing = pair(predictions, references)
    cases = []
    for number, (case, (predicted, expected)) in enumerate(pairing.pairs.items()):
        progress(number / len(pairing.pairs), case)
        cases.append({"case": case, **_evaluate_case(predicted, expected, unit)})
    return {
        **summarize(cases, unit),
        "without_reference": pairing.without_reference,
        "without_prediction": pairing.without_prediction,
    }


def summarize(cases: Sequence[Mapping[str, Any]], unit: Literal["mm", "voxel"]) -> dict[str, Any]:
    """Average figures over cases.

    Args:
        cases: ``{"case", "labels": {name: figures}, "mean": figures, ...}`` of each.
        unit: of their distances.

    Returns:
        ``{"unit", "cases", "labels": {name: mean figures}, "mean": figures, "intervals":
        {"labels": {name: ...}, "mean": ..., "method", "confidence", "resamples", "seed"}}``. A
        label's mean runs over the cases in which it occurs, the overall mean over the means of the
        cases. An interval is ``(low, high)`` of such a mean, by `spad.evaluation.bootstrap`, or
        None where fewer than two cases have the figure.
    """
    by_label: dict[str, list[Figures]] = {}
    for case in cases:
        for name, figures in case["labels"].items():
            by_label.setdefault(name, []).append(figures)
    means = [case["mean"] for case in cases]
    return {
        "unit": unit,
        "cases": list(cases),
        "labels": {name: mean_figures(rows) for name, rows in by_label.items()},
        "mean": mean_figures(means),
        "intervals": {
            **METHOD,
            "labels": {name: _intervals(rows) for name, rows in by_label.items()},
            "mean": _intervals(means),
        },
    }


def pair(predictions: Path, references: Path) -> Pairing:
    """Pair the labels files of two folders by their names.

    Names are compared without the file's ending, without `_labels`, `_label`, `_seg` or `_mask`
    behind, and without `label`, `seg`, `mask` or `img` before a number: `img0001_labels.nii.gz`
    belongs to `label0001.nii.gz`, `ct_labels.nii.gz` to `ct.nii.gz`. Where a folder holds both a
    scan and its labels, the scan is passed over.

    Raises:
        SpadError: if no file has a partner or two files of a folder claim one case.
    """
    ours, theirs = _labels_of(predictions), _labels_of(references)
    common = [key for key in ours if key in theirs]
    if not common:
        raise SpadError(
            f"No labels file in {predictions} ({len(ours)} found) has the name of one in "
            f"{references} ({len(theirs)} found); expected names such as <stem>_labels.nii.gz "
            "and <stem>.nii.gz, or img<ID>_labels.nii.gz and label<ID>.nii.gz."
        )
    return Pairing(
        pairs={_ENDING.sub("", stem_of(ours[key])): (ours[key], theirs[key]) for key in common},
        without_reference=[ours[key].name for key in ours if key not in theirs],
        without_prediction=[theirs[key].name for key in theirs if key not in ours],
    )


def _evaluate_case(predicted: Path, expected: Path, unit: Literal["mm", "voxel"]) -> dict[str, Any]:
    try:
        return evaluate(read(predicted, labels=True), read(expected, labels=True), unit)
    except SpadError as error:
        raise SpadError(f"{predicted.name} against {expected.name}: {error}") from error


def _labels_of(folder: Path) -> dict[str, Path]:
    """Case -> labels file of a folder."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and readable(file)]
    by_case: dict[str, list[Path]] = {}
    for file in files:
        if not file.name.lower().endswith(".img"):  # the header names its pair
            by_case.setdefault(_case_of(file), []).append(file)
    return {case: _labels_among(several) for case, several in by_case.items()}


def _labels_among(files: list[Path]) -> Path:
    """The labels file among a case's files, of which the others may be its scan."""
    if len(files) == 1:
        return files[0]
    marked = [file for file in files if _is_marked(stem_of(file))]
    if len(marked) == 1:
        return marked[0]
    names = " and ".join(file.name for file in files)
    raise SpadError(
        f"{names} in {files[0].parent} belong to one case; expected one labels file per case: "
        "move the others away."
    )


def _is_marked(stem: str) -> bool:
    start = _START.match(stem)
    return bool(_ENDING.search(stem)) or bool(start and not _IMAGE.match(stem))


def _case_of(file: Path) -> str:
    return _START.sub("", _ENDING.sub("", stem_of(file))).lower()


def _intervals(rows: Sequence[Figures]) -> dict[str, Interval | None]:
    return {figure: interval_of_mean([row[figure] for row in rows]) for figure in FIGURES}
