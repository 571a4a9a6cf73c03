"""What the child processes need in Slicer's Python: installed on the first use, on the main thread, never at import."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import slicer

from MedMAESegmentLib.InstallPlan import TORCH_REQUIREMENT, InstallPlan, frozenConstraints
from MedMAESegmentLib.Interpreter import chosenInterpreter
from MedMAESegmentLib.Translation import tr as _


def requirementsFile() -> Path:
    """The Python packages that MedMAE needs besides PyTorch."""
    return Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def requirementsCommand(python: str) -> str:
    """The command that installs everything into another Python, for people to copy."""
    return f'"{python}" -m pip install "torch{TORCH_REQUIREMENT}" -r "{requirementsFile()}"'


def ensureInstalled(confirm: Callable[[InstallPlan], bool] | None = None) -> None:
    """Install what is missing, after showing what and why; costs nothing when all is there.

    Nothing is installed where another Python computes. PyTorch comes through the PyTorch extension, which picks the
    build for this computer's GPU; everything else is installed with the versions of numpy, scipy, SimpleITK and PyTorch
    frozen. Call it on the main thread only: pip in another one makes Slicer 5.12.0 hang.

    Args:
        confirm: shows the plan and says whether to go on; None: Slicer's dialog.

    Raises:
        RuntimeError: something is missing and cannot be installed from here, or the user declined.
    """
    python = chosenInterpreter()
    if not python.isSlicers:
        if not Path(python.executable).is_file():
            text = _("The Python that was chosen for MedMAE, {python}, is not there any more. Choose another one, or "
                     "Slicer's own, in the panel of MedMAE Segment under Python.")
            raise RuntimeError(text.format(python=python.executable))
        return
    plan = InstallPlan.of(requirementsFile())
    if not plan.missing:
        return
    names = {package.name for package in plan.missing}
    if "torch" in names:
        _requirePyTorchExtension()
    if not (confirm or _confirm)(plan):
        text = _("MedMAE cannot compute without {packages}; nothing was installed. Start again to install them, or let "
                 "MedMAE compute with another Python (in the panel of MedMAE Segment under Python).")
        raise RuntimeError(text.format(packages=", ".join(sorted(names))))
    try:
        if "torch" in names:
            _installTorch()
        if names - {"torch"}:
            _installRequirements(plan)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(_(
            "The Python packages could not be installed; Slicer's log has the details. The usual causes are the "
            "network (a proxy or firewall) and a full disk. Restart Slicer and try again, or let MedMAE compute with "
            "another Python (in the panel of MedMAE Segment under Python).")) from error
    remaining = [package.requirement for package in InstallPlan.of(requirementsFile()).missing]
    if remaining:
        text = _("Still missing after the installation: {packages}. Restart Slicer and try again, or let MedMAE "
                 "compute with another Python (in the panel of MedMAE Segment under Python).")
        raise RuntimeError(text.format(packages=", ".join(remaining)))


def _confirm(plan: InstallPlan) -> bool:
    text = _("MedMAE needs Python packages that are not in Slicer's Python yet. It will be changed.\n\n{plan}\n\nTo "
             "leave it as it is, cancel, and choose another Python in the panel of MedMAE Segment under Python.")
    return slicer.util.confirmOkCancelDisplay(text.format(plan=plan.text),
                                              windowTitle=_("MedMAE: install Python packages"))


def _requirePyTorchExtension() -> None:
    try:
        import PyTorchUtils  # noqa: F401
    except ImportError:
        raise RuntimeError(_(
            "MedMAE needs the PyTorch extension. Install it in the Extensions Manager, restart Slicer and try again, "
            "or let MedMAE compute with another Python (in the panel of MedMAE Segment under Python).")) from None


def _installTorch() -> None:
    import PyTorchUtils

    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
        askConfirmation=False, torchVersionRequirement=TORCH_REQUIREMENT)
    if torch is None:
        raise RuntimeError(_("PyTorch was not installed, MedMAE cannot compute without it. Install it with the module "
                             "PyTorch Utils, restart Slicer and try again."))


def _installRequirements(plan: InstallPlan) -> None:
    missing = [package.requirement for package in plan.missing if package.name != "torch"]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(frozenConstraints(), encoding="utf-8")
        try:
            from slicer import packaging
        except ImportError:  # Slicer before 5.12
            slicer.util.pip_install([*missing, "-c", str(constraints)])
        else:
            packaging.pip_ensure(missing, constraints=constraints, prompt_install=False, requester="MedMAE")
