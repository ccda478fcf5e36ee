"""Segment: labels on the source grid, which labels count, windows, figures."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import spad
from spad.checkpoints import zoo
from spad.device import Effort, inference
from spad.errors import Cancelled, SpadError
from spad.inference.models import loaded
from spad.inference.segment import segment
from spad.inference.sweep import window_side
from spad.models.segmenter import Segmenter
from spad.volumes.volume import Volume

from .conftest import BLOCK, ORGANS, SIGNED_AXES, affine_of, ct_of

pytestmark = pytest.mark.usefixtures("home")

REPORT_KEYS = {"model", "why_model", "device", "seconds", "peak_memory_mb", "labels"} | {
    "stepped_down"
}


def scan_with_block(
    shape=(24, 40, 44), box=((2, 20), (5, 37), (3, 39)), **geometry
) -> tuple[Volume, np.ndarray]:
    """A CT with a bright block in about half of it, and where the block is."""
    truth = np.zeros(shape, bool)
    truth[tuple(slice(*side) for side in box)] = True
    array = np.where(truth, 200, -60).astype(np.int16)
    return Volume.from_array(array, affine_of(**geometry), modality_hint="CT"), truth


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


class TestTooLittleMemory:
    """There is no GPU here whose memory could be too small: its errors are raised by hand."""

    def test_several_windows_at_once_give_the_same(self, monkeypatch) -> None:
        scan, _ = scan_with_block((24, 80, 90))
        monkeypatch.setattr("spad.device.computes_bfloat16", lambda device: False)
        one = segment(scan, "organs")
        several = [Effort(torch.device("cpu"), at_once=3)]
        monkeypatch.setattr("spad.device.efforts", lambda device: several)
        three = segment(scan, "organs")
        assert np.mean(one.array != three.array) < 1e-3
        assert three.report["stepped_down"] == []

    def test_smaller_windows_say_so_and_find_the_same_block(self, monkeypatch) -> None:
        scan, truth = scan_with_block((24, 80, 90), ((2, 20), (5, 70), (3, 80)))
        sizes = []
        forward = Segmenter.forward

        def small_only(self, x, da):
            sizes.append(x.shape[2:])
            if len(sizes) == 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return forward(self, x, da)

        monkeypatch.setattr(Segmenter, "forward", small_only)
        labels = segment(scan, "block")
        assert labels.report["stepped_down"] == ["smaller windows"]
        assert sizes[1].numel() < sizes[0].numel()
        assert labels.array.shape == scan.array.shape
        assert dice(labels.array == 1, truth) > 0.9


def organs_everywhere(scan: Volume, **options) -> Volume:
    return segment(scan, "organs", **options)


class TestGeometry:
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES)
    def test_labels_overlay_the_scan(self, order, signs) -> None:
        scan, truth = scan_with_block(order=order, signs=signs, tilt=0.2)
        labels = segment(scan, "block")
        assert labels.array.shape == scan.array.shape
        assert np.array_equal(labels.affine, scan.affine)
        assert labels.source is scan.source
        assert labels.label_names == BLOCK
        assert dice(labels.array == 1, truth) > 0.98

    @pytest.mark.parametrize(
        "spacing",
        [(2.0, 2.0, 2.0), (5.0, 0.9, 0.9), (0.8, 0.8, 0.8), (4.0, 5.5, 5.5), (2.0, 1.0, 1.7)],
    )
    def test_through_another_spacing(self, spacing) -> None:
        scan, truth = scan_with_block(spacing=spacing, order=(1, 2, 0))
        labels = segment(scan, "block")
        assert labels.array.shape == truth.shape
        found, wanted = (np.argwhere(a) for a in (labels.array == 1, truth))
        # not shifted, and every face within about a voxel of the working grid (2 mm)
        near = np.maximum(np.array([2.0, 2.0, 2.0]) / spacing, 1)
        assert (np.abs(found.mean(0) - wanted.mean(0)) < 0.25 * near).all()
        assert (np.abs(found.min(0) - wanted.min(0)) <= near + 0.5).all()
        assert (np.abs(found.max(0) - wanted.max(0)) <= near + 0.5).all()

    @pytest.mark.parametrize("da", range(6))
    def test_every_da(self, da: int) -> None:
        scan, truth = scan_with_block(spacing=(2.0 * 2**da, 2.0, 2.0))
        labels = segment(scan, "block")
        assert labels.report is not None
        assert labels.report["da"] == da
        assert dice(labels.array == 1, truth) > 0.98

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 30), (7, 1, 1), (2, 3, 70)])
    def test_every_shape(self, shape) -> None:
        labels = organs_everywhere(ct_of(shape))
        assert labels.array.shape == shape
        assert labels.report is not None
        json.dumps(labels.report, allow_nan=False)

    def test_a_file_written_overlays_its_scan(self, tmp_path: Path) -> None:
        shape, box = (30, 26, 18), (slice(3, 28), slice(1, 22), slice(2, 17))
        array = np.full(shape, -60, np.int16)
        array[box] = 200
        affine = affine_of(order=(0, 2, 1), signs=(-1, 1, 1), spacing=(2.0, 1.5, 4.0), tilt=0.15)
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "ct.nii.gz")
        labels = segment(spad.read(tmp_path / "ct.nii.gz"), "block")
        spad.write(labels, tmp_path / "ct_labels.nii.gz")
        written = nibabel.load(tmp_path / "ct_labels.nii.gz")
        assert np.allclose(written.affine, affine, atol=1e-5)
        assert dice(np.asarray(written.dataobj) == 1, array == 200) > 0.95

    def test_one_time_of_a_series(self) -> None:
        scans = [ct_of((6, 20, 20), seed=seed) for seed in (1, 2)]
        series = Volume.from_array(
            np.stack([s.array for s in scans]), scans[0].affine, axes="tzyx", modality_hint="CT"
        )
        for phase, scan in enumerate(scans):
            labels = organs_everywhere(series, phase=phase)
            assert labels.axes == "zyx"
            assert np.array_equal(labels.array, organs_everywhere(scan).array)
        with pytest.raises(SpadError, match="from 0 to 1"):
            organs_everywhere(series, phase=2)


class TestContract:
    def test_a_full_range_ct_and_its_clipped_copy_give_identical_labels(self) -> None:
        scan = ct_of((20, 50, 60), spacing=(3.0, 1.2, 1.2))
        assert scan.array.min() < -500
        assert scan.array.max() > 700
        copy = scan.with_array(np.clip(scan.array, -125, 275))
        a, b = organs_everywhere(scan), organs_everywhere(copy)
        assert len(np.unique(a.array)) > 2
        assert np.array_equal(a.array, b.array)

    def test_only_labels_that_count_for_the_modality(self) -> None:
        scan = ct_of((12, 30, 30))
        ct, mr = organs_everywhere(scan), organs_everywhere(scan, modality="MR")
        assert ct.label_names == ORGANS
        assert mr.label_names == {2: "liver"}
        assert set(np.unique(mr.array)) <= {0, 2}
        assert mr.report is not None
        assert list(mr.report["labels"]) == ["liver"]

    def test_probability_of_labels_that_do_not_count_goes_to_the_background(self) -> None:
        scan = ct_of((8, 24, 24), spacing=(3.0, 3.0, 3.0))
        labels = organs_everywhere(scan, modality="MR")
        model, card = loaded("organs", "cpu")
        made = spad_input(scan, card, "MR")
        with inference(torch.device("cpu")):
            p = model(made, 0)[0][0].float().softmax(0)
        wanted = torch.where(p[2] > 1 - p[2], 2, 0).numpy()
        got = np.asarray(canonical(labels))
        assert (got == wanted).mean() > 0.999

    def test_unknown_modality_is_asked_for(self) -> None:
        quiet = Volume.from_array(np.zeros((4, 8, 8), np.float32), affine_of())
        with pytest.raises(SpadError, match="--modality CT or --modality MR"):
            segment(quiet, "organs")
        with pytest.raises(SpadError, match="--modality"):
            segment(quiet)
        assert segment(quiet, "organs", modality="MR").array.shape == (4, 8, 8)

    def test_a_modality_that_the_model_does_not_know(self) -> None:
        with pytest.raises(SpadError, match="is PT, but this model was made for CT or MR"):
            organs_everywhere(ct_of((4, 8, 8)), modality="PT")

    def test_a_model_of_another_kind(self) -> None:
        with pytest.raises(SpadError, match="a segmenter is needed"):
            segment(ct_of((4, 8, 8)), "tok")


def spad_input(scan: Volume, card, modality: str) -> torch.Tensor:
    from spad.data.model_input import model_input

    return model_input(scan, card, modality).tensor[None]


def canonical(volume: Volume) -> np.ndarray:
    from spad.volumes.axes import to_canonical

    return to_canonical(volume, depth_first=True)[0]


class TestReport:
    def test_figures(self) -> None:
        scan, _ = scan_with_block(spacing=(3.0, 1.5, 2.0), tilt=0.3)
        labels = segment(scan, "block")
        report = labels.report
        assert report is not None
        assert set(report) >= REPORT_KEYS
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert set(report["seconds"]) == {"load", "prepare", "model", "finish", "total"}
        assert sum(report["seconds"].values()) <= 2 * report["seconds"]["total"] + 1e-6
        assert report["peak_memory_mb"] > 50
        inside = labels.array == 1
        found = report["labels"]["block"]
        assert found["id"] == 1
        assert found["voxels"] == inside.sum()
        assert found["volume_ml"] == pytest.approx(inside.sum() * 9 / 1000)
        assert found["mean"] == pytest.approx(scan.values()[inside].mean(), abs=0.01)
        assert found["sd"] == pytest.approx(scan.values()[inside].std(), abs=0.01)

    def test_a_label_that_is_not_found_is_reported_empty(self) -> None:
        report = segment(ct_of((1, 1, 1)), "organs").report
        assert report is not None
        assert set(report["labels"]) == set(ORGANS.values())
        empty = [one for one in report["labels"].values() if not one["voxels"]]
        assert len(empty) >= 2
        assert all(one["mean"] is None and one["volume_ml"] == 0 for one in empty)

    def test_nan_voxels_do_not_spoil_the_mean(self) -> None:
        scan, truth = scan_with_block()
        array = scan.array.astype(np.float32)
        array[10, 20, 20] = np.nan
        labels = segment(scan.with_array(array), "block")
        assert labels.report is not None
        assert labels.report["labels"]["block"]["mean"] == pytest.approx(200, abs=10)
        assert dice(labels.array == 1, truth) > 0.97

    def test_why_this_model(self) -> None:
        scan = ct_of((4, 8, 8))
        report = segment(scan, "organs", modality="CT").report
        assert report is not None
        assert report["why_model"] == "The model organs was asked for; the scan is CT, as stated."
        unnamed = Volume.from_array(scan.array - 500, scan.affine)
        report = segment(unnamed).report
        assert report is not None
        name = zoo.default("segmenter", "CT").name
        assert report["model"] == name
        assert report["why_model"] == (
            f"The model {name} is the default for CT; the scan is CT, by its intensities."
        )


class TestWindows:
    def test_windows_join_without_seams(self) -> None:
        scan, truth = scan_with_block(shape=(30, 110, 150), box=((4, 26), (8, 95), (10, 130)))
        seen: list[str] = []
        labels = segment(scan, "block", progress=lambda fraction, text: seen.append(text))
        assert any(text.startswith("Window 6 of") for text in seen)
        inner = labels.array[6:24, 12:91, 14:126]
        assert (inner == 1).mean() > 0.95
        assert dice(labels.array == 1, truth) > 0.9

    def test_the_window_s_depth_follows_the_anisotropy(self) -> None:
        model, card = loaded("organs", "cpu")
        sides = [window_side(card, model.factors(da), da) for da in range(6)]
        assert [side[0] for side in sides] == [32, 16, 8, 4, 2, 1]
        assert all(side[1:] == [32, 32] for side in sides)

    def test_air_around_the_body_takes_no_time(self) -> None:
        array = np.full((40, 120, 120), -1000, np.int16)
        array[:, 40:80, 40:80] = ct_of((40, 40, 40)).array.clip(-50, 400)
        scan = Volume.from_array(array, affine_of(spacing=(4.0, 4.0, 4.0)), modality_hint="CT")

        def windows(volume: Volume) -> int:
            seen: list[str] = []
            labels = organs_everywhere(volume, progress=lambda fraction, text: seen.append(text))
            assert not labels.array[:, :10].any() or volume is not scan
            return int(next(text for text in seen if " of " in text).split()[-1])

        full = scan.with_array(np.maximum(array, 0))
        assert windows(scan) < windows(full) / 2


class TestCancel:
    def test_at_every_report(self, home: Path) -> None:
        scan = ct_of((24, 40, 40), spacing=(3.0, 3.0, 3.0))
        before = sorted(home.rglob("*"))
        seen: list[float] = []
        organs_everywhere(scan, progress=lambda fraction, text: seen.append(fraction))
        assert seen == sorted(seen)
        assert (seen[0], seen[-1]) == (0.0, 1.0)
        for when in range(0, len(seen), 2):
            left = iter(range(when))

            def stop(fraction: float, text: str, left=left) -> None:
                if next(left, None) is None:
                    raise Cancelled

            with pytest.raises(Cancelled):
                organs_everywhere(scan, progress=stop)
        assert sorted(home.rglob("*")) == before
