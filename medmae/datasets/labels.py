"""The label map and the channels of a ``dataset.json``, in every form found in the wild."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

# Names seen in Decathlon, nnU-Net and BraTS files; the default normalisation is chosen by the DICOM code.
DICOM_CODES = {
    "CT": "CT", "CTA": "CT", "CBCT": "CT", "NONE": "", "MR": "MR", "MRI": "MR", "T1": "MR", "T1W": "MR", "T1GD": "MR",
    "T1GDW": "MR", "T1C": "MR", "T1CE": "MR", "T1N": "MR", "T2": "MR", "T2W": "MR", "T2F": "MR", "FLAIR": "MR",
    "ADC": "MR", "DWI": "MR", "PD": "MR", "PT": "PT", "PET": "PT", "FDG": "PT", "SUV": "PT", "DX": "DX", "CR": "CR",
    "XRAY": "DX", "X-RAY": "DX", "CXR": "DX", "RADIOGRAPHY": "DX", "MG": "MG", "US": "US", "ULTRASOUND": "US",
}

HIGHEST_VALUE = 2**31 - 1


def dicom_code(name: str) -> str:
    """The DICOM modality code of a channel name ("MRI", "T2w" → MR); an unknown name is kept in capitals."""
    plain = name.strip().upper()
    return DICOM_CODES.get(plain) or DICOM_CODES.get(plain.replace("-", "").replace("_", "")) or plain


def parse_labels(raw: Any, task: str | None, problems: list[str]) -> dict[str, int]:
    """Name to stored value from either direction; ascending values, the background of a segmentation first.

    A segmentation without a background gets ``background: 0``.
    """
    if raw is None:
        if task is not None:
            problems.append("'labels' is missing; it maps each label's name to its stored value.")
        return {}
    if isinstance(raw, list) and raw and all(isinstance(name, str) for name in raw):
        raw = {name: value for value, name in enumerate(raw)}
    if not isinstance(raw, dict) or not raw:
        problems.append("'labels' must be an object that maps names to stored values (or values to names).")
        return {}
    labels = _pairs(raw, problems)
    labels = dict(sorted(labels.items(), key=lambda pair: pair[1]))
    for value, count in Counter(labels.values()).items():
        if count > 1:
            names = ", ".join(name for name, other in labels.items() if other == value)
            problems.append(f"'labels' gives the value {value} to several names ({names}).")
    if task != "segmentation" or not labels:
        return labels
    labels = _background_first(labels)
    _check_stored_values(labels, problems)
    return labels


def _check_stored_values(labels: dict[str, int], problems: list[str]) -> None:
    """Label maps are written with these values, so files must be able to hold them."""
    background = next(iter(labels))
    zero = [name for name, value in labels.items() if value == 0 and name != background]
    if zero:
        problems.append(f"'labels' gives '{zero[0]}' the value 0, which is the background of label maps, and the "
                        f"background {labels[background]}. Change the values in the label maps and here.")
    for name, value in labels.items():
        if not 0 <= value <= HIGHEST_VALUE:
            problems.append(f"'labels' gives '{name}' the value {value}; label maps hold values from 0 to "
                            f"{HIGHEST_VALUE}. Change it in the label maps and here.")


def _pairs(raw: dict[str, Any], problems: list[str]) -> dict[str, int]:
    by_value = all(_is_integer_text(key) for key in raw) and any(isinstance(value, str) for value in raw.values())
    labels: dict[str, int] = {}
    for key, value in raw.items():
        name, number = (value, int(key)) if by_value else (key, value)
        if not isinstance(name, str) or not name.strip():
            problems.append(f"'labels' gives {key!r} the name {name!r}; a name is needed.")
        elif isinstance(number, bool) or not isinstance(number, int):
            problems.append(f"'labels' gives '{name}' the value {number!r}; one whole number is needed.")
        elif name in labels:
            problems.append(f"'labels' uses the name '{name}' twice.")
        else:
            labels[name] = number
    return labels


def _is_integer_text(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal() and text.isascii()


def _background_first(labels: dict[str, int]) -> dict[str, int]:
    named = [name for name in labels if name.strip().lower() == "background"]
    zero = [name for name, value in labels.items() if value == 0]
    if not named and not zero:
        return {"background": 0, **labels}
    first = (named or zero)[0]
    return {first: labels[first], **{name: value for name, value in labels.items() if name != first}}


def parse_looks(raw: Any, labels: Mapping[str, int], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Colours and terms of labels by name, from {name: {"color": [r, g, b], "terminology": {...}}}; both are optional.
    """
    looks: dict[str, dict[str, Any]] = {}
    for name, look in (raw if isinstance(raw, dict) else {"": raw}).items():
        color = look.get("color") if isinstance(look, dict) else None
        terminology = look.get("terminology") if isinstance(look, dict) else None
        if name not in labels or not isinstance(look, dict):
            problems.append(f"'looks' must give names of 'labels' a colour and terms, but it has {name!r}: {look!r}.")
        elif color is not None and not _is_color(color):
            problems.append(f"'looks' gives '{name}' the colour {color!r}; three numbers from 0 to 1 are needed.")
        elif terminology is not None and not _is_terminology(terminology):
            problems.append(f"'looks' gives '{name}' terms that are not lists of scheme, code and meaning.")
        else:
            looks[name] = {key: value for key, value in (("color", color), ("terminology", terminology)) if value}
    return looks


def _is_color(color: Any) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(
        isinstance(part, (int, float)) and not isinstance(part, bool) and 0 <= part <= 1 for part in color)


def _is_terminology(terms: Any) -> bool:
    return isinstance(terms, dict) and all(
        isinstance(term, list) and len(term) == 3 and all(isinstance(part, str) for part in term)
        for term in terms.values())


def parse_modalities(data: dict[str, Any], problems: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Channel names as written and their DICOM codes, from ``channel_names`` or ``modality``.

    Each may be an object {"0": name, ...}, a list of names or one name.
    """
    given = {key: _channels(data[key], key, problems) for key in ("channel_names", "modality") if key in data}
    distinct = {tuple(map(dicom_code, names)) for names in given.values()}
    if len(distinct) > 1:
        problems.append("'modality' and 'channel_names' say different things; give one of them.")
    names = next(iter(given.values()), ())
    return names, tuple(map(dicom_code, names))


def _channels(raw: Any, key: str, problems: list[str]) -> tuple[str, ...]:
    if isinstance(raw, str) and raw.strip():
        raw = [raw]
    if isinstance(raw, dict):
        if sorted(raw) != sorted(map(str, range(len(raw)))):
            problems.append(f"'{key}' must number its channels \"0\", \"1\", ...; found {', '.join(map(str, raw))}.")
            return ()
        raw = [raw[str(number)] for number in range(len(raw))]
    if not isinstance(raw, list) or not raw or not all(isinstance(name, str) and name.strip() for name in raw):
        problems.append(f"'{key}' must name the channels, for instance {{\"0\": \"CT\"}}.")
        return ()
    return tuple(raw)
