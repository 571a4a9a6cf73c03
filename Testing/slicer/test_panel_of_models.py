"""The part of the panel in which a model is chosen and models are managed, on a registry of its own."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panel_fixtures import NEEDS_SOURCE, model_info

pytestmark = NEEDS_SOURCE
LIVER = [{"name": "background", "value": 0}, {"name": "liver", "value": 1, "color": [0.9, 0.3, 0.2], "terminology": {
    "category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "10200004", "Liver"]}}]
FINDINGS = [{"name": "normal", "value": 0}, {"name": "pneumonia", "value": 1}]
EVIL = "<b onclick='x'>bold</b><img src='/etc/passwd'>"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty registry; the folder of its models."""
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


def write_model(folder, weights=b"weights", preview=None, **more):
    """A model folder that is verified as real ones are; only loading its weights would fail."""
    from medmae.config import to_json
    from medmae.files import write_json

    described = {"name": folder.name, "labels": LIVER, "created": "2026-11-20T10:00:00+00:00",
                 "training": {"cases": 12, "dataset": "made"}, "scores": {"validation": {"mean_dice": 0.912}}} | more
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "README.md").write_text(f"# {described['name']}\nfrom hospital A")
    if preview is not None:
        (folder / "preview.png").write_bytes(preview)
    write_json(folder / "model.json", to_json(model_info(
        **described, weights_sha256=hashlib.sha256(weights).hexdigest())))
    return folder


@pytest.fixture
def models(home):
    """Three models for users and an encoder."""
    write_model(home / "Liver CT", preview=a_picture())
    write_model(home / "Éponge pulmonaire", labels=FINDINGS, task="classification", scores={
        "validation": {"auc": 0.5}, "cross_validation": {"auc": 0.871}}, training={"cases": 40},
        created="2025-01-02T00:00:00+00:00")
    write_model(home / "A new one", scores={}, training={}, created="", labels=[
        {"name": "background", "value": 0},
        *({"name": f"structure with a long name {n}", "value": n} for n in range(1, 8))])
    write_model(home / "encoder", task="encoder", labels=[])
    return home


def a_picture(side=64):
    """A picture with a coloured patch."""
    import qt

    image = qt.QImage(side, side, qt.QImage.Format_RGB32)
    image.fill(qt.QColor(60, 60, 60))
    for row in range(side // 4, side // 2):
        for column in range(side // 4, side // 2):
            image.setPixelColor(row, column, qt.QColor(230, 80, 50))
    data = qt.QByteArray()
    buffer = qt.QBuffer(data)
    buffer.open(qt.QIODevice.WriteOnly)
    image.save(buffer, "PNG")
    return bytes(data)


@pytest.fixture
def section(qt_application, home, monkeypatch):
    """The section in a widget of the panel's width; `says` are the texts of messages, `answers` what is answered."""
    import qt
    import slicer
    from MedMAESegmentLib.ModelShelf import ModelShelf
    from MedMAESegmentLib.Panel.ModelSection import ModelSection

    qt_application.completeSlicerApp()
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    section = ModelSection(parent, ModelShelf())
    parent.resize(420, 360)
    parent.show()
    section.parent, section.says, section.confirms, section.heard = parent, [], True, []
    section.chosen.connect(section.heard.append)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    for name in ("errorDisplay", "infoDisplay", "confirmOkCancelDisplay"):
        monkeypatch.setattr(slicer.util, name, _display(section, qt))
    yield section
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


def _display(section, qt):
    def display(text, textFormat):
        assert textFormat == qt.Qt.PlainText, "names of strangers are not HTML"
        section.says.append(text)
        return section.confirms

    return display


@pytest.fixture
def answer(monkeypatch):
    """Let the dialogs for files, folders and names answer: answer(file=..., folder=..., target=..., name=...)."""
    import qt

    def set_them(file="", folder="", target="", name=""):
        monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_arguments: (str(file), ""))
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: (str(target), ""))
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(folder))
        monkeypatch.setattr(qt.QInputDialog, "getText",
                            lambda *arguments: (name(arguments[-1]) if callable(name) else name, bool(name)))

    set_them()
    monkeypatch.setattr(qt.QInputDialog, "getItem", lambda *arguments: (arguments[3][0], True))
    return set_them


def rows(section):
    """The names of the rows that are seen, in their order."""
    tree = section.ui.modelTree
    items = [tree.topLevelItem(index) for index in range(tree.topLevelItemCount)]
    return [item.text(0).split("\n")[0] for item in items if not item.isHidden()]


def item_of(section, name):
    tree = section.ui.modelTree
    return next(item for item in map(tree.topLevelItem, range(tree.topLevelItemCount))
                if item.text(0).split("\n")[0] == name)


def zipped(folder, target):
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return target


# What is shown


def test_without_models_it_says_what_to_do(section):
    section.update()
    assert section.ui.modelEmptyLabel.visible and not section.ui.modelTree.visible
    assert "No models yet. Import" in section.ui.modelEmptyLabel.text
    assert section.name == "" and section.info is None and section.folder is None
    assert not section.ui.modelDetailsButton.enabled
    assert not section.manager.exportAction.enabled and not section.manager.removeAction.enabled
    assert section.manager.importFileAction.enabled and section.ui.modelManageButton.enabled


def test_models_that_segment_or_classify_are_listed_with_what_one_judges_them_by(section, models):
    section.update()
    assert rows(section) == ["A new one", "Éponge pulmonaire", "Liver CT"]
    texts = [item_of(section, "Liver CT").text(column) for column in range(4)]
    assert texts == ["Liver CT\nCT: liver", "0.91\nDice", "12", "2026-11-20"]
    texts = [item_of(section, "Éponge pulmonaire").text(column) for column in range(4)]
    assert texts == ["Éponge pulmonaire\nCT: normal, pneumonia", "0.87\nAUC", "40", "2025-01-02"]
    assert [item_of(section, "A new one").text(column) for column in range(1, 4)] == ["", "", ""]
    assert set(section.models) == {"A new one", "Éponge pulmonaire", "Liver CT"}


def test_the_first_model_is_chosen_and_described_where_none_was(section, models):
    section.update()
    assert section.name == "A new one" and section.info is section.models["A new one"]
    assert section.heard == ["A new one"]
    assert "No score yet." in section.ui.modelDescriptionLabel.text


def test_the_chosen_model_is_described_with_its_picture(section, models):
    section.name = "Liver CT"
    section.update()
    assert section.ui.modelNameLabel.text == "Liver CT"
    assert section.ui.modelDescriptionLabel.text == (
        "Segments liver.\nCT, 3-D, 12 training cases, 2026-11-20\nDice 0.912 (validation cases)")
    assert section.ui.modelPreviewLabel.pixmap.width() >= 96
    section.name = "Éponge pulmonaire"
    assert "Tells apart: normal, pneumonia." in section.ui.modelDescriptionLabel.text
    assert "AUC 0.871 (cross-validation)" in section.ui.modelDescriptionLabel.text
    assert section.ui.modelPreviewLabel.text == "No picture"


@pytest.mark.parametrize("content", [
    b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2])
def test_a_picture_that_is_none_or_enormous_is_left_out(section, home, content):
    write_model(home / "one", preview=content)
    section.update()
    assert section.ui.modelPreviewLabel.text == "No picture"


@pytest.mark.parametrize(("search", "found"), [
    ("LIVER", ["Liver CT"]), ("eponge", ["Éponge pulmonaire"]), ("ponge normal", ["Éponge pulmonaire"]),
    ("ct liver", ["Liver CT"]), ("tomography", ["A new one", "Éponge pulmonaire", "Liver CT"]),
    ("classification", ["Éponge pulmonaire"]), ("liver pneumonia", []), ("10200004", ["Liver CT"]),
    ("  ", ["A new one", "Éponge pulmonaire", "Liver CT"])])
def test_a_search_finds_models_that_have_every_word(section, models, search, found):
    section.update()
    section.ui.modelSearchEdit.text = search
    assert rows(section) == found
    assert section.ui.modelEmptyLabel.visible == (not found)
    if not found:
        assert section.ui.modelEmptyLabel.text == "No model has all of these words."
    assert section.name == "A new one", "searching chooses nothing"


def test_a_row_that_is_clicked_is_chosen(section, models):
    section.update()
    section.ui.modelTree.setCurrentItem(item_of(section, "Liver CT"))
    assert section.name == "Liver CT" and section.heard == ["A new one", "Liver CT"]


def test_a_click_on_a_column_sorts_by_it_and_a_second_one_turns_it_round(section, models):
    section.update()
    header = section.ui.modelTree.header()
    orders = {}
    for column in (0, 1, 2, 3):
        header.sectionClicked.emit(column)
        first = rows(section)
        header.sectionClicked.emit(column)
        orders[column] = (first, rows(section))
    assert orders[1] == (["Liver CT", "Éponge pulmonaire", "A new one"], ["Éponge pulmonaire", "Liver CT", "A new one"])
    assert orders[2] == (["Éponge pulmonaire", "Liver CT", "A new one"], ["Liver CT", "Éponge pulmonaire", "A new one"])
    assert orders[3] == orders[1], "newest first"
    assert orders[0] == (["Liver CT", "Éponge pulmonaire", "A new one"], ["A new one", "Éponge pulmonaire", "Liver CT"])
    assert section.name == "A new one" and section.ui.modelTree.selectedItems()[0].text(0).startswith("A new one")


def test_a_choice_is_kept_when_the_list_changes_from_outside(section, models):
    section.update()
    section.name = "Liver CT"
    write_model(models / "Another")
    section.manager.refreshAction.trigger()
    assert section.name == "Liver CT" and "Another" in rows(section)
    assert section.heard == ["A new one", "Liver CT"]


def test_a_chosen_model_that_is_gone_is_said_and_no_other_one_takes_its_place(section, models):
    section.update()
    section.name = "Liver CT"
    shutil.rmtree(models / "Liver CT")
    section.update()
    assert section.name == "Liver CT" and section.info is None and section.heard[-1] == "Liver CT"
    assert "not installed on this computer" in section.ui.modelDescriptionLabel.text
    assert not section.ui.modelTree.selectedItems() and not section.ui.modelDetailsButton.enabled
    write_model(models / "Liver CT")
    section.update()
    assert section.info is not None and section.heard[-1] == "Liver CT"


def test_a_model_that_was_replaced_from_outside_is_told_as_a_change(section, models):
    section.name = "Liver CT"
    section.update()
    heard = len(section.heard)
    shutil.rmtree(models / "Liver CT")
    write_model(models / "Liver CT", training={"cases": 99})
    section.update()
    assert section.heard[heard:] == ["Liver CT"] and section.info.training["cases"] == 99
    assert item_of(section, "Liver CT").text(2) == "99"


@pytest.mark.parametrize("fault", ["no JSON", "empty folder"])
def test_a_damaged_model_is_listed_with_the_reason_and_can_be_removed(section, models, fault):
    (models / "Broken").mkdir()
    if fault == "no JSON":
        (models / "Broken" / "model.json").write_text("{")
    section.update()
    assert "Broken" in rows(section) and "Broken" not in section.models
    section.ui.modelTree.setCurrentItem(item_of(section, "Broken"))
    assert section.name == "Broken" and section.info is None
    assert "This model is damaged." in section.ui.modelDescriptionLabel.text
    assert not section.manager.exportAction.enabled
    section.manager.removeAction.trigger()
    assert not (models / "Broken").exists() and section.name == "A new one"


def test_a_registry_that_cannot_be_read_is_said(section, models, monkeypatch):
    import medmae.models

    def refuse():
        raise PermissionError(errno.EACCES, "Permission denied", str(models))

    monkeypatch.setattr(medmae.models, "survey_models", refuse)
    section.update()
    assert "cannot be read" in section.ui.modelEmptyLabel.text and section.ui.modelEmptyLabel.visible


def test_names_of_strangers_are_shown_as_they_are(section, home, qt_application):
    import qt

    folder = write_model(home / "one", labels=[LIVER[0], {"name": EVIL, "value": 1}], citation=EVIL, licence=EVIL,
                         training={"dataset": EVIL, EVIL: EVIL}, scores={EVIL: {EVIL: 0.5, "mean_dice": 0.5}},
                         created=EVIL, modality=EVIL)
    section.update()
    from MedMAESegmentLib.Panel.ModelDetails import ModelDetails

    item = item_of(section, "one")
    for column in range(4):
        document = qt.QTextDocument()
        document.setHtml(item.toolTip(column))
        assert EVIL in document.toPlainText()
    for label in (section.ui.modelDescriptionLabel, section.ui.modelNameLabel, section.ui.modelEmptyLabel):
        assert label.textFormat == qt.Qt.PlainText
    details = ModelDetails("one", section.info, folder, EVIL)
    assert details.text.toPlainText().count(EVIL) >= 6 and details.readme.toPlainText() == EVIL
    details.dialog.deleteLater()


def any_json():
    keys = st.sampled_from(["cases", "validation", "mean_dice", "auc", "ranges", "type", "selected_on", "x"])
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
    return st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        keys, inner, max_size=4)), max_leaves=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(training=st.dictionaries(st.sampled_from(["cases", "ranges", "dataset"]), any_json()),
       scores=st.dictionaries(st.sampled_from(["validation", "cross_validation", "x"]), any_json()),
       terminology=any_json(), modality=any_json(), created=st.text(max_size=30), isSegmentation=st.booleans())
def test_whatever_a_model_says_of_itself_can_be_shown(
        qt_application, training, scores, terminology, modality, created, isSegmentation):
    from MedMAESegmentLib.Panel import ModelFacts
    from MedMAESegmentLib.Panel.ModelComparison import comparison
    from MedMAESegmentLib.Panel.ModelDetails import detailsHtml

    info = model_info("x", labels=[{"name": "a", "value": 0}, {"name": "b", "value": 1, "terminology": terminology}],
                      training=training, scores=scores, created=created,
                      task="segmentation" if isSegmentation else "classification")
    info.channels[0]["modality"] = modality
    assert ModelFacts.description(info) and ModelFacts.searchText("x", info) and detailsHtml("x", info, Path("/x"))
    assert comparison(info, info)


def test_two_hundred_models_are_listed_searched_and_sorted_quickly(section, home):
    ranges = {"ranges": {name: [[float(n) for n in range(9)]] * 2 for name in "abcdef"}}
    labels = [LIVER[0], *({"name": f"structure {n}", "value": n} for n in range(1, 30))]
    for number in range(200):
        write_model(home / f"model {number}", training={"cases": number} | ranges, labels=labels)
    begun = time.perf_counter()
    section.update()
    listed = time.perf_counter() - begun
    section.ui.modelSearchEdit.text = "structure 29 199"
    searched = time.perf_counter() - begun - listed
    section.update()
    again = time.perf_counter() - begun - listed - searched
    print(f"200 models: listed in {listed:.3f} s, searched in {searched:.3f} s, listed again in {again:.3f} s")
    assert rows(section) == ["model 199"]
    assert listed < 2 and searched < 0.3 and again < 0.3, "on a busy machine"


# Details


def test_the_details_tell_everything_and_can_be_copied(section, models, qt_application, monkeypatch):
    import qt
    import slicer

    ranges = {"spacing_mm": [[1.0, 1, 1], [3.0, 1, 1]], "percentiles": [{"0.5": [-1000.0, -900.0], "99.5": [4, 5.25]}]}
    write_model(models / "Cited", citation="Somebody, 2026", licence="CC BY 4.0",
                training={"cases": 3, "ranges": ranges},
                scores={"validation": {"mean_dice": 0.5, "dice": {"liver": 0.51234}}})
    monkeypatch.setattr(slicer.app, "clipboard", qt.QApplication.clipboard, raising=False)
    section.update()
    section.name = "Cited"
    seen = {}

    def look():
        dialog = qt.QApplication.activeModalWidget()
        seen["text"] = dialog.findChild(qt.QTextBrowser).toPlainText()
        seen["readme"] = dialog.findChild(qt.QPlainTextEdit).toPlainText()
        copy, close = [next(button for button in dialog.findChildren(qt.QPushButton) if button.text == text)
                       for text in ("Copy citation", "Close")]
        copy.click()
        close.click()

    qt.QTimer.singleShot(50, look)
    section.ui.modelDetailsButton.click()
    for part in ("liver", "Liver (SCT 10200004)", "spacing mm", "1, 1, 1 to 3, 1, 1", "percentiles, 0.5 %",
                 "-1000 to -900", "4 to 5.25", "name unetr, arguments (channels 1, classes 2)", "dice: liver",
                 "0.5123", "CC BY 4.0", "Somebody, 2026", "unetr", section.info.weights_sha256,
                 str(models / "Cited"), "48 x 48 x 48", "RAS", "Dice 0.500"):
        assert part in seen["text"], part
    assert "from hospital A" in seen["readme"]
    assert qt.QApplication.clipboard().text() == "Somebody, 2026"


# Bringing models in and out


def test_a_file_from_a_colleague_is_imported_and_chosen(section, models, answer, tmp_path):
    write_model(tmp_path / "Spleen")
    answer(file=zipped(tmp_path / "Spleen", tmp_path / "spleen.zip"))
    section.update()
    section.manager.importFileAction.trigger()
    assert section.says == [] and section.name == "Spleen" and section.info.labels[1]["name"] == "liver"
    assert section.ui.modelTree.selectedItems()[0].text(0).startswith("Spleen")
    assert not section.ui.modelBusyLabel.visible and section.ui.modelManageButton.enabled


@pytest.mark.parametrize("kind", ["model", "run", "file of a model"])
def test_a_folder_is_imported(section, home, answer, tmp_path, kind):
    folder = write_model(tmp_path / "run" / "model", name="Spleen")
    if kind == "file of a model":
        answer(file=folder / "model.json")
        section.manager.importFileAction.trigger()
    else:
        answer(folder=folder if kind == "model" else folder.parent)
        section.manager.importFolderAction.trigger()
    assert section.says == [] and section.name == "Spleen" and (home / "Spleen" / "model.json").is_file()


def test_a_name_that_no_folder_can_have_is_changed(section, home, answer, tmp_path):
    write_model(tmp_path / "m", name="../liver: CT/MR? ")
    answer(folder=tmp_path / "m")
    section.manager.importFolderAction.trigger()
    assert section.name == "_liver_ CT_MR_"
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == [section.name]


def test_an_encoder_is_imported_and_said_to_be_for_training(section, models, answer, tmp_path):
    write_model(tmp_path / "pretrained", task="encoder", labels=[])
    answer(folder=tmp_path / "pretrained")
    section.update()
    section.manager.importFolderAction.trigger()
    assert (models / "pretrained").is_dir() and section.name == "A new one"
    assert "pretrained encoder" in section.says[0]


def test_a_name_that_is_taken_gets_another_one_unless_the_user_wants_to_replace(section, models, answer, tmp_path):
    write_model(tmp_path / "Liver CT", training={"cases": 30}, created="2026-11-21T10:00:00+00:00", weights=b"new")
    section.update()
    answer(folder=tmp_path / "Liver CT", name=lambda proposal: proposal)
    section.manager.importFolderAction.trigger()
    assert section.name == "Liver CT 2" and section.models["Liver CT"].training["cases"] == 12
    answer(folder=tmp_path / "Liver CT")
    section.manager.importFolderAction.trigger()
    assert set(rows(section)) == {"A new one", "Liver CT", "Liver CT 2", "Éponge pulmonaire"}, "cancelled"
    answer(folder=tmp_path / "Liver CT", name="Liver CT")
    section.confirms = False
    section.manager.importFolderAction.trigger()
    assert section.models["Liver CT"].training["cases"] == 12
    section.confirms = True
    section.manager.importFolderAction.trigger()
    assert "Replace the installed model Liver CT?" in section.says[-1]
    assert section.name == "Liver CT" and section.info.training["cases"] == 30


@pytest.mark.parametrize(("content", "reason"), [
    (b"no zip", "neither a model folder nor a zip"), (b"", "neither a model folder nor a zip"),
    ("other zip", "holds 0 models"), ("cut", "zip"), ("flipped", "damaged"), ("wrong weights", "SHA-256")])
def test_a_file_that_is_no_model_is_explained_and_changes_nothing(section, models, answer, tmp_path, content, reason):
    file = tmp_path / "file.zip"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "other zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme.txt", "x")
    else:
        write_model(tmp_path / "Spleen", weights=bytes(1000))
        if content == "wrong weights":
            (tmp_path / "Spleen" / "weights.safetensors").write_bytes(b"other")
        data = bytearray(zipped(tmp_path / "Spleen", file).read_bytes())
        if content == "cut":
            data = data[:len(data) // 2]
        elif content == "flipped":
            data[data.index(bytes(500))] = 1
        file.write_bytes(data)
    answer(file=file)
    section.update()
    before = rows(section)
    section.manager.importFileAction.trigger()
    assert section.says[0].startswith("The model was not imported.") and reason in section.says[0]
    assert rows(section) == before and section.name == "A new one" and section.ui.modelManageButton.enabled
    assert not [path for path in models.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("error", "reason"), [
    (OSError(errno.ENOSPC, "No space left on device", "/there"), "The disk is full. Make room"),
    (PermissionError(errno.EACCES, "Permission denied", "/there"), "no permission to read or write /there"),
    (OSError(errno.EIO, "Input/output error", "/there"), "Input/output error")])
def test_a_full_disk_or_a_missing_permission_is_explained(
        section, models, answer, tmp_path, monkeypatch, error, reason):
    write_model(tmp_path / "Spleen")
    answer(folder=tmp_path / "Spleen", target=tmp_path / "out.zip")

    def fail(*_arguments, **_more):
        raise error

    section.update()
    monkeypatch.setattr(shutil, "copyfile", fail)
    section.manager.importFolderAction.trigger()
    monkeypatch.setattr(zipfile.ZipFile, "write", fail)
    section.manager.exportAction.trigger()
    assert len(section.says) == 2 and all(reason in text for text in section.says)
    assert "Spleen" not in rows(section) and not (tmp_path / "out.zip").exists()
    assert section.ui.modelManageButton.enabled


def test_what_changes_is_told_before_a_model_is_updated(section, models, answer, tmp_path):
    write_model(tmp_path / "newer", weights=b"new", created="2026-11-22T10:00:00+00:00", training={"cases": 30},
                scores={"validation": {"mean_dice": 0.95}}, labels=[*LIVER, {"name": "spleen", "value": 2}])
    answer(file=zipped(tmp_path / "newer", tmp_path / "newer.zip"))
    section.update()
    section.name = "Liver CT"
    section.confirms = False
    section.manager.updateAction.trigger()
    assert section.says == ["\n".join([
        "Replace the model Liver CT by the one in the file?", "", "Date: 2026-11-20, then 2026-11-22",
        "Training cases: 12, then 30",
        "Score: Dice 0.912 (validation cases), then Dice 0.950 (validation cases)", "Modality: CT", "Structures: 2",
        "New: spleen"])]
    assert section.info.training["cases"] == 12
    section.confirms = True
    section.manager.updateAction.trigger()
    assert section.name == "Liver CT" and section.info.training["cases"] == 30
    assert [label["name"] for label in section.info.labels[1:]] == ["liver", "spleen"]
    section.manager.updateAction.trigger()
    assert "Both are the same" in section.says[-1]


def test_an_older_version_is_noticed_and_a_model_of_another_kind_is_refused(section, models, answer, tmp_path):
    write_model(tmp_path / "older", weights=b"old", created="2020-01-01T00:00:00+00:00", labels=[
        LIVER[0], {"name": "kidney", "value": 1}])
    answer(file=zipped(tmp_path / "older", tmp_path / "older.zip"))
    section.update()
    section.name = "Liver CT"
    section.manager.updateAction.trigger()
    assert "older than the installed one" in section.says[0] and "No longer there: liver" in section.says[0]
    section.name = "Éponge pulmonaire"
    section.manager.updateAction.trigger()
    assert "Import it as a model of its own" in section.says[1]
    assert section.info.task == "classification"


def test_an_exported_model_comes_back_as_it_was(section, models, answer, tmp_path):
    section.name = "Liver CT"
    section.update()
    answer(target=tmp_path / "for you")
    section.manager.exportAction.trigger()
    assert section.says == [] and zipfile.is_zipfile(tmp_path / "for you.zip")
    exported = section.info
    section.confirms = False
    section.manager.exportAction.trigger()
    assert section.says == [f"Replace the file {tmp_path / 'for you.zip'}?"]
    section.confirms = True
    section.manager.removeAction.trigger()
    answer(file=tmp_path / "for you.zip")
    section.manager.importFileAction.trigger()
    assert section.name == "Liver CT" and section.info == exported
    assert (models / "Liver CT" / "preview.png").is_file()


def test_a_model_is_removed_only_when_the_user_agrees(section, models):
    section.name = "Liver CT"
    section.update()
    section.confirms = False
    section.manager.removeAction.trigger()
    assert "Remove the model Liver CT" in section.says[0] and (models / "Liver CT").is_dir()
    section.confirms = True
    section.manager.removeAction.trigger()
    assert not (models / "Liver CT").exists() and section.name == "A new one"
    assert rows(section) == ["A new one", "Éponge pulmonaire"]


def test_a_model_that_something_holds_on_to_stays_whole(section, models, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    section.name = "Liver CT"
    section.update()
    monkeypatch.setattr(type(models), "rename", refuse)
    section.manager.removeAction.trigger()
    assert "The model was not removed." in section.says[-1] and "no permission" in section.says[-1]
    assert section.name == "Liver CT" and "Liver CT" in rows(section)
    assert (models / "Liver CT" / "weights.safetensors").is_file()


def test_while_something_is_computed_models_are_neither_removed_nor_replaced(section, models, answer, tmp_path):
    write_model(tmp_path / "Liver CT", weights=b"new")
    answer(file=zipped(tmp_path / "Liver CT", tmp_path / "newer.zip"), name="Liver CT")
    section.name = "Liver CT"
    section.update()
    before = section.info
    section.isIdle = lambda: False
    for action in (section.manager.removeAction, section.manager.updateAction, section.manager.importFileAction):
        action.trigger()
        assert "computation is under way" in section.says[-1]
    assert section.name == "Liver CT" and section.info == before
    answer(file=tmp_path / "newer.zip", name="Another")
    section.manager.importFileAction.trigger()
    assert section.name == "Another", "a new one is in nobody's way"


def test_the_folder_of_the_chosen_model_is_shown(section, models, monkeypatch):
    import qt

    shown = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: bool(shown.append(url.toLocalFile())) or True)
    section.name = "Liver CT"
    section.update()
    section.manager.folderAction.trigger()
    section.manager.removeAction.trigger()
    section.name = "gone"
    section.manager.folderAction.trigger()
    assert shown == [str(models / "Liver CT"), str(models)]
    shutil.rmtree(models)
    section.manager.folderAction.trigger()
    assert "cannot be shown" in section.says[-1]


def test_cancelled_dialogs_change_nothing(section, models, answer):
    section.update()
    for action in (section.manager.importFileAction, section.manager.importFolderAction, section.manager.updateAction,
                   section.manager.exportAction):
        action.trigger()
    assert section.says == [] and rows(section) == ["A new one", "Éponge pulmonaire", "Liver CT"]


def test_the_application_stays_alive_while_a_large_file_is_copied(section, models, answer, tmp_path, monkeypatch,
                                                                  qt_application):
    import qt

    write_model(tmp_path / "Spleen")
    answer(folder=tmp_path / "Spleen")
    copy = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: (time.sleep(0.5), copy(*paths))[1])
    section.update()
    seen = []
    timer = qt.QTimer()
    timer.timeout.connect(lambda: seen.append((time.monotonic(), section.ui.modelBusyLabel.text,
                                               section.ui.modelManageButton.enabled)))
    timer.start(10)
    section.manager.importFolderAction.trigger()
    timer.stop()
    busy = [moment for moment, text, isEnabled in seen if text == "Importing Spleen…" and not isEnabled]
    assert len(busy) > 20 and section.name == "Spleen"
    gaps = sorted(after - before for before, after in zip(busy, busy[1:], strict=False))
    assert gaps[-3] < 0.1, "single longer ones are those of a busy machine"


def test_an_official_checkpoint_is_imported_and_what_was_loaded_is_told(section, models, answer, tmp_path):
    checkpoint(tmp_path / "checkpoint-best.pth", "segmentation")
    answer(file=tmp_path / "checkpoint-best.pth", name="Organs")
    section.update()
    section.manager.importFileAction.trigger()
    assert section.says and section.says[0].startswith("Imported Organs: segmentation, segmentation.")
    assert "tensors loaded" in section.says[0] and "Licence: Not stated by the authors" in section.says[0]
    assert section.name == "Organs" and section.info.method == "vis-mae" and len(section.info.labels) == 3
    assert section.ui.modelPreviewLabel.text == "No picture"


def test_weights_get_a_name_that_is_free(section, models, answer, tmp_path, monkeypatch):
    names = iter(["Liver CT", "Liver/CT", ""])
    answer(file=tmp_path / "weights.pth", name=lambda _proposal: next(names))
    section.update()
    asked = []
    monkeypatch.setattr(section.manager._logic, "importCheckpoint", lambda *arguments: asked.append(arguments) or {})
    section.manager.importFileAction.trigger()
    assert asked == [(tmp_path / "weights.pth", "vis-mae", "Liver_CT")]
    section.manager.importFileAction.trigger()
    assert len(asked) == 1, "cancelled"


def test_a_checkpoint_of_something_else_is_refused_with_the_reason(section, models, answer, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    answer(file=tmp_path / "weights.pt", name="Organs")
    section.update()
    before = rows(section)
    section.manager.importFileAction.trigger()
    assert section.says[0].startswith("The weights were not imported.") and "weights.pt" in section.says[0]
    assert "Traceback" not in section.says[0] and rows(section) == before


def checkpoint(path, kind):
    """What the code of VIS-MAE saves, of a small network; written by another process: this one has no torch."""
    code = ("import sys; from pathlib import Path; from official_vis_mae import OfficialNet, write_checkpoint;"
            "write_checkpoint(Path(sys.argv[1]), OfficialNet(sys.argv[2], channels=3, width=8, depths=(1, 2), "
            "heads=(1, 2), window=3, image=32, classes=3))")
    unit = Path(__file__).resolve().parents[1] / "unit"
    subprocess.run([sys.executable, "-c", code, str(path), kind], check=True, cwd=unit)
