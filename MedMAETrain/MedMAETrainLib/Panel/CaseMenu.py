"""The menu that changes what selected cases are: their role, class, patient and state, or whether they are cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from MedMAESegmentLib.Panel import Dialogs as dialogs
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.CaseDialogs import RemovalDialog
from MedMAETrainLib.Panel.CaseTexts import nameText, roleText
from MedMAETrainLib.Panel.CaseWork import CaseWork
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ROLES, ProjectCase


class CaseMenu:
    """Acts on all selected cases together; what cannot be done is told, and then nothing is changed."""

    def __init__(self, button: Any, work: CaseWork, project: Callable[[], Project | None],
                 selection: Callable[[], list[str]]) -> None:
        """`button` gets the menu; `selection` gives the ids of the selected cases."""
        self._work, self._project, self._selection = work, project, selection
        self.menu = qt.QMenu(button)
        self.roleMenu = self.menu.addMenu(_("Used for"))
        self.roleActions = {role: self._add(self.roleMenu, roleText(role), lambda _checked=False, role=role:
                                            self.setRole(role)) for role in ROLES}
        self.classMenu = self.menu.addMenu(_("Class"))
        self.patientAction = self._add(self.menu, _("Same patient..."), self.onPatient)
        self.patientAction.toolTip = _("Cases of one patient are never in training and in test together.")
        self.menu.addSeparator()
        self.correctedAction = self._add(self.menu, _("Mark prediction as corrected"), self.onCorrected)
        self.correctedAction.toolTip = _("The prediction is right as it is; training learns from it.")
        self.missingAction = self._add(self.menu, _("Nothing more to draw"), self.onMissing)
        self.missingAction.toolTip = _("Labels that are not drawn are not there to see. Otherwise they are still to be "
                                       "drawn, and training does not use the case.")
        self.missingAction.checkable = True
        self.menu.addSeparator()
        self.removeAction = self._add(self.menu, _("Remove..."), self.onRemove)
        self.menu.toolTipsVisible = True
        button.setMenu(self.menu)
        self.menu.aboutToShow.connect(self.update)

    @property
    def cases(self) -> list[ProjectCase]:
        """The selected cases."""
        project = self._project()
        return [project.case(identity) for identity in self._selection()] if project is not None else []

    def update(self) -> None:
        """Offer what the selected cases can become."""
        cases = self.cases
        roles = {case.role for case in cases}
        for role, action in self.roleActions.items():
            action.checkable = True
            action.checked = roles == {role}
        self._fillClasses(cases)
        self.correctedAction.enabled = bool(cases) and all(case.state == "predicted" for case in cases)
        self.missingAction.enabled = any(case.segmentation is not None for case in cases)
        self.missingAction.checked = bool(cases) and all(case.allowMissing for case in cases)
        for action in (self.roleMenu, self.classMenu, self.patientAction, self.removeAction):
            action.enabled = bool(cases)

    def setRole(self, role: str) -> None:
        """Use the cases for something."""
        self._change(lambda project, ids: project.setRole(ids, role))

    def setClass(self, className: str | None) -> None:
        """Say what the whole images show; None: nothing."""
        self._change(lambda project, ids: project.setClass(ids, className))

    def onNewClass(self, checked: bool = False) -> None:
        """Ask for a class that no case has yet."""
        name = dialogs.enteredText(_("Class"), _("What the whole image shows, for models that tell classes:"), "")
        if name:
            self.setClass(name)

    def onPatient(self, checked: bool = False) -> None:
        """Ask which patient the cases show."""
        cases = self.cases
        if not cases:
            return
        name = dialogs.enteredText(
            _("Patient"), _("Cases with the same name here are of the same patient. The name is handed to training: "
                            "choose one without meaning."), cases[0].subject)
        if name:
            self._change(lambda project, ids: project.setSubject(ids, name))

    def onCorrected(self, checked: bool = False) -> None:
        """A person stands for the predictions from now on."""
        self._change(lambda project, ids: project.setState(ids, "corrected"))

    def onMissing(self, checked: bool = False) -> None:
        """Say whether labels that are not drawn are not there to see."""
        ids = [case.id for case in self.cases if case.segmentation is not None]
        isAccepted = not all(case.allowMissing for case in self.cases)
        self._change(lambda project, _ids: project.acceptMissing(ids, isAccepted))

    def onRemove(self, checked: bool = False) -> None:
        """Ask, and take the cases out of the project."""
        cases = self.cases
        if not cases or self._work.isBusy:
            return
        dialog = RemovalDialog([nameText(case) for case in cases])
        if dialog.show():
            self._change(lambda project, ids: project.removeCases(ids, dialog.deleteFiles))

    def _change(self, change: Callable[[Project, list[str]], None]) -> None:
        ids = self._selection()
        if ids:
            self._work.run(_("Changing cases."), _("The cases were not changed."),
                           lambda project, _report: change(project, ids))

    def _fillClasses(self, cases: list[ProjectCase]) -> None:
        project = self._project()
        self.classMenu.clear()
        chosen = {case.className for case in cases}
        for name in (None, *(project.classes if project is not None else ())):
            text = _("None") if name is None else name.replace("&", "&&")
            action = self._add(self.classMenu, text, lambda _checked=False, name=name: self.setClass(name))
            action.checkable = True
            action.checked = chosen == {name}
        self.classMenu.addSeparator()
        self._add(self.classMenu, _("Another..."), self.onNewClass)

    @staticmethod
    def _add(menu: Any, text: str, do: Callable[..., None]) -> Any:
        action = menu.addAction(text)
        action.triggered.connect(do)
        return action
