"""Projects in the panel: created, opened, renamed, closed; what cannot be opened is explained."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from train_fixtures import choose


def entered(text):
    """What the user enters in the dialog for one line of text."""
    return lambda *_arguments: (text, True)


def names_of(menu):
    menu.aboutToShow.emit()
    return [action.text for action in menu.actions() if not action.isSeparator()]


def test_without_a_project_it_is_told_what_one_is(chooser, picture):
    assert chooser.project is None and chooser.folder == ""
    assert "folder that keeps" in chooser.ui.projectEmptyLabel.text
    assert not chooser.ui.projectMenuButton.isVisibleTo(chooser.parent)
    picture(chooser, "project-empty", 200)


def test_a_new_project_gets_a_name_and_its_own_folder(chooser, answers, tmp_path, picture):
    def fill(dialog):
        assert not dialog.okButton.enabled and dialog.hintLabel.text == "Give the project a name."
        dialog.nameEdit.setText(" Livers: CT? ")
        dialog.placeEdit.setText(str(tmp_path / "projects"))
        assert dialog.okButton.enabled and str(tmp_path / "projects" / "Livers_ CT_") in dialog.hintLabel.text
        return True

    answers.append(fill)
    chooser.ui.projectNewButton.click()
    assert chooser.project.name == "Livers: CT?" and chooser.project.path == tmp_path / "projects" / "Livers_ CT_"
    assert chooser.ui.projectNameLabel.text == "Livers: CT?" and chooser.changes == 1
    assert chooser.folder in chooser.ui.projectFolderLabel.toolTip
    picture(chooser, "project-open", 200)


def test_the_place_of_a_new_project_is_chosen_and_the_dialog_cancelled(chooser, answers, tmp_path, monkeypatch):
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(tmp_path))

    def fill(dialog):
        dialog.nameEdit.setText("Livers")
        dialog.placeButton.click()
        assert dialog.folder == tmp_path / "Livers"
        return False

    answers.append(fill)
    chooser.ui.projectNewButton.click()
    assert chooser.project is None and not (tmp_path / "Livers").exists()


def test_a_new_project_in_the_folder_of_another_is_explained(chooser, livers, answers, picture):
    def fill(dialog):
        dialog.nameEdit.setText("project")
        dialog.placeEdit.setText(str(livers.path.parent))
        return True

    answers.append(fill)
    chooser.ui.projectNewButton.click()
    assert "holds a project already" in chooser.problem and chooser.project is None
    assert chooser.ui.projectProblemFrame.isVisibleTo(chooser.parent)
    assert not chooser.ui.projectAgainButton.isVisibleTo(chooser.parent)
    picture(chooser, "project-taken", 240)


def test_a_project_is_opened_renamed_shown_and_closed(chooser, livers, said, monkeypatch):
    import qt

    shown = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: not shown.append(url.toLocalFile()))
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(livers.path))
    choose(chooser.recentMenu, "Choose a folder...")
    assert chooser.project is livers
    monkeypatch.setattr(qt.QInputDialog, "getText", entered(" Spleens "))
    choose(chooser.menu, "Rename...")
    assert livers.name == chooser.ui.projectNameLabel.text == "Spleens"
    choose(chooser.menu, "Show folder")
    assert shown == [str(livers.path)] and said == []
    choose(chooser.menu, "Close project")
    assert chooser.project is None and not livers.isOpen
    assert names_of(chooser.recentMenu) == ["Choose a folder...", "Spleens"]


def test_what_cannot_be_renamed_or_shown_is_told(chooser, livers, said, monkeypatch):
    import qt

    chooser.folder = str(livers.path)
    shutil.rmtree(livers.path)
    monkeypatch.setattr(qt.QInputDialog, "getText", entered("Spleens"))
    choose(chooser.menu, "Rename...")
    choose(chooser.menu, "Show folder")
    assert "not renamed" in said[0] and "not at" in said[0]
    assert said[1].startswith("The folder cannot be shown") and len(said) == 2


def test_projects_that_were_open_last_are_offered_and_those_that_are_gone_are_marked(
        chooser, train_logic, said, tmp_path):
    for name in ("One", "Two", "A & B"):
        chooser.folder = str(train_logic.createProject(tmp_path / name).path)
    assert names_of(chooser.recentMenu) == ["Choose a folder...", "Two", "One"]  # the third is open
    chooser.folder = ""
    shutil.rmtree(tmp_path / "One")
    assert names_of(chooser.recentMenu) == ["Choose a folder...", "A && B", "Two", "One (not there any more)"]
    choose(chooser.recentMenu, "Two")
    assert chooser.project.name == "Two"
    choose(chooser.recentMenu, "One (not there any more)")
    assert "Take it out of this list?" in said[0] and chooser.project.name == "Two"
    assert names_of(chooser.recentMenu) == ["Choose a folder...", "A && B"]


def test_settings_that_somebody_has_edited_are_no_list_of_projects(chooser, user_settings):
    from MedMAETrainLib.Panel.RecentProjects import SETTING, recentProjects

    for text in ("{", "{}", '[1, ["a"], ["folder", 2]]', ""):
        user_settings().setValue(SETTING, text)
        assert recentProjects() == []
    assert names_of(chooser.recentMenu) == ["Choose a folder..."]


def test_a_damaged_project_is_explained_and_its_backup_restored(chooser, livers, picture):
    livers.addLabel("liver")
    livers.addLabel("spleen")
    livers.close()
    (livers.path / "project.json").write_text("{")
    chooser.folder = str(livers.path)
    assert chooser.project is None and "cannot be read" in chooser.problem and "restore the backup" in chooser.problem
    picture(chooser, "project-damaged", 330)
    chooser.ui.projectRestoreButton.click()
    assert [label.name for label in chooser.project.labels] == ["liver"] and chooser.problem == ""
    assert not chooser.ui.projectProblemFrame.isVisibleTo(chooser.parent)


def test_a_damaged_project_without_a_backup_offers_none(chooser, tmp_path):
    (tmp_path / "project.json").write_text("[]")
    chooser.folder = str(tmp_path)
    assert "no earlier state" in chooser.problem
    assert not chooser.ui.projectRestoreButton.isVisibleTo(chooser.parent)


def test_a_project_that_another_slicer_has_open_is_explained_and_opened_once_it_is_free(chooser, livers, picture):
    livers.close()
    code = ("import sys; from pathlib import Path; from medmae.folder_lock import only_writer\n"
            "with only_writer(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", code, str(livers.path)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert other.stdout.readline().strip() == b"locked"
    chooser.folder = str(livers.path)
    assert "is open already, in another Slicer" in chooser.problem
    chooser.ui.projectAgainButton.click()
    assert chooser.project is None
    picture(chooser, "project-elsewhere", 260)
    other.communicate()
    chooser.ui.projectAgainButton.click()
    assert chooser.project.path == livers.path and chooser.problem == ""


def test_a_folder_without_a_project_leaves_the_open_one_open(chooser, livers, tmp_path, monkeypatch):
    import qt

    chooser.folder = str(livers.path)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(tmp_path))
    choose(chooser.recentMenu, "Choose a folder...")
    assert "holds no project" in chooser.problem and chooser.project is livers and livers.isOpen


def test_another_project_closes_the_one_before(chooser, train_logic, livers, tmp_path):
    chooser.folder = str(livers.path)
    chooser.folder = str(train_logic.createProject(tmp_path / "other").path)
    assert not livers.isOpen and chooser.project.name == "other"
    changes = chooser.changes
    with pytest.raises(ValueError, match="was closed"):
        livers.rename("nobody")
    chooser.project.addLabel("liver")
    assert chooser.changes == changes + 1


def test_a_project_on_another_computer_that_a_scene_names_is_opened_on_request_only(chooser, monkeypatch):
    looked = []
    monkeypatch.setattr(chooser._logic, "openProject", lambda folder, **_: looked.append(folder))
    chooser.folder = r"\\server\share\project"
    assert not looked and "on another computer" in chooser.problem
    assert chooser.ui.projectAgainButton.text == "Open it"
    assert not chooser.ui.projectRestoreButton.isVisibleTo(chooser.parent)


def test_names_with_markup_are_shown_as_they_are(chooser, train_logic, tmp_path):
    import qt

    chooser.folder = str(train_logic.createProject(tmp_path / "p", "<b>x</b>").path)
    for label in (chooser.ui.projectNameLabel, chooser.ui.projectFolderLabel, chooser.ui.projectProblemLabel):
        assert label.textFormat == qt.Qt.PlainText
    assert chooser.ui.projectNameLabel.text == "<b>x</b>"


def test_a_new_project_dialog_runs_until_the_user_closes_it(qt_application, user_settings):
    import qt
    from MedMAETrainLib.Panel.NewProjectDialog import NewProjectDialog

    dialog = NewProjectDialog()
    assert dialog.folder == Path.home() / "MedMAE projects" / "project"
    dialog.nameEdit.setText("x")
    qt.QTimer.singleShot(50, dialog.okButton.click)
    assert dialog.show()
