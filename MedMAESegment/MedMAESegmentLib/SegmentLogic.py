"""Segment and classify volumes of the scene with MedMAE models, computed by the warm worker."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer

from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.BaseLabels import baseLabels
from MedMAESegmentLib.BatchLogic import BatchLogic
from MedMAESegmentLib.ClassificationJob import Classification, ClassificationJob
from MedMAESegmentLib.EditorSetup import EditorSetup
from MedMAESegmentLib.EstimateJob import EstimateJob
from MedMAESegmentLib.FollowedJob import FollowedJob, ProgressCallback
from MedMAESegmentLib.HandOver import HandOver, handOverImages
from MedMAESegmentLib.ImageWarnings import ImageWarning, imageWarnings
from MedMAESegmentLib.ImportOptions import ImportOptions
from MedMAESegmentLib.LabelImport import labelType
from MedMAESegmentLib.MemoryEstimate import MemoryEstimate, gridOf
from MedMAESegmentLib.ModelShelf import ModelShelf
from MedMAESegmentLib.Region import boxInVolume
from MedMAESegmentLib.RemoteSegmentationJob import RemoteSegmentationJob
from MedMAESegmentLib.SegmentationJob import SegmentationJob
from MedMAESegmentLib.SegmentationReceiver import SegmentationReceiver, attributesOf
from MedMAESegmentLib.SegmentOptions import SegmentOptions
from MedMAESegmentLib.Suitability import refuseUnusable, refuseUnusableGrids, usableModel
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import voxels, writeNrrd, writeVolume
from MedMAESegmentLib.WorkerSession import WorkerSession, applicationWorker

Volumes = slicer.vtkMRMLVolumeNode | Sequence[slicer.vtkMRMLVolumeNode]


class SegmentLogic(BatchLogic, ModelShelf, EditorSetup):
    """The computation of the MedMAESegment module; needs no widget.

    >>> segmentation = logic.segment(volumeNode, "hippocampus")
    >>> job = logic.segment(volumeNode, "hippocampus", waitForCompletion=False)
    >>> job.finished.connect(lambda job: print(job.result.GetName()))
    """

    def __init__(self) -> None:
        self.worker: WorkerSession = applicationWorker()  # tests put a session with another command here
        self.jobs: list[FollowedJob] = []
        self._handOvers: list[HandOver] = []
        self._lastSegmentation: SegmentationJob | RemoteSegmentationJob | None = None
        self._estimate: EstimateJob | None = None
        self._passBytes: dict[str, int] = {}  # by the weights' checksum, as estimates have told them

    def segment(self, volumeNode: Volumes, model: str | Path,
                segmentationNode: slicer.vtkMRMLSegmentationNode | None = None,
                device: str = "auto", *, roiNode: slicer.vtkMRMLMarkupsROINode | None = None,
                target: str | None = None, precision: str | None = None, overlap: float | None = None,
                mirror: bool = False, largestComponent: bool = False, uncertainty: bool = False,
                smoothing: float | None = None, replaceExisting: bool = False,
                progressCallback: ProgressCallback | None = None,
                waitForCompletion: bool = True,
                ) -> slicer.vtkMRMLSegmentationNode | SegmentationJob | RemoteSegmentationJob:
        """Segment a volume.

        :param volumeNode: scalar or colour volume; of a model with several channels a list, one volume a channel in the
          model's order, which may lie on different grids (the first gives that of the result). Of a sequence the
          current frame is used. Parent transforms: the network sees the volume under a rigid or scaling one, and as
          acquired under a warping one; the result is on the volume's own voxels and under the same transform in every
          case.
        :param model: name in the registry, model folder or zip, or run folder.
        :param segmentationNode: where the result goes; its segments are kept. None: a new node.
        :param device: "auto", "cpu", "cuda:0".
        :param roiNode: segment only inside of this markups ROI; of a rotated one inside of its box along the patient's
          axes. Segments that are replaced stay as they are outside.
        :param target: compute on this target of MedMAE ("gpu-box") instead of here; voxels and geometry are all that
          leaves this computer.
        :param precision: "fp32", "bf16" or "fp16"; None: what suits the device.
        :param overlap: of neighbouring windows, 0 to below 1; None: the default.
        :param mirror: mean over the image mirrored along the axes of the model's training; twice the work for each.
        :param largestComponent: keep only the largest part of each label.
        :param uncertainty: also add a scalar volume of where the model is unsure (0 to 255).
        :param smoothing: also make closed surfaces, smoothed by this factor from 0 to 1.
        :param replaceExisting: replace segments of the same name in `segmentationNode`; else they are kept, and the new
          ones get a number behind their name.
        :param progressCallback: called with (fraction from 0 to 1, message).
        :param waitForCompletion: True: return the segmentation node when it is filled, with the application alive
          meanwhile. False: return a `SegmentationJob` as soon as the voxels are handed over; several are done one after
          the other.
        :raises ValueError: the volume cannot be segmented, or the segmentation cannot take the result.
        :raises medmae.errors.BadInput: the model cannot be used.
        :raises RunFailed: the computation failed; the text is its reason.
        :raises RunCancelled: it was cancelled.
        """
        volumeNodes = _listed(volumeNode)
        refuseUnusable(volumeNodes, segmentationNode)
        refuseUnusableGrids(volumeNodes)
        modelFolder, info = usableModel(model, "segmentation", volumeNodes)
        options = SegmentOptions(device, precision, overlap, mirror, largestComponent, uncertainty)
        box = boxInVolume(roiNode, volumeNodes[0]) if roiNode is not None else None
        settings = options.settings(box)
        receiver = SegmentationReceiver(
            volumeNodes, segmentationNode,
            attributesOf(info, {**options.told(), "region": box, "smoothing": smoothing, "target": target}),
            ImportOptions(replaceExisting, smoothing))
        base = segmentationNode if box is not None and replaceExisting else None
        if target is not None:
            remote = self._startRemote(target, volumeNodes, modelFolder, info, settings, receiver, base,
                                       progressCallback)
            return self._followed(remote, waitForCompletion)
        job = self._start(volumeNodes, modelFolder, info, settings, receiver, base, progressCallback)
        return self._followed(job, waitForCompletion)

    def classify(self, volumeNode: Volumes, model: str | Path, *, device: str = "auto",
                 progressCallback: ProgressCallback | None = None,
                 waitForCompletion: bool = True) -> Classification | ClassificationJob:
        """Tell which class an image is of; the result is also a table node and in attributes of the volume.

        :param volumeNode: as for `segment`.
        :param model: a classification model, as for `segment`.
        :param waitForCompletion: False: return a `ClassificationJob`, whose `result` is a `Classification`.
        :raises ValueError, medmae.errors.BadInput, RunFailed, RunCancelled: as for `segment`.
        """
        volumeNodes = _listed(volumeNode)
        refuseUnusable(volumeNodes, None)
        refuseUnusableGrids(volumeNodes)
        modelFolder, info = usableModel(model, "classification", volumeNodes)
        report = progressCallback or (lambda fraction, message: None)
        images = self._handOver(volumeNodes, report)
        request = self.worker.client.classify(modelFolder, images, settings={"device": device})
        job = ClassificationJob(self.worker, request, images, volumeNodes, info)
        job.progressed.connect(report)
        return self._followed(job, waitForCompletion)

    def estimate(self, volumeNode: Volumes, model: str | Path, roiNode: slicer.vtkMRMLMarkupsROINode | None = None,
                 device: str = "auto", *, precision: str | None = None, overlap: float | None = None,
                 mirror: bool = False, largestComponent: bool = False, uncertainty: bool = False,
                 progressCallback: ProgressCallback | None = None,
                 waitForCompletion: bool = True) -> MemoryEstimate | EstimateJob:
        """What a segmentation will take, from the size of the volume: its voxels are not handed over.

        The worker loads the model, which stays warm, and runs one forward pass over zeros, once for each model. It does
        one thing after the other: an estimate waits for a segmentation that is under way, and one that has not ended
        is cancelled by a segmentation, or by another estimate, that is started after it.

        :param volumeNode, model, roiNode, device, precision, overlap, mirror, largestComponent, uncertainty: as for
          `segment`.
        :param waitForCompletion: False: return an `EstimateJob`, whose `result` is a `MemoryEstimate`.
        :raises ValueError, medmae.errors.BadInput, RunFailed, RunCancelled: as for `segment`.
        """
        volumeNodes = _listed(volumeNode)
        refuseUnusable(volumeNodes, None)
        refuseUnusableGrids(volumeNodes)
        modelFolder, info = usableModel(model, "segmentation", volumeNodes)
        options = SegmentOptions(device, precision, overlap, mirror, largestComponent, uncertainty)
        settings = options.settings(boxInVolume(roiNode, volumeNodes[0]) if roiNode is not None else None)
        self._ensureInstalled()
        self._dropEstimate()
        request = self.worker.client.plan(modelFolder, [gridOf(node) for node in volumeNodes], settings=settings)
        job = self._estimate = EstimateJob(self.worker, request, [])
        if progressCallback is not None:
            job.progressed.connect(progressCallback)
        job.finished.connect(lambda job: self._onEstimated(job, info.weights_sha256))
        if waitForCompletion:
            return job.wait()
        job.startFollowing()
        return job

    def warnings(self, volumeNode: Volumes, model: str | Path,
                 roiNode: slicer.vtkMRMLMarkupsROINode | None = None) -> list[ImageWarning]:
        """What speaks against a model for the volumes: another modality than the model's; spacing, size or intensities
        unlike those of its training data; more memory than is free; a region that is rotated or misses the volume.
        Nothing is computed, and the user may go on. Once `estimate` has measured a model, its memory is known, not only
        what is needed at least.

        :raises ValueError, medmae.errors.BadInput: as for `segment`.
        """
        from medmae.models import load_info, resolve_model

        volumeNodes = _listed(volumeNode)
        refuseUnusable(volumeNodes, None)
        refuseUnusableGrids(volumeNodes)
        folder = resolve_model(model)
        weights = folder if folder.is_file() else folder / "weights.safetensors"
        info = load_info(folder)
        return imageWarnings(volumeNodes, info, roiNode, weights.stat().st_size if weights.exists() else 0,
                             self._passBytes.get(info.weights_sha256, 0))

    def undoLast(self) -> bool:
        """Take the result of the segmentation that ended last out of the scene again, as `undo` of its job does.

        Segments are as they were before, whatever was done with them since; a node that was made for the result, and a
        volume of uncertainty, are removed.

        :returns: whether there was something to undo.
        """
        job, self._lastSegmentation = self._lastSegmentation, None
        return job is not None and job.undo()

    def cancel(self) -> None:
        """End everything under way."""
        for handOver in self._handOvers:
            handOver.cancel()
        self._dropEstimate()
        for job in list(self.jobs):
            job.cancel()

    def _start(self, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], modelFolder: Path, info: Any,
               settings: dict[str, Any], receiver: SegmentationReceiver,
               base: slicer.vtkMRMLSegmentationNode | None,
               progressCallback: ProgressCallback | None) -> SegmentationJob:
        report = progressCallback or (lambda fraction, message: None)
        images = self._handOver(volumeNodes, report)
        client, dtype = self.worker.client, labelType(info.labels)
        kept = baseLabels(base, volumeNodes[0], info.labels, dtype) if base is not None else None
        if kept is not None:
            images.append(client.image(kept, images[0]["affine"]))
        fields: dict[str, Any] = {"base": images[-1]["buffer"]} if kept is not None else {}
        if settings.get("uncertainty"):
            fields["output"], settings["format"] = str(self.worker.mapsPath()), "nrrd"
        report(0.0, _("Starting"))
        request = client.send(
            "segment", model=str(modelFolder), images=images[:len(volumeNodes)], settings=settings, **fields,
            labels=client.exchange.space(dtype, voxels(volumeNodes[0]).shape[:3]))
        job = SegmentationJob(self.worker, request, images, receiver, info.labels, bool(settings.get("uncertainty")))
        job.progressed.connect(report)
        return job

    def _startRemote(self, target: str, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], modelFolder: Path,
                     info: Any, settings: dict[str, Any], receiver: SegmentationReceiver,
                     base: slicer.vtkMRMLSegmentationNode | None,
                     progressCallback: ProgressCallback | None) -> RemoteSegmentationJob:
        from medmae.jobs.targets import get_target

        get_target(target)  # an unknown one is told before anything is written
        report = progressCallback or (lambda fraction, message: None)
        handOver, folder = HandOver(volumeNodes), newTemporaryFolder()
        self._handOvers.append(handOver)
        try:
            report(0.0, _("Handing over the volume"))
            images = [folder / f"volume-{number}.nrrd" for number in range(len(volumeNodes))]
            for node, image in zip(volumeNodes, images, strict=True):
                handOver()
                writeVolume(node, image, handOver)
            kept = baseLabels(base, volumeNodes[0], info.labels, "int16") if base is not None else None
            inputs: dict[str, Any] = {"model": str(modelFolder), "images": [[str(image) for image in images]]}
            if kept is not None:
                inputs["base"] = str(folder / "base.nrrd")
                writeNrrd(Path(inputs["base"]), kept, receiver.geometry, handOver)
            job = RemoteSegmentationJob(target, {**settings, "format": "seg.nrrd"}, inputs, folder, receiver)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._handOvers.remove(handOver)
        job.progressed.connect(report)
        return job

    def _handOver(self, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode],
                  report: ProgressCallback) -> list[dict[str, Any]]:
        self._ensureInstalled()
        self._dropEstimate()
        handOver = HandOver(volumeNodes)
        self._handOvers.append(handOver)
        try:
            report(0.0, _("Handing over the volume"))
            return handOverImages(self.worker.client, volumeNodes, handOver)
        finally:
            self._handOvers.remove(handOver)

    def _ensureInstalled(self) -> None:
        if self.worker.command is None:
            Dependencies.ensureInstalled()

    def _dropEstimate(self) -> None:
        if self._estimate is not None:
            self._estimate.cancel()

    def _onEstimated(self, job: EstimateJob, weights: str) -> None:
        if self._estimate is job:
            self._estimate = None
        if job.result is not None and job.result.isMeasured:
            self._passBytes[weights] = job.result.passBytes

    def _followed(self, job: FollowedJob, waitForCompletion: bool) -> Any:
        self.jobs.append(job)
        job.finished.connect(self._onFinished)
        if waitForCompletion:
            return job.wait()
        job.startFollowing()
        return job

    def _onFinished(self, job: FollowedJob) -> None:
        if job in self.jobs:
            self.jobs.remove(job)
        if isinstance(job, (SegmentationJob, RemoteSegmentationJob)) and job.result is not None:
            self._lastSegmentation = job
            self.editSegmentation(job.result)


def _listed(volumes: Volumes) -> list[slicer.vtkMRMLVolumeNode]:
    return list(volumes) if isinstance(volumes, (list, tuple)) else [volumes]
