"""What a finetuning run can be told, with defaults per method, preset and task."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from medmae.config import require_at_least, require_positive, with_overrides
from medmae.datasets.dataset import Task
from medmae.inference.config import check_pooling
from medmae.networks.presets import preset_size
from medmae.training.schedule import ScheduleName

Network = Literal["method", "unet", "dynunet"]
UNET_LEARNING_RATE = 3e-3  # docs/methods.md
USUAL_ROTATION, USUAL_SCALE = 15.0, (0.8, 1.25)
WHOLE_VOLUME_ROTATION, WHOLE_VOLUME_SCALE = 5.0, (0.95, 1.05)  # docs/results/gl-mae.md
MOST_FOLDS = 20  # each is a network of the finished ensemble


@dataclass(frozen=True)
class AugmentationConfig:
    """How much training views vary. Geometry is drawn once per view for image and label.

    `rotation_degrees` and `scale` None mean 15 degrees and 0.8 to 1.25; in classification of volumes, where the place
    of a contrast may tell the classes apart, 5 degrees and 0.95 to 1.05.
    `flip_axes` are array axes (0 = k, 1 = j, 2 = i; for 2-D 0 = rows, 1 = columns); None means left-right for
    segmentation unless a label's name says left or right, and no flips for classification, where the side may be the
    class itself.
    """

    rotation_degrees: float | None = None
    scale: tuple[float, float] | None = None
    flip_axes: tuple[int, ...] | None = None
    brightness: float = 0.1
    contrast: float = 0.25
    gamma: tuple[float, float] = (0.7, 1.5)
    noise: float = 0.05
    blur: float = 0.1

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two rising positive numbers, not {self.scale}")
        if not 0 < self.gamma[0] <= self.gamma[1]:
            raise ValueError(f"gamma must be two rising positive numbers, not {self.gamma}")
        if not set(self.flip_axes or ()) <= {0, 1, 2}:
            raise ValueError(f"flip_axes are array axes, 0 to 2 (0 and 1 of pictures), not {self.flip_axes}")
        require_at_least(self, rotation_degrees=0, brightness=0, contrast=0, noise=0, blur=0)


@dataclass(frozen=True)
class FinetuneConfig:
    """A finetuning run. None means the default of the method, preset and task (`resolve_finetune_config`).

    The schedule is fixed: at N labels, training and model selection see these N only, so there is no selection on
    validation cases (without `patience`); they are scored for the report. `cases` draws that many training cases by
    subject from `seed`. `batch_size` is over all processes, of which a device computes at most `device_batch_size`
    samples at once (None: the whole share of its process). `layer_decay` is the factor of the learning rate per level
    below the head; `ema` that of the averaged weights, which become the model. `foreground_fraction` of the crops are
    centred on a labelled voxel (of 2-D networks: show a slice that has one). `context`: neighbouring slices on each
    side that a 2-D network sees as further channels. `input_size`: the network's window, (k, j, i) or (rows, columns).
    `preview`: keep a small picture of one slice of a case in the model, which travels with it, and in the run folder
    such pictures of its training.

    Classification: `class_balance` lets rare classes count more in the loss ("loss"), come up more often ("draw"), or
    neither ("none"). `slice_pooling` is how a 2-D network makes one answer of the slices of a volume ("mean", "max" or
    "topN%"), `slices` how many of them a training step sees of each volume (None: 1 for the mean, otherwise 8).
    `calibrate`: fit a temperature on the validation cases after training.

    GL-MAE: `deep_supervision` counts coarser levels of UNETR's decoder that learn too (weights 1, 1/2, 1/4, ... of the
    loss, normalised). `positions`: "computed" for the grid at hand, or "resized" from the grid of pretraining; an
    encoder that brings a table of its own keeps it. `patch` (k, j, i): other tokens than the encoder's or preset's; its
    stem is resized. Classification: `pool` the tokens' "mean", their mean "weighted" by learned weights of places, or
    take "cls" (None: what the preset says), with a "linear" (default) or "mlp" `head`, which sees its values as they
    are or `standardise`d over the batch (None: what the preset says). `freeze_encoder`
    trains all but the encoder (a probe).

    `patience` ends training after so many validations without a better score, and the best weights become the model.
    Off by default, because it selects on validation cases. `folds` trains one model on all but each k-th part of the
    cases, scores every case by the model that has not seen it, and makes the models an ensemble.

    `network`: "method" is the network of the method (Swin-Unet, UNETR, the classifiers); "unet" a plain U-Net of MONAI
    and "dynunet" its DynUNet, on the method's grid, for segmentation from scratch: the baselines of comparisons.
    """

    method: str | None = None
    preset: str | None = None
    network: Network = "method"
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None
    device_batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup: float = 0.1
    schedule: ScheduleName | None = None
    clip_norm: float | None = 1.0
    layer_decay: float | None = None
    ema: float = 0.99
    cases: int | None = None
    spacing_mm: tuple[float, float, float] | None = None
    context: int | None = None
    input_size: tuple[int, ...] | None = None
    dice_weight: float = 1.0
    ce_weight: float = 1.0
    foreground_fraction: float = 0.67
    class_balance: Literal["loss", "draw", "none"] = "loss"
    slice_pooling: str = "mean"
    slices: int | None = None
    calibrate: bool = True
    validations: int = 4
    validation_cases: int = 8
    checkpoint_every: int | None = None
    preview: bool = True
    allow_partial: bool = False
    deep_supervision: int = 0
    positions: Literal["computed", "resized"] = "computed"
    patch: tuple[int, int, int] | None = None
    pool: Literal["mean", "cls", "weighted"] | None = None
    head: Literal["linear", "mlp"] | None = None
    standardise: bool | None = None
    freeze_encoder: bool = False
    patience: int | None = None
    folds: int | None = None
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        require_at_least(self, steps=1, batch_size=1, device_batch_size=1, cases=1, checkpoint_every=1, validations=0,
                         validation_cases=1, warmup=0, weight_decay=0, dice_weight=0, ce_weight=0, context=0, slices=1,
                         deep_supervision=0, patience=1, folds=2)
        check_pooling(self.slice_pooling)
        require_positive(self, "learning_rate", "clip_norm", "layer_decay")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ValueError(f"precision must be auto, fp32, bf16 or fp16, not {self.precision}")
        if not 0 <= self.foreground_fraction <= 1:
            raise ValueError(f"foreground_fraction must lie between 0 and 1, not {self.foreground_fraction}")
        if self.folds is not None and self.folds > MOST_FOLDS:
            raise ValueError(f"folds must be at most {MOST_FOLDS}, not {self.folds}")
        if self.patience is not None and not self.validations:
            raise ValueError("patience counts validations, but validations is 0")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie between 0 (off) and 1, not {self.ema}")
        if self.spacing_mm is not None and min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be positive, not {self.spacing_mm}")
        if self.input_size is not None and min(self.input_size, default=0) < 1:
            raise ValueError(f"input_size must be positive, not {list(self.input_size)}")


@dataclass(frozen=True)
class _Schedule:
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    shape: ScheduleName = "warmup_cosine"
    layer_decay: float | None = None  # where it is another than the preset's or method's


_SCHEDULES: dict[tuple[str, str, str], _Schedule] = {
    ("gl-mae", "tiny", "segmentation"): _Schedule(800, 2, 2e-3),
    ("gl-mae", "tiny-hybrid", "segmentation"): _Schedule(800, 2, 3e-3),
    ("gl-mae", "small", "segmentation"): _Schedule(10_000, 2, 4e-4),
    ("gl-mae", "base", "segmentation"): _Schedule(25_000, 2, 2e-4),
    ("gl-mae", "tiny", "classification"): _Schedule(200, 8, 1e-3, layer_decay=1.0),
    ("gl-mae", "small", "classification"): _Schedule(5_000, 8, 4e-4),
    ("gl-mae", "base", "classification"): _Schedule(10_000, 8, 2e-4),
    ("vis-mae", "tiny", "segmentation"): _Schedule(1200, 8, 1e-3),
    ("vis-mae", "small", "segmentation"): _Schedule(8_000, 32, 1e-3),
    ("vis-mae", "base", "segmentation"): _Schedule(15_000, 32, 1e-3),
    ("vis-mae", "tiny", "classification"): _Schedule(400, 16, 1e-3),
    ("vis-mae", "small", "classification"): _Schedule(5_000, 48, 1e-3),
    ("vis-mae", "base", "classification"): _Schedule(10_000, 48, 1e-3),
}


# What a DynUNet from scratch is usually given, whatever the preset (docs/methods.md).
_DYN_UNET = _Schedule(800, 2, 2e-3, weight_decay=0.01, shape="one_cycle")

# Per block. Twelve blocks of a ViT-B leave its stem 0.024 of the rate (the usual choice of masked autoencoders); Swin's
# are fewer and learn from all scales, so theirs is milder: 0.23 for the stem of the published network. The decoder of a
# hybrid network is pretrained like its encoder, and its stem has most to learn: none.
_LAYER_DECAY = {"gl-mae": 0.75, "vis-mae": 0.85, "tiny-hybrid": 1.0}  # of presets and, where they have none, methods


def resolve_finetune_config(config: FinetuneConfig, *, method: str, preset: str, task: Task,
                            pretrained: bool) -> FinetuneConfig:
    """Fill in what is None from the method, preset and task; the axes of flips are known later (`default_flip_axes`).

    All arms of a comparison get the same augmentation; transformers and the plain U-Net the same steps and batch, at
    rates that suit them; DynUNet its usual recipe.
    Layer-wise decay protects pretrained layers and is therefore 1 from scratch.
    """
    schedule = _SCHEDULES.get((method, preset, task)) or _SCHEDULES[method, preset_size(preset), task]
    if config.network == "unet":
        schedule = replace(schedule, learning_rate=UNET_LEARNING_RATE)
    elif config.network == "dynunet":
        schedule = _DYN_UNET
    decay, given = config.weight_decay, config.augmentation
    whole = method == "gl-mae" and task == "classification"
    rotation, scale = (WHOLE_VOLUME_ROTATION, WHOLE_VOLUME_SCALE) if whole else (USUAL_ROTATION, USUAL_SCALE)
    layers = schedule.layer_decay or _LAYER_DECAY.get(preset, _LAYER_DECAY[method])
    return replace(
        config, method=method, preset=preset, steps=config.steps or schedule.steps,
        batch_size=config.batch_size or schedule.batch_size,
        learning_rate=config.learning_rate or schedule.learning_rate,
        weight_decay=schedule.weight_decay if decay is None else decay,
        schedule=config.schedule or schedule.shape,
        layer_decay=config.layer_decay or (layers if pretrained else 1.0),
        augmentation=replace(
            given, scale=given.scale or scale,
            rotation_degrees=rotation if given.rotation_degrees is None else given.rotation_degrees))


def default_flip_axes(task: Task, labels: Iterable[str], spatial_dims: int, orientation: str) -> tuple[int, ...]:
    """The left-right axis for segmentation, unless a label's name says a side; none for classification.

    It is the last one in the usual orientations; networks for thin volumes and imported ones may have another one.
    """
    names = (re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in labels)  # LungLeft is two words
    words = {word for name in names for word in re.split("[^a-z]+", name)}
    sided = any(word in {"l", "r", "lt", "rt", "lh", "rh"} or word.startswith(("left", "right")) for word in words)
    if task == "classification" or sided:
        return ()
    if spatial_dims == 2:
        return (1,)
    return (next(axis for axis, letter in enumerate(reversed(orientation)) if letter in "LR"),)


def finetune_config(overrides: Iterable[str], base: FinetuneConfig | None = None) -> FinetuneConfig:
    """A configuration with ``key=value`` overrides; keys of the augmentation need no prefix.

    Raises:
        BadInput: a key is unknown or a value has the wrong type.
    """
    names = set(AugmentationConfig.__dataclass_fields__)
    prefixed = [f"augmentation.{text}" if text.partition("=")[0].strip() in names else text for text in overrides]
    return with_overrides(base or FinetuneConfig(), prefixed, "finetuning configuration")
