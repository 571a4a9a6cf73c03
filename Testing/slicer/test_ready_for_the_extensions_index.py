"""What the Extensions Index and its reviewers look at: catalogue entry, addresses, sample data, texts, imports."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import slicer
from panel_fixtures import SOURCE

ROOT = Path(__file__).resolve().parents[2]
CMAKE = (ROOT / "CMakeLists.txt").read_text()
URL = re.search(r'^set\(MEDMAE_URL "(\S+)"\)$', CMAKE, re.MULTILINE)[1]
MODULES = ["MedMAESegment", "MedMAETrain", "SegmentEditorMedMAE"]
MODULE_FILES = [*(ROOT / name / f"{name}.py" for name in MODULES),
                ROOT / "SegmentEditorMedMAE" / "SegmentEditorMedMAELib" / "SegmentEditorEffect.py",
                *(ROOT / "MedMAESegment" / "MedMAESegmentLib" / f"{name}.py" for name in ("Device", "PythonPanel"))]


def test_the_catalogue_entry_is_what_the_index_takes():
    data = (ROOT / "Resources" / "MedMAE.json").read_bytes()
    entry = json.loads(data)
    assert b"\r" not in data and list(entry) == sorted(entry)
    assert set(entry) <= {"$schema", "build_dependencies", "build_subdirectory", "category", "enabled", "scm_revision",
                          "scm_type", "scm_url", "tier"}
    assert entry["category"] == "Segmentation" and entry["scm_revision"] == "main"
    assert entry["build_dependencies"] == re.search(r'set\(EXTENSION_DEPENDS "(.*)"\)', CMAKE)[1].split()
    assert re.search(r"^project\((\w+)\)$", CMAKE, re.MULTILINE)[1] == "MedMAE", "the name of the entry's file"


def test_every_address_of_the_repository_is_the_one_that_cmake_sets():
    assert json.loads((ROOT / "Resources" / "MedMAE.json").read_text())["scm_url"] == URL
    patterns = ("*.txt", "*.md", "docs/*.md", "*MedMAE*/**/*.py", "Resources/*.json")
    texts = {path: path.read_text() for pattern in patterns for path in ROOT.glob(pattern)}
    for path, text in texts.items():
        addresses = re.findall(r"https://(?:www\.)?example\.(?:com|org)[\w/.]*", text)
        assert all(address.startswith(URL) for address in addresses), path
    # The Index reads these two as text, without CMake: no variables in them.
    for name in ("ICONURL", "SCREENSHOTURLS"):
        value = re.search(rf'^set\(EXTENSION_{name} "([^"]+)"\)$', CMAKE, re.MULTILINE)[1]
        assert all(url.startswith(f"{URL}/Resources/") for url in value.split())


def test_contributor_and_licence_are_named():
    assert 'set(EXTENSION_CONTRIBUTORS "MedMAE contributors")' in CMAKE
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_readme_has_the_sections_that_good_peers_have():
    text = (ROOT / "README.md").read_text()
    titles = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
    for title in ("In 3D Slicer", "Setup", "Tutorial", "Modules", "Trouble?", "Developers", "Citation", "Licence"):
        assert title in titles, title
    assert all(f"**{name}**" in text for name in ("MedMAE Segment", "MedMAE Train", "Segment Editor effect MedMAE"))
    assert "Not for clinical use" in text


def test_every_picture_and_document_that_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text()
    names = re.findall(r'(?:\]\(|src=")((?!https?:|#)[^)"#]+)', text)
    assert names and all((ROOT / name).exists() for name in names)


class TestSampleData:
    @pytest.fixture
    def sources(self, qt_application, monkeypatch):
        """What the module Sample Data is told."""
        qt_application.completeSlicerApp()
        registered = []

        class SampleDataLogic:
            registerCustomSampleDataCategory = staticmethod(lambda category, title: registered.append(category))
            registerCustomSampleDataSource = staticmethod(lambda **source: registered.append(source))

        module = ModuleType("SampleData")
        module.SampleDataLogic = SampleDataLogic
        monkeypatch.setitem(sys.modules, "SampleData", module)
        from MedMAESegmentLib.SampleCases import registerSampleData

        registerSampleData()
        assert registered[0] == "MedMAE"
        return registered[1:]

    def test_it_comes_with_the_extension_and_has_the_checksums_that_are_given(self, sources):
        assert [len(source["uris"]) for source in sources] == [6, 1]
        for source in sources:
            for uri, checksum in zip(source["uris"], source["checksums"], strict=True):
                data = Path(uri.removeprefix("file://")).read_bytes()
                assert checksum == f"SHA256:{hashlib.sha256(data).hexdigest()}"
            assert len({*source["fileNames"]}) == len({*source["nodeNames"]}) == len(source["loadFileTypes"])

    def test_it_has_thumbnails_of_the_usual_size(self, sources):
        for source in sources:
            assert struct.unpack(">II", Path(source["thumbnailFileName"]).read_bytes()[16:24]) == (260, 280)

    def test_slicer_reads_it_and_segmentations_lie_on_their_volumes(self, sources, scene):
        nodes = {}
        for uri, name, kind in zip(*(sources[0][key] for key in ("uris", "nodeNames", "loadFileTypes")), strict=True):
            isSegmentation = kind == "SegmentationFile"
            node = scene.AddNewNodeByClass(
                "vtkMRMLSegmentationNode" if isSegmentation else "vtkMRMLScalarVolumeNode", name)
            storage = (slicer.vtkMRMLSegmentationStorageNode() if isSegmentation else
                       slicer.vtkMRMLVolumeArchetypeStorageNode())
            storage.SetFileName(uri.removeprefix("file://"))
            assert storage.ReadData(node)
            nodes[name] = node
        for number in (1, 2, 3):
            volume, segmentation = nodes[f"MedMAE CT {number}"], nodes[f"MedMAE CT {number} segmentation"]
            segments = segmentation.GetSegmentation()
            names = [segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments())]
            assert names == ["liver", "spleen", "kidney", "aorta", "vertebra"]
            voxels = slicer.util.arrayFromVolume(volume)
            liver = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segments.GetNthSegmentID(0), volume)
            assert liver.shape == voxels.shape and 40 < voxels[liver > 0].mean() < 160

    @pytest.mark.slicer_source
    @pytest.mark.skipif(not SOURCE, reason="needs SLICER_PYTHON_SOURCE, a checkout of Slicer")
    def test_slicers_own_sample_data_module_takes_it(self, qt_application, monkeypatch, tmp_path):
        source = next((root / "Modules" / "Scripted" / "SampleData"
                       for root in Path(SOURCE).resolve().parents
                       if (root / "Modules" / "Scripted" / "SampleData" / "SampleData.py").is_file()), None)
        if source is None:
            pytest.skip("needs the whole checkout of Slicer around SLICER_PYTHON_SOURCE")
        qt_application.completeSlicerApp()
        monkeypatch.syspath_prepend(str(source))
        monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
        monkeypatch.setattr(slicer.modules, "sampleDataSourceCategories", {}, raising=False)
        from MedMAESegmentLib.SampleCases import registerSampleData

        registerSampleData()
        assert [source.sampleName for source in slicer.modules.sampleDataSources["MedMAE"]] == [
            "MedMAEAnnotatedCT", "MedMAENewCT"]
        import SampleData

        new = slicer.modules.sampleDataSources["MedMAE"][1]
        logic = SampleData.SampleDataLogic(lambda *_arguments: None)
        file = logic.downloadFile(new.uris[0], str(tmp_path), new.fileNames[0], new.checksums[0])
        assert Path(file).stat().st_size > 100_000


@pytest.mark.parametrize("path", MODULE_FILES, ids=lambda path: path.name)
def test_texts_that_people_see_can_be_translated(path):
    tree = ast.parse(path.read_text())
    allowed = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            allowed.add(node.body[0].value)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Test"):
            allowed.update(ast.walk(node))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("_", "translate"):
            assert all(isinstance(part, ast.Constant) for part in node.args), "no f-strings: they cannot be looked up"
            allowed.update(node.args)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", None) == "contributors":
            allowed.update(ast.walk(node))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
             and node not in allowed and re.search(r"[A-Za-z]{2,},? [A-Za-z]{2,}", node.value)]
    names = [text for text in texts if re.fullmatch(r"(gl|vis)-mae [\w-]+", text)]  # of presets, the same everywhere
    assert texts == names


def test_importing_the_modules_starts_nothing_writes_nothing_and_asks_nobody():
    ended = subprocess.run([sys.executable, str(Path(__file__).with_name("import_modules.py")), *MODULES],
                           capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["imported", *MODULES]
