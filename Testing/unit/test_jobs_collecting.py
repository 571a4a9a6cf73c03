"""What a job takes along is exactly what a run here would read, under neutral names."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
from test_volumes_dicom import write_series
from tiny_models import tiny_encoder
from tiny_training_data import write_pictures, write_volumes
from volume_builders import write_nifti

from medmae.config import from_json, to_json
from medmae.datasets import Corpus, load_dataset
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.planning import make_plan
from medmae.jobs.collecting import collect
from medmae.jobs.upload import Upload
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.pretraining.run import prepare_corpus
from medmae.run_folder import RunFolder
from medmae.volumes import read_image, read_label

PRETRAIN = resolve_pretrain_config(PretrainConfig(method="gl-mae", preset="tiny", workers=0))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process for every test would take longer than all else."""
    monkeypatch.setattr("medmae.jobs.neutral_images.usable_cores", lambda: 0)


def silent(stage: str, done: int, total: int) -> None:
    """Take no reports."""


def arrived(folder: Path, upload: Upload) -> dict[str, Any]:
    """The run folder as it is on the target, made the working folder; returns the inputs there."""
    for name, blob in upload.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(upload.sources[blob.sha256].read_bytes())
        assert path.stat().st_size == blob.size
        assert path.name.endswith(blob.suffix)
    return upload.spec["inputs"]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder on the target, in which a run starts."""
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


def corpus_of(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[Corpus, Any]:
    run = RunFolder.create(folder, "pretrain", config, inputs)
    corpus = prepare_corpus(run, from_json(PretrainConfig, config), dict(inputs))
    return corpus, read_json(folder / "corpus" / "preprocessing.json")


def same_corpora(here: tuple[Corpus, Any], remote: tuple[Corpus, Any]) -> None:
    assert len(here[0]) == len(remote[0])
    for number, (own, other) in enumerate(zip(here[0].items, remote[0].items, strict=True)):
        np.testing.assert_array_equal(here[0].image(number), remote[0].image(number))
        assert (own.modality, own.normalisation, own.shape) == (other.modality, other.normalisation, other.shape)
        assert own.spacing_mm == pytest.approx(other.spacing_mm, rel=1e-9)
    assert here[0].items.count_subjects() == remote[0].items.count_subjects()
    assert here[1] == remote[1]


def texture(*shape: int, low: int = 0, high: int = 900) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(np.int16)


def mixed_images(folder: Path) -> Path:
    """Images of several formats and modalities: DICOM that says CT, 4-D, two series in a folder, a damaged one."""
    folder.mkdir()
    write_series(folder / "Meier_Hans", array=texture(12, 16, 18, low=500, high=2000))
    write_series(folder / "two", array=texture(10, 16, 18), uid="1.2.3")
    write_series(folder / "two", array=texture(11, 16, 18), uid="1.2.4", names=[f"x{n}" for n in range(11)])
    write_nifti(folder / "four.nii", texture(3, 10, 16, 12), sform=np.diag([1.5, 1.5, 2, 1]), spacing=(1.5, 1.5, 2))
    image = sitk.GetImageFromArray(texture(14, 12, 10))
    image.SetSpacing((1.25, 0.75, 3))
    sitk.WriteImage(image, str(folder / "plain.nrrd"))
    (folder / "damaged.nii.gz").write_bytes(b"\x1f\x8bnothing")
    return folder


def test_pretraining_prepares_the_same_corpus_from_what_travelled(tmp_path: Path, mirror: Path, there: Path) -> None:
    images = mixed_images(tmp_path / "Erika Mustermann")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{images / 'plain.nrrd'}\tMR\n{images / 'four.nii'}\n")
    inputs = {"images": [f"@{listed}", str(images)]}
    config = to_json(PRETRAIN)
    upload = collect("pretrain", config, inputs, mirror, silent)
    same_corpora(corpus_of(tmp_path / "here", config, inputs),
                 corpus_of(there / "run", upload.spec["config"], arrived(there, upload)))
    record = read_json(mirror / "cases.json")
    assert [one["image"] for one in record["unreadable"]] == [str(images / "damaged.nii.gz")]
    skipped = list(csv.reader((tmp_path / "here" / "corpus" / "skipped.csv").read_text().splitlines()))
    assert [[one["image"], one["reason"]] for one in record["unreadable"]] == skipped[1:]


def test_pretraining_on_a_dataset_leaves_labels_and_names_at_home(tmp_path: Path, mirror: Path, there: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    dataset = write_volumes(own, {"training": 2, "unlabeled": 2, "test": 1})
    inputs = {"dataset": str(dataset)}
    config = to_json(PRETRAIN)
    upload = collect("pretrain", config, inputs, mirror, silent)
    assert len(upload.files) == 5
    found = arrived(there, upload)
    assert '"label"' not in (there / "inputs" / "dataset.json").read_text()
    same_corpora(corpus_of(tmp_path / "here", config, inputs), corpus_of(there / "run", config, found))


def test_a_prepared_corpus_travels_without_names_and_labels(tmp_path: Path, mirror: Path, there: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    here = corpus_of(tmp_path / "here", to_json(PRETRAIN),
                     {"dataset": str(write_volumes(own, {"unlabeled": 3}))})
    upload = collect("pretrain", to_json(PRETRAIN), {"corpus": str(here[0].folder)}, mirror, silent)
    found = arrived(there, upload)
    corpus = Corpus(found["corpus"])
    corpus.verify()
    same_corpora(here, (corpus, read_json(Path(found["corpus"]) / "preprocessing.json")))
    text = (there / found["corpus"] / "corpus.json").read_text()
    assert "case-0001" in text and "case0" not in text and '"s0"' not in text


def test_images_of_which_none_can_be_used_are_refused_here(tmp_path: Path, mirror: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(BadInput, match="None of the 1 images can be used"):
        collect("pretrain", to_json(PRETRAIN), {"images": [str(tmp_path / "a.nii.gz")]}, mirror, silent)


@pytest.mark.parametrize("cases", [None, 2])
def test_finetuning_sees_the_same_cases_in_the_same_order(tmp_path: Path, mirror: Path, there: Path,
                                                          cases: int | None) -> None:
    own = tmp_path / "own"
    own.mkdir()
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    (encoder / "preview.png").write_bytes(b"a slice of a patient")
    inputs = {"dataset": str(write_volumes(own, {"training": 5, "validation": 2, "test": 2})), "encoder": str(encoder)}
    config = to_json(FinetuneConfig(cases=cases, seed=3))
    upload = collect("finetune", config, inputs, mirror, silent)
    found = arrived(there, upload)
    here, remote = (make_plan(from_json(FinetuneConfig, one), of) for one, of in (
        (config, inputs), (upload.spec["config"], found)))
    for name in ("training", "validation"):
        assert len(getattr(here, name)) == len(getattr(remote, name))
        for mine, other in zip(getattr(here, name), getattr(remote, name), strict=True):
            np.testing.assert_array_equal(read_image(mine.images[0]).array, read_image(other.images[0]).array)
            np.testing.assert_array_equal(read_label(mine.label).array, read_label(other.label).array)
    assert here.dataset.labels == remote.dataset.labels
    assert here.dataset.modalities == remote.dataset.modalities
    assert here.config == remote.config or cases
    travelled = len(list((there / "inputs" / "images").iterdir()))
    assert travelled == (cases or 5) + 2  # the test cases and those that were not drawn stay at home
    assert (there / found["encoder"] / "weights.safetensors").read_bytes() == (
        encoder / "weights.safetensors").read_bytes()
    assert sorted(path.name for path in (there / found["encoder"]).iterdir()) == ["model.json", "weights.safetensors"]


def test_a_class_of_which_no_case_was_drawn_is_no_fault_there(tmp_path: Path, mirror: Path, there: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    dataset = write_pictures(own, {"training": 6, "validation": 4})
    data = json.loads(dataset.read_text())
    data["labels"]["third"] = 2
    data["training"][5]["label"] = data["validation"][3]["label"] = 2
    dataset.write_text(json.dumps(data))
    config = to_json(FinetuneConfig(cases=2, seed=0, method="vis-mae", preset="tiny"))
    inputs = {"dataset": str(dataset), "encoder": "none"}
    drawn = {case.class_value for case in make_plan(from_json(FinetuneConfig, config), inputs).training}
    assert len(drawn) == 2
    upload = collect("finetune", config, inputs, mirror, silent)
    plan = make_plan(from_json(FinetuneConfig, upload.spec["config"]), arrived(there, upload))
    assert {case.class_value for case in plan.training} == drawn
    assert len(list((there / "inputs" / "images").iterdir())) == 2 + 4


def test_a_curve_draws_the_same_cases_for_every_seed(tmp_path: Path, mirror: Path, there: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    inputs = {"dataset": str(write_volumes(own, {"training": 9, "test": 2})), "encoder": "none"}
    upload = collect("curve", {"cases": [1, 3], "seeds": [0, 5]}, inputs, mirror, silent)
    found = arrived(there, upload)
    used = set()
    for seed in (0, 5):
        for count in (1, 3):
            config = FinetuneConfig(cases=count, seed=seed, method="gl-mae", preset="tiny")
            here, remote = (make_plan(config, {"dataset": one["dataset"], "validation": False})
                            for one in (inputs, found))
            for mine, other in zip(here.training, remote.training, strict=True):
                np.testing.assert_array_equal(read_image(mine.images[0]).array, read_image(other.images[0]).array)
                used.add(mine.id)
    assert len(load_dataset(found["dataset"]).cases("training")) == len(used)
    assert len(load_dataset(found["dataset"]).cases(found["split"])) == 2


def test_a_curve_over_all_cases_and_over_subsets_takes_them(tmp_path: Path, mirror: Path, there: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    dataset = write_volumes(own, {"training": 4, "test": 1})
    data = json.loads(dataset.read_text())
    data["subsets"] = {"few": ["case2.nii.gz", "case0.nii.gz"]}
    dataset.write_text(json.dumps(data))
    inputs = {"dataset": str(dataset), "encoder": "none"}
    upload = collect("curve", {"cases": ["all", 2], "seeds": [0]}, inputs, mirror, silent)
    assert len(load_dataset(arrived(there, upload)["dataset"]).cases("training")) == 4
    upload = collect("curve", {"subsets": ["few"], "seeds": [0]}, inputs, mirror, silent)
    few = load_dataset(arrived(there, upload)["dataset"]).subset("few")
    np.testing.assert_array_equal(read_image(few[0].images[0]).array, read_image(own / "case2.nii.gz").array)


@pytest.mark.parametrize("kind", ["finetune", "curve", "evaluate"])
def test_a_damaged_file_of_a_dataset_is_told_before_anything_travels(tmp_path: Path, mirror: Path, kind: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    dataset = write_volumes(own, {"training": 3, "test": 2})
    damaged = own / ("case3.nii.gz" if kind == "evaluate" else "label1.nii.gz")
    damaged.write_bytes(damaged.read_bytes()[:200])
    config = {"finetune": to_json(FinetuneConfig(method="gl-mae", preset="tiny")),
              "curve": {"cases": ["all"], "seeds": [0]}, "evaluate": {}}[kind]
    inputs = {"dataset": str(dataset), "encoder": "none", "model": "none"}
    with pytest.raises(BadInput, match=damaged.name):
        collect(kind, config, inputs, mirror, silent)
    assert not (mirror / "cases.json").exists()


def test_no_name_of_ours_is_in_anything_that_travels(tmp_path: Path, mirror: Path, there: Path) -> None:
    own = tmp_path / "Klinikum-Nord"
    own.mkdir()
    dataset = write_volumes(own, {"training": 2, "validation": 1, "test": 2})
    data = json.loads(dataset.read_text())
    for number, item in enumerate(item for key in ("training", "validation", "test") for item in data[key]):
        for what in ("image", "label"):
            (own / item[what]).rename(own / f"Mustermann-{number}-{item[what]}")
            item[what] = f"Mustermann-{number}-{item[what]}"
        item |= {"subject": f"PAT-4711-{number}", "id": f"Erika-{number}"}
    data |= {"name": "study-of-Dr-Meier", "description": "secret-text"}
    dataset.write_text(json.dumps(data))
    secrets = ["Klinikum", "Mustermann", "PAT-4711", "Erika", "Meier", "secret-text", str(tmp_path)]
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    info = json.loads((encoder / "model.json").read_text())
    (encoder / "model.json").write_text(json.dumps(info | {"training": {"dataset": data["name"], "cases": 2}}))
    segment = {"images": [str(own / "Mustermann-0-case0.nii.gz")], "model": str(encoder), "out": str(own / "out")}
    of_dataset = {"dataset": str(dataset), "encoder": str(encoder), "model": str(encoder), "out": str(own / "out")}
    of_pool = {**of_dataset, "split": "training"}
    for kind, config, inputs in (("pretrain", to_json(PRETRAIN), {"dataset": str(dataset)}),
                                 ("finetune", to_json(FinetuneConfig(cases=1)), of_dataset),
                                 ("curve", {"cases": [1], "seeds": [0]}, of_dataset),
                                 ("evaluate", {}, of_dataset), ("segment", {}, segment), ("classify", {}, segment),
                                 ("rank", {}, segment), ("rank", {}, of_pool)):
        upload = collect(kind, config, inputs, mirror, silent)
        told = [json.dumps(upload.spec).encode(), json.dumps(list(upload.files)).encode()]
        for blob in upload.files.values():
            data_ = upload.sources[blob.sha256].read_bytes()
            told += [data_, _unpacked(data_)]
        for secret in secrets:
            assert not [content for content in told if secret.encode() in content], (kind, secret)
        assert (mirror / "cases.json").stat().st_mode & 0o077 == 0


def _unpacked(data: bytes) -> bytes:
    """What is compressed in a neutral file, or in a file that is compressed as a whole."""
    for part in (data, data.partition(b"\n\n")[2]):
        try:
            return gzip.decompress(part)
        except (OSError, EOFError, zlib.error):
            continue
    return b""


def test_dicom_seg_is_refused_because_headers_stay_at_home(tmp_path: Path, mirror: Path) -> None:
    with pytest.raises(BadInput, match="seg.nrrd"):
        collect("segment", {"format": "dicom-seg"}, {"images": ["a"], "model": "b", "out": str(tmp_path)}, mirror,
                silent)


def test_a_model_with_damaged_weights_is_told_here(tmp_path: Path, mirror: Path) -> None:
    model = tiny_encoder(tmp_path / "model", "gl-mae")
    os.truncate(model / "weights.safetensors", 1000)
    write_nifti(tmp_path / "a.nii", texture(4, 6, 8), sform=None)
    with pytest.raises(BadInput, match="SHA-256"):
        collect("segment", {}, {"images": [str(tmp_path / "a.nii")], "model": str(model), "out": str(tmp_path / "out")},
                mirror, silent)


@pytest.mark.parametrize("draws", [{"0": ["case9"]}, {"0": ["case0", "case0"]}, ["case0"], {"0": "case0"}])
def test_draws_that_a_dataset_cannot_mean_are_refused(tmp_path: Path, draws: Any) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    dataset.write_text(json.dumps(json.loads(dataset.read_text()) | {"draws": draws}))
    with pytest.raises(BadInput, match="draws"):
        load_dataset(dataset)
