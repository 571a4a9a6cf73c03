"""Labels that a segmentation keeps outside of its region, without anything that tells whose they are."""

from __future__ import annotations

from pathlib import Path

from medmae.errors import BadInput
from medmae.inference.base_labels import ENDINGS
from medmae.jobs.gathering import INPUTS, Gathering
from medmae.volumes import read_label, read_segments, write_label

FOLDER = f"{INPUTS}/base"


def gather_base(gathering: Gathering, base: Path, cases: int) -> str:
    """The label maps of the cases that travel; returns their path in the run folder.

    Raises:
        BadInput: there is none for a case, it cannot be read, or one file is given for several cases.
    """
    if not base.exists():
        raise BadInput(f"The labels to keep, {base}, do not exist. Check the path given with --base.")
    if base.is_file() and cases > 1:
        raise BadInput(f"{base} is one label map, but there are {cases} images. Give --base the folder that holds a "
                       "label map for each of them, as medmae segment writes it.")
    for name, case in gathering.cases.items():
        files = [base] if base.is_file() else [base / f"{case['output']}.{ending}" for ending in ENDINGS]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise BadInput(f"{base} holds no labels for {case['images'][0]}. Check --base.")
        # Runs look for the label map of a case under the name of its output, which is the path of its image.
        place = f"base/{INPUTS}/images/{name}.seg.nrrd"
        blob = gathering.staging.add_made(lambda path, found=found: _write_neutral(path, found), ".seg.nrrd")  # type: ignore[misc]
        gathering.add_blob(place, blob)
    return f"{FOLDER}/{INPUTS}/images/{next(iter(gathering.cases))}.seg.nrrd" if base.is_file() else FOLDER


def _write_neutral(path: Path, file: Path) -> None:
    labels = read_label(file)
    if labels.array.size and int(labels.array.min()) < 0:
        raise BadInput(f"The labels to keep, {file}, hold negative values. Give them positive ones.")
    segments = read_segments(file) if file.name.lower().endswith(".seg.nrrd") else ()
    write_label(path, labels.array[0], labels.geometry, segments, "seg.nrrd")
