"""The processes that `inference.py` measures: ours, the peer, and small ones for the cold and the warm start.

Each runs alone in its own process and writes what it measured as JSON: ``python inference_children.py NAME JSON``, with
the arguments of the function NAME as a JSON object and the file for the answer under "json".
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BEGUN = time.monotonic()  # nearly the process's start; `inference.py` knows the real one


class Clock:
    """Seconds by stage; a stage within another one is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.first: dict[str, float] = {}
        self._open: list[tuple[str, list[float]]] = []  # names, and the seconds of the stages inside

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block as `name`, without the stages inside it."""
        begun = time.monotonic()
        self.first.setdefault(name, begun)
        self._open.append((name, []))
        try:
            yield
        finally:
            _, inside = self._open.pop()
            took = time.monotonic() - begun
            if self._open:
                self._open[-1][1].append(took)
            self.seconds[name] = self.seconds.get(name, 0.0) + took - sum(inside)
            self.calls[name] = self.calls.get(name, 0) + 1

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Count every call of ``owner.name``, which must exist, unless it is made within the same stage."""
        function: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            if any(name == stage for name, _ in self._open):
                return function(*arguments, **named)
            with self.stage(stage):
                return function(*arguments, **named)

        setattr(owner, name, counted)


def high_water_mark() -> int:
    """Bytes that this process has held at most since it began, or since somebody reset the mark."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("Peak memory is read from /proc/self/status, so this benchmark needs Linux.")


def keep_peaks() -> list[int]:
    """The engine resets the mark for each image; the marks of before are kept in this list."""
    from medmae.inference import memory

    peaks: list[int] = []
    reset: Callable[[], bool] = memory._reset_system_peak

    def noted() -> bool:
        peaks.append(high_water_mark())
        return reset()

    memory._reset_system_peak = noted
    return peaks


def repeat_passes(network: Any, name: str, passes: int | None) -> None:
    """Compute the first passes of ``network.name``, then repeat the last result; None: compute all."""
    if passes is None:
        return
    function, results, left = getattr(network, name), [], [passes]

    def repeated(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            results[:] = [function(*arguments, **named)]
        return results[0].clone()  # what a pass gives is new memory

    setattr(network, name, repeated)


def count_forward_passes(clock: Clock, passes: int | None) -> None:
    """Count what the network computes: all of it, or up to the 1x1x1 head where the engine applies that elsewhere."""
    from medmae.networks.unetr import Unetr

    repeat_passes(Unetr, "voxel_features", passes)
    clock.wrap(Unetr, "voxel_features", "network")
    clock.wrap(Unetr, "forward", "network")


def facts(clock: Clock, peaks: list[int], **more: Any) -> dict[str, Any]:
    """What every child reports; the sum of all stages is what is known of the process's time."""
    return {"seconds": clock.seconds, "calls": clock.calls, "first": clock.first, "begun": BEGUN,
            "ended": time.monotonic(), "peak_bytes": max([high_water_mark(), *peaks]), **more}


def ours(*, model: str, image: str, out: str, options: list[str], passes: int | None) -> dict[str, Any]:
    """``medmae segment``."""
    clock = Clock()
    with clock.stage("start"):
        from medmae.cli.app import run

        peaks = keep_peaks()
        count_forward_passes(clock, passes)
        from medmae.datasets.preprocessing import Preprocessing
        from medmae.inference import segment_outputs, segment_run
        from medmae.inference.loaded_model import LoadedModel

        clock.wrap(LoadedModel, "load", "model")
        clock.wrap(segment_run, "read_image", "read")
        clock.wrap(Preprocessing, "prepare", "prepare")
        clock.wrap(segment_run, "label_sizes", "measure")
        clock.wrap(segment_outputs.CaseOutputs, "write", "write")
    with clock.stage("window, blend, restore"):
        code = run(["segment", "--model", model, "--images", image, "--out", out, "--device", "cpu", *options])
    if code:
        raise SystemExit(code)
    state = json.loads((Path(out) / "manifest.jsonl").read_text().splitlines()[-1]) if (
        Path(out) / "manifest.jsonl").is_file() else {}
    return facts(clock, peaks, result=state)


def peer(*, model: str, image: str, out: str, precision: str, side: int, spacing: float, low: float,
         high: float, passes: int | None) -> dict[str, Any]:
    """The same with MONAI, as its tutorials do it. "SAR" gives arrays (k, j, i) in the model's RAS axes at once."""
    clock = Clock()
    with clock.stage("start"):
        import numpy as np
        import torch
        from monai.inferers import sliding_window_inference
        from monai.transforms import (
            AsDiscreted,
            Compose,
            EnsureChannelFirstd,
            Invertd,
            LoadImaged,
            Orientationd,
            SaveImaged,
            ScaleIntensityRanged,
            Spacingd,
        )
    with clock.stage("model"):
        from medmae.models import load_network

        network = load_network(model)
    # scale_extent keeps the field of view, as our grid does; without it the grids lie up to half a voxel apart.
    spaced = Spacingd("image", pixdim=(spacing,) * 3, mode="bilinear", scale_extent=True)
    before = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="SAR"),
                      ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True), spaced])
    invert = Invertd("prediction", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True)
    discrete = AsDiscreted("prediction", argmax=True)
    save = SaveImaged("prediction", output_dir=out, output_postfix="", output_dtype=np.uint8, separate_folder=False,
                      print_log=False)
    with torch.inference_mode():
        with clock.stage("read, prepare"):
            data = before({"image": image})
        repeat_passes(network, "forward", passes)
        clock.wrap(network, "forward", "network")
        with clock.stage("window, blend"), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            data["prediction"] = sliding_window_inference(data["image"][None], (side,) * 3, 1, network, overlap=0.5,
                                                          mode="gaussian")[0]
        for stage, transform in (("invert", invert), ("argmax", discrete), ("write", save)):
            with clock.stage(stage):
                data = transform(data)
    return facts(clock, [])


def read_model(*, model: str, times: int) -> dict[str, Any]:
    """Seconds to read the model in a process that has torch already."""
    from medmae.models import load_network

    seconds = []
    for _ in range(times):
        begun = time.monotonic()
        load_network(model)
        seconds.append(time.monotonic() - begun)
    return {"model_seconds": seconds}


def worker(*, report: str) -> None:
    """``python -m medmae.worker`` that appends the seconds of each forward pass to the file `report`."""
    from medmae.networks.unetr import Unetr

    features_of = Unetr.voxel_features

    def timed(network: Unetr, volumes: Any) -> Any:
        begun = time.monotonic()
        features = features_of(network, volumes)
        with open(report, "a") as file:
            file.write(f"{time.monotonic() - begun}\n")
        return features

    Unetr.voxel_features = timed  # type: ignore[method-assign]
    from medmae.worker.__main__ import main

    main()


def warm(*, model: str, image: str, requests: int, report: str) -> dict[str, Any]:
    """Requests to a warm worker, one after the other: how long each takes, and its forward passes."""
    from medmae.volumes import read_image
    from medmae.worker.client import WorkerClient

    volume = read_image(Path(image))
    arguments = json.dumps({"report": report})
    command = [sys.executable, __file__, "worker", arguments]
    seconds, network = [], []
    with WorkerClient(command=command) as client:
        for _ in range(requests):
            before = _total(Path(report))
            begun = time.monotonic()
            request = client.segment(model, [client.image(volume.array[0], volume.geometry.affine)], dtype="uint8")
            client.wait(request, 600)
            seconds.append(time.monotonic() - begun)
            network.append(_total(Path(report)) - before)
    return {"request_seconds": seconds, "network_seconds": network}


def _total(report: Path) -> float:
    return sum(map(float, report.read_text().split())) if report.is_file() else 0.0


CHILDREN: dict[str, Callable[..., dict[str, Any] | None]] = {
    "ours": ours, "peer": peer, "read_model": read_model, "worker": worker, "warm": warm}


def main() -> None:
    """Do what the command line names; what follows the JSON belongs to the worker."""
    sys.path.pop(0)  # this folder: its inference.py is not the engine's
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    report = arguments.pop("json", None)
    sys.argv[1:] = sys.argv[3:]
    found = CHILDREN[name](**arguments)
    if report is not None:
        Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
