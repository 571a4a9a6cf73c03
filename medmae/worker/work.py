"""What the worker does for a request: read the image, compute, hand the result back."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from medmae.errors import BadInput
from medmae.inference.classifier import Classifier
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.segment_run import label_sizes, segments_of
from medmae.inference.segmenter import Segmenter
from medmae.inference.sliding_window import OnProgress, ShouldStop
from medmae.volumes import Geometry, Volume, read_image, write_label
from medmae.worker.buffers import opened
from medmae.worker.model_store import ModelStore
from medmae.worker.protocol import Buffer, Classify, Image, Load, Segment, Unload, Work

Result = dict[str, Any]


def perform(work: Work, store: ModelStore, on_progress: OnProgress, should_stop: ShouldStop) -> Result:
    """Do one request; the result is JSON-ready.

    Raises:
        BadInput: the model, the image or the buffer cannot be used; nothing was written then.
        Stopped: `should_stop` said so.
    """
    if isinstance(work, Load):
        return _load(work, store)
    if isinstance(work, Unload):
        return {"unloaded": store.unload(work.model)}
    if isinstance(work, Segment):
        return _segment(work, store, on_progress, should_stop)
    return _classify(work, store, on_progress, should_stop)


def _load(work: Load, store: ModelStore) -> Result:
    clock = _Clock()
    models, warm = _models(store, work.model, work.device, work.precision)
    return {"models": [{"name": model.info.name, "task": model.info.task, "device": str(model.device),
                        "labels": [{"name": label["name"], "value": label["value"]} for label in model.info.labels]}
                       for model in models], "warm": warm, "seconds": clock.seconds("load")}


def _segment(work: Segment, store: ModelStore, on_progress: OnProgress, should_stop: ShouldStop) -> Result:
    clock, settings = _Clock(), work.settings
    models, warm = _models(store, work.model, settings.device, settings.precision)
    segmenter = Segmenter(models[0], overlap=settings.overlap, batch=settings.batch)
    clock.lap("load")
    with contextlib.ExitStack() as buffers:
        images = [_image(image, settings.frame, buffers) for image in work.images]
        geometry = images[0].geometry
        target = _target(work.labels, geometry, buffers)
        clock.lap("read")
        labels = segmenter.segment(images, on_progress=on_progress, should_stop=should_stop)
        clock.lap("segment")
        if target is not None:
            _put(labels, target)
        if work.output is not None:
            write_label(Path(work.output), labels, geometry, segments_of(segmenter.info, segmenter.values),
                        settings.format)
        sizes = label_sizes(labels, images[0], segmenter.info)
    return {"task": "segmentation", "model": segmenter.info.name, "warm": warm, "labels": sizes,
            "output": work.output, "seconds": clock.seconds("write")}


def _classify(work: Classify, store: ModelStore, on_progress: OnProgress, should_stop: ShouldStop) -> Result:
    clock, settings = _Clock(), work.settings
    models, warm = _models(store, work.model, settings.device, settings.precision)
    classifier = Classifier(models[0], batch=settings.batch, pooling=settings.pooling)
    clock.lap("load")
    with contextlib.ExitStack() as buffers:
        images = [_image(image, settings.frame, buffers) for image in work.images]
        clock.lap("read")
        found = classifier.classify(images, on_progress=on_progress, should_stop=should_stop)
    return {"task": "classification", "model": classifier.info.name, "warm": warm, "label": found.label,
            "labels": list(found.labels), "probabilities": found.probabilities,
            "uncalibrated": found.uncalibrated, "calibrated": classifier.is_calibrated,
            "calibration_told": classifier.calibration_told,
            "deciding_slices": {name: {"axis": "kji"[axis], "index": index}
                                for name, (axis, index) in found.deciding_slices.items()},
            "seconds": clock.seconds("classify")}


def _models(store: ModelStore, model: str | list[str], device: str, precision: Any) -> tuple[list[LoadedModel], bool]:
    names = [model] if isinstance(model, str) else model
    if not names:
        raise BadInput("No model is named. Give a model folder, a run folder or the name of an installed model.")
    found = [store.get(name, device=device, precision=precision) for name in names]
    return [one for one, _ in found], all(warm for _, warm in found)


def _image(image: Image, frame: int | None, buffers: contextlib.ExitStack) -> Volume:
    """The image of a request; one in a buffer is not copied."""
    if image.path is not None:
        try:
            return read_image(image.path, frame=image.frame if image.frame is not None else frame)
        except OSError as error:
            raise BadInput(f"{image.path} cannot be read ({error}). Check the path and its permissions.") from None
    assert image.buffer is not None
    array = buffers.enter_context(opened(image.buffer))
    if image.channels_last and array.ndim == 4:
        array = np.moveaxis(array, -1, 0)
    array = array if array.ndim == 4 else array[None]
    geometry = Geometry((array.shape[1], array.shape[2], array.shape[3]), np.array(image.affine, np.float64))
    return Volume(array, geometry, is_2d=image.is_2d, spacing_known=image.spacing_known, source=image.name)


def _target(buffer: Buffer | None, geometry: Geometry, buffers: contextlib.ExitStack) -> np.ndarray | None:
    """The buffer that takes the labels, checked before anything is computed."""
    if buffer is None:
        return None
    if tuple(buffer.shape) != geometry.shape:
        raise BadInput(f"The buffer for the labels has the shape {list(buffer.shape)}, but the image has "
                       f"{list(geometry.shape)} voxels (k, j, i). Give a buffer of that shape.")
    if buffer.dtype.startswith("float"):
        raise BadInput(f"The buffer for the labels is of type {buffer.dtype}. Give one of whole numbers, as uint8.")
    return buffers.enter_context(opened(buffer, writable=True))


def _put(labels: np.ndarray, target: np.ndarray) -> None:
    bounds = np.iinfo(target.dtype)
    if labels.min() < bounds.min or labels.max() > bounds.max:
        raise BadInput(f"The model's label values from {labels.min()} to {labels.max()} do not fit into a buffer of "
                       f"type {target.dtype.name}. Give a larger type, as int16.")
    target[...] = labels


class _Clock:
    """Seconds of each stage, one after the other."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The stage that began at the last call ends now."""
        now = time.monotonic()
        self._seconds[stage] = round(now - self._last, 4)
        self._last = now

    def seconds(self, last_stage: str) -> dict[str, float]:
        """Seconds by stage, after the last one has ended."""
        self.lap(last_stage)
        return self._seconds
