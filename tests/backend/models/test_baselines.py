"""Networks of others: size, shapes for any scan, nnU-Net's plan, and their way through a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spad.checkpoints import file
from spad.checkpoints.card import Card
from spad.errors import SpadError
from spad.models.baselines import comparable, parameters, plan, segmentation_network
from spad.models.segmenter import Segmenter
from spad.training.recipe import resolve
from spad.volumes.intensity import CT

OURS: dict[str, Any] = {
    "in_channels": 2,
    "vit": {"dim": 32, "depth": 4, "heads": 2},
    "blocks": [0, 1, 2, 3],
    "decoder_channels": [8, 16, 32, 64],
    "encoder_channels": [8, 16],
}
CLASSES = 5
OTHERS = ("dynunet", "swin_unetr")


def built(network: str) -> Any:
    return comparable({**OURS, "network": network}, CLASSES, [32, 64, 64], [3.0, 1.5, 1.5])


@pytest.mark.parametrize("network", OTHERS)
class TestEach:
    def test_logits_for_every_da_and_size(self, network: str) -> None:
        model = built(network).eval()
        for da, shape in enumerate([(33, 34, 35), (17, 40, 31), (9, 32, 64), (5, 33, 7)]):
            with torch.no_grad():
                (found,) = model(torch.rand(1, 2, *shape), da)
            assert found.shape == (1, CLASSES, *shape)
            assert found.isfinite().all()
        with torch.no_grad():
            assert model(torch.rand(2, 2, 1, 1, 1), 5)[0].shape == (2, CLASSES, 1, 1, 1)

    def test_looks_like_ours_from_outside(self, network: str) -> None:
        model = built(network)
        assert (model.in_channels, model.classes) == (2, CLASSES)
        assert all(n >= 1 and n & (n - 1) == 0 for n in model.factors(3))
        again = segmentation_network(**model.architecture)
        assert again.state_dict().keys() == model.state_dict().keys()

    def test_through_a_file(self, network: str, tmp_path: Path) -> None:
        model = built(network).eval()
        card = Card("segmenter", "other", {}, {"*": CT}, labels={1: "liver"})
        path = file.save(tmp_path / "other.safetensors", model, card)
        read, found = file.load(path, kind="segmenter")
        assert found.architecture["network"] == network
        x = torch.rand(1, 2, 16, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(read(x, 1), model(x, 1))


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_dynunet_is_about_as_large_as_ours(preset: str) -> None:
    model = resolve("segmentation", preset).model
    with torch.device("meta"):
        ours = Segmenter(classes=14, **model)
        theirs = comparable({**model, "network": "dynunet"}, 14, [64, 64, 96], [3, 3, 3])
    assert 0.75 < parameters(theirs) / parameters(ours) < 1.3


def test_coarser_heads_in_training_unless_the_crop_is_padded() -> None:
    model = built("dynunet").train()
    depth, height, width = model.factors(1)
    heads = model(torch.rand(1, 2, depth * 2, height * 2, width * 2), 1)
    assert len(heads) == len(model.heads) > 2
    sides = [head.shape[-1] for head in heads]
    assert sides == [sides[0] >> number for number in range(len(sides))]
    assert len(model(torch.rand(1, 2, depth * 2, height * 2 - 1, width * 2), 1)) == 1


@pytest.mark.parametrize(
    ("window", "spacing", "kernels", "strides"),
    [
        ([32, 32, 32], [1, 1, 1], [[3, 3, 3]] * 4, [[1, 1, 1], *[[2, 2, 2]] * 3]),
        (
            [16, 64, 64],
            [4, 1, 1],
            [[1, 3, 3], [1, 3, 3], *[[3, 3, 3]] * 3],
            [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
        ),
    ],
)
def test_plan(window: Any, spacing: Any, kernels: Any, strides: Any) -> None:
    assert plan(window, spacing) == (kernels, strides)


def test_ours_is_what_no_network_means() -> None:
    assert isinstance(comparable(OURS, CLASSES, [32, 64, 64], [1, 1, 1]), Segmenter)
    with pytest.raises(SpadError, match="expected one of spad, dynunet, swin_unetr"):
        comparable({**OURS, "network": "unet"}, CLASSES, [32, 64, 64], [1, 1, 1])


def test_without_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(SpadError, match="pip install monai"):
        built("dynunet")
