"""A sliding window over a volume: ours against MONAI's, the same network and windows, gaussian blending, overlap 0.5.

    python Testing/benchmarks/bench_sliding_window.py [CLASSES]

The network is a single convolution, so that what is compared is cutting, blending and memory. Each way runs in a
process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

WAYS = ("ours", "MONAI")
SIZE, WINDOW = (160, 160, 160), (64, 64, 64)


def measure(way: str, classes: int) -> dict[str, float]:
    """Seconds and extra peak MiB until the label of every voxel is known."""
    import torch

    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, classes, 1).eval()
    image = torch.rand(1, *SIZE)
    if way == "ours":
        from medmae.inference.sliding_window import finished_planes
    else:
        from monai.inferers import sliding_window_inference
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    if way == "ours":
        parts = [planes.argmax(0).to(torch.uint8) for planes in finished_planes(network, image, WINDOW, batch=2)]
        labels = torch.cat(parts)
    else:
        with torch.no_grad():
            logits = sliding_window_inference(image[None], WINDOW, 2, network, overlap=0.5, mode="gaussian")
        labels = logits[0].argmax(0).to(torch.uint8)
    seconds = time.perf_counter() - begun
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": seconds, "mib": extra, "sum": float(labels.float().sum())}


def main() -> None:
    """Measure both and print ratios."""
    classes = sys.argv[1] if len(sys.argv) > 1 else "15"
    results = {}
    for way in WAYS:
        output = subprocess.run([sys.executable, __file__, "--one", way, classes], check=True, capture_output=True,
                                text=True).stdout
        results[way] = json.loads(output.splitlines()[-1])
    ours = results["ours"]
    for way, result in results.items():
        slower = f"{result['seconds']:6.2f} s ({result['seconds'] / ours['seconds']:5.2f}x)"
        larger = f"{result['mib']:6.0f} MiB ({result['mib'] / max(1.0, ours['mib']):5.1f}x)"
        sys.stdout.write(f"{classes} classes, {way:6s}: {slower}, {larger}\n")
    assert abs(ours["sum"] - results["MONAI"]["sum"]) <= 1e-4 * ours["sum"], "the labels differ"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
