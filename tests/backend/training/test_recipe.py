"""Recipes: presets, overrides, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from spad.errors import SpadError
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
    with pytest.raises(SpadError, match="mim, segmentation, tokenizer"):
        resolve("organs")
    with pytest.raises(SpadError, match="tiny, small, base"):
        resolve("mim", "huge")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((FOLDER / "mim.yaml").read_text().replace("0.55", "0.75"))
    assert resolve(str(path)).mask_ratio == 0.75
    path.write_text("task: [")
    with pytest.raises(SpadError, match="not YAML"):
        resolve(str(path))
