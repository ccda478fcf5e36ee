"""The report page of `spad evaluate-tokenizer`: one HTML file with its pictures inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from spad.cli.html import embedded, fill
from spad.cli.tables import number

IMAGES = (("l1", 2), ("psnr", 2), ("ssim", 3))
CODES = (
    *(("perplexity", 0), ("most_over_least", 1), ("mean_entropy", 3), ("ln_codes", 3)),
    *(("mean_kl_to_uniform", 3), ("position_information", 3)),
)
MET = {True: "yes", False: "no", None: "too few tokens"}


def page(report: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    """Fill in the page.

    Args:
        report: of `spad.evaluation.tokenizers.judge`.
        pictures: PNG files by name: grid, usage.

    Returns:
        HTML that needs no other file.
    """
    groups = report["groups"]
    whole = groups[0]
    made_up = whole["phantoms"]
    images = {f"{name}_png": embedded(path) for name, path in pictures.items()}
    words = {
        "model": escape(report["model"]),
        "device": escape(report["device"]),
        "cases": whole["cases"],
        "phantoms": f", {made_up} of them phantoms," if made_up else "",
        "key": _key(whole, report["aims"]),
        "images": _rows(_image_cells(group) for group in groups),
        "codes": _rows(_code_cells(group) for group in groups),
        "aims": _rows(_aim_cells(aim) for aim in report["aims"]),
        "left_out": _left_out(report["left_out"]),
    }
    return fill("tokenizer_page.html", images | words)


def group_name(group: Mapping[str, Any]) -> str:
    """Name a group so that phantoms in it are seen."""
    name = f"da {group['name']}" if group["group"] == "da" else str(group["name"])
    if not group["phantoms"] or "phantom" in name:
        return name
    every = group["phantoms"] == group.get("cases")
    return f"{name} ({'phantoms' if every else 'with phantoms'})"


def _key(whole: Mapping[str, Any], aims: Sequence[Mapping[str, Any]]) -> str:
    met = sum(aim["met"] is True for aim in aims if aim["group"] == "all")
    count = sum(aim["group"] == "all" for aim in aims)
    items = {
        "mean PSNR": f"{number(whole['psnr'], 1)} dB",
        "of trilinear's L1": number(whole["l1_to_trilinear"], 2),
        "of the L1 of 16 DCT coefficients": number(whole["l1_to_dct16"], 2),
        "codes used": f"{whole['codes_used']} of {whole['codes']}",
        "aims met": f"{met} of {count}",
    }
    return "\n".join(f"  <li><b>{b}</b><span>{text}</span></li>" for text, b in items.items())


def _image_cells(group: Mapping[str, Any]) -> list[str]:
    cells = [group_name(group), str(group["cases"])]
    for part in (group, group["trilinear"], group["dct16"]):
        cells += [number(part[key], digits) for key, digits in IMAGES]
    unit = group["l1_unit"]
    if group["l1"] is not None and unit != "1":
        cells[2] += f" {unit}"
    return cells


def _code_cells(group: Mapping[str, Any]) -> list[str]:
    used = f"{group['codes_used']} of {group['codes']}"
    figures = [number(group[key], digits) for key, digits in CODES]
    return [group_name(group), str(group["tokens"]), used, *figures]


def _aim_cells(aim: Mapping[str, Any]) -> list[str]:
    found, bound = number(aim["found"]), number(aim["bound"])
    return [group_name(aim), aim["aim"], found, bound, MET[aim["met"]]]


def _rows(rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        first, *others = (escape(cell) for cell in cells)
        return f"<tr><th scope='row'>{first}</th>{''.join(f'<td>{c}</td>' for c in others)}</tr>"

    return "\n".join(row(cells) for cells in rows)


def _left_out(cases: Sequence[Mapping[str, str]]) -> str:
    if not cases:
        return ""
    lines = "\n".join(
        f"  <li>{escape(case['case'])}: {escape(case['reason'])}</li>" for case in cases
    )
    return f"<h2>Left out</h2>\n<ul>\n{lines}\n</ul>"
