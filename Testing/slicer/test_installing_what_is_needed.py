"""Python packages at the point of use: shown before, torch from its extension, the rest with frozen versions."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import slicer
from MedMAESegmentLib import Dependencies, InstallPlan
from panel_fixtures import NEEDS_SOURCE

SLICERS = {"numpy": "2.4.6", "scipy": "1.17.1", "SimpleITK": "2.5.5", "packaging": "26.0"}
TORCH, MONAI, SMALL = {"torch": "2.8.0+cu128"}, {"monai": "1.6.1"}, {"safetensors": "0.8.0", "click": "8.1.0"}


@pytest.fixture
def installed(monkeypatch):
    """What is installed in a Python, which starts as Slicer's."""
    versions = dict(SLICERS)

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


@pytest.fixture
def pytorch(installed, monkeypatch):
    """The PyTorch extension; records how it was asked."""
    asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, **options):
            asked.append(options)
            installed.update(TORCH)
            return SimpleNamespace(__version__=TORCH["torch"])

    module = ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return asked


@pytest.fixture
def packaging(installed, monkeypatch):
    """slicer.packaging of Slicer 5.12 and newer; records what was installed under which constraints."""
    asked = []

    def pip_ensure(requirements, constraints, prompt_install, requester):
        asked.append((requirements, constraints.read_text().split(), prompt_install, requester))
        installed.update(MONAI, **SMALL)

    module = ModuleType("slicer.packaging")
    module.pip_ensure = pip_ensure
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    monkeypatch.setattr(slicer, "packaging", module, raising=False)
    return asked


def test_the_plan_says_what_is_installed_why_how_large_and_what_is_there(installed):
    installed.update(SMALL)
    text = InstallPlan.InstallPlan.of(Dependencies.requirementsFile()).text
    assert "- torch>=2.8,!=2.9.*: networks, about 0.2 GB" in text
    assert "- monai>=1.5: losses and UNETR's building blocks, about 3 MB" in text
    assert "There already:\n- click 8.1.0" in text
    assert "Kept in their versions: numpy 2.4.6, scipy 1.17.1, SimpleITK 2.5.5." in text


def test_a_version_that_is_too_old_is_said_to_be_replaced(installed):
    installed.update(SMALL, **TORCH, monai="1.3.0")
    plan = InstallPlan.InstallPlan.of(Dependencies.requirementsFile())
    assert [package.name for package in plan.missing] == ["monai"]
    assert "replaces 1.3.0" in plan.text


def test_the_versions_of_slicers_packages_and_of_torch_are_frozen(installed):
    installed.update(TORCH)
    assert InstallPlan.frozenConstraints().split() == ["torch==2.8.0", "numpy==2.4.6", "scipy==1.17.1",
                                                       "SimpleITK==2.5.5"]


def test_torch_comes_from_its_extension_first_and_is_frozen_for_the_rest(pytorch, packaging):
    shown = []
    Dependencies.ensureInstalled(confirm=lambda plan: shown.append(plan.text) or True)
    assert len(shown) == 1
    assert pytorch == [{"askConfirmation": False, "torchVersionRequirement": ">=2.8,!=2.9.*"}]
    ((requirements, constraints, prompts, requester),) = packaging
    assert requirements == ["click>=8.1", "monai>=1.5", "safetensors>=0.4.3"]
    assert "torch==2.8.0" in constraints and "numpy==2.4.6" in constraints
    assert not prompts and requester == "MedMAE"


def test_nothing_is_asked_or_done_when_all_is_there(installed, pytorch, packaging):
    installed.update(TORCH, **MONAI, **SMALL)
    Dependencies.ensureInstalled(confirm=lambda plan: pytest.fail("asked"))
    assert pytorch == [] and packaging == []


def test_declining_installs_nothing_and_says_what_is_missing(pytorch, packaging):
    with pytest.raises(RuntimeError, match="without click, monai, safetensors, torch; nothing was installed"):
        Dependencies.ensureInstalled(confirm=lambda plan: False)
    assert pytorch == [] and packaging == []


def test_slicers_dialog_shows_the_plan(pytorch, packaging, monkeypatch):
    texts = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay",
                        lambda text, windowTitle: texts.append(text) or False)
    with pytest.raises(RuntimeError, match="nothing was installed"):
        Dependencies.ensureInstalled()
    assert "- monai>=1.5" in texts[0] and "another Python" in texts[0]


def test_without_the_pytorch_extension_nothing_is_installed(installed, packaging):
    with pytest.raises(RuntimeError, match="needs the PyTorch extension"):
        Dependencies.ensureInstalled(confirm=lambda plan: True)
    assert packaging == []


def test_slicers_before_5_12_get_the_constraints_too(installed, monkeypatch):
    installed.update(TORCH)
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.delattr(slicer, "packaging", raising=False)
    asked = []

    def pip_install(arguments):
        asked.extend(arguments[:-1])
        with open(arguments[-1]) as file:
            assert "SimpleITK==2.5.5" in file.read()
        installed.update(MONAI, **SMALL)

    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    Dependencies.ensureInstalled(confirm=lambda plan: True)
    assert asked == ["click>=8.1", "monai>=1.5", "safetensors>=0.4.3", "-c"]


def test_a_failure_of_pip_is_explained(pytorch, packaging, monkeypatch):
    def fail(*_arguments, **_options):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", fail)
    with pytest.raises(RuntimeError, match="proxy or firewall.*another Python"):
        Dependencies.ensureInstalled(confirm=lambda plan: True)


def test_what_is_missing_after_the_installation_is_named(pytorch, packaging, monkeypatch):
    monkeypatch.setattr(slicer.packaging, "pip_ensure", lambda *_arguments, **_options: None)
    with pytest.raises(RuntimeError, match="Still missing after the installation: click>=8.1, monai>=1.5"):
        Dependencies.ensureInstalled(confirm=lambda plan: True)


def test_the_requirements_are_those_of_the_engine():
    import tomllib

    root = Dependencies.requirementsFile().parents[2]
    engine = set(tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"])
    plan = InstallPlan.InstallPlan.of(Dependencies.requirementsFile())
    assert {package.requirement for package in plan.packages} == {line for line in engine if "rich" not in line}


class TestWithSlicersOwnPackaging:
    pytestmark = NEEDS_SOURCE

    @pytest.fixture
    def slicer_packaging(self, qt_application):
        qt_application.completeSlicerApp()
        from slicer import packaging

        return packaging

    def test_it_reads_the_requirements_as_the_plan_does(self, slicer_packaging):
        read = slicer_packaging.load_requirements(Dependencies.requirementsFile())
        plan = InstallPlan.InstallPlan.of(Dependencies.requirementsFile())
        assert [requirement.name for requirement in read] == [p.name for p in plan.packages if p.name != "torch"]
        assert [slicer_packaging.pip_check(requirement) for requirement in read] == [
            p.fits for p in plan.packages if p.name != "torch"]

    def test_pip_gets_what_is_missing_and_the_frozen_versions(self, slicer_packaging, installed, monkeypatch):
        installed.update(TORCH, **SMALL)
        commands = []

        def run(module, arguments, **_options):
            with open(arguments[arguments.index("-c") + 1]) as file:
                commands.append((module, arguments[:arguments.index("-c")], file.read().split()))
            installed.update(MONAI)

        monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
        monkeypatch.setattr(slicer.util, "executePythonModule", run)
        monkeypatch.setattr(slicer.app, "thread", lambda: None, raising=False)  # no progress dialog of Slicer's here
        Dependencies.ensureInstalled(confirm=lambda plan: True)
        ((module, arguments, constraints),) = commands
        assert module == "pip" and arguments[0] == "install" and "monai>=1.5" in arguments
        assert constraints == ["torch==2.8.0", "numpy==2.4.6", "scipy==1.17.1", "SimpleITK==2.5.5"]
