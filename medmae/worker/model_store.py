"""Models that stay loaded: the least recently used ones go when all together take too much memory."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from medmae.inference.device import Precision, resolve_device
from medmae.inference.loaded_model import LoadedModel
from medmae.models import load_info, resolve_model
from medmae.models.early_hash import identity_of
from medmae.models.model_files import WEIGHTS

log = logging.getLogger(__name__)


class ModelStore:
    """Loaded models by folder, weights and device. A model that was trained anew in its folder is loaded anew.

    Args:
        most_bytes: what all networks together may take; the one asked for last always stays.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._models: OrderedDict[tuple[Path, str, str], LoadedModel] = OrderedDict()

    def get(self, model: str | Path, *, device: str = "auto",
            precision: Precision = "auto") -> tuple[LoadedModel, bool]:
        """The model, and whether it was loaded already; `model` as for `resolve_model`.

        Raises:
            BadInput: there is no such model, it is damaged, or the device does not exist.
        """
        folder, where = resolve_model(model).resolve(), str(resolve_device(device))
        info = load_info(folder)
        # Weights are used where they lie on disk: what changed there must not be used half as it was.
        key = (folder, f"{info.weights_sha256} {identity_of(_weights_file(folder))}", where)
        is_warm = key in self._models
        if not is_warm:
            started = time.monotonic()
            self._forget(folder, where)
            self._models[key] = LoadedModel.load(folder, task=info.task, device=where)
            log.info("loaded %s (%.2f s)", info.name, time.monotonic() - started)
        self._models.move_to_end(key)
        self._shrink()
        return dataclasses.replace(self._models[key], info=info, precision=precision), is_warm

    def unload(self, model: str | Path | None = None) -> int:
        """Forget a model, or all; how many were forgotten.

        Raises:
            BadInput: there is no such model.
        """
        before = len(self._models)
        if model is None:
            self._models.clear()
        else:
            folder = resolve_model(model).resolve()
            for key in [key for key in self._models if key[0] == folder]:
                del self._models[key]
        _return_memory()
        return before - len(self._models)

    def listed(self) -> list[dict[str, Any]]:
        """What is loaded, the most recently used first."""
        return [{"model": str(folder), "name": model.info.name, "task": model.info.task, "device": device,
                 "bytes": network_bytes(model)} for (folder, _, device), model in reversed(self._models.copy().items())]

    def _forget(self, folder: Path, device: str) -> None:
        """Drop what an older version of the model in this folder left."""
        for key in [key for key in self._models if (key[0], key[2]) == (folder, device)]:
            del self._models[key]

    def _shrink(self) -> None:
        while len(self._models) > 1 and sum(map(network_bytes, self._models.values())) > self.most_bytes:
            _, model = self._models.popitem(last=False)
            log.info("unloaded %s to stay within %d bytes", model.info.name, self.most_bytes)
            del model
            _return_memory()


def _weights_file(model: Path) -> Path:
    """The file that holds the weights: the model's own, or the zip."""
    return model / WEIGHTS if (model / WEIGHTS).is_file() else model


def network_bytes(model: LoadedModel) -> int:
    """Bytes of a network's parameters and buffers."""
    tensors = [*model.network.parameters(), *model.network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _return_memory() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
