"""What a target says, taken as a stranger's: texts that steer no terminal, numbers that can be written and shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST_NUMBER = 1e15
LONGEST_TEXT = 10_000
DEEPEST = 16


def printable(text: str) -> str:
    """`text` without control characters other than line breaks and tabs."""
    return "".join(letter for letter in text if letter in "\n\t" or (letter.isprintable() or letter == "\u00a0"))


def sound(value: Any, depth: int = 0) -> Any:
    """JSON data with printable texts, and None for numbers that JSON does not know, that are absurd, or too deep."""
    if isinstance(value, str):
        return printable(value[:LONGEST_TEXT])
    if isinstance(value, (bool, int, float)):
        return value if abs(value) < LARGEST_NUMBER else None
    if depth < DEEPEST and isinstance(value, list):
        return [sound(one, depth + 1) for one in value]
    if depth < DEEPEST and isinstance(value, dict):
        return {printable(str(key)[:LONGEST_TEXT]): sound(one, depth + 1) for key, one in value.items()}
    return None


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """A text for a person; None stays None."""
    return None if value is None else printable(str(value)[:LONGEST_TEXT])


def whole(value: Any) -> int | None:
    """A count; None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_NUMBER else None


def seconds(value: Any) -> float | None:
    """A time that is left; None for what is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < LARGEST_NUMBER else None


def progress(record: Any) -> dict[str, Any]:
    """A record of progress for a display: counts are counts, and everything else can be shown."""
    checked = dict(mapping(sound(record)))
    for name in checked.keys() & {"step", "total", "case", "cases"}:
        checked[name] = whole(checked[name])
    if "eta_s" in checked:
        checked["eta_s"] = seconds(checked["eta_s"])
    return checked
