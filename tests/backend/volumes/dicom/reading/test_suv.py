"""PET comes as SUV by body weight where the headers allow it; what is missing is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from spad.volumes.axes import to_file_order
from spad.volumes.files.dicom.reader import read
from spad.volumes.files.options import Options

HALF_LIFE = 6586.2  # fluorine-18, seconds
DOSE, WEIGHT = 3.5e8, 70.0


def drug(**elements: Any) -> list[Dataset]:
    ds = Dataset()
    ds.RadionuclideTotalDose = DOSE
    ds.RadionuclideHalfLife = HALF_LIFE
    ds.RadiopharmaceuticalStartTime = "090000"
    for key, value in elements.items():
        if value is None:
            delattr(ds, key)
        else:
            setattr(ds, key, value)
    return [ds]


def pet(**elements: Any) -> dict[str, Any]:
    return {
        "Modality": "PT",
        "Units": "BQML",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "DecayCorrection": "START",
        "PatientWeight": WEIGHT,
        "SeriesDate": "20240301",
        "SeriesTime": "100000",
        "AcquisitionDate": "20240301",
        "AcquisitionTime": "100005",
        "RadiopharmaceuticalInformationSequence": drug(),
        **elements,
    }


def factor(seconds: float) -> float:
    return WEIGHT * 1000 / (DOSE * 2 ** (-seconds / HALF_LIFE))


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, factor(3600)),
        ({"DecayCorrection": "ADMIN"}, WEIGHT * 1000 / DOSE),
        (
            {
                "RadiopharmaceuticalInformationSequence": drug(
                    RadiopharmaceuticalStartTime=None,
                    RadiopharmaceuticalStartDateTime="20240301091500.00",
                )
            },
            factor(2700),
        ),
        # injected before midnight, scanned after it
        (
            {
                "SeriesTime": "001500",
                "AcquisitionTime": "001505",
                "RadiopharmaceuticalInformationSequence": drug(
                    RadiopharmaceuticalStartTime="233000.00"
                ),
            },
            factor(2700),
        ),
        # a series that was reconstructed the day after
        ({"SeriesDate": "20240302", "AcquisitionTime": "101000"}, factor(4200)),
    ],
)
def test_activity_becomes_suv(
    scanner: Any, plane: Any, elements: dict[str, Any], expected: float
) -> None:
    scanner.series(
        3,
        values=lambda k: plane(12, 17, k, 0, 30000).astype(np.uint16),
        RescaleSlope=2.5,
        WindowCenter=5000,
        WindowWidth=10000,
        **pet(**elements),
    )
    volume = read(scanner.folder, Options())
    assert volume.unit == "SUV"
    assert volume.array.dtype == np.uint16
    assert volume.slope == pytest.approx(2.5 * expected, rel=1e-6)
    assert volume.window == pytest.approx((0, 10000 * expected), rel=1e-6)
    assert any("70 kg, 350 MBq" in note for note in volume.notes)


def test_slices_with_their_own_scale(scanner: Any, plane: Any) -> None:
    def edit(ds: Any, k: int) -> None:
        ds.RescaleSlope = 1 + k / 2

    scanner.series(3, edit=edit, values=lambda k: plane(12, 17, k, 0, 30000), **pet())
    volume = read(scanner.folder, Options())
    assert volume.unit == "SUV"
    ours = to_file_order(volume.array, volume.source)
    for k in range(3):
        expected = plane(12, 17, k, 0, 30000) * (1 + k / 2) * factor(3600)
        np.testing.assert_allclose(ours[:, :, k].T, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"PatientWeight": None}, "PatientWeight is missing"),
        ({"CorrectedImage": ["ATTN"]}, "not corrected for decay"),
        ({"CorrectedImage": ["DECY"]}, "not corrected for attenuation"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        (
            {"RadiopharmaceuticalInformationSequence": drug(RadionuclideTotalDose=None)},
            "RadionuclideTotalDose is missing",
        ),
        (
            {"RadiopharmaceuticalInformationSequence": drug(RadionuclideTotalDose=350.0)},
            "too little for Bq",
        ),
        (
            {"RadiopharmaceuticalInformationSequence": drug(RadionuclideHalfLife=None)},
            "RadionuclideHalfLife is missing",
        ),
        (
            {"RadiopharmaceuticalInformationSequence": drug(RadiopharmaceuticalStartTime=None)},
            "time of the injection is missing",
        ),
        (
            {
                "RadiopharmaceuticalInformationSequence": drug(
                    RadiopharmaceuticalStartDateTime="20240101090000"
                )
            },
            "minutes before the scan",
        ),
        ({"RadiopharmaceuticalInformationSequence": []}, "RadionuclideTotalDose is missing"),
        ({"SeriesTime": None, "AcquisitionTime": None}, "time of the scan is missing"),
    ],
)
def test_what_is_missing_is_said(scanner: Any, elements: dict[str, Any], words: str) -> None:
    scanner.series(2, **pet(**elements))
    volume = read(scanner.folder, Options())
    assert volume.unit == "Bq/ml"
    assert volume.slope == 1
    (note,) = [note for note in volume.notes if "SUV is not computed" in note]
    assert words in note


def test_suv_of_the_scanner(scanner: Any) -> None:
    scanner.series(2, **pet(Units="GML"))
    volume = read(scanner.folder, Options())
    assert (volume.unit, volume.slope) == ("SUV", 1)


def test_counts(scanner: Any) -> None:
    scanner.series(2, **pet(Units="CNTS"))
    volume = read(scanner.folder, Options())
    assert (volume.unit, volume.slope) == ("counts", 1)
    assert any("has no factor for them" in note for note in volume.notes)


@pytest.mark.parametrize(("element", "expected"), [(0x00, 0.0123), (0x09, 1.7 * factor(3600))])
def test_counts_of_philips(scanner: Any, element: int, expected: float) -> None:
    def edit(ds: Any, k: int) -> None:
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(element, "DS", "0.0123" if element == 0 else "1.7")

    scanner.series(2, edit=edit, **pet(Units="CNTS"))
    volume = read(scanner.folder, Options())
    assert volume.unit == "SUV"
    assert volume.slope == pytest.approx(expected, rel=1e-6)
