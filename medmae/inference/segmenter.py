"""Segmenting an image with a trained model: labels on the exact input grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from medmae.datasets.prepared import Prepared
from medmae.errors import Stopped
from medmae.inference.config import Precision
from medmae.inference.device import resolve_precision
from medmae.inference.foreground import Foreground, foreground
from medmae.inference.interruption import ShouldStop, interruptible
from medmae.inference.loaded_model import LoadedModel, load_members
from medmae.inference.memory import can_return_freed_memory, freed_memory_returned, resident_bytes
from medmae.inference.out_of_memory import Steps, WindowTooLarge, smaller_window
from medmae.inference.outputs.confidence import Confidence
from medmae.inference.pass_memory import PassMeter, pass_bytes
from medmae.inference.plan import Plan, Work, plan, windows_from
from medmae.inference.plan_telling import OnPlan, PlanTelling
from medmae.inference.predictor import WindowPredictor, plain_pass
from medmae.inference.region import Region, region_of_box
from medmae.inference.restore import PlacedSink, RowSink, covering_box, restore_labels
from medmae.inference.slices import finished_slices
from medmae.inference.sliding_window import OnProgress, finished_planes
from medmae.inference.spilling import SpilledArrays
from medmae.inference.windows import least_values
from medmae.networks.voxel_head import VoxelHead, joined
from medmae.volumes import Geometry, Volume

Model = str | Path | LoadedModel


@dataclass
class RunFacts:
    """What the last image took.

    Attributes:
        windows: windows (slices) that the wanted part needs.
        computed: those that went through the network; of windows without contrast one does for all.
        passes: forward passes of each of them (mirroring, members).
        window: the network's window, smaller than the model's where memory asked for it.
        steps: what was given up for memory's sake, in order.
        confidence: by label name, how sure the model is of it, see `Confidence`; without labels that won nowhere.
    """

    windows: int = 0
    computed: int = 0
    passes: int = 1
    window: tuple[int, ...] = ()
    steps: list[str] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scope:
    """Which part of an image is labelled: that of a box in mm, and of it where there is something."""

    box: Region | None
    found: Foreground | None

    @property
    def region(self) -> Region | None:
        """None: all of the image, or, without content, nothing."""
        if self.found is None:
            return self.box
        return self.found.region if self.box is None else self.box.intersection(self.found.region)

    @property
    def needs_context(self) -> bool:
        """Whether there is anything to see around the region; around a body there is only air."""
        return self.box is not None

    @property
    def has_content(self) -> bool:
        """Whether there is something to label."""
        return self.found is None or self.region is not None


class Segmenter:
    """A segmentation model, or several that answer together, that turns images into label maps.

    3-D models see the volume through an overlapping window; 2-D models see images, and volumes slice by slice, with
    as many neighbouring slices as they were trained with.

    Args:
        model: name in the registry, path of a model or run folder, or a model already loaded; or several of them, whose
            probabilities are averaged.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32, bf16 or fp16.
        overlap: part of the window that neighbouring windows share.
        batch: windows (slices) a forward pass; None: what suits the device.
        values: stored label value of each class; None: those of the model's training data.
        mirror: average over windows mirrored along every combination of the axes along which the model's training
            mirrored images (2^n passes). Along others it has learned nothing, and names of front and back would change
            places: Dice 0.32 instead of 0.79 (docs/results/rank.md). Models that do not tell: along all axes.
        skip_empty: leave out what is outside of the body (CT) or constant background (others): it is background, and
            windows in which there is nothing else count as air, which is computed once.
        memory_limit: bytes of main memory that the process may hold; what does not fit is given up step by step, see
            `plan`. None: no limit; then the same is done where memory really runs out.

    Attributes:
        last_run: facts about the last image.

    Raises:
        BadInput: the model cannot be used, several do not fit together, or the device does not exist.
    """

    def __init__(self, model: Model | Sequence[Model], *, device: str = "auto", precision: Precision = "auto",
                 overlap: float = 0.5, batch: int | None = None, values: Sequence[int] | None = None,
                 mirror: bool = False, skip_empty: bool = True, memory_limit: int | None = None) -> None:
        self.members = load_members(model, task="segmentation", device=device, precision=precision)
        self.model = self.members[0]
        self.info = self.model.info
        self.overlap = overlap
        self.batch = batch or self.model.windows_at_once
        known = self.info.flip_axes
        self.mirrored_axes = () if not mirror else tuple(range(self.info.spatial_dims)) if known is None else known
        self.skip_empty = skip_empty
        self.memory_limit = memory_limit
        self.values = stored_values([int(label["value"]) for label in self.info.labels] if values is None else values)
        self.last_run = RunFacts()

    def segment(self, image: Volume | Sequence[Volume], *, roi: Sequence[float] | None = None,
                base: np.ndarray | None = None, sink: RowSink | None = None, further_bytes: int = 0,
                on_plan: OnPlan | None = None, on_progress: OnProgress | None = None,
                should_stop: ShouldStop | None = None) -> np.ndarray:
        """Label an image, or the aligned images of a multi-channel case.

        Args:
            image: the image; of several, the first gives the grid.
            roi: R0, R1, A0, A1, S0, S1 in RAS mm: only voxels with their centre in this box are labelled.
            base: labels (k, j, i) on the image's grid to keep outside of `roi`; None: background.
            sink: see `restore_labels`, or a `PlacedSink`; its rows are those of the region that is labelled, in the
                model's orientation. They begin again at the first one where memory ran out on the way.
            further_bytes: what the caller holds besides, which counts for the plan and the limit.
            on_plan: called with the plan, once: after the first windows, on which memory and time are measured. Not
                called where no window had to be computed.
            on_progress: called with (windows done, windows in all).
            should_stop: asked between windows, and on a processor between layers too.

        Returns:
            (k, j, i) on the image's own grid, with the label values that the model's training data stored.

        Raises:
            BadInput: the image does not fit the model, the box misses the image, or the limit is too small.
            Stopped: `should_stop` said so.
            WindowTooLarge: memory does not hold one window, whatever is given up.
        """
        first = image if isinstance(image, Volume) else image[0]
        scope = self._scope(image, roi)
        self.last_run = RunFacts(passes=self._passes, window=tuple(self.model.window))
        if self.memory_limit is not None:
            self._touch_weights()
        work = self._work(image, scope, base, sink is not None, further_bytes) if self.memory_limit or on_plan else None
        chosen = self._plan(work) if work is not None and self.memory_limit else None
        telling = None if work is None or on_plan is None else PlanTelling(work, chosen, on_plan)
        with ExitStack() as stack:
            if chosen is not None and chosen.given_up:
                stack.enter_context(freed_memory_returned())  # slower, but then it does not count against the limit
            spilled = stack.enter_context(SpilledArrays()) if chosen is not None and chosen.spill else None
            labels = self._blank(first.geometry, base, scope.box, spilled)
            if scope.has_content:
                allocate, forget = (np.empty, None) if spilled is None else (spilled.empty, spilled.forget)
                prepared = self.model.preprocessing.prepare(image, scope.region, context=scope.needs_context,
                                                            allocate=allocate, forget=forget)
                if isinstance(sink, PlacedSink):
                    sink.begin(prepared)

                def report(done: int, total: int) -> None:
                    if spilled is not None:
                        spilled.forget()
                    if on_progress is not None:
                        on_progress(done, total)

                air = () if scope.found is None else least_values(prepared.array, forget)
                self._restore(prepared, prepared.target_view(labels), scope.found, sink, report, should_stop, chosen,
                              telling, air)
        if scope.box is not None:
            scope.box.keep_outside(labels, first.geometry, base)
        return labels

    def plan(self, image: Volume | Sequence[Volume], *, roi: Sequence[float] | None = None,
             base: np.ndarray | None = None, wants_rows: bool = False, further_bytes: int = 0, measure: bool = True,
             should_stop: ShouldStop | None = None) -> Plan:
        """What `segment` would take, with what would be given up for the limit of memory.

        The memory of a forward pass is measured by one, once for each model.

        Args:
            image, roi, base, further_bytes: as for `segment`.
            wants_rows: whether there will be a sink.
            measure: False: no pass; where none was measured before, memory is that of everything else.
            should_stop: asked between the layers of that pass, on a processor.

        Raises:
            BadInput: as for `segment`.
            Stopped: `should_stop` said so.
        """
        with interruptible([member.network for member in self.members], self.model.device, should_stop):
            if measure:
                self._touch_weights()
            work = self._work(image, self._scope(image, roi), base, wants_rows, further_bytes)
            return self._plan(work, measure=measure)

    def probabilities(self, image: Volume | Sequence[Volume]) -> np.ndarray:
        """Class probabilities (K, k, j, i) float32 on the image's own grid, for single images: K times its size."""
        prepared = self.model.preprocessing.prepare(image)
        values = np.empty((len(self.values), *prepared.grid.shape), np.float32)

        def sink(row: int, logits: torch.Tensor) -> None:
            values[:, row] = torch.softmax(logits, 0).cpu().numpy()

        self._restore(prepared, np.empty(prepared.grid.shape, self.values.dtype), None, sink, None, None, None, None)
        return prepared.to_source_axes(values)

    def _scope(self, image: Volume | Sequence[Volume], roi: Sequence[float] | None) -> _Scope:
        volumes = [image] if isinstance(image, Volume) else image
        box = None if roi is None else region_of_box(roi, volumes[0].geometry)
        if not self.skip_empty or len(volumes) > 1 or volumes[0].is_2d:
            return _Scope(box, None)
        return _Scope(box, foreground(volumes[0], str(self.info.channels[0].get("modality", ""))))

    def _work(self, image: Volume | Sequence[Volume], scope: _Scope, base: np.ndarray | None,
              wants_rows: bool, further_bytes: int = 0) -> Work:
        model, networks = self.model, [member.network for member in self.members]
        layout = model.preprocessing.layout(image, scope.region, context=scope.needs_context)
        head = joined(networks, len(self.values))[1]
        channels, *prepared = layout.array.shape
        return Work(
            held_bytes=resident_bytes(), prepared=(channels, *prepared), stored=layout.source_geometry.shape,
            wanted=covering_box(layout.geometry, layout.target), target=layout.target.shape,
            window=tuple(model.window), overlap=self.overlap, batch=self.batch, members=len(self.members),
            mirrored_axes=len(self.mirrored_axes), features=head.features, classes=head.classes,
            sum_bytes=self._sum_type(head).itemsize, label_bytes=_type_for(self.values, base).itemsize,
            wants_rows=wants_rows, further_bytes=further_bytes, blends_on_processor=model.device.type == "cpu",
            can_spill=layout.change.order[0] == 0, can_return=can_return_freed_memory())

    def _touch_weights(self) -> None:
        """Weights lie in their file and code is not loaded until a first pass; from then on they count as held."""
        self._pass_bytes(windows_from(tuple(self.model.window), self._smaller)[-1], 1)

    def _plan(self, work: Work, *, measure: bool = True) -> Plan:
        def measured(window: Sequence[int], batch: int) -> int:
            if not measure:
                return self._meter(window, batch).bytes or 0
            kept = max(0, resident_bytes() - work.held_bytes)  # of passes before, which this one may use again
            return kept + self._pass_bytes(window, batch)

        return plan(work, measured, limit=self.memory_limit, smaller=self._smaller)

    def _smaller(self, window: Sequence[int]) -> tuple[int, ...] | None:
        return smaller_window([member.network for member in self.members], window)

    def _pass_bytes(self, window: Sequence[int], batch: int) -> int:
        model, networks = self.model, [member.network for member in self.members]
        return pass_bytes(networks, model.preprocessing.network_channels, len(self.values), window, batch,
                          model.device, model.precision)

    def _meter(self, window: Sequence[int], batch: int) -> PassMeter:
        model, networks = self.model, [member.network for member in self.members]
        return PassMeter(networks, model.preprocessing.network_channels, window, batch, model.device, model.precision)

    def _blank(self, geometry: Geometry, base: np.ndarray | None, box: Region | None,
               spilled: SpilledArrays | None) -> np.ndarray:
        """Background (k, j, i), and around `box` what `base` says."""
        dtype = _type_for(self.values, base)
        labels = np.zeros(geometry.shape, dtype) if spilled is None else spilled.empty(geometry.shape, dtype)
        if base is not None and box is not None:
            labels[...] = base
            labels[box.slices] = 0
        if self.values[0]:
            labels[... if box is None or base is None else box.slices] = self.values[0]
        return labels

    def _restore(self, prepared: Prepared, labels: np.ndarray, found: Foreground | None, sink: RowSink | None,
                 on_progress: OnProgress | None, should_stop: ShouldStop | None, chosen: Plan | None,
                 telling: PlanTelling | None, air: Sequence[float] = ()) -> None:
        """Fill `labels` on ``prepared.target``; where memory runs out, again with less."""
        device, steps = self.model.device, Steps()
        networks = [member.network for member in self.members]
        window, batch, blending = tuple(self.model.window), self.batch, device
        if chosen is not None:
            window, batch = chosen.window, chosen.batch
            steps.taken += chosen.given_up
        while True:
            features, head = joined(networks, len(self.values))
            meter = self._meter(window, min(batch, telling.work.largest_batch) if telling else batch)
            predictor = WindowPredictor(features, device, self.model.precision, batch=batch,
                                        mirrored_axes=self.mirrored_axes, steps=steps,
                                        run_pass=meter.run if telling else plain_pass)
            wanted = covering_box(prepared.geometry, prepared.target)
            source = prepared.geometry.cropped([part.start for part in wanted],
                                               [part.stop - part.start for part in wanted])
            facts = self.last_run = RunFacts(passes=self._passes, window=window, steps=steps.taken)

            def count(done: int, total: int, facts: RunFacts = facts, predictor: WindowPredictor = predictor,
                      meter: PassMeter = meter) -> None:
                facts.windows, facts.computed = total, predictor.computed
                if telling is not None:
                    telling.computed(predictor.computed, meter.bytes)
                if on_progress is not None:
                    on_progress(done, total)

            try:
                if telling is not None:
                    telling.begin()
                with interruptible(networks, device, should_stop):
                    planes = self._planes(predictor, prepared, window, wanted, blending, head, found, air,
                                          count, should_stop)
                    confidence = Confidence(head.classes)
                    restore_labels(_stoppable(planes, should_stop), head, source, prepared.target, labels, self.values,
                                   sink=sink, confidence=confidence)
                facts.confidence = self._by_label(confidence)
                return
            except WindowTooLarge as error:
                # Nothing of the error is kept, because it holds on to the memory of the failed pass
                smaller = None if blending.type == "cuda" else smaller_window(networks, window)
                if smaller is None and blending.type != "cuda":
                    raise WindowTooLarge(f"{error} {_remedy(device)}") from error
            if smaller is None:
                steps.take("windows are blended on the processor")
                blending = torch.device("cpu")
                torch.cuda.empty_cache()
            else:
                steps.take(f"windows of {_sides(smaller)} voxels instead of {_sides(window)}")
                window = smaller

    def _by_label(self, confidence: Confidence) -> dict[str, float]:
        return {str(label["name"]): round(mean, 4)
                for label, mean in zip(self.info.labels[1:], confidence.means(), strict=True) if mean is not None}

    @property
    def _passes(self) -> int:
        """Forward passes of a window."""
        return len(self.members) * 2 ** len(self.mirrored_axes)

    def _planes(self, predictor: WindowPredictor, prepared: Prepared, window: Sequence[int], wanted: Sequence[slice],
                blending: torch.device, head: VoxelHead, found: Foreground | None, air: Sequence[float],
                on_progress: OnProgress, should_stop: ShouldStop | None) -> Iterator[torch.Tensor]:
        """Features (F, n, j, i) of the `wanted` part of the prepared image in order along k."""

        def is_empty(start: Sequence[int], shape: Sequence[int]) -> bool:
            return found is not None and found.is_empty(prepared.geometry, start, shape)

        if self.model.preprocessing.spatial_dims == 2:
            return finished_slices(predictor, prepared.array, window, context=self.model.preprocessing.context,
                                   overlap=self.overlap, wanted=wanted, is_empty=is_empty,
                                   air=air, on_progress=on_progress, should_stop=should_stop)
        return finished_planes(predictor, torch.from_numpy(prepared.array), window, overlap=self.overlap, wanted=wanted,
                               is_empty=is_empty, air=air, blending_device=blending, dtype=self._sum_type(head),
                               on_progress=on_progress, should_stop=should_stop)

    def _sum_type(self, head: VoxelHead) -> torch.dtype:
        """Half precision for features (which norms keep small) of networks that round more coarsely themselves."""
        rounded = resolve_precision(self.model.device, self.model.precision) != "fp32"
        return torch.float16 if rounded and head.features < head.classes else torch.float32


def stored_values(values: Sequence[int]) -> np.ndarray:
    """Stored label value of each class, in the smallest integer type that holds them all."""
    array = np.asarray(values, dtype=np.int64)
    types = (np.uint8, np.uint16, np.int16, np.int32)
    fitting = (kind for kind in types if np.iinfo(kind).min <= array.min() and array.max() <= np.iinfo(kind).max)
    return array.astype(next(fitting, np.int64))


def _type_for(values: np.ndarray, base: np.ndarray | None) -> np.dtype:
    """The integer type of a result that holds the model's values and those of `base`."""
    if base is None or not base.size:
        return values.dtype
    return stored_values([*values.tolist(), int(base.min()), int(base.max())]).dtype


def _stoppable(planes: Iterator[torch.Tensor], should_stop: ShouldStop | None) -> Iterator[torch.Tensor]:
    """The same planes; asks before each, because restoring many classes takes time too."""
    for plane in planes:
        if should_stop is not None and should_stop():
            raise Stopped("Stopped on request.")
        yield plane


def _remedy(device: torch.device) -> str:
    if device.type == "cuda":
        return "Use another GPU, --precision bf16, or --device cpu."
    return "Close other programs, use a machine with more memory, or a model with a smaller window."


def _sides(window: Sequence[int]) -> str:
    return " x ".join(map(str, window))
