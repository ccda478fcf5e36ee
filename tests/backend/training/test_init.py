"""Starting from a model: equal weights, heads by the names of labels, kernels by channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spad.checkpoints import file
from spad.checkpoints.card import Card
from spad.data.cohort import model_contracts
from spad.errors import SpadError
from spad.models.segmenter import Segmenter
from spad.training.optimisers import parameter_groups
from spad.training.start import start_from

ARCHITECTURE = {
    "vit": {"dim": 32, "depth": 4, "heads": 2},
    "blocks": [0, 1, 2, 3],
    "decoder_channels": [8, 8, 16, 16],
    "encoder_channels": [8, 8, 8],
}


def segmenter(classes: int, channels: int = 1) -> Segmenter:
    return Segmenter(channels, classes, **ARCHITECTURE)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> tuple[Segmenter, str]:
    model = segmenter(4)
    labels = {1: "spleen", 2: "liver", 3: "aorta"}
    card = Card("segmenter", "source", model.architecture, model_contracts(), labels=labels)
    file.save(tmp_path / "source.safetensors", model, card)
    return model, str(tmp_path / "source.safetensors")


def test_heads_are_taken_by_the_names_of_labels(source: tuple[Segmenter, str]) -> None:
    given, path = source
    model = segmenter(3)
    fresh = [head.weight.detach().clone() for head in model.heads]
    said = start_from(model, path, {1: "pancreas", 2: "spleen"})
    for head, theirs, before in zip(model.heads, given.heads, fresh, strict=True):
        assert torch.equal(head.weight[0], theirs.weight[0])  # background
        assert torch.equal(head.weight[1], before[1])  # nobody knows the pancreas
        assert torch.equal(head.weight[2], theirs.weight[1])
        assert torch.equal(head.bias[2], theirs.bias[1])
    assert f"of {len(model.state_dict())} weights" in said
    assert torch.equal(model.vit.blocks[1].mlp.gate.weight, given.vit.blocks[1].mlp.gate.weight)


def test_a_scan_twice_as_two_channels_looks_the_same(source: tuple[Segmenter, str]) -> None:
    given, path = source
    model = segmenter(4, channels=2)
    start_from(model, path, {1: "spleen", 2: "liver", 3: "aorta"})
    x = torch.rand(1, 1, 8, 32, 32)
    with torch.no_grad():
        wanted, found = given.eval()(x, 1)[0], model.eval()(x.expand(-1, 2, -1, -1, -1), 1)[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_model_of_another_family_is_refused(source: tuple[Segmenter, str]) -> None:
    with pytest.raises(SpadError, match="use one of its family"):
        start_from(torch.nn.Linear(3, 3), source[1])


def test_layer_decay_slows_the_blocks_that_come_first() -> None:
    model = segmenter(2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    factors = {
        names[id(parameter)]: group["rate_factor"]
        for group in parameter_groups(model, 0.05, 0.5)
        for parameter in group["params"]
    }
    assert set(factors) == set(names.values())
    assert factors["vit.patch_embedding.weight"] == factors["vit.position"] == 0.5**5
    assert factors["vit.blocks.0.norm1.weight"] == 0.5**4
    assert factors["vit.blocks.3.mlp.gate.weight"] == 0.5
    assert factors["heads.0.weight"] == factors["decoder.encoder.0.conv1.weight"] == 1
