"""What is asked about cases: the volume of the scene that becomes one, and whether cases shall go."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.CaseTexts import roleText
from MedMAETrainLib.Panel.Form import FormDialog
from MedMAETrainLib.ProjectCase import ROLES


class PairDialog(FormDialog):
    """Asks for a volume of the scene, its segmentation, and what it is used for."""

    def __init__(self, volumeNode: Any, classes: tuple[str, ...]) -> None:
        """`volumeNode` is proposed; `classes` are those that the project knows."""
        super().__init__(_("Add a volume of the scene"), _("Add"))
        self.volumeSelector = _nodeSelector("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")
        self.segmentationSelector = _nodeSelector("vtkMRMLSegmentationNode", noneDisplay=_("None: not annotated yet"))
        self.roleSelector, self.classSelector = qt.QComboBox(), qt.QComboBox()
        self.roleSelector.addItem(_("Automatic"))
        for role in ROLES:
            self.roleSelector.addItem(roleText(role))
        self.classSelector.editable = True
        self.classSelector.addItems(["", *classes])
        self.classSelector.toolTip = _("What the whole image shows, for models that tell classes of images. Leave it "
                                       "empty for segmentation.")
        self.missingCheckBox = qt.QCheckBox(_("Labels that are not drawn are not there to see"))
        self.missingCheckBox.toolTip = _("Otherwise a case that lacks a label counts as not annotated yet.")
        form = qt.QFormLayout()
        for title, widget in ((_("Volume:"), self.volumeSelector), (_("Segmentation:"), self.segmentationSelector),
                              (_("Used for:"), self.roleSelector), (_("Class:"), self.classSelector),
                              ("", self.missingCheckBox)):
            form.addRow(title, widget)
        self.layout.addLayout(form)
        self.layout.addStretch(1)
        self.volumeSelector.currentNodeChanged.connect(self._onVolume)
        self.segmentationSelector.currentNodeChanged.connect(self._update)
        self.volumeSelector.setCurrentNode(volumeNode)
        self._onVolume()

    @property
    def volume(self) -> Any:
        """The volume node."""
        return self.volumeSelector.currentNode()

    @property
    def segmentation(self) -> Any:
        """The segmentation node, or None."""
        return self.segmentationSelector.currentNode()

    @property
    def choices(self) -> dict[str, Any]:
        """Arguments for `Project.addCase`."""
        index = self.roleSelector.currentIndex
        return {"role": ROLES[index - 1] if index > 0 else None, "allowMissing": bool(self.missingCheckBox.checked),
                "className": str(self.classSelector.currentText).strip() or None}

    def _onVolume(self, node: Any = None) -> None:
        """Propose the segmentation that was drawn on the volume."""
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        drawn = [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
                 if self.volume is not None and node.GetNodeReference(role) is self.volume]
        self.segmentationSelector.setCurrentNode(drawn[0] if drawn else None)
        self._update()

    def _update(self, node: Any = None) -> None:
        self.okButton.enabled = self.volume is not None
        self.missingCheckBox.enabled = self.segmentation is not None


class RemovalDialog(FormDialog):
    """Asks whether cases shall be removed, and whether their files in the project go, too."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(_("Remove cases"), _("Remove"), height=120)
        shown = ", ".join(names[:5]) + (_(" and {count} more").format(count=len(names) - 5) if len(names) > 5 else "")
        self.addText(_("Remove {names} from the project? Nothing is learned from them any more. Images outside of the "
                       "project's folder and what is open in the scene stay.").format(names=shown))
        self.filesCheckBox = qt.QCheckBox(_("Also delete their images and segmentations in the project's folder"))
        self.filesCheckBox.toolTip = _("This cannot be undone.")
        self.layout.addWidget(self.filesCheckBox)
        self.layout.addStretch(1)

    @property
    def deleteFiles(self) -> bool:
        """Whether files are deleted."""
        return bool(self.filesCheckBox.checked)


def _nodeSelector(*classNames: str, noneDisplay: str = "") -> Any:
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = list(classNames)
    selector.showChildNodeTypes = False
    selector.addEnabled = selector.removeEnabled = selector.renameEnabled = False
    selector.noneEnabled = bool(noneDisplay)
    if noneDisplay:
        selector.noneDisplay = noneDisplay
    selector.setMRMLScene(slicer.mrmlScene)
    return selector
