"""Mirroring, several models, parts of images, air, memory that runs out, and stops: what happens to single windows."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from inference_helpers import Bands, description, segmentation_model
from test_preprocessing import oblique
from torch import nn

from medmae.errors import BadInput, Stopped
from medmae.inference.interruption import interruptible
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.out_of_memory import Steps, WindowTooLarge, is_out_of_memory, smaller_window
from medmae.inference.predictor import WindowPredictor
from medmae.inference.segmenter import Segmenter
from medmae.inference.sliding_window import finished_planes, sliding_window
from medmae.volumes import Geometry, Volume

CPU = torch.device("cpu")
CPU_ERROR = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B"


def convolutions(dims=3, classes=3, seed=0):
    torch.manual_seed(seed)
    conv = nn.Conv3d if dims == 3 else nn.Conv2d
    return nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU(), conv(4, classes, 3, padding=1)).eval()


class Limited(nn.Module):
    """Runs out of memory beyond so many windows, or voxels of a window; remembers what it was given."""

    takes_any_window = True

    def __init__(self, network, windows=99, voxels=10**9, error=None):
        super().__init__()
        self.network, self.windows, self.voxels = network, windows, voxels
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        if len(images) > self.windows or images[0, 0].numel() > self.voxels:
            raise self.error
        return self.network(images)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


@pytest.mark.parametrize("dims", [2, 3])
def test_mirroring_is_the_mean_over_all_combinations_of_axes(dims):
    network, image = convolutions(dims), torch.rand(2, 1, *(8, 6, 10)[:dims])
    predictor = WindowPredictor(network, CPU, "fp32", mirrored_axes=range(dims))
    with torch.no_grad():
        outputs = torch.stack(predictor(image))
        combinations = [axes for count in range(dims + 1) for axes in itertools.combinations(range(2, dims + 2), count)]
        expected = torch.stack([network(image.flip(axes)).flip(axes) for axes in combinations]).mean(0)
    assert len(combinations) == 2**dims
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mirrored_image_gets_mirrored_labels_when_mirroring_is_on(dims):
    network = convolutions(dims)
    image = Volume(noise((12, 12, 12)), Geometry.of((12, 12, 12), (1.0, 1.0, 1.0), axes="RAS" if dims == 3 else "LPS"))
    turned = replace(image, array=np.ascontiguousarray(image.array[..., ::-1]))
    segmenter = Segmenter(segmentation_model(network, dims=dims, size=[12] * dims), mirror=True)
    labels = segmenter.segment(image)
    assert np.array_equal(segmenter.segment(turned), labels[..., ::-1])
    assert segmenter.last_run.passes == 2**dims
    plain = Segmenter(segmentation_model(network, dims=dims, size=[12] * dims))
    assert not np.array_equal(plain.segment(turned), plain.segment(image)[..., ::-1])


def test_several_models_average_their_probabilities():
    image = Volume(noise((9, 10, 11)), Geometry.of((9, 10, 11), (1.0, 1.0, 1.0)))
    models = [segmentation_model(convolutions(seed=seed)) for seed in range(3)]
    segmenter = Segmenter(models)
    alone = np.stack([Segmenter(model).probabilities(image) for model in models]).mean(0)
    np.testing.assert_allclose(segmenter.probabilities(image), alone, atol=1e-5)
    assert np.array_equal(segmenter.segment(image), alone.argmax(0)) and segmenter.last_run.passes == 3
    with pytest.raises(BadInput, match="prepare images differently"):
        Segmenter([models[0], segmentation_model(convolutions(), spacing=[2.0, 2.0, 2.0])])
    with pytest.raises(BadInput, match="different labels"):
        Segmenter([models[0], segmentation_model(convolutions(), values=(0, 1, 7))])
    with pytest.raises(BadInput, match="No model"):
        Segmenter([])


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_a_wanted_part_equals_that_part_of_the_whole_with_fewer_windows(overlap):
    image, wanted = torch.rand(1, 40, 25, 33), (slice(17, 21), slice(3, 25), slice(9, 10))
    network = Limited(convolutions())
    whole = sliding_window(network, image, (8, 8, 12), overlap=overlap)
    all_windows = len(network.seen)
    predictor = WindowPredictor(network, CPU, "fp32")
    found = torch.cat(list(finished_planes(predictor, image, (8, 8, 12), overlap=overlap, wanted=wanted)), 1)
    torch.testing.assert_close(found, whole[(slice(None), *wanted)], atol=1e-5, rtol=1e-5)
    assert predictor.computed < all_windows / 4


def test_half_precision_sums_are_as_exact_as_their_type():
    network, image = convolutions(), torch.rand(1, 20, 20, 20)
    expected = sliding_window(network, image, (8, 8, 8))
    found = torch.cat(list(finished_planes(WindowPredictor(network, CPU, "fp32"), image, (8, 8, 8),
                                           dtype=torch.float16)), 1)
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).abs().max()) < 4 * 2**-11 * float(expected.abs().max())


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL"])
def test_outside_of_the_body_there_is_background_without_its_windows_being_computed(axes):
    geometry = oblique((40, 64, 64), (4.0, 4.0, 4.0), axes)
    points = np.stack(np.meshgrid(*[np.arange(size) - size / 2 for size in geometry.shape], indexing="ij"))
    body = (points**2).sum(0) < 12**2
    scan = np.where(body, 40.0, -1000.0) + np.random.default_rng(0).normal(0, 10, geometry.shape)
    image = Volume(scan[None].astype(np.float32), geometry)
    info = description(intensity={"kind": "ct_window", "low": -1000.0, "high": 1000.0})
    info = replace(info, channels=[{"name": "CT", "modality": "CT"}], input_size=[16] * 3)

    class Opposite(nn.Module):
        def forward(self, images):
            return torch.cat([images, 0.5 - images, images - 9], 1)  # air would be class 1 everywhere

    models = [LoadedModel.of(info, Opposite()) for _ in range(2)]
    whole, body_only = Segmenter(models[0], skip_empty=False), Segmenter(models[1])
    expected, found = whole.segment(image), body_only.segment(image)
    far = (points**2).sum(0) > 22**2
    assert np.array_equal(found[~far & (np.abs(points) < 14).all(0)], expected[~far & (np.abs(points) < 14).all(0)])
    assert (expected[far] == 1).all() and (found[far] == 0).mean() > 0.6
    assert body_only.last_run.computed < 0.6 * whole.last_run.computed


def test_windows_of_air_count_as_constant_and_are_computed_once():
    network, image = Limited(convolutions()), torch.rand(1, 32, 32, 32)
    clean = image.clone()
    clean[:, :16] = image.min()
    expected = sliding_window(network.network, clean, (8, 8, 8), overlap=0.0)
    predictor = WindowPredictor(network, CPU, "fp32", batch=3)
    found = torch.cat(list(finished_planes(predictor, image, (8, 8, 8), overlap=0.0,
                                           is_empty=lambda start, shape: start[0] + shape[0] <= 16,
                                           air=[float(image.min())])), 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert predictor.computed == 1 + 32


def test_only_the_box_is_labelled_and_the_rest_kept():
    geometry = oblique((20, 30, 25), (2.0, 1.0, 1.0), "LPS")
    image = Volume(np.random.default_rng(0).choice([0.5, 1.0], size=(1, *geometry.shape)).astype(np.float32), geometry)
    centre = geometry.center_mm
    box = [value for axis in range(3) for value in (centre[axis] - 6, centre[axis] + 4)]
    segmenter = Segmenter(segmentation_model(values=(0, 1, 2), intensity={"kind": "none"}))
    whole = segmenter.segment(image).astype(int)
    world = geometry.to_world(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1))
    inside = np.all([(world[..., axis] >= box[2 * axis]) & (world[..., axis] <= box[2 * axis + 1])
                     for axis in range(3)], 0)
    assert 0 < inside.sum() < inside.size / 4
    base = np.full(geometry.shape, 700, np.int64)
    found = segmenter.segment(image, roi=box, base=base)
    assert np.array_equal(found, np.where(inside, whole, 700))
    assert np.array_equal(segmenter.segment(image, roi=box), np.where(inside, whole, 0))
    assert (base == 700).all()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_ERROR)])
def test_fewer_windows_go_together_when_memory_does_not_hold_them(error):
    network, image = Limited(convolutions(), windows=1, error=error), torch.rand(1, 16, 16, 16)
    steps = Steps()
    predictor = WindowPredictor(network, CPU, "fp32", batch=4, steps=steps)
    found = torch.cat(list(finished_planes(predictor, image, (8, 8, 8))), 1)
    torch.testing.assert_close(found, sliding_window(network.network, image, (8, 8, 8)), atol=1e-5, rtol=1e-5)
    assert steps.taken == ["2 windows a forward pass instead of 4", "1 window a forward pass instead of 2"]
    assert predictor.batch == 1 and sum(size[0] > 1 for size in network.seen) == 2  # learnt once


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not fit")) and is_out_of_memory(MemoryError())
    network = Limited(convolutions(), windows=1, error=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        sliding_window(network, torch.rand(1, 16, 16, 16), (8, 8, 8), batch=2)


@pytest.mark.parametrize("dims", [2, 3])
def test_smaller_windows_are_the_last_step_where_the_network_takes_them(dims, caplog):
    network = Limited(convolutions(dims), voxels=40**dims)
    image = Volume(noise((48, 48, 48)), Geometry.of((48, 48, 48), (1.0, 1.0, 1.0), axes="RAS" if dims == 3 else "LPS"))
    segmenter = Segmenter(segmentation_model(network, dims=dims, size=[48] * dims), batch=1)
    rows = []
    labels = segmenter.segment(image, sink=lambda row, logits: rows.append(row))
    assert segmenter.last_run.window == (32,) * dims and rows == list(range(48))
    assert segmenter.last_run.steps[-1] in caplog.text and "32 x 32" in segmenter.last_run.steps[-1]
    whole = Segmenter(segmentation_model(network.network, dims=dims, size=[48] * dims)).segment(image)
    assert (labels == whole).mean() > 0.8  # convolutions see zeros beyond the border of a window
    network.takes_any_window = False
    with pytest.raises(WindowTooLarge, match="more memory"):
        segmenter.segment(image)


def test_windows_shrink_to_multiples_of_sixteen_and_stop_at_thirty_two():
    network = Limited(nn.Identity())
    assert smaller_window([network], (96, 96, 96)) == (64, 64, 64)
    assert smaller_window([network], (32, 192, 192)) == (32, 128, 128)
    assert smaller_window([network], (32, 32, 32)) is None and smaller_window([network], (8, 8)) is None
    assert smaller_window([network, nn.Identity()], (96, 96, 96)) is None


class Slow(nn.Module):
    """Many layers that take 0.05 s each."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ReLU() for _ in range(200))

    def forward(self, images):
        for layer in self.layers:
            time.sleep(0.05)
            images = layer(images)
        return torch.cat([images] * 3, 1)


@pytest.mark.alone
@pytest.mark.parametrize("dims", [2, 3])
def test_a_stop_is_obeyed_within_a_forward_pass(dims):
    network = Slow()
    segmenter = Segmenter(segmentation_model(network, dims=dims))
    begun = time.monotonic()
    image = Volume(noise((8, 8, 8)), Geometry.of((8, 8, 8), (1.0, 1.0, 1.0), axes="LPS"))
    with pytest.raises(Stopped):
        segmenter.segment(image, should_stop=lambda: time.monotonic() - begun > 0.3)
    assert time.monotonic() - begun < 5  # the pass takes 10 s
    assert not any(layer._forward_pre_hooks for layer in network.layers)


def test_layers_are_left_as_they_were_and_asked_rarely():
    asked = []
    network = convolutions()
    with interruptible([network], CPU, lambda: bool(asked.append(1))):
        for _ in range(50):
            network(torch.rand(1, 1, 8, 8, 8))
    assert len(asked) < 40
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(("told", "axes"), [([2], (2,)), ([], ()), ([0, 2], (0, 2)), (None, (0, 1, 2))])
def test_images_are_mirrored_as_in_training_alone(told, axes):
    network, image = convolutions(), Volume(noise((12, 12, 12)), Geometry.of((12, 12, 12), (1.0, 1.0, 1.0), axes="RAS"))
    model = LoadedModel.of(description(size=[12] * 3), network, precision="fp32")
    model.info.training.update({} if told is None else {"flip_axes": told})
    segmenter = Segmenter(model, mirror=True)
    labels = segmenter.segment(image)
    assert segmenter.last_run.passes == segmenter.plan(image).passes == 2 ** len(axes)
    windows = torch.from_numpy(image.array)[None]
    with torch.no_grad():
        known = [windows, *(windows.flip([2 + axis for axis in part]) for count in range(1, len(axes) + 1)
                            for part in itertools.combinations(axes, count))]
        turns = [part for count in range(len(axes) + 1) for part in itertools.combinations(axes, count)]
        mean = sum(network(each).flip([2 + axis for axis in turn]) for each, turn in zip(known, turns, strict=True))
    assert np.array_equal(labels, mean[0].argmax(0).numpy())


def test_bands_are_where_they_were_whatever_is_switched_on():
    geometry = oblique((9, 12, 10), (2.0, 1.0, 1.0), "LPI")
    image = Volume(np.random.default_rng(1).choice([0.02, 0.45, 0.9], size=(1, *geometry.shape)).astype(np.float32),
                   geometry)
    expected = np.abs(image.array - np.array([0, 0.5, 1]).reshape(3, 1, 1, 1)).argmin(0)
    models = [segmentation_model(Bands()), segmentation_model(Bands())]
    assert np.array_equal(Segmenter(models, mirror=True, skip_empty=False, batch=3).segment(image), expected)


def test_under_a_limit_of_memory_the_labels_are_the_same_and_too_small_a_limit_is_refused(monkeypatch):
    from medmae.inference import segmenter as module

    geometry = oblique((30, 40, 35), (2.0, 1.0, 1.0), "LPI")
    image = Volume(noise(geometry.shape), geometry)
    model = segmentation_model(convolutions(), size=[16] * 3)
    expected = Segmenter(model, batch=4).segment(image)
    monkeypatch.setattr(module, "resident_bytes", lambda: 0)
    monkeypatch.setattr(module, "pass_bytes", lambda *arguments: 100_000_000 * arguments[4])
    told = Segmenter(model, batch=4).plan(image)
    assert (told.windows, told.passes, told.batch, told.spill) == (3 * 4 * 4, 1, 4, False)
    tight = Segmenter(model, batch=4, memory_limit=1)
    with pytest.raises(BadInput, match="at least"):
        tight.segment(image)
    for limit in range(told.estimated_peak_bytes, 1, -50_000_000):
        segmenter = Segmenter(model, batch=4, memory_limit=limit)
        try:
            chosen = segmenter.plan(image)
        except BadInput:
            break
        assert chosen.estimated_peak_bytes <= limit
        labels = segmenter.segment(image)
        assert np.array_equal(labels, expected) and segmenter.last_run.steps == list(chosen.given_up)
    assert chosen.batch == 1 and chosen.given_up


def test_the_plan_is_told_once_after_the_first_windows_and_costs_no_pass_of_its_own():
    image = Volume(noise((30, 40, 35)), Geometry.of((30, 40, 35), (1.0, 1.0, 1.0)))
    model = segmentation_model(convolutions(), size=[16] * 3)
    passes, told = [], []
    model.network.register_forward_pre_hook(lambda network, inputs: passes.append(len(inputs[0])))
    segmenter = Segmenter(model, batch=4, skip_empty=False)
    segmenter.segment(image, on_plan=lambda plan: told.append((plan, len(passes))))
    (plan, before), = told
    assert before == 1 and sum(passes) == plan.windows == segmenter.last_run.computed
    assert plan.seconds > 0 and plan.estimated_peak_bytes > 0 and "about" in str(plan)


def test_an_image_without_windows_to_compute_has_no_plan():
    geometry = Geometry.of((20, 20, 20), (1.0, 1.0, 1.0))
    told = []
    Segmenter(segmentation_model(convolutions(), size=[16] * 3)).segment(
        Volume(np.zeros((1, 20, 20, 20), np.float32), geometry), on_plan=told.append)
    assert not told
