"""The report page of `spad prepare`: what is in a store, data set by data set, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from spad import jsonfile
from spad.cli.html import fill
from spad.data.known_sets import UNKNOWN
from spad.data.store import PARTS, Row, Store

PAGE = "report.html"
DEGREES = range(6)


def write_page(store: Store) -> Path:
    """Write `report.html` into a store; it needs no other file."""
    left_out = store.about["left_out"]
    names = sorted(store.about["data_sets"])
    values = {
        "volumes": len(store.rows),
        "data_sets": len(names),
        "patients": len({(row.data_set, row.patient) for row in store.rows}),
        "gigabytes": f"{sum(row.nbytes for row in store.rows) / 1e9:.2f}",
        "left_out": len(left_out),
        "overview": "\n".join(_overview(name, _of(store, name)) for name in names),
        "sections": "\n".join(_section(store, name) for name in names),
    }
    return jsonfile.write_text(store.path / PAGE, fill("store_page.html", values))


def _of(store: Store, name: str) -> list[Row]:
    return [row for row in store.rows if row.data_set == name]


def _overview(name: str, rows: Sequence[Row]) -> str:
    parts = Counter(row.part for row in rows)
    cells = [len({row.patient for row in rows}), len(rows), *(parts[part] for part in PARTS)]
    cells.append(sum(row.labels for row in rows))
    return _line(f"<a href='#{escape(name)}'>{escape(name)}</a>", map(str, cells))


def _section(store: Store, name: str) -> str:
    rows, about = _of(store, name), store.about["data_sets"][name]
    odd = [one for one in store.about["left_out"] if one["data_set"] == name]
    return "\n".join(
        [
            f"<h2 id='{escape(name)}'>{escape(name)}</h2>",
            f"<p>{_terms(about)}</p>",
            _grids(rows) if rows else "",
            _degrees(rows) if rows else "",
            _odd(odd),
        ]
    )


def _terms(about: dict[str, Any]) -> str:
    known, options = about["known"], about["options"]
    licence = escape(about["licence"])
    sentences = [f"Licence: {licence}." if licence != UNKNOWN else "Its licence is not stated."]
    if known:
        fixed = [f"weight {known['weight']:g}"]
        fixed += [f"{k} {known[k]}" for k in ("orientation", "modality") if known[k] != UNKNOWN]
        sentences.append(f"Known as {escape(known['name'])}: {escape(', '.join(fixed))}.")
    if about["label_names"]:
        sentences.append(f"Labels: {escape(', '.join(about['label_names'].values()))}.")
    sentences.append(
        f"At most {options['side']} voxels along the shorter side in plane; seed {options['seed']}."
    )
    return " ".join(sentences)


def _grids(rows: Sequence[Row]) -> str:
    """One line per modality: how many, spacings and shapes as smallest, median, largest."""
    head = ("modality", "volumes", "slices, mm", "in plane, mm", "depth", "height", "width")
    lines = []
    for modality in sorted({row.modality for row in rows}):
        some = [row for row in rows if row.modality == modality]
        deep = [row.spacing[0] for row in some if row.shape[1] > 1]
        cells = [str(len(some)), _span(deep), _span([row.spacing[1] for row in some])]
        cells += [_span([row.shape[axis] for row in some]) for axis in (1, 2, 3)]
        lines.append(_line(escape(modality), cells))
    return _table(head, lines)


def _degrees(rows: Sequence[Row]) -> str:
    counts = Counter(row.da for row in rows)
    most = max(counts.values())
    lines = [
        f"<tr><th scope='row'>{da}</th><td>{counts[da]}</td><td class='bar'>"
        f"<span style='width:{100 * counts[da] / most:.0f}%'></span></td></tr>"
        for da in DEGREES
    ]
    head = "<thead><tr><th>da</th><th>volumes</th><th></th></tr></thead>"
    return f"<table class='numbers degrees'>{head}<tbody>{''.join(lines)}</tbody></table>"


def _odd(odd: Sequence[dict[str, str]]) -> str:
    if not odd:
        return "<p>Nothing was left out.</p>"
    lines = [_line(escape(one["source"]), [escape(one["reason"])]) for one in odd]
    return _table((f"left out ({len(odd)})", "why"), lines, "texts")


def _span(values: Sequence[float]) -> str:
    if not values:
        return "–"
    ends = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in _three(values)]
    return ends[0] if len(set(ends)) == 1 else f"{ends[0]} – {ends[1]} – {ends[2]}"


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    middle = median(values)
    return min(values), int(middle) if isinstance(values[0], int) else middle, max(values)


def _line(head: str, cells: Iterable[str]) -> str:
    return f"<tr><th scope='row'>{head}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(head: Sequence[str], lines: Sequence[str], kind: str = "numbers") -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return (
        f"<div class='scroll'><table class='{kind}'><thead><tr>{names}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
