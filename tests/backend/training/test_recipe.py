"""Recipes: presets, overrides, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from spad.data.samples import window_crop
from spad.errors import SpadError
from spad.models.segmenter import Segmenter
from spad.training.recipe import FOLDER, Recipe, resolve


@pytest.mark.parametrize("name", ["tokenizer", "mim", "segmentation"])
@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_every_preset_resolves_and_reads_back(name: str, preset: str) -> None:
    recipe = resolve(name, preset)
    assert recipe.task == name
    assert recipe.preset == preset
    assert Recipe.from_yaml(recipe.to_yaml(), "here") == recipe


def test_the_first_preset_is_the_small_one() -> None:
    assert resolve("tokenizer").preset == "tiny"


def test_overrides_are_typed() -> None:
    recipe = resolve(
        "segmentation",
        overrides={"optimiser.lr": "3e-4", "data.window": "[32, 64, 64]", "data.rotation": "5"},
    )
    assert recipe.optimiser.lr == 3e-4
    assert recipe.data.window == [32, 64, 64]
    assert recipe.data.rotation == 5.0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"optimizer.lr": "1"}, "unknown key 'optimizer'"),
        ({"optimiser.rate": "1"}, "unknown key 'rate'"),
        ({"optimiser.lr": "fast"}, "expected a number"),
        ({"data.batch": "2.5"}, "expected int"),
        ({"data.flips": "3"}, "expected bool"),
        ({"data": "3"}, "expected keys and values"),
    ],
)
def test_a_wrong_override_is_named(overrides: dict[str, str], sentence: str) -> None:
    with pytest.raises(SpadError, match=sentence):
        resolve("tokenizer", overrides=overrides)


def test_unknown_recipes_and_presets_list_the_known_ones() -> None:
    with pytest.raises(SpadError, match="btcv, chaos, clicks, folder, improve, mim, organs, segm"):
        resolve("livers")
    with pytest.raises(SpadError, match="tiny, small, base"):
        resolve("mim", "huge")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((FOLDER / "mim.yaml").read_text().replace("0.55", "0.75"))
    assert resolve(str(path)).mask_ratio == 0.75
    path.write_text("task: [")
    with pytest.raises(SpadError, match="not YAML"):
        resolve(str(path))


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
@pytest.mark.parametrize("name", ["btcv", "chaos", "folder", "organs"])
def test_recipes_extend_that_of_segmentation(name: str, preset: str) -> None:
    recipe = resolve(name, preset)
    assert recipe.task == "segmentation"
    assert recipe.preset == preset
    model = Segmenter(classes=3, **recipe.model)
    assert model.factors(0) == (32, 32, 32)
    assert all(side % 32 == 0 for side in recipe.data.window)


def test_base_has_the_values_of_the_paper() -> None:
    btcv, chaos = resolve("btcv", "base"), resolve("chaos", "base")
    assert window_crop(2, btcv.data.window) == (48, 192, 192)
    assert window_crop(2, chaos.data.window) == (32, 192, 192)
    assert (btcv.data.batch, chaos.data.batch) == (4, 8)
    assert btcv.data.ct_range == [-175, 250]
    for recipe in (btcv, chaos):
        assert recipe.schedule.steps == 50_000
        assert recipe.optimiser.warm_up * recipe.schedule.steps == 5_000
        assert recipe.optimiser.lr == 1e-4
        assert recipe.optimiser.layer_decay == 1
    assert resolve("folder", "tiny").data.plan


def test_extending_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: liver\n")
    with pytest.raises(SpadError, match="extends 'liver'; expected one of btcv"):
        resolve(str(path))
