"""The segmenter on scans of any shape, in training and in evaluation."""

from __future__ import annotations

import copy

import pytest
import torch

from spad.errors import SpadError
from spad.models.segmenter import InstanceNorm, Segmenter

VIT = {"dim": 32, "depth": 4, "heads": 2, "position_grid": (2, 3, 3)}
SMALL = {"blocks": (0, 1, 2, 3), "decoder_channels": (16, 16, 24, 24)}
SHAPES = [(1, 1, 1), (3, 17, 5), (16, 32, 40)]


def make(encoder_channels: tuple[int, ...] = (4, 8), **more: int) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(1, 5, VIT, **SMALL, encoder_channels=encoder_channels, **more)


@pytest.fixture(scope="module", params=[(4, 8), (4, 8, 16)], ids=["two", "three"])
def model(request: pytest.FixtureRequest) -> Segmenter:
    return make(request.param).eval()


@pytest.mark.parametrize("da", range(6))
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_any_shape_gets_logits_of_its_own_size(model: Segmenter, da: int, shape):
    logits = model(torch.rand(2, 1, *shape), da)
    assert [tuple(x.shape) for x in logits] == [(2, 5, *shape)]
    assert logits[0].isfinite().all()


@pytest.mark.parametrize("da", range(6))
def test_training_gives_a_head_at_each_of_four_scales(model: Segmenter, da: int):
    trained = copy.deepcopy(model).train()
    depth = trained.factors(da)[0] + 1
    logits = trained(torch.rand(1, 1, depth, 33, 20), da)
    assert logits[0].shape == (1, 5, depth, 33, 20)
    assert [tuple(x.shape[3:]) for x in logits[1:]] == [(32, 16), (16, 8), (8, 4)]
    depths = [2 * trained.factors(da)[0] // max(2**k >> da, 1) for k in (1, 2, 3)]
    assert [x.shape[2] for x in logits[1:]] == depths
    sum(x.square().mean() for x in logits).backward()
    # the transformer's own final norm is not used by the adapter, as with the authors
    silent = {n for n, p in trained.named_parameters() if p.grad is None}
    assert silent == {"vit.norm.weight", "vit.norm.bias"}


def test_the_pyramid_has_four_scales(model: Segmenter):
    with torch.no_grad():
        sides = [tuple(m.shape[3:]) for m in model.pyramid(torch.rand(1, 1, 8, 64, 32), 2)]
        depths = [m.shape[2] for m in model.pyramid(torch.rand(1, 1, 8, 64, 32), 2)]
    assert sides == [(16, 8), (8, 4), (4, 2), (2, 1)]
    assert depths == [8, 4, 2, 1]


@torch.no_grad()
def test_evaluation_and_training_agree_on_the_finest_head(model: Segmenter):
    scan = torch.rand(1, 1, 4, 32, 32)
    finest = copy.deepcopy(model).train()(scan, 3)[0]
    torch.testing.assert_close(finest, model(scan, 3)[0])


def test_instance_norm_takes_a_single_voxel_and_stays_one():
    norm = InstanceNorm(3).train()
    assert norm(torch.rand(1, 3, 1, 1, 1)).abs().max() < 1e-4
    x = torch.rand(2, 3, 4, 5, 6)
    torch.testing.assert_close(norm(x), torch.nn.InstanceNorm3d(3, affine=True)(x))


def test_the_authors_kernels_refuse_thinner_slices():
    model = make(kernel_da=2).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, 4, 32, 32), 2)[0].shape == (1, 5, 4, 32, 32)
        with pytest.raises(SpadError, match="degree of anisotropy of at least 2"):
            model(torch.rand(1, 1, 8, 32, 32), 1)


def test_encoder_widths_must_continue_as_the_decoders():
    with pytest.raises(ValueError, match="must continue"):
        make((4, 8, 12))


def test_the_architecture_builds_an_equal_model(model: Segmenter):
    twin = Segmenter(**model.architecture)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
