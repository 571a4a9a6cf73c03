"""Writing a model: description, weights, preview and card, all or nothing."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medmae import __version__
from medmae.config import to_json
from medmae.files import sha256_of, write_json, write_text
from medmae.models.card import model_card
from medmae.models.info import ModelInfo
from medmae.models.model_files import CARD, INFO, PREVIEW, WEIGHTS
from medmae.models.replacing import new_folder

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_model(folder: str | Path, info: ModelInfo, network_or_state: nn.Module | Mapping[str, Tensor],
               preview_png: bytes | None = None) -> Path:
    """Write a model folder; it appears, or replaces an earlier model there, only when it is complete.

    `medmae`, `created` (where empty) and `weights_sha256` of `info` are filled in.

    Args:
        folder: where the model goes.
        info: its description.
        network_or_state: a network, or its state; must fit ``info.architecture``.
        preview_png: bytes of a picture of a typical result.

    Returns:
        The folder.

    Raises:
        BadInput: `folder` holds something else than a model.
        ValueError: the weights do not fit the architecture.
    """
    from safetensors.torch import save_file
    from torch import nn

    from medmae.models.loading import difference

    state = network_or_state.state_dict() if isinstance(network_or_state, nn.Module) else network_or_state
    problem = difference(info.architecture, {name: tuple(tensor.shape) for name, tensor in state.items()})
    if problem:
        raise ValueError(f"the weights do not fit the architecture: {problem}")
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    folder = Path(folder)
    with new_folder(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        info = dataclasses.replace(
            info, medmae=info.medmae or __version__, weights_sha256=sha256_of(temporary / WEIGHTS),
            created=info.created or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        if preview_png is not None:
            (temporary / PREVIEW).write_bytes(preview_png)
        write_text(temporary / CARD, model_card(info, has_preview=preview_png is not None))
        write_json(temporary / INFO, to_json(info))
    return folder
