"""What a pretraining run can be told, with defaults per method and preset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from medmae.config import from_json, require_at_least, require_positive, with_overrides
from medmae.errors import BadInput
from medmae.inference.config import Precision
from medmae.networks.presets import preset as check_preset
from medmae.pretraining.registry import method_class, method_names


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run. None means the default of the method and preset, filled in by `resolve_pretrain_config`.

    `batch_size` is over all processes, of which a device computes at most `device_batch_size` samples at once (None:
    the whole share of its process); `spacing_mm` is in array order (k, j, i) of the network's orientation, None for
    the images' median spacing (3-D) or for fitting slices by their longest side (2-D), "native" (3-D) to store every
    volume with the spacing that it has; `modality` is a DICOM code for all images, None to tell it
    image by image (medmae/pretraining/modality.py); `workers` processes prepare the images, None for one a core, 0 for
    this process alone; slices of volumes with a smaller share of foreground than `min_foreground` are dropped; of a
    file with several images at most `frames` are taken; `balance` draws modalities evenly (true or 1), in proportion
    to their images (false or 0), or in between; `settings` are the method's own (see its Settings class).
    """

    method: str = "gl-mae"
    preset: str = "tiny"
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: Precision | None = None
    batch_size: int | None = None
    device_batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.05
    warmup: float | None = None
    clip_norm: float | None = 3.0
    channels: int | None = None
    modality: str | None = None
    spacing_mm: tuple[float, float, float] | Literal["native"] | None = None
    workers: int | None = None
    min_foreground: float = 0.01
    frames: int = 16
    balance: bool | float = False
    checkpoint_every: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_at_least(self, steps=1, batch_size=1, device_batch_size=1, checkpoint_every=1, channels=1, warmup=0,
                         weight_decay=0, workers=0, frames=1, min_foreground=0)
        require_positive(self, "learning_rate", "clip_norm")
        if abs(self.seed) >= 2**63:
            raise ValueError(f"seed must be a number of 63 bits, not {self.seed}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be true, false or a number from 0 to 1, not {self.balance}")
        if self.min_foreground >= 1:
            raise ValueError(f"min_foreground is a share of the pixels and must be below 1, not {self.min_foreground}")
        if self.precision not in (None, "auto", "fp32", "bf16", "fp16"):
            raise ValueError(f"precision must be auto, fp32, bf16 or fp16, not {self.precision}")
        if isinstance(self.spacing_mm, tuple) and min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be positive, not {self.spacing_mm}")


def resolve_pretrain_config(config: PretrainConfig, overrides: Iterable[str] = ()) -> PretrainConfig:
    """Fill in the defaults of the method and preset, then apply ``key=value`` overrides.

    A key of the method's own settings may be given with or without the prefix ``settings.``.

    Raises:
        BadInput: the method, the preset or a key is unknown.
    """
    if config.method not in method_names():
        raise BadInput(f"The method '{config.method}' is not known. Use {' or '.join(method_names())}.")
    check_preset(config.method, config.preset)
    method = method_class(config.method)
    defaults = method.defaults(config.preset)
    settings: Any = from_json(method.Settings, asdict(method.settings_for(config.preset)) | config.settings,
                         f"settings of {config.method}")
    config = replace(config, steps=config.steps or defaults.steps, batch_size=config.batch_size or defaults.batch_size,
                     precision=config.precision or defaults.precision,
                     warmup=defaults.warmup if config.warmup is None else config.warmup,
                     learning_rate=config.learning_rate or defaults.learning_rate, settings=asdict(settings))
    names = set(config.settings)
    prefixed = [f"settings.{text}" if text.partition("=")[0].strip() in names else text for text in overrides]
    config = with_overrides(config, prefixed, "pretraining configuration")
    if config.spacing_mm == "native" and method.spatial_dims == 2:
        raise BadInput(f"spacing_mm=native is for volumes, but {config.method} sees slices, which are fitted by their "
                       "longest side. Leave it out.")
    method.check_settings(config.preset, from_json(method.Settings, config.settings, f"settings of {config.method}"))
    return config
