"""What both MedMAE modules share and what MedMAESegment is made of; needs slicer, vtk and numpy, never torch."""

import importlib.util
import sys
from pathlib import Path

# In an installed extension the engine lies beside the modules and is found. In a source tree, where each module folder
# is a module path of its own, it lies two folders up.
if importlib.util.find_spec("medmae") is None:
    _sourceTree = Path(__file__).resolve().parents[2]
    if (_sourceTree / "medmae" / "__init__.py").is_file():
        sys.path.append(str(_sourceTree))
