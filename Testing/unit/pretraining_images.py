"""Images of every kind, good and bad, and corpora made of them, for the tests of pretraining data."""

from __future__ import annotations

import csv
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from volume_builders import write_nifti

from medmae.datasets import Corpus
from medmae.datasets.preprocessing import Preprocessing
from medmae.pretraining.image_preparation import Recipe
from medmae.pretraining.preparation import Preparation
from medmae.run_folder import RunFolder
from medmae.volumes import Intensity

RECIPE = Recipe("vis-mae", Preprocessing(2, "LPS", None, (32, 32), (Intensity("robust"),)))


def texture(seed: int, *shape: int, high: int = 200) -> np.ndarray:
    """Blobs on a dark ground; every seed another picture."""
    generator = np.random.default_rng(seed)
    array = np.zeros(shape)
    array[..., shape[-2] // 4:3 * shape[-2] // 4, shape[-1] // 4:3 * shape[-1] // 4] = high
    return array * generator.uniform(0.4, 1, shape)


def write(path: Path, array: np.ndarray, *, colour: bool = False, modality: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=colour)
    if modality:
        image.SetMetaData("0008|0060", modality)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.KeepOriginalImageUIDOn()
    writer.Execute(image)
    return path


def grey(path: Path, seed: int, shape: tuple[int, ...] = (40, 48), **more: Any) -> Path:
    return write(path, texture(seed, *shape).astype(np.uint8), **more)


def write_grey_alpha(path: Path, array: np.ndarray) -> Path:
    """A PNG with grey and alpha, made byte by byte (SimpleITK cannot write it)."""
    pixels = np.stack([array, np.full_like(array, np.iinfo(array.dtype).max)], -1).astype(array.dtype.newbyteorder(">"))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 8 * array.itemsize, 4, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
                     + chunk(b"IEND", b""))
    return path


def write_palette(path: Path, array: np.ndarray) -> Path:
    from PIL import Image

    picture = Image.fromarray(array)
    picture.putpalette([value for number in range(256) for value in (number, 0, 255 - number)])
    picture.save(path)
    return path


def cut(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    return path


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def prepare(folder: Path, sources: Any, workers: int = 0, recipe: Recipe = RECIPE) -> Corpus:
    run_folder = RunFolder(folder.parent / f"run of {folder.name}")
    run_folder.path.mkdir(exist_ok=True)
    return Preparation(folder, sources, recipe, workers, run_folder).execute()[0]


def a_mix(folder: Path) -> dict[str, str]:
    """Write good images of every kind into `folder`; returns file name to the modality that must be found."""
    folder.mkdir(parents=True, exist_ok=True)
    grey(folder / "grey8.png", 1)
    write(folder / "grey16.png", texture(2, 40, 48, high=60000).astype(np.uint16))
    colours = np.stack([texture(seed, 40, 48) for seed in (3, 4, 5)], -1).astype(np.uint8)
    write(folder / "colour.png", colours, colour=True)
    write(folder / "grey as colour.png", np.repeat(texture(6, 40, 48).astype(np.uint8)[..., None], 3, -1), colour=True)
    write_grey_alpha(folder / "alpha8.png", texture(7, 40, 48).astype(np.uint8))
    write_grey_alpha(folder / "alpha16.png", texture(8, 40, 48, high=60000).astype(np.uint16))
    write_palette(folder / "palette.png", texture(9, 40, 48).astype(np.uint8))
    grey(folder / "photo.jpg", 10)
    grey(folder / "scan.tif", 11)
    grey(folder / "pages.tiff", 12, (3, 40, 48))
    write(folder / "ultrasound.dcm", texture(13, 40, 48).astype(np.uint8), modality="US")
    write(folder / "ct.nii.gz", (texture(14, 6, 40, 48) * 10 - 1000).astype(np.int16))
    write(folder / "mr.nrrd", texture(15, 6, 40, 48).astype(np.int16))
    write(folder / "series.nii", texture(16, 3, 5, 40, 48).astype(np.int16))
    return {"grey8.png": "DX", "grey16.png": "DX", "colour.png": "OT", "grey as colour.png": "DX", "alpha8.png": "DX",
            "alpha16.png": "DX", "palette.png": "DX", "photo.jpg": "DX", "scan.tif": "DX", "pages.tiff": "DX",
            "ultrasound.dcm": "US", "ct.nii.gz": "CT", "mr.nrrd": "MR", "series.nii": "MR"}


def bad_ones(folder: Path) -> dict[str, str]:
    """Write images that cannot be used; returns file name to what the reason must say."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.png").write_text("Dear colleague")
    (folder / "zero.png").write_bytes(b"")
    (folder / "old.dcm").write_bytes(b"DICM?")
    for number, name in enumerate(("cut.png", "cut.jpg", "cut.tif", "cut.nii.gz")):
        cut(grey(folder / name, 30 + number, (40, 48) if "nii" not in name else (4, 40, 48)))
    grey(folder / "pixel.png", 40, (1, 1))
    write(folder / "constant.png", np.full((40, 48), 77, np.uint8))
    write(folder / "black.nii.gz", np.full((4, 40, 48), -1024, np.int16))
    write(folder / "nan.nii.gz", np.full((4, 40, 48), np.nan, np.float32))
    grey(folder / "strip.png", 41, (9, 400))
    write_nifti(folder / "complex.nii", texture(42, 4, 40, 48).astype(np.complex64), sform=None)
    return {"text.png": "not a .png", "zero.png": "zero bytes", "old.dcm": "not an image of a known type|damaged",
            "cut.png": "damaged", "cut.jpg": "incomplete", "cut.tif": "damaged", "cut.nii.gz": "incomplete",
            "pixel.png": "only 1 x 1 pixels",
            "constant.png": "all its pixels have the value 77", "black.nii.gz": "empty",
            "nan.nii.gz": "no finite value", "strip.png": "too narrow", "complex.nii": "complex"}


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
