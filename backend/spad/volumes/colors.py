"""One colour per organ name: stable between sessions, a pair of organs in two tones of one hue."""

from __future__ import annotations

import colorsys
import zlib

Rgba = tuple[float, float, float, float]

_ORGANS = {
    "spleen": "#a05ad6",
    "kidney": "#f2c200",
    "gallbladder": "#2fc45a",
    "esophagus": "#a5806a",
    "liver": "#c8603a",
    "stomach": "#f283b6",
    "aorta": "#ff2a2a",
    "inferior_vena_cava": "#3b6bff",
    "portal_and_splenic_veins": "#2cc6e0",
    "portal_and_splenic_vein": "#2cc6e0",
    "pancreas": "#ff9a2e",
    "adrenal_gland": "#7d9a1f",
    "duodenum": "#e8d3a2",
    "urinary_bladder": "#e5e04c",
    "lung": "#8fb8e8",
    "heart": "#d9485f",
    "tumour": "#ff00c8",
    "tumor": "#ff00c8",
    "lesion": "#ff00c8",
    "spine": "#f5ecd0",
    "masked": "#ffcc00",
}
_SIDES = ("right", "left")
_GOLDEN = 0.61803398875


def organ_color(name: str) -> Rgba:
    """Give the colour of an organ by its name.

    Args:
        name: such as "liver", "right_kidney" or "kidney_left"; case and spaces do not matter.

    Returns:
        Red, green, blue, alpha in 0..1; the left one of a pair is the lighter tone of its right.
    """
    base, side = _without_side(name)
    known = _ORGANS.get(base)
    red, green, blue = _from_hex(known) if known else _from_name(base)
    if side == "left":
        red, green, blue = ((1 + channel) / 2 for channel in (red, green, blue))
    return red, green, blue, 1.0


def color_of_name(name: str) -> Rgba:
    """Give a lively colour to any text; the same text always has the same."""
    return (*_from_name(name), 1.0)


def readable(name: str) -> str:
    """Give a label's name as a person reads it: "right_kidney" is "right kidney"."""
    return name.replace("_", " ")


def _without_side(name: str) -> tuple[str, str | None]:
    words = name.strip().lower().replace(" ", "_").split("_")
    for side in _SIDES:
        if side in words and len(words) > 1:
            return "_".join(word for word in words if word != side), side
    return "_".join(words), None


def _from_hex(text: str) -> tuple[float, float, float]:
    red, green, blue = (int(text[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _from_name(name: str) -> tuple[float, float, float]:
    code = zlib.crc32(name.encode())
    hue = (code % 4096) * _GOLDEN % 1
    lightness = (0.45, 0.6, 0.72)[code // 4096 % 3]
    return colorsys.hls_to_rgb(hue, lightness, 0.75)
