"""Segmenting a large CT: `medmae segment` against MONAI, the same weights and the same machine, in one run.

    python Testing/benchmarks/inference.py --out OUT [--parts memory time agreement cold warm] [--classes 14 61 118]
        [--slices 400] [--passes N] [--quick] [--data DATA] [--again]

A CT of 512 x 512 x 400 voxels of 0.8 x 0.8 x 1.0 mm goes through these variants, each in a process of its own:

peer-fp32-14, peer-bf16-14  MONAI as its tutorials use it: LoadImage, Orientation, ScaleIntensityRange, Spacing,
            sliding_window_inference (gaussian, overlap 0.5, one window at a time), Invert (every class, linear),
            AsDiscrete (argmax), SaveImage; in fp32, and with the sliding window under bf16 autocast. With 61 classes
            Invert and argmax alone would need about 69 GiB, so the peer is measured with 14 only.
equal-14    `medmae segment` with the peer's windows: fp32, none skipped.
default-N   `medmae segment` with its defaults and N classes.

Parts: memory (peer-fp32-14 and default-N), time (all with 14 classes), agreement (Dice between the results of those,
and with the organs that the scan was made of), and for a volume of one window
cold        from the start of the process to the first window, against `python -c "import torch"` and the time to read
            the model; what is imported goes to importtime.txt;
warm        the second request to a warm `python -m medmae.worker`, without its forward passes.

The network is GL-MAE's `base` UNETR at 1.5 mm; scan and weights are made up (inference_scan.py). --data DATA takes
the real CT DATA/volumes/ct_abdomen_512, its slices repeated, on which these weights label nothing meaningful. --quick
takes a small scan and a small ViT. --slices takes a shorter scan, for the times where 400 slices take too long.
--passes N computes the first N forward passes of each process and repeats the last one's result for all other windows:
the same peak memory and the same work outside of the forward passes in a fraction of the time, for the parts memory and
time; labels and times end to end say nothing then.

What is finished is kept in OUT and not repeated; --again measures what is asked for once more. Writes results.json,
results.csv and results.md. Needs Linux (peak memory) and nibabel (with which MONAI reads NIfTI).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inference_scan as scans
from inference_tables import write_results

PARTS = ("memory", "time", "agreement", "cold", "warm")
CLASSES = (14, 61, 118)
ROUNDS = 7  # of the cold start
CHILDREN = Path(__file__).with_name("inference_children.py")
MEMORY_OF_PEER = 20  # GB that the peer needs with 14 classes of the whole scan
PEERS, EQUAL = ("peer-fp32-14", "peer-bf16-14"), "equal-14"
Measured = dict[str, Any]


class Bench:
    """The folder of one benchmark and the processes that it measures."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.out: Path = given.out
        self.scan = scans.QUICK if given.quick else scans.Scan((given.slices, *scans.FULL.shape[1:]),
                                                              scans.FULL.spacing_mm)
        self.image, self.small = (self.out / name / "ct.nii.gz" for name in ("scan", "small"))
        self.fresh: set[str] = set()  # measured in this run

    def model(self, classes: int) -> str:
        """The model of `classes` classes."""
        return str(self.out / f"model-{classes}")

    def make_inputs(self) -> None:
        """The scan and the models, where they are not there yet."""
        if not self.image.exists():
            say("writing the scan")
            if self.given.data:
                scans.write_tiled_scan(self.scan, self.given.data, self.image.parent)
            else:
                scans.write_scan(self.scan, self.image.parent)
        if not self.small.exists():
            side = round(scans.window_side(quick=self.given.quick) * scans.SPACING_MM)
            scans.write_scan(scans.Scan((side, side, side), (1.0, 1.0, 1.0)), self.small.parent)
        for classes in sorted({CLASSES[0], *self.given.classes}):
            if not Path(self.model(classes)).exists():
                say(f"writing the model of {classes} classes")
                scans.write_model(Path(self.model(classes)), classes, quick=self.given.quick)

    def variant(self, name: str) -> Measured:
        """Measure a variant on the large scan."""
        classes = int(name.rpartition("-")[2])
        shared = {"model": self.model(classes), "image": str(self.image), "out": str(self.out / "labels" / name),
                  "passes": self.given.passes}
        if name in PEERS:
            more: Measured = {"precision": name.split("-")[1], "side": scans.window_side(quick=self.given.quick),
                              "spacing": scans.SPACING_MM, "low": scans.WINDOW_HU[0], "high": scans.WINDOW_HU[1]}
            return self.measure(name, "peer", shared | more)
        options = ["--precision", "fp32", "--set", "skip_empty=false"] if name == EQUAL else []
        return self.measure(name, "ours", shared | {"options": options})

    def measure(self, name: str, child: str, arguments: dict[str, Any]) -> Measured:
        """Run a child, or take its kept answer."""
        file = self.out / "measured" / f"{name}.json"
        if file.exists() and (name in self.fresh or not self.given.again):
            return json.loads(file.read_text())
        say(f"measuring {name}")
        found = self.run_child(name, child, arguments)
        file.write_text(json.dumps(found, indent=1))
        self.fresh.add(name)
        return found

    def run_child(self, name: str, child: str, arguments: dict[str, Any]) -> Measured:
        """What a child answers, with its wall time and when it was started (on the monotonic clock)."""
        answer, log = (self.out / "measured" / f"{name}.{ending}" for ending in ("answer", "log"))
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.unlink(missing_ok=True)
        if "out" in arguments:
            shutil.rmtree(arguments["out"], ignore_errors=True)
        command = [sys.executable, str(CHILDREN), child, json.dumps(arguments | {"json": str(answer)})]
        load, begun = os.getloadavg()[0], time.monotonic()
        with open(log, "w") as stream:
            done = subprocess.run(command, stdout=stream, stderr=stream, env=environment(), check=False)
        wall = time.monotonic() - begun
        if done.returncode or not answer.exists():
            raise SystemExit(f"{name} failed with code {done.returncode}; see {log}")
        found: Measured = json.loads(answer.read_text())
        answer.unlink()
        return found | {"wall_seconds": wall, "spawned": begun, "load_before": load}

    def labels(self, name: str) -> Path:
        """The label file that a variant wrote."""
        found = list((self.out / "labels" / name).rglob("*.nii.gz"))
        if len(found) != 1:
            raise SystemExit(f"{name} wrote {len(found)} label files instead of one; measure it again with --again")
        return found[0]


def environment() -> dict[str, str]:
    """Of the children: this checkout's engine first."""
    engine = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join([engine, *filter(None, [os.environ.get("PYTHONPATH")])])}


def memory(bench: Bench) -> Measured:
    """The peer with 14 classes, ours with any number."""
    return {name: bench.variant(name) for name in (PEERS[0], *(f"default-{n}" for n in _counts(bench)))}


def times(bench: Bench) -> Measured:
    """Everything with 14 classes."""
    return {name: bench.variant(name) for name in (*PEERS, EQUAL, f"default-{CLASSES[0]}")}


def agreement(bench: Bench) -> Measured:
    """Dice of the labels of each variant with 14 classes with the peer's, and of both with the truth."""
    found = {}
    for name in (EQUAL, f"default-{CLASSES[0]}", PEERS[1]):
        bench.variant(name)
        bench.variant(PEERS[0])
        say(f"comparing {name} with {PEERS[0]}")
        found[f"{name} and {PEERS[0]}"] = dice(bench.labels(name), bench.labels(PEERS[0]))
    organs = bench.image.with_name("organs.nii.gz")
    if organs.exists():  # a real scan has none
        found |= {f"{name} and organs": dice(bench.labels(name), organs) for name in (EQUAL, PEERS[0])}
    return found


def _counts(bench: Bench) -> list[int]:
    return sorted({CLASSES[0], *bench.given.classes})


def dice(one: Path, other: Path) -> dict[str, float]:
    """Dice of each label that either result has, and the share of voxels with the same label under "voxels"."""
    import numpy as np

    from medmae.volumes import read_label

    a, b = read_label(one).array[0], read_label(other).array[0]
    count = int(max(a.max(), b.max())) + 1
    both = np.zeros((count, count), np.int64)
    for plane_a, plane_b in zip(a, b, strict=True):
        pairs = plane_a.astype(np.int64).ravel() * count + plane_b.ravel()
        both += np.bincount(pairs, minlength=both.size).reshape(both.shape)
    sizes = both.sum(0) + both.sum(1)
    found = {str(value): float(2 * both[value, value] / sizes[value]) for value in range(1, count) if sizes[value]}
    return found | {"voxels": float(np.trace(both) / both.sum())}


def cold(bench: Bench) -> Measured:
    """Seconds to the first window, of `import torch`, and of reading the model; they take turns."""
    kept = bench.out / "measured" / "cold.json"
    if kept.exists() and not bench.given.again:
        return json.loads(kept.read_text())
    say("measuring the cold start")
    arguments = {"model": bench.model(CLASSES[0]), "image": str(bench.small), "options": [], "passes": None}
    first, torch_alone = [], []
    for number in range(ROUNDS + 1):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        seconds = time.monotonic() - begun
        found = bench.run_child("cold-start", "ours", arguments | {"out": str(bench.out / "labels" / "cold")})
        if number:  # the first round fills the caches
            torch_alone.append(seconds)
            first.append(found["first"]["network"] - found["spawned"])
    reading = bench.run_child("cold-model", "read_model", {"model": bench.model(CLASSES[0]), "times": ROUNDS})
    modules = imported(bench)
    result = {"first_window_seconds": first, "import_torch_seconds": torch_alone,
              "model_seconds": reading["model_seconds"],
              "imports_monai": any(name.partition(".")[0] == "monai" for name in modules)}
    kept.write_text(json.dumps(result, indent=1))
    return result


def imported(bench: Bench) -> list[str]:
    """Names of all modules that a whole `medmae segment` imports; those above 10 ms go to importtime.txt."""
    out = bench.out / "labels" / "importtime"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-X", "importtime", "-m", "medmae.cli", "segment", "--model", bench.model(CLASSES[0]),
               "--images", str(bench.small), "--out", str(out), "--device", "cpu"]
    text = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True).stderr
    rows = [line.removeprefix("import time:").split("|") for line in text.splitlines()
            if line.startswith("import time:") and "imported package" not in line]
    spent = [(int(cumulative), name.rstrip()) for _, cumulative, name in rows]  # the indentation says how deep
    longest = sorted((one for one in spent if one[0] > 10_000), reverse=True)
    (bench.out / "importtime.txt").write_text("".join(f"{micro / 1000:8.1f} ms {name}\n" for micro, name in longest))
    return [name.strip() for _, name in spent]


def warm(bench: Bench) -> Measured:
    """Requests to a warm worker."""
    return bench.measure("warm", "warm", {"model": bench.model(CLASSES[0]), "image": str(bench.small), "requests": 5,
                                          "report": str(bench.out / "measured" / "forward-passes.txt")})


MEASURES: dict[str, Callable[[Bench], Measured]] = {
    "memory": memory, "time": times, "agreement": agreement, "cold": cold, "warm": warm}


def refuse_what_cannot_be_measured(given: argparse.Namespace) -> None:
    """Say at once what would end a long run in the middle."""
    has_peer = not {"memory", "time", "agreement"}.isdisjoint(given.parts)
    if not Path("/proc/self/status").exists():
        raise SystemExit("Peak memory is read from /proc, so this benchmark needs Linux.")
    if has_peer and importlib.util.find_spec("nibabel") is None:
        raise SystemExit("MONAI reads NIfTI with nibabel, which is not installed: pip install nibabel")
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6
    if has_peer and not given.quick and free < MEMORY_OF_PEER:
        raise SystemExit(f"The peer needs about {MEMORY_OF_PEER} GB for 14 classes; {free:.1f} GB are free.")


def say(text: str) -> None:
    """Progress, on stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def main() -> None:
    """Measure what is asked for and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for scan, models, labels and results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--classes", nargs="+", type=int, default=list(CLASSES))
    parser.add_argument("--data", type=Path, help="folder of the development data, for a real CT")
    parser.add_argument("--slices", type=int, default=scans.FULL.shape[0], help="of the scan (default: %(default)s)")
    parser.add_argument("--passes", type=int, metavar="N", help="compute N forward passes only, see above")
    parser.add_argument("--quick", action="store_true", help="a small scan and a small network")
    parser.add_argument("--again", action="store_true", help="measure once more what is kept in OUT")
    given = parser.parse_args()
    given.out = given.out.absolute()
    if given.passes and not {"memory", "time"}.issuperset(given.parts):
        parser.error("--passes is for --parts memory time alone: labels of repeated passes say nothing")
    refuse_what_cannot_be_measured(given)
    bench = Bench(given)
    bench.make_inputs()
    found: Measured = {"passes": given.passes} if given.passes else {}
    for part in (part for part in PARTS if part in given.parts):
        found[part] = MEASURES[part](bench)
        (bench.out / "results.json").write_text(json.dumps(found, indent=1))
    size = " x ".join(map(str, bench.scan.shape[::-1]))
    network = "a small ViT under the last level of `base`" if given.quick else "`base` UNETR"
    network += f", the results of the first {given.passes} passes repeated" if given.passes else ""
    sys.stdout.write(write_results(bench.out, found, f"{size} voxels, {network}"))


if __name__ == "__main__":
    main()
