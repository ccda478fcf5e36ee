"""PET: from stored activity to the standardised uptake value (SUV) by body weight, in g/mL.

The rule is QIBA's (FDG-PET/CT profile, appendix G, and the "vendor-neutral pseudo-code for SUV"):
SUVbw = activity [Bq/ml] x weight [g] / dose [Bq], the dose decayed to the time to which the
images are corrected. Nothing is guessed: what is missing is said and the file's unit stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spad.volumes.files.dicom.frames import moment, seconds
from spad.volumes.files.dicom.headers import item, number, text, texts

_DAY = 86400.0
_UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "GML": "SUV", "PROPCNTS": "counts", "NONE": None}
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x70531000, 0x70531009


@dataclass(frozen=True)
class Uptake:
    """How to turn rescaled values into what is shown.

    Attributes:
        factor: multiplies the rescaled values.
        unit: "SUV", "Bq/ml", "counts", another text of the file, or None.
        notes: sentences for the person: how it was computed, or what is missing.
    """

    factor: float
    unit: str | None
    notes: tuple[str, ...] = ()


def uptake(datasets: Sequence[Any]) -> Uptake:
    """Find the SUV factor of a PET series.

    Args:
        datasets: the headers of its files.

    Returns:
        Unit "SUV" (g/mL of body weight) where Units is GML, or BQML or CNTS with all that the
        rule needs; else the file's unit with a note that says what is missing.
    """
    first = datasets[0]
    stated = text(first, "Units")
    if stated == "GML":
        kind = text(first, "SUVType")
        if kind in (None, "BW"):
            return Uptake(1.0, "SUV")
        return Uptake(1.0, "SUV", (f"The SUV is of type {kind}, not by body weight.",))
    if stated == "CNTS":
        return _counts(datasets)
    if stated is None and text(first, "RescaleType") == "BQML":
        stated = "BQML"
    if stated != "BQML":
        unit = _UNITS.get(stated or "", stated)
        return Uptake(1.0, unit, (f"SUV is not computed: Units is {stated or 'not stated'}.",))
    return _from_activity(datasets, 1.0, "Bq/ml")


def _counts(datasets: Sequence[Any]) -> Uptake:
    """Use the factors that Philips keeps in private elements for counts."""
    first = datasets[0]
    if (text(first, 0x70530010) or "").startswith("Philips PET"):
        factors = {number(dataset, _PHILIPS_SUV) for dataset in datasets}
        factor = factors.pop() if len(factors) == 1 else None
        if factor:
            return Uptake(
                factor, "SUV", ("SUV by Philips' own scale factor (7053,1000) of the file.",)
            )
        factors = {number(dataset, _PHILIPS_ACTIVITY) for dataset in datasets}
        factor = factors.pop() if len(factors) == 1 else None
        if factor:
            return _from_activity(datasets, factor, "counts")
    return Uptake(
        1.0,
        "counts",
        ("SUV is not computed: the values are counts and the file has no factor for them.",),
    )


def _from_activity(datasets: Sequence[Any], factor: float, unit: str) -> Uptake:
    """Compute the factor from weight, dose and decay; `factor` turns values into Bq/ml."""
    first = datasets[0]
    lacking: list[str] = []
    corrected = texts(first, "CorrectedImage")
    for name, what in (("ATTN", "attenuation"), ("DECY", "decay")):
        if name not in corrected:
            lacking.append(f"the images are not corrected for {what} (CorrectedImage)")
    correction = text(first, "DecayCorrection")
    if correction not in ("START", "ADMIN"):
        lacking.append(f"DecayCorrection is {correction or 'not stated'}, not START or ADMIN")
    weight = number(first, "PatientWeight")
    if not weight or weight < 0:
        lacking.append("PatientWeight is missing")
    drug = item(first, "RadiopharmaceuticalInformationSequence")
    dose = None if drug is None else number(drug, "RadionuclideTotalDose")
    if not dose or dose < 0:
        lacking.append("RadionuclideTotalDose is missing")
    elif dose < 1e5:
        lacking.append(f"RadionuclideTotalDose is {dose:g}, too little for Bq")
    decay = 1.0
    notes: list[str] = []
    if correction == "START":
        decay, problem, notes = _decay(datasets, drug)
        if problem:
            lacking.append(problem)
    if lacking or not weight or not dose:
        return Uptake(
            1.0, unit, (f"SUV is not computed, values are {unit}: {'; '.join(lacking)}.",)
        )
    suv = factor * weight * 1000 / (dose * decay)
    said = (
        f"SUV by body weight ({weight:g} kg, {dose / 1e6:.4g} MBq"
        + (f", {100 * decay:.1f}% of it left at the scan" if correction == "START" else "")
        + ")."
    )
    return Uptake(suv, "SUV", (said, *notes))


def _decay(datasets: Sequence[Any], drug: Any) -> tuple[float, str, list[str]]:
    """Give the share of the dose that is left at the time to which START corrects.

    That time is the start of the series, unless the series was made later than acquired: then
    that of the earliest acquisition.

    Returns:
        The share, what is missing (or ""), and notes.
    """
    half_life = None if drug is None else number(drug, "RadionuclideHalfLife")
    if not half_life or half_life <= 0:
        return 1.0, "RadionuclideHalfLife is missing", []
    series = moment(datasets[0], "Series")
    acquired = [at for at in (moment(dataset, "Acquisition") for dataset in datasets) if at]
    if series is None and not acquired:
        return 1.0, "the time of the scan is missing", []
    notes: list[str] = []
    start = series if series is not None else min(acquired)
    if acquired and start > min(acquired) + 1:
        start = min(acquired)
        notes.append(
            "The series is dated after its acquisition; the dose is decayed to the first "
            "acquisition instead."
        )
    injected, problem = _injected(drug, start)
    if injected is None:
        return 1.0, problem, []
    elapsed = start - injected
    if not -60 <= elapsed <= 20 * half_life:
        return 1.0, f"the injection lies {elapsed / 60:.0f} minutes before the scan", []
    return math.exp(-math.log(2) * max(elapsed, 0.0) / half_life), "", notes


def _injected(drug: Any, start: float) -> tuple[float | None, str]:
    """Give the moment of injection; a time without a date is the last one before the scan."""
    stated = text(drug, "RadiopharmaceuticalStartDateTime")
    if stated and len(stated) >= 12:
        at = seconds(stated[:8], stated[8:].split("+")[0].split("-")[0])
        if at is not None:
            return (at % _DAY if start < _DAY else at), ""
    at = seconds(None, text(drug, "RadiopharmaceuticalStartTime"))
    if at is None:
        return None, "the time of the injection is missing"
    day = start - start % _DAY
    return (day + at if day + at <= start + 60 else day + at - _DAY), ""
