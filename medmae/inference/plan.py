"""What segmenting an image will take, told before it starts: windows, forward passes, memory, and then time.

Memory adds up from what is known (sizes of arrays) and what is measured once for each network, window and batch: the
most that a forward pass takes beyond its input. Under a limit, things are given up until the sum fits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medmae.errors import BadInput
from medmae.inference.memory import format_memory
from medmae.inference.windows import axes_of

# What no sum sees: small arrays, code that is loaded on the way. Towards the safe side.
RESERVE_BYTES = 24_000_000
RESERVE_SHARE = 0.04
# Points between classes that restoring computes at once, with their features, neighbours and logits
RESTORING_BYTES = 32_000_000
# What an allocator keeps of the blocks that passes free, scattered between others: more after large passes, and never
# much more than a small one takes (measured with glibc: up to 150 MB after passes of 0.9 GB)
SCATTERED_BYTES, SCATTERED_SHARE, SCATTERED_MOST = 32_000_000, 0.15, 1.5
FLOAT = 4


@dataclass(frozen=True)
class Work:
    """What is to be done for an image.

    Attributes:
        held_bytes: what the process holds now, with the model and the image in memory.
        prepared: the prepared image (C, k, j, i).
        wanted: the part of it whose results are wanted, three slices (k, j, i).
        stored: voxels of the image, which the labels have too.
        target: rows, lines and columns (k, j, i) of the part of the image that is labelled, in the model's orientation.
        window: the model's window, (k, j, i) or (rows, columns).
        overlap: part of the window that neighbours share.
        batch: windows a forward pass.
        members: networks that answer together.
        mirrored_axes: along how many axes windows are mirrored, in every combination.
        features: channels that are blended.
        classes: classes.
        sum_bytes: bytes of a blended value (4; 2 in half precision).
        label_bytes: bytes of a stored label.
        wants_rows: whether whole rows of logits are asked for (maps of probability or uncertainty).
        further_bytes: what the caller will hold besides.
        blends_on_processor: False where sums lie in the memory of a GPU.
        can_spill: whether arrays in files help: only where the image is stored slice by slice as the network sees it,
            so that work on it touches one part of a file after the other.
        can_return: whether freed memory can go back to the system at once, as it does where anything is given up.
    """

    held_bytes: int
    prepared: tuple[int, int, int, int]
    wanted: tuple[slice, slice, slice]
    stored: tuple[int, int, int]
    target: tuple[int, int, int]
    window: tuple[int, ...]
    overlap: float
    batch: int
    members: int
    mirrored_axes: int
    features: int
    classes: int
    sum_bytes: int = FLOAT
    label_bytes: int = 1
    wants_rows: bool = False
    further_bytes: int = 0
    blends_on_processor: bool = True
    can_spill: bool = True
    can_return: bool = True

    @property
    def passes(self) -> int:
        """Forward passes of each window."""
        return self.members * 2**self.mirrored_axes

    @property
    def windows(self) -> int:
        """Windows that touch the wanted part; of 2-D networks those of all slices."""
        return self._slices * math.prod(self._windows_by_axis)

    @property
    def largest_batch(self) -> int:
        """Windows that can go through the network together: those of a layer; slices where each is one window."""
        if len(self.window) == 3:
            return math.prod(self._windows_by_axis[1:])
        in_slice = math.prod(self._windows_by_axis)
        return self._slices if in_slice == 1 else self._windows_by_axis[1]

    @property
    def _windows_by_axis(self) -> list[int]:
        spatial = len(self.window)
        axes = axes_of(self.prepared[4 - spatial:], self.window, self.overlap, self.wanted[3 - spatial:])
        return [len(axis.starts) for axis in axes]

    @property
    def _slices(self) -> int:
        return self.wanted[0].stop - self.wanted[0].start if len(self.window) == 2 else 1


@dataclass(frozen=True)
class Plan:
    """How an image will be segmented, and what that takes.

    Attributes:
        windows: windows at most; those without contrast or outside of the body are not computed.
        passes: forward passes of each.
        mirror: whether they are mirrored.
        members: networks that answer together.
        batch: windows a forward pass.
        window: the window's size.
        spill: whether the prepared image and the labels lie in temporary files.
        estimated_peak_bytes: the most memory that the process will hold.
        held_bytes: what of it the process holds already.
        pass_bytes: what of it a forward pass takes; 0 where that is not known.
        limit: what it may hold; None: no limit.
        given_up: what was changed to stay below the limit.
        seconds: what is left to do will take; None until windows were timed.
    """

    windows: int
    passes: int
    mirror: bool
    members: int
    batch: int
    window: tuple[int, ...]
    spill: bool
    estimated_peak_bytes: int
    held_bytes: int = 0
    pass_bytes: int = 0
    limit: int | None = None
    given_up: tuple[str, ...] = ()
    seconds: float | None = None

    def timed(self, done: int, seconds: float) -> Plan:
        """The same plan when `done` windows took `seconds`: with the time that all of it takes."""
        return dataclasses.replace(self, seconds=seconds * self.windows / max(1, done))

    def __str__(self) -> str:
        """For people: "125 windows, 8 passes each (mirroring), about 3 min, peak 2.1 GB"."""
        reasons = [*(["mirroring"] if self.mirror else []),
                   *([f"{self.members} models"] if self.members > 1 else [])]
        text = f"{self.windows} window{'s' if self.windows != 1 else ''}"
        if self.passes > 1:
            text += f", {self.passes} passes each ({' and '.join(reasons)})"
        if self.seconds is not None:
            text += f", about {duration(self.seconds)}"
        text += f", peak {format_memory(self.estimated_peak_bytes)}"
        if self.given_up:
            text += f" ({'; '.join(self.given_up)})"
        return text


PassBytes = Callable[[tuple[int, ...], int], int]
SmallerWindow = Callable[[Sequence[int]], tuple[int, ...] | None]


def plan(work: Work, pass_bytes: PassBytes, *, limit: int | None = None,
         smaller: SmallerWindow = lambda window: None) -> Plan:
    """Plan an image so that it stays below a limit.

    Args:
        work: what is to be done.
        pass_bytes: the most that a forward pass of (window, batch) takes with the output of one before, its input not.
        limit: bytes that the process may hold; None: no limit.
        smaller: the next smaller window on which the network is as good, or None.

    Raises:
        BadInput: not even the smallest way fits; the message names the smallest limit that would do.
    """
    work = dataclasses.replace(work, batch=min(work.batch, work.largest_batch))
    if limit is None:
        return _plan_of(work, _Way(work.window, work.batch, False), pass_bytes(work.window, work.batch), limit)
    measured = _measured(work, windows_from(work.window, smaller), pass_bytes, limit)
    least = 0
    for window in reversed(measured):
        for way in _ways(work, window):
            candidate = _plan_of(work, way, measured[window] * way.batch, limit)
            if candidate.estimated_peak_bytes <= limit:
                return candidate
            least = candidate.estimated_peak_bytes
    raise BadInput(f"This image and model need {format_memory(least)} of memory at least, but the limit is "
                   f"{format_memory(limit)}. Raise the limit to {format_memory(math.ceil(least / 1e8) * 1e8)} or more "
                   "(--memory), choose a region (--roi), or a smaller model.")


class _Way(NamedTuple):
    window: tuple[int, ...]
    batch: int
    spill: bool


def windows_from(window: tuple[int, ...], smaller: SmallerWindow) -> list[tuple[int, ...]]:
    """The window and the smaller ones that the network takes as well, the largest first."""
    windows = [window]
    while (following := smaller(windows[-1])) is not None:
        windows.append(following)
    return windows


def _ways(work: Work, window: tuple[int, ...]) -> list[_Way]:
    """What may be given up for a window, step by step."""
    batches = [work.batch]
    while batches[-1] > 1:
        batches.append(batches[-1] // 2)
    return [*(_Way(window, batch, False) for batch in batches), *([_Way(window, 1, True)] if work.can_spill else [])]


def _measured(work: Work, windows: Sequence[tuple[int, ...]], pass_bytes: PassBytes,
              limit: int) -> dict[tuple[int, ...], int]:
    """What a pass takes, window by window from the smallest on, up to the largest that can be expected to fit.

    The smallest first: measuring a large window that does not fit would itself break the limit. What is expected may be
    a few per cent too high, so the reserve does not count; sums and volumes are not held yet, so the limit is kept.
    """
    smallest, *larger = reversed(windows)
    measured = {smallest: pass_bytes(smallest, 1)}
    passes = [(math.prod(smallest), measured[smallest])]
    # A second pass tells what each voxel takes from what every pass takes (weights in half precision, for example).
    if larger and work.held_bytes + 2 * measured[smallest] <= limit:
        longer = (2 * smallest[0], *smallest[1:])
        passes.append((math.prod(longer), pass_bytes(longer, 1)))
    for window in larger:
        expected = _expected(passes, math.prod(window))
        if _plan_of(work, _ways(work, window)[-1], expected, limit).estimated_peak_bytes > limit * (1 + RESERVE_SHARE):
            break
        measured[window] = pass_bytes(window, 1)
        passes.append((math.prod(window), measured[window]))
    return measured


def _expected(passes: Sequence[tuple[int, int]], voxels: int) -> int:
    """What a pass of so many voxels takes, from the (voxels, bytes) of others: on the line through the last two.

    Where a larger one took less (the library chose another way), or only one is known, in proportion to the last.
    """
    last_voxels, last = passes[-1]
    before_voxels, before = passes[-2] if len(passes) > 1 else (0, 0)
    if before >= last:
        before_voxels, before = 0, 0
    return last + (last - before) * (voxels - last_voxels) // (last_voxels - before_voxels)


def _plan_of(work: Work, way: _Way, forward_bytes: int, limit: int | None) -> Plan:
    used = dataclasses.replace(work, window=way.window, batch=way.batch)
    given_up = []
    if way.batch < work.batch:
        given_up.append(f"{way.batch} window{'s' if way.batch > 1 else ''} a pass instead of {work.batch}")
    if way.spill:
        given_up.append("volumes in temporary files")
    if way.window != work.window:
        given_up.append(f"windows of {_sides(way.window)} instead of {_sides(work.window)}, which takes longer")
    return Plan(windows=used.windows, passes=work.passes, mirror=work.mirrored_axes > 0, members=work.members,
                batch=way.batch, window=way.window, spill=way.spill, limit=limit, given_up=tuple(given_up),
                held_bytes=work.held_bytes, pass_bytes=forward_bytes,
                estimated_peak_bytes=estimated_peak(work, way.window, way.batch, forward_bytes, spill=way.spill,
                                                    returned=bool(given_up) and work.can_return))


def estimated_peak(work: Work, window: Sequence[int], batch: int, forward_bytes: int, *, spill: bool,
                   returned: bool = False) -> int:
    """Bytes that the process will hold at most; `returned`: freed memory goes back to the system at once.

    Three moments compete while the prepared image, the labels and the open sums are held: a forward pass (with the
    output of the mirrored passes so far), restoring a row, and afterwards writing, with a copy of the labels.
    """
    voxels = math.prod(window)
    output = batch * work.features * voxels * FLOAT
    windows = batch * work.prepared[0] * voxels * FLOAT
    # Mirrored: the flipped window; the sum of the passes, which is also what is kept of empty windows.
    forward = forward_bytes + windows * (3 if work.mirrored_axes else 1) + output * (2 if work.mirrored_axes else 0)
    planes = 6 * work.features * math.prod(work.prepared[2:]) * FLOAT
    rows = 4 * work.classes * math.prod(work.target[1:]) * FLOAT if work.wants_rows else 0
    restoring = planes + rows + RESTORING_BYTES
    labels = math.prod(work.stored) * work.label_bytes
    prepared = math.prod(work.prepared) * FLOAT
    if spill:
        height = window[0] if len(window) == 3 else batch
        prepared = prepared // work.prepared[1] * min(work.prepared[1], 2 * height)
    open_sums = _open_sums(work, window) if work.blends_on_processor else 0
    kept = (0 if spill else labels) + prepared + open_sums
    writing = labels + (0 if spill else labels)
    scattered = 0 if returned else int(min(SCATTERED_BYTES + forward_bytes * SCATTERED_SHARE,
                                           forward_bytes * SCATTERED_MOST))
    growth = max(kept + max(forward, restoring) + scattered, writing) + work.further_bytes
    return int((work.held_bytes + growth) * (1 + RESERVE_SHARE)) + RESERVE_BYTES


def _open_sums(work: Work, window: Sequence[int]) -> int:
    """Bytes of the blended values and weights that are open at a time."""
    spatial = len(window)
    axes = axes_of(work.prepared[4 - spatial:], window, work.overlap, work.wanted[3 - spatial:])
    if spatial == 2 and all(len(axis.starts) == 1 for axis in axes):
        return 0
    height = min(axes[0].window, axes[0].extent)
    plane = math.prod(axis.extent for axis in axes[1:])
    weights = 3 * axes[0].window * plane * FLOAT + 2 * math.prod(window) * FLOAT
    return height * plane * work.features * work.sum_bytes + weights


def duration(seconds: float) -> str:
    """A time for people: "40 s", "3 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _sides(window: Sequence[int]) -> str:
    return " x ".join(map(str, window))
