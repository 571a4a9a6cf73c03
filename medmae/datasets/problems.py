"""Problems of an input are collected and told together, so that one look repairs them all."""

from __future__ import annotations

from collections.abc import Iterable

from medmae.errors import BadInput

SHOWN_AT_MOST = 200


def raise_problems(problems: Iterable[str], what: str, remedy: str) -> None:
    """Raise one error that lists all `problems` of `what`, or return when there are none.

    Raises:
        BadInput: there is at least one problem.
    """
    found = list(dict.fromkeys(problems))
    if not found:
        return
    if len(found) == 1:
        raise BadInput(f"{what} cannot be used: {found[0]} {remedy}")
    lines = [f"  {number}. {problem}" for number, problem in enumerate(found[:SHOWN_AT_MOST], start=1)]
    if len(found) > SHOWN_AT_MOST:
        lines.append(f"  ... and {len(found) - SHOWN_AT_MOST} more.")
    raise BadInput(f"{what} cannot be used; {len(found)} problems were found:\n" + "\n".join(lines) + f"\n{remedy}")
