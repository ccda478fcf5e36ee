"""What the authors of PUMIT call the weights of our models."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from spad.checkpoints.importers.foreign import Plan, Slot
from spad.errors import SpadError
from spad.models.segmenter import Segmenter
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel, SpatialViT

_TO_QKV = "attn.qkv.weight"

_VIT = (
    (r"^patch_embedding\.", "patch_embed.proj."),
    (r"^position$", "pos_embed"),
    (r"\.attention\.query_bias$", ".attn.q_bias"),
    (r"\.attention\.value_bias$", ".attn.v_bias"),
    (r"\.attention\.projection\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.mlp\.gate\.", ".mlp.w1."),
    (r"\.mlp\.value\.", ".mlp.w2."),
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.mlp\.projection\.", ".mlp.w3."),
)
_TOKENIZER = (
    (r"^quantizer\.projection\.", "quantize.proj."),
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(encoder\.\d+)\.norm\.", r"\1.1."),
)
_SEGMENTER = (
    (r"^adapter\.norms\.", "backbone.norms."),
    (r"^adapter\.steps\.0\.", "backbone.fpn.0."),
    (r"^adapter\.steps\.1\.0\.", "backbone.fpn.1."),
    (r"^decoder\.encoder\.(\d+)\.", r"decoder.encode_layers.\1.blocks.0."),
    (r"^decoder\.laterals\.(\d+)\.0\.", r"decoder.inner.laterals.\1.conv."),
    (r"^decoder\.laterals\.(\d+)\.1\.", r"decoder.inner.laterals.\1.adn.N."),
    (r"^decoder\.ups\.([01])\.", r"decoder.decode_layers.\1."),
    (r"^decoder\.ups\.2\.", "decoder.inner.layers.0."),
    (r"^decoder\.ups\.3\.", "decoder.inner.layers.1."),
    (r"^decoder\.ups\.4\.", "decoder.inner.layers.2."),
    (r"\.mix\.", ".conv."),
    (r"\.conv(\d)\.weight$", r".conv\1.conv.weight"),
    (r"\.norm(\d)\.", r".conv\1.adn.N."),
    (r"^heads\.", "seg_heads."),
)
_DECODER_HEAD = 6
"""Modules of the tokenizer's decoder before its up-blocks, which the authors nest and we do not."""
_UP_BLOCK = 4
_UP_PARTS = ("transposed_conv.", "conv.0.", "conv.1.")


def plan(model: nn.Module) -> Plan:
    """Give the authors' name of every weight of one of our models.

    Args:
        model: a `Tokenizer`, `SpatialViT`, `MaskedImageModel` or `Segmenter`.

    Returns:
        The authors' name -> the place in our state dict; the authors keep queries, keys and
        values in three weights, we in one.

    Raises:
        SpadError: the authors have no such model.
    """
    rename = _renamer(model)
    places: Plan = {}
    for name in model.state_dict():
        theirs = rename(name)
        if theirs.endswith(_TO_QKV):
            stem = theirs.removesuffix("qkv.weight")
            for part, letter in enumerate("qkv"):
                places[f"{stem}{letter}_proj.weight"] = Slot(name, part, 3)
        else:
            places[theirs] = Slot(name)
    return places


def _renamer(model: nn.Module) -> Callable[[str], str]:
    if isinstance(model, Tokenizer):
        last = max(int(name.split(".")[1]) for name in model.decoder.state_dict(prefix="decoder."))
        return lambda name: _tokenizer_name(name, last)
    if isinstance(model, SpatialViT):
        return lambda name: _substitute(name, _VIT)
    if isinstance(model, MaskedImageModel):
        return _masked_name
    if isinstance(model, Segmenter):
        return _segmenter_name
    raise SpadError(
        f"There are no PUMIT names for a {type(model).__name__}; expected a tokenizer, a vision "
        "transformer, a masked-image model or a segmenter."
    )


def _tokenizer_name(name: str, last: int) -> str:
    place, _, index_and_rest = name.partition(".")
    if place != "decoder":
        return _substitute(name, _TOKENIZER)
    number, _, leaf = index_and_rest.partition(".")
    block, part = divmod(int(number) - _DECODER_HEAD, _UP_BLOCK)
    if block < 0:
        return name
    inner = "" if int(number) == last else _UP_PARTS[part]
    return f"decoder.{_DECODER_HEAD + block}.{inner}{leaf}"


def _masked_name(name: str) -> str:
    if name.startswith("vit."):
        return _substitute(name.removeprefix("vit."), _VIT)
    return re.sub(r"^head\.", "mim_head.", name)


def _segmenter_name(name: str) -> str:
    if name.startswith("vit."):
        return "backbone." + _substitute(name.removeprefix("vit."), _VIT)
    return _substitute(name, _SEGMENTER)


def _substitute(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
