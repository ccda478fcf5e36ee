"""Fine-tuning: what a run takes over from its model, what it tells of its scans and itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from spad.checkpoints import file, zoo
from spad.checkpoints.card import Card
from spad.data.cohort import model_contracts
from spad.errors import SpadError
from spad.models.clicker import FEATURE_LEVEL
from spad.models.segmenter import Segmenter
from spad.phantoms import LABELS
from spad.training import runs
from spad.training.inherit import inherited
from spad.training.recipe import resolve
from spad.training.start import train
from spad.volumes.files import read, write

ARCHITECTURE = {
    "vit": {"dim": 32, "depth": 4, "heads": 2},
    "blocks": [0, 1, 2, 3],
    "decoder_channels": [8, 8, 16, 16],
    "encoder_channels": [8, 8, 8],
}


@pytest.fixture
def init(tmp_path: Path) -> str:
    """A small segmenter of all organs of the phantoms, at 8 mm."""
    torch.manual_seed(0)
    model = Segmenter(1, len(LABELS) + 1, **ARCHITECTURE)  # type: ignore[arg-type]
    card = Card(
        "segmenter",
        "source",
        model.architecture,
        model_contracts((-150.0, 250.0)),
        working_spacing={"in_plane": 8.0},
        window=[32, 32, 32],
        labels=dict(LABELS),
        least_piece={number: 0.3 for number, name in LABELS.items() if name == "liver"},
        licence="Not for sale.",
    )
    file.save(tmp_path / "source.safetensors", model, card)
    return str(tmp_path / "source.safetensors")


def test_network_and_grid_are_those_of_the_model(init: str) -> None:
    recipe = resolve("folder", "tiny", {"init": init})
    found = inherited(recipe)
    assert found is not None
    assert found.model["decoder_channels"] == [8, 8, 16, 16]
    assert "classes" not in found.model
    assert (found.data.in_plane_mm, found.data.window) == (8.0, [32, 32, 32])
    assert found.data.ct_range == [-150.0, 250.0]


def test_a_run_from_scratch_inherits_nothing() -> None:
    assert inherited(resolve("folder", "base")) is None


@pytest.fixture
def run(init: str, folder: Path, tmp_path: Path) -> Path:
    overrides = {"schedule.validate_every": "2", "schedule.validation_batches": "2"}
    return train("folder", [folder], tmp_path / "run", steps=3, init=init, overrides=overrides)


def test_what_a_run_tells(run: Path, init: str) -> None:
    """One training for several questions: it takes seconds."""
    cases = runs.read_cases(run)
    assert [(case.name, case.held_out) for case in cases] == [
        (f"phantoms/{number}", number == 2) for number in range(3)
    ]
    assert Path(cases[2].image).name == "img2.nii.gz"
    assert Path(cases[2].labels or "").is_file()
    assert cases[2].label_names == LABELS

    judged = [m for m in runs.read_metrics(run).records if m["phase"] == "validation"]
    assert [record["step"] for record in judged] == [0, 2, 3]
    assert list(runs.sample_pictures(run)) == [0, 2, 3]

    data = runs.read_recipe(run)["data"]
    assert (data["plan"], data["in_plane_mm"], data["window"]) == (False, 8.0, [32, 32, 32])
    assert data["found"]["median_spacing_mm"] == [9.0, 5.8, 5.8]  # told, though 8 mm is inherited
    assert data["found"]["scans_with_label"]["liver"] == 2

    card = zoo.find(run).card
    best = max(judged, key=lambda record: record["dice"])
    assert card.provenance["steps"] == best["step"]
    assert card.provenance["init"] == init
    assert {card.labels[n]: share for n, share in card.least_piece.items()} == {"liver": 0.3}
    assert card.licence.endswith(f"Made from {init}, whose terms hold too: Not for sale.")
    assert card.validation["held_out"]["dice"] == pytest.approx(best["dice"], abs=1e-4)
    assert any(name.startswith("dice_") for name in card.validation["held_out"])


def test_a_damaged_list_of_scans_is_told(tmp_path: Path) -> None:
    run = runs.create(tmp_path / "run", {"task": "segmentation"})
    assert runs.read_cases(run) == []
    (run / "cases.json").write_text('[{"name": 1}]')
    with pytest.raises(SpadError, match=r"cases\.json cannot be read"):
        runs.read_cases(run)


def test_only_the_weights_that_are_named_learn(init: str, folder: Path, tmp_path: Path) -> None:
    overrides = {"schedule.first_look": "1000", "data.phantoms": "0"}
    run = train("improve", [folder], tmp_path / "run", steps=2, init=init, overrides=overrides)
    scan = torch.rand(1, 1, 32, 32, 32)
    ours, theirs = (file.load(zoo.find(name).path)[0].eval() for name in (run, init))
    with torch.no_grad():
        maps, others = ours.decoder_maps(scan, 0), theirs.decoder_maps(scan, 0)
    assert torch.equal(maps[FEATURE_LEVEL], others[FEATURE_LEVEL]), "clicks stand on these"
    assert not torch.equal(maps[0], others[0])
    before = file.load(init)[0].state_dict()
    after = file.load(zoo.find(run).path)[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("heads", "decoder.ups.0")) for name in changed)
    with pytest.raises(SpadError, match=r"optimiser\.trained"):
        train(
            "improve",
            [folder],
            tmp_path / "other",
            steps=1,
            init=init,
            overrides={**overrides, "optimiser.trained": "[nose]"},
        )


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_an_improved_model_is_taught_gently_whatever_its_size(preset: str) -> None:
    recipe = resolve("improve", preset)
    assert recipe.optimiser.trained == ["heads", "decoder.ups.0"]
    assert (recipe.schedule.steps, recipe.schedule.validate_every) == (300, 50)
    assert recipe.same_labels
    assert recipe.data.plan


def test_labels_and_modalities_that_nobody_corrected_stay(
    init: str, folder: Path, tmp_path: Path
) -> None:
    """Only the liver is known, under another number than the model's."""
    place = tmp_path / "corrections"
    place.mkdir()
    number = next(number for number, name in LABELS.items() if name == "liver")
    for scan in range(2):
        shutil.copy(folder / f"img{scan}.nii.gz", place)
        labels = read(folder / f"label{scan}.nii.gz", labels=True)
        liver = (labels.array == number).astype("uint8")
        write(labels.with_array(liver, label_names={1: "liver"}), place / f"label{scan}.nii.gz")
        (place / f"label{scan}.labels.json").unlink(missing_ok=True)
    (place / "labels.json").write_text('{"1": "liver"}')
    overrides = {"schedule.first_look": "1000"}
    run = train("improve", [place], tmp_path / "run", steps=1, init=init, overrides=overrides)
    card, source = zoo.find(run).card, zoo.find(init).card
    assert card.labels == source.labels
    assert set(card.intensity) == set(source.intensity)
    assert card.label_names("CT") == card.label_names("MR") == source.label_names()
    assert runs.read_cases(run)[0].label_names == {1: "liver"}
    other = train("folder", [place], tmp_path / "other", steps=1, init=init, overrides=overrides)
    assert zoo.find(other).card.labels == {1: "liver"}
