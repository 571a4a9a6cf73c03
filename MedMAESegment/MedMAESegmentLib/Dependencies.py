"""What the child processes need in Slicer's Python: installed on the first use, on the main thread, never at import."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path

TORCH_REQUIREMENT = ">=2.8,!=2.9.*"
_DISTRIBUTIONS = ("monai", "SimpleITK", "numpy", "scipy", "safetensors")


def requirementsFile() -> Path:
    """The Python packages that MedMAE needs besides PyTorch."""
    return Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def ensureInstalled() -> None:
    """Install what is missing, after asking the user; costs nothing when all is there.

    PyTorch comes through the PyTorch extension, which picks the build for this computer's GPU. Nothing is imported
    here: PyTorch belongs into the child processes.

    Raises:
        RuntimeError: something is missing and cannot be installed from here, or the user declined.
    """
    if not _isInstalled("torch"):
        _installTorch()
    if all(_isInstalled(name) for name in _DISTRIBUTIONS) and importlib.util.find_spec("slicer.packaging") is None:
        return
    _installRequirements()


def _isInstalled(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _installTorch() -> None:
    try:
        import PyTorchUtils
    except ImportError:
        raise RuntimeError("MedMAE needs the PyTorch extension. Install it in the Extensions Manager, restart Slicer "
                           "and try again.") from None
    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
        askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT)
    if torch is None:
        raise RuntimeError("PyTorch was not installed, MedMAE cannot compute without it. Install it with the module "
                           "PyTorch Utils, restart Slicer and try again.")


def _installRequirements() -> None:
    try:
        import slicer.packaging as packaging
    except ImportError:  # Slicer before 5.12
        import slicer.util

        slicer.util.pip_install(["-r", str(requirementsFile())])
        return
    # Slicer's own builds (SimpleITK above all) and the PyTorch chosen for the GPU must stay as they are.
    pins = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}\n"
            for name in ("torch", "numpy", "scipy", "SimpleITK") if _isInstalled(name)]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(pins))
        packaging.pip_ensure(packaging.load_requirements(requirementsFile()), constraints=constraints,
                             requester="MedMAE")
