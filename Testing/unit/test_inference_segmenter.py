"""Segmenting: the label of every voxel of the input grid, whatever its orientation, spacing, size and content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_helpers import Bands, description, segmentation_model
from test_preprocessing import ORIENTATIONS, oblique
from torch import nn

from medmae.errors import BadInput, Stopped
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.segmenter import Segmenter, stored_values
from medmae.volumes import Geometry, Volume, read_image, resample


def rule(array, values=(0, 1, 2)):
    """What `Bands` says, computed on the array as stored."""
    centres = np.linspace(0, 1, len(values)).reshape(-1, 1, 1, 1)
    return np.array(values)[np.abs(array - centres).argmin(0)]


def levels(geometry, seed=0, **kwargs):
    """An image whose voxels are far from the borders between classes."""
    array = np.random.default_rng(seed).choice([0.02, 0.1, 0.45, 0.6, 0.9, 1.0], size=(1, *geometry.shape))
    return Volume(array.astype(np.float32), geometry, source="image.nii.gz", **kwargs)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_every_orientation_gets_its_labels_on_its_own_grid(axes):
    image = levels(oblique((5, 11, 9), (3.0, 0.9, 1.2), axes))
    segmenter = Segmenter(segmentation_model(values=(0, 7, 300)))
    labels = segmenter.segment(image)
    assert labels.dtype == np.uint16 and labels.shape == image.geometry.shape
    assert np.array_equal(labels, rule(image.array, (0, 7, 300)))


@pytest.mark.parametrize("axes", ORIENTATIONS[::5])
def test_a_2d_model_labels_volumes_slice_by_slice_in_every_orientation(axes):
    image = levels(oblique((6, 8, 7), (2.0, 2.0, 2.0), axes))
    turned = oblique((6, 8, 7), (2.0, 2.0, 2.0), axes)
    longest = max(segmentation_model(dims=2).preprocessing.prepare(image).grid.shape[1:])
    segmenter = Segmenter(segmentation_model(dims=2, size=[longest, longest]), batch=4)
    assert turned.is_close(image.geometry)
    assert np.array_equal(segmenter.segment(image), rule(image.array))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 4), (5, 1, 4), (5, 4, 1)])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAI"])
def test_axes_of_a_single_voxel_may_run_either_way(shape, axes):
    image = levels(oblique(shape, (1.0, 1.0, 1.0), axes))
    assert np.array_equal(Segmenter(segmentation_model()).segment(image), rule(image.array))


@settings(max_examples=25)
@given(shape=st.tuples(*[st.integers(1, 20)] * 3), axes=st.sampled_from(ORIENTATIONS),
       spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 2.0, 4.7])] * 3), dims=st.sampled_from([2, 3]),
       model_spacing=st.sampled_from([None, [1.0, 1.0, 1.0], [2.5, 1.5, 1.5]]))
def test_any_grid_is_segmented_onto_itself(shape, axes, spacing, dims, model_spacing):
    geometry = oblique(shape, spacing, axes)
    half = np.zeros((1, *shape), np.float32)
    half[:, :, :, shape[2] // 2:] = 1.0
    segmenter = Segmenter(segmentation_model(dims=dims, spacing=model_spacing, values=(0, 1)))
    labels = segmenter.segment(Volume(half, geometry))
    assert labels.shape == shape
    # Resampling may move the border by a part of a voxel of the coarser grid, not more.
    scale = max(2.5, max(spacing) * 8) / min(spacing) if dims == 2 else 2.5 / min(spacing) + 1
    if shape[2] // 2 > scale:
        assert labels[:, :, 0].max() == 0
        assert labels[:, :, -1].min() == 1


def test_resampling_keeps_a_ball_in_its_place():
    geometry = oblique((20, 60, 60), (3.0, 1.0, 1.0), "LPS")
    points = geometry.to_world(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1))
    ball = (np.linalg.norm(points - geometry.center_mm, axis=-1) < 18).astype(np.float32)
    labels = Segmenter(segmentation_model(values=(0, 1), spacing=[1.5, 1.5, 1.5])).segment(Volume(ball[None], geometry))
    dice = 2 * (labels * ball).sum() / (labels.sum() + ball.sum())
    assert dice > 0.97
    np.testing.assert_allclose(points[labels > 0].mean(0), geometry.center_mm, atol=0.1)


@pytest.mark.parametrize("content", [0.0, 1.0, np.nan])
@pytest.mark.parametrize("kind", ["robust", "xray", "ct_window"])
@pytest.mark.parametrize("dims", [2, 3])
def test_empty_and_uniform_images_are_segmented(content, kind, dims):
    image = Volume(np.full((1, 3, 20, 17), content, np.float32), Geometry.of((3, 20, 17), (2.0, 1.0, 1.0)))
    labels = Segmenter(segmentation_model(dims=dims, spacing=[1.0, 1.0, 1.0] if dims == 3 else None,
                                          intensity={"kind": kind})).segment(image)
    assert labels.shape == (3, 20, 17) and len(np.unique(labels)) == 1


def test_pictures_smaller_and_larger_than_the_window():
    for shape in [(1, 5, 3), (1, 40, 64), (1, 200, 31)]:
        picture = levels(Geometry.of(shape, (1.0, 1.0, 1.0), axes="LPS"), is_2d=True, spacing_known=False)
        longest = max(shape)
        exact = Segmenter(segmentation_model(dims=2, size=[longest, longest])).segment(picture)
        assert np.array_equal(exact, rule(picture.array))
        assert Segmenter(segmentation_model(dims=2, size=[32, 32])).segment(picture).shape == shape


def test_a_2d_model_with_a_spacing_slides_its_window_over_large_slices():
    image = levels(Geometry.of((2, 37, 45), (4.0, 1.0, 1.0), axes="LPS"))
    labels = Segmenter(segmentation_model(dims=2, size=[16, 16], spacing=[4.0, 1.0, 1.0])).segment(image)
    assert np.array_equal(labels, rule(image.array))


def test_channels_may_come_from_several_images():
    class Difference(nn.Module):
        def forward(self, images):
            difference = images[:, 1:2] - images[:, :1]
            return torch.cat([-difference, difference], 1)

    first, second = (levels(oblique((6, 9, 8), (1.0, 1.0, 1.0), "PSR"), seed) for seed in (0, 1))
    segmenter = Segmenter(segmentation_model(Difference(), values=(0, 5), channels=2))
    labels = segmenter.segment([first, second])
    assert np.array_equal(labels, np.where(second.array > first.array, 5, 0)[0])
    with pytest.raises(BadInput, match="needs 2"):
        segmenter.segment(first)


def test_probabilities_sum_to_one_and_agree_with_the_labels():
    image = levels(oblique((8, 9, 7), (2.0, 1.0, 1.0), "SAL"))
    segmenter = Segmenter(segmentation_model(spacing=[1.0, 1.0, 1.0]))
    probabilities = segmenter.probabilities(image)
    assert probabilities.shape == (3, 8, 9, 7)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    # Noise from voxel to voxel is the worst case for the difference of interpolated logits and probabilities.
    assert (probabilities.argmax(0) == segmenter.segment(image)).mean() > 0.85
    native = Segmenter(segmentation_model())
    assert np.array_equal(native.probabilities(image).argmax(0), native.segment(image))


def test_a_convolution_equals_monai_followed_by_resampling():
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1)).eval()
    image = Volume(np.random.default_rng(0).normal(size=(1, 14, 40, 30)).astype(np.float32),
                   oblique((14, 40, 30), (3.0, 1.0, 1.0), "LPS"))
    segmenter = Segmenter(segmentation_model(network, spacing=[1.5, 1.5, 1.5], size=[16, 16, 16]), batch=3)
    prepared = segmenter.model.preprocessing.prepare(image)
    with torch.no_grad():
        logits = sliding_window_inference(torch.from_numpy(prepared.array)[None], (16, 16, 16), 4, network, overlap=0.5,
                                          mode="gaussian")[0].numpy()
    values = prepared.to_source_axes(logits if prepared.geometry.is_close(prepared.grid) else
                                     _linear(logits, prepared.geometry, prepared.grid))
    chosen = np.take_along_axis(values, segmenter.segment(image)[None].astype(int), 0)[0]
    assert (chosen >= values.max(0) - 1e-4).mean() > 0.9999


def _linear(logits, source, target):
    """Linear sampling at voxel centres; `resample` widens its kernel where the target is coarser."""
    for axis in range(3):
        points = np.zeros((target.shape[axis], 3))
        points[:, axis] = np.arange(target.shape[axis])
        positions = np.clip(source.to_indices(target.to_world(points))[:, axis], 0, source.shape[axis] - 1)
        low = np.floor(positions + 1e-9).astype(int)
        part = (positions - low).reshape([-1 if other == axis else 1 for other in range(3)])
        high = np.minimum(low + 1, source.shape[axis] - 1)
        logits = np.take(logits, low, axis + 1) * (1 - part) + np.take(logits, high, axis + 1) * part
    return logits


def test_stops_and_progress_reach_the_caller():
    image = levels(Geometry.of((20, 8, 8), (1.0, 1.0, 1.0)))
    for dims in (2, 3):
        seen = []
        segmenter = Segmenter(segmentation_model(dims=dims), batch=2)
        segmenter.segment(image, on_progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1] and len(seen) > 2
        with pytest.raises(Stopped):
            segmenter.segment(image, should_stop=lambda: True)


def test_models_for_other_tasks_are_refused_with_a_remedy():
    for task, remedy in (("classification", "medmae classify"), ("encoder", "medmae finetune")):
        with pytest.raises(BadInput, match=remedy):
            Segmenter(LoadedModel.of(description(task), Bands()))


def test_label_values_take_the_smallest_type():
    assert stored_values([0, 255]).dtype == np.uint8
    assert stored_values([0, 256]).dtype == np.uint16
    assert stored_values([0, -1]).dtype == np.int16
    assert stored_values([0, 70000]).dtype == np.int32


@pytest.mark.parametrize("dims", [2, 3])
def test_every_development_volume_is_segmented_on_its_grid(shared_data, dims):
    folder = shared_data / "volumes"
    dicom = folder / "ct_abdomen_dicom"
    paths = [*sorted(folder.glob("*/image.n*")), dicom, dicom / "same_as.nii.gz"]
    segmenter = Segmenter(segmentation_model(dims=dims, spacing=[4.0, 3.0, 3.0] if dims == 3 else None,
                                             size=[96] * dims, intensity={"kind": "robust"}))
    results = {}
    for path in paths:
        image = read_image(path)
        results[path.name] = segmenter.segment(image)
        assert results[path.name].shape == image.geometry.shape
        assert len(np.unique(results[path.name])) > 1
    assert np.array_equal(results["ct_abdomen_dicom"], results["same_as.nii.gz"])


def test_a_frame_of_a_4d_image_is_segmented_as_its_3d_twin(shared_data):
    folder = shared_data / "volumes" / "mr_brain_epi_oblique"
    segmenter = Segmenter(segmentation_model(spacing=[3.0, 3.0, 3.0], size=[48] * 3, intensity={"kind": "robust"}))
    twin, frame = read_image(folder / "image.nii.gz"), read_image(folder / "image_4d.nii.gz", frame=0)
    assert np.array_equal(segmenter.segment(twin), segmenter.segment(frame))


def test_the_label_of_a_real_oblique_volume_lies_where_the_image_is_bright(shared_data):
    image = read_image(shared_data / "volumes" / "mr_brain_epi_oblique" / "image.nii.gz")
    model = segmentation_model(values=(0, 1), spacing=[2.0, 2.0, 2.0], size=[32] * 3, intensity={"kind": "robust"})
    labels = Segmenter(model).segment(image)
    prepared = model.preprocessing.prepare(image)
    back = prepared.to_source_axes(resample(prepared.array, prepared.geometry, prepared.grid))
    assert (labels == (back[0] > 0.5)).mean() > 0.98
