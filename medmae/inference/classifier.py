"""Classifying an image with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medmae.datasets.preprocessing import Prepared, pad_centred
from medmae.datasets.slices import slice_stacks
from medmae.errors import BadInput, Stopped
from medmae.inference.calibration_text import calibration_text, is_calibrated
from medmae.inference.config import Precision
from medmae.inference.interruption import interruptible
from medmae.inference.loaded_model import LoadedModel, require_task
from medmae.inference.out_of_memory import WindowTooLarge, is_out_of_memory
from medmae.inference.pooling import deciding_slices, pool_slices
from medmae.inference.predictor import WindowPredictor
from medmae.inference.sliding_window import OnProgress, ShouldStop
from medmae.metrics import predicted_classes, probabilities_of
from medmae.models.info import is_pooling
from medmae.volumes import Volume

NO_CLASS = "none"


@dataclass(frozen=True)
class Classification:
    """What a model says of a case.

    Attributes:
        probabilities: by label name; they sum to 1, or, where several classes may apply, each stands for itself.
            They are calibrated where the model is.
        label: the most probable class; where several may apply all from a probability of 0.5, joined by commas, or
            "none".
        deciding_slice: where a 2-D model saw most evidence in a volume for the most probable class, as (axis, index) of
            the stored array (k, j, i); None for single images and 3-D models.
        labels: the classes that `label` names.
        uncalibrated: the probabilities without the model's temperature.
        deciding_slices: as `deciding_slice`, for each class; empty for single images and 3-D models.
    """

    probabilities: dict[str, float]
    label: str
    deciding_slice: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()
    uncalibrated: dict[str, float] = field(default_factory=dict)
    deciding_slices: dict[str, tuple[int, int]] = field(default_factory=dict)


class Classifier:
    """A classification model.

    It sees what it was trained on: the middle of the prepared image, padded where the network's window is larger (2-D
    images are fitted to the window by their longest side before, so all of them is seen). Volumes go through a 2-D
    model slice by slice, and the logits of the slices are pooled.

    Args:
        model: name in the registry, path of a model or run folder, or a model already loaded.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32, bf16 or fp16.
        batch: slices a forward pass; None: what suits the device.
        pooling: "mean", "max" or "topN%" of the slices; None: as the model was trained. Another way than that has no
            temperature of its own, so that the probabilities are not calibrated then.

    Raises:
        BadInput: the model cannot be used, the pooling is unknown, or the device does not exist.
    """

    def __init__(self, model: str | Path | LoadedModel, *, device: str = "auto", precision: Precision = "auto",
                 batch: int | None = None, pooling: str | None = None) -> None:
        if pooling is not None and not is_pooling(pooling):
            raise BadInput(f"'{pooling}' is no way to pool slices. Use mean, max or topN% (for instance top25%).")
        if not isinstance(model, LoadedModel):
            model = LoadedModel.load(model, task="classification", device=device, precision=precision)
        require_task(model.info, "classification")
        self.model = model
        self.info = model.info
        self.names = [str(label["name"]) for label in model.info.labels]
        self.batch = batch or model.windows_at_once
        self.pooling = pooling or model.info.slice_pooling
        self.is_calibrated = is_calibrated(model.info) and self.pooling == model.info.slice_pooling
        self.temperature = float(model.info.calibration["temperature"]) if self.is_calibrated else 1.0

    @property
    def calibration_told(self) -> str:
        """What to know about the probabilities, in a sentence."""
        if is_calibrated(self.info) and not self.is_calibrated:
            return ("The probabilities are not calibrated: the model's temperature does not hold for the pooling "
                    f"'{self.pooling}'.")
        return calibration_text(self.info.calibration)

    def classify(self, image: Volume | Sequence[Volume], *, on_progress: OnProgress | None = None,
                 should_stop: ShouldStop | None = None) -> Classification:
        """Classify an image, or the aligned images of a multi-channel case.

        Args:
            image: the image, or one a channel.
            on_progress: called with (slices done, slices in all).
            should_stop: asked between batches, and on a processor between layers too.

        Raises:
            BadInput: the image does not fit the model.
            Stopped: `should_stop` said so.
            WindowTooLarge: memory does not hold one slice.
        """
        prepared = self.model.preprocessing.prepare(image)
        logits = view_logits(self.model.network, prepared.array, self.model.window, device=self.model.device,
                             context=self.model.preprocessing.context, precision=self.model.precision,
                             batch=self.batch, on_progress=on_progress, should_stop=should_stop)
        return self._result(logits, prepared)

    def _result(self, logits: torch.Tensor, prepared: Prepared) -> Classification:
        several = self.info.multi_label
        pooled = pool_slices(logits, self.pooling).double().numpy()
        values = probabilities_of(pooled, self.temperature, multi_label=several)
        labels = tuple(self.names[one] for one in predicted_classes(values, multi_label=several))
        slices: dict[str, tuple[int, int]] = {}
        if self.model.preprocessing.spatial_dims == 2 and prepared.grid.shape[0] > 1:
            planes = deciding_slices(logits, self.pooling, multi_label=several)
            slices = {name: _stored_slice(prepared, plane) for name, plane in zip(self.names, planes, strict=True)}
        return Classification(
            self._named(values), ", ".join(labels) or NO_CLASS, slices.get(self.names[int(values.argmax())]), labels,
            self._named(probabilities_of(pooled, multi_label=several)), slices)

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}


@torch.no_grad()
def view_logits(network: nn.Module, array: np.ndarray, window: Sequence[int], *, device: torch.device,
                context: int = 0, precision: Precision = "fp32", batch: int = 1, on_progress: OnProgress | None = None,
                should_stop: ShouldStop | None = None) -> torch.Tensor:
    """Logits (n, K) float32 of the n views of a prepared image (C, k, j, i), on the processor.

    A view is the middle of the image on the window, padded where it is smaller: of the whole volume, or where the
    window has two axes of each slice, with its `context` neighbours on each side as channels.

    Where memory does not hold a batch, it is halved. On a processor a stop is obeyed between layers.

    Raises:
        Stopped: `should_stop` said so.
        WindowTooLarge: memory does not hold one view.
    """
    views = 1 if len(window) == 3 else array.shape[1]
    predictor = WindowPredictor(network, device, precision, batch=batch)
    logits: list[torch.Tensor] = []
    with interruptible([network], device, should_stop):
        for start in range(0, views, batch):
            if should_stop is not None and should_stop():
                raise Stopped("Stopped on request.")
            stop = min(start + batch, views)
            part = array[None] if len(window) == 3 else slice_stacks(array, range(start, stop), context)
            images = torch.from_numpy(np.ascontiguousarray(middle(part, window), dtype=np.float32))
            logits += [answer.float().cpu() for answer in _answers(predictor, images)]
            if on_progress is not None:
                on_progress(stop, views)
    return torch.stack(logits)


def _answers(predictor: WindowPredictor, images: torch.Tensor) -> list[torch.Tensor]:
    try:
        return predictor(images)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    raise WindowTooLarge("Memory ran out although one image went through the network at a time. Close other programs, "
                         "or use another device.")


def middle(array: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """The middle (..., *window) of (..., *spatial), padded with zeros where it is smaller."""
    padded = pad_centred(array, window)
    starts = [(length - extent) // 2 for length, extent in zip(padded.shape[-len(window):], window, strict=True)]
    area: list[Any] = [slice(start, start + extent) for start, extent in zip(starts, window, strict=True)]
    return padded[(..., *area)]


def _stored_slice(prepared: Prepared, plane: int) -> tuple[int, int]:
    """(axis, index) of the stored array of a slice of the prepared image."""
    last = prepared.grid.shape[0] - 1
    return prepared.change.order[0], last - plane if prepared.change.flips[0] else plane
