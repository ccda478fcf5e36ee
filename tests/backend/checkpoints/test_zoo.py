"""Names of models: where they resolve to, which is the default, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_tokenizer, tokenizer_card

from spad.checkpoints import zoo
from spad.checkpoints.file import load, save
from spad.errors import SpadError
from spad.volumes.intensity import CT, MR


def ship(home: Path, name: str, **card: object) -> Path:
    path = home.parent / "shipped" / f"{name}.safetensors"
    return save(path, tiny_tokenizer(), tokenizer_card(**card))


def own(home: Path, name: str, **card: object) -> Path:
    (home / "models").mkdir(parents=True, exist_ok=True)
    path = home / "models" / f"{name}.safetensors"
    return save(path, tiny_tokenizer(), tokenizer_card(**card))


def test_the_home_is_that_of_the_variable_or_the_users(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("SPAD_HOME", str(tmp_path))
    assert zoo.spad_home() == tmp_path
    monkeypatch.delenv("SPAD_HOME")
    assert zoo.spad_home().name == "napari-spad"


def test_models_are_listed_with_their_origin(home: Path):
    ship(home, "tokenizer-tiny")
    own(home, "mine")
    own(home, "alien", provenance={"importer": "pumit-tokenizer"})
    listed = [(entry.name, entry.kind, entry.origin) for entry in zoo.models()]
    assert listed == [
        ("tokenizer-tiny", "tokenizer", "shipped"),
        ("alien", "tokenizer", "imported"),
        ("mine", "tokenizer", "trained"),
    ]
    assert [entry.card.name for entry in zoo.models()] == ["tokenizer-tiny", "alien", "mine"]


def test_a_broken_file_does_not_hide_the_others(home: Path):
    own(home, "good")
    (home / "models" / "bad.safetensors").write_bytes(b"nothing")
    assert [entry.name for entry in zoo.models()] == ["good"]
    with pytest.raises(SpadError, match="not a safetensors file"):
        zoo.find("bad")


def test_a_shipped_name_cannot_be_taken_over(home: Path):
    shipped = ship(home, "tokenizer-tiny")
    own(home, "tokenizer-tiny")
    assert [entry.path for entry in zoo.models()] == [shipped]
    assert zoo.find("tokenizer-tiny").path == shipped


def test_a_file_is_found_by_its_path(home: Path, checkpoint: Path):
    entry = zoo.find(checkpoint)
    assert (entry.name, entry.path, entry.origin) == ("tiny", checkpoint, "trained")
    assert zoo.find(str(checkpoint)).path == checkpoint


def make_run(folder: Path, steps: tuple[int, ...]) -> Path:
    for step in steps:
        (folder / "checkpoints" / f"step-{step}").mkdir(parents=True)
        path = folder / "checkpoints" / f"step-{step}" / "model.safetensors"
        save(path, tiny_tokenizer(step), tokenizer_card())
    return folder


def test_a_run_stands_for_its_best_or_last_checkpoint(home: Path, tmp_path: Path):
    run = make_run(tmp_path / "my-run", (10, 20))
    with pytest.raises(SpadError, match="holds no finished checkpoint"):
        zoo.find(run)
    (run / "checkpoints" / "last").write_text("step-20\n")
    assert zoo.find(run).path.parent.name == "step-20"
    (run / "checkpoints" / "best").write_text("step-10\n")
    assert zoo.find(run).path.parent.name == "step-10"
    assert zoo.find(run).name == "my-run"
    (run / "checkpoints" / "step-10" / "model.safetensors").unlink()
    assert zoo.find(run).path.parent.name == "step-20"


def test_an_unknown_name_lists_the_known_ones(home: Path):
    with pytest.raises(SpadError, match="no model called 'none'; known models: none;"):
        zoo.find("none")
    ship(home, "tokenizer-tiny")
    own(home, "mine")
    with pytest.raises(SpadError, match="known models: tokenizer-tiny, mine;"):
        zoo.find("organs")


def test_the_default_is_shipped_then_specific_then_first_by_name(home: Path):
    own(home, "a-mine", intensity={"CT": CT, "*": MR})
    own(home, "b-mine", intensity={"CT": CT})
    assert zoo.default("tokenizer").name == "a-mine"
    assert zoo.default("tokenizer", "PT").name == "a-mine"
    ship(home, "general", intensity={"*": MR})
    assert zoo.default("tokenizer", "CT").name == "general"
    ship(home, "special", intensity={"CT": CT})
    assert zoo.default("tokenizer", "CT").name == "special"
    assert zoo.default("tokenizer", "MR").name == "general"
    assert zoo.default("tokenizer").name == "general"


def test_no_default_is_told_with_what_there_is(home: Path):
    ship(home, "special", intensity={"CT": CT})
    with pytest.raises(SpadError, match=r"no tokenizer model for MR scans.*special \(CT\)"):
        zoo.default("tokenizer", "MR")
    with pytest.raises(SpadError, match="no segmenter model; known of that kind: none"):
        zoo.default("segmenter")


def test_a_model_is_installed_and_exported(home: Path, checkpoint: Path, tmp_path: Path):
    entry = zoo.install(checkpoint, "mine")
    assert entry.path == home / "models" / "mine.safetensors"
    assert zoo.find("mine").card.name == "mine"
    target = zoo.export("mine", tmp_path / "copy.safetensors")
    assert target.read_bytes() == checkpoint.read_bytes()
    assert load(target)[1].kind == "tokenizer"


def test_a_run_is_installed_by_its_checkpoint(home: Path, tmp_path: Path):
    run = make_run(tmp_path / "my-run", (10,))
    (run / "checkpoints" / "last").write_text("step-10\n")
    wanted = (run / "checkpoints" / "step-10" / "model.safetensors").read_bytes()
    assert zoo.install(run, "from-run").path.read_bytes() == wanted


@pytest.mark.parametrize("name", ["", "../escape", ".hidden", "a b", "a/b"])
def test_a_name_must_be_a_plain_one(name: str, home: Path, checkpoint: Path):
    with pytest.raises(SpadError, match="cannot be the name of a model"):
        zoo.install(checkpoint, name)
    assert not home.exists()


def test_a_taken_name_is_refused(home: Path, checkpoint: Path):
    ship(home, "tokenizer-tiny")
    zoo.install(checkpoint, "mine")
    for name in ("mine", "tokenizer-tiny", "Mine"):
        with pytest.raises(SpadError, match="already is a model called"):
            zoo.install(checkpoint, name)


def test_only_a_complete_checkpoint_is_installed(home: Path, tmp_path: Path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(SpadError, match="not a safetensors file"):
        zoo.install(path, "mine")
    assert not home.exists()


def test_an_export_leaves_a_file_that_is_there(home: Path, checkpoint: Path, tmp_path: Path):
    zoo.install(checkpoint, "mine")
    target = tmp_path / "precious.txt"
    target.write_text("words")
    with pytest.raises(SpadError, match="stays as it is"):
        zoo.export("mine", target)
    assert target.read_text() == "words"
    assert zoo.export("mine", tmp_path).name == "mine.safetensors"


def test_listing_models_does_not_import_torch(home: Path, checkpoint: Path):
    zoo.install(checkpoint, "mine")
    code = (
        "import sys; from spad.checkpoints import zoo; import spad.checkpoints.importers; "
        "assert zoo.find('mine').kind == 'tokenizer'; assert zoo.models(); "
        "sys.exit(bool({'torch', 'safetensors', 'napari'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
