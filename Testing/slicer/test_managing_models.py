"""Bringing models in and out with the panel: files, folders, official weights, newer versions, and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from model_fixtures import LIVER, rows, write_model


def zipped(folder, target):
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return target


def checkpoint(path, kind):
    """What the code of VIS-MAE saves, of a small network; written by another process: this one has no torch."""
    code = ("import sys; from pathlib import Path; from official_vis_mae import OfficialNet, write_checkpoint;"
            "write_checkpoint(Path(sys.argv[1]), OfficialNet(sys.argv[2], channels=3, width=8, depths=(1, 2), "
            "heads=(1, 2), window=3, image=32, classes=3))")
    unit = Path(__file__).resolve().parents[1] / "unit"
    subprocess.run([sys.executable, "-c", code, str(path), kind], check=True, cwd=unit)


def test_a_file_from_a_colleague_is_imported_and_chosen(section, models, answering, tmp_path):
    write_model(tmp_path / "Spleen")
    answering(file=zipped(tmp_path / "Spleen", tmp_path / "spleen.zip"))
    section.update()
    section.manager.importFileAction.trigger()
    assert section.says == [] and section.name == "Spleen" and section.info.labels[1]["name"] == "liver"
    assert section.ui.modelTree.selectedItems()[0].text(0).startswith("Spleen")
    assert not section.ui.modelBusyLabel.visible and section.ui.modelManageButton.enabled


@pytest.mark.parametrize("kind", ["model", "run", "file of a model"])
def test_a_folder_is_imported(section, home, answering, tmp_path, kind):
    folder = write_model(tmp_path / "run" / "model", name="Spleen")
    if kind == "file of a model":
        answering(file=folder / "model.json")
        section.manager.importFileAction.trigger()
    else:
        answering(folder=folder if kind == "model" else folder.parent)
        section.manager.importFolderAction.trigger()
    assert section.says == [] and section.name == "Spleen" and (home / "Spleen" / "model.json").is_file()


def test_a_name_that_no_folder_can_have_is_changed(section, home, answering, tmp_path):
    write_model(tmp_path / "m", name="../liver: CT/MR? ")
    answering(folder=tmp_path / "m")
    section.manager.importFolderAction.trigger()
    assert section.name == "_liver_ CT_MR_"
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == [section.name]


def test_an_encoder_is_imported_and_said_to_be_for_training(section, models, answering, tmp_path):
    write_model(tmp_path / "pretrained", task="encoder", labels=[])
    answering(folder=tmp_path / "pretrained")
    section.update()
    section.manager.importFolderAction.trigger()
    assert (models / "pretrained").is_dir() and section.name == "A new one"
    assert "pretrained encoder" in section.says[0]


def test_a_name_that_is_taken_gets_another_one_unless_the_user_wants_to_replace(section, models, answering, tmp_path):
    write_model(tmp_path / "Liver CT", training={"cases": 30}, created="2026-11-21T10:00:00+00:00", weights=b"new")
    section.update()
    answering(folder=tmp_path / "Liver CT", name=lambda proposal: proposal)
    section.manager.importFolderAction.trigger()
    assert section.name == "Liver CT 2" and section.models["Liver CT"].training["cases"] == 12
    answering(folder=tmp_path / "Liver CT")
    section.manager.importFolderAction.trigger()
    assert set(rows(section)) == {"A new one", "Liver CT", "Liver CT 2", "Éponge pulmonaire"}, "cancelled"
    answering(folder=tmp_path / "Liver CT", name="Liver CT")
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
def test_a_file_that_is_no_model_is_explained_and_changes_nothing(
        section, models, answering, tmp_path, content, reason):
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
    answering(file=file)
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
        section, models, answering, tmp_path, monkeypatch, error, reason):
    write_model(tmp_path / "Spleen")
    answering(folder=tmp_path / "Spleen", target=tmp_path / "out.zip")

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


def test_what_changes_is_told_before_a_model_is_updated(section, models, answering, tmp_path):
    write_model(tmp_path / "newer", weights=b"new", created="2026-11-22T10:00:00+00:00", training={"cases": 30},
                scores={"validation": {"mean_dice": 0.95}}, labels=[*LIVER, {"name": "spleen", "value": 2}])
    answering(file=zipped(tmp_path / "newer", tmp_path / "newer.zip"))
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


def test_an_older_version_is_noticed_and_a_model_of_another_kind_is_refused(section, models, answering, tmp_path):
    write_model(tmp_path / "older", weights=b"old", created="2020-01-01T00:00:00+00:00", labels=[
        LIVER[0], {"name": "kidney", "value": 1}])
    answering(file=zipped(tmp_path / "older", tmp_path / "older.zip"))
    section.update()
    section.name = "Liver CT"
    section.manager.updateAction.trigger()
    assert "older than the installed one" in section.says[0] and "No longer there: liver" in section.says[0]
    section.name = "Éponge pulmonaire"
    section.manager.updateAction.trigger()
    assert "Import it as a model of its own" in section.says[1]
    assert section.info.task == "classification"


def test_an_exported_model_comes_back_as_it_was(section, models, answering, tmp_path):
    section.name = "Liver CT"
    section.update()
    answering(target=tmp_path / "for you")
    section.manager.exportAction.trigger()
    assert section.says == [] and zipfile.is_zipfile(tmp_path / "for you.zip")
    exported = section.info
    section.confirms = False
    section.manager.exportAction.trigger()
    assert section.says == [f"Replace the file {tmp_path / 'for you.zip'}?"]
    section.confirms = True
    section.manager.removeAction.trigger()
    answering(file=tmp_path / "for you.zip")
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


def test_while_something_is_computed_models_are_neither_removed_nor_replaced(section, models, answering, tmp_path):
    write_model(tmp_path / "Liver CT", weights=b"new")
    answering(file=zipped(tmp_path / "Liver CT", tmp_path / "newer.zip"), name="Liver CT")
    section.name = "Liver CT"
    section.update()
    before = section.info
    section.isIdle = lambda: False
    for action in (section.manager.removeAction, section.manager.updateAction, section.manager.importFileAction):
        action.trigger()
        assert "computation is under way" in section.says[-1]
    assert section.name == "Liver CT" and section.info == before
    answering(file=tmp_path / "newer.zip", name="Another")
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


def test_cancelled_dialogs_change_nothing(section, models, answering):
    section.update()
    for action in (section.manager.importFileAction, section.manager.importFolderAction, section.manager.updateAction,
                   section.manager.exportAction):
        action.trigger()
    assert section.says == [] and rows(section) == ["A new one", "Éponge pulmonaire", "Liver CT"]


@pytest.mark.alone
def test_the_application_stays_alive_while_a_large_file_is_copied(section, models, answering, tmp_path, monkeypatch,
                                                                  qt_application):
    import qt

    write_model(tmp_path / "Spleen")
    answering(folder=tmp_path / "Spleen")
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


def test_an_official_checkpoint_is_imported_and_what_was_loaded_is_told(section, models, answering, tmp_path):
    checkpoint(tmp_path / "checkpoint-best.pth", "segmentation")
    answering(file=tmp_path / "checkpoint-best.pth", name="Organs")
    section.update()
    section.manager.importFileAction.trigger()
    assert section.says and section.says[0].startswith("Imported Organs: segmentation, segmentation.")
    assert "tensors loaded" in section.says[0] and "Licence: Not stated by the authors" in section.says[0]
    assert section.name == "Organs" and section.info.method == "vis-mae" and len(section.info.labels) == 3
    assert section.ui.modelPreviewLabel.text == "No picture"


def test_weights_get_a_name_that_is_free(section, models, answering, tmp_path, monkeypatch):
    names = iter(["Liver CT", "Liver/CT", ""])
    answering(file=tmp_path / "weights.pth", name=lambda _proposal: next(names))
    section.update()
    asked = []
    monkeypatch.setattr(section.manager._logic, "importCheckpoint", lambda *arguments: asked.append(arguments) or {})
    section.manager.importFileAction.trigger()
    assert asked == [(tmp_path / "weights.pth", "vis-mae", "Liver_CT")]
    section.manager.importFileAction.trigger()
    assert len(asked) == 1, "cancelled"


def test_a_checkpoint_of_something_else_is_refused_with_the_reason(section, models, answering, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    answering(file=tmp_path / "weights.pt", name="Organs")
    section.update()
    before = rows(section)
    section.manager.importFileAction.trigger()
    assert section.says[0].startswith("The weights were not imported.") and "weights.pt" in section.says[0]
    assert "Traceback" not in section.says[0] and rows(section) == before


@pytest.mark.parametrize("name", ["model.json", "preview.png"])
def test_a_small_zip_that_would_fill_the_memory_is_not_unpacked(section, home, answering, tmp_path, name):
    write_model(tmp_path / "Spleen")
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "Spleen").iterdir():
            if file.name != name:
                archive.write(file, file.name)
        with archive.open(name, "w") as member:
            for _ in range(300):
                member.write(b" " * 2**20)
    answering(file=tmp_path / "m.zip")
    tracemalloc.start()
    section.manager.importFileAction.trigger()
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * 2**20
    if name == "model.json":
        assert "does not describe a model" in section.says[0] and not home.exists()
    else:
        assert section.says == [] and section.ui.modelPreviewLabel.text == "No picture"


def test_a_zip_that_is_damaged_anywhere_is_explained(section, home, answering, tmp_path):
    from medmae.errors import BadInput

    write_model(tmp_path / "Spleen", weights=b"abc" * 300, preview=b"x" * 300)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "m.zip", "w", method) as archive:
            for file in sorted((tmp_path / "Spleen").iterdir()):
                archive.write(file, file.name)
        whole, dice = (tmp_path / "m.zip").read_bytes(), random.Random(method)
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[dice.randrange(len(damaged))] ^= dice.randrange(1, 256)
            (tmp_path / "bad.zip").write_bytes(damaged)
            with contextlib.suppress(BadInput):  # or the byte did not matter
                section.manager._logic.importModel(tmp_path / "bad.zip", "x", replace=True)
            for weights in home.glob("x/weights.safetensors"):
                assert weights.read_bytes() == (tmp_path / "Spleen" / "weights.safetensors").read_bytes()
    assert list(home.glob("x/weights.safetensors")), "bytes that do not matter do no harm"


def test_a_name_too_long_for_a_folder_is_cut(section, home, answering, tmp_path):
    write_model(tmp_path / "m", name="\u809d" * 100)
    for _ in range(2):
        answering(folder=tmp_path / "m", name=lambda proposal: proposal)
        section.manager.importFolderAction.trigger()
    assert section.says == [] and len(rows(section)) == 2
