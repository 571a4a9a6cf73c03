"""Labels on the image's grid from logits on the network's: ours against resampling every class.

    python Testing/benchmarks/bench_restore.py [CLASSES ...]

Each way runs in a process of its own, so that peak memory is its own; ratios are printed, times are of one run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

WAYS = ("ours", "running maximum", "all classes")


def measure(way: str, classes: int) -> dict[str, object]:
    """Seconds, extra peak MiB and a fingerprint of the labels of one way: 160^3 logits to 288^3 labels."""
    import numpy as np
    import torch
    from torch.nn.functional import interpolate

    from medmae.inference.restore import restore_labels
    from medmae.volumes import Geometry, resampled_geometry

    torch.manual_seed(0)
    source = Geometry.of((160, 160, 160), (1.8, 1.8, 1.8))
    target = resampled_geometry(source, (1.0, 1.0, 1.0))
    logits = interpolate(torch.randn(1, classes, 12, 12, 12), size=source.shape, mode="trilinear")[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    if way == "ours":
        labels = restore_labels([logits], source, target)
    elif way == "all classes":
        labels = interpolate(logits[None], size=target.shape, mode="trilinear")[0].argmax(0).to(torch.uint8).numpy()
    else:
        best = torch.full(target.shape, -torch.inf)
        winner = torch.zeros(target.shape, dtype=torch.uint8)
        for index in range(classes):
            values = interpolate(logits[None, index:index + 1], size=target.shape, mode="trilinear")[0, 0]
            winner[values > best] = index
            best = torch.maximum(best, values)
        labels = winner.numpy()
    seconds = time.perf_counter() - begun
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": seconds, "mib": extra, "counts": np.bincount(labels.ravel(), minlength=classes).tolist()}


def main() -> None:
    """Measure all ways for each number of classes and print a table."""
    for classes in map(int, sys.argv[1:] or ("15", "60")):
        results = {}
        for way in WAYS:
            output = subprocess.run([sys.executable, __file__, "--one", way, str(classes)], check=True,
                                    capture_output=True, text=True).stdout
            results[way] = json.loads(output)
        ours = results["ours"]
        for way, result in results.items():
            voxels = sum(ours["counts"])
            differing = sum(abs(a - b) for a, b in zip(result["counts"], ours["counts"], strict=True)) / 2
            slower = f"{result['seconds']:6.2f} s ({result['seconds'] / ours['seconds']:5.2f}x)"
            larger = f"{result['mib']:7.0f} MiB ({result['mib'] / max(1, ours['mib']):5.1f}x)"
            sys.stdout.write(f"{classes:3d} classes, {way:15s}: {slower}, {larger}, "
                             f"label counts differ by {differing / voxels:.1e}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
