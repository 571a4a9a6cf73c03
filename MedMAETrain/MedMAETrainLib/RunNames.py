"""What a run elsewhere says of its cases, which have neutral names there, with the names that they have here."""

from __future__ import annotations

import re
from pathlib import Path

from medmae.files import read_json

_CASES_FILE = "cases.json"  # in the mirror of a job: what its neutral names mean
# Cases of projects are called so, too: what stands in a path is own already.
_NEUTRAL = re.compile(r"(?<![\w/.-])case-\d{4,}(?![\w/-]|\.\w)")


def ownNames(folder: Path, text: str) -> str:
    """A text that a run has written, whose mirror is in `folder`; of a run of this computer as it is."""
    if "case-" not in text or not (folder / _CASES_FILE).is_file():
        return text
    from medmae.jobs.restoring import own_names_in

    cases = read_json(folder / _CASES_FILE, "record of the cases")["cases"]
    return _NEUTRAL.sub(lambda found: str(cases.get(found[0], {}).get("id") or found[0]), own_names_in(folder, text))
