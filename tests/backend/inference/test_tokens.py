"""Tokenize and mask: figures, geometry, windows, hidden tokens."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spad.checkpoints import zoo
from spad.data.model_input import model_input, unit_volume
from spad.errors import Cancelled, SpadError
from spad.inference import codes
from spad.inference.codes import TokenGrid, token_grid
from spad.inference.figures import l1, psnr, ssim
from spad.inference.masks import drawn_mask, neighbour_guess
from spad.inference.models import loaded
from spad.inference.tokens import mask, tokenize
from spad.losses.masked import masked_terms
from spad.models.resize import resize
from spad.models.tokenizer import Tokenizer
from spad.progress import silent
from spad.volumes.axes import to_canonical
from spad.volumes.volume import Volume

from .conftest import CODES, SIGNED_AXES, affine_of, ct_of

pytestmark = pytest.mark.usefixtures("home")

TOKENIZE_KEYS = {
    *("model", "da", "grid", "psnr", "ssim", "l1", "l1_unit", "codes_used", "perplexity"),
    *("mean_entropy", "mean_kl_to_uniform", "position_information", "trilinear"),
    *("limits", "codes", "dead_codes", "usage", "slice_error"),
    *("device", "stepped_down", "seconds"),
}
MASK_KEYS = {
    *("model", "tokenizer", "da", "grid", "ratio", "seed", "painted", "masked", "visible"),
    *("cross_entropy", "kl", "baseline_mean", "baseline_neighbour", "l1_masked", "l1_unit"),
    *("device", "stepped_down", "seconds"),
}
STAGES = {"load", "prepare", "model", "finish", "total"}


def entry_card(name: str):
    return zoo.find(name).card


def clipped_unit(scan: Volume) -> np.ndarray:
    return (np.clip(scan.values().astype(float), -125, 275) + 125) / 400


def on_grid(shape: tuple[int, int, int]) -> TokenGrid:
    return TokenGrid(shape, (1, 1, 1), shape, 0, np.eye(4))


class TestTokenize:
    def test_report(self) -> None:
        scan = ct_of((20, 40, 50))
        result = tokenize(scan, "tok")
        report = result.report
        assert set(report) == TOKENIZE_KEYS
        assert set(report["seconds"]) == STAGES
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert (report["model"], report["da"], report["device"]) == ("tok", 0, "cpu")
        assert report["grid"] == [2, 3, 4]
        assert report["l1_unit"] == "HU"
        unit = clipped_unit(scan)
        rec = (result.reconstruction.values() + 125) / 400
        assert report["psnr"] == pytest.approx(psnr(rec, unit), abs=1e-3)
        assert report["ssim"] == pytest.approx(ssim(rec, unit), abs=1e-4)
        assert report["l1"] == pytest.approx(400 * l1(rec, unit), rel=1e-4)
        error = np.abs(result.reconstruction.values() - np.clip(scan.values(), -125, 275))
        assert np.allclose(result.error.values(), error, atol=0.01)

    def test_reconstruction_is_the_model_s_own(self) -> None:
        scan = ct_of((20, 40, 50))
        result = tokenize(scan, "tok")
        model, card = loaded("tok", "cpu")
        made = model_input(scan, card)
        with torch.inference_mode():
            logits = model.encode(made.tensor[None], 0)
            decoded = model.decode(logits.softmax(-1), 0, made.tensor.shape[-3:])
        p = logits[0].softmax(-1).numpy()
        wanted = (decoded[0, 0].numpy() * 0.5 + 0.5).clip(0, 1) * 400 - 125
        got = to_canonical(result.reconstruction, depth_first=True)[0]
        assert np.allclose(got, wanted, atol=0.01)
        assert np.array_equal(result.codes.array, p.argmax(-1))
        assert np.allclose(result.probabilities, p, atol=1e-6)
        assert np.allclose(result.entropy.array, -(p * np.log(p)).sum(-1), atol=1e-4)
        assert np.array_equal(result.entropy.affine, result.codes.affine)
        usage = p.reshape(-1, CODES).mean(0)
        entropy = -(p * np.log(p)).sum(-1).mean()
        report = result.report
        assert np.allclose(result.usage, usage, atol=1e-6)
        assert report["codes_used"] == len(np.unique(p.argmax(-1)))
        assert report["perplexity"] == pytest.approx(math.exp(-(usage * np.log(usage)).sum()), 1e-4)
        assert report["mean_entropy"] == pytest.approx(entropy, abs=1e-4)
        assert report["mean_kl_to_uniform"] == pytest.approx(math.log(CODES) - entropy, abs=1e-4)
        assert report["position_information"] is None

    def test_trilinear_is_the_scan_through_as_many_numbers_as_tokens(self) -> None:
        scan = ct_of((20, 40, 50))
        unit = torch.from_numpy(clipped_unit(scan)).float()[None, None]
        plain = resize(resize(unit, (2, 3, 4)), (20, 40, 50))[0, 0].numpy()
        found = tokenize(scan, "tok").report["trilinear"]
        assert found["psnr"] == pytest.approx(psnr(plain, unit[0, 0].numpy()), abs=1e-3)
        assert found["ssim"] == pytest.approx(ssim(plain, unit[0, 0].numpy()), abs=1e-4)
        assert found["l1"] == pytest.approx(400 * l1(plain, unit[0, 0].numpy()), rel=1e-4)

    @pytest.mark.parametrize("name", ["tok", "tok-rgb", "tok-coarse"])
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES[::6])
    def test_results_lie_on_the_scan(self, order, signs, name) -> None:
        scan = ct_of((9, 20, 33), order=order, signs=signs, tilt=0.2, spacing=(3.0, 1.0, 1.5))
        result = tokenize(scan, name)
        for volume in (result.reconstruction, result.error):
            assert volume.array.shape == scan.array.shape
            assert np.array_equal(volume.affine, scan.affine)
            assert volume.source is scan.source
            assert volume.label_names is None
        # the grid of tokens starts at a corner of the scan and covers it
        shape = np.array(result.codes.array.shape)
        to_scan = np.linalg.inv(scan.affine) @ result.codes.affine
        first = (to_scan @ (-0.5, -0.5, -0.5, 1))[:3]
        last = (to_scan @ (*(shape - 0.5), 1))[:3]
        size = np.array(scan.array.shape)
        starts = np.where(last > first, -0.5, size - 0.5)
        assert np.allclose(first, starts, atol=1e-6)
        assert (np.abs(last - first) >= size - 1e-6).all()

    def test_a_full_range_scan_and_its_clipped_copy_are_one(self) -> None:
        scan = ct_of((12, 33, 40))
        copy = scan.with_array(np.clip(scan.array, -125, 275))
        a, b = tokenize(scan, "tok"), tokenize(copy, "tok")
        assert np.array_equal(a.reconstruction.array, b.reconstruction.array)
        assert {**a.report, "seconds": 0} == {**b.report, "seconds": 0}

    @pytest.mark.parametrize("da", range(6))
    def test_every_da(self, da: int) -> None:
        scan = ct_of((3, 20, 20), spacing=(2.0**da, 1.0, 1.0))
        result = tokenize(scan, "tok")
        assert result.report["da"] == da
        assert result.report["grid"] == [-(-3 // max(16 >> da, 1)), 2, 2]
        assert np.isfinite(result.reconstruction.array).all()

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 17), (5, 1, 1)])
    def test_every_shape(self, shape) -> None:
        result = tokenize(ct_of(shape), "tok")
        assert result.reconstruction.array.shape == shape
        json.dumps(result.report, allow_nan=False)
        if shape[0] == 1:
            assert result.report["da"] == 5

    def test_one_time_of_a_series(self) -> None:
        scans = [ct_of((4, 20, 20), seed=s) for s in (1, 2)]
        series = Volume.from_array(
            np.stack([s.array for s in scans]), scans[0].affine, axes="tzyx", modality_hint="CT"
        )
        for phase, scan in enumerate(scans):
            result = tokenize(series, "tok", phase=phase)
            assert result.reconstruction.axes == "zyx"
            wanted = tokenize(scan, "tok").reconstruction.array
            assert np.array_equal(result.reconstruction.array, wanted)

    def test_nan_voxels(self) -> None:
        array = ct_of((4, 20, 20)).array.astype(np.float32)
        array[1, 2, 3:6] = np.nan
        scan = Volume.from_array(array, affine_of(), modality_hint="CT")
        result = tokenize(scan, "tok")
        assert np.isfinite(result.reconstruction.array).all()
        assert np.isfinite(result.error.array).all()

    def test_a_model_of_another_kind(self) -> None:
        with pytest.raises(SpadError, match="'mim' is a mim, but a tokenizer is needed"):
            tokenize(ct_of((2, 8, 8)), "mim")

    def test_can_be_cancelled_at_every_report(self) -> None:
        scan = ct_of((4, 20, 20))
        seen: list[float] = []
        tokenize(scan, "tok", progress=lambda fraction, text: seen.append(fraction))
        assert seen == sorted(seen)
        assert (seen[0], seen[-1]) == (0.0, 1.0)
        for when in range(len(seen)):
            left = iter(range(when))

            def stop(fraction: float, text: str, left=left) -> None:
                if next(left, None) is None:
                    raise Cancelled

            with pytest.raises(Cancelled):
                tokenize(scan, "tok", progress=stop)


class TestWindows:
    """Tokens of a scan that is larger than a window."""

    def test_position_information_is_that_of_windows_as_images(self, monkeypatch) -> None:
        monkeypatch.setattr(codes, "TOKENIZER_WINDOW", (1, 2, 2))
        monkeypatch.setattr(codes, "TOKENIZER_OVERLAP", (0, 0, 0))
        scan = ct_of((16, 32, 96))
        model, card = loaded("tok", "cpu")
        x = model_input(scan, card).tensor[None]
        with torch.inference_mode():
            parts = [model.encode(x[..., i : i + 32], 0)[0].softmax(-1) for i in (0, 32, 64)]
        p = torch.stack(parts).double()
        mean = p.mean(0)
        information = -(mean * mean.log()).sum(-1).mean() + (p * p.log()).sum(-1).mean()
        report = tokenize(scan, "tok").report
        assert report["position_information"] == pytest.approx(float(information), abs=1e-5)
        assert report["position_information"] > 0

    def test_owned_tokens_are_those_of_one_pass(self, monkeypatch) -> None:
        """Without normalisation over the window, a token depends on two tokens around it only."""
        torch.manual_seed(0)
        model = Tokenizer(1, (8, 16, 16), CODES).eval()
        for part in (model.encoder, model.decoder):
            for index, module in enumerate(part):
                if isinstance(module, nn.GroupNorm):
                    part[index] = nn.Identity()
        scan = ct_of((24, 150, 280), spacing=(3.0, 1.0, 1.0))
        unit = unit_volume(scan, entry_card("tok"))
        grid = token_grid(unit, model.token_factors(unit.da))
        assert grid.shape == (3, 10, 18)
        monkeypatch.setattr(codes, "TOKENIZER_WINDOW", grid.shape)
        whole = codes.encode(model, unit, grid, silent)
        assert whole.position_information is None
        image = codes.decode(model, whole.probabilities, unit, grid, silent)
        monkeypatch.setattr(codes, "TOKENIZER_WINDOW", (3, 8, 8))
        parts = codes.encode(model, unit, grid, silent)
        assert parts.position_information is not None
        assert np.allclose(parts.probabilities, whole.probabilities, atol=1e-6)
        blended = codes.decode(model, whole.probabilities, unit, grid, silent)
        # exact where only one window reaches, near elsewhere: a face shuts out what lies beyond it
        assert np.allclose(blended[:, :32, :48], image[:, :32, :48], atol=1e-5)
        assert np.abs(blended - image).mean() < 0.02 * image.std()
        assert np.abs(blended - image).max() < 0.4 * image.std()

    def test_windows_leave_no_seams(self, monkeypatch) -> None:
        scan = ct_of((16, 64, 300))
        monkeypatch.setattr(codes, "TOKENIZER_WINDOW", (1, 4, 8))
        image = to_canonical(tokenize(scan, "tok").reconstruction, depth_first=True)[0]
        # a step between two tokens is no larger where windows meet than elsewhere
        steps = np.abs(np.diff(image, axis=2)).mean(axis=(0, 1))[15::16]
        assert len(steps) == 18
        assert steps.max() < 2.5 * np.median(steps)

    def test_slices_of_2d_images_do_not_mix(self) -> None:
        scan = ct_of((3, 40, 40), spacing=(99.0, 1.0, 1.0))
        all_three = tokenize(scan, "tok").reconstruction.array
        for index in range(3):
            single = Volume.from_array(
                scan.array[index : index + 1], scan.affine, modality_hint="CT"
            )
            one = tokenize(single, "tok").reconstruction.array
            assert np.allclose(one[0], all_three[index], atol=0.01)


class TestMasks:
    @pytest.mark.parametrize(
        ("shape", "ratio", "visible"),
        [((5, 10, 10), 0.55, 224), ((1, 10, 10), 0.55, 44), ((1, 1, 1), 0.1, 0), ((2, 3, 4), 1, 0)],
    )
    def test_visible_tokens(self, shape, ratio, visible) -> None:
        hidden = drawn_mask(on_grid(shape), ratio, 0)
        assert hidden.shape == shape
        assert np.count_nonzero(~hidden) == visible

    def test_same_seed_same_mask(self) -> None:
        grid = on_grid((5, 10, 10))
        a, b, c = (drawn_mask(grid, 0.55, seed) for seed in (3, 3, 4))
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
        hidden_once = np.mean([drawn_mask(grid, 0.55, seed) for seed in range(200)], axis=0)
        assert 0.3 < hidden_once.min() <= hidden_once.max() < 0.8

    @pytest.mark.parametrize("ratio", [0, -0.1, 1.1, math.nan])
    def test_ratio_that_is_no_share(self, ratio) -> None:
        with pytest.raises(SpadError, match="above 0 and at most 1"):
            drawn_mask(on_grid((1, 2, 2)), ratio, 0)

    def test_neighbours_that_are_equally_near_all_count(self) -> None:
        p = np.eye(5, dtype=np.float32)[None, None]
        hidden = np.zeros((1, 1, 5), bool)
        hidden[0, 0, [1, 3, 4]] = True
        guess = neighbour_guess(p, hidden)
        assert np.allclose(guess[0], [0.5, 0, 0.5, 0, 0])
        assert np.allclose(guess[1], [0, 0, 1, 0, 0])
        assert np.allclose(guess[2], [0, 0, 1, 0, 0])


class TestMask:
    @pytest.mark.parametrize(("depth", "tokens", "visible"), [(5, 500, 224), (1, 100, 44)])
    def test_the_authors_counts(self, depth, tokens, visible) -> None:
        result = mask(ct_of((depth, 160, 160), spacing=(16.0, 1.0, 1.0)), "mim")
        assert result.report["grid"] == [depth, 10, 10]
        assert (result.report["masked"], result.report["visible"]) == (tokens - visible, visible)
        assert np.count_nonzero(result.mask.array) == tokens - visible

    def test_report_by_hand(self) -> None:
        scan = ct_of((20, 40, 90))
        result = mask(scan, "mim", ratio=0.4, seed=7)
        report = result.report
        assert set(report) == MASK_KEYS
        assert set(report["seconds"]) == STAGES
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert (report["model"], report["tokenizer"], report["grid"]) == ("mim", "tok", [2, 3, 6])
        assert (report["ratio"], report["seed"], report["painted"]) == (0.4, 7, False)
        hidden = drawn_mask(on_grid((2, 3, 6)), 0.4, 7)
        assert np.array_equal(result.mask.array, hidden)
        tokenizer, card = loaded("tok", "cpu")
        network, _ = loaded("mim", "cpu")
        x = model_input(scan, card).tensor[None]
        flat = torch.from_numpy(hidden.reshape(1, -1))
        with torch.inference_mode():
            p = tokenizer.encode(x, 0)[0].softmax(-1)
            logits = network(x, 0, flat)
            terms = masked_terms(logits, p.reshape(1, -1, CODES), flat)
            filled = p.clone()
            filled[torch.from_numpy(hidden)] = logits[flat].softmax(-1)
            decoded = tokenizer.decode(filled[None], 0, x.shape[2:])[0, 0].numpy()
        assert report["cross_entropy"] == pytest.approx(float(terms.cross_entropy), abs=1e-4)
        assert report["kl"] == pytest.approx(float(terms.divergence), abs=1e-4)
        p = p.double().numpy()
        mean = p[~hidden].mean(0)
        assert report["baseline_mean"] == pytest.approx(
            -(p[hidden] * np.log(mean)).sum(-1).mean(), abs=1e-4
        )
        near = neighbour_guess(p, hidden)
        assert report["baseline_neighbour"] == pytest.approx(
            -(p[hidden] * np.log(near)).sum(-1).mean(), abs=1e-4
        )
        wanted = (decoded * 0.5 + 0.5).clip(0, 1) * 400 - 125
        got = to_canonical(result.reconstruction, depth_first=True)[0]
        assert np.allclose(got, wanted, atol=0.01)
        voxels = hidden.repeat(16, 0).repeat(16, 1).repeat(16, 2)[:20, :40, :90]
        clipped = np.clip(to_canonical(scan, depth_first=True)[0], -125, 275)
        assert report["l1_masked"] == pytest.approx(np.abs(wanted - clipped)[voxels].mean(), 1e-3)

    def test_same_seed_same_result(self) -> None:
        scan = ct_of((8, 40, 40))
        a, b, c = (mask(scan, "mim", seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(a.mask.array, b.mask.array)
        assert np.array_equal(a.reconstruction.array, b.reconstruction.array)
        assert not np.array_equal(a.mask.array, c.mask.array)

    def test_the_mask_is_one_draw_over_all_windows(self, monkeypatch) -> None:
        scan = ct_of((8, 100, 100))
        whole = mask(scan, "mim", seed=5)
        monkeypatch.setattr(codes, "MASKING_WINDOW", (1, 3, 3))
        monkeypatch.setattr(codes, "MASKING_OVERLAP", (0, 1, 1))
        parts = mask(scan, "mim", seed=5)
        assert np.array_equal(whole.mask.array, parts.mask.array)
        assert parts.report["cross_entropy"] == pytest.approx(
            whole.report["cross_entropy"], rel=0.05
        )
        assert parts.report["cross_entropy"] != whole.report["cross_entropy"]
        assert parts.report["baseline_mean"] == whole.report["baseline_mean"]

    @pytest.mark.parametrize("da", range(6))
    def test_every_da(self, da: int) -> None:
        scan = ct_of((5, 40, 40), spacing=(2.0**da, 1.0, 1.0))
        report = mask(scan, "mim").report
        assert report["da"] == da
        tokens = int(np.prod(report["grid"]))
        assert report["visible"] == int(tokens * (1 - 0.55))
        assert report["kl"] >= 0

    def test_everything_hidden(self) -> None:
        report = mask(ct_of((1, 1, 1)), "mim").report
        assert (report["masked"], report["visible"]) == (1, 0)
        assert report["baseline_mean"] is None
        assert report["baseline_neighbour"] is None

    def test_the_masked_model_may_have_a_contract_of_its_own(self) -> None:
        scan = ct_of((8, 40, 40))
        a, b = mask(scan, "mim"), mask(scan, "mim-unit")
        assert a.report["baseline_mean"] == b.report["baseline_mean"]
        assert a.report["cross_entropy"] != b.report["cross_entropy"]

    def test_a_tokenizer_that_does_not_fit(self) -> None:
        with pytest.raises(SpadError, match="'mim-wrong' does not fit the tokenizer 'tok-other'"):
            mask(ct_of((2, 8, 8)), "mim-wrong")


class TestPaint:
    @pytest.mark.parametrize("name", ["mim", "mim-coarse"])
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES[::5])
    def test_the_token_under_a_painted_voxel_is_hidden(self, order, signs, name) -> None:
        scan = ct_of((6, 80, 110), order=order, signs=signs, tilt=0.1, spacing=(8.0, 1.0, 1.0))
        marks = np.zeros(scan.array.shape, np.uint8)
        marks[1, 20, 100] = 3
        painted = scan.with_array(marks, label_names={3: "brush"})
        result = mask(scan, name, paint=painted)
        assert result.mask.array.size > 1
        assert np.count_nonzero(result.mask.array) == 1
        world = scan.affine @ (1, 20, 100, 1)
        token = np.linalg.solve(result.mask.affine, world)[:3].round().astype(int)
        assert result.mask.array[tuple(token)] == 1
        assert result.mask.label_names == {1: "masked"}
        report = result.report
        assert (report["painted"], report["seed"], report["masked"]) == (True, None, 1)
        assert report["ratio"] == pytest.approx(1 / result.mask.array.size)

    def test_paint_whose_depth_is_another_axis(self) -> None:
        scan = ct_of((6, 50, 70), spacing=(8.0, 1.0, 1.0))
        marks = np.zeros(scan.array.shape, np.uint8)
        marks[:, 20:30, 60] = 1
        painted = scan.with_array(marks, label_names={})
        a = mask(scan, "mim", paint=painted)
        b = mask(scan, "mim", paint=painted.with_depth(0))
        assert painted.with_depth(0).array.shape != marks.shape
        assert np.array_equal(a.mask.array, b.mask.array)

    def test_paint_of_a_series(self) -> None:
        scan = ct_of((4, 20, 40))
        series = Volume.from_array(
            np.stack([scan.array] * 2), scan.affine, axes="tzyx", modality_hint="CT"
        )
        marks = np.zeros(series.array.shape, np.uint8)
        marks[0, 0, 0, 0] = marks[1, 3, 19, 39] = 1
        found = [
            mask(series, "mim", paint=series.with_array(marks, label_names={}), phase=phase)
            for phase in (0, 1)
        ]
        assert [np.argwhere(f.mask.array).tolist() for f in found] == [[[0, 0, 0]], [[0, 1, 2]]]

    def test_nothing_painted(self) -> None:
        scan = ct_of((2, 20, 20))
        empty = scan.with_array(np.zeros(scan.array.shape, np.uint8), label_names={})
        with pytest.raises(SpadError, match="Nothing is painted"):
            mask(scan, "mim", paint=empty)

    def test_painted_on_another_grid(self) -> None:
        scan = ct_of((2, 20, 20))
        marks = np.ones((2, 20, 20), np.uint8)
        moved = replace(scan, array=marks, affine=scan.affine + np.eye(4)[:, [3]] * [0, 0, 0, 1])
        moved.affine[0, 3] += 5
        for other in (Volume.from_array(marks[:, :10], affine_of()), moved):
            with pytest.raises(SpadError, match="another grid"):
                mask(scan, "mim", paint=other)
