"""The golden cases: our modules with the authors' weights, against the authors' figures."""

from __future__ import annotations

import functools
import math

import torch
from golden_kernels import import_cases, repeat_cases, rope_cases, sac_cases
from golden_models import (
    Case,
    authors_shapes,
    count,
    eva_state,
    gap,
    masked_input,
    masked_model,
    normalised,
    shapes_error,
    small_vit,
    tokenizer,
    with_authors_weights,
)
from golden_rule import GOLDEN, golden_input, stats_error
from golden_training import crop_cases, decay_cases, loss_cases
from torch import nn

from spad.checkpoints.importers.eva02 import inflate
from spad.checkpoints.importers.inflate import (
    resize_kernel,
)
from spad.checkpoints.importers.names import plan
from spad.losses.masked import masked_terms
from spad.losses.prior import prior_terms
from spad.models.segmenter import Segmenter
from spad.models.tokenizer import Tokenizer
from spad.models.vit import SpatialViT

TOKENIZER_DEPTHS = (32, 16, 8, 8, 2, 1, 3)


@functools.cache
def _tokenized(da: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    model, x = tokenizer(), golden_input(1, 3, TOKENIZER_DEPTHS[da], 32, 32) * 2 - 1
    with torch.no_grad():
        z = model.features(x, da)
        reconstruction, logits, _ = model(x, da)
        mixed = model.quantizer.mix(logits.softmax(-1))
    return z, logits, mixed, reconstruction


def tokenizer_cases() -> list[Case]:
    cases = [
        Case(6, "tokenizer: names and shapes", 0, _tokenizer_names_error),
        Case(6, "tokenizer: parameters", 0, _tokenizer_count_error),
    ]
    for da in range(len(TOKENIZER_DEPTHS)):
        for what, error in {
            "features": _features_error,
            "logits and codes": _token_shape_error,
            "reconstruction": _reconstruction_error,
            "regulariser": _regulariser_error,
        }.items():
            cases.append(Case(6, f"tokenizer da {da}: {what}", 1e-4, functools.partial(error, da)))
    return cases


def _tokenizer_names_error() -> float:
    return shapes_error(authors_shapes(tokenizer()), GOLDEN["tokenizer"]["state_dict"])


def _tokenizer_count_error() -> float:
    return abs(count(tokenizer()) - GOLDEN["tokenizer"]["n_params"])


def _features_error(da: int) -> float:
    return stats_error(_tokenized(da)[0], GOLDEN["tokenizer"][f"da{da}"]["z"])


def _token_shape_error(da: int) -> float:
    golden = GOLDEN["tokenizer"][f"da{da}"]
    _, logits, mixed, _ = _tokenized(da)
    same = list(logits.shape) == golden["logits"] and list(mixed.shape) == golden["z_q"]
    return 0.0 if same else math.inf


def _reconstruction_error(da: int) -> float:
    return stats_error(_tokenized(da)[3], GOLDEN["tokenizer"][f"da{da}"]["rec"])


def _regulariser_error(da: int) -> float:
    golden, logits = GOLDEN["tokenizer"][f"da{da}"], _tokenized(da)[1]
    terms = prior_terms(logits)
    diversity = len(logits.argmax(-1).unique()) / logits[..., 0].numel()
    return max(
        abs(float(terms.divergence) - math.log(1024) - golden["pdr_loss"]),
        abs(float(terms.entropy) - golden["entropy"]),
        abs(diversity - golden["diversity"]),
    )


def vit_cases() -> list[Case]:
    cases = [
        Case(8, "vit base: names and shapes of block 0", 0, _vit_names_error),
        Case(8, "vit base and small: parameters", 0, _vit_count_error),
    ]
    for da, depth in ((0, 32), (2, 8), (3, 2), (6, 1)):
        cases.append(Case(8, f"vit da {da}", 1e-4, functools.partial(_vit_error, da, depth)))
    return cases


def _base_vit() -> SpatialViT:
    with torch.device("meta"):
        return SpatialViT()


def _vit_names_error() -> float:
    found = authors_shapes(_base_vit())
    later = [n for n in found if n.startswith("blocks.") and not n.startswith("blocks.0.")]
    blocks = {name.split(".")[1] for name in later}
    wrong = abs(len(blocks) + 1 - GOLDEN["vit"]["base_num_blocks"])
    first = {name: shape for name, shape in found.items() if name not in later}
    return wrong + shapes_error(first, GOLDEN["vit"]["base_state_dict_block0"])


def _vit_count_error() -> float:
    golden = GOLDEN["vit"]
    base = abs(count(_base_vit()) - golden["base_n_params"])
    return base + abs(count(small_vit()) - golden["small_n_params"])


@torch.no_grad()
def _vit_error(da: int, depth: int) -> float:
    tokens = small_vit()(golden_input(1, 3, depth, 48, 48), da)
    return stats_error(tokens, GOLDEN["vit"][f"small_da{da}"])


def eva_cases() -> list[Case]:
    return [
        Case(9, "eva-02: patch kernel", 0, _eva_patch_error),
        Case(9, "eva-02: position table", 0, _eva_position_error),
        Case(9, "eva-02: class token plus row 0", 0, _eva_class_error),
    ]


def _eva_patch_error() -> float:
    state = eva_state()
    kernel = state["patch_embed.proj.weight"]
    flat = nn.functional.interpolate(kernel, size=(16, 16), mode="bicubic")
    found = inflate(state)["patch_embed.proj.weight"]
    return max(
        gap(found, torch.stack([flat / 16] * 16, dim=2)),
        gap(resize_kernel(kernel, 16), flat),
    )


def _eva_position_error() -> float:
    state = eva_state()
    square = state["pos_embed"][:, 1:].reshape(1, 16, 16, -1).permute(0, 3, 1, 2)
    deep = torch.stack([square] * 5, dim=2)
    wanted = nn.functional.interpolate(deep, size=(5, 10, 10), mode="area")
    return gap(inflate(state)["pos_embed"], wanted)


def _eva_class_error() -> float:
    state = eva_state()
    wanted = state["cls_token"][0, 0] + state["pos_embed"][0, 0]
    return gap(inflate(state)["cls_token"][0, 0], wanted)


def mim_cases() -> list[Case]:
    return [
        Case(10, "mim: names and shapes of its own weights", 0, _mim_names_error),
        Case(10, "mim: hidden states", 1e-4, _mim_hidden_error),
        Case(10, "mim: loss and divergence", 1e-4, _mim_loss_error),
        Case(10, "mim: which parameters get a gradient", 0, _mim_gradient_error),
    ]


def _mim_names_error() -> float:
    found = authors_shapes(masked_model())
    own = found.keys() - authors_shapes(masked_model().vit).keys()
    return shapes_error({name: found[name] for name in own}, GOLDEN["mim"]["extra_keys"])


@torch.no_grad()
def _mim_hidden_error() -> float:
    x, masked = masked_input()
    return stats_error(masked_model().hidden(normalised(x), 2, masked), GOLDEN["mim"]["hidden"])


DRAWN_VISIBLE = ((6, 7, 9, 11, 12, 15, 16, 17), (2, 4, 5, 6, 11, 14, 15, 16))
"""The tokens that stayed visible in the authors' training step.

The golden file's even indices hold for its hidden states; the step drew a mask by itself: 8 of 18,
without replacement, `torch.manual_seed(0)` and `torch.multinomial(torch.ones(2, 18), 8)`.
"""


def _mim_loss() -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = masked_input()
    masked = torch.ones(2, 18, dtype=torch.bool).scatter(1, torch.tensor(DRAWN_VISIBLE), False)
    frozen = with_authors_weights(Tokenizer(channels=(16, 24, 32), codes=32), "tokenizer.")
    with torch.no_grad():
        target = frozen.encode(x * 2 - 1, 2).softmax(-1).flatten(1, 3)
    terms = masked_terms(masked_model()(normalised(x), 2, masked), target, masked)
    return terms.cross_entropy, terms.divergence


def _mim_loss_error() -> float:
    loss, divergence = _mim_loss()
    golden = GOLDEN["mim"]["training_step"]
    return max(
        abs(float(loss.detach()) - golden["loss"]),
        abs(float(divergence) - golden["train/kld"]),
    )


def _mim_gradient_error() -> float:
    model = masked_model()
    model.zero_grad()
    _mim_loss()[0].backward()
    ours = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().any()}
    reached = {theirs.split(".")[0] for theirs, slot in plan(model).items() if slot.name in ours}
    model.zero_grad()
    return float(len(reached ^ set(GOLDEN["mim"]["grad_reaches"])))


def segmenter_cases() -> list[Case]:
    return [
        Case(11, "segmenter: names and shapes of the backbone", 0, _backbone_names_error),
        Case(11, "segmenter: names and shapes of the decoder", 0, _decoder_names_error),
        Case(11, "segmenter: parameters", 0, _segmenter_count_error),
        Case(11, "segmenter: shapes of four and five maps", 0, _segmenter_maps_error),
    ]


@functools.cache
def _btcv() -> Segmenter:
    with torch.device("meta"):
        return Segmenter(1, 14, {"position_grid": (12, 12, 12)}, kernel_da=2)


def _backbone_names_error() -> float:
    found = authors_shapes(_btcv())
    own = {
        name.removeprefix("backbone."): shape
        for name, shape in found.items()
        if name.startswith("backbone.") and ".blocks." not in name
    }
    return shapes_error(own, GOLDEN["seg"]["backbone_non_block_state_dict"])


def _decoder_names_error() -> float:
    own = {
        name.removeprefix("decoder."): shape
        for name, shape in authors_shapes(_btcv()).items()
        if name.startswith("decoder.")
    }
    return shapes_error(own, GOLDEN["seg"]["decoder_state_dict"])


def _segmenter_count_error() -> float:
    model, golden = _btcv(), GOLDEN["seg"]
    return (
        abs(count(model.vit) + count(model.adapter) - golden["btcv_backbone_n_params"])
        + abs(count(model.decoder) - golden["btcv_decoder_n_params"])
        + abs(count(model.heads) - golden["btcv_seg_heads_n_params"])
    )


@torch.no_grad()
def _segmenter_maps_error() -> float:
    small = {"dim": 64, "depth": 4, "heads": 2, "position_grid": (12, 12, 12)}
    model = with_authors_weights(Segmenter(1, 14, small, blocks=(0, 1, 2, 3), kernel_da=2))
    golden, x = GOLDEN["seg"]["btcv_like"], golden_input(1, 1, 16, 32, 32)
    pyramid = [list(m.shape) for m in model.pyramid(x, 2)]
    decoded = [list(m.shape) for m in model.decoder_maps(x, 2)]
    finite = all(bool(m.isfinite().all()) for m in model.decoder_maps(x, 2))
    return float(
        (pyramid != golden["backbone_maps"])
        + (decoded[::-1] != golden["decoder_maps_coarse_to_fine"])
        + (not finite)
    )


def all_cases() -> list[Case]:
    """Give every case, by row."""
    return [
        *sac_cases(),
        *repeat_cases(),
        *import_cases(),
        *rope_cases(),
        *tokenizer_cases(),
        *vit_cases(),
        *eva_cases(),
        *mim_cases(),
        *segmenter_cases(),
        *loss_cases(),
        *crop_cases(),
        *decay_cases(),
    ]
