"""Golden cases of training: losses and discriminator (7), crops (12), weight decay (13)."""

from __future__ import annotations

import functools

import torch
from golden_models import SMALL_VIT, Case, authors_shapes, count, filled, shapes_error, tokenizer
from golden_rule import GOLDEN, golden_input, stats_error
from torch import nn

from spad.checkpoints.importers.names import plan
from spad.data.samples import token_crop
from spad.losses.adversarial import critic_loss, generator_loss
from spad.losses.prior import prior_terms
from spad.models.discriminator import PatchDiscriminator
from spad.models.vit import SpatialViT
from spad.training.optimisers import parameter_groups
from spad.volumes.anisotropy import degree_of_anisotropy

DISCRIMINATOR_DEPTHS = {0: 32, 2: 8, 5: 1}
SMALL_TOKENS = {"tokenizer": (4, 8), "vit": (5, 10)}


@functools.cache
def discriminator() -> PatchDiscriminator:
    return filled(PatchDiscriminator()).eval()  # type: ignore[return-value]


def loss_cases() -> list[Case]:
    terms = ("rec_loss", "quant_loss", "entropy", "vq_loss", "gan_loss", "loss")
    return [
        Case(7, "discriminator: names and shapes", 0, _names_error),
        Case(7, "discriminator: parameters", 0, _count_error),
        *(
            Case(7, f"discriminator da {da}", 1e-4, functools.partial(_scores_error, da))
            for da in DISCRIMINATOR_DEPTHS
        ),
        *(Case(7, f"losses: {t}", 1e-4, functools.partial(_term_error, t)) for t in terms),
        Case(7, "losses: disc_loss", 1e-4, lambda: _off("disc_loss", GOLDEN["losses"])),
    ]


def _names_error() -> float:
    found = {name: list(p.shape) for name, p in discriminator().state_dict().items()}
    return shapes_error(found, GOLDEN["losses"]["disc_state_dict"])


def _count_error() -> float:
    return abs(count(discriminator()) - GOLDEN["losses"]["disc_n_params"])


@torch.no_grad()
def _scores_error(da: int) -> float:
    x = golden_input(1, 3, DISCRIMINATOR_DEPTHS[da], 32, 32) * 2 - 1
    return stats_error(discriminator()(x, da), GOLDEN["losses"][f"disc_da{da}"])


@functools.cache
@torch.no_grad()
def _terms() -> dict[str, float]:
    """Each term on one scan; the perceptual one is the authors' number, see the golden file."""
    x = golden_input(1, 3, 8, 32, 32) * 2 - 1
    found = tokenizer()(x, 2)
    prior = prior_terms(found.logits)
    terms = {
        "rec_loss": float((found.image - x).abs().mean()),
        "quant_loss": -float(prior.usage_entropy),
        "entropy": float(prior.entropy),
        "gan_loss": float(generator_loss(discriminator()(found.image, 2))),
        "disc_loss": float(critic_loss(discriminator()(x, 2), discriminator()(found.image, 2))),
    }
    perceptual = GOLDEN["losses"]["gen_log"]["perceptual_loss"]
    terms["vq_loss"] = terms["rec_loss"] + perceptual + 0.03 * terms["quant_loss"]
    terms["vq_loss"] += 1.0 * terms["entropy"]
    terms["loss"] = terms["vq_loss"] + 3e-3 * terms["gan_loss"]
    return terms


def _term_error(term: str) -> float:
    return _off(term, GOLDEN["losses"]["gen_log"])


def _off(term: str, golden: dict[str, float]) -> float:
    return abs(_terms()[term] - golden[term])


def crop_cases() -> list[Case]:
    return [
        Case(12, f"{kind}: crop and da at ratio {ratio}", 0, functools.partial(_crop_error, *pair))
        for kind, ratios in GOLDEN["sampler"].items()
        for ratio in ratios
        for pair in [(kind, ratio)]
    ]


def _crop_error(kind: str, ratio: str) -> float:
    golden = GOLDEN["sampler"][kind][ratio]
    da = degree_of_anisotropy((float(ratio), 1.0, 1.0))
    same = da == golden["aniso_d"] and list(token_crop(da, SMALL_TOKENS[kind])) == golden["size"]
    return 0.0 if same else 1.0


def decay_cases() -> list[Case]:
    return [
        Case(13, f"{name}: weights that do not decay", 0, functools.partial(_decay_error, name))
        for name in GOLDEN["param_groups"]
    ]


def _decay_error(name: str) -> float:
    """Count the authors' names that are in the wrong group."""
    one_block = SMALL_VIT | {"depth": 1}
    model: nn.Module = SpatialViT(**one_block) if name == "vit" else tokenizer()
    golden = GOLDEN["param_groups"][name]
    free = {id(p) for p in parameter_groups(model, 0.05)[1]["params"]}
    ours = {n for n, p in model.named_parameters() if id(p) in free}
    theirs = {theirs for theirs, slot in plan(model).items() if slot.name in ours}
    wanted = set(golden["no_decay_keys"])
    assert golden["decay"] + golden["no_decay"] == len(authors_shapes(model))
    return float(len(theirs ^ wanted))
