"""The text header of NRRD files, and writing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.compression import write_gzip
from medmae.volumes.geometry import Geometry

NRRD_TYPES = {"uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short",
              "uint32": "unsigned int", "int32": "int", "uint64": "unsigned long long", "int64": "long long",
              "float32": "float", "float64": "double"}
_HEADER_LIMIT_BYTES = 16_000_000


@dataclass(frozen=True)
class NrrdHeader:
    """Attributes: `basic` holds the "key: value" lines (keys in lower case), `fields` the "key:=value" lines."""

    basic: dict[str, str]
    fields: dict[str, str]


def read_nrrd_header(path: Path) -> NrrdHeader:
    """Read the header of an NRRD file.

    Raises:
        BadInput: the file is missing or not NRRD.
    """
    if not path.is_file():
        raise BadInput(f"{path} does not exist. Check the path.")
    with open(path, "rb") as file:
        if not file.readline(64).startswith(b"NRRD"):
            raise BadInput(f"{path} is not an NRRD file. Check that it was copied whole and has the right name.")
        basic, fields, size = {}, {}, 0
        for raw in file:
            size += len(raw)
            line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            if not line or size > _HEADER_LIMIT_BYTES:
                break
            if line.startswith("#"):
                continue
            colon = line.find(":")
            if line[colon:colon + 2] == ":=":
                fields[line[:colon]] = _unescaped(line[colon + 2:])
            elif colon > 0:
                basic[line[:colon].lower()] = line[colon + 1:].strip()
    return NrrdHeader(basic, fields)


def write_nrrd(path: Path, array: NDArray, geometry: Geometry, fields: Mapping[str, str]) -> None:
    """Write voxels (k, j, i) as a compressed NRRD in LPS with full precision; not atomic by itself."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine + 0.0  # + 0.0 turns -0 into 0
    lines = [
        "NRRD0004",
        f"type: {NRRD_TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(size) for size in array.shape[::-1]),
        "space directions: " + " ".join(nrrd_vector(lps[:3, column]) for column in range(3)),
        "kinds: domain domain domain",
        *([] if array.dtype.itemsize == 1 else ["endian: little"]),
        "encoding: gzip",
        f"space origin: {nrrd_vector(lps[:3, 3])}",
        *(f"{key}:={_escaped(value)}" for key, value in fields.items()),
    ]
    with open(path, "wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode("utf-8"))
        write_gzip(file, array)


def nrrd_vector(values: NDArray[np.float64]) -> str:
    """Numbers as NRRD writes them, with full precision."""
    return "(" + ",".join(f"{value:.17g}" for value in values) + ")"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(text: str) -> str:
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
