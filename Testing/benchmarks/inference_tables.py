"""The tables of `inference.py`: what was asked for, what was measured, and where the time went."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import statistics
from pathlib import Path
from typing import Any

Measured = dict[str, Any]
Row = tuple[str, str, str, str]
PEER, EQUAL, DEFAULT = "peer-fp32-14", "equal-14", "default-14"


def write_results(out: Path, found: Measured, what: str) -> str:
    """Write results.csv and results.md; the text of the latter."""
    rows = goals(found)
    with open(out / "results.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["figure", "measured", "asked for", "reached"])
        writer.writerows(rows)
    variants: Measured = found.get("memory", {}) | found.get("time", {})
    text = "\n\n".join(part for part in (
        f"{what}; {machine()}.", table(["figure", "measured", "asked for", "reached"], rows), times_table(variants),
        dice_table(found.get("agreement", {})), starts(found)) if part) + "\n"
    (out / "results.md").write_text(text)
    return text


def goals(found: Measured) -> list[Row]:
    """Every figure that was asked for, as far as it was measured."""
    rows: list[Row] = []

    def add(figure: str, value: float, goal: float, unit: str = "") -> None:
        rows.append((figure, f"{value:.3g}{unit}", f"at most {goal:.3g}{unit}", "yes" if value <= goal else "no"))

    memory, time = found.get("memory", {}), found.get("time", {})
    counts = sorted(int(name.rpartition("-")[2]) for name in memory if name.startswith("default"))
    if memory:
        add("peak memory, 14 classes, as a share of the peer's",
            memory[DEFAULT]["peak_bytes"] / memory[PEER]["peak_bytes"], 1 / 4)
        for count in counts:
            add(f"peak memory, {count} classes", memory[f"default-{count}"]["peak_bytes"] / 1e9, 4, " GB")
        add(f"peak memory, {counts[-1]} classes, as a share of that with 14",
            memory[f"default-{counts[-1]}"]["peak_bytes"] / memory[DEFAULT]["peak_bytes"], 1.1)
    if time:
        add("time outside the forward passes, equal windows, as a share of the peer's",
            outside(time[EQUAL]) / outside(time[PEER]), 1 / 5)
    if time and not found.get("passes"):
        add("time end to end, defaults, as a share of the peer's", time[DEFAULT]["wall_seconds"]
            / time[PEER]["wall_seconds"], 1 / 3)
    for pair, values in found.get("agreement", {}).items():
        if pair.endswith(PEER) and not pair.startswith("peer"):
            least = min(labels_of(values))
            rows.append((f"least Dice of a label, {pair}", f"{least:.4f}", "at least 0.995",
                         "yes" if least >= 0.995 else "no"))
    if "cold" in found:
        first, torch, model = (statistics.median(found["cold"][f"{name}_seconds"])
                               for name in ("first_window", "import_torch", "model"))
        add("start to first window without reading the model, as a multiple of `import torch`",
            (first - model) / torch, 1.3)
    if "warm" in found:
        add("second request to the warm worker beyond its forward passes",
            found["warm"]["request_seconds"][1] - found["warm"]["network_seconds"][1], 0.5, " s")
    return rows


def outside(one: Measured) -> float:
    """Seconds of a process that were not spent in forward passes, its start included."""
    return one["wall_seconds"] - one["seconds"]["network"]


def times_table(variants: Measured) -> str:
    """Peak memory and seconds by stage of each variant."""
    rows = []
    for name, one in variants.items():
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in one["seconds"].items() if stage != "network")
        said = one.get("result", {}).get("result", {}).get("estimated_peak_bytes")
        rows.append((name, f"{one['peak_bytes'] / 1e9:.2f} GB", f"{said / 1e9:.2f} GB" if said else "",
                     f"{one['wall_seconds']:.1f}", f"{one['seconds']['network']:.1f}", str(one["calls"]["network"]),
                     f"{outside(one):.1f}", stages, f"{one['load_before']:.1f}"))
    columns = ["variant", "peak memory", "said before", "end to end, s", "forward passes, s", "passes",
               "outside of them, s", "by stage, s", "load before"]
    return table(columns, rows) if rows else ""


def dice_table(agreement: Measured) -> str:
    """Dice between results, per label."""
    rows = [(pair, f"{values['voxels']:.5f}", f"{min(labels_of(values)):.4f}", ", ".join(
        f"{label}: {value:.4f}" for label, value in values.items() if label != "voxels"))
        for pair, values in agreement.items()]
    return table(["results", "voxels with the same label", "least Dice", "Dice by label"], rows) if rows else ""


def labels_of(values: dict[str, float]) -> list[float]:
    """The Dice of all labels."""
    return [value for label, value in values.items() if label != "voxels"]


def starts(found: Measured) -> str:
    """Seconds of cold starts and of requests to the warm worker."""
    lines = []
    if "cold" in found:
        medians = ", ".join(f"{name.removesuffix('_seconds').replace('_', ' ')} {statistics.median(values):.2f} s"
                            for name, values in found["cold"].items() if name.endswith("_seconds"))
        lines.append(f"Cold start, medians: {medians}; imports monai: "
                     f"{'yes' if found['cold']['imports_monai'] else 'no'}.")
    if "warm" in found:
        pairs = zip(found["warm"]["request_seconds"], found["warm"]["network_seconds"], strict=True)
        lines.append("Warm worker, requests: " + ", ".join(
            f"{whole:.2f} s ({network:.2f} s in forward passes)" for whole, network in pairs) + ".")
    return "\n".join(lines)


def table(columns: list[str], rows: list[Any]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Where and when."""
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.machine())
    threads = os.environ.get("OMP_NUM_THREADS", "all cores")
    return (f"{name}, {os.cpu_count()} cores (threads: {threads}), torch {version('torch')}, MONAI {version('monai')}, "
            f"{datetime.date.today().isoformat()}")
