"""From the JSON description of an architecture to a network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from medmae.errors import BadInput
from medmae.networks.dyn_unet import DynUnet
from medmae.networks.plain_unet import PlainUnet
from medmae.networks.swin_classifier import SwinClassifier
from medmae.networks.swin_mae import SwinMAE
from medmae.networks.swin_unet import SwinUnet
from medmae.networks.unetr import Unetr
from medmae.networks.vit_classifier import VitClassifier
from medmae.networks.vit_mae import VitMae

NETWORKS: dict[str, type[nn.Module]] = {
    "swin_mae": SwinMAE,
    "swin_unet": SwinUnet,
    "swin_classifier": SwinClassifier,
    "vit_mae": VitMae,
    "unetr": Unetr,
    "vit_classifier": VitClassifier,
    "plain_unet": PlainUnet,
    "dyn_unet": DynUnet,
}


LARGEST_SIZE, MOST_BLOCKS = 65536, 256  # a description from a stranger must not take hours to build


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
        values = value if isinstance(value, (list, tuple)) else [value]
        usable = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in values)
        if key == "masked_padding":
            usable = isinstance(value, bool)
        elif key == "drop_path":
            usable = usable and all(0 <= item < 1 for item in values)
        else:
            largest = MOST_BLOCKS if key.endswith(("depth", "depths")) else LARGEST_SIZE
            usable = usable and all(isinstance(item, int) and 1 <= item <= largest for item in values)
        if not usable:
            raise BadInput(f"The architecture {name} cannot be built: {key} = {value!r} is not usable.")
