"""SNOMED CT codes for the names of labels, by pydicom's own dictionary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

_KNOWN = """
AdrenalGland Aorta Bladder Brain BrainStem Breast Cerebellum Clavicle Colon CommonIliacArtery
CommonIliacVein Duodenum Esophagus Eye Femur Gallbladder Heart Hippocampus Humerus IliacArtery
IliacVein InferiorVenaCava Kidney LeftAtrium LeftVentricle Liver Lung Mandible Pancreas
PortalVein Prostate PulmonaryArtery PulmonaryVein Rectum Rib RightAtrium RightVentricle Sacrum
Scapula Skin Skull SmallIntestine SpinalCord Spine Spleen SplenicVein Sternum Stomach
SuperiorVenaCava Thymus Thyroid Tibia Trachea Uterus Vertebra
"""
_ANATOMY = frozenset(_KNOWN.split())
_ABNORMAL = frozenset({"Cyst", "Lesion", "Mass", "Neoplasm", "Nodule", "Tumor"})
_ALIASES = {
    "brainstem": "BrainStem",
    "gall_bladder": "Gallbladder",
    "iliac_artery": "CommonIliacArtery",
    "iliac_vena": "CommonIliacVein",
    "inferior_vena_cava_ivc": "InferiorVenaCava",
    "ivc": "InferiorVenaCava",
    "oesophagus": "Esophagus",
    "portal_and_splenic_vein": "PortalVein",
    "portal_and_splenic_veins": "PortalVein",
    "portal_vein_and_splenic_vein": "PortalVein",
    "postcava": "InferiorVenaCava",
    "small_bowel": "SmallIntestine",
    "thyroid_gland": "Thyroid",
    "tumour": "Tumor",
    "urinary_bladder": "Bladder",
}
_VERTEBRA = re.compile(r"^vertebrae?_([clt]\d{1,2})$")
_SIDES = {"right": "Right", "left": "Left"}


class Property(NamedTuple):
    """What a segment is (PS3.3 C.8.20.4): category, type, and the side of a paired organ."""

    category: Code
    kind: Code
    side: Code | None


def property_of(name: str) -> Property:
    """Give the codes for a label's name.

    Args:
        name: such as "liver", "right_kidney", "Kidney left" or "vertebrae_L1".

    Returns:
        For a known organ the category Anatomical Structure and its code, for a lesion
        Morphologically Abnormal Structure and its code, for any other name Tissue and Organ; the
        side where a known organ's name states one.
    """
    from pydicom.sr.codedict import codes

    words = re.sub(r"[\s_-]+", "_", name.strip().lower()).split("_")
    sides = [word for word in words if word in _SIDES]
    whole = "_".join(words)
    base = "_".join(word for word in words if word not in _SIDES)
    for text, side in ((whole, None), (base, sides[0] if len(sides) == 1 else None)):
        keyword = _keyword(text)
        if keyword is not None:
            category = (
                codes.cid7150.MorphologicallyAbnormalStructure
                if keyword in _ABNORMAL
                else codes.cid7150.AnatomicalStructure
            )
            place = None if side is None else getattr(codes.cid244, _SIDES[side])
            return Property(category, getattr(codes.SCT, keyword), place)
    return Property(codes.cid7150.Tissue, codes.SCT.Organ, None)


def _keyword(text: str) -> str | None:
    """Give pydicom's keyword for a name in snake case, if it is known."""
    if text in _ALIASES:
        return _ALIASES[text]
    vertebra = _VERTEBRA.match(text)
    if vertebra:
        keyword = f"{vertebra[1].upper()}Vertebra"
        return keyword if _exists(keyword) else None
    keyword = "".join(word.capitalize() for word in text.split("_"))
    return keyword if keyword in _ANATOMY or keyword in _ABNORMAL else None


def _exists(keyword: str) -> bool:
    from pydicom.sr.codedict import codes

    return keyword in codes.SCT.dir(keyword)
