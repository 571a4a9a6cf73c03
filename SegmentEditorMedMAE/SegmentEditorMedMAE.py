"""SegmentEditorMedMAE: adds the effect MedMAE to the Segment Editor; the module itself is hidden."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

#
# SegmentEditorMedMAE
#


class SegmentEditorMedMAE(ScriptedLoadableModule):
    """What Slicer shows about the module, and the registration of its effect."""

    def __init__(self, parent) -> None:  # noqa: ANN001 - qSlicerScriptedLoadableModule
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Segment Editor MedMAE")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "MedMAESegment"]
        parent.contributors = ["MedMAE contributors"]
        parent.hidden = True
        parent.helpText = _("""
Adds the effect MedMAE to the Segment Editor: it runs a model into the segmentation that is being edited, within the
editable area and intensity range. Not for clinical use.
""")
        parent.acknowledgementText = _("""
Implements the methods VIS-MAE and GL-MAE; every model names the data and the work that it is made from.
""")
        slicer.app.connect("startupCompleted()", self.registerEditorEffect)

    def registerEditorEffect(self) -> None:
        """Make the effect known to the Segment Editor."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        effect = effects.qSlicerSegmentEditorScriptedEffect(None)
        effect.setPythonSource((Path(__file__).parent / "SegmentEditorMedMAELib/SegmentEditorEffect.py").as_posix())
        effect.self().register()
