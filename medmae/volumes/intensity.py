"""Bringing the intensities of each modality to a common range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_CT = {"CT"}
_XRAY = {"DX", "CR", "DR", "RG", "XR", "MG", "XA", "RF", "IO", "PX", "XRAY", "X-RAY"}
# Percentiles of a sorted sample of this size differ from the exact ones by far less than the noise of the image.
_SAMPLE_VOXELS = 2_000_000
Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Intensity:
    """How stored intensities become the network's input.

    Attributes:
        kind: "ct_window": clip to [low, high] Hounsfield units and map them to [0, 1];
            "window": the same with stored values of any meaning (0 and 255 for pictures of 8 bits);
            "robust": per channel, map the percentiles [low, high] of the foreground to [0, 1] and clip; the foreground
            is what lies above the channel's minimum;
            "xray": the same over the whole image (a radiograph has no empty background);
            "none": only converted to float32.
        low: Hounsfield units, stored value or percentile (0 and 100 are the exact minimum and maximum).
        high: Hounsfield units, stored value or percentile.
        mean: subtracted from the result (published weights that expect standardised input).
        std: the result is divided by it.
    """

    kind: Literal["ct_window", "window", "robust", "xray", "none"]
    low: float = 0.5
    high: float = 99.5
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("ct_window", "window", "robust", "xray", "none"):
            raise ValueError(f"unknown intensity kind {self.kind!r}; use ct_window, window, robust, xray or none")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.kind in ("robust", "xray") and not (self.low >= 0 and self.high <= 100):
            raise ValueError(f"percentiles must lie in 0..100, not {self.low}..{self.high}")
        if not self.std > 0:
            raise ValueError(f"std must be positive, not {self.std}")

    def apply(self, array: NDArray) -> NDArray[np.float32]:
        """Normalise an image (C, k, j, i); voxels that are not a number become the lowest value. A copy, float32."""
        result = np.empty(array.shape, dtype=np.float32)
        for source, target in zip(array, result, strict=True):
            limits = self.limits(source)
            for index, plane in enumerate(source):
                target[index] = self.scaled(plane, limits)
        return result

    def limits(self, channel: NDArray, missing: float | None = None) -> Limits:
        """The values of a channel (k, j, i) that become 0 and 1; reads a sample, or plane by plane, and copies little.

        Args:
            channel: the voxels in any type.
            missing: what counts for voxels that are not finite; None: they are left out.

        Returns:
            (low, high) for `scaled`; None where the intensities stay as they are.
        """
        if self.kind == "none":
            return None
        if self.kind in ("ct_window", "window"):
            return self.low, self.high
        if (self.low, self.high) == (0, 100):  # a sample would miss the extremes
            return _extremes(channel, missing, above_least=self.kind == "robust")
        sample = channel.reshape(-1)
        if sample.size > _SAMPLE_VOXELS:
            # An odd step visits all rows and columns of the usual even sizes evenly.
            sample = sample[::(sample.size // _SAMPLE_VOXELS) | 1]
        sample = _finite_float32(sample, missing)
        if self.kind == "robust" and sample.size:
            foreground = sample[sample > sample.min()]
            sample = foreground if foreground.size else sample
        if not sample.size:
            return 0.0, 1.0
        low, high = np.percentile(sample, (self.low, self.high))
        return float(low), float(high)

    def scaled(self, part: NDArray, limits: Limits) -> NDArray[np.float32]:
        """Normalise a part of a channel whose `limits` are known. A copy, float32."""
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite and clipped below
            result = np.array(part, dtype=np.float32)
        if limits is not None:
            low, high = limits
            if not np.issubdtype(part.dtype, np.integer):
                np.nan_to_num(result, copy=False, nan=low, posinf=max(high, low), neginf=low)
            result -= np.float32(low)
            if high > low:
                result /= np.float32(high - low)
            np.clip(result, 0, 1, out=result)
        if self.mean != 0 or self.std != 1:
            result -= np.float32(self.mean)
            result /= np.float32(self.std)
        return result


def _finite_float32(values: NDArray, missing: float | None) -> NDArray[np.float32]:
    if np.issubdtype(values.dtype, np.integer):
        return np.array(values, dtype=np.float32)
    with np.errstate(over="ignore"):
        converted = np.array(values if missing is None else np.where(np.isfinite(values), values, missing), np.float32)
    return converted[np.isfinite(converted)]


def _extremes(channel: NDArray, missing: float | None, *, above_least: bool) -> tuple[float, float]:
    """Least and greatest finite value of (k, j, i); `above_least`: the least one but one, where there are two."""
    least: list[float] = []
    greatest: list[float] = []
    for plane in channel:
        values = _finite_float32(plane, missing)
        if values.size:
            low = values.min()
            rest = values[values > low] if above_least else values[:0]
            least += [float(low), *([float(rest.min())] if rest.size else [])]
            greatest.append(float(values.max()))
    if not least:
        return 0.0, 1.0
    distinct = sorted(set(least))
    return distinct[1] if above_least and len(distinct) > 1 else distinct[0], max(greatest)


def default_intensity(modality: str, *, target: str | None = None) -> Intensity:
    """The normalisation of a modality, by its DICOM code (CT MR PT DX CR US ...; MRI, PET and X-RAY are understood).

    CT follows GL-MAE's preprocessing: Hounsfield units clipped to [-1000, 1000] and mapped linearly to [0, 1] (as its
    authors' code does; the printed division by 2000 alone would give [-0.5, 0.5]). VIS-MAE's own window is not
    published, so both methods use the same; the constants that its official weights expect, (x - 0.223) / 0.202, are
    set through `Intensity.mean` and `Intensity.std`.

    Raises:
        ValueError: `target` is neither a known method nor None.
    """
    if target not in (None, "gl-mae", "vis-mae"):
        raise ValueError(f"unknown target {target!r}; use gl-mae or vis-mae")
    code = modality.strip().upper()
    if code in _CT:
        return Intensity("ct_window", -1000.0, 1000.0)
    return Intensity("xray" if code in _XRAY else "robust", 0.5, 99.5)
