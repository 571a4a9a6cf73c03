"""Settings that suit the images of a project and the computer, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.finetuning.config import FinetuneConfig, resolve_finetune_config
from medmae.inference.memory import format_memory
from medmae.networks.presets import Preset, preset_size
from medmae.networks.presets import preset as presetOf
from medmae.pretraining.network_grid import FEWER, network_orientation
from MedMAETrainLib.Computer import Computer
from MedMAETrainLib.Fingerprint import Fingerprint
from MedMAETrainLib.TrainRequest import PRETRAINING

FEW_SLICES = 24
THICK = 2.5  # slices that much thicker than pixels are wide call for flat patches
SMALL_CARD, LARGE_CARD = 7 * 2**30, 20 * 2**30  # memory of graphics cards for the presets "small" and "base"
MANY_IMAGES = 300  # from which on the largest network learns more than the next smaller one
LITTLE_MEMORY = 3 * 10**9  # free memory below which samples are computed one by one
# Steps and batch that the engine takes by itself; a test compares them with the engine's own, which need torch.
PRETRAINING_SCHEDULES = {
    ("gl-mae", "tiny"): (500, 4), ("gl-mae", "tiny-hybrid"): (600, 4), ("gl-mae", "small"): (20_000, 16),
    ("gl-mae", "base"): (75_000, 16), ("vis-mae", "tiny"): (1000, 16), ("vis-mae", "small"): (20_000, 128),
    ("vis-mae", "base"): (390_000, 640)}


@dataclass(frozen=True)
class Network:
    """A method and preset, and for what they are recommended."""

    method: str
    preset: str
    reason: str


@dataclass(frozen=True)
class Setting:
    """A setting that can be changed before a run.

    key - In the configuration of the engine.
    name - For people.
    value - As the engine takes it; None: the engine decides when it has read the images.
    shown - The value for people; of None what the engine will take.
    reason - Why, in a sentence.
    """

    key: str
    name: str
    value: Any
    shown: str
    reason: str


@dataclass(frozen=True)
class Purpose:
    """What the settings are for.

    task - "segmentation", "classification" or "pretraining".
    method, preset - Of the network.
    modality - Of the images, as far as it is known.
    inputSize - The window of the model that it starts from; None: the preset's.
    isPretrained - Whether it starts from a model.
    """

    task: str
    method: str
    preset: str
    modality: str = ""
    inputSize: tuple[int, ...] | None = None
    isPretrained: bool = False


def recommendNetwork(task: str, fingerprint: Fingerprint, images: int, computer: Computer) -> Network:
    """The network to start with from scratch.

    :param images: how many the run learns from.
    """
    size, why = _size(images, computer)
    if fingerprint.isOfPictures:
        return Network("vis-mae", size, _("pictures, {computer}").format(computer=why))
    thickness = _thickness(fingerprint)
    if thickness is not None:
        return Network("gl-mae", f"{size}-thin", f"{thickness}, {why}")
    # Convolutions learn more from few labels; classifiers of that preset were not measured (docs/results/gl-mae.md).
    preset = "tiny-hybrid" if size == "tiny" and task != "classification" else size
    return Network("gl-mae", preset, _("volumes, {computer}").format(computer=why))


def recommendSettings(purpose: Purpose, fingerprint: Fingerprint, computer: Computer) -> list[Setting]:
    """The settings that are worth a look, in the order in which one would look at them."""
    network = presetOf(purpose.method, purpose.preset)
    settings = [_intensities(purpose)]
    if network.spatial_dims == 3:
        settings.append(_spacing(purpose, network, fingerprint))
    if purpose.task != PRETRAINING:
        settings.append(_inputSize(purpose, network, fingerprint))
    steps, batch = _schedule(purpose)
    usual = _("The usual one of this network.")
    settings += [Setting("batch_size", _("Batch"), None, str(batch), usual), _atOnce(batch, computer),
                 Setting("steps", _("Steps"), None, str(steps), usual)]
    return settings


def _size(images: int, computer: Computer) -> tuple[str, str]:
    """How large a network, and what of the computer calls for it."""
    memory = computer.graphicsBytes
    if memory == 0:
        return "tiny", _("no graphics card")
    if memory is None:
        return "small", _("a graphics card")
    card = _("a graphics card of {memory}").format(memory=format_memory(memory))
    if memory >= LARGE_CARD and images >= MANY_IMAGES:
        return "base", _("{card}, many images").format(card=card)
    return ("small" if memory >= SMALL_CARD else "tiny"), card


def _thickness(fingerprint: Fingerprint) -> str | None:
    """How most volumes are cut into few or thick slices, in words; None where they are not."""
    volumes = fingerprint.volumes
    thick, few = [], []
    for shape, spacing in zip(volumes.shapes, volumes.spacings_mm, strict=True):
        counts = sorted(shape)
        thick += [max(spacing)] if max(spacing) >= THICK * sorted(spacing)[1] else []
        few += [counts[0]] if counts[0] < FEW_SLICES and counts[0] <= FEWER * counts[1] else []
    if 2 * len(thick) > len(volumes.cases):
        return _("slices of {thickness} mm").format(thickness=_number(median(thick)))
    if 2 * len(few) > len(volumes.cases):
        return _("{count} slices").format(count=round(median(few)))
    return None


def _intensities(purpose: Purpose) -> Setting:
    code = purpose.modality if purpose.modality != "OT" else ""
    reason = (_("Values from -1000 to 1000 HU are used.") if code == "CT" else
              _("Each image is scaled to its own range of values."))
    return Setting("modality", _("Modality"), None, code or _("not known"), reason)


def _spacing(purpose: Purpose, network: Preset, fingerprint: Fingerprint) -> Setting:
    name, volumes = _("Voxel, mm"), fingerprint.volumes
    if purpose.task == "classification":
        return Setting("spacing_mm", name, None, _("to fit all"), _("As coarse as it takes to see a volume whole."))
    if not volumes.cases:
        return Setting("spacing_mm", name, None, _("as in images"), _("The size that most images have."))
    volumes = volumes.towards(network_orientation(network, volumes.shapes, volumes.spacings_mm))
    spacings = volumes.spacings_mm
    isSame = all(max(column) - min(column) < 0.01 * max(column) for column in zip(*spacings, strict=True))
    reason = (_("All images have it.") if isSame else
              _("The median of {count} images; others are resampled.").format(count=len(spacings)))
    return Setting("spacing_mm", name, None, " x ".join(map(_number, volumes.median_spacing_mm)), reason)


def _inputSize(purpose: Purpose, network: Preset, fingerprint: Fingerprint) -> Setting:
    size = purpose.inputSize or network.input_size
    reason = _("That of the model it starts from.") if purpose.inputSize else _("The usual one of this network.")
    volumes = fingerprint.volumes
    if network.spatial_dims == 2:
        reason = _("Images are fitted to it by their longest side.")
    elif volumes.cases and purpose.task == "segmentation":
        volumes = volumes.towards(network_orientation(network, volumes.shapes, volumes.spacings_mm))
        covered = [f"{part * step:.0f}" for part, step in zip(size, volumes.median_spacing_mm, strict=True)]
        reason = _("Sees {extent} mm; a larger one sees more and needs more memory.").format(
            extent=" x ".join(covered))
    return Setting("input_size", _("Window"), None, " x ".join(map(str, size)), reason)


def _atOnce(batch: int, computer: Computer) -> Setting:
    name = _("At once")
    if computer.freeBytes is not None and computer.freeBytes < LITTLE_MEMORY and batch > 1:
        return Setting("device_batch_size", name, 1, "1", _("Only {free} of memory are free.").format(
            free=format_memory(computer.freeBytes)))
    return Setting("device_batch_size", name, None, _("whole batch"), _("A smaller number needs less memory."))


def _schedule(purpose: Purpose) -> tuple[int, int]:
    """Steps and batch."""
    method, preset = purpose.method, purpose.preset
    if purpose.task == PRETRAINING:
        schedules = PRETRAINING_SCHEDULES
        return schedules.get((method, preset)) or schedules[method, preset_size(preset)]
    config = resolve_finetune_config(FinetuneConfig(), method=method, preset=preset,
                                     task=purpose.task, pretrained=purpose.isPretrained)  # type: ignore[arg-type]
    assert config.steps and config.batch_size
    return config.steps, config.batch_size


def _number(value: float) -> str:
    return f"{value:.3g}"
