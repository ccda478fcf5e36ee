"""Checkpoint files: what is saved comes back; anything else gets one clear sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_tokenizer, tokenizer_card
from torch import nn

from spad.checkpoints.card import Card
from spad.checkpoints.file import build, load, save
from spad.checkpoints.header import KEY, read_card, read_header
from spad.errors import SpadError
from spad.models.classifier import Classifier
from spad.models.segmenter import Segmenter
from spad.models.vit import MaskedImageModel, SpatialViT
from spad.volumes.intensity import CT

VIT = {"dim": 16, "depth": 4, "heads": 2, "position_grid": (2, 2, 2)}
MODELS = {
    "tokenizer": tiny_tokenizer,
    "mim": lambda: MaskedImageModel({"in_channels": 1, **VIT}, codes=8),
    "segmenter": lambda: Segmenter(1, 3, VIT, (0, 1, 2, 3), (8, 8, 8, 8), (4, 4)),
    "classifier": lambda: Classifier({"in_channels": 1, **VIT}, classes=2),
    "vit": lambda: SpatialViT(in_channels=1, **VIT),
}


def card_of(kind: str) -> Card:
    return Card(kind=kind, name=kind, architecture={}, intensity={"CT": CT})


def run(model: nn.Module, x: torch.Tensor, da: int) -> torch.Tensor:
    if isinstance(model, MaskedImageModel):
        tokens = model.vit.embed(x, da).flatten(2).shape[2]
        return model(x, da, torch.arange(tokens).expand(len(x), -1) % 2 == 0)
    found = model(x, da)
    return found if isinstance(found, torch.Tensor) else found[0]


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_a_model_comes_back_as_it_was(kind: str, tmp_path: Path):
    model = MODELS[kind]().train()
    path = save(tmp_path / "model.safetensors", model, card_of(kind))
    loaded, card = load(path)
    assert type(loaded) is type(model)
    assert not any(module.training for module in loaded.modules())
    assert card.architecture == json.loads(json.dumps(model.architecture))
    x = torch.rand(2, 1, 5, 20, 33)
    for da in (0, 2, 5):
        assert torch.equal(run(loaded, x, da), run(model.eval(), x, da))


@torch.no_grad()
def test_half_precision_halves_the_file_and_is_computed_in_single(tmp_path: Path):
    model = tiny_tokenizer().eval()
    whole = save(tmp_path / "whole.safetensors", model, tokenizer_card())
    half = save(tmp_path / "half.safetensors", model, tokenizer_card(), dtype=torch.float16)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded, _ = load(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    x = torch.rand(1, 1, 4, 16, 16)
    torch.testing.assert_close(loaded(x, 2)[0], model(x, 2)[0], rtol=0.01, atol=0.01)


def test_a_loaded_model_can_be_trained(checkpoint: Path):
    model, _ = load(checkpoint)
    model.train()(torch.rand(1, 1, 4, 16, 16), 2)[0].square().mean().backward()
    assert all(p.requires_grad for p in model.parameters())
    assert any(p.grad.abs().any() for p in model.parameters())


def test_loading_leaves_the_random_state_alone(checkpoint: Path):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    load(checkpoint)
    assert torch.equal(torch.rand(2), wanted)


def test_the_one_metadata_key_is_the_card(checkpoint: Path):
    assert set(read_header(checkpoint)["__metadata__"]) == {KEY}
    card = read_card(checkpoint)
    assert (card.kind, card.orientation, card.licence) == ("tokenizer", "IPL", "Apache-2.0")
    assert card.architecture["channels"] == [16, 16]


def test_a_failed_save_leaves_the_old_file(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    before = checkpoint.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spad.checkpoints.file.save_file", full_disk)
    with pytest.raises(SpadError, match="No space left on device"):
        save(checkpoint, tiny_tokenizer(1), tokenizer_card())
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_a_save_replaces_the_old_file(checkpoint: Path):
    before = checkpoint.read_bytes()
    save(checkpoint, tiny_tokenizer(1), tokenizer_card())
    assert checkpoint.read_bytes() != before
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(SpadError, match="cannot be written"):
        save(tmp_path / "none" / "model.safetensors", tiny_tokenizer(), tokenizer_card())


def test_a_card_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(SpadError, match="A Tokenizer was to be saved with a card of kind 'vit'"):
        save(tmp_path / "model.safetensors", tiny_tokenizer(), card_of("vit"))
    assert not list(tmp_path.iterdir())


def test_another_kind_than_wanted_is_told(checkpoint: Path):
    with pytest.raises(SpadError, match="holds a tokenizer, but a segmenter is needed"):
        load(checkpoint, kind="segmenter")


class Bomb:
    """A pickle that would write a file if it were run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(form: str, tmp_path: Path):
    path, mark = tmp_path / "model.safetensors", tmp_path / "exploded"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save(Bomb(mark), path)
    with pytest.raises(SpadError, match="a pickle that needs code is refused"):
        load(path)
    assert not mark.exists()


def header_only(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


BROKEN = {
    "empty": b"",
    "short": b"abc",
    "text": b"These are not weights but words, and rather more than eight of them.",
    "no object": header_only(b"[1, 2]"),
    "no JSON": header_only(b"{broken"),
    "no spans": header_only(b'{"a": {"dtype": "F32"}}'),
    "too long a header": header_only(b"{}", 1 << 60),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=list(BROKEN))
def test_what_is_no_safetensors_file_is_told(content: bytes, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(SpadError, match="not a safetensors file"):
        load(path)


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_truncated_file_is_told(cut: int, checkpoint: Path):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-cut])
    with pytest.raises(SpadError, match=rf"is {len(content) - cut} bytes long.*{len(content)}"):
        load(checkpoint)


@pytest.mark.parametrize("length", [0x480, 0x4B50, 0x280])
def test_a_header_length_that_looks_like_a_pickle_is_none(length: int, tmp_path: Path):
    """0x80 begins a pickle and "PK" an archive, but both can be the length of a header."""
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.zeros(1)}
    save_file(tensors, path, {"pad": ""})
    short = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(tensors, path, {"pad": "x" * (length - short)})
    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    assert set(read_header(path)) == {"__metadata__", "a"}


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(SpadError, match=r"none\.safetensors cannot be read"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_without_a_card_are_refused(metadata, tmp_path: Path):
    path = tmp_path / "bare.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata)
    with pytest.raises(SpadError, match=r"without an intensity contract is refused; import it"):
        load(path)


def rewrite(path: Path, change) -> None:
    """Write a checkpoint anew after a change of its tensors and its card."""
    tensors, plain = load_file(path), read_card(path).to_json()
    text = change(tensors, plain)
    save_file(tensors, path, {KEY: text or json.dumps(plain)})


CHANGES = {
    "missing": (lambda t, c: t.pop("decoder.0.weight") is None, "1 weights are missing .decoder.0"),
    "unknown": (lambda t, c: t.update(extra=torch.zeros(1)), "1 weights are unknown .extra"),
    "shape": (
        lambda t, c: t.update({"quantizer.codebook": torch.zeros(9, 16)}),
        r"quantizer.codebook is \(9, 16\) instead of \(8, 16\)",
    ),
    "architecture": (lambda t, c: c["architecture"].update(codes=9), "of another shape"),
    "argument": (lambda t, c: c["architecture"].update(colour="red"), "cannot be built from"),
    "value": (lambda t, c: c["architecture"].update(channels=[]), "cannot be built from"),
    "card": (lambda t, c: "{broken", "has a card that is not JSON"),
    "contract": (lambda t, c: c.pop("intensity") is None, "no intensity contract"),
}


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=list(CHANGES))
def test_weights_that_do_not_fit_are_told(change, sentence: str, checkpoint: Path):
    rewrite(checkpoint, change)
    with pytest.raises(SpadError, match=sentence):
        load(checkpoint)


def test_an_unknown_kind_cannot_be_built():
    with pytest.raises(SpadError, match="no kind of model called 'diffuser'"):
        build("diffuser", {})
