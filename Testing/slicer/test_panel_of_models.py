"""The part of the panel in which a model is chosen: the list, its order, its search, descriptions and details."""

from __future__ import annotations

import errno
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_fixtures import LIVER, item_of, rows, write_model
from panel_fixtures import model_info

EVIL = "<b onclick='x'>bold</b><img src='/etc/passwd'>"


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


@pytest.mark.alone
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


@pytest.mark.parametrize("told", [
    {"scores": {"test": {"mean_dice": 10**400}}, "training": {"cases": 10**400}}, {"created": "0001-01-01T00:00+14:00"},
    {"scores": {"test": {"mean_dice": 1e300}}}, {"scores": {"test": {"mean_dice": -1, "auc": True}}}])
def test_absurd_figures_are_no_figures(section, home, told):
    write_model(home / "one", **told)
    section.update()
    texts = [item_of(section, "one").text(column) for column in range(1, 4)]
    assert max(map(len, texts)) <= 10 and section.info is not None


@pytest.mark.alone
def test_endless_names_neither_hold_the_panel_nor_widen_it(section, home, qt_application):
    write_model(home / "one", modality="M" * 10**6, licence="L" * 10**6, citation="C" * 10**6,
                scores={"S" * 10**6: {"mean_dice": 0.5}}, training={"dataset": "D" * 10**6, "T" * 10**6: 1},
                labels=[LIVER[0], *({"name": f"{n} " + "N" * 10**5, "value": n} for n in range(1, 20))])
    from MedMAESegmentLib.Panel.ModelComparison import comparison
    from MedMAESegmentLib.Panel.ModelDetails import ModelDetails

    begun = time.perf_counter()
    section.update()
    qt_application.application.processEvents()
    ModelDetails("one", section.info, home / "one", "R" * 200_000).dialog.deleteLater()
    assert time.perf_counter() - begun < 2, "on a busy machine"
    other = model_info("other", labels=[LIVER[0], *({"name": f"{n}", "value": n} for n in range(1, 10_000))])
    assert len(comparison(section.info, other)) < 5000
    assert section.ui.modelTree.parentWidget().minimumSizeHint.width() <= 380


@pytest.mark.parametrize("fault", ["a number of 5000 digits", "unreadable"])
def test_one_bad_model_does_not_hide_the_others(section, models, monkeypatch, fault):
    (models / "Broken").mkdir()
    (models / "Broken" / "model.json").write_text('{"name": ' + "1" * 5000 + "}")
    if fault == "unreadable":
        is_file = Path.is_file

        def refuse(path):
            if path.parent.name == "Broken":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return is_file(path)

        monkeypatch.setattr(Path, "is_file", refuse)  # the tests may run as somebody who may read everything
    section.update()
    assert rows(section) == ["A new one", "Broken", "\u00c9ponge pulmonaire", "Liver CT"]
    section.name = "Broken"
    assert section.ui.modelDescriptionLabel.text.startswith("This model is damaged.")
