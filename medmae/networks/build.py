"""From the JSON description of an architecture to a network."""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from medmae.errors import BadInput
from medmae.networks.dyn_unet import DynUnet
from medmae.networks.ensemble import Ensemble
from medmae.networks.hybrid_classifier import HybridClassifier
from medmae.networks.hybrid_mae import HybridMae
from medmae.networks.hybrid_unet import HybridUnet
from medmae.networks.plain_unet import PlainUnet
from medmae.networks.swin_classifier import SwinClassifier
from medmae.networks.swin_mae import SwinMAE
from medmae.networks.swin_unet import SwinUnet
from medmae.networks.unetr import Unetr
from medmae.networks.vit_alone import VitAlone
from medmae.networks.vit_classifier import VitClassifier
from medmae.networks.vit_mae import VitMae

NETWORKS: dict[str, type[nn.Module]] = {
    "swin_mae": SwinMAE,
    "swin_unet": SwinUnet,
    "swin_classifier": SwinClassifier,
    "vit_mae": VitMae,
    "vit_alone": VitAlone,
    "unetr": Unetr,
    "vit_classifier": VitClassifier,
    "hybrid_mae": HybridMae,
    "hybrid_unet": HybridUnet,
    "hybrid_classifier": HybridClassifier,
    "plain_unet": PlainUnet,
    "dyn_unet": DynUnet,
    "ensemble": Ensemble,
}


# A description from a stranger must not take hours, or all memory, to build.
LARGEST_SIZE, MOST_BLOCKS, MOST_LEVELS, LARGEST_PATCH, MOST_PLACES = 65536, 256, 16, 64, 65536
FLAGS = ("masked_padding", "class_token", "decoder_class_token", "multi_label", "standardise")
WORDS = ("pool", "head")  # the networks say which ones they know
COUNTS_FROM_ZERO = ("deep_supervision",)


def build_network(architecture: Mapping[str, Any]) -> nn.Module:
    """Build ``{"name": ..., "arguments": {...}}`` with fresh weights, in training mode.

    Raises:
        BadInput: the name or an argument is unknown (the valid ones are listed) or a value is unusable.
    """
    name, arguments = architecture.get("name"), architecture.get("arguments", {})
    if (set(architecture) - {"name", "arguments"} or not isinstance(name, str) or name not in NETWORKS
            or not isinstance(arguments, Mapping)):
        raise BadInput(f"The architecture {name!r} is not known. It needs a 'name', one of {', '.join(NETWORKS)}, "
                       "and 'arguments'.")
    network_type = NETWORKS[name]
    valid = list(inspect.signature(network_type).parameters)
    unknown = sorted(set(arguments) - set(valid))
    if unknown:
        raise BadInput(f"The architecture {name} has no argument {', '.join(unknown)}. Valid: {', '.join(valid)}.")
    _check_values(name, arguments)
    try:
        return network_type(**arguments)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"The architecture {name} cannot be built: {error}.") from None


def _check_values(name: str, arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        if not _usable(key, value):
            raise BadInput(f"The architecture {name} cannot be built: {key} = {reprlib.repr(value)} is not usable.")


def _usable(key: str, value: Any) -> bool:
    if key in FLAGS:
        return isinstance(value, bool)
    if key == "member":  # built, and checked, as an architecture of its own
        return isinstance(value, Mapping)
    if key in WORDS:
        return isinstance(value, str)
    if key in ("position_grid", "weight_grid"):
        return value is None or (_whole(value, 1, LARGEST_SIZE) and isinstance(value, (list, tuple))
                                 and math.prod(value) <= MOST_PLACES)
    if key == "drop_path":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
    if key == "norm_eps":
        return isinstance(value, float) and 0 < value < 1
    if key.endswith("mlp_width") and value is None:
        return True
    if key == "patch":
        return _whole(value, 1, LARGEST_PATCH)
    if key == "residual_units":  # of every level
        return _whole(value, 1, MOST_LEVELS)
    largest = MOST_BLOCKS if key.endswith(("depth", "depths")) else LARGEST_SIZE
    return _whole(value, 0 if key in COUNTS_FROM_ZERO else 1, largest)


def _whole(value: Any, least: int, most: int) -> bool:
    """Whether `value` is a whole number, or a list of at most `MOST_LEVELS`, between `least` and `most`."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return len(values) <= MOST_LEVELS and all(
        isinstance(item, int) and not isinstance(item, bool) and least <= item <= most for item in values)
