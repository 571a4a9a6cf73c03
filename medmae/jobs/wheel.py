"""The running package as a wheel, made without build tools, so that it works inside a Slicer extension as well."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import zipfile
from pathlib import Path

import medmae

CONTENT = (".py", ".json", ".lock", ".typed")
SCRIPTS = "[console_scripts]\nmedmae = medmae.cli:main\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that zip files know


@functools.cache
def wheel() -> bytes:
    """A wheel of exactly this package; equal sources give equal bytes.

    It is stored uncompressed, because compressed bytes depend on the version of zlib, and names no dependencies: the
    environment is made from the lock file.
    """
    root = Path(medmae.__file__).parent
    files = {f"medmae/{file.relative_to(root).as_posix()}": file.read_bytes()
             for file in root.rglob("*") if file.suffix in CONTENT and "__pycache__" not in file.parts}
    information = f"medmae-{medmae.__version__}.dist-info"
    files[f"{information}/METADATA"] = (f"Metadata-Version: 2.1\nName: medmae\nVersion: {medmae.__version__}\n"
                                        "Requires-Python: >=3.11\n").encode()
    files[f"{information}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: medmae\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{information}/entry_points.txt"] = SCRIPTS.encode()
    record = f"{information}/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    files[record] = "".join(f"{line}\n" for line in [*lines, f"{record},,"]).encode()
    return _zip(files)


def wheel_name() -> str:
    """What the file is called where it is stored."""
    return f"medmae-{medmae.__version__}-py3-none-any.whl"


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, whatever system this is
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
