"""Every finetuned model carries a picture of what it does: one model, folds, in 2-D and 3-D, or none on request."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tiny_training_data import write_pictures, write_volumes

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.datasets import Corpus, CorpusWriter
from medmae.datasets.preprocessing import Preprocessing
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.preview import _axis, _typical, preview_of
from medmae.finetuning.segmentation import SegmentationTask
from medmae.models import load_info
from medmae.models.labels import model_labels
from medmae.models.preview import SIDE
from medmae.run_folder import RunFolder
from medmae.volumes import default_intensity

QUICK = {"steps": 2, "validations": 0, "ema": 0.5, "batch_size": 2}


def finetuned(folder: Path, dataset: Path, **config: object) -> Path:
    """The model of a run from scratch."""
    RunFolder.create(folder / "run", "finetune", to_json(FinetuneConfig(**{**QUICK, **config})),  # type: ignore[arg-type]
                     {"dataset": str(dataset), "encoder": "none"})
    assert medmae_run.execute(folder / "run") == 0, RunFolder(folder / "run").state()["reason"]
    return folder / "run" / "model"


def picture(model: Path) -> np.ndarray:
    return read((model / "preview.png").read_bytes())


def read(png: bytes) -> np.ndarray:
    found = imread(io.BytesIO(png), format="png")
    assert found.shape == (SIDE, SIDE, 3)
    return found


def task_of(folder: Path, size: tuple[int, ...], spacing: tuple, context: int = 0, shape: tuple = (20, 40, 60),
            validation: bool = False, modality: str = "MR", name_at: tuple | None = None) -> SegmentationTask:
    """A network that calls whatever is bright "bright", and volumes with a bright box in a known place."""
    image = np.random.default_rng(0).normal(0, 0.05, (1, *shape)).astype(np.float32)
    box = tuple(slice(length // 5, length // 2) for length in shape)
    image[(0, *box)] = 1
    if name_at is not None:
        image[(0, *name_at)] = 0.45
    label = np.zeros(shape, np.uint8)
    label[box] = 2
    with CorpusWriter(folder, settings={}) as writer:
        writer.add("case", image, spacing, modality, {}, label=label)
    convolution = torch.nn.Conv3d if len(size) == 3 else torch.nn.Conv2d
    network = convolution(1 + 2 * context, 3, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[2, context] = 20.0  # of the slice itself
        network.bias.copy_(torch.tensor([0.0, -100.0, -10.0]))
    corpus = Corpus(folder)
    return SegmentationTask(network, FinetuneConfig(context=context), corpus, corpus if validation else None, size,
                            ["background", "dim", "bright"])


def of(size: tuple[int, ...], orientation: str, context: int = 0) -> Preprocessing:
    return Preprocessing(3 if len(size) == 3 else 2, orientation, None, size, (default_intensity("MR"),),
                         context=context)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(("size", "orientation", "spacing", "context"), [
    ((16, 16, 16), "RAS", (1.0, 1.0, 1.0), 0), ((64, 64), "LPS", (3.0, 1.0, 1.0), 1),
    ((16, 48, 48), "SAR", (1.0, 1.0, 1.0), 0), ((8, 24, 24), "ASR", (4.0, 1.0, 2.0), 0)])
def test_what_the_model_answers_lies_on_what_it_answers_to(tmp_path: Path, size: tuple, orientation: str,
                                                           spacing: tuple, context: int, validation: bool) -> None:
    task = task_of(tmp_path / "corpus", size, spacing, context, validation=validation)
    if validation:
        assert task.score(task.module.chosen) == pytest.approx(1)
    shown = read(preview_of(task, model_labels({"background": 0, "dim": 1, "bright": 2}),
                            of(size, orientation, context)))
    coloured, bright = np.ptp(shown, axis=-1) > 0.2, shown.max(-1) > 0.6
    assert 0.05 < coloured.mean() < 0.6 and (coloured == bright).mean() > 0.97


@pytest.mark.parametrize(("modality", "can_be_read"), [("MR", True), ("US", False), ("", False)])
def test_print_in_pictures_cannot_be_read(tmp_path: Path, modality: str, can_be_read: bool) -> None:
    task = task_of(tmp_path / "corpus", (224, 224), (1.0, 1.0, 1.0), shape=(1, 224, 224), modality=modality,
                   name_at=np.s_[0, 40:200:4, 120:200:4])
    shown = read(preview_of(task, model_labels({"background": 0, "dim": 1, "bright": 2}), of((224, 224), "LPS")))
    strokes = shown[:, 174:190, 0]  # right of what is labelled
    assert (np.abs(np.diff(strokes, axis=1)).max() > 0.3) == can_be_read


def test_only_a_part_of_a_large_volume_is_predicted(tmp_path: Path) -> None:
    task = task_of(tmp_path / "corpus", (8, 8, 8), (1.0, 1.0, 1.0), shape=(40, 200, 200))
    seen: list[tuple] = []
    task.module.average.register_forward_pre_hook(lambda _network, inputs: seen.append(tuple(inputs[0].shape)))
    read(preview_of(task, model_labels({"background": 0, "dim": 1, "bright": 2}), of((8, 8, 8), "RAS")))
    assert sum(shape[0] for shape in seen) <= 9


def test_a_segmentation_run_leaves_a_picture_in_its_model(tmp_path: Path) -> None:
    model = finetuned(tmp_path, write_volumes(tmp_path, {"training": 1}), method="vis-mae", preset="tiny", steps=1)
    assert np.ptp(picture(model)) > 0.3
    assert "![Preview](preview.png)" in (model / "README.md").read_text()
    assert load_info(model).created


def test_the_ensemble_of_folds_has_a_picture(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 8})
    shown = picture(finetuned(tmp_path, dataset, method="vis-mae", preset="tiny", folds=2, steps=1))
    assert np.ptp(shown) > 0.3 and np.ptp(shown, axis=-1).max() == 0, "an image; classes have no place in it"


def test_no_picture_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 4})
    model = finetuned(tmp_path, dataset, method="vis-mae", preset="tiny", preview=False, steps=1)
    assert not (model / "preview.png").exists() and "preview" not in (model / "README.md").read_text()


def test_the_case_in_the_middle_is_shown() -> None:
    cases = [{"dice": {"a": dice, "b": None}} for dice in (0.9, 0.1, 0.5, 0.6, 0.2)]
    assert _typical({"task": "segmentation", "cases": cases}) == 2
    assert _typical({"task": "segmentation", "cases": [{"dice": {"a": None}}]}) == 0
    assert _typical({}) == 0


@pytest.mark.parametrize(("orientation", "spacing", "axis"), [
    ("RAS", (1.0, 1.0, 1.0), 0), ("RAS", (3.0, 1.0, 1.0), 0), ("RAS", (1.0, 4.0, 1.0), 1), ("SAR", (1.0, 1.0, 1.0), 2),
    ("ASR", (1.0, 1.2, 1.0), 1)])
def test_slices_are_shown_as_acquired_or_axial(orientation: str, spacing: tuple, axis: int) -> None:
    preprocessing = Preprocessing(3, orientation, None, (48, 48, 48), (default_intensity("CT"),))
    assert _axis(preprocessing, spacing) == axis
