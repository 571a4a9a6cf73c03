"""Write medmae/jobs/environment.lock: every package that runs on targets need, with version and hashes.

    python Resources/lock_environment.py

asks the package index what pip would install on each kind of target for the dependencies in pyproject.toml, within
constraints.txt. Nothing is downloaded but descriptions of packages. Review the difference before it is committed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "medmae" / "jobs" / "environment.lock"
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
OLDEST_GLIBC, NEWEST_GLIBC = 5, 34  # 2.x
HEAD = """\
# What runs on a target need, for Linux on {machines} with Python {pythons}.
# Made by Resources/lock_environment.py; do not edit.
"""


def main() -> None:
    """Ask for every kind of target, and write what they have in common and what they have not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["report"]]
    kinds = [(python, machine) for python in PYTHONS for machine in MACHINES]
    found: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    for kind in kinds:
        for name, version, sha256 in resolved(wanted, *kind):
            found[name, version][kind] = sha256
    lines = [HEAD.format(machines=" and ".join(MACHINES), pythons=", ".join(PYTHONS))]
    for (name, version), hashes in sorted(found.items()):
        marker = "" if len(hashes) == len(kinds) else " ; " + " or ".join(
            f'(python_version == "{python}" and platform_machine == "{machine}")' for python, machine in sorted(hashes))
        digests = "".join(f" \\\n    --hash=sha256:{sha256}" for sha256 in sorted(set(hashes.values())))
        lines.append(f"{name}=={version}{marker}{digests}\n")
    LOCK.write_text("".join(lines), encoding="utf-8")


def resolved(wanted: list[str], python: str, machine: str) -> list[tuple[str, str, str]]:
    """Name, version and hash of all that pip would install there."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
    platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}", f"linux_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
                   "--target", folder, "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
                   "--report", str(report),
                   "--constraint", str(ROOT / "constraints.txt"),
                   *(word for platform in platforms for word in ("--platform", platform)), *wanted]
        subprocess.run(command, check=True)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    _refuse_incomplete([one["metadata"] for one in installs], python, machine)
    return [(one["metadata"]["name"].lower().replace("_", "-"), one["metadata"]["version"],
             one["download_info"]["archive_info"]["hashes"]["sha256"]) for one in installs]


def _refuse_incomplete(packages: list[dict[str, Any]], python: str, machine: str) -> None:
    """See that nothing is lacking: pip chooses wheels for the target, but asks this computer who needs what."""
    there = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine,
             "platform_system": "Linux", "sys_platform": "linux", "os_name": "posix", "extra": ""}
    known = {canonicalize_name(one["name"]) for one in packages}
    for one in packages:
        for text in one.get("requires_dist", ()):
            needed = Requirement(text)
            if (needed.marker is None or needed.marker.evaluate(there)) and canonicalize_name(needed.name) not in known:
                raise SystemExit(f"{one['name']} needs {text} with Python {python} on {machine}: run this with that.")


if __name__ == "__main__":
    main()
