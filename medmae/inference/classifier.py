"""Classifying an image with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmae.datasets.preprocessing import Prepared, pad_centred
from medmae.datasets.slices import slice_stacks
from medmae.errors import Stopped
from medmae.inference.device import Precision, autocast
from medmae.inference.loaded_model import LoadedModel, require_task
from medmae.inference.sliding_window import OnProgress, ShouldStop
from medmae.volumes import Volume


@dataclass(frozen=True)
class Classification:
    """What a model says of a case.

    probabilities: by label name, summing to 1; label: the most probable; deciding_slice: where a 2-D model saw most
    evidence for that label in a volume, as (axis, index) of the stored array (k, j, i); None for single images and
    3-D models.
    """

    probabilities: dict[str, float]
    label: str
    deciding_slice: tuple[int, int] | None = None


class Classifier:
    """A classification model.

    It sees what it was trained on: the middle of the prepared image, padded where the network's window is larger.
    Volumes go through a 2-D model slice by slice; the mean of the logits decides.

    Args:
        model: name in the registry, path of a model or run folder, or a model already loaded.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32, bf16 or fp16.
        batch: slices a forward pass; None: what suits the device.

    Raises:
        BadInput: the model cannot be used, or the device does not exist.
    """

    def __init__(self, model: str | Path | LoadedModel, *, device: str = "auto", precision: Precision = "auto",
                 batch: int | None = None) -> None:
        if not isinstance(model, LoadedModel):
            model = LoadedModel.load(model, task="classification", device=device, precision=precision)
        require_task(model.info, "classification")
        self.model = model
        self.info = model.info
        self.names = [str(label["name"]) for label in model.info.labels]
        self.batch = batch or model.windows_at_once

    @torch.no_grad()
    def classify(self, image: Volume | Sequence[Volume], *, on_progress: OnProgress | None = None,
                 should_stop: ShouldStop | None = None) -> Classification:
        """Classify an image, or the aligned images of a multi-channel case.

        Args:
            image: the image, or one a channel.
            on_progress: called with (slices done, slices in all).
            should_stop: asked between batches.

        Raises:
            BadInput: the image does not fit the model.
            Stopped: `should_stop` said so.
        """
        prepared = self.model.preprocessing.prepare(image)
        views = self._views(prepared.array)
        logits = []
        for start in range(0, len(views), self.batch):
            if should_stop is not None and should_stop():
                raise Stopped("Stopped on request.")
            batch = torch.from_numpy(np.ascontiguousarray(views[start:start + self.batch]))
            with autocast(self.model.device, self.model.precision):
                logits.append(self.model.network(batch.to(self.model.device)).float().cpu())
            if on_progress is not None:
                on_progress(min(start + self.batch, len(views)), len(views))
        return self._result(torch.cat(logits), prepared)

    def _views(self, array: np.ndarray) -> np.ndarray:
        """(n, network channels, *window) of (C, k, j, i): the whole volume, or its n slices with their neighbours."""
        window = tuple(self.model.window)
        padded = pad_centred(array, window)
        starts = [(length - extent) // 2 for length, extent in zip(padded.shape[-len(window):], window, strict=True)]
        area: list[Any] = [slice(start, start + extent) for start, extent in zip(starts, window, strict=True)]
        middle = padded[(..., *area)]
        if len(window) == 3:
            return middle[None]
        return slice_stacks(middle, range(middle.shape[1]), self.model.preprocessing.context)

    def _result(self, logits: torch.Tensor, prepared: Prepared) -> Classification:
        mean = torch.softmax(logits.mean(0).double(), 0)
        winner = int(mean.argmax())
        deciding = None
        if self.model.preprocessing.spatial_dims == 2 and prepared.grid.shape[0] > 1:
            plane = int(torch.log_softmax(logits, 1)[:, winner].argmax())
            axis = prepared.change.order[0]
            deciding = axis, prepared.grid.shape[0] - 1 - plane if prepared.change.flips[0] else plane
        return Classification({name: float(value) for name, value in zip(self.names, mean, strict=True)},
                              self.names[winner], deciding)
