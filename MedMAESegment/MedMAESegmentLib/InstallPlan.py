"""What would be installed into Slicer's Python and why, before anything is: for the preview."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedMAESegmentLib.Translation import tr as _

TORCH_REQUIREMENT = ">=2.8,!=2.9.*"
# Slicer's own builds and the PyTorch chosen for the GPU stay as they are, whatever else is installed.
FROZEN = ("torch", "numpy", "scipy", "SimpleITK")
# What each is for, and about how much is downloaded (the wheels on PyPI in November 2026).
_PURPOSES = {
    "torch": ("networks", "0.2 GB, with support for a graphics card up to 3 GB"),
    "monai": ("losses and UNETR's building blocks", "3 MB"),
    "safetensors": ("model files", "0.5 MB"),
    "click": ("checking this computer", "0.1 MB"),
    "numpy": ("arrays", "16 MB"),
    "scipy": ("resampling", "35 MB"),
    "SimpleITK": ("image files", "50 MB"),
}


@dataclass(frozen=True)
class Package:
    """One Python package: which versions are needed, what for, and which one is there (None: none)."""

    name: str
    versions: str
    purpose: str
    size: str
    installed: str | None
    fits: bool

    @property
    def requirement(self) -> str:
        """As pip takes it: ``monai>=1.5``."""
        return f"{self.name}{self.versions}"


@dataclass(frozen=True)
class InstallPlan:
    """The packages that MedMAE needs in this Python.

    >>> plan = InstallPlan.of(requirementsFile())
    >>> [package.requirement for package in plan.missing]
    ['torch>=2.8,!=2.9.*', 'monai>=1.5']
    """

    packages: tuple[Package, ...]

    @classmethod
    def of(cls, requirements: Path) -> InstallPlan:
        """The plan for PyTorch and the packages in a requirements file."""
        lines = [line.strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
        return cls(tuple(_package(line) for line in [f"torch{TORCH_REQUIREMENT}", *lines]
                         if line and not line.startswith("#")))

    @property
    def missing(self) -> tuple[Package, ...]:
        """What has to be installed, or brought to another version."""
        return tuple(package for package in self.packages if not package.fits)

    @property
    def text(self) -> str:
        """What will be installed and why, what is there already, what stays frozen; for people."""
        lines = [_("To be installed:")]
        new, changed = _("- {package}: {purpose}, about {size}"), _("; replaces {version}")
        lines += [new.format(package=package.requirement, purpose=package.purpose, size=package.size) +
                  (changed.format(version=package.installed) if package.installed else "") for package in self.missing]
        there = [package for package in self.packages if package.fits]
        if there:
            lines += ["", _("There already:")]
            lines += [f"- {package.name} {package.installed}: {package.purpose}" for package in there]
        frozen = [f"{package.name} {package.installed}" for package in there if package.name in FROZEN]
        if frozen:
            lines += ["", _("Kept in their versions: {packages}.").format(packages=", ".join(frozen))]
        return "\n".join(lines)


def frozenConstraints(names: Sequence[str] = FROZEN) -> str:
    """A constraints file for pip that keeps packages in the versions in which they are installed."""
    versions = {name: installedVersion(name) for name in names}
    # A local version ("2.8.0+cu128") is of the same public version, and pip could not find it elsewhere.
    return "".join(f"{name}=={version.partition('+')[0]}\n" for name, version in versions.items() if version)


def installedVersion(name: str) -> str | None:
    """The version of an installed package, None without it; imports nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(line: str) -> Package:
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    purpose, size = _PURPOSES[requirement.name]
    installed = installedVersion(requirement.name)
    fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
    return Package(requirement.name, line[len(requirement.name):], purpose, size, installed, fits)
