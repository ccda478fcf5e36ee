"""A series from a real scanner: JPEG 2000, names and places in opposite order, UIDs emptied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spad.volumes.axes import to_file_order
from spad.volumes.files import read

FOLDER = (
    Path(__file__).parents[5].parent
    / "shared" / "data" / "totalsegmentator" / "example_ct_dicom"
)  # fmt: skip


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real series is not at {FOLDER}")
def test_itk_agrees_on_a_real_series() -> None:
    volume = read(FOLDER)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(FOLDER)))
    image = reader.Execute()
    np.testing.assert_array_equal(
        to_file_order(volume.values(), volume.source).transpose(2, 1, 0),
        sitk.GetArrayFromImage(image),
    )
    expected = np.diag([*image.GetSpacing(), 1.0])
    expected[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(
        volume.source.affine, np.diag([-1.0, -1.0, 1.0, 1.0]) @ expected, atol=1e-9
    )
    assert (volume.unit, volume.window, volume.name) == ("HU", (-110, 190), "CT Body 3.0")
    names = [volume.source.header.files[part.file].name for part in volume.source.header.slices[0]]
    assert names == sorted(names, reverse=True)
    assert all(part.sop_instance_uid for part in volume.source.header.slices[0])
