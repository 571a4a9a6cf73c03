"""A project on disk: whole at any time, told from others, moved, damaged, of the future, in use elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import (
    ROLES,
    STATES,
    CaseSegment,
    ProjectCase,
    ProjectModel,
    ProjectRun,
    Source,
)
from MedMAETrainLib.ProjectDataset import datasetOf
from MedMAETrainLib.ProjectFile import BACKUP_FILE, PROJECT_FILE, ProjectData, described, parsed
from MedMAETrainLib.ProjectFolder import ProjectFolder

from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.volumes.segments import Segment

HOSTILE = ['q"uo\\te', "<b>bold</b>", "a/b", "../up", "ü字", "x" * 300, "rm -rf $HOME; `true`"]
TEXT = st.text(max_size=8)
NAMES = st.text(min_size=1, max_size=8)
SEGMENTS = st.builds(CaseSegment, NAMES, st.none() | NAMES, st.integers(0, 9))
CASES = st.lists(st.builds(
    ProjectCase, st.from_regex(r"[a-z][a-z0-9.-]{0,6}", fullmatch=True), NAMES, NAMES,
    st.builds(Source, st.sampled_from(["scene", "file", "dicom"]), TEXT, TEXT, TEXT, TEXT, TEXT), st.none() | NAMES,
    st.none() | NAMES, st.lists(SEGMENTS, max_size=2).map(tuple), st.sampled_from(ROLES), st.sampled_from(STATES),
    st.none() | NAMES, TEXT, st.booleans(), st.lists(TEXT, max_size=2).map(tuple)), max_size=3,
    unique_by=lambda case: case.id)
PART = st.floats(0, 1)
LABELS = st.lists(st.builds(
    Segment, NAMES, st.integers(1, 99), st.tuples(PART, PART, PART), st.none() | st.just({"type": ["SCT", "1", "x"]})),
    max_size=3, unique_by=(lambda label: label.name, lambda label: label.value))
PROJECTS = st.builds(
    ProjectData, NAMES, NAMES, CASES.map(tuple), LABELS.map(tuple), st.lists(NAMES, max_size=2, unique=True).map(tuple),
    st.lists(st.builds(ProjectRun, NAMES, NAMES, st.lists(NAMES, max_size=2).map(tuple), TEXT, TEXT, st.none() | NAMES),
             max_size=2, unique_by=lambda run: run.id).map(tuple),
    st.lists(st.builds(ProjectModel, NAMES, NAMES), max_size=2).map(tuple))


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "project", "Livers") as project:
        yield project


def image(number, subject=None, **more):
    return ProjectCase(f"case-{number:04d}", subject or f"subject-{number:04d}", f"/images/{number}.nii.gz",
                       Source("file", file=f"/images/{number}.nii.gz"), **more)


@given(PROJECTS)
def test_what_is_written_is_what_is_read(data):
    assert parsed(json.loads(json.dumps(described(data)))) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | TEXT,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["version", "name", "uid", "cases", "labels", "class", "id"]), inner,
                        max_size=4), max_leaves=8))
def test_any_other_json_is_refused_with_words(data):
    with pytest.raises(BadInput):
        parsed({"version": 1, "name": "x", "cases": [], "strange": data})
    with pytest.raises(BadInput):
        parsed([data])


def test_every_change_is_on_disk_when_the_call_returns(project):
    told = []
    project.changed.connect(lambda: told.append(len(project.cases)))
    project.putCases([image(1), image(2)])
    project.setRole("case-0001", "training")
    project.setClass(project.cases[1], "ill")
    label = project.addLabel("liver", (1, 0, 0))
    project.setLabel("liver", name="Leber")
    project.close()
    with Project(project.path) as again:
        assert [case.role for case in again.cases] == ["training", "unlabelled"]
        assert [case.className for case in again.cases] == [None, "ill"] and again.classes == ("ill",)
        assert (again.label("Leber").value, again.label("Leber").color) == (label.value, (1, 0, 0))
    assert told == [2] * 5
    with pytest.raises(ValueError, match="was closed"):
        project.setRole("case-0001", "test")


def test_a_project_in_use_is_not_opened_again(project):
    with pytest.raises(BadInput, match="open already"):
        Project(project.path)
    code = ("import sys; sys.path[:0] = sys.argv[2:]\nfrom MedMAETrainLib.ProjectFolder import ProjectFolder\n"
            "ProjectFolder(sys.argv[1])")
    done = _elsewhere(code, project.path)
    assert done.returncode and "open already" in done.stderr
    project.close()
    assert _elsewhere(code, project.path).returncode == 0


def test_what_another_program_has_written_is_not_overwritten(project):
    project.putCases([image(1)])
    data = json.loads((project.path / PROJECT_FILE).read_text())
    data["name"] = "of somebody else"
    (project.path / PROJECT_FILE).write_text(json.dumps(data))
    with pytest.raises(BadInput, match="changed by another Slicer"):
        project.setRole("case-0001", "training")
    assert json.loads((project.path / PROJECT_FILE).read_text())["name"] == "of somebody else"
    assert project.case("case-0001").role == "unlabelled", "what is not on disk does not hold"


@pytest.mark.parametrize("damage", ["", "{", '{"version": 1}', "[]", '{"version": "1"}', "\0\0\0"])
def test_a_damaged_project_is_explained_and_its_last_state_restored_on_request(project, damage):
    project.putCases([image(1)])
    project.putCases([image(2)])
    project.close()
    (project.path / PROJECT_FILE).write_text(damage)
    with pytest.raises(BadInput, match=r"with 1 cases.*restoreBackup=True"):
        Project(project.path)
    assert (project.path / PROJECT_FILE).read_text() == damage, "looking changes nothing"
    with Project(project.path, restoreBackup=True) as again:
        assert [case.id for case in again.cases] == ["case-0001"]
        assert (project.path / "project.damaged.json").read_text() == damage
        again.putCases([image(3)])


def test_without_a_backup_the_damage_is_told_too(project):
    project.close()
    (project.path / PROJECT_FILE).write_text("{")
    (project.path / BACKUP_FILE).write_text("{")
    with pytest.raises(BadInput, match="no earlier state"):
        Project(project.path)


def test_restoring_a_sound_project_loses_nothing(project):
    project.putCases([image(1)])
    project.close()
    with Project(project.path, restoreBackup=True) as again:
        assert len(again.cases) == 1


@pytest.mark.parametrize("restore", [False, True])
def test_a_project_of_a_newer_version_is_left_alone(project, restore):
    project.putCases([image(1)])
    project.close()
    text = (project.path / PROJECT_FILE).read_text().replace('"version": 1', '"version": 2')
    (project.path / PROJECT_FILE).write_text(text)
    with pytest.raises(BadInput, match="newer MedMAE"):
        Project(project.path, restoreBackup=restore)
    assert (project.path / PROJECT_FILE).read_text() == text


def test_a_folder_without_a_project_is_told(tmp_path):
    with pytest.raises(BadInput, match="holds no project"):
        Project(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        Project(tmp_path / "nowhere")
    Project.create(tmp_path).close()
    with pytest.raises(BadInput, match="holds a project already"):
        Project.create(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="No project can be made"):
        Project.create(tmp_path / "file" / "below")


def test_a_full_or_read_only_disk_leaves_the_state_before(project, monkeypatch):
    project.putCases([image(1)])
    before = (project.path / PROJECT_FILE).read_text()

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedMAETrainLib.ProjectFile.write_json", full)
    with pytest.raises(BadInput, match="No space left on device"):
        project.setRole("case-0001", "training")
    assert project.case("case-0001").role == "unlabelled"
    assert (project.path / PROJECT_FILE).read_text() == before


def test_a_moved_folder_finds_its_files_and_leaves_others_where_they_are(project, tmp_path):
    inside = project.path / "images" / "a.nii.gz"
    assert project.pathOf(inside) == "images/a.nii.gz"
    outside = str(tmp_path / "b.nii.gz")
    assert project.pathOf(outside) == outside
    project.putCases([image(1, subject="one")])
    case = ProjectCase("case-0002", "two", project.pathOf(inside), Source("file"))
    project.putCases([case])
    project.path.rename(tmp_path / "moved")
    with pytest.raises(BadInput, match="not at"):
        project.setRole("case-0001", "training")
    project.close()
    with Project(tmp_path / "moved") as moved:
        assert moved.file(moved.case("case-0002").image) == tmp_path / "moved" / "images" / "a.nii.gz"
        assert moved.file(moved.case("case-0001").image) == Path("/images/1.nii.gz")


@pytest.mark.alone
def test_killed_at_any_moment_a_whole_project_is_left(project):
    """A process adds and changes cases as fast as it can and is killed again and again."""
    project.close()
    code = ("import sys; sys.path[:0] = sys.argv[2:]\nfrom MedMAETrainLib.ProjectFolder import ProjectFolder\n"
            "from MedMAETrainLib.ProjectCase import ProjectCase, Source\n"
            "project = ProjectFolder(sys.argv[1]); print('open', flush=True)\n"
            "while True:\n"
            "    name = next(project.newCaseIds())\n"
            "    project.putCases([ProjectCase(name, name, '/x/' * 40 + name, Source('file'))])\n"
            "    print(name, flush=True)\n")
    count = 0
    for pause in (0.03, 0.11, 0.2):
        process = subprocess.Popen([sys.executable, "-c", code, project.path, *_paths()], stdout=subprocess.PIPE,
                                   text=True)
        assert process.stdout.readline() == "open\n"
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        said = process.stdout.read().split("\n")
        process.wait()
        promised = int(said[-2].removeprefix("case-")) if len(said) > 1 else count
        with ProjectFolder(project.path) as again:  # the lock of the killed one is gone, too
            assert len(again.cases) in (promised, promised + 1), "what was promised is there, and nothing half"
            count = len(again.cases)
    assert count > 3


def test_a_patient_stays_on_one_side_of_the_split(project):
    project.putCases([image(1, "one", role="training"), image(2, "one"), image(3, "three", role="test")])
    with pytest.raises(ValueError, match="one would be in test .case-0001. and in training .case-0002."):
        project.setRole("case-0001", "test")
    assert project.case("case-0001").role == "training"
    project.setRole(["case-0001", "case-0002"], "test")
    project.setSubject("case-0002", "two")
    project.setRole("case-0002", "validation")
    with pytest.raises(ValueError, match="two would be in"):
        project.setSubject("case-0003", "two")
    with pytest.raises(ValueError, match="no case case-0009"):
        project.setRole("case-0009", "test")
    with pytest.raises(ValueError, match="the role 'training set'"):
        project.setRole("case-0001", "training set")


def test_a_removed_case_leaves_its_files_unless_asked_and_its_id_is_not_used_again(project):
    project.putCases([image(1), image(2)])
    for name in ("case-0001", "case-0002"):
        (project.path / "cases" / name).mkdir(parents=True)
    project.removeCases("case-0002")
    assert (project.path / "cases" / "case-0002").is_dir()
    assert next(project.newCaseIds()) == "case-0003"
    project.removeCases("case-0001", deleteFiles=True)
    assert not (project.path / "cases" / "case-0001").exists() and project.cases == ()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(project, name):
    project.rename(name)
    project.addLabel(name)
    project.putCases([image(1, className=name, role="training", label="label.nrrd", state="annotated",
                            segments=(CaseSegment(name, name, 5),)), image(2, className="other", role="training")])
    project.close()
    with Project(project.path) as again:
        assert (again.name, again.labels[0].name, again.classes) == (name, name, (name, "other"))
        again.setLabel(name, color=(0, 0.5, 1))
        assert load_dataset(again.writeDataset()).labels == {"background": 0, name: 1}
        assert load_dataset(again.writeDataset("classification")).labels == {name: 0, "other": 1}
        assert load_dataset(again.writeDataset()).looks[name]["color"] == [0, 0.5, 1]


def test_labels_keep_their_values_whatever_is_done_to_them(project):
    for name in ("liver", "tumour", "vein"):
        project.addLabel(name)
    project.putCases([image(1, segments=(CaseSegment("v", "vein", 4),))])
    project.setLabelOrder(["vein", "liver", "tumour"])
    project.removeLabel("tumour")
    project.setLabel("vein", name="portal vein")
    assert [(label.name, label.value) for label in project.labels] == [("portal vein", 3), ("liver", 1)]
    assert project.case("case-0001").voxels == {"portal vein": 4}
    assert project.addLabel("cyst").value == 4
    for wrong in ("", " ", "Background", "liver"):
        with pytest.raises(ValueError):
            project.addLabel(wrong)
    with pytest.raises(ValueError, match="in use by case-0001"):
        project.removeLabel("portal vein")
    with pytest.raises(ValueError, match="Name every label once"):
        project.setLabelOrder(["liver"])


def test_only_what_a_person_stands_for_is_trained_on(project):
    project.addLabel("liver")
    shown = {"label": "l.nrrd", "segments": (CaseSegment("liver", "liver", 4),)}
    states = ["annotated", "corrected", "predicted", "unannotated"]
    project.putCases([image(number, role="training", state=state, **shown) for number, state in enumerate(states, 1)])
    project.putCases([image(5, role="validation", state="annotated", **shown), image(6, role="test"), image(7)])
    lists = datasetOf(project)
    assert {key: [item["id"][-1] for item in lists[key]] for key in ("training", "validation", "unlabeled")} == {
        "training": ["1", "2"], "validation": ["5"], "unlabeled": ["3", "4", "7"]}
    assert "test" not in lists and "label" not in lists["unlabeled"][0]
    assert [item["id"][-1] for item in datasetOf(project, "pretraining")["unlabeled"]] == ["1", "2", "3", "4", "7"]


def test_a_data_set_that_teaches_nothing_is_refused(project):
    with pytest.raises(ValueError, match="No case of the project can be trained on"):
        project.writeDataset()
    with pytest.raises(ValueError, match="no images"):
        project.writeDataset("pretraining")
    for name in ("liver", "tumour"):
        project.addLabel(name)
    project.putCases([image(1, role="training", state="annotated", label="l.nrrd",
                            segments=(CaseSegment("liver", "liver", 4),))])
    with pytest.raises(ValueError, match="case-0001 has no voxel of tumour"):
        project.writeDataset()
    with pytest.raises(ValueError, match="No case for training shows tumour"):
        project.writeDataset(allowMissing=True)
    project.setClass("case-0001", "ill")
    with pytest.raises(ValueError, match="two classes"):
        project.writeDataset("classification")
    assert not (project.path / "dataset.json").exists()


def _paths() -> list[str]:
    return [str(ROOT), str(ROOT / "MedMAESegment"), str(ROOT / "MedMAETrain")]


def _elsewhere(code: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, folder, *_paths()], capture_output=True, text=True, check=False)
