"""Judge a trained model on the validation scans and write it, with its card, into the package.

    python benchmarks/ship.py RUN NAME --data FOLDER [--data FOLDER ...]

The figures on the card are those that `spad evaluate`, `spad tokenize` and `spad mask` report.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

import spad
from spad.checkpoints import file, zoo
from spad.checkpoints.card import Card
from spad.data.folder import Case, read_folder
from spad.evaluation.metrics import evaluate
from spad.training import runs
from spad.volumes.files import read

WEIGHTS = Path(file.__file__).parent / "weights"
LICENCE = (
    "Research use only, CC BY-NC-SA 4.0 where the data allow it: trained on scans of BTCV (MICCAI "
    "2015 Beyond the Cranial Vault, research use), CHAOS (CC BY-NC-SA 4.0) and what else "
    "'provenance' names: TotalSegmentator's examples (Apache-2.0), STS (TCIA Soft-tissue-Sarcoma, "
    "CC BY 3.0), hippocampus (Medical Segmentation Decathlon, CC BY-SA 4.0), brain (BSD-2), nrrd "
    "(pyradiomics, BSD) and fundus (CC0). The code is Apache-2.0; not for the clinic."
)
FAILURES = {
    "segmenter": (
        "Trained for three hours on two CPU cores at 3 mm: small organs are rough, a giant spleen "
        "is cut short (see the figures by organ). Made for the abdomen of adults; scans of other "
        "regions get nonsense."
    ),
    "tokenizer": (
        "Trained for minutes: noise and fine vessels are smoothed away. CT outside -125 to 275 HU "
        "is clipped. Radiographs, ultrasound and colour were seen as made-up pictures only, but "
        "for one photograph of the fundus."
    ),
    "mim": (
        "Trained for minutes on two CPU cores: what it fills in is smooth. Only CT and T2-weighted "
        "MR of the abdomen were seen."
    ),
}
SHARES = (0.0, 0.1, 0.3, 1.0)
"""What a card may ask of an organ's pieces, see its `least_piece`, from all of them to one."""
FIGURES = {
    "tokenizer": ("psnr", "ssim", "l1", "codes_used", "perplexity", "mean_entropy"),
    "mim": ("cross_entropy", "kl", "baseline_mean", "baseline_neighbour", "l1_masked"),
}


def mean(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """Mean of each figure over the rows that have it."""
    keys = dict.fromkeys(key for row in rows for key in row)
    found = {key: [row[key] for row in rows if row.get(key) is not None] for key in keys}
    return {key: round(math.fsum(v) / len(v), 4) for key, v in found.items() if v}  # type: ignore[arg-type]


def judge_organs(cases: list[Case], model: Path) -> dict[str, Any]:
    """Dice and surface figures by organ, averaged over scans."""
    rows: list[dict[str, float | None]] = []
    by_organ: dict[str, list[dict[str, float | None]]] = {}
    for case in cases:
        assert case.labels is not None
        found: Any = evaluate(spad.segment(read(case.image), model=model), read(case.labels))
        rows.append(found["mean"])
        print(case.name, {key: round(value, 3) for key, value in found["mean"].items() if value})
        for name, figures in found["labels"].items():
            by_organ.setdefault(name, []).append(figures)
    dice = {name: mean(figures)["dice"] for name, figures in by_organ.items()}
    return {"cases": [case.name for case in cases], "mean": mean(rows), "dice": dice}


def judge_tokens(cases: list[Case], model: Path, kind: str) -> dict[str, Any]:
    """Figures of reconstruction, or of filling in what is masked, averaged over scans."""
    rows: list[dict[str, float | None]] = []
    for case in cases:
        scan = read(case.image)
        work = spad.tokenize if kind == "tokenizer" else spad.mask
        report = work(scan, model=model).report
        row = {key: report[key] for key in FIGURES[kind]}
        if kind == "tokenizer":
            row |= {f"trilinear_{key}": value for key, value in report["trilinear"].items()}
        rows.append(row)
        print(case.name, {key: round(value, 3) for key, value in row.items() if value is not None})
    return {"cases": [case.name for case in cases], "mean": mean(rows)}


def judge(model: torch.nn.Module, card: Card, folders: list[Path]) -> dict[str, Any]:
    """Figures by folder, on its validation scans."""
    with tempfile.TemporaryDirectory() as place:
        path = file.save(Path(place) / f"candidate{zoo.SUFFIX}", model, card, torch.float16)
        found = {}
        for folder in folders:
            cases = [case for case in read_folder(folder).cases if case.validation]
            organs = card.kind == "segmenter"
            judged = judge_organs(cases, path) if organs else judge_tokens(cases, path, card.kind)
            found[folder.name] = judged
    return found


def judge_with_pieces(
    model: torch.nn.Module, card: Card, folders: list[Path]
) -> tuple[Card, dict[str, Any]]:
    """Find how small the pieces of each organ may best be, and judge with that."""
    judged = {
        share: judge(
            model, dataclasses.replace(card, least_piece=dict.fromkeys(card.labels, share)), folders
        )
        for share in SHARES
    }

    def best(name: str) -> float:
        """Share of the highest Dice; of equal ones that which drops least."""
        return max(
            SHARES, key=lambda share: sum(f["dice"].get(name, 0) for f in judged[share].values())
        )

    shares = {number: best(name) for number, name in card.labels.items()}
    card = dataclasses.replace(card, least_piece={n: share for n, share in shares.items() if share})
    return card, judge(model, card, folders)


def training_of(run: Path) -> tuple[int, float]:
    """Steps and minutes to a run's best checkpoint, with those of the run that it started from."""
    checkpoint = runs.load_checkpoint_folder(run, "best")
    minutes = torch.load(checkpoint.path / "state.pt", weights_only=True)["elapsed"] / 60
    init = runs.read_recipe(run)["init"]
    before = training_of(Path(init)) if init and runs.is_run(init) else (0, 0.0)
    return checkpoint.step + before[0], minutes + before[1]


def main() -> None:
    """Judge, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, action="append", required=True)
    options = parser.parse_args()
    checkpoint = runs.load_checkpoint_folder(options.run, "best")
    model, card = file.load(checkpoint.path / "model.safetensors")
    if card.kind == "segmenter":
        card, validation = judge_with_pieces(model, card, options.data)
    else:
        validation = judge(model, card, options.data)
    steps, minutes = training_of(options.run)
    provenance = card.provenance | {
        "init": None,
        "steps": steps,
        "minutes": round(minutes, 1),
        "known_failures": FAILURES[card.kind],
    }
    card = dataclasses.replace(
        card,
        name=options.name,
        provenance=provenance,
        licence=LICENCE,
        validation=validation,
    )
    shipped = file.save(WEIGHTS / f"{options.name}{zoo.SUFFIX}", model, card, torch.float16)
    print(f"{shipped.name}: {shipped.stat().st_size / 1e6:.1f} MB, {validation}")


if __name__ == "__main__":
    main()
