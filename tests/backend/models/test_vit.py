"""The transformer, its masked-image head and the classifier."""

from __future__ import annotations

import copy

import pytest
import torch

from spad.models.classifier import Classifier
from spad.models.vit import MaskedImageModel, SpatialViT

SMALL = {"in_channels": 1, "dim": 32, "depth": 3, "heads": 2, "position_grid": (2, 3, 3)}
SHAPES = [(1, 1, 1), (3, 17, 5), (17, 32, 48)]


@pytest.fixture(scope="module")
def model() -> MaskedImageModel:
    torch.manual_seed(0)
    return MaskedImageModel(SMALL, codes=16).eval()


def tokens_of(vit: SpatialViT, shape: tuple[int, int, int], da: int) -> tuple[int, int, int]:
    z, y, x = (-(-n // f) for n, f in zip(shape, vit.token_factors(da), strict=True))
    return z, y, x


@pytest.mark.parametrize("da", range(6))
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_any_shape_becomes_tokens(model: MaskedImageModel, da: int, shape: tuple[int, int, int]):
    z, y, x = tokens_of(model.vit, shape, da)
    scan = torch.rand(2, 1, *shape)
    tokens = model.vit(scan, da)
    assert tokens.shape == (2, 1 + z * y * x, 32)
    assert tokens.isfinite().all()
    masked = torch.rand(2, z * y * x) < 0.5
    assert model(scan, da, masked).shape == (2, z * y * x, 16)
    maps = model.vit.feature_maps(scan, da, (0, 2))
    assert [tuple(m.shape) for m in maps] == [(2, 32, z, y, x)] * 2


@torch.no_grad()
def test_the_last_map_is_the_tokens_before_the_norm(model: MaskedImageModel):
    scan = torch.rand(1, 1, 4, 32, 48)
    last = model.vit.feature_maps(scan, 2, (2,))[0]
    normed = model.vit.norm(last.flatten(2).transpose(1, 2))
    torch.testing.assert_close(normed, model.vit(scan, 2)[:, 1:])


@torch.no_grad()
def test_nothing_of_a_masked_token_is_seen(model: MaskedImageModel):
    scan = torch.rand(1, 1, 4, 32, 48)
    masked = torch.tensor([[False, True, False, False, False, False]])
    other = scan.clone()
    other[..., :16, 16:32] = torch.rand(4, 16, 16)
    assert torch.equal(model(scan, 2, masked), model(other, 2, masked))
    assert not torch.equal(model(scan, 2, ~masked), model(other, 2, ~masked))


@torch.no_grad()
def test_masked_tokens_keep_their_rotary_position_only(model: MaskedImageModel):
    twin = copy.deepcopy(model)
    scan, masked = torch.rand(1, 1, 4, 32, 48), torch.ones(1, 6, dtype=torch.bool)
    twin.vit.position.add_(1)
    assert torch.equal(twin(scan, 2, masked), model(scan, 2, masked))
    # rotary positions set tokens apart as soon as the sequence is not all the same
    masked[0, 0] = False
    predictions = model(scan, 2, masked)[0, 1:]
    assert (predictions[1:] - predictions[:-1]).abs().amax(1).min() > 0


@torch.no_grad()
def test_no_mask_is_the_plain_transformer(model: MaskedImageModel):
    scan = torch.rand(1, 1, 4, 32, 48)
    nothing = torch.zeros(1, 6, dtype=torch.bool)
    assert torch.equal(model.hidden(scan, 2, nothing), model.vit(scan, 2))


@torch.no_grad()
def test_a_flat_scan_gets_the_mean_of_the_position_table_over_depth(model: MaskedImageModel):
    twin = copy.deepcopy(model).vit
    scan = torch.rand(1, 1, 1, 48, 48)
    wanted = twin.embed(scan, 5)
    twin.position.copy_(twin.position.mean(2, keepdim=True).expand_as(twin.position).clone())
    torch.testing.assert_close(twin.embed(scan, 5), wanted)


def test_every_weight_gets_a_gradient(model: MaskedImageModel):
    trained = copy.deepcopy(model).train()
    masked = torch.tensor([[True, False, True, False, False, False]])
    trained(torch.rand(1, 1, 4, 32, 48), 2, masked).square().mean().backward()
    silent = [n for n, p in trained.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert silent == []


@pytest.mark.parametrize("da", [0, 3, 5])
def test_classes_come_from_the_class_token(da: int):
    model = Classifier(SMALL, classes=3).eval()
    scan = torch.rand(2, 1, 5, 20, 16)
    with torch.no_grad():
        logits = model(scan, da)
        wanted = model.head(model.vit(scan, da)[:, 0])
    assert logits.shape == (2, 3)
    assert torch.equal(logits, wanted)


@pytest.mark.parametrize("kind", [SpatialViT, MaskedImageModel, Classifier])
def test_the_architecture_builds_an_equal_model(kind: type):
    first = kind(**SMALL) if kind is SpatialViT else kind(SMALL, 4)
    twin = kind(**first.architecture)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in first.state_dict().items()
    }


def test_drop_path_leaves_out_the_last_blocks_the_most() -> None:
    vit = SpatialViT(1, dim=32, depth=3, heads=2, drop_path=1 - 1e-6)
    assert [round(block.drop_path, 3) for block in vit.blocks] == [0.0, 0.5, 1.0]
    x = torch.rand(2, 1, 16, 32, 32)
    first, _, last = vit.train().feature_maps(x, 0, (0, 1, 2))
    torch.manual_seed(0)
    second = vit.feature_maps(x, 0, (1,))[0]
    torch.testing.assert_close(vit.feature_maps(x, 0, (0,))[0], first)  # the first one stays
    assert last.shape == second.shape
    maps = vit.eval().feature_maps(x, 0, (1, 2))
    assert not torch.equal(maps[0], maps[1])
    torch.testing.assert_close(maps[1], vit.feature_maps(x, 0, (2,))[0])
