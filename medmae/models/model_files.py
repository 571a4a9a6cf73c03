"""Where the files of a model lie: in a folder, or in a zip of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import zipfile
import zlib
from pathlib import Path

from medmae.config import from_json
from medmae.errors import BadInput
from medmae.models.early_hash import begin_to_hash, known_sha256
from medmae.models.info import ModelInfo

INFO, WEIGHTS, PREVIEW, CARD = "model.json", "weights.safetensors", "preview.png", "README.md"
LARGEST_INFO_BYTES = 16 * 2**20
LARGEST_PREVIEW_BYTES = 8 * 2**20


class ModelFiles:
    """The files of one model, read-only.

    Args:
        path: a model folder, or a zip file that holds ``model.json`` at its top or in its only folder.

    Raises:
        BadInput: there is no model, or the zip is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._zip_prefix: str | None = None
        if self.path.is_dir():
            if not (self.path / INFO).is_file():
                raise BadInput(f"The folder {self.path} is not a model: it has no {INFO}. Check the path.")
        elif self.path.is_file():
            self._zip_prefix = self._find_in_zip()
        else:
            raise BadInput(f"The model {self.path} does not exist. Check the path.")

    def _find_in_zip(self) -> str:
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = [name for name in archive.namelist()
                         if name.rpartition("/")[2] == INFO and name.count("/") <= 1]
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise BadInput(f"{self.path} is neither a model folder nor a zip of one ({error}). "
                           "Give the folder that holds model.json, or fetch the zip again.") from None
        if len(found) != 1:
            raise BadInput(f"The zip {self.path} holds {len(found)} models instead of one. "
                           "Unpack it and give the folder of the model.")
        return found[0].removesuffix(INFO)

    def read(self, name: str, most: int = -1) -> bytes:
        """The bytes of one file of the model, at most so many: a small zip may hold what fills the memory.

        Raises:
            BadInput: the file is missing or damaged.
        """
        try:
            if self._zip_prefix is None:
                with open(self.path / name, "rb") as file:
                    return file.read(most)
            with zipfile.ZipFile(self.path) as archive, archive.open(self._zip_prefix + name) as member:
                return member.read(most)
        except (OSError, KeyError):
            raise BadInput(f"The model {self.path} has no readable {name}: it is incomplete. "
                           "Copy or download it again.") from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError) as error:
            raise BadInput(f"The {name} in {self.path} is damaged ({error}). Fetch the zip again.") from None

    def has(self, name: str) -> bool:
        """Whether the model has this file."""
        if self._zip_prefix is None:
            return (self.path / name).is_file()
        with zipfile.ZipFile(self.path) as archive:
            return self._zip_prefix + name in archive.namelist()

    def info(self) -> ModelInfo:
        """The content of ``model.json``.

        Raises:
            BadInput: it is missing, is not JSON, or does not describe a model.
        """
        where = f"{INFO} of {self.path}"
        content = self.read(INFO, LARGEST_INFO_BYTES + 1)
        if len(content) > LARGEST_INFO_BYTES:
            raise BadInput(f"The {where} has more than {LARGEST_INFO_BYTES} bytes; it does not describe a model.")
        try:
            data = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # beyond what is no JSON: absurdly long numbers, absurdly deep
            raise BadInput(f"The {where} is not valid JSON ({error}). Copy or download the model again.") from None
        if not isinstance(data, dict):
            raise BadInput(f"The {where} is not a JSON object, so it does not describe a model.")
        return from_json(ModelInfo, data, where)

    def begin_to_verify(self) -> None:
        """Let `verified_weights`, which is called soon, find its work begun; faults show there."""
        with contextlib.suppress(OSError):
            if self._zip_prefix is None:
                begin_to_hash(self.path / WEIGHTS)

    def verified_weights(self, info: ModelInfo) -> Path | bytes:
        """The weights, as a path where they lie in a folder, after comparing their SHA-256 with ``model.json``.

        Raises:
            BadInput: they are missing, empty, or not the ones that the model was saved with.
        """
        if self._zip_prefix is None and (self.path / WEIGHTS).is_file():
            content: Path | bytes
            content = file = self.path / WEIGHTS
            size, found = file.stat().st_size, known_sha256(file)
        else:
            content = self.read(WEIGHTS)
            size, found = len(content), hashlib.sha256(content).hexdigest()
        if size == 0:
            raise BadInput(f"The {WEIGHTS} of {self.path} is empty (zero bytes). Copy or download the model again.")
        if found != info.weights_sha256:
            raise BadInput(f"The {WEIGHTS} of {self.path} is not the file that the model was saved with (its SHA-256 "
                           "differs): it is damaged or was edited. Copy or download the model again.")
        return content
