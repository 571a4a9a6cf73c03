"""Judging what a target can run: its graphics cards and their driver, the system, and the libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from medmae.jobs.check import Check
from medmae.jobs.target import Target
from medmae.jobs.transport import Transport

# What MedMAE needs (as pyproject.toml says): at least this, and for some not this series.
LEAST = {"torch": (2, 8), "monai": (1, 5), "SimpleITK": (2, 3), "numpy": (1, 26), "scipy": (1, 11),
         "safetensors": (0, 4, 3)}
NOT = {"torch": (2, 9)}
# The least NVIDIA driver of each CUDA series, on Linux:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1.
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
# The pinned torch (constraints.txt) on PyPI is of CUDA 13.0 (since torch 2.11, https://github.com/pytorch/pytorch/pull/
# 177975), which has no code for cards before Turing (https://github.com/pytorch/pytorch/issues/178665) and is built for
# systems with glibc 2.28 or newer.
CUDA_OF_WHEEL = 13
LEAST_CAPABILITY = (7, 5)
LEAST_GLIBC = (2, 28)
MACHINES = ("x86_64", "aarch64")
OWN_TORCH = ("install a PyTorch there yourself that is built for an older CUDA (index "
             "https://download.pytorch.org/whl/cu126) and add the target with --environment python")


def environment_checks(target: Target, facts: dict[str, Any]) -> Iterator[Check]:
    """Whether a virtual environment can be made from the pinned packages."""
    own = "Use a Python that has the packages already: --environment python, with --python or --container."
    if facts["environments"]:
        yield Check("environment", "ok", "one was made before")
    elif facts["system"] != "Linux" or facts["machine"] not in MACHINES:
        yield Check("environment", "failed", f"there are no packages for {facts['system']} on {facts['machine']}", own,
                    "libraries")
    elif facts["glibc"] and _numbers(facts["glibc"]) < LEAST_GLIBC:
        yield Check("environment", "failed", f"the system is too old for PyTorch (glibc {facts['glibc']}; 2.28 or "
                    "newer is needed)", own, "libraries")
    elif not facts["venv"]:
        yield Check("environment", "failed", "this Python cannot make virtual environments (no ensurepip)",
                    "Debian, Ubuntu: apt install python3-venv. Elsewhere name another Python with --python.",
                    "libraries")
    elif target.wheelhouse is not None and not facts["wheels"]:
        yield Check("environment", "failed", f"the wheelhouse {target.wheelhouse} holds no wheel of torch",
                    "Put the wheels there (pip download -r ...), or correct --wheelhouse.", "libraries")
    elif facts["internet"] is False:
        yield Check("environment", "warning", "pypi.org is not reached from there, so packages may not be installed",
                    "If pip has no mirror or proxy set up there, bring the wheels in a folder and name it with "
                    "--wheelhouse.", "libraries")
    else:
        yield Check("environment", "ok", "will be made when the first job starts")


def gpu_checks(target: Target, cards: dict[str, Any]) -> Iterator[Check]:
    """Whether there are as many cards as are asked for, and whether the pinned PyTorch runs on them."""
    found = cards["found"]
    fewer = f"Ask for fewer: medmae target add {target.name} --replace --gpus N (0: computes without)."
    if not found:
        asked = target.gpus > 0 and target.is_remote
        yield Check("GPU", "failed" if asked else "ok" if target.gpus == 0 else "warning",
                    f"none ({cards['problem'] or 'nvidia-smi lists none'})",
                    f"With an NVIDIA card: install or mend its driver. {fewer if target.is_remote else ''}".strip()
                    if target.gpus else "",
                    "no GPU" if target.gpus else "")
        return
    listed = ", ".join(f"{card['name']} ({_gib(card['memory_mib'])})" for card in found)
    if target.gpus > len(found):
        yield Check("GPU", "failed", f"{target.gpus} are asked for, there are {len(found)}: {listed}", fewer, "no GPU")
    else:
        yield Check("GPU", "ok", listed)
    if target.environment == "venv" and target.gpus:
        yield _driver(found[0]["driver"], CUDA_OF_WHEEL, "the pinned PyTorch")
        old = next((card for card in found if card["capability"] and _numbers(card["capability"]) < LEAST_CAPABILITY),
                   None)
        if old:
            yield Check("GPU generation", "failed", f"{old['name']} (compute capability {old['capability']}) is too "
                        f"old for the pinned PyTorch; it needs {'.'.join(map(str, LEAST_CAPABILITY))} or newer",
                        f"Either {OWN_TORCH}, or compute without: --gpus 0.", "no GPU")


def library_checks(target: Target, transport: Transport, cards: dict[str, Any]) -> Iterator[Check]:
    """Whether the user's own Python has what MedMAE needs."""
    command = [*target.container, target.python]
    facts = transport.call("checks.libraries", {"command": command, "modules": list(LEAST)}, timeout_s=300)
    if facts["problem"]:
        yield Check("libraries", "failed", f"{' '.join(command)} does not start: {facts['problem']}",
                    "Correct --python or --container of the target.", "libraries")
        return
    wrong = [said for name, found in facts["libraries"].items() if (said := _wrong(name, found))]
    if wrong:
        yield Check("libraries", "failed", "; ".join(wrong), f"Install them there: {' '.join(command)} -m pip install "
                    f"'torch>=2.8,!=2.9.*' monai SimpleITK scipy safetensors. Or let MedMAE make an environment: "
                    "--environment venv.", "libraries")
    else:
        yield Check("libraries", "ok", ", ".join(f"{name} {found['version']}"
                                                 for name, found in facts["libraries"].items()))
    if target.gpus and "cuda" in facts and target.is_remote:
        yield _cuda(target, facts, cards["found"])


def _cuda(target: Target, facts: dict[str, Any], cards: list[dict[str, Any]]) -> Check:
    """Whether that PyTorch computes on the cards; on a cluster the cards are on other computers than this one."""
    if facts["cuda"] is None:
        return Check("CUDA", "failed", f"torch {facts['torch']} is built without CUDA",
                     "Install a CUDA build of PyTorch there (see pytorch.org), or compute without: --gpus 0.",
                     "libraries")
    series = int(facts["cuda"].split(".")[0])
    if target.kind == "slurm" or facts["available"]:
        return Check("CUDA", "ok", f"torch is built for CUDA {facts['cuda']}")
    if cards:
        driver = _driver(cards[0]["driver"], series, f"torch for CUDA {facts['cuda']}")
        if driver.outcome != "ok":
            return driver
    return Check("CUDA", "failed", f"torch for CUDA {facts['cuda']} finds no usable card",
                 f"Log in there and see what this says: {target.python} -c 'import torch; torch.zeros(1).cuda()' "
                 "In a container the cards must be handed in (apptainer exec --nv).", "no GPU")


def _driver(version: str, series: int, what: str) -> Check:
    least = LEAST_DRIVER.get(series)
    numbers = _numbers(version)
    if least is None or not numbers or numbers[0] >= least:
        return Check("driver", "ok", f"{version} (CUDA {series}.x{f' needs {least}' if least else ''})")
    return Check("driver", "failed", f"the NVIDIA driver is {version}; {what} (CUDA {series}.x) needs {least} or newer",
                 f"Update the driver there, or {OWN_TORCH}.", "old driver")


def _wrong(name: str, found: dict[str, Any]) -> str | None:
    least = LEAST[name]
    needed = f"{'.'.join(map(str, least))} or newer" + (
        f", but not {'.'.join(map(str, NOT[name]))}" if name in NOT else "")
    if found["problem"]:
        return f"{name} cannot be imported ({found['problem']})"
    version = _numbers(found["version"])
    if version < least or (name in NOT and version[:len(NOT[name])] == NOT[name]):
        return f"{name} is {found['version']}, needed is {needed}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version: (2, 8, 0) of "2.8.0+cu128"."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def _gib(mib: int | None) -> str:
    return "memory not told" if mib is None else f"{mib / 1024:.0f} GiB"
