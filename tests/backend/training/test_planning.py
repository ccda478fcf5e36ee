"""What the scans choose: spacing, crop, range of CT, written where a person sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from spad.data.folder import read_folder
from spad.training.planning import planned
from spad.training.recipe import resolve
from spad.training.start import train
from spad.volumes.files import write
from spad.volumes.volume import Volume

from .conftest import SMALL


def planned_data(folder: Path, **overrides: str) -> dict[str, object]:
    recipe = resolve("folder", "tiny", {"init": "null", **overrides})
    return vars(planned(recipe, [read_folder(folder)]).data)


def test_thick_coarse_scans_are_seen_at_their_own_spacing(folder: Path) -> None:
    data = planned_data(folder)
    assert data["in_plane_mm"] == 5.8  # the preset's 2 mm would only invent voxels
    assert data["window"] == [64, 64, 64]  # 288 x 371 x 371 mm in voxels of 5.8 mm, at most 64
    assert data["ct_range"] == [-125.0, 275.0]
    assert data["plan"] is False
    found = data["found"]
    assert isinstance(found, dict)
    assert found["median_spacing_mm"] == [9.0, 5.8, 5.8]
    assert found["scans_looked_at"] == 2  # those for training
    assert found["scans_with_label"]["liver"] == 2
    assert found["modalities"] == {"CT": 2}


def test_small_structures_are_seen_finer_than_the_preset(tmp_path: Path) -> None:
    _write_ct(tmp_path, spacing=0.7, shape=(40, 48, 44), values=(-60, 60))
    data = planned_data(tmp_path)
    assert data["in_plane_mm"] == 0.7
    assert data["window"] == [64, 64, 64]


def test_the_range_of_ct_holds_what_is_labelled(tmp_path: Path) -> None:
    _write_ct(tmp_path, spacing=2.0, shape=(40, 48, 44), values=(300, 1500))
    low, high = planned_data(tmp_path)["ct_range"]  # type: ignore[misc]
    assert low == -125.0
    assert 1400 < high < 1460  # of 300 to 1500, the upper twentieth is left out


def test_a_run_keeps_the_plan_in_its_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    keys = {**SMALL["segmentation"], "data.in_plane_mm": "9.0", "init": "null"}
    run = train("folder", [folder], tmp_path / "run", steps=1, overrides=keys)
    resolved = yaml.safe_load((run / "recipe.yaml").read_text())
    assert resolved["data"]["found"]["median_spacing_mm"] == [9.0, 5.8, 5.8]
    assert resolved["data"]["in_plane_mm"] == 7.73  # 371 mm / (1.5 * 32 voxels)


def _write_ct(
    path: Path, spacing: float, shape: tuple[int, int, int], values: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        array = rng.integers(-1000, -900, shape).astype(np.int16)
        labels = np.zeros(shape, np.uint8)
        labels[10:20, 10:30, 10:30] = 1
        array[labels > 0] = rng.integers(*values, int(labels.sum()))
        affine = np.diag([-spacing, -spacing, -spacing, 1.0])[:, [2, 1, 0, 3]]
        write(Volume.from_array(array, affine), path / f"img{number}.nii.gz")
        named = Volume.from_array(labels, affine, label_names={1: "bone"})
        write(named, path / f"label{number}.nii.gz")
    (path / "labels.json").write_text('{"1": "bone"}')
