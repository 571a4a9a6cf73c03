"""Preparing pretraining corpora: any mix of images, one bad among many."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pretraining_images import (
    RECIPE,
    a_mix,
    bad_ones,
    grey,
    prepare,
    rows,
    texture,
    write,
)
from volume_builders import write_nifti

from medmae.cli.app import run
from medmae.datasets import Corpus
from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.models import load_info
from medmae.pretraining.image_preparation import Recipe
from medmae.pretraining.preparation import Preparation, look_at_sources
from medmae.pretraining.sources import sources_of_images
from medmae.run_folder import RunFolder
from medmae.volumes import Geometry, Intensity


def test_one_command_learns_from_any_mix_and_lists_what_it_cannot_use(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modalities, bad = a_mix(tmp_path / "good"), bad_ones(tmp_path / "bad")
    grey(tmp_path / "again" / "copy.png", 1)  # the pixels of grey8.png
    write(tmp_path / "ct2.nii.gz", np.concatenate([  # two slices of air, two of body
        np.full((2, 40, 48), -1000), texture(50, 2, 40, 48) * 10 - 1000]).astype(np.int16))
    (tmp_path / "list.txt").write_text("# more\nct2.nii.gz\tCT\n\nagain\ngood/grey8.png\n")
    out = tmp_path / "run"
    assert run(["pretrain", "--images", str(tmp_path / "good"), *map(str, sorted((tmp_path / "bad").iterdir())),
                f"@{tmp_path / 'list.txt'}", "--method", "vis-mae", "--preset", "tiny", "--steps", "1",
                "--set", "batch_size=2", "balance=true", "workers=2", "--out", str(out)]) == 0
    assert "could not be used" in capsys.readouterr().err
    corpus = Corpus(out / "corpus")
    found = {item.id.partition("//")[0].rpartition("/")[2]: item for item in corpus.items}
    assert {name: found[name].modality for name in modalities} == modalities
    assert found["ct.nii.gz"].normalisation["intensity"][0]["kind"] == "ct_window"
    assert found["grey8.png"].normalisation["intensity"][0]["kind"] == "xray"
    assert found["ct2.nii.gz"].shape[1] == 2
    assert rows(out / "corpus" / "left_out.csv")[0]["slices"] == "2"
    assert [item.id for item in corpus.items if "series" in item.id] == [
        f"good/series.nii//frame {number}" for number in range(3)]
    assert sum("pages" in item.id for item in corpus.items) == 3
    skipped = {Path(row["file"]).name: row["reason"] for row in rows(out / "corpus" / "skipped.csv")}
    assert skipped.keys() == bad.keys()
    for name, text in bad.items():
        assert any(part in skipped[name] for part in text.split("|")), (name, skipped[name])
    assert rows(out / "corpus" / "duplicates.csv") == [{"image": "again/copy.png", "same_as": "good/grey8.png"}]
    training = load_info(out / "model").training
    assert training["modalities"] == {"DX": 11, "MR": 4, "CT": 2, "OT": 1, "US": 1}
    log = (out / "log.txt").read_text()
    assert "waiting for data" in log and "CT 2" in log
    report = (out / "report.html").read_text()
    assert "waiting for data" in report and "DX (11 images)" in report


def test_when_no_image_at_all_can_be_used_the_files_are_named_and_nothing_is_left(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad_ones(tmp_path / "bad")
    assert run(["pretrain", "--images", str(tmp_path / "bad"), "--method", "vis-mae", "--preset", "tiny", "--set",
                "workers=0", "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert message.count("Error:") == 1 and "text.png" in message and "nan.nii.gz" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("arguments", "text"), [
    (["empty"], "contains no images"), (["nowhere.png"], "does not exist"), (["*.mha"], "No image matches"),
    (["@nowhere.txt"], "list of images"), (["@empty"], "not a text file"), (["@binary.txt"], "not a text file")])
def test_images_that_are_not_there_are_bad_input(arguments: list[str], text: str, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    monkeypatch.chdir(tmp_path)
    assert run(["pretrain", "--images", *arguments, "--method", "vis-mae", "--out", "run"]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_items_of_a_dataset_state_their_modality_and_the_option_overrules_all(tmp_path: Path) -> None:
    items = [{"image": grey(tmp_path / f"{number}.png", number).name} for number in range(3)]
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"unlabeled": [{**items[0], "modality": "ultrasound"}, items[1], items[2]]}))
    quick = ["--method", "vis-mae", "--preset", "tiny", "--steps", "1", "--set", "batch_size=2", "workers=0"]
    assert run(["pretrain", "--dataset", str(file), *quick, "--out", str(tmp_path / "run")]) == 0
    info = load_info(tmp_path / "run" / "model")
    assert info.training["modalities"] == {"DX": 2, "US": 1}
    assert (info.modality, info.intensity["kind"]) == ("DX", "xray")
    command = ["pretrain", "--dataset", str(file), *quick, "modality=ultrasound"]
    assert run([*command, "--out", str(tmp_path / "run2")]) == 0
    assert load_info(tmp_path / "run2" / "model").training["modalities"] == {"US": 3}
    file.write_text(json.dumps({"unlabeled": [{**items[0], "modality": 3}]}))
    assert run(["pretrain", "--dataset", str(file), *quick, "--out", str(tmp_path / "run3")]) == 2


def test_a_dicom_folder_of_radiographs_and_series_gives_each_of_them(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "box" / f"radiograph{number}.dcm", texture(number, 40, 48).astype(np.uint8), modality="CR")
    damaged = tmp_path / "box" / "radiograph2.dcm"
    for place in range(4):
        image = sitk.GetImageFromArray(texture(20 + place, 1, 40, 48).astype(np.int16))
        for tag, text in (("0008|0060", "MR"), ("0020|000e", "1.2.3"), ("0020|0037", "1\\0\\0\\0\\1\\0"),
                          ("0020|0032", f"0\\0\\{2 * place}"), ("0008|0018", f"1.2.3.{place + 1}")):
            image.SetMetaData(tag, text)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / "box" / f"slice{place}.dcm"))
        writer.Execute(image)
    run_folder = RunFolder(tmp_path / "run")
    run_folder.path.mkdir()
    sources, grids = look_at_sources(sources_of_images([str(tmp_path / "box")]), "", 0, run_folder)
    assert grids.median_spacing_mm is None
    corpus = prepare(tmp_path / "corpus", sources)
    assert sorted((item.modality, item.shape[1]) for item in corpus.items) == [("CR", 1)] * 3 + [("MR", 4)]

    for place in range(4):
        (tmp_path / "box" / f"slice{place}.dcm").unlink()
    damaged.write_bytes(damaged.read_bytes()[:300])
    sources, _ = look_at_sources(sources_of_images([str(tmp_path / "box")]), "", 0, run_folder)
    assert len(prepare(tmp_path / "corpus2", sources)) == 2
    assert [row["file"] for row in rows(tmp_path / "corpus2" / "skipped.csv")] == [str(damaged)]


def test_the_spacing_is_the_median_along_the_networks_axes_however_the_scans_are_stored(tmp_path: Path) -> None:
    scans = [((0.6, 0.5, 4.0), "PSR"), ((0.6, 0.5, 4.0), "PSR"), ((4.0, 0.6, 0.5), "RAS")]
    for number, (spacing, axes) in enumerate(scans):
        geometry = Geometry.of((12, 14, 16), spacing[::-1], axes=axes)
        write_nifti(tmp_path / f"{number}.nii", texture(number, 12, 14, 16).astype(np.int16), sform=geometry.affine,
                    spacing=spacing)
    (tmp_path / "bad.nii").write_text("bad")
    run_folder = RunFolder(tmp_path / "run")
    run_folder.path.mkdir()
    _, grids = look_at_sources(sources_of_images([str(tmp_path / "*.nii")]), "RAS", 1, run_folder)
    assert grids.median_spacing_mm == (0.5, 0.6, 4.0)


def test_volumes_and_pictures_are_what_the_three_dimensional_method_takes_and_leaves(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", texture(0, 20, 24, 22).astype(np.int16))
    write(tmp_path / "b.nrrd", (texture(1, 20, 24, 22) * 10 - 1000).astype(np.int16))
    write(tmp_path / "4d.nii", texture(2, 20, 20, 24, 22).astype(np.int16))
    grey(tmp_path / "picture.png", 3)
    preprocessing = Preprocessing(3, "RAS", (1.0, 1.0, 1.0), (16, 16, 16), (Intensity("robust"),))
    recipe = Recipe("gl-mae", preprocessing, frames=4)
    corpus = prepare(tmp_path / "corpus", sources_of_images([str(tmp_path)]), recipe=recipe)
    assert corpus.items.count_modalities() == {"MR": 5, "CT": 1}
    assert [row["frames"] for row in rows(tmp_path / "corpus" / "left_out.csv")] == ["16"]
    assert [Path(row["file"]).name for row in rows(tmp_path / "corpus" / "skipped.csv")] == ["picture.png"]


def test_colour_volumes_become_grey_and_what_is_not_a_number_background(tmp_path: Path) -> None:
    colours = np.stack([texture(seed, 4, 40, 48) for seed in (1, 2, 3)], -1).astype(np.uint8)
    write(tmp_path / "colour.nrrd", colours, colour=True)
    holes = texture(4, 4, 40, 48).astype(np.float32)
    holes[:, :5] = np.nan
    write(tmp_path / "holes.nii.gz", holes)
    sources = sources_of_images([str(tmp_path / "colour.nrrd"), str(tmp_path / "holes.nii.gz")])
    corpus = prepare(tmp_path / "corpus", sources)
    assert [item.shape[0] for item in corpus.items] == [1, 1]
    assert all(np.isfinite(corpus.image(index)).all() for index in range(2))


def test_entries_of_a_list_may_be_patterns_and_need_not_be_there(tmp_path: Path) -> None:
    for seed in range(3):
        grey(tmp_path / "pictures" / f"{seed}.png", seed)
    grey(tmp_path / "scan [1].png", 3)
    (tmp_path / "list.txt").write_text("pictures/*.png\nscan [1].png\ngone/IM001\ngone.png\nnone*.png\n")
    sources = sources_of_images([f"@{tmp_path / 'list.txt'}"])
    assert [source.id for source in sources] == [
        "pictures/0.png", "pictures/1.png", "pictures/2.png", "scan [1].png", "gone/IM001", "gone.png", "none*.png"]
    assert len(prepare(tmp_path / "corpus", sources)) == 4
    skipped = rows(tmp_path / "corpus" / "skipped.csv")
    assert [Path(row["file"]).name for row in skipped] == ["IM001", "gone.png", "none*.png"]


def test_a_list_without_entries_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing yet\n\n")
    with pytest.raises(BadInput, match="list.txt names no images"):
        sources_of_images([f"@{tmp_path / 'list.txt'}"])


def test_values_that_overflow_cost_their_image_only(tmp_path: Path) -> None:
    huge = np.where(texture(0, 40, 48) > 100, 3e38, -3e38).astype(np.float32)
    write(tmp_path / "huge.tif", huge)
    grey(tmp_path / "fine.png", 1)
    assert [item.id for item in prepare(tmp_path / "corpus", sources_of_images([str(tmp_path)])).items] == ["fine.png"]
    assert "too large" in rows(tmp_path / "corpus" / "skipped.csv")[0]["reason"]


def test_names_of_odd_bytes_and_with_line_ends_are_listed_and_remembered(tmp_path: Path) -> None:
    grey(tmp_path / "fine.png", 1)
    names = [b"line\nend.png", b"not-\xff-utf8.png", "two\u2028lines.png".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"no picture")
    sources = sources_of_images([str(tmp_path)])
    prepare(tmp_path / "corpus", sources)
    listed = (tmp_path / "corpus" / "skipped.csv").read_bytes()
    assert listed.count(b"\n") == 4
    (tmp_path / "corpus" / "corpus.json").unlink()
    again = Preparation(tmp_path / "corpus", sources, RECIPE, 0, RunFolder(tmp_path))
    assert all(source.name in again.skipped for source in sources if source.id != "fine.png")


def test_a_name_that_is_not_utf8_can_be_told_in_the_state_of_the_run(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture = grey(tmp_path / "a.png", 0)
    odd = os.fsdecode(b"odd-\xff.png")
    picture.rename(tmp_path / odd)
    assert run(["pretrain", "--images", odd, "--method", "vis-mae", "--steps", "1", "--workers", "0",
                "--out", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize(("arguments", "reason"), [
    (["--precision", "fp16", "--device", "cpu"], "fp16 needs a GPU"), (["--seed", str(2**63)], "63 bits")])
def test_what_cannot_be_trained_is_told_before_anything_is_prepared(
        arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("medmae.pretraining.run.prepare_corpus", lambda *arguments: pytest.fail("prepared"))
    assert run(["pretrain", "--images", str(grey(tmp_path / "a.png", 0)), "--method", "vis-mae", "--out",
                str(tmp_path / "run"), *arguments]) == 2
    assert reason in capsys.readouterr().err
