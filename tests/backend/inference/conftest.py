"""Small models with fixed seeds in a SPAD_HOME of their own, and scans of any geometry."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.inference.models import forget
from spad.models.segmenter import Segmenter
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel
from spad.volumes.intensity import Intensity
from spad.volumes.volume import Volume

CODES = 24
CT = Intensity("window", -125.0, 275.0, 0.5, 0.5, "HU")
MR = Intensity("percentiles", 0.5, 99.5, 0.5, 0.5)
VIT = {"dim": 16, "depth": 4, "heads": 2, "position_grid": [2, 3, 3]}
BLOCK = {1: "block"}
ORGANS = {1: "spleen", 2: "liver", 3: "aorta"}
SIGNED_AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order=(2, 1, 0), signs=(-1, -1, -1), spacing=(2.0, 2.0, 2.0), tilt=0.0) -> np.ndarray:
    """Array axis n runs along world axis order[n] in the direction signs[n]; tilted about x."""
    affine = np.zeros((4, 4))
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    c, s = np.cos(tilt), np.sin(tilt)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    affine[:, 3] = (-40.0, 25.0, 10.0, 1.0)
    return affine


def ct_of(shape, seed=0, **geometry) -> Volume:
    """A CT of smooth noise, full of values beyond the window."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(50, 300, [-(-n // 4) for n in shape])
    array = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(slice(n) for n in shape)]
    array = (array + rng.normal(0, 20, shape)).round().astype(np.int16)
    return Volume.from_array(array, affine_of(**geometry), modality_hint="CT")


def segmenter(classes: int, seed: int) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(
        1,
        classes,
        VIT,
        blocks=(0, 1, 2, 3),
        decoder_channels=(8, 8, 8, 8),
        encoder_channels=(8, 8),
        deep_supervision=1,
    )


def block_segmenter() -> Segmenter:
    """A model that marks what is brighter than the mean of a window, at any `da`.

    The convolutions on the scan hand its voxels through, and nothing of the transformer gets by.
    """
    model = segmenter(2, 0)
    joined = model.decoder.ups[0].mix
    with torch.no_grad():
        for conv in (model.decoder.encoder[0].conv1, model.decoder.encoder[0].conv2, joined.conv2):
            conv.weight.zero_()
            conv.weight[0, 0, 1, 1, 1] = 1
        skip = joined.conv1.weight.shape[1] // 2
        joined.conv1.weight.zero_()
        joined.conv1.weight[0, skip, 1, 1, 1] = 1
        model.heads[0].weight.zero_()
        model.heads[0].weight[1, 0] = 10
        model.heads[0].bias.zero_()
    return model.eval()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SPAD_HOME with a tokenizer, a masked-image model and segmenters."""
    folder = tmp_path_factory.mktemp("spad-home")
    models = folder / "models"
    models.mkdir()
    both = {"CT": CT, "MR": MR}

    def put(name: str, kind: str, model: nn.Module, **card) -> None:
        card = {"intensity": {**both, "*": MR}, "licence": "Apache-2.0", **card}
        save(models / f"{name}.safetensors", model, Card(kind, name, {}, **card))

    torch.manual_seed(1)
    put("tok", "tokenizer", Tokenizer(1, (8, 16, 16), CODES))
    put("tok-rgb", "tokenizer", Tokenizer(3, (8, 16, 16), CODES))
    put("tok-other", "tokenizer", Tokenizer(1, (8, 16, 16), CODES + 1))
    put("tok-coarse", "tokenizer", Tokenizer(1, (8, 16, 16), 16), working_spacing={"in_plane": 3.0})
    mim = MaskedImageModel({"in_channels": 1, **VIT}, CODES)
    put("mim", "mim", mim, tokenizer="tok")
    coarse = MaskedImageModel({"in_channels": 1, **VIT}, 16)
    put("mim-coarse", "mim", coarse, tokenizer="tok-coarse", working_spacing={"in_plane": 3.0})
    put("mim-wrong", "mim", mim, tokenizer="tok-other")
    put("mim-unit", "mim", mim, tokenizer="tok", intensity={"CT": Intensity("window", 0, 200)})
    put(
        "block",
        "segmenter",
        block_segmenter(),
        intensity=both,
        labels=BLOCK,
        window=[64, 64, 64],
        working_spacing={"in_plane": 2.0},
    )
    put(
        "organs",
        "segmenter",
        segmenter(4, 2),
        intensity=both,
        labels=ORGANS,
        modality_labels={"CT": [1, 2, 3], "MR": [2]},
        working_spacing={"in_plane": 3.0},
        window=[32, 32, 32],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPAD_HOME", str(folder))
        yield folder
        forget()
