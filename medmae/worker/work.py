"""What the worker does for a request: read the image, compute, hand the result back."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmae.errors import BadInput
from medmae.inference.classifier import Classifier
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.memory import available_bytes
from medmae.inference.outputs.components import clean_inside, steps_for
from medmae.inference.segment_outputs import CaseOutputs
from medmae.inference.segment_run import label_sizes, run_facts, segmenter_for, segments_of
from medmae.inference.sliding_window import OnProgress, ShouldStop
from medmae.inference.stopwatch import Stopwatch
from medmae.volumes import Geometry, Volume, read_image
from medmae.volumes.dicom_seg import refuse_unless_dicom, require_highdicom
from medmae.volumes.region import region_of_box
from medmae.worker.buffers import opened
from medmae.worker.model_store import ModelStore
from medmae.worker.protocol import Buffer, Classify, Grid, Image, Load, Plan, Segment, Unload, Work

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
    if isinstance(work, Plan):
        return _plan(work, store, should_stop)
    if isinstance(work, Segment):
        return _segment(work, store, on_progress, should_stop)
    return _classify(work, store, on_progress, should_stop)


def _load(work: Load, store: ModelStore) -> Result:
    clock = Stopwatch()
    models, warm = _models(store, work.model, work.device, work.precision)
    clock.lap("load")
    return {"models": [{"name": model.info.name, "task": model.info.task, "device": str(model.device),
                        "labels": [{"name": label["name"], "value": label["value"]} for label in model.info.labels]}
                       for model in models], "warm": warm, "stage_seconds": clock.laps}


def _plan(work: Plan, store: ModelStore, should_stop: ShouldStop) -> Result:
    import scipy.ndimage  # noqa: F401 - segmenting loads it: from now on its code counts as held

    clock, settings = Stopwatch(), work.settings
    models, warm = _models(store, work.model, settings.device, settings.precision)
    # Which windows there is nothing in, only the voxels can tell: all of them are counted.
    segmenter = segmenter_for(models, dataclasses.replace(settings, skip_empty=False))
    clock.lap("load")
    images = [_outline(grid) for grid in work.images]
    outputs = CaseOutputs(settings, segmenter.info, Path("nowhere"))
    voxel_bytes = sum(np.dtype(grid.dtype).itemsize * math.prod(grid.shape) for grid in work.images)
    plan = segmenter.plan(images, roi=settings.roi, wants_rows=outputs.sink is not None, measure=work.measure,
                          further_bytes=voxel_bytes + outputs.further_bytes(images[0].geometry),
                          should_stop=should_stop)
    clock.lap("plan")
    return {"task": "segmentation", "model": segmenter.info.name, "warm": warm, "device": str(models[0].device),
            "windows": plan.windows, "passes": plan.passes, "members": plan.members, "batch": plan.batch,
            "window": list(plan.window), "estimated_peak_bytes": plan.estimated_peak_bytes,
            "held_bytes": plan.held_bytes, "pass_bytes": plan.pass_bytes,
            "measured": work.measure or plan.pass_bytes > 0, "free_bytes": available_bytes(),
            "memory_steps": list(plan.given_up), "stage_seconds": clock.laps}


def _outline(grid: Grid) -> Volume:
    """An image of this size in this place, without memory for its voxels."""
    channels = [] if len(grid.shape) == 3 else [grid.shape[-1] if grid.channels_last else grid.shape[0]]
    spatial = grid.shape if len(grid.shape) == 3 else grid.shape[:3] if grid.channels_last else grid.shape[1:]
    geometry = _geometry(spatial, grid.affine, grid.name)
    return Volume(np.broadcast_to(np.zeros((), grid.dtype), (*(channels or [1]), *spatial)), geometry,
                  is_2d=grid.is_2d, spacing_known=grid.spacing_known, source=grid.name)


def _segment(work: Segment, store: ModelStore, on_progress: OnProgress, should_stop: ShouldStop) -> Result:
    clock, settings = Stopwatch(), work.settings
    _refuse_nowhere(work)
    models, warm = _models(store, work.model, settings.device, settings.precision)
    segmenter = segmenter_for(models, settings)
    clock.lap("load")
    with contextlib.ExitStack() as buffers:
        images = [_image(image, settings.frame, buffers) for image in work.images]
        geometry = images[0].geometry
        target = _labels_buffer(work.labels, geometry, "labels", buffers, writable=True)
        base = _labels_buffer(work.base, geometry, "base", buffers)
        region = None if settings.roi is None else region_of_box(settings.roi, geometry)
        outputs = CaseOutputs(settings, segmenter.info, Path(work.output or "nowhere"))
        clock.lap("read")
        labels = segmenter.segment(images, roi=settings.roi, base=base, sink=outputs.sink, on_progress=on_progress,
                                   should_stop=should_stop)
        clock.lap("segment")
        steps = steps_for(segmenter.info, segmenter.values.tolist(), model=settings.postprocess == "model",
                          largest_component=settings.largest_component, fill_holes=settings.fill_holes)
        cleaned = clean_inside(labels, steps, region, geometry, background=int(segmenter.values[0]))
        sizes = label_sizes(labels, images[0], segmenter.info, segmenter.last_run.confidence, cleaned)
        clock.lap("measure")
        if target is not None:
            _put(labels, target)
        written: dict[str, Any] = {"output": None}
        if work.output is not None:
            segments = segments_of(segmenter.info, segmenter.values)
            written = outputs.write(labels, geometry, segments, region, Path(work.images[0].path or ""))
        clock.lap("write")
    return {"task": "segmentation", "model": segmenter.info.name, "warm": warm, "labels": sizes, **written,
            "seconds": clock.total, "stage_seconds": clock.laps, **run_facts(segmenter)}


def _refuse_nowhere(work: Segment) -> None:
    """Refuse outputs that have no place to go."""
    settings = work.settings
    if (settings.probabilities or settings.uncertainty) and work.output is None:
        raise BadInput("Maps of probability and uncertainty are files. Name an output for them.")
    if settings.format == "dicom-seg" and work.output is not None:
        if work.images[0].path is None:
            raise BadInput("DICOM segmentations refer to a series, but the image is a buffer. Choose another format.")
        require_highdicom()
        refuse_unless_dicom(Path(work.images[0].path))


def _classify(work: Classify, store: ModelStore, on_progress: OnProgress, should_stop: ShouldStop) -> Result:
    clock, settings = Stopwatch(), work.settings
    models, warm = _models(store, work.model, settings.device, settings.precision)
    classifier = Classifier(models[0], batch=settings.batch, pooling=settings.pooling)
    clock.lap("load")
    with contextlib.ExitStack() as buffers:
        images = [_image(image, settings.frame, buffers) for image in work.images]
        clock.lap("read")
        found = classifier.classify(images, on_progress=on_progress, should_stop=should_stop)
        clock.lap("classify")
    return {"task": "classification", "model": classifier.info.name, "warm": warm, "label": found.label,
            "labels": list(found.labels), "probabilities": found.probabilities,
            "uncalibrated": found.uncalibrated, "calibrated": classifier.is_calibrated,
            "calibration_told": classifier.calibration_told,
            "deciding_slices": {name: {"axis": "kji"[axis], "index": index}
                                for name, (axis, index) in found.deciding_slices.items()},
            "seconds": clock.total, "stage_seconds": clock.laps}


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
    assert image.buffer is not None and image.affine is not None
    array = buffers.enter_context(opened(image.buffer))
    if image.channels_last and array.ndim == 4:
        array = np.moveaxis(array, -1, 0)
    array = array if array.ndim == 4 else array[None]
    geometry = _geometry(array.shape[1:], image.affine, image.name)
    return Volume(array, geometry, is_2d=image.is_2d, spacing_known=image.spacing_known, source=image.name)


def _geometry(shape: Sequence[int], affine: Sequence[Sequence[float]], name: str) -> Geometry:
    if tuple(affine[3]) != (0, 0, 0, 1):
        raise BadInput(f"{name} has no usable geometry: the last row of its affine must be 0 0 0 1. "
                       "Give the matrix from (i, j, k, 1) to RAS mm.")
    return Geometry((shape[0], shape[1], shape[2]), np.array(affine, np.float64))


def _labels_buffer(buffer: Buffer | None, geometry: Geometry, name: str, buffers: contextlib.ExitStack, *,
                   writable: bool = False) -> np.ndarray | None:
    """A buffer for labels on the image's grid, checked before anything is computed."""
    if buffer is None:
        return None
    if tuple(buffer.shape) != geometry.shape:
        raise BadInput(f"The buffer {name} has the shape {list(buffer.shape)}, but the image has "
                       f"{list(geometry.shape)} voxels (k, j, i). Give a buffer of that shape.")
    if buffer.dtype.startswith("float"):
        raise BadInput(f"The buffer {name} is of type {buffer.dtype}. Give one of whole numbers, as uint8.")
    return buffers.enter_context(opened(buffer, writable=writable))


def _put(labels: np.ndarray, target: np.ndarray) -> None:
    bounds = np.iinfo(target.dtype)
    if labels.min() < bounds.min or labels.max() > bounds.max:
        raise BadInput(f"The model's label values from {labels.min()} to {labels.max()} do not fit into a buffer of "
                       f"type {target.dtype.name}. Give a larger type, as int16.")
    target[...] = labels
