"""From a file to organs and back to a file: the labels overlay the scan in independent readers."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

import spad
from spad.phantoms import sample
from spad.volumes.files import read, write


def in_another_order(path: Path, out: Path, order: str) -> Path:
    """Write a scan with its axes in another order, as scanners do."""
    image = nibabel.load(path)
    target = nibabel.orientations.axcodes2ornt(order)
    now = nibabel.orientations.io_orientation(image.affine)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(now, target))
    nibabel.save(turned, out)
    return out


def centre_by_nibabel(path: Path, label: int) -> np.ndarray:
    """Middle of a label in RAS mm."""
    image = nibabel.load(path)
    voxels = np.argwhere(np.asarray(image.dataobj) == label)
    return nibabel.affines.apply_affine(image.affine, voxels.mean(0))


def centre_by_itk(image: SimpleITK.Image, label: int) -> np.ndarray:
    """Middle of a label in RAS mm; ITK counts towards left and back."""
    voxels = np.argwhere(SimpleITK.GetArrayFromImage(image) == label)[:, ::-1]
    place = image.TransformContinuousIndexToPhysicalPoint(voxels.mean(0).tolist())
    return np.array(place) * (-1, -1, 1)


@pytest.mark.parametrize("order", ["LAS", "RAS", "PIR", "SRA"])
def test_organs_of_an_oblique_scan_lie_where_they_are(tmp_path: Path, order: str) -> None:
    made = sample("mr")
    write(made.image, tmp_path / "made.nii.gz")
    write(made.labels, tmp_path / "truth_labels.nii.gz")
    scan_path = in_another_order(tmp_path / "made.nii.gz", tmp_path / "scan.nii.gz", order)
    organs_path = tmp_path / "organs.nii.gz"

    organs = spad.segment(read(scan_path), modality="MR")
    spad.write(organs, organs_path)

    scan, found = (SimpleITK.ReadImage(str(p)) for p in (scan_path, organs_path))
    assert found.GetSize() == scan.GetSize()
    assert found.GetSpacing() == pytest.approx(scan.GetSpacing(), abs=1e-5)
    assert found.GetOrigin() == pytest.approx(scan.GetOrigin(), abs=1e-4)
    assert found.GetDirection() == pytest.approx(scan.GetDirection(), abs=1e-5)
    assert organs.label_names is not None
    truth = {name: number for number, name in (made.labels.label_names or {}).items()}
    for label, name in organs.label_names.items():
        wanted = centre_by_nibabel(tmp_path / "truth_labels.nii.gz", truth[name])
        assert np.linalg.norm(centre_by_nibabel(organs_path, label) - wanted) < 12, name
        assert np.linalg.norm(centre_by_itk(found, label) - wanted) < 12, name


def test_a_full_range_ct_and_its_clipped_copy_give_the_same_organs() -> None:
    image = sample("ct").image
    full = spad.segment(image)
    clipped = image.with_array(np.clip(image.values(), -125, 275))
    assert image.values().min() < -500
    assert np.array_equal(full.array, spad.segment(clipped, modality="CT").array)
    assert (full.report or {})["labels"]["liver"]["volume_ml"] > 1000
