"""Real scans as layers: true values at true places, labels over their organs, exactly back."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from napari.layers import Layer

from napari_spad.layers import label_names, volume_of
from napari_spad.reader import read_layer
from napari_spad.writer import write_labels

CASES = [("btcv", "0005", "CT", 0), ("chaos_t2", "10", "MR", 2)]


@pytest.mark.parametrize(("folder", "case", "modality", "da"), CASES)
def test_scan_and_labels(shared_data, tmp_path, folder, case, modality, da):
    paths = [shared_data / folder / f"{kind}{case}.nii.gz" for kind in ("img", "label")]
    scan, labels = (Layer.create(*read_layer(path)) for path in paths)
    volume = volume_of(scan)
    assert (volume.modality, volume.da) == (modality, da)

    image = nibabel.load(paths[0])
    values = image.get_fdata()
    rng = np.random.default_rng(0)
    for index in rng.integers(0, image.shape, (20, 3)):
        r, a, s = (image.affine @ [*index, 1])[:3]
        place = np.rint(scan.world_to_data((-s, -a, -r))).astype(int)
        assert scan.data[tuple(place)] == pytest.approx(values[tuple(index)], abs=1e-3)

    marks = np.asarray(nibabel.load(paths[1]).dataobj)
    for label, name in label_names({"features": labels.features}).items():
        wanted = values[marks == label]
        found = np.asarray(scan.data)[np.asarray(labels.data) == label]
        assert len(found) == len(wanted), name
        if len(wanted):
            assert found.mean() == pytest.approx(wanted.mean(), abs=1e-3), name

    data, attributes, _ = labels.as_layer_data_tuple()
    write_labels(str(tmp_path / "out.nii.gz"), data, attributes)
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asarray(out.dataobj), marks)
    assert np.allclose(out.affine, nibabel.load(paths[1]).affine)


def test_liver_is_on_the_left_of_the_picture_and_above_the_kidneys(shared_data):
    for folder, case, _, _ in CASES:
        labels = Layer.create(*read_layer(shared_data / folder / f"label{case}.nii.gz"))
        ids = {name: label for label, name in label_names({"features": labels.features}).items()}
        data = np.asarray(labels.data)
        liver, spleen, kidney = (
            np.argwhere(data == ids[name]).mean(axis=0)
            for name in ("liver", "spleen", "right_kidney")
        )
        assert liver[2] < data.shape[2] / 2 < spleen[2]
        assert liver[0] < kidney[0]
        assert liver[1] < kidney[1]
