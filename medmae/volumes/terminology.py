"""SNOMED CT terms of segments, and Slicer's text form of them.

A terminology is JSON: ``{"category": [scheme, code, meaning], "type": [...], "type_modifier": [...] (optional),
"region": [...] (optional), "region_modifier": [...] (optional)}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Terminology = dict[str, list[str]]

_CATEGORY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_STRUCTURE = ["SCT", "123037004", "Anatomical Structure"]
_TISSUE = ["SCT", "85756007", "Tissue"]
_ALTERED = ["SCT", "49755003", "Morphologically Altered Structure"]
UNSPECIFIED: Terminology = {"category": _TISSUE, "type": _TISSUE}  # as in new segments of Slicer
_SIDES = {"left": ["SCT", "7771000", "Left"], "right": ["SCT", "24028007", "Right"]}

# name: (category, code, meaning, colour 0..255); colours are near those that Slicer recommends for the structure.
_TERMS: dict[str, tuple[list[str], str, str, tuple[int, int, int]]] = {
    "adrenal gland": (_STRUCTURE, "23451007", "Adrenal gland", (249, 186, 150)),
    "aorta": (_STRUCTURE, "15825003", "Aorta", (224, 97, 76)),
    "bone": (_TISSUE, "272673000", "Bone", (241, 214, 145)),
    "brain": (_STRUCTURE, "12738006", "Brain", (250, 250, 225)),
    "breast": (_STRUCTURE, "76752008", "Breast", (255, 200, 180)),
    "colon": (_STRUCTURE, "71854001", "Colon", (204, 168, 143)),
    "duodenum": (_STRUCTURE, "38848004", "Duodenum", (255, 253, 229)),
    "edema": (_ALTERED, "79654002", "Edema", (140, 224, 228)),
    "esophagus": (_STRUCTURE, "32849002", "Esophagus", (211, 171, 143)),
    "femur": (_STRUCTURE, "71341001", "Femur", (255, 238, 170)),
    "gallbladder": (_STRUCTURE, "28231008", "Gallbladder", (139, 150, 98)),
    "heart": (_STRUCTURE, "80891009", "Heart", (206, 110, 84)),
    "hippocampus": (_STRUCTURE, "5366008", "Hippocampus", (208, 168, 96)),
    "inferior vena cava": (_STRUCTURE, "64131007", "Inferior vena cava", (0, 151, 206)),
    "kidney": (_STRUCTURE, "64033007", "Kidney", (185, 102, 83)),
    "lesion": (_ALTERED, "52988006", "Lesion", (144, 238, 144)),
    "left atrium": (_STRUCTURE, "82471001", "Left atrium", (200, 96, 120)),
    "left ventricle": (_STRUCTURE, "87878005", "Left ventricle", (220, 70, 90)),
    "liver": (_STRUCTURE, "10200004", "Liver", (221, 130, 101)),
    "lung": (_STRUCTURE, "39607008", "Lung", (197, 165, 145)),
    "mass": (_ALTERED, "4147007", "Mass", (144, 238, 144)),
    "muscle": (_TISSUE, "71616004", "Muscle", (192, 104, 88)),
    "necrosis": (_ALTERED, "6574001", "Necrosis", (216, 191, 216)),
    "nodule": (_ALTERED, "27925004", "Nodule", (150, 210, 120)),
    "pancreas": (_STRUCTURE, "15776009", "Pancreas", (249, 180, 111)),
    "portal vein": (_STRUCTURE, "32764006", "Portal vein", (0, 120, 190)),
    "prostate": (_STRUCTURE, "41216001", "Prostate", (230, 158, 140)),
    "rectum": (_STRUCTURE, "34402009", "Rectum", (190, 140, 120)),
    "rib": (_STRUCTURE, "113197003", "Rib", (253, 232, 158)),
    "right ventricle": (_STRUCTURE, "53085002", "Right ventricle", (90, 120, 200)),
    "small intestine": (_STRUCTURE, "30315005", "Small intestine", (205, 167, 142)),
    "spinal cord": (_STRUCTURE, "2748008", "Spinal cord", (244, 214, 49)),
    "spleen": (_STRUCTURE, "78961009", "Spleen", (157, 108, 162)),
    "sternum": (_STRUCTURE, "56873002", "Sternum", (244, 217, 154)),
    "stomach": (_STRUCTURE, "69695003", "Stomach", (216, 132, 105)),
    "thyroid gland": (_STRUCTURE, "69748006", "Thyroid gland", (62, 162, 114)),
    "trachea": (_STRUCTURE, "44567001", "Trachea", (182, 228, 255)),
    "urinary bladder": (_STRUCTURE, "89837001", "Urinary bladder", (222, 154, 132)),
    "uterus": (_STRUCTURE, "35039007", "Uterus", (220, 140, 170)),
    "vertebra": (_STRUCTURE, "51282000", "Vertebra", (226, 202, 134)),
}
_SYNONYMS = {
    "bladder": "urinary bladder", "gall bladder": "gallbladder", "oesophagus": "esophagus", "thyroid": "thyroid gland",
    "small bowel": "small intestine", "adrenal": "adrenal gland", "postcava": "inferior vena cava",
    "ivc": "inferior vena cava", "tumor": "mass", "tumour": "mass", "gtv": "mass", "oedema": "edema",
    "cord": "spinal cord", "hippocampal": "hippocampus", "lungs": "lung", "kidneys": "kidney",
}


def terminology_of(name: str) -> Terminology | None:
    """The terms of a common structure by its English name, with its side ("left kidney", "kidney_left", "Lung R").

    None for names that are not in the small table; a wrong code is worse than none.
    """
    found = _look_up(name)
    if found is None:
        return None
    (category, code, meaning, _), side = found
    terminology = {"category": list(category), "type": ["SCT", code, meaning]}
    if side is not None:
        terminology["type_modifier"] = list(_SIDES[side])
    return terminology


def color_of(name: str) -> tuple[float, float, float] | None:
    """The usual colour (red, green, blue; 0..1) of a common structure; None for other names."""
    found = _look_up(name)
    if found is None:
        return None
    red, green, blue = found[0][3]
    return red / 255, green / 255, blue / 255


def to_slicer_text(terminology: Mapping[str, Any] | None) -> str:
    """Slicer's serialised terminology entry; without terms plain "Tissue"."""
    terminology = terminology or UNSPECIFIED
    category, kind, modifier, region, region_modifier = (
        "^".join(_clean(part) for part in terminology.get(key) or ("", "", ""))
        for key in ("category", "type", "type_modifier", "region", "region_modifier"))
    return "~".join([_CATEGORY_CONTEXT, category, kind, modifier, _REGION_CONTEXT, region, region_modifier])


def from_slicer_text(text: str) -> Terminology | None:
    """The terminology of Slicer's serialised entry; None when it has no usable type or is just "Tissue"."""
    parts = text.split("~")
    if len(parts) < 3:
        return None
    parts += [""] * (7 - len(parts))
    keys = {"category": 1, "type": 2, "type_modifier": 3, "region": 5, "region_modifier": 6}
    terms = {key: parts[index].split("^") for key, index in keys.items()}
    terminology = {key: term for key, term in terms.items() if len(term) == 3 and term[1]}
    if "category" not in terminology or "type" not in terminology:
        return None
    return None if terminology == UNSPECIFIED else terminology


def _look_up(name: str) -> tuple[tuple[list[str], str, str, tuple[int, int, int]], str | None] | None:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-.,]+", " ", name).lower().split()
    if " ".join(words) in _TERMS:
        return _TERMS[" ".join(words)], None
    side = None
    rest: Sequence[str] = words
    for word, meaning in (("left", "left"), ("right", "right"), ("l", "left"), ("r", "right")):
        if len(words) > 1 and words.count(word) == 1 and word in (words[0], words[-1]):
            side, rest = meaning, [other for other in words if other != word]
            break
    plain = " ".join(rest)
    plain = _SYNONYMS.get(plain, plain)
    return (_TERMS[plain], side) if plain in _TERMS else None


def _clean(part: Any) -> str:
    """Without the characters that separate the parts of the text form."""
    return re.sub(r"[~^|\r\n]", " ", str(part))
