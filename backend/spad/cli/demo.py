"""`spad demo`: everything on a sample scan, offline, ending in one page with pictures."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spad import jsonfile
from spad.cli.options import add_model_options, seed_everything
from spad.cli.progress import progress_of
from spad.cli.results_folder import check_folder, write_csv, write_folder
from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.evaluation.figures import Centre
    from spad.inference.tokens import Masking, Tokenization
    from spad.phantoms import Phantom
    from spad.volumes.volume import Volume

SCAN, LABELS = "scan.nii.gz", "scan_labels.nii.gz"
RECONSTRUCTION, FILLED = "reconstruction.nii.gz", "filled_in.nii.gz"
VOLUMES, REPORT, PAGE = "volumes.csv", "report.json", "report.html"
FIGURES = ("reconstruction", "usage", "mask", "organs")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("spad-demo"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--gui", action="store_true", help="then open the results in napari")
    add_model_options(parser, several=True)


def run(options: argparse.Namespace) -> None:
    """Run everything, write the folder and say where it is."""
    if options.gui:
        _check_screen()
    check_folder(options.out, "the demonstration")
    results = _results(options)
    write_folder(options.out, lambda folder: _write_files(results, folder))
    print(f"The report page is {(options.out / PAGE).resolve()}")
    if options.gui:
        _open_napari(options.out)


@dataclass(frozen=True)
class Results:
    """What the models made of the sample scan.

    Attributes:
        phantom: the scan and its exact labels.
        tokens: reconstruction, error, code usage.
        masking: reconstruction from the visible tokens, and the mask.
        labels: the organs that were found.
        agreement: figures of those against the exact labels.
        cards: card of each model that was used, by kind, as plain values.
    """

    phantom: Phantom
    tokens: Tokenization
    masking: Masking
    labels: Volume
    agreement: dict[str, Any]
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def report(self) -> dict[str, Any]:
        """Every figure of the demonstration."""
        return {
            "tokenize": self.tokens.report,
            "mask": self.masking.report,
            "segment": self.labels.report,
            "evaluate": self.agreement,
            "models": self.cards,
        }


def _results(options: argparse.Namespace) -> Results:
    from spad.evaluation.metrics import evaluate
    from spad.inference.segment import segment
    from spad.inference.tokens import mask, tokenize
    from spad.phantoms import sample

    models = _models(options.model)
    phantom = sample("ct")
    seed_everything(options.seed)
    with progress_of("tokenize") as progress:
        tokens = tokenize(
            phantom.image,
            model=models.get("tokenizer"),
            device=options.device,
            progress=progress,
        )
    with progress_of("mask") as progress:
        masking = mask(
            phantom.image,
            model=models.get("mim"),
            seed=options.seed,
            device=options.device,
            progress=progress,
        )
    with progress_of("segment") as progress:
        labels = segment(
            phantom.image, model=models.get("segmenter"), device=options.device, progress=progress
        )
    agreement = evaluate(labels, phantom.labels)
    reports = {"tokenizer": tokens.report, "mim": masking.report, "segmenter": labels.report or {}}
    used = {kind: models.get(kind) or report["model"] for kind, report in reports.items()}
    return Results(phantom, tokens, masking, labels, agreement, _cards(used))


def _models(names: list[str] | None) -> dict[str, str]:
    """Kind -> the model to use, of the names that were given."""
    from spad.checkpoints import zoo

    return {zoo.find(name).kind: name for name in names or []}


def _cards(models: dict[str, str]) -> dict[str, dict[str, Any]]:
    from spad.checkpoints import zoo

    return {kind: zoo.find(name).card.to_json() for kind, name in models.items()}


def _write_files(results: Results, folder: Path) -> None:
    from spad.cli.page import page
    from spad.volumes.files import write

    write(results.phantom.image, folder / SCAN)
    write(results.labels, folder / LABELS)
    write(results.tokens.reconstruction, folder / RECONSTRUCTION)
    write(results.masking.reconstruction, folder / FILLED)
    rows = volume_rows(results)
    write_csv(folder / VOLUMES, rows)
    jsonfile.write(folder / REPORT, results.report)
    (folder / "figures").mkdir()
    pictures = _draw(results, folder / "figures")
    (folder / PAGE).write_text(page(results.report, rows, pictures), encoding="utf-8")


def volume_rows(results: Results) -> list[dict[str, Any]]:
    """One row per label: found and true volume in mL, mean and sd in HU, Dice."""
    found = (results.labels.report or {})["labels"]
    exact = _millilitres(results.phantom.labels)
    agreement = results.agreement["labels"]
    rows = []
    for name in dict.fromkeys([*exact, *found]):
        label = found.get(name, {})
        rows.append(
            {
                "label": name,
                "volume_ml": _rounded(label.get("volume_ml", 0.0), 2),
                "true_volume_ml": _rounded(exact.get(name), 2),
                "mean_hu": _rounded(label.get("mean"), 1),
                "sd_hu": _rounded(label.get("sd"), 1),
                "dice": _rounded(agreement.get(name, {}).get("dice"), 3),
            }
        )
    return rows


def _millilitres(labels: Volume) -> dict[str, float]:
    import numpy as np

    voxel = float(np.prod(labels.spacing)) / 1000
    names = labels.label_names or {}
    return {name: int((labels.array == number).sum()) * voxel for number, name in names.items()}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _draw(results: Results, folder: Path) -> dict[str, Path]:
    from spad.evaluation import figures
    from spad.volumes.intensity import CT

    scan, tokens, masking = results.phantom.image, results.tokens, results.masking
    centre: Centre = figures.middle_of_labels(results.phantom.labels)
    window = (CT.low, CT.high)
    report = tokens.report
    found = (results.labels.report or {})["labels"]
    volumes = {name: label["volume_ml"] for name, label in found.items() if label["voxels"]}
    drawn = {
        "reconstruction": figures.reconstruction_figure(
            scan, tokens.reconstruction, tokens.error, centre, window, "HU"
        ),
        "usage": figures.usage_figure(tokens.usage, report["codes_used"], report["perplexity"]),
        "mask": figures.mask_figure(scan, masking.mask, masking.reconstruction, centre, window),
        "organs": figures.organs_figure(scan, results.labels, centre, window, volumes),
    }
    return {name: figures.save(figure, folder / f"{name}.png") for name, figure in drawn.items()}


def _check_screen() -> None:
    if find_spec("napari") is None or find_spec("qtpy") is None:
        raise SpadError("napari is not installed; install it with: pip install 'napari-spad[all]'.")
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, screens)):
        raise SpadError("There is no screen for --gui; run it on a desktop or leave it out.")


def _open_napari(folder: Path) -> None:
    """Open the results in napari, in a process of its own; come back when it is closed."""
    files = [str(folder / name) for name in (RECONSTRUCTION, FILLED, SCAN, LABELS)]
    command = [sys.executable, "-m", "napari", "--plugin", "napari-spad", *files]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SpadError(f"napari ended with the code {code}; what it said stands above.")
