"""Importing the authors' checkpoints and EVA-02's: every weight in its place, or nothing."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_models import (
    SMALL_VIT,
    authors_shapes,
    eva_state,
    masked_input,
    masked_model,
    normalised,
    tokenizer,
)
from golden_rule import GOLDEN, golden_input, stats_error, weights
from safetensors.torch import save_file

from spad.checkpoints import zoo
from spad.checkpoints.file import load, save
from spad.checkpoints.importers import AS_KINDS, eva02, import_file, pumit
from spad.checkpoints.importers.names import plan
from spad.checkpoints.importers.report import IncompleteImport
from spad.errors import SpadError
from spad.models.classifier import Classifier
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel, SpatialViT

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tokenizer_state() -> State:
    """A small tokenizer in the authors' names."""
    return weights(authors_shapes(Tokenizer(channels=(16, 24, 32), codes=32)))


@pytest.fixture(scope="module")
def masked_state() -> State:
    """A small masked-image model in the authors' names."""
    return weights(authors_shapes(masked_model()))


CONTAINERS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "optimizer_g": {"lr": 0.1}, "step": 7},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "module": lambda state: {"module": state},
    "parallel": lambda state: {"model": {f"module.{name}": v for name, v in state.items()}},
}


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=list(CONTAINERS))
@torch.no_grad()
def test_a_tokenizer_is_imported_from_any_container(container, tokenizer_state, tmp_path: Path):
    file = write(tmp_path / "simple-soft.ckpt", container(tokenizer_state))
    model, card, report = pumit.import_checkpoint(file, "pumit-tokenizer")
    assert report.complete
    assert len(report.matched) == len(tokenizer_state) == 45
    assert card.kind == "tokenizer"
    assert model.architecture == Tokenizer(channels=(16, 24, 32), codes=32).architecture
    assert torch.equal(model.quantizer.codebook, tokenizer_state["quantize.embedding.weight"])
    assert torch.equal(model.decoder[11].weight, tokenizer_state["decoder.7.conv.0.weight"])


@torch.no_grad()
def test_safetensors_and_half_precision_are_taken(tokenizer_state: State, tmp_path: Path):
    half = {name: value.half() for name, value in tokenizer_state.items()}
    file = write(tmp_path / "soft.safetensors", half)
    model, _, report = pumit.import_checkpoint(file, "pumit-tokenizer")
    assert report.complete
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.encoder[0].weight, half["encoder.0.weight"].float())


def test_the_tokenizers_contract_is_minus_one_to_one_of_percentiles(tokenizer_state, tmp_path):
    file = write(tmp_path / "soft.ckpt", tokenizer_state)
    card = pumit.import_checkpoint(file, "pumit-tokenizer")[1]
    for modality in ("CT", "MR", "US", None):
        contract = card.contract(modality)
        assert (contract.kind, contract.low, contract.high) == ("percentiles", 0.5, 99.5)
        assert contract.to_model([0.0, 0.5, 1.0]).tolist() == [-1, 0, 1]
    assert "no" in card.licence
    assert card.provenance["file"] == "soft.ckpt"
    assert len(card.provenance["sha256"]) == 64


@torch.no_grad()
def test_the_released_shapes_meet_the_golden_values_through_a_file(tmp_path: Path):
    shapes = GOLDEN["tokenizer"]["state_dict"]
    file = write(tmp_path / "simple-soft.ckpt", {"model": weights(shapes), "step": 1})
    model, card, report = pumit.import_checkpoint(file, "pumit-tokenizer")
    assert len(report.matched) == len(shapes)
    unit = golden_input(1, 3, 8, 32, 32)
    x = torch.from_numpy(card.contract("MR").to_model(unit.numpy()))
    assert stats_error(model(x, 2)[0], GOLDEN["tokenizer"]["da2"]["rec"]) < 1e-4
    assert torch.equal(model(x, 2)[0], tokenizer()(x, 2)[0])


@torch.no_grad()
def test_a_masked_model_takes_unnormalised_scans_and_meets_the_golden_values(
    masked_state: State, tmp_path: Path
):
    """The authors normalised before the model; here that is folded into the patch kernel."""
    clutter = {"tokenizer.encoder.0.weight": torch.zeros(1), "rope.freqs_cos": torch.zeros(1)}
    file = write(tmp_path / "pumit-b.ckpt", {"state_dict": masked_state | clutter})
    model, card, report = pumit.import_checkpoint(file, "pumit-vit", heads=2)
    assert report.dropped == sorted(clutter)
    assert isinstance(model, MaskedImageModel)
    unit, masked = masked_input()
    x = torch.from_numpy(card.contract("CT").to_model(unit.numpy()))
    assert torch.equal(x, unit)
    assert stats_error(model.hidden(x, 2, masked), GOLDEN["mim"]["hidden"]) < 1e-4
    wanted = masked_model()(normalised(unit), 2, masked)
    torch.testing.assert_close(model(x, 2, masked), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_transformer_without_the_head_is_imported_alone(masked_state: State, tmp_path: Path):
    state = {name: v for name, v in masked_state.items() if not name.startswith("mim_head.")}
    file = write(tmp_path / "pumit-b.ckpt", {"state_dict": state})
    model, card, report = pumit.import_checkpoint(file, "pumit-vit", heads=2)
    assert isinstance(model, SpatialViT)
    assert card.kind == "vit"
    assert report.dropped == ["mask_token"]
    x = golden_input(1, 3, 8, 48, 48)
    torch.testing.assert_close(model(x, 2), masked_model().vit(normalised(x), 2), atol=1e-4, rtol=0)


def test_the_base_model_has_heads_64_wide():
    state = {
        "patch_embed.proj.weight": torch.empty(768, 3, 16, 16, 16, device="meta"),
        "pos_embed": torch.empty(1, 768, 5, 10, 10, device="meta"),
        "blocks.11.norm1.weight": torch.empty(768, device="meta"),
    }
    kind, architecture = pumit.vit_architecture("pumit-b.ckpt", state)
    with torch.device("meta"):
        assert SpatialViT(**architecture).architecture == SpatialViT().architecture
    assert kind == "vit"


def test_a_width_without_known_heads_is_refused(tmp_path: Path):
    odd = weights(authors_shapes(SpatialViT(**(SMALL_VIT | {"dim": 48}))))
    file = write(tmp_path / "odd.ckpt", odd)
    with pytest.raises(SpadError, match="number of attention heads cannot be told"):
        pumit.import_checkpoint(file, "pumit-vit")
    assert pumit.import_checkpoint(file, "pumit-vit", heads=2)[0].head_dim == 24


def test_a_patch_kernel_with_fewer_slices_states_its_da(tmp_path: Path):
    thin = weights(authors_shapes(SpatialViT(**SMALL_VIT, kernel_da=2)))
    assert thin["patch_embed.proj.weight"].shape == (64, 3, 4, 16, 16)
    file = write(tmp_path / "thin.ckpt", thin)
    model = pumit.import_checkpoint(file, "pumit-vit")[0]
    assert model.architecture["kernel_da"] == 2


CHANGES: dict[str, tuple[Callable[[State], Any], str, str]] = {
    "missing": (lambda s: s.pop("encoder.4.1.weight"), "missing", "encoder.4.1.weight"),
    "missing convolution": (lambda s: s.pop("encoder.3.weight"), "missing", "encoder.3.weight"),
    "unexpected": (lambda s: s.update(bonus=torch.zeros(3)), "unexpected", "bonus"),
    "mismatched": (
        lambda s: s.update({"decoder.1.bias": torch.zeros(5)}),
        "mismatched",
        "decoder.1.bias: (5,) instead of (32,)",
    ),
    "whole numbers": (
        lambda s: s.update({"decoder.1.bias": torch.zeros(32, dtype=torch.int64)}),
        "mismatched",
        "decoder.1.bias: torch.int64 instead of a real number",
    ),
}


@pytest.mark.parametrize(("change", "where", "name"), CHANGES.values(), ids=list(CHANGES))
def test_anything_below_full_coverage_fails_with_a_report(
    change, where: str, name: str, tokenizer_state: State, tmp_path: Path
):
    state = dict(tokenizer_state)
    change(state)
    file = write(tmp_path / "soft.ckpt", {"model": state})
    with pytest.raises(IncompleteImport, match=f"1 {where}") as caught:
        pumit.import_checkpoint(file, "pumit-tokenizer")
    report = caught.value.report
    assert getattr(report, where) == [name]
    assert not report.complete
    others = {"missing", "unexpected", "mismatched"} - {where}
    assert all(getattr(report, other) == [] for other in others)
    assert json.loads(json.dumps(report.to_json()))["complete"] is False


def test_weights_that_are_not_finite_are_refused(tokenizer_state: State, tmp_path: Path):
    state = tokenizer_state | {"encoder.0.bias": torch.full((16,), torch.nan)}
    file = write(tmp_path / "soft.ckpt", state)
    with pytest.raises(SpadError, match=r"'encoder\.0\.bias' is not finite"):
        pumit.import_checkpoint(file, "pumit-tokenizer")


def test_the_wrong_kind_is_told(masked_state: State, tokenizer_state: State, tmp_path: Path):
    vit = write(tmp_path / "vit.ckpt", masked_state)
    soft = write(tmp_path / "soft.ckpt", tokenizer_state)
    with pytest.raises(SpadError, match=r"'encoder\.0\.weight' is missing"):
        pumit.import_checkpoint(vit, "pumit-tokenizer")
    with pytest.raises(SpadError, match=r"'patch_embed\.proj\.weight' is missing"):
        pumit.import_checkpoint(soft, "pumit-vit")
    with pytest.raises(SpadError, match="with 4 axes"):
        eva02.import_checkpoint(vit)
    with pytest.raises(SpadError, match="no PUMIT importer called 'pumit-gan'"):
        pumit.import_checkpoint(soft, "pumit-gan")


class Bomb:
    """A pickle that would write a file if it were run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path):
    mark = tmp_path / "exploded"
    file = write(tmp_path / "bomb.ckpt", {"model": {"a": torch.zeros(1)}, "extra": Bomb(mark)})
    with pytest.raises(SpadError, match="needs code, which is refused"):
        pumit.import_checkpoint(file, "pumit-tokenizer")
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04 half an archive", b"\x80\x02"])
def test_a_broken_file_is_told(content: bytes, tmp_path: Path):
    for name in ("broken.ckpt", "broken.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpadError, match="broken"):
            pumit.import_checkpoint(tmp_path / name, "pumit-tokenizer")


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, {"model": {"step": 3}}, torch.zeros(2)])
def test_a_file_without_weights_is_told(content, tmp_path: Path):
    file = write(tmp_path / "empty.ckpt", content)
    with pytest.raises(SpadError, match="holds no weights"):
        pumit.import_checkpoint(file, "pumit-tokenizer")


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    for name in ("none.ckpt", "none.safetensors"):
        with pytest.raises(SpadError, match="cannot be read"):
            pumit.import_checkpoint(tmp_path / name, "pumit-tokenizer")


@torch.no_grad()
def test_eva02_gives_the_same_tokens_on_repeated_slices(tmp_path: Path):
    """A 3D scan of 16 equal slices has the patches of the 2D picture, at EVA-02's own scale."""
    state = eva_state()
    extras = {"mask_token": torch.zeros(1, 1, 64), "lm_head.weight": torch.zeros(8, 64)}
    ordered = collections.OrderedDict(state | extras | {"rope.freqs_sin": torch.zeros(2)})
    file = write(tmp_path / "eva02_B.pt", {"module": ordered})
    model, card, report = eva02.import_checkpoint(file, heads=2)
    assert report.complete
    assert set(report.dropped) == {"mask_token", "lm_head.weight", "rope.freqs_sin"}
    assert card.kind == "vit"
    assert model.architecture["position_grid"] == [5, 10, 10]
    picture = golden_input(1, 3, 1, 32, 32)
    flat = torch.nn.functional.interpolate(
        state["patch_embed.proj.weight"], size=(16, 16), mode="bicubic"
    )
    bias = state["patch_embed.proj.bias"]
    wanted = torch.nn.functional.conv2d(normalised(picture)[:, :, 0], flat, bias, stride=16)
    deep = picture.expand(-1, -1, 16, -1, -1)
    found = model.patch_embedding(deep, 0)
    torch.testing.assert_close(found[:, :, 0], wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.patch_embedding(picture, 5), found, rtol=1e-3, atol=1e-3)


def test_eva02_needs_a_square_of_positions(tmp_path: Path):
    state = eva_state() | {"pos_embed": torch.zeros(1, 12, 64)}
    with pytest.raises(SpadError, match="11 rows; expected a square number"):
        eva02.import_checkpoint(write(tmp_path / "eva.pt", state))


@pytest.mark.parametrize("as_kind", AS_KINDS)
def test_an_imported_model_is_in_the_zoo(
    as_kind: str, home: Path, tokenizer_state: State, masked_state: State, tmp_path: Path
):
    states = {"pumit-tokenizer": tokenizer_state, "pumit-vit": masked_state, "eva02": eva_state()}
    file = write(tmp_path / "file.pt", states[as_kind])
    entry, report = import_file(file, as_kind, "mine")
    assert report.complete
    assert (entry.name, entry.origin, entry.card.name) == ("mine", "imported", "mine")
    assert entry.path == home / "models" / "mine.safetensors"
    model, card = load(entry.path)
    assert card.provenance["importer"] == as_kind
    assert save(tmp_path / "again.safetensors", model, card).stat().st_size > 0


def test_a_masked_model_is_tied_to_the_tokenizer_that_was_imported(
    home: Path, tokenizer_state: State, masked_state: State, tmp_path: Path
):
    vit = write(tmp_path / "vit.pt", masked_state)
    assert import_file(vit, "pumit-vit", "alone")[0].card.tokenizer is None
    import_file(write(tmp_path / "soft.pt", tokenizer_state), "pumit-tokenizer", "soft")
    assert import_file(vit, "pumit-vit", "tied")[0].card.tokenizer == "soft"


def test_a_failed_import_leaves_nothing(home: Path, tokenizer_state: State, tmp_path: Path):
    state = {k: v for k, v in tokenizer_state.items() if k != "decoder.8.bias"}
    file = write(tmp_path / "soft.pt", state)
    with pytest.raises(IncompleteImport, match=r"1 missing \(decoder\.8\.bias\)"):
        import_file(file, "pumit-tokenizer", "mine")
    assert zoo.models() == []
    assert not list((home / "models").iterdir())
    with pytest.raises(SpadError, match="no importer called 'onnx'"):
        import_file(file, "onnx", "mine")


def test_models_that_the_authors_do_not_have_have_no_names():
    with pytest.raises(SpadError, match="no PUMIT names for a Classifier"):
        plan(Classifier(SMALL_VIT, classes=2))
