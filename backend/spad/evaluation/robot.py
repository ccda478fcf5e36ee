"""The robot user: clicks where the answer is most wrong, and looks after each click.

Protocols: "empty" (points alone, the decoder is not told what the segmenter thinks), "automatic"
(starts from the segmenter's organ, and is told), "box" (a box around the object in 3D, then points;
as "empty" else), which is how SegFM3D counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from spad.data.cases import Case, Folder, read_case_labels, read_channels
from spad.data.channels import one_phase
from spad.data.folder import read_source
from spad.data.simulated_user import next_click
from spad.errors import SpadError
from spad.evaluation.metrics import compare_masks
from spad.inference.clicks import ClickSession
from spad.progress import Progress, silent
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt, point
from spad.volumes.volume import Volume

PROTOCOLS = ("automatic", "empty", "box")
AREA_CLICKS = 5
"""Clicks over which the area under the curve is taken, by trapezia."""
GOAL = 0.9
"""Dice, for the number of clicks that reach it."""


@dataclass(frozen=True)
class Robot:
    """How the robot user works.

    Attributes:
        clicks: how many at most.
        protocol: one of `PROTOCOLS`.
        features: whether the decoder gets the segmenter's features.
    """

    clicks: int = 10
    protocol: str = "automatic"
    features: bool = True


def robot_user(
    data: Sequence[str | Path],
    model: str | Path | None,
    robot: Robot,
    *,
    cases: Sequence[str] = (),
    labels: Sequence[str] = (),
    device: str = "auto",
    progress: Progress = silent,
    see: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Let the robot user click every label of every case.

    Args:
        data: folders of scans with labels.
        model: a clicker; None for the default.
        robot: how it clicks.
        cases: IDs or names; none takes those kept for validation, or all where no scan is.
        labels: names; none takes all.
        device: "auto", "cpu" or "cuda".
        progress: told after each label.
        see: given each row as it is done.

    Returns:
        `{"model", "protocol", "device", "cases": [{case, label, dice, nsd, seconds, ...}], "mean":
        {"1": {dice, nsd, seconds}, ...}}`; lists count from 0 clicks (the start, or the box).

    Raises:
        SpadError: no case or no label is left.
    """
    chosen = [pair for path in data for pair in _cases(read_source(path), cases)]
    if not chosen:
        raise SpadError(
            f"No labelled scan of {', '.join(map(str, data))} is called "
            f"{', '.join(cases) or 'anything'}; give folders of scans with labels, and their IDs."
        )
    rows: list[dict[str, Any]] = []
    used = {"model": "", "device": ""}
    for number, (folder, case) in enumerate(chosen):
        progress(number / len(chosen), f"Opening {case.name}")
        scan = one_phase(read_channels(folder, case)[0])
        truth = read_case_labels(case, scan)
        assert truth is not None
        names = dict(truth.label_names or folder.names_of(case))
        wanted = {i: n for i, n in names.items() if not labels or n in labels}
        session = ClickSession(
            scan,
            model,
            device=device,
            features=robot.features,
            organs=robot.protocol == "automatic",
        )
        used = {"model": session.model.entry.name, "device": str(session.model.place)}
        for label, name in wanted.items():
            mask = np.asarray(truth.array == label)
            if not mask.any():
                continue
            progress(number / len(chosen), f"{case.name}: {name}")
            row = {"case": case.name, "label": name} | _play(session, name, mask, robot)
            rows.append(row)
            see(row)
    if not rows:
        raise SpadError(
            f"No case has a voxel of {', '.join(labels) or 'any label'}; give names of labels that "
            "occur."
        )
    return {
        **used,
        "protocol": robot.protocol,
        "features": robot.features,
        "cases": rows,
        **summary(rows, robot.clicks),
    }


def summary(rows: Sequence[Mapping[str, Any]], clicks: int) -> dict[str, Any]:
    """Give means over labels: each label is a mean over its cases first."""
    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)

    def mean(value: Callable[[Mapping[str, Any]], float]) -> float:
        return float(np.mean([np.mean([value(r) for r in some]) for some in by_label.values()]))

    means = {
        str(n): {
            "dice": mean(lambda r, n=n: r["dice"][n]),  # type: ignore[misc]
            "nsd": mean(lambda r, n=n: r["nsd"][n]),  # type: ignore[misc]
            "seconds": mean(lambda r, n=n: r["seconds"][n]),  # type: ignore[misc]
        }
        for n in range(clicks + 1)
    }
    reached = [r["clicks_to_0_90"] for r in rows]
    return {
        "mean": means,
        "labels": {
            name: {str(n): float(np.mean([r["dice"][n] for r in some])) for n in range(clicks + 1)}
            for name, some in by_label.items()
        },
        "dice_auc": mean(lambda r: r["dice_auc"]),
        "nsd_auc": mean(lambda r: r["nsd_auc"]),
        "reached_0_90": sum(n is not None for n in reached) / len(reached),
        "median_clicks_to_0_90": float(
            np.median([clicks + 1 if n is None else n for n in reached])
        ),
    }


def _cases(source: Any, wanted: Sequence[str]) -> Iterator[tuple[Folder, Case]]:
    if not isinstance(source, Folder):
        raise SpadError("Clicks are judged on folders of scans with labels, not on a store.")
    labelled = [case for case in source.cases if case.labels is not None]
    kept = [case for case in labelled if case.validation] or labelled
    if wanted:
        kept = [c for c in labelled if c.name in wanted or c.name.rsplit("/", 1)[-1] in wanted]
    for case in kept:
        yield source, case


def _play(session: ClickSession, name: str, wanted: np.ndarray, robot: Robot) -> dict[str, Any]:
    """Click one object."""
    scan: Volume = session.volume
    box = ndimage.find_objects(wanted.astype(np.uint8))[0]
    seconds = [0.0]
    session.session.forget(name)
    if robot.protocol == "automatic":
        begun = time.perf_counter()
        part = _automatic(session, name)
        if part is not None:
            session.start(name)
        seconds[0] = time.perf_counter() - begun
    elif robot.protocol == "box":
        corners = tuple(
            (int(z), int(y), int(x))
            for z, y, x in zip(*[(one.start, one.stop - 1) for one in box], strict=True)
        )
        begun = time.perf_counter()
        session.prompt(Prompt("box", corners), label=name)
        seconds[0] = time.perf_counter() - begun
    scores = [_score(session, name, wanted, scan.spacing)]
    for _ in range(robot.clicks):
        region, found = _around(session, name, wanted)
        click = next_click(wanted[region], found, scan.spacing)
        begun = time.perf_counter()
        if click is not None:
            voxel = np.array(click[0]) + [one.start for one in region]
            session.prompt(point(voxel.tolist(), click[1]), label=name)
        seconds.append(time.perf_counter() - begun)
        scores.append(_score(session, name, wanted, scan.spacing))
    dice = [one[0] for one in scores]
    nsd = [one[1] for one in scores]
    last = min(AREA_CLICKS, robot.clicks)
    return {
        "dice": dice,
        "nsd": nsd,
        "seconds": seconds,
        "dice_auc": float(np.trapezoid(dice[: last + 1])),
        "nsd_auc": float(np.trapezoid(nsd[: last + 1])),
        "clicks_to_0_90": next((n for n, d in enumerate(dice) if d >= GOAL), None),
    }


def _automatic(session: ClickSession, name: str) -> Part | None:
    try:
        return session.automatic(name)
    except SpadError:
        return None


def _around(
    session: ClickSession, name: str, wanted: np.ndarray
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Give a box that holds the object as it is and as it should be, and the former in it."""
    part = session.session.part(name) if name in session.session.objects else None
    box = ndimage.find_objects(wanted.astype(np.uint8))[0]
    low = [one.start for one in box]
    high = [one.stop for one in box]
    if part is not None:
        low = [min(a, b) for a, b in zip(low, part.start, strict=True)]
        high = [max(a, b) for a, b in zip(high, part.stop, strict=True)]
    z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
    found = np.zeros([b - a for a, b in zip(low, high, strict=True)], bool)
    if part is not None:
        at = tuple(
            slice(s - a, s - a + n)
            for s, a, n in zip(part.start, low, part.mask.shape, strict=True)
        )
        found[at] = part.mask
    return (z, y, x), found


def _score(
    session: ClickSession, name: str, wanted: np.ndarray, spacing: tuple[float, ...]
) -> tuple[float, float]:
    """Dice, and NSD at 1 mm."""
    region, found = _around(session, name, wanted)
    figures = compare_masks(found, wanted[region], spacing)
    return float(figures["dice"] or 0), float(figures["nsd_1mm"] or 0)
