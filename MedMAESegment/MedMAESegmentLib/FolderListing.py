"""What a batch finds in a folder: its images, and which of them an earlier batch has segmented."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.inference.cases import FoundCase
from medmae.inference.config import SegmentConfig
from medmae.inference.manifest import MANIFEST, options_of, read_manifest
from medmae.volumes import find_images
from medmae.volumes.discovery import output_name
from MedMAESegmentLib.Translation import tr as _

FORMAT = "seg.nrrd"


@dataclass(frozen=True)
class FolderImage:
    """An image of a folder.

    name - Its path within the folder.
    path - The file, or the folder of a DICOM series.
    output - The file of its result.
    seconds - What an earlier batch took for it; None: it is not done yet, or has changed since.
    """

    name: str
    path: Path
    output: Path
    seconds: float | None = None


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder, and what there is of their results.

    folder - With the images, without links; itself an image where it holds a DICOM series.
    out - For the results.
    images - In the order in which they are segmented.
    options - What the results depend on besides the images, as the engine notes it beside them.
    difference - In which choices the results that are there differ from `options`; "" where they do not.
    """

    folder: Path
    out: Path
    images: list[FolderImage]
    options: dict[str, Any] = field(default_factory=dict)
    difference: str = ""


def defaultOutput(folder: Path, info: Any) -> Path:
    """Where the results of a model go when nobody says otherwise."""
    return folder / f"MedMAE {info.name}".replace("/", "_").replace("\\", "_") if info.name else folder / "MedMAE"


def listFolder(folder: Path, out: Path, info: Any, settings: dict[str, Any]) -> FolderListing:
    """Look what is to be done. Takes as long as the disk: not for the main thread.

    Args:
        folder: is searched with its subfolders; results of MedMAE in it are passed over.
        out: for the results.
        info: the model's `medmae.models.ModelInfo`.
        settings: of the engine, without the format.

    Raises:
        ValueError, medmae.errors.BadInput: nothing can be done with these folders; why, and what to do.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - where one may not look, too
        raise ValueError(_("There is no folder {folder}. Choose another one.").format(folder=folder))
    refuseUnwritable(out)
    real = Path(os.path.realpath(folder))  # as the engine notes it
    images, passedOver = _imagesOf(real, Path(os.path.realpath(out)))
    if not images:
        text = _("All images of {folder} lie in {out}, where the results go. Choose another folder for the results."
                 ) if passedOver else _("There are no images in {folder}. Choose another folder.")
        raise ValueError(text.format(folder=folder, out=out))
    config = to_json(from_json(SegmentConfig, {**settings, "format": FORMAT}, "settings"))
    options = options_of("segment", config, [info], base=None, cleaned=info.postprocessing)
    header, records = read_manifest(out / MANIFEST)
    if header is None and _holdsFiles(out):
        raise ValueError(_("The folder {folder} is not empty, and what is in it is not of a batch of MedMAE. Choose "
                           "another or an empty folder, so that nothing is overwritten.").format(folder=out))
    difference = _difference(header["options"], options) if header is not None else ""
    known = [(real / name, records[stem]) for name, stem in images if stem in records]
    if not difference and any(record["images"] != [str(path)] for path, record in known):
        difference = _("images in another place")  # the folder was moved, or is another drive now
    done = {} if difference else records
    return FolderListing(real, out, [
        FolderImage(name, real / name, out / f"{stem}.{FORMAT}", _secondsOf(done.get(stem), real / name, stem, out))
        for name, stem in images], options, difference)


def refuseUnwritable(out: Path) -> None:
    """Refuse a folder that cannot be made or written.

    Raises:
        ValueError: why.
    """
    there = next(folder for folder in (out, *out.parents) if os.path.exists(folder))  # noqa: PTH110 - asks, never fails
    if not there.is_dir():
        raise ValueError(_("{file} is a file, so that the folder {folder} cannot be made. Choose another one.").format(
            file=there, folder=out))
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(_("You may not write into {folder}. Choose another folder for the results.").format(
            folder=there))


def _imagesOf(folder: Path, out: Path) -> tuple[list[tuple[str, str]], bool]:
    """The path of each image within the folder, what its result is called, and whether results were passed over."""
    prefix = output_name(folder)
    images, passedOver, seen = [], False, {}
    for found in find_images([folder]):
        name = found.path.relative_to(folder)
        inside = (folder / parent for parent in (*reversed(name.parents), name))
        if any(_isOfResults(each, out, folder, seen) for each in inside):
            passedOver = True
        else:
            stem = found.output_name.removeprefix(f"{prefix}/") if name.parts else folder.name
            images.append((str(name), stem))
    return images, passedOver


def _isOfResults(path: Path, out: Path, folder: Path, seen: dict[Path, bool]) -> bool:
    """Whether a folder is that of the results, or of those of another model."""
    if path not in seen:
        seen[path] = path == out or out in path.parents or (path != folder and (path / MANIFEST).is_file())
    return seen[path]


def _secondsOf(record: dict[str, Any] | None, path: Path, stem: str, out: Path) -> float | None:
    if record is None or record["images"] != [str(path)] or record["stamp"] != FoundCase((path,), stem).stamp():
        return None
    isWhole = all((out / name).is_file() for name in record["files"])
    return float(record["result"].get("seconds", 0.0)) if isWhole else None


def _holdsFiles(out: Path) -> bool:
    return out.is_dir() and any(path.is_file() and not path.name.startswith(".") for path in out.rglob("*"))


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    words = {"model": _("another model, or version of it"), "mirror": _("mirroring"), "uncertainty": _("uncertainty"),
             "largest_component": _("largest component"), "cleaned": _("another cleaning of labels")}
    return ", ".join(words.get(name, name) for name in names)
