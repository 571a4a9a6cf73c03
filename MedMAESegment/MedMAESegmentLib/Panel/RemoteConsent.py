"""Volumes leave this computer only after the user was told."""

from __future__ import annotations

from slicer.i18n import tr as _


class RemoteConsent:
    """The targets that the user has agreed to, until the scene is closed; not saved with it."""

    def __init__(self) -> None:
        self._agreed: set[str] = set()

    def question(self, target: str | None) -> str | None:
        """What has to be asked before volumes go to a target; None: nothing (any more)."""
        if target is None or target in self._agreed:
            return None
        return _("Voxels and geometry of what is segmented will leave this computer for {target}. Names and other "
                 "patient data stay here.").format(target=target)

    def give(self, target: str | None) -> None:
        """Remember that the user has agreed."""
        if target is not None:
            self._agreed.add(target)

    def forget(self) -> None:
        """Ask again from now on: the scene holds other images."""
        self._agreed.clear()
