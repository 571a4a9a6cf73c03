"""What the build files list is what is there: Slicer packages nothing else."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
PANELS = ["MedMAESegment", "MedMAETrain"]
MODULES = [*PANELS, "SegmentEditorMedMAE"]


@pytest.mark.parametrize("name", MODULES)
def test_every_file_of_a_module_is_listed_in_its_build_file(name):
    text = (ROOT / name / "CMakeLists.txt").read_text().replace("${MODULE_NAME}", name)
    listed = set(re.findall(r"^\s+(\S+\.(?:py|png|ui|txt|nrrd))$", text, re.MULTILINE))
    there = {str(path.relative_to(ROOT / name)) for pattern in ("*.py", f"{name}Lib/**/*.py", "Resources/**/*.*")
             for path in (ROOT / name).glob(pattern)}
    assert listed == there


def test_every_file_of_the_engine_is_listed_in_its_build_file():
    listed = re.findall(r"^  (\w\S*)$", (ROOT / "medmae" / "CMakeLists.txt").read_text(), re.MULTILINE)
    there = {str(path.relative_to(ROOT / "medmae")) for path in (ROOT / "medmae").rglob("*")
             if path.is_file() and path.suffix != ".pyc" and path.name != "CMakeLists.txt"}
    assert {name for name in listed if "." in name} == there, "list the difference in medmae/CMakeLists.txt"


@pytest.mark.parametrize("name", PANELS)
def test_every_scene_connection_of_a_panel_joins_existing_widgets(name):
    tree = ElementTree.parse(ROOT / name / "Resources" / "UI" / f"{name}.ui").getroot()
    widgets = {widget.get("name"): widget.get("class") for widget in tree.iter("widget")}
    receivers = [connection.findtext("receiver") for connection in tree.iter("connection")]
    assert next(tree.iter("widget")).get("class") == "qMRMLWidget"
    assert set(receivers) == {key for key, cls in widgets.items() if cls == "qMRMLNodeComboBox"}
    declared = {custom.findtext("class") for custom in tree.iter("customwidget")}
    assert {cls for cls in widgets.values() if not cls.startswith("Q")} == declared


@pytest.mark.parametrize("path", ["Resources/MedMAE.png", *(f"{n}/Resources/Icons/{n}.png" for n in MODULES)])
def test_icons_have_the_recommended_size(path):
    data = (ROOT / path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (128, 128)


def test_the_extension_names_files_that_exist():
    text = (ROOT / "CMakeLists.txt").read_text()
    url = re.search(r'^set\(MEDMAE_URL "(https://\S+)"\)$', text, re.MULTILINE)[1]
    pictures = re.findall(rf"{re.escape(url)}/(Resources/\S+?\.png)", text)
    assert len(pictures) == 3
    assert all((ROOT / path).is_file() for path in pictures)
    folders = re.findall(r"add_subdirectory\((\w+)\)", text)
    assert folders == ["medmae", *MODULES]
    assert all((ROOT / folder / "CMakeLists.txt").is_file() for folder in folders)
    assert re.search(r"^project\(MedMAE\)$", text, re.MULTILINE)
    assert all("\n" not in line for line in re.findall(r"set\(EXTENSION_\w+ [^)]*\)", text))


def test_no_module_imports_anything_heavy_or_installs_at_import():
    for path in [*ROOT.glob("*MedMAE*/*.py"), *ROOT.glob("*MedMAE*/*Lib/**/*.py")]:
        text = path.read_text()
        assert not re.search(r"^\s*(?:import|from) (?:torch|monai|SimpleITK)\b", text, re.MULTILINE), path
        assert not re.search(r"^(?:\w+\.)*(?:pip_install|pip_ensure|ensureInstalled)\(", text, re.MULTILINE), path
