"""Networks of both methods, in torch alone: Swin MAE, Swin-Unet, ViT MAE, UNETR and the two classifiers.

Presets can be read without torch; the rest is imported at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medmae.networks.presets import GlMaePreset, Preset, VisMaePreset, architecture_for, methods, preset

if TYPE_CHECKING:
    from medmae.networks.build import build_network
    from medmae.networks.swin_classifier import SwinClassifier
    from medmae.networks.swin_mae import SwinMAE
    from medmae.networks.swin_unet import SwinUnet
    from medmae.networks.task_architecture import architecture_following
    from medmae.networks.transfer import LoadReport, transfer_encoder
    from medmae.networks.unetr import Unetr
    from medmae.networks.vit_classifier import VitClassifier
    from medmae.networks.vit_mae import VitMae

__all__ = ["GlMaePreset", "LoadReport", "Preset", "SwinClassifier", "SwinMAE", "SwinUnet", "Unetr", "VisMaePreset",
           "VitClassifier", "VitMae", "architecture_following", "architecture_for", "build_network", "methods",
           "preset", "transfer_encoder"]

_HOMES = {"architecture_following": "task_architecture", "build_network": "build",
          "SwinClassifier": "swin_classifier", "SwinMAE": "swin_mae",
          "SwinUnet": "swin_unet", "LoadReport": "transfer", "transfer_encoder": "transfer", "Unetr": "unetr",
          "VitClassifier": "vit_classifier", "VitMae": "vit_mae"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"medmae.networks.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
