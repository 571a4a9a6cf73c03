"""Back to the input grid: equal to resampling every class and taking the argmax, without ever holding them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.errors import BadInput
from medmae.inference.restore import restore_labels
from medmae.networks.voxel_head import VoxelHead
from medmae.volumes import Geometry, resample, resampled_geometry


def restored(planes, source, target):
    """Class indices on `target` from logits."""
    planes = list(planes)
    classes = planes[0].shape[0]
    labels = np.full(target.shape, 255, np.uint8)
    restore_labels(planes, VoxelHead(classes, classes), source, target, labels, np.arange(classes, dtype=np.uint8))
    return labels


def smooth_logits(classes, shape, seed=0):
    torch.manual_seed(seed)
    coarse = torch.randn(1, classes, *(max(2, size // 4) for size in shape))
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0]


def agreement(labels, logits, source, target):
    """Part of the voxels whose label is a winner of the resampled logits; ties within rounding count as winners."""
    values = resample(logits.numpy(), source, target)
    chosen = np.take_along_axis(values, labels[None].astype(int), 0)[0]
    return float((chosen >= values.max(0) - 1e-5).mean())


@pytest.mark.parametrize("make", [smooth_logits, lambda classes, shape: torch.randn(classes, *shape)])
@pytest.mark.parametrize("classes", [2, 5])
def test_labels_equal_the_argmax_of_resampled_classes(make, classes):
    source = Geometry.of((9, 12, 10), (3.0, 2.0, 2.5), origin_mm=(4, 5, 6))
    target = resampled_geometry(source, (1.3, 0.9, 1.1))
    logits = make(classes, source.shape)
    labels = restored([logits], source, target)
    assert labels.dtype == np.uint8 and labels.shape == target.shape
    assert agreement(labels, logits, source, target) == 1.0


@settings(max_examples=40)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), spacing=st.tuples(*[st.floats(0.3, 1.0)] * 3),
       cuts=st.lists(st.integers(1, 8), max_size=4), seed=st.integers(0, 99))
def test_planes_may_come_in_any_portions(shape, spacing, cuts, seed):
    source = Geometry.of(shape, (1.0, 1.0, 1.0))
    target = resampled_geometry(source, spacing)
    logits = smooth_logits(3, shape, seed)
    edges = [0, *sorted({cut for cut in cuts if cut < shape[0]}), shape[0]]
    pieces = [logits[:, start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    whole = restored([logits], source, target)
    assert np.array_equal(restored(iter(pieces), source, target), whole)
    assert agreement(whole, logits, source, target) == 1.0


def test_a_coarser_target_takes_the_class_at_its_centres():
    source = Geometry.of((8, 8, 8), (1.0, 1.0, 1.0))
    target = Geometry.of((3, 3, 3), (2.0, 3.0, 3.0), origin_mm=(0, 0, 0))
    logits = torch.randn(4, 8, 8, 8)
    assert np.array_equal(restored([logits], source, target), logits.argmax(0).numpy()[:6:2, :7:3, :7:3])


def test_equal_grids_give_the_plain_argmax_and_borders_extend():
    source = Geometry.of((4, 5, 6), (1.0, 1.0, 1.0))
    logits = torch.randn(3, 4, 5, 6)
    assert np.array_equal(restored([logits[:, :1], logits[:, 1:]], source, source), logits.argmax(0).numpy())
    wider = Geometry.of((6, 7, 8), (1.0, 1.0, 1.0), origin_mm=(-1, -1, -1))
    expected = np.pad(logits.argmax(0).numpy(), 1, mode="edge")
    assert np.array_equal(restored([logits], source, wider), expected)


def test_many_classes_at_full_resolution_need_little_memory():
    code = """
import resource, torch
import numpy as np
from medmae.inference.restore import restore_labels
from medmae.networks.voxel_head import VoxelHead
from medmae.volumes import Geometry, resampled_geometry
def restored(planes, source, target):
    labels = np.zeros(target.shape, np.uint8)
    restore_labels(planes, VoxelHead(100, 100), source, target, labels, np.arange(100, dtype=np.uint8))
    return labels
torch.set_num_threads(1)
source = Geometry.of((32, 32, 32), (4.0, 4.0, 4.0))
logits = torch.nn.functional.interpolate(torch.randn(1, 100, 8, 8, 8), size=source.shape, mode="trilinear")[0]
restored([logits], source, source)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels = restored([logits], source, resampled_geometry(source, (1.0, 1.0, 1.0)))
assert len(set(labels.ravel().tolist())) > 50
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(found.stdout) < 100  # MiB; the logits of all classes there are 800 MiB, of one class 8 MiB


def slow_labels(features, head, source, target):
    """Logits (K, k, j, i) of every class at every point of the target, through one axis after the other."""
    dense = features.double()
    for axis in range(3):
        points = np.zeros((target.shape[axis], 3))
        points[:, axis] = np.arange(target.shape[axis])
        positions = np.clip(source.to_indices(target.to_world(points))[:, axis], 0, source.shape[axis] - 1)
        low = np.minimum(np.floor(positions).astype(int), source.shape[axis] - 1)
        high = np.minimum(low + 1, source.shape[axis] - 1)
        part = torch.from_numpy(positions - low).view([-1 if other == axis else 1 for other in range(3)])
        dense = dense.index_select(axis + 1, torch.from_numpy(low)) * (1 - part) + dense.index_select(
            axis + 1, torch.from_numpy(high)) * part
    return (head.weight.double() @ dense.flatten(1) + head.bias.double()[:, None]).view(-1, *target.shape).numpy()


@settings(max_examples=40)
@given(features=st.integers(1, 8), classes=st.sampled_from([3, 15, 118]),
       shape=st.tuples(*[st.integers(1, 9)] * 3), spacing=st.tuples(*[st.sampled_from([0.31, 0.5, 1.0, 1.7, 3.0])] * 3),
       noisy=st.booleans(), seed=st.integers(0, 99))
def test_features_and_a_head_give_the_labels_of_all_resampled_classes(features, classes, shape, spacing, noisy, seed):
    source = Geometry.of(shape, (1.0, 1.0, 1.0), axes="LPS")
    target = resampled_geometry(source, spacing)
    torch.manual_seed(seed)
    head = VoxelHead(features, classes, torch.randn(classes, features), torch.randn(classes))
    maps = torch.randn(features, *shape) if noisy else smooth_logits(features, shape, seed)
    values = np.arange(classes, dtype=np.int16) * 7 - 3
    labels = np.full(target.shape, 9999, np.int16)
    rows = []
    restore_labels([maps], head, source, target, labels, values)
    expected = slow_labels(maps, head, source, target)
    chosen = np.take_along_axis(expected, ((labels + 3) // 7)[None].astype(int), 0)[0]
    assert (chosen >= expected.max(0) - 1e-4).all() and np.isin(labels, values).all()
    if classes < 100:
        again = np.empty_like(labels)
        restore_labels([maps], head, source, target, again, values, sink=lambda row, logits: rows.append((row, logits)))
        assert [row for row, _ in rows] == list(range(target.shape[0]))
        np.testing.assert_allclose(np.stack([logits.numpy() for _, logits in rows], 1), expected, atol=1e-4)
        assert (again == labels).mean() > 0.99  # rounding where two classes are equal


def test_labels_are_written_into_views_of_any_layout():
    source, target = Geometry.of((5, 6, 7), (2.0, 2.0, 2.0)), Geometry.of((9, 8, 11), (1.0, 1.3, 1.1))
    maps = torch.randn(4, 5, 6, 7)
    plain = restored([maps], source, target)
    stored = np.zeros((13, 9, 8), np.uint8)
    view = stored.transpose(1, 2, 0)[::-1, :, 1:12]
    restore_labels([maps], VoxelHead(4, 4), source, target, view, np.arange(4, dtype=np.uint8))
    assert np.array_equal(view, plain) and not stored[0].any() and not stored[12].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_answers_that_overflowed_are_no_labels(value):
    grid = Geometry.of((3, 4, 5), (1.0, 1.0, 1.0))
    logits = torch.zeros(2, 3, 4, 5)
    logits[1, 1, 2, 3] = value
    labels, values = np.empty(grid.shape, np.uint8), np.array([0, 1], np.uint8)
    with pytest.raises(BadInput, match="--precision"):
        restore_labels([logits], VoxelHead(2, 2), grid, grid, labels, values)
