"""Sliding windows: the same result as MONAI's, whatever the size of the image, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medmae.errors import BadInput, Stopped
from medmae.inference.device import autocast, resolve_device
from medmae.inference.predictor import WindowPredictor
from medmae.inference.sliding_window import finished_planes, sliding_window
from medmae.inference.windows import gaussian_weight, window_starts


def convolutions(dims: int, channels: int = 1, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv3d if dims == 3 else nn.Conv2d
    return nn.Sequential(conv(channels, 4, 3, padding=1), nn.ReLU(), conv(4, classes, 3, padding=1)).eval()


class Counting(nn.Module):
    """Counts the windows that reach the wrapped network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.windows = 0
        self.largest_batch = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.windows += len(images)
        self.largest_batch = max(self.largest_batch, len(images))
        return self.network(images)


@pytest.mark.parametrize(("size", "window", "overlap", "batch"), [
    ((25, 18, 31), (8, 12, 10), 0.5, 3),
    ((8, 12, 10), (8, 12, 10), 0.5, 1),
    ((5, 30, 7), (8, 12, 10), 0.25, 4),
    ((1, 1, 1), (4, 4, 4), 0.5, 2),
    ((9, 17, 33), (8, 16, 16), 0.75, 2),
    ((40, 11), (16, 16), 0.5, 2),
    ((40, 37), (16, 8), 0.0, 5),
])
def test_the_result_equals_monai(size, window, overlap, batch):
    from monai.inferers import sliding_window_inference

    torch.manual_seed(1)
    network, image = convolutions(len(size), channels=2), torch.rand(2, *size)
    with torch.no_grad():
        expected = sliding_window_inference(image[None], window, 2, network, overlap=overlap, mode="gaussian")[0]
    result = sliding_window(network, image, window, overlap=overlap, batch=batch)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


@settings(max_examples=60)
@given(length=st.integers(1, 90), window=st.integers(1, 40), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9]))
def test_windows_cover_an_axis_and_stay_inside(length, window, overlap):
    length = max(length, window)
    starts = window_starts(length, window, overlap)
    assert starts == sorted(set(starts))
    assert set().union(*(range(start, start + window) for start in starts)) == set(range(length))
    steps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    assert all(step <= max(1, int(window * (1 - overlap))) for step in steps)


@settings(max_examples=40)
@given(size=st.tuples(*[st.integers(1, 14)] * 3), window=st.tuples(*[st.integers(1, 8)] * 3),
       overlap=st.sampled_from([0.0, 0.3, 0.5, 0.75]), batch=st.integers(1, 5))
def test_a_pointwise_network_gives_the_whole_image_result(size, window, overlap, batch):
    torch.manual_seed(sum(size))
    network, image = nn.Conv3d(1, 2, 1), torch.rand(1, *size)
    with torch.no_grad():
        expected = network(image[None])[0]
    pieces = list(finished_planes(WindowPredictor(network, image.device, "fp32", batch=batch), image, window,
                                  overlap=overlap))
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)
    assert max(piece.shape[1] for piece in pieces) <= window[0]


def test_weights_are_symmetric_largest_in_the_centre_and_never_zero():
    weight = gaussian_weight((9, 16))
    assert torch.equal(weight, weight.flip(0)) and torch.equal(weight, weight.flip(1))
    assert weight[4, 7] == weight.max() and weight.min() >= 1e-3


def test_windows_without_contrast_are_computed_once():
    network = Counting(convolutions(3))
    image = torch.zeros(1, 32, 32, 32)
    image[0, :4, :4, :4] = torch.rand(4, 4, 4)
    expected = sliding_window(network.network, image + 0, (8, 8, 8), batch=1)
    result = sliding_window(network, image, (8, 8, 8), batch=4)
    assert network.windows == 2  # the one with contrast and one empty window
    torch.testing.assert_close(result, expected)


def test_windows_are_computed_in_batches():
    network = Counting(convolutions(3))
    sliding_window(network, torch.rand(1, 16, 16, 16), (8, 8, 8), batch=4)
    assert network.largest_batch == 4 and network.windows == 27


def test_progress_counts_windows_and_a_stop_is_obeyed():
    seen = []
    sliding_window(convolutions(3), torch.rand(1, 16, 8, 8), (8, 8, 8), on_progress=lambda *pair: seen.append(pair))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Stopped):
        sliding_window(convolutions(3), torch.rand(1, 16, 8, 8), (8, 8, 8), should_stop=lambda: len(seen) > 0)


def test_reduced_precision_stays_close():
    network, image = convolutions(3), torch.rand(1, 16, 16, 16)
    exact = sliding_window(network, image, (8, 8, 8))
    reduced = sliding_window(network, image, (8, 8, 8), precision="bf16")
    assert reduced.dtype == torch.float32
    assert 0 < float((exact - reduced).abs().max()) < 0.02


def test_devices_and_precisions_that_do_not_exist_are_refused():
    for name in ("gpu", "cuda:99", "mps", ""):
        with pytest.raises(BadInput):
            resolve_device(name)
    with pytest.raises(BadInput, match="fp16 needs a GPU"):
        autocast(torch.device("cpu"), "fp16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_logits():
    network, image = convolutions(3), torch.rand(1, 20, 16, 16)
    expected = sliding_window(network, image, (8, 8, 8))
    found = sliding_window(network.cuda(), image, (8, 8, 8), device=torch.device("cuda"), batch=4)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_the_logits_of_the_whole_image_never_exist_together():
    code = """
import resource, torch
from medmae.inference.predictor import WindowPredictor
from medmae.inference.sliding_window import finished_planes
torch.set_num_threads(1)
class Constant(torch.nn.Module):
    def forward(self, images):
        return images.expand(-1, 40, -1, -1, -1)
image = torch.rand(1, 256, 96, 96)
predictor = WindowPredictor(Constant(), torch.device("cpu"), "fp32")
for planes in finished_planes(predictor, image[:, :16], (16, 32, 32)): pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(planes.shape[1] for planes in finished_planes(predictor, image, (16, 32, 32))) == 256
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(found.stdout) < 60  # MiB; all logits are 360 MiB
