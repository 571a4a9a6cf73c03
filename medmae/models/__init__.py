"""Models on disk: a folder (or zip of it) with model.json, weights.safetensors, README.md and preview.png.

No pickle and no code: a model from a stranger is data. Listing, showing and installing need no torch; `load_network`,
`load_state` and `save_model` import it when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medmae.models.info import ModelInfo
from medmae.models.registry import (
    install_model,
    list_models,
    load_info,
    remove_model,
    resolve_model,
    survey_models,
    usable_name,
)
from medmae.models.saving import save_model

if TYPE_CHECKING:
    from medmae.models.loading import FeatureMaps, load_network, load_state

__all__ = ["FeatureMaps", "ModelInfo", "install_model", "list_models", "load_info", "load_network", "load_state",
           "remove_model", "resolve_model", "save_model", "survey_models", "usable_name"]


def __getattr__(name: str) -> Any:
    if name in ("FeatureMaps", "load_network", "load_state"):
        from medmae.models import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
