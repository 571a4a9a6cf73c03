"""``medmae doctor``: is this machine ready, and if not, what to do."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from medmae import __version__
from medmae.cli import options
from medmae.cli.app import DONE, FAILED
from medmae.home import home

GIB = 2**30
OLDEST_PYTHON = (3, 11)
NEEDS_DISK_GIB = 5
NEEDS_MEMORY_GIB = 4


@dataclass(frozen=True)
class Check:
    """One finding: "failed" means that MedMAE cannot work, "warning" that something is missing or slow."""

    name: str
    outcome: Literal["ok", "warning", "failed"]
    finding: str
    remedy: str = ""


@options.command("doctor", "Is this machine ready, and if not, what to do?")
@options.as_json
def command(as_json: bool) -> int:
    """Check this machine: Python, torch and its devices, image libraries, optional parts, disk and memory.

    Exit code 0 when MedMAE can work here (warnings allowed), 1 when not.

    \b
    Examples:
      medmae doctor
      medmae doctor --json
    """
    checks = all_checks()
    ready = all(check.outcome != "failed" for check in checks)
    if as_json:
        click.echo(json.dumps({"medmae": __version__, "ready": ready, "checks": list(map(dataclasses.asdict, checks))},
                              indent=1))
    else:
        for check in checks:
            click.echo(line(check.name, check.outcome, check.finding, check.remedy))
        click.echo(f"MedMAE {__version__} can work on this machine." if ready else
                   f"MedMAE {__version__} cannot work on this machine yet; mend what failed.")
    return DONE if ready else FAILED


def all_checks() -> list[Check]:
    """Every check, in the order in which one would mend things."""
    checks = [_python()]
    for module, purpose in (("numpy", "arrays"), ("scipy", "resampling"), ("safetensors", "model files"),
                            ("SimpleITK", "image files"), ("monai", "losses and UNETR's building blocks")):
        checks.append(_library(module, purpose, required=True, install=module))
    checks += _torch()
    for module, purpose, install in (("matplotlib", "reports", "medmae[report]"),
                                     ("pydicom", "DICOM SEG", "medmae[dicom]"),
                                     ("highdicom", "DICOM SEG", "medmae[dicom]"),
                                     ("slicerio", ".seg.nrrd as slicerio reads it", "medmae[slicer]")):
        checks.append(_library(module, purpose, required=False, install=install))
    return [*checks, _home(), _disk(), _memory()]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) >= OLDEST_PYTHON:
        return Check("Python", "ok", version)
    return Check("Python", "failed", version, f"Install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer.")


def _library(module: str, purpose: str, *, required: bool, install: str) -> Check:
    try:
        importlib.import_module(module)
        version = importlib.metadata.version(module)
    except (ImportError, OSError) as error:  # OSError: a shared library behind it is missing
        return Check(module, "failed" if required else "warning", f"not usable ({error}); needed for {purpose}",
                     f"pip install '{install}'")
    return Check(module, "ok", version)


def _torch() -> Iterator[Check]:
    library = _library("torch", "networks", required=True, install="torch>=2.8,!=2.9.*")
    if library.outcome != "ok":
        yield library
        return
    import torch

    old = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if old < (2, 8) or old == (2, 9):
        yield Check("torch", "failed", f"{torch.__version__}; MedMAE needs 2.8 or newer, but not 2.9",
                    "pip install 'torch>=2.8,!=2.9.*'")
    else:
        yield library
    yield Check("processor", "ok", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads; "
                                   f"{_bf16_speed('cpu')}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Check(f"cuda:{index}", "ok", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB; "
                                               f"{_bf16_speed(f'cuda:{index}')}")
    else:
        build = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no usable NVIDIA GPU"
        yield Check("GPU", "warning", f"none: {build}; everything runs, presets small and base take long",
                    "With an NVIDIA GPU: update its driver, then install a CUDA build of torch (see pytorch.org). "
                    "Without one: --preset tiny.")


def _bf16_speed(device: str) -> str:
    """Whether bf16 is worth choosing, by trying: processors without it emulate it many times slower."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(768, 768, dtype=dtype, device=device)
        best = float("inf")
        for _ in range(4):
            begun = time.perf_counter()
            result = matrix @ matrix
            float(result[0, 0])  # waits for the GPU
            best = min(best, time.perf_counter() - begun)
        return best

    try:
        ratio = seconds(torch.float32) / seconds(torch.bfloat16)
    except RuntimeError as error:
        return f"bf16 does not work ({error})"
    if ratio < 0.8:
        return f"bf16 only emulated ({ratio:.2f} times the speed of fp32), stay with fp32"
    return f"bf16 works, {ratio:.1f} times the speed of fp32"


def _home() -> Check:
    folder = home()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Check("home folder", "ok", str(folder))
    return Check("home folder", "failed", f"{folder} cannot be written",
                 "Set MEDMAE_HOME to a folder that you may write to.")


def _disk() -> Check:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free / GIB
    if free >= NEEDS_DISK_GIB:
        return Check("free disk space", "ok", f"{free:.0f} GiB in {folder}")
    return Check("free disk space", "warning", f"{free:.1f} GiB in {folder}",
                 f"Runs write corpora and checkpoints: have {NEEDS_DISK_GIB} GiB free where --out lies.")


def _memory() -> Check:
    free = available_memory()
    if free is None:
        return Check("free memory", "ok", "not known on this system")
    if free / GIB >= NEEDS_MEMORY_GIB:
        return Check("free memory", "ok", f"{free / GIB:.1f} GiB")
    return Check("free memory", "warning", f"{free / GIB:.1f} GiB",
                 "Close other programs, or use --preset tiny and a small --set batch_size=...")


def available_memory() -> int | None:
    """Bytes that can be had without swapping, within the limits of a container; None where it cannot be told."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        limits.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(limits) if limits else None


def line(name: str, outcome: str, finding: str, remedy: str) -> str:
    """A finding for people."""
    mark = {"ok": click.style("ok     ", fg="green"), "warning": click.style("warning", fg="yellow"),
            "failed": click.style("failed ", fg="red")}[outcome]
    return f"{mark}   {name}: {finding}" + (f"\n{'':10}-> {remedy}" if remedy else "")
