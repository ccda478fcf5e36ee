"""The visual tokenizer on scans of any shape."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from spad.models.tokenizer import Tokenizer

SHAPES = [(1, 1, 1), (3, 17, 5), (16, 16, 32)]


@pytest.fixture(scope="module")
def model() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(in_channels=1, channels=(16, 16, 24), codes=32).eval()


@pytest.mark.parametrize("da", range(6))
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_any_shape_comes_back(model: Tokenizer, da: int, shape: tuple[int, int, int]):
    x = torch.rand(2, 1, *shape) * 2 - 1
    reconstruction, logits, _ = model(x, da)
    factors = model.token_factors(da)
    grid = tuple(math.ceil(n / f) for n, f in zip(shape, factors, strict=True))
    assert factors == (max(16 >> da, 1), 16, 16)
    assert reconstruction.shape == x.shape
    assert logits.shape == (2, *grid, 32)
    assert reconstruction.isfinite().all()


@torch.no_grad()
def test_padding_is_that_of_repeating_the_last_voxel(model: Tokenizer):
    x = torch.rand(1, 1, 3, 20, 16) * 2 - 1
    padded = torch.nn.functional.pad(x, (0, 0, 0, 12, 0, 1), mode="replicate")
    torch.testing.assert_close(model.encode(x, 2), model.encode(padded, 2))
    torch.testing.assert_close(model(x, 2)[0], model(padded, 2)[0][..., :3, :20, :])


@torch.no_grad()
def test_a_certain_token_is_its_code(model: Tokenizer):
    probabilities = torch.zeros(1, 1, 1, 1, 32)
    probabilities[..., 7] = 1
    mixed = model.quantizer.mix(probabilities)
    assert torch.equal(mixed[0, :, 0, 0, 0], model.quantizer.codebook[7])
    half = probabilities / 2
    half[..., 3] = 0.5
    wanted = model.quantizer.codebook[[3, 7]].mean(0)
    torch.testing.assert_close(model.quantizer.mix(half)[0, :, 0, 0, 0], wanted)


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(model: Tokenizer):
    x = torch.rand(2, 1, 4, 32, 32) * 2 - 1
    together, alone = model(x, 2)[0], model(x[1:], 2)[0]
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_every_weight_gets_a_gradient(model: Tokenizer):
    trained = copy.deepcopy(model).train()
    reconstruction = trained(torch.rand(1, 1, 8, 32, 32) * 2 - 1, 2).image
    reconstruction.square().mean().backward()
    silent = [n for n, p in trained.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert silent == []


def test_evaluation_follows_training(model: Tokenizer):
    """Kernels summed before a training step must not be used after it."""
    trained = copy.deepcopy(model)
    x = torch.rand(1, 1, 2, 32, 32) * 2 - 1
    with torch.no_grad():
        before = trained.eval()(x, 3)[0]
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-2)
    (trained.train()(x, 3)[0] - x).abs().mean().backward()
    optimiser.step()
    with torch.no_grad():
        after = trained.eval()(x, 3)[0]
    torch.testing.assert_close(after, trained(x, 3)[0].detach())
    assert (after - before).abs().max() > 1e-3


def test_the_architecture_builds_an_equal_model(model: Tokenizer):
    twin = Tokenizer(**model.architecture)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
