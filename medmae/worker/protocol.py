"""What may be asked of the worker: one frozen dataclass a request, strict JSON (docs/worker.md).

Reading this needs neither torch nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medmae.config import from_json
from medmae.errors import BadInput
from medmae.inference.config import ClassifyConfig, Precision, SegmentConfig

PROTOCOL = 1
LONGEST_LINE = 2**20
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
MOST_VOXELS = 2**34


class BadRequest(Exception):
    """A message that does not follow the protocol; the text says why and what would."""


def _check_voxels(dtype: str, shape: tuple[int, ...]) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if len(shape) not in (3, 4) or min(shape) < 1 or math.prod(shape) > MOST_VOXELS:
        raise ValueError(f"shape {list(shape)} is not of a volume: give (k, j, i) or (C, k, j, i)")


@dataclass(frozen=True)
class Buffer:
    """Raw little-endian voxels that both processes see.

    Exactly one of path (a file) and shared_memory (the name of a POSIX shared memory object, or of a mapping on
    Windows); dtype: one of `DTYPES`; shape: (k, j, i), or (C, k, j, i); offset: bytes before the first voxel.
    """

    dtype: str
    shape: tuple[int, ...]
    path: str | None = None
    shared_memory: str | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if (self.path is None) == (self.shared_memory is None):
            raise ValueError("name either a path or a shared_memory")
        _check_voxels(self.dtype, self.shape)
        if self.offset < 0:
            raise ValueError("offset must not be negative")


@dataclass(frozen=True)
class Image:
    """An image: a file that MedMAE reads, or voxels in a buffer.

    path: a file or a DICOM folder; frame: of a 4-D file, from 0. Or buffer, with the affine, 4 rows of 4, that maps
    (i, j, k, 1) to RAS mm; channels_last: its shape is (k, j, i, C) instead of (C, k, j, i); is_2d: a picture rather
    than a slice of a volume; spacing_known: whether the affine is in millimetres; name: what messages call it.
    """

    path: str | None = None
    frame: int | None = None
    buffer: Buffer | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    channels_last: bool = False
    is_2d: bool = False
    spacing_known: bool = True
    name: str = "The volume"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.buffer is None):
            raise ValueError("name either a path or a buffer")
        if self.buffer is not None and (self.affine is None or [len(row) for row in self.affine] != [4] * 4):
            raise ValueError("a buffer needs an affine, 4 rows of 4 numbers")


@dataclass(frozen=True)
class Grid:
    """The size and place of an image whose voxels are not needed.

    shape: (k, j, i), or (C, k, j, i); affine, channels_last, is_2d, spacing_known and name: as of an `Image`; dtype: of
    its voxels, which count as memory.
    """

    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]
    dtype: str = "int16"
    channels_last: bool = False
    is_2d: bool = False
    spacing_known: bool = True
    name: str = "The volume"

    def __post_init__(self) -> None:
        _check_voxels(self.dtype, self.shape)
        if [len(row) for row in self.affine] != [4] * 4:
            raise ValueError("affine must have 4 rows of 4 numbers")


@dataclass(frozen=True)
class Load:
    """Load a model (or several, an ensemble), so that later requests find it warm."""

    model: str | list[str]
    device: str = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True)
class Segment:
    """Label an image.

    images: one, or one a channel; the first gives the grid. settings: those of ``medmae segment``. labels: a buffer
    (k, j, i) that takes the label values; output: the path, without ending, of files for them and for the maps that
    the settings ask for; one of the two at least. base: a buffer (k, j, i) of the labels that stay outside the
    region of interest.
    """

    model: str | list[str]
    images: list[Image]
    settings: SegmentConfig = field(default_factory=SegmentConfig)
    labels: Buffer | None = None
    output: str | None = None
    base: Buffer | None = None

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("images must name one image at least")
        if self.labels is None and self.output is None:
            raise ValueError("name where the result goes: labels (a buffer), output (a file), or both")
        if self.base is not None and self.settings.roi is None:
            raise ValueError("base is what stays outside of a region: choose the region with settings.roi")


@dataclass(frozen=True)
class Plan:
    """Tell what a `Segment` request would take, without computing it; the model is loaded and stays warm.

    images: one `Grid`, or one a channel. measure: run one forward pass over zeros where none has been measured yet;
    without it what is told may be less than what will be needed.
    """

    model: str | list[str]
    images: list[Grid]
    settings: SegmentConfig = field(default_factory=SegmentConfig)
    measure: bool = True

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("images must name one grid at least")


@dataclass(frozen=True)
class Classify:
    """Class probabilities of an image; the fields are those of `Segment`, the settings those of ``medmae classify``."""

    model: str
    images: list[Image]
    settings: ClassifyConfig = field(default_factory=ClassifyConfig)

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("images must name one image at least")


@dataclass(frozen=True)
class Unload:
    """Forget a loaded model, or all of them; frees their memory."""

    model: str | None = None


@dataclass(frozen=True)
class Cancel:
    """Cancel the request of this id, whether it waits or is being worked on."""

    request: int | str


@dataclass(frozen=True)
class Hello:
    """Ask who answers: versions and process."""


@dataclass(frozen=True)
class Ping:
    """Ask for a sign of life."""


@dataclass(frozen=True)
class Status:
    """Ask what is being worked on, what waits and what is loaded."""


@dataclass(frozen=True)
class Quit:
    """End the worker at once; open requests are answered as cancelled."""


Work = Load | Plan | Segment | Classify | Unload
Request = Work | Cancel | Hello | Ping | Status | Quit
OPERATIONS: dict[str, type] = {kind.__name__.lower(): kind for kind in (
    Hello, Ping, Load, Plan, Segment, Classify, Cancel, Unload, Status, Quit)}


def refuse_odd_texts(value: Any) -> None:
    """Refuse texts that no path or name can hold.

    Raises:
        BadRequest: there is one.
    """
    if isinstance(value, str) and "\0" in value:
        raise BadRequest("A text holds a zero character, which no path can have.")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        refuse_odd_texts(part)


def request_id(message: Mapping[str, Any]) -> int | str | None:
    """The id of a message, None where it has no usable one."""
    found = message.get("id")
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) and len(str(found)) <= 200 else None


def request_of(message: Mapping[str, Any]) -> Request:
    """The request that a message holds.

    Raises:
        BadRequest: it has no id, its operation is unknown, a field is missing, unknown or of the wrong type.
    """
    if request_id(message) is None:
        raise BadRequest("A request lacks its id. Give a number or a text of 200 characters at most.")
    operation = message.get("op")
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise BadRequest(f"The operation {str(operation)[:100]!r} is unknown. Use {', '.join(OPERATIONS)}.")
    fields = {name: value for name, value in message.items() if name not in ("id", "op")}
    try:
        refuse_odd_texts(fields)
        return from_json(OPERATIONS[operation], fields, f"request {operation}")
    except BadInput as error:
        raise BadRequest(str(error)) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadRequest(f"The request {operation} cannot be read: {error}.") from None
