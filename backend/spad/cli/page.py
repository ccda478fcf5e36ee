"""The report page of `spad demo`: one HTML file with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from spad.cli.html import embedded, fill
from spad.cli.tables import number

COLUMNS = {"volume_ml": 1, "true_volume_ml": 1, "mean_hu": 0, "sd_hu": 0, "dice": 2}
KINDS = {"tokenizer": "Tokenizer", "mim": "Masked image model", "segmenter": "Organs"}


def page(
    report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path]
) -> str:
    """Fill in the page.

    Args:
        report: keys tokenize, mask, segment, evaluate, models.
        rows: the table of volumes.
        pictures: PNG files by name.

    Returns:
        HTML that needs no other file.
    """
    images = {f"{name}_png": embedded(path) for name, path in pictures.items()}
    tables = {"volumes": _volumes(rows), "models": _models(report["models"])}
    return fill("page.html", images | _figures(report) | tables)


def _figures(report: Mapping[str, Any]) -> dict[str, str]:
    tokens, mask, segment = report["tokenize"], report["mask"], report["segment"]
    mean = report["evaluate"]["mean"]
    found = sum(1 for label in segment["labels"].values() if label["voxels"])
    return {
        "psnr": number(tokens["psnr"], 1),
        "ssim": number(tokens["ssim"], 2),
        "l1": number(tokens["l1"], 1),
        "trilinear_psnr": number(tokens["trilinear"]["psnr"], 1),
        "grid": " × ".join(str(size) for size in tokens["grid"]),
        "codes": str(tokens["codes_used"]),
        "perplexity": number(tokens["perplexity"], 0),
        "entropy": number(tokens["mean_entropy"], 2),
        "masked": str(mask["masked"]),
        "tokens": str(mask["masked"] + mask["visible"]),
        "cross_entropy": number(mask["cross_entropy"], 2),
        "baseline_mean": number(mask["baseline_mean"], 2),
        "l1_masked": number(mask["l1_masked"], 1),
        "found": str(found),
        "dice": number(mean["dice"], 2),
        "nsd": number(mean["nsd_3mm"], 2),
        "seconds": number(segment["seconds"]["total"], 1),
        "device": escape(str(segment["device"])),
    }


def _volumes(rows: Sequence[Mapping[str, Any]]) -> str:
    def cells(row: Mapping[str, Any]) -> str:
        name = escape(str(row["label"]).replace("_", " "))
        values = "".join(f"<td>{number(row[key], digits)}</td>" for key, digits in COLUMNS.items())
        return f"<tr><th scope='row'>{name}</th>{values}</tr>"

    return "\n".join(cells(row) for row in rows)


def _models(cards: Mapping[str, Mapping[str, Any]]) -> str:
    def cells(kind: str, card: Mapping[str, Any]) -> str:
        origin = "; ".join(f"{key}: {value}" for key, value in card["provenance"].items())
        texts = (KINDS.get(kind, kind), card["name"], card["licence"] or "not stated", origin)
        first, *others = (escape(str(text)) for text in texts)
        values = "".join(f"<td>{text}</td>" for text in others)
        return f"<tr><th scope='row'>{first}</th>{values}</tr>"

    return "\n".join(cells(kind, card) for kind, card in cards.items())
