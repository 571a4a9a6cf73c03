"""The registry of installed models, and finding a model by name or path."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmae.errors import BadInput
from medmae.files import write_json
from medmae.models import (
    ModelInfo,
    install_model,
    list_models,
    load_info,
    load_network,
    registry,
    remove_model,
    resolve_model,
    save_model,
    survey_models,
    usable_name,
)
from medmae.networks import architecture_for, build_network


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "work" / "lungs")


def make(folder: Path) -> Path:
    architecture = architecture_for("vis-mae", "tiny", "segmentation", 1, 2)
    info = ModelInfo(
        name=folder.name, task="segmentation", method="vis-mae", preset="tiny", architecture=architecture,
        spatial_dims=2, channels=[{"name": "x-ray", "modality": "DX"}], input_size=[112, 112], orientation="LPS",
        labels=[{"name": "background", "value": 0}, {"name": "lung", "value": 1}], modality="DX")
    return save_model(folder, info, build_network(architecture), preview_png=b"\x89PNG picture")


def test_an_installed_model_is_listed_and_found_by_its_name(folder, home):
    assert list_models() == []
    installed = install_model(folder)
    assert installed == home / "models" / "lungs" == resolve_model("lungs")
    assert [(name, info.labels[1]["name"]) for name, info in list_models()] == [("lungs", "lung")]
    assert load_info("lungs").weights_sha256 == load_info(folder).weights_sha256
    assert (installed / "preview.png").read_bytes() == b"\x89PNG picture"
    load_network("lungs")


def test_another_name_is_written_into_the_installed_model(folder):
    install_model(folder, name="Lungs v2")
    assert load_info("Lungs v2").name == "Lungs v2" and load_info(folder).name == "lungs"
    assert '--model "Lungs v2"' in (resolve_model("Lungs v2") / "README.md").read_text()


def test_a_taken_name_is_refused_unless_replaced(folder):
    install_model(folder)
    with pytest.raises(BadInput, match="installed already.*--replace"):
        install_model(folder)
    install_model(folder, replace=True)
    assert [name for name, _ in list_models()] == ["lungs"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a" * 101, "trailing.", "new\nline"])
def test_a_name_that_leads_elsewhere_is_refused(folder, home, name):
    with pytest.raises(BadInput, match="cannot be the name"):
        install_model(folder, name=name)
    with pytest.raises(BadInput, match="No model named"):
        remove_model(name)
    assert not (home / "models").exists()


def test_removing_deletes_one_model_only(folder):
    install_model(folder)
    install_model(folder, name="other")
    remove_model("lungs")
    assert [name for name, _ in list_models()] == ["other"]
    assert folder.is_dir()
    with pytest.raises(BadInput, match="No model named 'lungs'"):
        remove_model("lungs")


def test_damaged_weights_are_not_installed(folder, home):
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="zero bytes"):
        install_model(folder)
    assert list_models() == [] and not list((home).rglob("model.json"))


def test_a_damaged_installed_model_does_not_take_the_others_down(folder, caplog):
    install_model(folder)
    broken = install_model(folder, name="broken")
    (broken / "model.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert [name for name, _ in list_models()] == ["lungs"]
    assert "broken" in caplog.text


def test_a_run_folder_stands_for_its_model(tmp_path):
    run = tmp_path / "run"
    make(run / "model")
    (run / "spec.json").write_text("{}")
    assert resolve_model(run) == run / "model"
    assert install_model(run, name="from-run").name == "from-run"


def test_a_run_without_a_model_yet_says_so(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.json").write_text("{}")
    with pytest.raises(BadInput, match="has not left a model yet"):
        resolve_model(tmp_path / "run")


def test_an_unknown_name_lists_the_installed_models(folder):
    install_model(folder)
    with pytest.raises(BadInput, match="no model 'liver'.*installed: lungs"):
        resolve_model("liver")


def test_a_zip_is_installed_and_files_beside_the_model_are_left_out(folder, tmp_path):
    archive = tmp_path / "lungs.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"lungs/{path.name}")
        file.writestr("lungs/run_me.py", "print()")
        file.writestr("../escaped.txt", "x")
    installed = install_model(archive)
    assert sorted(path.name for path in installed.iterdir()) == [
        "README.md", "model.json", "preview.png", "weights.safetensors"]
    assert not list(tmp_path.rglob("escaped.txt"))


def test_listing_showing_installing_and_removing_need_no_torch(folder):
    code = ("import sys; from medmae.models import install_model, list_models, load_info, remove_model, resolve_model;"
            "install_model(sys.argv[1]); assert list_models();"
            "load_info('lungs'); resolve_model('lungs'); remove_model('lungs');"
            "loaded = {'torch', 'safetensors', 'monai', 'SimpleITK'} & set(sys.modules); assert not loaded, loaded")
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_no_model(name: str) -> None:
    with pytest.raises(BadInput, match="No model is named"):
        resolve_model(name)


def test_damaged_models_are_told_with_their_faults(folder, home):
    install_model(folder)
    (home / "models" / "half").mkdir()
    models, damaged = survey_models()
    assert [name for name, _ in models] == ["lungs"]
    assert [name for name, _ in damaged] == ["half"] and "no model.json" in damaged[0][1]


def test_a_model_that_changed_on_disk_is_listed_as_it_is_now(folder):
    installed = install_model(folder)
    assert list_models()[0][1] is list_models()[0][1], "not read again"
    info = json.loads((installed / "model.json").read_text())
    write_json(installed / "model.json", info | {"licence": "CC BY 4.0"})
    assert list_models()[0][1].licence == "CC BY 4.0"
    (installed / "model.json").unlink()
    assert list_models() == []


def test_a_model_that_cannot_be_moved_away_is_removed_not_at_all(folder, monkeypatch):
    installed = install_model(folder)

    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(installed), "rename", refuse)
    with pytest.raises(PermissionError):
        remove_model("lungs")
    assert len(list(installed.iterdir())) == 4
    assert [path.name for path in installed.parent.iterdir()] == ["lungs"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the home is not used
@given(st.text(max_size=130))
def test_every_text_has_a_usable_name_near_to_it(text):
    name = usable_name(text)
    assert registry._is_name(name) and usable_name(name) == name


@pytest.mark.parametrize(("text", "name"), [
    ("Liver CT", "Liver CT"), ("../liver: CT", "_liver_ CT"), ("", "model"), ("...", "model"), ("+x", "model +x"),
    ("a" * 120, "a" * 100), ("éponge", "éponge")])
def test_unusable_letters_of_names_are_replaced(text, name):
    assert usable_name(text) == name


def test_a_zip_that_is_damaged_inside_says_so(folder, tmp_path):
    archive = tmp_path / "lungs.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.iterdir():
            file.write(path, path.name)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        place = file.getinfo("weights.safetensors").header_offset + 80
    data[place:place + 400] = bytes(400)
    archive.write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        install_model(archive)
