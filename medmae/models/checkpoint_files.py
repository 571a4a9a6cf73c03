"""Reading checkpoints that other programs saved: tensors and plain values, whatever else the file holds. Needs torch.

A ``.pth`` file is a pickle, and a pickle is a program. Only PyTorch's restricted reader is used here, which builds
tensors, containers and numbers, and `argparse.Namespace`, in which training scripts keep their settings. Everything
else is refused by name before any of it runs.
"""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medmae.errors import BadInput

STATE_KEYS = ("model", "state_dict")  # where training scripts keep the state dict; without them the file is one itself
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
AGAIN = "Copy or download the checkpoint again."
# What torch.load raises for files that are no checkpoints or are cut off, depending on where the reader stumbles
_UNREADABLE = (RuntimeError, OSError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError,
               OverflowError, AssertionError, struct.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Checkpoint:
    """A state dict as saved, without prefixes of wrappers, on the CPU.

    path: the file; state: name to tensor; epoch: as saved (VIS-MAE: a number or "best"), None where it is not stored;
    key: where in the file the state dict lay, None where the file is one itself; keys: everything that lay beside it.
    """

    path: Path
    state: dict[str, Tensor]
    epoch: int | str | None
    key: str | None = None
    keys: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, first: Sequence[str] = ()) -> Checkpoint:
    """Read a ``.pth`` checkpoint (a state dict, or a dictionary that holds one) or a ``.safetensors`` file.

    Args:
        path: the file.
        first: keys under which the state dict is looked for before the usual ones.

    Raises:
        BadInput: the file is missing, damaged or no checkpoint, or asks for more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, but a checkpoint file is expected" if path.is_dir() else "does not exist"
        raise BadInput(f"The checkpoint {path} {what}. Check the path.")
    _refuse_other_files(path)
    _refuse_packed(path)
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    if not isinstance(content, Mapping):
        raise BadInput(f"The checkpoint {path} holds a {type(content).__name__} instead of a state dict (names and "
                       "tensors), or of a dictionary with one under 'model'. Check that it is the right file.")
    key = next((key for key in (*first, *STATE_KEYS) if isinstance(content.get(key), Mapping)), None)
    state, epoch = _state(content if key is None else content[key], path), content.get("epoch")
    return Checkpoint(path, state, epoch if isinstance(epoch, (int, str)) else None, key,
                      () if key is None else tuple(map(str, content)))


def _refuse_other_files(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(256).lstrip()
    except OSError as error:
        raise BadInput(f"The checkpoint {path} cannot be read ({error.strerror}). Check its permissions.") from None
    if not start:
        raise BadInput(f"The checkpoint {path} is empty. {AGAIN}")
    if start.startswith(b"<"):
        raise BadInput(f"The checkpoint {path} is a web page, not a checkpoint: the download was answered with a page "
                       "(a login, a warning or an error). Open it in a browser to see which, and download again.")
    if start.startswith(b"version https://git-lfs"):
        raise BadInput(f"The checkpoint {path} is only a pointer of Git LFS. Fetch the file itself with: git lfs pull")


def _refuse_packed(path: Path) -> None:
    """PyTorch stores everything as it is; a packed archive cannot be mapped, and may unpack to any size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the reader says what is wrong
    if packed:
        raise BadInput(f"The checkpoint {path} is a packed zip file, which PyTorch does not write. If a checkpoint was "
                       "put into it, unpack that and import it.")


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BadInput(f"The checkpoint {path} is not a safetensors file ({error}). {AGAIN}") from None


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapped, because two thirds of a training checkpoint are the optimizer's and never read
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is None:
            raise BadInput(f"The checkpoint {path} is not a PyTorch checkpoint; nothing of it was loaded. "
                           f"{AGAIN}") from None
        raise BadInput(
            f"The checkpoint {path} holds more than tensors and settings: it asks for {asked[1]}. Loading it could run "
            "code of its author, so nothing of it was loaded. Where you trust it, save its state dict alone, with "
            "torch.save(network.state_dict(), FILE), and import that.") from None
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadInput(f"The checkpoint {path} is damaged, incomplete or not a PyTorch checkpoint ({reason[:160]}). "
                       f"{AGAIN}") from None


def _state(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    others = [str(name) for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others or not state:
        found = ", ".join(others[:4]) + (" ..." if len(others) > 4 else "") or "nothing"
        raise BadInput(f"The checkpoint {path} has no state dict: names and tensors are expected, at its top or under "
                       f"'model', but it holds {found}. Check that it is the right file.")
    return _without_wrappers({name: tensor.detach() for name, tensor in state.items()})


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPER_PREFIXES * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
