"""Label figures against MONAI's own functions, and the rules for what is absent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy.ndimage import gaussian_filter

from spad.errors import SpadError
from spad.evaluation import metrics
from spad.evaluation.metrics import FIGURES, compare_masks, evaluate
from spad.volumes.volume import Volume

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (0.1, 0.3, 2.5), (7.7, 1.25, 1.25)]


def blobs(seed: int, shape: tuple[int, ...], share: float = 0.3) -> np.ndarray:
    """A random smooth mask."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return noise > np.quantile(noise, 1 - share)


def labels(
    array: np.ndarray,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    names: dict[int, str] | None = None,
) -> Volume:
    return Volume.from_array(array, np.diag([*spacing, 1.0]), label_names=names or {})


def by_monai(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> dict[str, float]:
    a, b = (torch.from_numpy(mask)[None, None] for mask in (prediction, reference))
    options = {"include_background": True, "spacing": spacing}
    return {
        "dice": compute_dice(a, b, include_background=True, ignore_empty=False).item(),
        "assd": compute_average_surface_distance(a, b, symmetric=True, **options).item(),
        "hd": compute_hausdorff_distance(a, b, **options).item(),
        "hd95": compute_hausdorff_distance(a, b, percentile=95, **options).item(),
        "nsd_1mm": compute_surface_dice(a, b, [1.0], use_subvoxels=False, **options).item(),
        "nsd_3mm": compute_surface_dice(a, b, [3.0], use_subvoxels=False, **options).item(),
    }


class TestAgainstMonai:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_random_blobs(self, seed: int, spacing: tuple[float, ...]) -> None:
        shape = (12, 31, 26)
        a, b = blobs(seed, shape), blobs(seed + 100, shape, 0.15) | blobs(seed, shape, 0.2)
        assert compare_masks(a, b, spacing) == pytest.approx(by_monai(a, b, spacing), abs=1e-4)

    def test_equal_masks(self) -> None:
        mask = blobs(1, (10, 20, 20))
        found = compare_masks(mask, mask, (2.0, 1.0, 1.0))
        assert found == {"dice": 1, "assd": 0, "hd": 0, "hd95": 0, "nsd_1mm": 1, "nsd_3mm": 1}

    def test_masks_that_do_not_touch(self) -> None:
        a, b = np.zeros((2, 8, 20, 20), bool)
        a[1:3, 2:6, 2:6], b[5:7, 12:18, 12:18] = True, True
        spacing = (3.0, 0.7, 0.9)
        assert compare_masks(a, b, spacing) == pytest.approx(by_monai(a, b, spacing), abs=1e-4)

    def test_one_voxel_and_the_edge_of_the_grid(self) -> None:
        a, b = np.zeros((2, 6, 9, 9), bool)
        a[0, 0, 0] = True
        b[0:4, 0:5, 0:9] = True
        spacing = (4.0, 1.0, 1.0)
        assert compare_masks(a, b, spacing) == pytest.approx(by_monai(a, b, spacing), abs=1e-4)

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_single_voxels(self, spacing: tuple[float, ...]) -> None:
        a, b = np.zeros((2, 6, 9, 11), bool)
        a[0, 0, 10] = b[5, 8, 2] = True
        assert compare_masks(a, b, spacing) == pytest.approx(by_monai(a, b, spacing), abs=1e-4)

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_the_whole_grid(self, spacing: tuple[float, ...]) -> None:
        a, b = np.ones((8, 14, 13), bool), blobs(2, (8, 14, 13))
        for pair in ((a, b), (b, a)):
            expected = by_monai(*pair, spacing)
            assert compare_masks(*pair, spacing) == pytest.approx(expected, abs=1e-4)

    def test_in_several_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = blobs(5, (12, 31, 26), 0.5), blobs(6, (12, 31, 26), 0.5)
        spacing = (2.5, 0.7, 0.7)
        alone = compare_masks(a, b, spacing)
        monkeypatch.setattr(metrics, "_WORTH_THREADS", 0)
        assert compare_masks(a, b, spacing) == alone

    def test_absent_from_one(self) -> None:
        a, b = blobs(1, (6, 12, 12)), np.zeros((6, 12, 12), bool)
        for pair in ((a, b), (b, a)):
            expected = by_monai(*pair, (3.0, 1.0, 1.0))
            defined = {f: v if np.isfinite(v) else None for f, v in expected.items()}
            assert compare_masks(*pair, (3.0, 1.0, 1.0)) == defined

    def test_a_single_slice(self) -> None:
        a, b = blobs(3, (1, 40, 40)), blobs(4, (1, 40, 40))
        spacing = (5.0, 0.5, 0.5)
        assert compare_masks(a, b, spacing) == pytest.approx(by_monai(a, b, spacing), abs=1e-4)

    def test_distance_equal_to_the_tolerance_counts(self) -> None:
        a, b = np.zeros((2, 1, 1, 40), bool)
        a[..., 0], b[..., 30] = True, True
        spacing = (1.0, 1.0, 0.1)
        assert compare_masks(a, b, spacing)["nsd_3mm"] == 1.0
        assert by_monai(a, b, spacing)["nsd_3mm"] == 1.0

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_several_labels_at_once(self, spacing: tuple[float, float, float]) -> None:
        rng = np.random.default_rng(0)
        a = gaussian_filter(rng.normal(size=(10, 30, 30)), 2)
        b = a + gaussian_filter(rng.normal(size=a.shape), 2) / 3
        edges = np.quantile(a, [0.4, 0.7, 0.9])
        predicted, expected = (np.digitize(x, edges).astype(np.uint8) for x in (a, b))
        found = evaluate(labels(predicted, spacing), labels(expected, spacing))
        assert list(found["labels"]) == ["1", "2", "3"]
        for label, figures in found["labels"].items():
            pair = predicted == int(label), expected == int(label)
            assert figures == pytest.approx(by_monai(*pair, spacing), abs=1e-4)
        for figure in FIGURES:
            mean = np.mean([figures[figure] for figures in found["labels"].values()])
            assert found["mean"][figure] == pytest.approx(mean)


class TestAbsentLabels:
    def test_rules(self) -> None:
        predicted, expected = np.zeros((2, 4, 12, 12), np.uint8)
        predicted[1:3, 2:6, 2:6] = expected[1:3, 2:6, 2:7] = 1
        predicted[0, 9, 9] = 2
        expected[3, 10, 10] = 3
        names = {1: "liver", 2: "spleen", 3: "aorta", 4: "pancreas"}
        found = evaluate(labels(predicted, names=names), labels(expected, names=names))
        nothing = {
            "dice": 0.0,
            "assd": None,
            "hd": None,
            "hd95": None,
            "nsd_1mm": 0.0,
            "nsd_3mm": 0.0,
        }
        assert set(found["labels"]) == {"liver", "spleen", "aorta"}
        assert found["labels"]["spleen"] == found["labels"]["aorta"] == nothing
        liver = found["labels"]["liver"]
        assert found["mean"]["dice"] == pytest.approx(liver["dice"] / 3)
        assert found["mean"]["nsd_1mm"] == pytest.approx(liver["nsd_1mm"] / 3)
        assert found["mean"]["hd"] == liver["hd"]

    def test_no_label_at_all(self) -> None:
        empty = labels(np.zeros((3, 4, 5), np.uint8))
        found = evaluate(empty, empty)
        assert found["labels"] == {}
        assert set(found["mean"].values()) == {None}


class TestMatching:
    def test_by_name_where_both_have_names(self) -> None:
        predicted, expected = np.zeros((2, 4, 8, 8), np.uint8)
        predicted[1:3, 2:6, 2:6] = 7
        expected[1:3, 2:6, 2:6] = 6
        ours, theirs = {7: "liver"}, {6: "liver"}
        found = evaluate(labels(predicted, names=ours), labels(expected, names=theirs))
        assert found["matched_by"] == "name"
        assert found["labels"]["liver"]["dice"] == 1.0

    def test_by_id_where_one_has_no_names(self) -> None:
        array = np.zeros((4, 8, 8), np.uint8)
        array[1:3, 2:6, 2:6] = 6
        found = evaluate(labels(array), labels(array, names={6: "liver"}))
        assert found["matched_by"] == "id"
        assert found["labels"]["liver"]["dice"] == 1.0

    def test_by_id_where_none_has_names(self) -> None:
        array = np.zeros((4, 8, 8), np.uint8)
        array[1:3, 2:6, 2:6] = 6
        assert list(evaluate(labels(array), labels(array))["labels"]) == ["6"]

    @pytest.mark.parametrize("ids", [(3, 9), (-7, 4), (70_000, 2_000_000_000)])
    def test_ids_of_any_size(self, ids: tuple[int, int]) -> None:
        predicted, expected = np.zeros((2, 4, 8, 8), np.int32)
        for value, column in zip(ids, (1, 5), strict=True):
            predicted[:, 2:6, column : column + 2] = value
            expected[:, 2:6, column : column + 3] = value
        found = evaluate(labels(predicted), labels(expected))
        assert {name: figures["dice"] for name, figures in found["labels"].items()} == {
            str(value): pytest.approx(0.8) for value in ids
        }

    def test_two_ids_of_one_name(self) -> None:
        predicted, expected = np.zeros((2, 4, 8, 8), np.uint8)
        predicted[:, :4], predicted[:, 4:] = 1, 2
        expected[:] = 5
        found = evaluate(
            labels(predicted, names={1: "lung", 2: "lung"}), labels(expected, names={5: "lung"})
        )
        assert found["labels"]["lung"]["dice"] == 1.0


class TestGrids:
    def test_voxel_unit_ignores_the_spacing(self) -> None:
        a, b = np.zeros((2, 4, 20, 20), np.uint8)
        a[1:3, 2:6, 2:6], b[1:3, 4:8, 2:6] = 1, 1
        spacing = (5.0, 0.5, 0.5)
        millimetres = evaluate(labels(a, spacing), labels(b, spacing))["labels"]["1"]
        voxels = evaluate(labels(a, spacing), labels(b, spacing), "voxel")["labels"]["1"]
        assert millimetres["hd"] == pytest.approx(1.0)
        assert voxels["hd"] == pytest.approx(2.0)
        expected = by_monai(a == 1, b == 1, (1.0, 1.0, 1.0))
        assert voxels == pytest.approx(expected, abs=1e-4)

    def test_another_shape(self) -> None:
        with pytest.raises(SpadError, match="7 x 8 x 4 voxels, the reference 8 x 8 x 4"):
            evaluate(labels(np.ones((4, 8, 7), np.uint8)), labels(np.ones((4, 8, 8), np.uint8)))

    @pytest.mark.parametrize(("shift", "fits"), [(5e-4, True), (5e-3, False)])
    def test_another_affine(self, shift: float, fits: bool) -> None:
        array = np.ones((4, 8, 8), np.uint8)
        affine = np.diag([2.0, 1.0, 1.0, 1.0])
        moved = affine.copy()
        moved[0, 3] += shift
        a, b = (Volume.from_array(array, m, label_names={}) for m in (affine, moved))
        if fits:
            assert evaluate(a, b)["mean"]["dice"] == 1.0
        else:
            with pytest.raises(SpadError, match=r"affines differ by up to 0\.005"):
                evaluate(a, b)

    def test_same_file_grid_with_another_depth(self) -> None:
        rng = np.random.default_rng(0)
        a, b = (labels((rng.random((6, 7, 8)) > 0.5).astype(np.uint8), (1, 2, 3)) for _ in "ab")
        turned = a.with_depth(0)
        assert turned.array.shape == (8, 7, 6)
        assert evaluate(turned, b)["labels"] == evaluate(a, b)["labels"]

    def test_an_image_is_refused(self) -> None:
        image = Volume.from_array(np.full((2, 3, 4), 0.5, np.float32), np.eye(4))
        with pytest.raises(SpadError, match="The prediction holds voxels that are not whole"):
            evaluate(image, labels(np.ones((2, 3, 4), np.uint8)))

    def test_several_times_are_refused(self) -> None:
        moving = Volume.from_array(
            np.ones((2, 2, 3, 4), np.uint8), np.eye(4), axes="tzyx", label_names={}
        )
        with pytest.raises(SpadError, match="one time point"):
            evaluate(moving, labels(np.ones((2, 3, 4), np.uint8)))

    def test_scaled_labels_are_read_by_their_values(self) -> None:
        stored = np.array([[[0, 2, 4]]], np.uint8)
        scaled = dataclasses.replace(labels(stored), slope=0.5)
        found = evaluate(scaled, labels(np.array([[[0, 1, 2]]], np.uint8)))
        assert {name: figures["dice"] for name, figures in found["labels"].items()} == {
            "1": 1.0,
            "2": 1.0,
        }
