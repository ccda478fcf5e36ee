"""What the Segment dock says about organs."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from napari_spad.widgets.organs import number
from spad.volumes.colors import readable

_WHOLE_FROM = 100

Figures = dict[str, dict[str, Any]]


def outcome_words(figures: Figures, seconds: float | None, where: str = "") -> str:
    """Say how many organs were found, in which time, and which were not.

    Args:
        figures: NAME to voxels and more, of all organs that were looked for.
        seconds: how long it took.
        where: what was looked at if that is not the whole scan, "the box".
    """
    missing = [readable(name) for name, one in figures.items() if not one["voxels"]]
    place = f" in {where}" if where else ""
    took = "" if seconds is None else f" in {seconds:.0f} s"
    if len(missing) == len(figures):
        return f"No organ was found{place}{took}."
    words = f"{len(figures) - len(missing)} organs found{place}{took}."
    return f"{words} Not found: {', '.join(missing)}." if missing and not where else words


def selection_words(name: str, figures: dict[str, Any], unit: str) -> str:
    """Say an organ's name, volume and mean: "right kidney: 151.2 mL, mean 178 HU"."""
    mean = figures.get("mean")
    words = f"{readable(name)}: {number(figures.get('volume_ml'), 1)} mL"
    return words if mean is None else f"{words}, mean {number(mean, 0)} {unit}".rstrip()


def comparison_words(report: dict[str, Any], reference: str) -> str:
    """Say how well labels agree with a reference on the whole."""
    count, mean = len(report["labels"]), report["mean"]
    if not count:
        return f"Neither these organs nor {reference} has a voxel."
    organs = "organ" if count == 1 else "organs"
    words = f"Mean over {count} {organs}: Dice {mean['dice']:.3f}"
    return words if mean["hd95"] is None else f"{words}, HD95 {number(mean['hd95'], 1)} mm"


def feature_table(names: dict[int, str], figures: Figures, unit: str) -> dict[str, Any]:
    """Make the features of a Labels layer, which the status bar shows under the mouse."""
    ids = sorted(names)
    volumes = [_rounded(figures.get(names[label], {}).get("volume_ml")) for label in ids]
    means = [_rounded(figures.get(names[label], {}).get("mean")) for label in ids]
    mean = f"mean {unit}".strip()
    return {
        "index": [0, *ids],
        "name": ["background", *(names[label] for label in ids)],
        "volume mL": np.array([nan, *volumes], dtype=object),
        mean: np.array([nan, *means], dtype=object),
    }


def _rounded(value: float | None) -> float:
    """Round so that napari's status bar, which writes floats as "1.52e+03", reads well."""
    if value is None:
        return nan
    return round(value) if abs(value) >= _WHOLE_FROM else round(float(value), 1)
