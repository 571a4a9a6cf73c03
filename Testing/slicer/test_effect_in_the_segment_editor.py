"""The effect MedMAE of the Segment Editor: registered, chosen, run, cancelled; its result through the real logic."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAESegmentLib.Signal import Signal
from panel_fixtures import BOX, until

MODULE = Path(__file__).resolve().parents[2] / "SegmentEditorMedMAE"


class Computation:
    """Stands in for the logic: the model works for as long as the test wants, and finds what the test says."""

    def __init__(self):
        self.jobs, self.asked = [], []

    def models(self):
        from medmae.models import list_models

        return {name: info for name, info in list_models() if info.task == "segmentation"}

    def segment(self, volumeNode, model, *, device, progressCallback, waitForCompletion):
        self.asked.append((volumeNode, model, device))
        assert not waitForCompletion
        job = SimpleNamespace(finished=Signal(), result=None, error=None, progress=progressCallback)
        self.jobs.append(job)
        return job

    def end(self, result=None, error=None):
        job = self.jobs.pop()
        job.result, job.error = result, error
        job.finished.emit(job)

    def cancel(self):
        if self.jobs:
            self.end(error=RunCancelled("Cancelled."))


@pytest.fixture
def effect(qt_application, monkeypatch, scene):
    """The effect as the application makes it when it has started up."""
    from qtapp import effects

    qt_application.completeSlicerApp()
    effects.install(os.environ.get("SLICER_PYTHON_SOURCE"))
    monkeypatch.syspath_prepend(str(MODULE))
    started = {}
    monkeypatch.setattr(slicer.app, "connect", started.__setitem__, raising=False)
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: shown.append(text))
    import SegmentEditorMedMAE

    SegmentEditorMedMAE.SegmentEditorMedMAE(SimpleNamespace(path=str(MODULE / "SegmentEditorMedMAE.py")))
    started["startupCompleted()"]()
    registered = slicer.qSlicerSegmentEditorEffectFactory.instance().effects
    assert [effect.name for effect in registered] == ["MedMAE"]
    clone = registered[0].self().clone()
    clone.computation = clone.self().logic = Computation()
    clone.shown = shown
    yield clone
    clone.self().cleanup()
    sys.modules.pop("SegmentEditorMedMAELib")


@pytest.fixture
def editing(effect, scene, make_volume, make_segmentation, model):
    """The effect chosen in the Segment Editor, on a segmentation with the segment "mine"."""
    volume = make_volume()
    node = make_segmentation(volume, {"mine": None})
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(node)
    editor.SetAndObserveSourceVolumeNode(volume)
    editor.SetSelectedSegmentID(node.GetSegmentation().GetNthSegmentID(0))
    effect.edit(editor)
    return SimpleNamespace(effect=effect, gui=effect.self(), editor=editor, node=node, volume=volume)


@pytest.fixture
def found(editing, make_segmentation):
    """What the model finds."""
    return make_segmentation(editing.volume, {"left": BOX})


def _names(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetSegment(key).GetName() for key in segmentation.GetSegmentIDs()]


def _voxels(edit, name):
    segment = edit.node.GetSegmentation().GetSegmentIdBySegmentName(name)
    return int(slicer.util.arrayFromSegmentBinaryLabelmap(edit.node, segment, edit.volume).sum())


SIZE = int(np.ones((6, 8, 10))[BOX].sum())


def test_the_effect_has_icon_help_and_the_models_to_choose_from(editing):
    assert not editing.gui.icon().isNull()
    assert "editable area" in editing.gui.helpText()
    assert editing.gui.modelSelector.currentText == "Abdomen"
    assert [editing.gui.structureSelector.itemText(n) for n in range(3)] == ["All", "left", "right"]
    assert editing.gui.applyButton.enabled


def test_apply_runs_the_model_into_the_edited_segmentation_and_can_be_undone(editing, found):
    editing.gui.applyButton.click()
    assert editing.gui.applyButton.text == "Cancel"
    editing.effect.computation.jobs[0].progress(0.5, "Windows 1 of 2, about 3 s left")
    assert editing.gui.progressBar.visible and editing.gui.progressBar.value == 500
    assert editing.gui.statusLabel.text == "Windows 1 of 2, about 3 s left"
    editing.effect.computation.end(found)
    assert editing.effect.computation.asked == [(editing.volume, "Abdomen", "auto")]
    assert editing.gui.statusLabel.text == "Done: left."
    assert editing.gui.applyButton.text == "Apply" and not editing.gui.progressBar.visible
    assert _names(editing.node) == ["mine", "left"]
    assert _voxels(editing, "left") == SIZE
    assert found.GetScene() is None, "it was only needed for the voxels"
    editing.effect.logic.Undo()
    assert _names(editing.node) == ["mine"]


def test_with_the_worker_the_result_comes_from_the_event_loop(
        editing, qt_application, work_plan, fake_worker, result_file):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    work_plan("progress", f"labels={result_file(editing.volume)}")
    editing.gui.logic = SegmentLogic()
    editing.gui.logic.worker = fake_worker
    nodes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    editing.gui.applyButton.click()
    until(qt_application, lambda: editing.gui.applyButton.text == "Apply")
    assert editing.gui.statusLabel.text.startswith("Done: left")
    assert _voxels(editing, "left") == SIZE
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == nodes


def test_the_selected_segment_at_the_time_of_apply_gets_the_chosen_structure(editing, found):
    editing.gui.targetSelector.setCurrentIndex(1)
    editing.gui.structureSelector.setCurrentIndex(1)
    assert editing.effect.parameter("Target") == "Selected" and editing.effect.parameter("Structure") == "left"
    editing.gui.applyButton.click()
    editing.editor.SetSelectedSegmentID("")
    editing.effect.computation.end(found)
    assert _names(editing.node) == ["mine"]
    assert _voxels(editing, "mine") == SIZE


def test_only_the_editable_intensity_range_is_changed(editing, found):
    editing.editor.SourceVolumeIntensityMaskOn()
    editing.editor.SetSourceVolumeIntensityMaskRange(0, 1000)
    editing.gui.applyButton.click()
    editing.effect.computation.end(found)
    assert _voxels(editing, "left") == int((slicer.util.arrayFromVolume(editing.volume)[BOX] >= 0).sum())


def test_pressing_again_cancels_and_leaves_the_segmentation_as_it_was(editing):
    editing.gui.applyButton.click()
    editing.gui.applyButton.click()
    assert editing.gui.applyButton.text == "Apply"
    assert editing.gui.statusLabel.text == "Cancelled."
    assert _names(editing.node) == ["mine"] and not editing.effect.logic.CanUndo()


@pytest.mark.parametrize("leave", ["deactivate", "cleanup", "sourceVolumeNodeChanged"])
def test_choosing_another_effect_or_volume_ends_it(editing, leave):
    editing.gui.applyButton.click()
    getattr(editing.gui, leave)()
    assert editing.effect.computation.jobs == []
    assert editing.gui.applyButton.text == "Apply"


def test_a_result_for_a_segmentation_that_is_not_edited_any_more_is_discarded(editing, found, make_segmentation):
    other = make_segmentation(editing.volume, {"other": BOX})
    editing.gui.applyButton.click()
    editing.editor.SetAndObserveSegmentationNode(other)
    editing.effect.computation.end(found)
    assert "Another segmentation is being edited" in editing.gui.statusLabel.text
    assert _names(other) == ["other"] and _names(editing.node) == ["mine"]
    assert found.GetScene() is None


def test_a_result_for_a_segment_that_was_removed_is_explained(editing, found):
    editing.gui.targetSelector.setCurrentIndex(1)
    editing.gui.applyButton.click()
    editing.node.GetSegmentation().RemoveSegment(editing.editor.GetSelectedSegmentID())
    editing.effect.computation.end(found)
    assert "not there any more" in editing.gui.statusLabel.text


def test_the_reason_of_a_failure_is_shown(editing):
    editing.gui.applyButton.click()
    editing.effect.computation.end(error=RuntimeError("The image is sheared. Resample it first."))
    assert editing.gui.statusLabel.text == "The image is sheared. Resample it first."
    assert "The image is sheared" in editing.effect.shown[0]
    assert editing.gui.applyButton.text == "Apply" and editing.gui.applyButton.enabled


def test_a_start_that_fails_leaves_the_effect_as_it_was(editing, monkeypatch):
    def refuse(*_arguments, **_options):
        raise ValueError("The volume has no voxels.")

    monkeypatch.setattr(editing.effect.computation, "segment", refuse)
    with pytest.raises(ValueError, match="no voxels"):
        editing.gui.onApply()
    assert editing.gui.applyButton.text == "Apply" and editing.gui.applyButton.enabled
    assert editing.gui.statusLabel.text == "" and not editing.gui.progressBar.visible


def test_what_is_missing_is_said_on_the_button(editing, monkeypatch):
    editing.editor.SetSelectedSegmentID("")
    editing.gui.targetSelector.setCurrentIndex(1)
    assert not editing.gui.applyButton.enabled
    assert editing.gui.applyButton.toolTip.startswith("Select a segment")
    editing.gui.targetSelector.setCurrentIndex(0)
    assert editing.gui.applyButton.enabled
    editing.editor.SetAndObserveSourceVolumeNode(None)
    editing.gui.sourceVolumeNodeChanged()
    assert editing.gui.applyButton.toolTip == "Choose a source volume."
    import medmae.models

    monkeypatch.setattr(medmae.models, "list_models", lambda: [])
    editing.gui.activate()
    assert "No models yet" in editing.gui.applyButton.toolTip


def test_a_hidden_segment_is_changed_only_after_asking(editing):
    editing.effect.currentSegmentIsVisible = False
    editing.gui.targetSelector.setCurrentIndex(1)
    editing.gui.applyButton.click()
    assert editing.gui.applyButton.text == "Apply" and editing.effect.computation.asked == []
