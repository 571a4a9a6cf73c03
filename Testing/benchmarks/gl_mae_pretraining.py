"""Time and memory of GL-MAE pretraining: what masking saves, waiting for data, finer tokens; on a GPU the matrix rate.

    python Testing/benchmarks/gl_mae_pretraining.py [--device cuda:0] [--precision fp32] [--rounds 3] [--parts ...]

Parts (default: reconstruction, waiting, tokens; on a GPU also rate):

reconstruction  The reconstruction part of a step of `base`: forward, loss, backward, clipping and AdamW of the student
                on views that are in memory, no teacher. "dense" encodes all tokens, "masked" the visible quarter;
                decoder and loss are the same. With 8 x 576 (`base`) and 2 x 384 (`base-fast`) decoders. Half of the
                views of a volume: one of 160 and four of 96 voxels a side (on a GPU all, of --volumes volumes).
waiting         Whole steps (views, teacher, all losses) through the loop of `medmae pretrain` on volumes on disk, and
                which share of the time they wait for data. On a processor with `tiny`, whose steps are short.
tokens          Patches of 16 and 8 voxels on the same two views of 96 voxels a side: tokens, seconds a step and peak
                memory, each in a process of its own.
rate            Arithmetic of whole masked steps a second as a share of what a bf16 product of 8192 x 8192 reaches.
attention       Attention written out and fused, forward and backward.

All variants take turns in one process, so that a busy machine slows all of them; ratios compare medians.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from medmae.inference.device import autocast, computes_bf16, resolve_device
from medmae.networks import VitMae, architecture_for, build_network
from medmae.networks.presets import GlMaePreset, preset
from medmae.pretraining.masking import hidden_count, visible_tokens

Step = Callable[[], object]
MASK_RATIO = 0.75
PARTS = ("reconstruction", "waiting", "tokens", "rate", "attention")


def student_flops(network: VitMae, tokens: int, kept: int) -> int:
    """Arithmetic (a product and a sum are 2) of a student step on one view: matrix products, forward and backward.

    n tokens of width w in a block: 24 n w^2 for the six linear maps and 4 n^2 w for attention. The encoder sees CLS and
    the `kept` tokens, the decoder all `tokens`, its last layer the dropped ones. Backward is twice forward, but for the
    embedding of patches, whose input needs no gradient. What a kernel computes twice to save memory is not counted.
    """
    def blocks(depth: int, count: int, width: int) -> int:
        return depth * (24 * count * width**2 + 4 * count**2 * width)

    wide, narrow = network.encoder.width, network.decoder.width
    values = network.decoder.pred.out_features
    embed = 2 * kept * values * wide
    encoder = blocks(len(network.encoder.blocks), kept + 1, wide)
    decoder = 2 * kept * wide * narrow + blocks(len(network.decoder.blocks), tokens, narrow)
    predict = 2 * (tokens - kept if kept < tokens else tokens) * narrow * values
    return 2 * embed + 3 * (encoder + decoder + predict)


class Views:
    """Random views of one size in memory and which of their tokens are visible."""

    def __init__(self, network: VitMae, count: int, size: tuple[int, ...], device: torch.device) -> None:
        self.count, self.tokens = count, math.prod(network.grid(size))
        self.kept = self.tokens - hidden_count(self.tokens, MASK_RATIO)
        generator = np.random.default_rng(0)
        self.volumes = torch.rand(count, 1, *size, device=device)
        self.keep = torch.from_numpy(np.stack(
            [visible_tokens(self.tokens, MASK_RATIO, generator) for _ in range(count)])).to(device)


class Student:
    """A student with its optimiser, and steps on the same views with and without dropped tokens."""

    def __init__(self, name: str, device: torch.device, counts: dict[tuple[int, ...], int]) -> None:
        torch.manual_seed(0)
        network = build_network(architecture_for("gl-mae", name, "encoder", 1)).to(device).train()
        assert isinstance(network, VitMae)
        self.network = network
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05,
                                           fused=True)
        self.views = [Views(self.network, count, size, device) for size, count in counts.items()]
        self.device = device

    def step(self, precision: str, *, dense: bool = False) -> None:
        """Reconstruct all views; forward, backward, clipping and optimiser."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        with autocast(self.device, precision):  # type: ignore[arg-type]
            for views in self.views:
                prediction = self._dense(views) if dense else self.network(views.volumes, views.keep)[1]
                losses.append(self.network.masked_loss(prediction, views.volumes, views.keep))
        loss = torch.stack(losses).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimizer.step()

    def _dense(self, views: Views) -> torch.Tensor:
        """All tokens through the encoder: hidden ones would be replaced, not dropped, which costs the same as these."""
        cls, tokens = self.network.encode(views.volumes)
        return self.network.decode(tokens, None, self.network.grid(views.volumes.shape[2:]), cls=cls)

    def flops(self) -> int:
        """Arithmetic of a masked step."""
        return sum(views.count * student_flops(self.network, views.tokens, views.kept) for views in self.views)

    def images(self) -> int:
        """Views a step."""
        return sum(views.count for views in self.views)


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each variant; they take turns, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def view_counts(device: torch.device, volumes: int) -> dict[tuple[int, ...], int]:
    """Views of `base` by their size: half of one volume's on a processor, all of `volumes` on a GPU."""
    sizes = preset("gl-mae", "base")
    assert isinstance(sizes, GlMaePreset)
    if device.type == "cpu":
        return {sizes.global_size: sizes.global_views // 2, sizes.local_size: sizes.local_views // 2}
    return {sizes.global_size: volumes * sizes.global_views, sizes.local_size: volumes * sizes.local_views}


def reconstruction(device: torch.device, precision: str, rounds: int, volumes: int) -> None:
    """Dense against masked students."""
    counts = view_counts(device, volumes)
    students = {name: Student(name, device, counts) for name in ("base", "base-fast")}
    steps: dict[str, Step] = {}
    for name, student in students.items():
        steps[f"{name} dense"] = partial(student.step, precision, dense=True)
        steps[f"{name} masked"] = partial(student.step, precision)
    medians = measure(steps, rounds, device)
    told = ", ".join(f"{count} of {size[0]}" for size, count in counts.items())
    say(f"reconstruction part of a step, ViT-B, {precision}, views: {told} voxels a side, {rounds} rounds")
    for name in students:
        dense, masked = medians[f"{name} dense"], medians[f"{name} masked"]
        sizes = preset("gl-mae", name)
        assert isinstance(sizes, GlMaePreset)
        say(f"  decoder {sizes.decoder_depth} x {sizes.decoder_width}: dense {dense:.2f} s, masked {masked:.2f} s: "
            f"{dense / masked:.2f}x ({students[name].flops() / masked / 1e9:.0f} GFLOP/s, "
            f"{students[name].images() / masked:.1f} views/s)")


def write_corpus(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Volumes of smooth noise."""
    from medmae.datasets import CorpusWriter

    generator = np.random.default_rng(0)
    with CorpusWriter(folder) as writer:
        for number in range(count):
            coarse = torch.from_numpy(generator.random((1, 1, *(side // 8 for side in shape)), dtype=np.float32))
            volume = functional.interpolate(coarse, size=shape, mode="trilinear")[0].numpy()
            writer.add(f"case{number}", volume, (1.0, 1.0, 1.0), "CT", {})


def waiting(device: torch.device, precision: str, steps: int, volumes: int) -> None:
    """Whole steps through the loop of `medmae pretrain`."""
    from medmae.datasets import Corpus
    from medmae.pretraining.gl_mae import GlMaePretraining
    from medmae.run_folder import RunFolder
    from medmae.training.distributed import ProcessGroup
    from medmae.training.loop import LoopSettings, train

    name = "tiny" if device.type == "cpu" else "base"
    shape = (160, 256, 256) if device.type == "cpu" else (256, 512, 512)
    batch = GlMaePretraining.defaults(name).batch_size if device.type == "cpu" else volumes
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", 16, shape)
        task = GlMaePretraining(name, 1, Corpus(Path(folder) / "corpus"), GlMaePretraining.settings_for(name), 0, 0.05)
        run = RunFolder.create(Path(folder) / "run", "pretrain", {}, {})
        settings = LoopSettings(steps, batch, 1e-4, precision=precision, checkpoint_every=10 * steps)  # type: ignore[arg-type]
        begun = time.perf_counter()
        train(task, run, settings, ProcessGroup.join(str(device)))
        seconds = time.perf_counter() - begun
        records = run.progress()
    waited = records[-1]["data_wait_s"] - records[0]["data_wait_s"]  # the first batch cannot be there in advance
    trained = records[-1]["seconds"] - records[0]["seconds"] if "seconds" in records[0] else seconds
    say(f"waiting for data, {name}, {precision}, batch {batch} of volumes of {shape} voxels, {steps} steps: "
        f"{trained / (steps - 1):.2f} s a step, {100 * waited / trained:.1f} % of it waiting")


def tokens(device: torch.device, precision: str, rounds: int) -> None:
    """Patches of 16 and of 8 voxels, the same view."""
    say(f"finer tokens, ViT-B, decoder 2 x 384, {precision}, two views of 96 voxels a side, 75 % masked")
    for name in ("base-fast", "base-patch8"):
        command = [sys.executable, __file__, "--one", name, "--device", str(device), "--precision", precision,
                   "--rounds", str(rounds), "--threads", str(torch.get_num_threads())]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        say(f"  {name}: {found['tokens']} tokens a view, {found['seconds']:.2f} s a step, "
            f"{found['mib']:.0f} MiB beyond weights, gradients and optimiser ({found['fixed_mib']:.0f} MiB)")


def two_views(name: str, device: torch.device, precision: str, rounds: int) -> dict[str, float]:
    """Seconds a step and peak memory of a student on two views of 96 voxels a side."""
    student = Student(name, device, {(96, 96, 96): 2})
    median = measure({name: partial(student.step, precision)}, rounds, device)[name]
    fixed = sum(4 * parameter.numel() * parameter.element_size() for parameter in student.network.parameters()) / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - imported_mib
    return {"tokens": student.views[0].tokens, "seconds": median, "mib": peak - fixed, "fixed_mib": fixed}


def rate(device: torch.device, rounds: int, volumes: int) -> None:
    """The arithmetic of a student step against a large product, both in bf16, in the same run."""
    matrices = [torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2)]
    for name in ("base", "base-fast"):
        student = Student(name, device, view_counts(device, volumes))
        medians = measure({"step": partial(student.step, "bf16"), "product": partial(torch.matmul, *matrices)},
                          rounds, device)
        reached, best = student.flops() / medians["step"], 2 * 8192**3 / medians["product"]
        memory = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
        say(f"matrix rate of {name}, {volumes} volumes: {reached / 1e12:.2f} TFLOP/s of {best / 1e12:.2f} of the "
            f"product: {100 * reached / best:.0f} %; {student.images() / medians['step']:.1f} views/s{memory}")


def attention(device: torch.device, precision: str, rounds: int) -> None:
    """Written out and fused."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for samples, heads, count, width in ((4, 12, 55, 64), (4, 12, 217, 64), (4, 16, 216, 36), (1, 6, 1000, 64)):
        base = torch.randn(samples, count, 3, heads, width, dtype=dtype, device=device, requires_grad=True)

        def step(written_out: bool, base: torch.Tensor = base) -> None:
            query, key, value = base.permute(2, 0, 3, 1, 4)
            if written_out:
                result = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value
            else:
                result = functional.scaled_dot_product_attention(query, key, value)
            result.float().square().mean().backward()

        found = measure({"out": partial(step, True), "fused": partial(step, False)}, rounds, device)
        say(f"attention, {precision}, {samples} x {heads} heads x {count} tokens x {width}: written out "
            f"{1000 * found['out']:.1f} ms, fused {1000 * found['fused']:.1f} ms")


def say(text: str) -> None:
    """A line of the result, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure the parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 where it is computed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--volumes", type=int, default=8, help="volumes a step on a GPU")
    parser.add_argument("--threads", type=int, help="threads of the processor; default: all cores")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = resolve_device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    precision = given.precision or ("bf16" if computes_bf16(device) else "fp32")
    if given.one:
        say(json.dumps(two_views(given.one, device, precision, given.rounds)))
        return
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    say(f"torch {torch.__version__}, {device}{threads}")
    parts = given.parts or PARTS[:4 if device.type == "cuda" else 3]
    if "reconstruction" in parts:
        reconstruction(device, precision, given.rounds, given.volumes)
    if "waiting" in parts:
        waiting(device, precision, 12 if device.type == "cpu" else 30, given.volumes)
    if "tokens" in parts:
        tokens(device, precision, given.rounds)
    if "rate" in parts:
        rate(device, given.rounds, given.volumes)
    if "attention" in parts:
        attention(device, precision, given.rounds)


imported_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

if __name__ == "__main__":
    main()
