"""Import modules of the extension while the interpreter watches: ``python import_modules.py NAME...``.

Fails when importing one starts a process, opens a connection, writes a file or imports something heavy.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo",
             "urllib.Request", "os.mkdir", "os.remove", "os.rename", "shutil.rmtree", "os.putenv")
HEAVY = {"torch", "monai", "SimpleITK", "scipy", "matplotlib", "PyTorchUtils", "pip"}
_watching = False


def _watch(event: str, arguments: tuple) -> None:
    if not _watching:
        return
    isWritten = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in FORBIDDEN or isWritten:
        raise RuntimeError(f"importing does {event} {arguments}")


def main() -> None:
    global _watching
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(ROOT / name) for name in sys.argv[1:]]
    from mrml_application import MrmlApplication
    from qtapp import effects
    from qtapp.application import PanelApplication

    MrmlApplication()
    PanelApplication(os.environ.get("SLICER_PYTHON_SOURCE"))
    effects.install(os.environ.get("SLICER_PYTHON_SOURCE"))
    sys.addaudithook(_watch)
    before = set(sys.modules)
    _watching = True
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for file in sorted(ROOT.glob("*MedMAE*/*Lib/**/*.py")):
        if file.stem != "__init__":
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts[1:]))
    _watching = False
    heavy = HEAVY & (set(sys.modules) - before)
    if heavy:
        raise RuntimeError(f"importing the modules imports {', '.join(sorted(heavy))}")
    print("imported", *sys.argv[1:])


if __name__ == "__main__":
    main()
