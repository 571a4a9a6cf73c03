"""Segmenting an image with a trained model: labels on the exact input grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from medmae.datasets.preprocessing import Prepared
from medmae.inference.config import Precision
from medmae.inference.loaded_model import LoadedModel, require_task
from medmae.inference.restore import restore_labels
from medmae.inference.slices import slice_logits
from medmae.inference.sliding_window import OnProgress, ShouldStop, finished_planes
from medmae.volumes import Volume, resample


class Segmenter:
    """A segmentation model that turns images into label maps.

    3-D models see the volume through an overlapping window; 2-D models see images, and volumes slice by slice, with
    as many neighbouring slices as they were trained with.

    Args:
        model: name in the registry, path of a model or run folder, or a model already loaded.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32, bf16 or fp16.
        overlap: part of the window that neighbouring windows share.
        batch: windows (slices) a forward pass; None: what suits the device.
        values: stored label value of each class; None: those of the model's training data.

    Raises:
        BadInput: the model cannot be used, or the device does not exist.
    """

    def __init__(self, model: str | Path | LoadedModel, *, device: str = "auto", precision: Precision = "auto",
                 overlap: float = 0.5, batch: int | None = None, values: Sequence[int] | None = None) -> None:
        if not isinstance(model, LoadedModel):
            model = LoadedModel.load(model, task="segmentation", device=device, precision=precision)
        require_task(model.info, "segmentation")
        self.model = model
        self.info = model.info
        self.overlap = overlap
        self.batch = batch or model.windows_at_once
        self.values = stored_values([int(label["value"]) for label in model.info.labels] if values is None else values)

    def segment(self, image: Volume | Sequence[Volume], *, on_progress: OnProgress | None = None,
                should_stop: ShouldStop | None = None) -> np.ndarray:
        """Label an image, or the aligned images of a multi-channel case.

        Args:
            image: the image; of several, the first gives the grid.
            on_progress: called with (windows done, windows in all).
            should_stop: asked between windows.

        Returns:
            (k, j, i) on the image's own grid, with the label values that the model's training data stored.

        Raises:
            BadInput: the image does not fit the model.
            Stopped: `should_stop` said so.
        """
        prepared = self.model.preprocessing.prepare(image)
        planes = self._planes(prepared, on_progress, should_stop)
        indices = restore_labels(planes, prepared.geometry, prepared.grid)
        return self.values[prepared.to_source_axes(indices)]

    def probabilities(self, image: Volume | Sequence[Volume]) -> np.ndarray:
        """Class probabilities (K, k, j, i) float32 on the image's own grid, for single images: K times its size."""
        prepared = self.model.preprocessing.prepare(image)
        logits = torch.cat(list(self._planes(prepared, None, None)), 1)
        values = torch.softmax(logits, 0).cpu().numpy()
        if not prepared.geometry.is_close(prepared.grid):
            values = resample(values, prepared.geometry, prepared.grid)
        return prepared.to_source_axes(values)

    def _planes(self, prepared: Prepared, on_progress: OnProgress | None,
                should_stop: ShouldStop | None) -> Iterator[torch.Tensor]:
        """Logits (K, n, j, i) of the prepared image in order along k."""
        if self.model.preprocessing.spatial_dims == 2:
            return slice_logits(self.model.network, prepared.array, self.model.window,
                                context=self.model.preprocessing.context, overlap=self.overlap, batch=self.batch,
                                device=self.model.device, precision=self.model.precision, on_progress=on_progress,
                                should_stop=should_stop)
        return finished_planes(self.model.network, torch.from_numpy(prepared.array), self.model.window,
                               overlap=self.overlap, batch=self.batch, device=self.model.device,
                               precision=self.model.precision, on_progress=on_progress, should_stop=should_stop)


def stored_values(values: Sequence[int]) -> np.ndarray:
    """Stored label value of each class, in the smallest integer type that holds them all."""
    array = np.asarray(values, dtype=np.int64)
    types = (np.uint8, np.uint16, np.int16, np.int32)
    fitting = (kind for kind in types if np.iinfo(kind).min <= array.min() and array.max() <= np.iinfo(kind).max)
    return array.astype(next(fitting, np.int64))
