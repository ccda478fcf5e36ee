"""Segment: a box of the scan, confidence, several channels, mirror images, rules for organs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from spad.checkpoints import zoo
from spad.checkpoints.file import load, save
from spad.errors import SpadError
from spad.inference import segment as module
from spad.inference import sweep
from spad.inference.segment import organs, segment
from spad.models.segmenter import Segmenter
from spad.volumes.volume import Volume

from .conftest import SIGNED_AXES, affine_of, block_segmenter, ct_of
from .test_segment import dice, scan_with_block

pytestmark = pytest.mark.usefixtures("home")


def variant(home: Path, name: str, source: str = "block", **changes) -> str:
    """Store a model again with another card."""
    entry = zoo.find(source)
    model, card = load(entry.path)
    save(
        home / "models" / f"{name}.safetensors",
        model,
        dataclasses.replace(card, name=name, **changes),
    )
    return name


class TestBox:
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES[::19])
    def test_labels_inside_alone_and_the_same_as_of_the_whole(self, order, signs) -> None:
        scan, truth = scan_with_block(order=order, signs=signs, spacing=(3.0, 2.0, 1.5))
        box = ((4, 15), (1, 30), (20, 44))
        inner = tuple(slice(*pair) for pair in box)
        found = segment(scan, "block", box=box).array
        outside = np.ones(truth.shape, bool)
        outside[inner] = False
        assert not found[outside].any()
        assert dice(found[inner] == 1, truth[inner]) > 0.93

    def test_the_model_looks_at_no_more_than_it_needs(self, monkeypatch) -> None:
        shapes = []
        forward = Segmenter.forward

        def seen(self, x, da):
            shapes.append(tuple(x.shape[2:]))
            return forward(self, x, da)

        monkeypatch.setattr(Segmenter, "forward", seen)
        scan = ct_of((60, 150, 150), spacing=(2.0, 2.0, 2.0))
        found = segment(scan, "block", box=((20, 24), (70, 75), (140, 150)))
        assert shapes == [(60, 64, 64)]
        assert set(np.argwhere(found.array)[:, 2]) <= set(range(140, 150))

    def test_a_single_voxel_and_a_box_of_air(self) -> None:
        scan, _ = scan_with_block(spacing=(1.0, 1.0, 1.0))
        voxel = ((10, 11), (20, 21), (20, 21))
        assert np.argwhere(segment(scan, "block", box=voxel).array).tolist() in ([], [[10, 20, 20]])
        array = np.full((40, 120, 120), -1000, np.int16)
        array[:, 40:80, 40:80] = 100
        scan = Volume.from_array(array, affine_of(spacing=(4.0, 4.0, 4.0)), modality_hint="CT")
        found = organs(scan, "block", box=((0, 40), (0, 9), (0, 120)), confidence=True)
        assert not found.labels.array.any()
        assert (found.confidence.array == 100).all()

    @pytest.mark.parametrize(
        "box", [((0, 4), (0, 5)), ((0, 25), (0, 5), (0, 5)), ((3, 3), (0, 5), (0, 5))]
    )
    def test_a_box_that_does_not_lie_in_the_scan(self, box) -> None:
        scan, _ = scan_with_block()
        with pytest.raises(SpadError, match="does not lie in the scan, which has 24 x 40 x 44"):
            segment(scan, "block", box=box)


class TestConfidence:
    def test_probability_of_the_label_in_percent(self) -> None:
        scan = ct_of((20, 50, 60), spacing=(3.0, 1.5, 1.5), order=(1, 2, 0), signs=(1, -1, 1))
        found = organs(scan, "organs", confidence=True)
        sure = found.confidence
        assert sure.array.dtype == np.uint8
        assert (sure.slope, sure.label_names) == (0.01, None)
        assert np.array_equal(sure.affine, scan.affine)
        assert np.array_equal(found.labels.array, segment(scan, "organs").array)
        # the likeliest of four classes has at least a quarter
        assert 0.25 <= sure.values().min() < sure.values().max() <= 1
        assert organs(scan, "organs").confidence is None

    def test_low_at_the_border_and_high_inside(self) -> None:
        scan, _ = scan_with_block((24, 80, 90), ((2, 20), (5, 70), (3, 80)))
        sure = organs(scan, "block", confidence=True).confidence.values()
        assert sure[10, 30:50, 30:50].mean() > 0.95
        assert sure[:, 5, 30:50].mean() < sure[10, 30:50, 30:50].mean()

    def test_a_rule_leaves_none(self, home: Path) -> None:
        scan, _ = scan_with_block()
        array = scan.array.copy()
        array[1:4, 37:40, 40:44] = 200
        scan = scan.with_array(array)
        scan = dataclasses.replace(scan, modality_hint="CT")
        name = variant(home, "block-one", least_piece={1: 1.0})
        every, one = (organs(scan, model, confidence=True) for model in ("block", name))
        changed = every.labels.array != one.labels.array
        assert changed.any()
        assert (one.labels.array[changed] == 0).all()
        assert np.array_equal(one.confidence.array == 0, changed)

    def test_holes_are_filled_if_the_card_says_so(self, home: Path) -> None:
        scan, _ = scan_with_block()
        array = scan.array.copy()
        array[8:12, 18:22, 18:22] = -60
        scan = dataclasses.replace(scan.with_array(array), modality_hint="CT")
        plain = segment(scan, "block").array
        full = segment(scan, variant(home, "block-full", filled=[1])).array
        assert not plain[9:11, 19:21, 19:21].any()
        assert full[9:11, 19:21, 19:21].all()
        assert (full >= plain).all()


class TestChannels:
    @pytest.fixture
    def dual(self, home: Path) -> str:
        """A model that marks what is bright in the second of its two channels."""
        path = home / "models" / "dual.safetensors"
        if not path.exists():
            torch.manual_seed(3)
            plain, architecture = block_segmenter(), load(zoo.find("block").path)[0].architecture
            model = Segmenter(**{**architecture, "in_channels": 2})
            state = plain.state_dict()
            for key, value in model.state_dict().items():
                if value.shape != state[key].shape:
                    wide = torch.zeros_like(value)
                    wide[:, 1:2] = state[key]
                    state[key] = wide
            model.load_state_dict(state)
            _, card = load(zoo.find("block").path)
            save(
                path,
                model,
                dataclasses.replace(card, name="dual", channels=["in phase", "opposed"]),
            )
        return "dual"

    def test_two_scans_or_a_scan_with_two_channels(self, dual: str) -> None:
        second, truth = scan_with_block()
        first = ct_of(second.array.shape)
        found = segment([first, second], dual)
        assert dice(found.array == 1, truth) > 0.98
        both = np.stack([first.array, second.array])
        for axes in ("czyx", "tzyx"):
            scan = Volume.from_array(both, first.affine, axes=axes, modality_hint="CT")
            same = segment(scan, dual)
            assert (same.axes, same.array.shape) == ("zyx", second.array.shape)
            assert np.array_equal(same.array, found.array)
            measured = same.report["labels"]["block"]["mean"]
            assert measured == pytest.approx(first.array[same.array == 1].mean(), abs=0.01)

    def test_another_number_of_channels(self, dual: str) -> None:
        scan = ct_of((6, 20, 20))
        with pytest.raises(SpadError, match="has 3 channels, but the model was made for 2"):
            segment([scan, scan, scan], dual)
        with pytest.raises(SpadError, match="has 2 channels, but the model was made for 1"):
            segment([scan, scan], "block")


class TestFlips:
    def test_average_over_mirror_images(self, home: Path, monkeypatch) -> None:
        monkeypatch.setattr("spad.device.computes_bfloat16", lambda device: False)
        scan = ct_of((12, 30, 28), spacing=(3.0, 3.0, 3.0))
        name = variant(home, "mirrored", "organs", provenance={"flips": True})
        once, every = (
            organs(scan, name, confidence=True),
            organs(scan, name, flips=True, confidence=True),
        )
        assert np.mean(once.labels.array != every.labels.array) > 0.01
        # a mirrored scan has mirrored labels, which those of one pass are not
        turned = scan.with_array(scan.array[:, :, ::-1])
        turned = dataclasses.replace(turned, modality_hint="CT")
        again = segment(turned, name, flips=True).array[:, :, ::-1]
        assert np.mean(again != every.labels.array) < 0.01

    def test_refused_for_a_model_that_was_not_trained_with_them(self) -> None:
        with pytest.raises(SpadError, match="'organs' does not say that it was trained with them"):
            segment(ct_of((4, 8, 8)), "organs", flips=True)


class TestStreaming:
    def test_too_little_free_memory_halves_the_windows(self, monkeypatch) -> None:
        scan, truth = scan_with_block((70, 40, 44), ((10, 60), (5, 37), (3, 39)))
        free = sweep.psutil.virtual_memory()._replace(available=2 * 4 * 2 * 40 * 40 * 44)
        monkeypatch.setattr(sweep.psutil, "virtual_memory", lambda: free)
        labels = segment(scan, "block")
        assert labels.report["stepped_down"] == ["smaller windows"]
        assert dice(labels.array == 1, truth) > 0.9
        none = free._replace(available=0)
        monkeypatch.setattr(sweep.psutil, "virtual_memory", lambda: none)
        with pytest.raises(SpadError, match="too little memory for this scan"):
            segment(scan, "block")

    def test_long_scans_hold_one_window_of_depth(self, monkeypatch) -> None:
        deepest = []
        zeros = torch.zeros

        def note(*size, **options):
            deepest.append(size[0])
            return zeros(*size, **options)

        scan, truth = scan_with_block((400, 40, 44), ((10, 390), (5, 37), (3, 39)))
        monkeypatch.setattr(sweep.torch, "zeros", note)
        labels = segment(scan, "block")
        assert max(size[1] for size in deepest if np.ndim(size) and len(size) == 4) == 64
        assert dice(labels.array == 1, truth) > 0.95

    def test_as_of_the_whole_scan_at_once(self, monkeypatch) -> None:
        """All windows of a scan of several rows, added up on the whole grid in numpy."""
        monkeypatch.setattr("spad.device.computes_bfloat16", lambda device: False)
        scan = ct_of((70, 40, 70), spacing=(3.0, 3.0, 3.0))
        whole = {}

        def keep(self, slab, corner):
            for n in range(slab.shape[1]):
                assert corner[0] + n not in whole
                whole[corner[0] + n] = slab[:, n].clone()
            add(self, slab, corner)

        add = module.Enlarger.add
        monkeypatch.setattr(module.Enlarger, "add", keep)
        labels = segment(scan, "organs")
        assert list(whole) == list(range(70))
        p = torch.stack([whole[z] for z in range(70)], 1)
        torch.testing.assert_close(p.sum(0), torch.ones(p.shape[1:]))
        canonical = module.to_canonical(labels, depth_first=True)[0]
        assert np.mean(p.argmax(0).numpy() != canonical) < 1e-3

    def test_windows_of_air_are_not_looked_at(self, monkeypatch) -> None:
        calls = []
        forward = Segmenter.forward
        monkeypatch.setattr(
            Segmenter, "forward", lambda self, x, da: calls.append(len(x)) or forward(self, x, da)
        )
        array = np.full((8, 100, 100), -1000, np.int16)
        array[:, :, :20] = array[:, :20] = 150
        scan = Volume.from_array(array, affine_of(spacing=(3.0, 3.0, 3.0)), modality_hint="CT")
        labels = segment(scan, "organs")
        some = len(calls)
        assert not labels.array[:, 60:, 60:].any()
        segment(scan.with_array(np.maximum(array, -50)), "organs", modality="CT")
        assert some < 0.7 * (len(calls) - some)
