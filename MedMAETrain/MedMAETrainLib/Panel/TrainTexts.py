"""What the page "Train" says: about the data, about networks, about what a run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from MedMAESegmentLib.FollowedJob import duration
from slicer.i18n import tr as _

from medmae.inference.memory import format_memory
from medmae.networks.presets import PRESETS, preset_size
from MedMAETrainLib.ProjectFolder import ProjectFolder
from MedMAETrainLib.RunPlan import FROM_SCRATCH
from MedMAETrainLib.TrainRequest import PRETRAINING, TrainRequest
from MedMAETrainLib.TrialMeter import TrialResult

TASKS = ("segmentation", "classification", PRETRAINING)


def taskName(task: str) -> str:
    """A task as the panel offers it."""
    return {"segmentation": _("Segment: from annotated cases"),
            "classification": _("Classify: from cases with a class"),
            PRETRAINING: _("Pretrain: from images alone")}[task]


def dataText(project: ProjectFolder, task: str) -> str:
    """What the project has for a task."""
    usable = {role: [case for case in project.cases if case.role == role] for role in ("training", "validation")}
    labelled = {role: sum(case.isAnnotated if task == "segmentation" else case.className is not None for case in cases)
                for role, cases in usable.items()}
    images = sum(case.role in ("training", "unlabelled") for case in project.cases)
    if task == PRETRAINING:
        return _counted(images, _("One image to pretrain on."), _("{count} images to pretrain on; those for validation "
                                                                  "and test are left out."))
    training, validation = labelled["training"], labelled["validation"]
    if task == "segmentation":
        text = _counted(training, _("One annotated case for training"), _("{count} annotated cases for training"))
    else:
        text = _counted(training, _("One case with a class for training"), _("{count} cases with a class for training"))
    text += ", " + (_("{count} for validation").format(count=validation) if validation else _("none for validation"))
    more = images - training
    return text + "; " + (_counted(more, _("one more image."), _("{count} more images.")) if more else _("no others."))


def methodName(method: str) -> str:
    """A method as the panel offers it."""
    return {"gl-mae": _("3-D volumes"), "vis-mae": _("2-D slices")}.get(method, method)


def methodHelp(method: str) -> str:
    """What a method is for."""
    return {"gl-mae": _("GL-MAE: for CT, MR and PET volumes."),
            "vis-mae": _("VIS-MAE: for X-rays, ultrasound and pictures, or volumes slice by slice; quick and light."),
            }.get(method, "")


def presetNames(method: str) -> list[str]:
    """The presets of a method."""
    return list(PRESETS.get(method, {}))


def presetHelp(preset: str) -> str:
    """What a preset is for, how slow it is, and what it needs."""
    sizes = {
        "tiny": _("Small: minutes to an hour on a processor, little memory."),
        "small": _("Medium: hours on a graphics card of 8 GB or more."),
        "base": _("Large, as published: a day or more on a graphics card of 24 GB, for hundreds of images."),
    }
    variants = {
        "hybrid": _("Best for few annotated cases."),
        "thin": _("For few, thick slices."),
        "patch8": _("Finer, for small structures; several times slower."),
        "fast": _("Quicker to pretrain."),
    }
    size, variant = preset_size(preset), preset.partition("-")[2]
    return " ".join(text for text in (sizes.get(size), variants.get(variant)) if text)


def startHelp(start: Any, modality: str) -> str:
    """What a starting point is: `start` is a `StartingPoint`, or None for "from scratch"; `modality` is the images'."""
    if start is None:
        return _("A pretrained encoder of the same kind of images needs fewer cases.")
    facts = ", ".join(fact for fact in (
        start.modality, _("3-D") if start.spatialDims == 3 else _("2-D"), f"{start.method} {start.preset}") if fact)
    text = {"encoder": _("A pretrained encoder ({facts}). Its network is kept."),
            "model": _("A finished model ({facts}) that is trained further on the cases of this project."),
            "run": _("What an earlier run of this project has learned ({facts}).")}[start.kind].format(facts=facts)
    if start.modality and modality not in ("", "OT", start.modality):
        text += " " + _("It knows {theirs}, but these images are {ours}.").format(
            theirs=start.modality, ours=modality)
    return text


def trialText(result: TrialResult) -> str:
    """What a trial has found."""
    text = _("About {time} for {steps} steps").format(time=duration(result.seconds), steps=result.steps)
    if result.memoryBytes is None:
        memory = _("memory not known")
    elif result.device.startswith("cuda"):
        memory = _("{memory} of the graphics card's memory").format(memory=format_memory(result.memoryBytes))
    else:
        memory = _("{memory} of memory").format(memory=format_memory(result.memoryBytes))
    if result.freeBytes is None or result.device.startswith("cuda"):
        return f"{text}, {memory}."
    free = _("this computer has {free} free").format(free=format_memory(result.freeBytes))
    return f"{text}, {memory}; {free}."


def isTooLarge(result: TrialResult) -> bool:
    """Whether a run needs more main memory than is free."""
    return (result.memoryBytes is not None and result.freeBytes is not None
            and not result.device.startswith("cuda") and result.memoryBytes > result.freeBytes)


def consentText(target: Any, images: int, request: TrainRequest, size: int) -> str:
    """What is asked before images go to another computer. `size`: bytes of the voxels."""
    what = _counted(images, _("one image"), _("{count} images"))
    if request.task == "segmentation":
        what = _("{images} and {labels} with the names of their labels").format(images=what, labels=_counted(
            images, _("one segmentation"), _("{count} segmentations")))
    elif request.task == "classification":
        what = _("{images} with their classes").format(images=what)
    if request.encoder != FROM_SCRATCH:
        what = _("{what}, and the model {model},").format(what=what, model=Path(request.encoder).name)
    return _("Voxels and geometry of {what} will leave this computer for {name} ({host}): about {size} before "
             "compression, less what is there already.\n\nNames, dates and other patient data stay here. The voxels "
             "stay in the folder {folder}/data there, for later runs, until you delete them (Computers, Free "
             "space).").format(
                 what=what, name=target.name, host=target.host or _("this computer"), size=format_memory(size),
                 folder=target.folder.rstrip("/"))


def sendingText(target: Any, images: int, size: int | None) -> str:
    """What will be sent where; `size` None: it is not known yet."""
    known = _("its size is being found out") if size is None else _("about {size}").format(size=format_memory(size))
    return _("{images} will be sent to {host} ({size}), once you have agreed.").format(
        images=_counted(images, _("One image"), _("{count} images")), host=target.host or target.name, size=known)


def _counted(count: int, one: str, many: str) -> str:
    return one if count == 1 else many.format(count=count or _("No"))
