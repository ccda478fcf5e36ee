"""CHAOS as it is downloaded: `Train_Sets/{MR,CT}/<patient>`, DICOM series with label pictures.

Source: Kavur et al. 2021, https://doi.org/10.5281/zenodo.3362844.
"""

from __future__ import annotations

import os
from pathlib import Path

from spad.data.cases import Case, Folder
from spad.data.ground import CT_NAMES, MR_NAMES
from spad.errors import SpadError

SERIES, GROUND = "DICOM_anon", "Ground"
PHASES = ("InPhase", "OutPhase")
CHANNELS = ("in phase", "out phase")
_DEPTH = 5


def find(path: Path) -> Folder | None:
    """List the cases of CHAOS in a folder, or give None if it holds none.

    T1-DUAL is a case of two channels (in phase, out phase), T2-SPIR and CT are cases of one. Scans
    without `Ground` (the test sets) have no labels. In CT, annotators drew the liver alone.

    Raises:
        SpadError: a T1-DUAL scan lacks one of its phases.
    """
    places = _places(path)
    if not any((place / GROUND).is_dir() for place in places):
        return None
    cases = [_case(path, place) for place in places]
    dual = any(len(case.images) > 1 for case in cases)
    names = CT_NAMES if all(case.label_names for case in cases) else MR_NAMES
    return Folder(path, tuple(cases), names, CHANNELS if dual else ())


def _places(path: Path) -> list[Path]:
    """List the folders that hold a series of CHAOS; nothing below them is looked at."""
    found = []
    start = len(path.parts)
    for folder, below, _ in os.walk(path):
        place = Path(folder)
        if SERIES in below:
            found.append(place)
        if SERIES in below or len(place.parts) - start >= _DEPTH:
            below.clear()
        below.sort()
    return found


def _case(root: Path, place: Path) -> Case:
    parts = place.relative_to(root).parts
    kept = (part for part in parts if part not in ("Train_Sets", "Test_Sets"))
    name = "/".join((root.resolve().name, *kept))
    mr = place.name in ("T1DUAL", "T2SPIR")
    ground = place / GROUND
    return Case(
        name,
        _phases(place / SERIES),
        ground if ground.is_dir() else None,
        validation=False,
        patient=name.rpartition("/")[0] if mr else name,
        label_names=None if mr else CT_NAMES,
        times_are_channels=place.name == "T1DUAL",
    )


def _phases(series: Path) -> tuple[Path, ...]:
    phases = [series / phase for phase in PHASES]
    there = [phase.is_dir() for phase in phases]
    if not any(there):
        return (series,)
    if not all(there):
        absent = phases[there.index(False)]
        raise SpadError(
            f"{absent} is absent; expected both phases of T1-DUAL; copy the case again."
        )
    return tuple(phases)
