"""Tokens decoded otherwise: temperature, top-k, one slice, one code alone, colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spad.checkpoints import zoo
from spad.errors import Cancelled, SpadError
from spad.inference.codes import sharpened, slab_of, stoppable
from spad.inference.decoding import alone, decode, decode_slice
from spad.inference.models import loaded
from spad.inference.sight import depth_first_axis
from spad.inference.tokens import tokenize
from spad.volumes.axes import to_canonical
from spad.volumes.volume import Volume

from .conftest import CODES, SIGNED_AXES, affine_of, ct_of
from .test_tokens import on_grid

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in float32 on every machine."""
    monkeypatch.setattr("spad.device.computes_bfloat16", lambda device: False)


def picture(shape=(3, 1, 40, 50), dtype=np.uint8) -> Volume:
    rng = np.random.default_rng(3)
    high = np.iinfo(dtype).max
    array = rng.integers(0, high, shape, dtype=dtype, endpoint=True)
    return Volume.from_array(array, affine_of(), axes="czyx", rgb=True)


class TestSharpened:
    def test_temperature_is_a_power(self) -> None:
        p = np.random.default_rng(0).dirichlet(np.ones(9), (2, 3)).astype(np.float32)
        for t in (0.3, 2.0):
            wanted = p ** (1 / t)
            wanted /= wanted.sum(-1, keepdims=True)
            assert np.allclose(sharpened(p, t, None), wanted, atol=1e-6)
        assert sharpened(p, 1.0, None) is p
        assert sharpened(p, 1.0, 9) is p

    def test_top_k_keeps_the_likeliest(self) -> None:
        p = np.array([[0.1, 0.4, 0.2, 0.3]], np.float32)
        assert np.allclose(sharpened(p, 1.0, 2), [[0, 0.4 / 0.7, 0, 0.3 / 0.7]])
        assert np.allclose(sharpened(p, 1.0, 1), [[0, 1, 0, 0]])

    def test_cold_and_tiny_probabilities_stay_numbers(self) -> None:
        p = np.array([[1 - 2e-30, 1e-30, 1e-30]], np.float32)
        assert np.allclose(sharpened(p, 0.01, None), [[1, 0, 0]])
        assert np.allclose(sharpened(p, 100.0, None).sum(), 1)
        assert sharpened(p, 100.0, None)[0, 1] == pytest.approx(0.25, abs=0.02)

    @pytest.mark.parametrize(("t", "k"), [(0, None), (-1, None), (np.nan, None), (1, 0)])
    def test_nonsense_is_refused(self, t, k) -> None:
        with pytest.raises(SpadError, match="temperature"):
            sharpened(np.ones((1, 2), np.float32) / 2, t, k)


class TestDecode:
    def test_unchanged_tokens_give_the_tokenization(self) -> None:
        scan = ct_of((20, 40, 50))
        made = tokenize(scan, "tok")
        again = decode(scan, made.probabilities, "tok")
        assert np.allclose(again.reconstruction.array, made.reconstruction.array, atol=1e-3)
        assert np.allclose(again.error.array, made.error.array, atol=1e-3)
        for key in ("psnr", "l1", "mean_entropy"):
            assert again.report[key] == pytest.approx(made.report[key], rel=1e-4)
        assert again.reconstruction.source is scan.source

    def test_one_code_each_is_the_decoding_of_the_likeliest(self) -> None:
        scan = ct_of((20, 40, 50))
        made = tokenize(scan, "tok")
        found = decode(scan, made.probabilities, "tok", top_k=1)
        hard = np.eye(CODES, dtype=np.float32)[made.codes.array]
        wanted = decode(scan, hard, "tok")
        assert np.allclose(found.reconstruction.array, wanted.reconstruction.array, atol=1e-3)
        assert found.report["mean_entropy"] == 0
        assert found.report["top_k"] == 1

    def test_tokens_of_another_scan_are_refused(self) -> None:
        made = tokenize(ct_of((20, 40, 50)), "tok")
        with pytest.raises(SpadError, match="tokenize the scan"):
            decode(ct_of((20, 60, 50)), made.probabilities, "tok")


class TestSlice:
    @pytest.mark.parametrize(("order", "signs"), SIGNED_AXES[::7])
    @pytest.mark.parametrize("name", ["tok", "tok-coarse"])
    def test_a_slice_is_that_of_the_whole(self, order, signs, name) -> None:
        # at most three tokens along each axis: a slab of them is all there is
        scan = ct_of((12, 35, 44), order=order, signs=signs, spacing=(3.0, 1.0, 1.0))
        made = tokenize(scan, name)
        whole = decode(scan, made.probabilities, name, 0.5).reconstruction
        view, _ = to_canonical(whole, depth_first=False)
        for axis in range(3):
            index = view.shape[axis] * 2 // 3
            found = decode_slice(
                scan, made.probabilities, name, axis, index, made.report["limits"], 0.5
            )
            wanted = view.take(index, axis=axis)
            assert found.shape == wanted.shape
            assert np.allclose(found, wanted, atol=0.02)

    def test_a_slab_holds_the_slice_and_its_neighbours(self) -> None:
        grid = on_grid((9, 4, 4))
        part, tokens, at = slab_of(grid, 0, 5, 1)
        assert (part.shape, part.size) == ((3, 4, 4), (3, 4, 4))
        assert (tokens, at) == (slice(4, 7), 1)
        part, tokens, at = slab_of(grid, 0, 8, 1)
        assert (part.shape[0], tokens, at) == (2, slice(7, 9), 1)

    def test_the_screen_s_axes_find_those_of_the_model(self) -> None:
        for order, signs in SIGNED_AXES:
            scan = ct_of((5, 6, 7), order=order, signs=signs)
            first, _ = to_canonical(scan, depth_first=True)
            screen, _ = to_canonical(scan, depth_first=False)
            for axis in range(3):
                assert first.shape[depth_first_axis(scan, axis)] == screen.shape[axis]


class TestAlone:
    def test_each_code_is_a_token_of_its_own(self) -> None:
        tiles = alone("tok", 1, "CT")
        model, card = loaded("tok", "cpu")
        size = model.token_factors(1)
        assert tiles.shape == (CODES, *size)
        p = torch.zeros(1, 1, 1, 1, CODES)
        p[..., 7] = 1
        with torch.inference_mode():
            wanted = model.decode(p, 1, size)[0, 0].numpy()
        wanted = np.clip(card.intensity["CT"].from_model(wanted), 0, 1)
        assert np.allclose(tiles[7], wanted, atol=1e-5)

    def test_colours(self) -> None:
        tiles = alone("tok-rgb", 5, rgb=True)
        assert tiles.shape == (CODES, 1, 16, 16, 3)
        assert np.allclose(tiles.mean(-1), alone("tok-rgb", 5), atol=0.2)
        with pytest.raises(SpadError, match="no colours"):
            alone("tok", 5, rgb=True)


class TestColours:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_the_three_colours_are_the_three_channels(self, dtype) -> None:
        scan = picture(dtype=dtype)
        made = tokenize(scan, "tok-rgb")
        model, _ = loaded("tok-rgb", "cpu")
        high = np.iinfo(dtype).max
        contract = zoo.find("tok-rgb").card.intensity["*"]
        x = torch.from_numpy(contract.to_model(scan.array / high))
        with torch.inference_mode():
            p = model.probabilities(x[None], 5)
            back = model.decode(p, 5, (1, 40, 50))[0].numpy()
        wanted = np.clip(contract.from_model(back), 0, 1) * high
        assert made.report["da"] == 5
        assert made.reconstruction.rgb
        assert made.reconstruction.array.dtype == dtype
        assert np.allclose(made.reconstruction.array, wanted, atol=0.002 * high + 0.51)
        error = np.abs(wanted - scan.array).mean(0)
        assert made.error.array.shape == scan.spatial_shape
        assert np.allclose(made.error.array, error, atol=0.002 * high)
        assert made.report["l1"] == pytest.approx(error.mean(), rel=1e-3)
        assert made.report["l1_unit"] == "1"

    def test_decoding_again_and_slices(self) -> None:
        scan = picture()
        made = tokenize(scan, "tok-rgb")
        again = decode(scan, made.probabilities, "tok-rgb")
        gap = again.reconstruction.array.astype(int) - made.reconstruction.array
        assert np.abs(gap).max() <= 1
        found = decode_slice(scan, made.probabilities, "tok-rgb", 0, 0, made.report["limits"])
        view, _ = to_canonical(again.reconstruction, depth_first=False)
        assert np.abs(found - view[:, 0]).max() <= 0.6

    def test_a_model_of_one_channel_refuses(self) -> None:
        with pytest.raises(SpadError, match="takes 1 channel; choose a tokenizer of three"):
            tokenize(picture(), "tok")


def test_a_job_can_be_stopped_between_two_layers() -> None:
    model, _ = loaded("tok", "cpu")
    heard = []

    def progress(fraction: float, text: str) -> None:
        heard.append(fraction)
        if len(heard) == 3:
            raise Cancelled("Stopped.")

    x = torch.zeros(1, 1, 8, 32, 32)
    with torch.inference_mode(), pytest.raises(Cancelled), stoppable(model, progress, "x"):
        model.encode(x, 0)
    assert heard == sorted(heard)
    assert len(heard) == 3
    model.encode(x, 0)
    assert len(heard) == 3


def test_the_report_tells_the_error_of_every_slice_and_the_use_of_every_code() -> None:
    scan = ct_of((20, 40, 50), order=(0, 2, 1), signs=(1, -1, 1))
    made = tokenize(scan, "tok")
    view, _ = to_canonical(made.error, depth_first=False)
    lines = made.report["slice_error"]
    assert list(lines) == ["S-I", "A-P", "R-L"]
    for axis, name in enumerate(lines):
        others = tuple({0, 1, 2} - {axis})
        assert np.allclose(lines[name], view.mean(axis=others), atol=1e-3)
    assert np.allclose(made.report["usage"], made.usage)
    dead = set(made.report["dead_codes"])
    assert dead == set(range(CODES)) - set(np.unique(made.codes.array).tolist())
    assert made.report["limits"] == [-125.0, 275.0]
