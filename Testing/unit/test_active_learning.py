"""What to annotate next: strategies, the order of cases, and ranking from Python."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inference_helpers import Bands, description
from test_preprocessing import oblique
from torch import nn

import medmae.active_learning
from medmae.active_learning.candidate import Candidate
from medmae.active_learning.config import RankConfig
from medmae.active_learning.mirrored_model import MirroredModel
from medmae.active_learning.mirroring import MirroredMean, mirrorings
from medmae.active_learning.ordering import in_order
from medmae.active_learning.strategies import strategy_called, strategy_names
from medmae.active_learning.strategies.entropy import FROM, MeanEntropy
from medmae.datasets import Case
from medmae.errors import BadInput, Stopped
from medmae.inference.loaded_model import LoadedModel
from medmae.volumes import read_image, write_label

CONFIG = RankConfig(device="cpu", precision="fp32", mirror="all")
ALL_2D = [(), (2,), (3,), (2, 3)]
LEVELS = {"kind": "ct_window", "low": 0.0, "high": 2.0}


class Lopsided(nn.Module):
    """Logits of intensity and of the place in the window, so that no mirrored answer is like another."""

    def __init__(self, classes=3, background=0.0) -> None:
        super().__init__()
        self.weights = torch.linspace(-2, 3, classes)
        self.background = background

    def forward(self, images):
        shape = images.shape[2:]
        places = torch.meshgrid(*[torch.linspace(0, 1, side) if side > 1 else torch.zeros(1) for side in shape],
                                indexing="ij")
        ramp = sum((2 + axis) * place for axis, place in enumerate(places))
        logits = torch.stack([weight * (3 * images[:, 0] - ramp) for weight in self.weights], 1)
        logits[:, 0] += self.background
        return logits


class LopsidedClassifier(nn.Module):
    """The sums of the intensities of a window, weighted by place."""

    def __init__(self, classes=3) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images):
        ramp = torch.linspace(-1, 2, images[0, 0].numel()).view(images.shape[2:])
        level = (images[:, 0] * ramp).flatten(1).mean(1)
        return torch.stack([level * (3 * number - 2) for number in range(self.classes)], 1)


def scan(path, shape, axes="RAS", seed=0, spacing_mm=(2.0, 1.0, 1.5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = oblique(shape, spacing_mm, axes)
    write_label(path, np.random.default_rng(seed).integers(0, 3, geometry.shape).astype(np.uint8), geometry, [],
                "nii.gz")
    return path


def segmenting(network=None, *, dims=3, size=None, classes=3):
    info = description(dims=dims, size=size, values=(0, 5, 300)[:classes], intensity=LEVELS)
    return LoadedModel.of(info, network or Lopsided(classes))


def classifying(network=None, *, dims=3, size=None, **more):
    info = description("classification", dims, size=size, values=(0, 1, 2), names=["a", "b", "c"], intensity=LEVELS,
                       **more)
    return LoadedModel.of(info, network or LopsidedClassifier())


def softmax(logits, axis):
    values = np.exp(logits - logits.max(axis, keepdims=True))
    return values / values.sum(axis, keepdims=True)


def slow_probabilities(model, array):
    """The mean of the softmaxes of all mirrorings of an array (C, k, j, i) that is one window, (K, k, j, i)."""
    dims = model.preprocessing.spatial_dims
    slices = [array] if dims == 3 else [array[:, number] for number in range(array.shape[1])]
    answers = []
    for one in slices:
        found = []
        for mask in range(2**dims):
            axes = tuple(1 + axis for axis in range(dims) if mask >> axis & 1)
            with torch.no_grad():
                logits = model.network(torch.from_numpy(np.flip(one, axes).copy())[None])[0].numpy()
            found.append(np.flip(softmax(logits.astype(float), 0), axes))
        answers.append(np.mean(found, 0))
    return answers[0] if dims == 3 else np.stack(answers, 1)


@pytest.mark.parametrize(("dims", "shape", "classes"), [(3, (5, 7, 9), 3), (3, (11, 6, 3), 2), (2, (1, 13, 8), 3),
                                                        (2, (5, 9, 7), 2), (3, (1, 4, 9), 3)])
@pytest.mark.parametrize("axes", ["RAS", "PSL"])
def test_entropy_is_that_of_a_slow_sum_over_full_arrays(tmp_path, dims, shape, classes, axes):
    path = scan(tmp_path / "a.nii.gz", shape, axes, spacing_mm=(1.5,) * 3)  # slices are not stretched
    image = read_image(path)
    draft = segmenting(dims=dims, size=[64] * dims, classes=classes)
    size = list(draft.preprocessing.prepare(image).grid.shape)[3 - dims:]  # one window, so that nothing is blended
    model = segmenting(dims=dims, size=size, classes=classes)
    prepared = model.preprocessing.prepare(image)
    assert prepared.array.shape[1:] == prepared.grid.shape
    probabilities = slow_probabilities(model, prepared.array)
    entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(classes)
    counted = probabilities[0] <= 0.9

    mirrored = MirroredModel(model, CONFIG)
    found = strategy_called("entropy")(mirrored, Candidate("a", (path,)), 0)
    assert mirrored.passes == 2**dims
    assert found.value == pytest.approx(entropy[counted].mean(), abs=1e-5)
    assert found.facts["voxels"] == counted.sum() > 0
    expected = np.array([0, 5, 300])[prepared.to_source_axes(probabilities).argmax(0)]
    np.testing.assert_array_equal(found.labels, expected)
    assert found.facts["foreground_voxels"] == (expected > 0).sum()


def test_entropy_over_several_windows_counts_every_voxel_once(tmp_path):
    path = scan(tmp_path / "a.nii.gz", (11, 13, 19), "LPS")
    found = strategy_called("entropy")(MirroredModel(segmenting(Bands(3)), CONFIG), Candidate("a", (path,)), 0)
    levels = read_image(path).array[0]
    logits = -(levels[None] / 2 - np.array([0, 0.5, 1]).reshape(3, 1, 1, 1)) ** 2
    probabilities = softmax(logits, 0)
    entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(3)
    assert found.facts["voxels"] == levels.size and found.value == pytest.approx(entropy.mean(), abs=1e-5)


def test_predictions_that_contradict_each_other_are_uncertain_however_sure_one_of_them_is():
    class OneSided(nn.Module):
        def forward(self, images):
            sure = torch.where(torch.arange(images.shape[-1]) < images.shape[-1] // 2, 20.0, -1.0)
            return torch.stack([sure.expand(images.shape[0], *images.shape[2:]), torch.zeros(images[:, 0].shape)], 1)

    probabilities = MirroredMean(OneSided(), ALL_2D)(torch.zeros(1, 1, 4, 6)).exp()
    expected = (1 + 1 / (1 + np.e)) / 2  # the mean of the logits, 9.5, would be certain
    np.testing.assert_allclose(probabilities[0, 0].numpy(), expected, rtol=1e-5)


def test_images_are_mirrored_as_in_training_and_by_default_no_further(tmp_path):
    info = description(dims=3)
    for told, expected in (([2], [(), (4,)]), ([0, 2], [(), (2,), (4,), (2, 4)]), ([], [()]), (None, [()]),
                           ("left", [()]), ([7, -1, "2"], [()]), (5, [()])):  # model.json may be a stranger's
        info.training["flip_axes"] = told
        assert mirrorings(info, "trained") == expected
    assert mirrorings(info, "none") == [()] and len(mirrorings(info, "all")) == 8
    assert sorted(mirrorings(description(dims=2), "all")) == sorted(ALL_2D)

    path = scan(tmp_path / "a.nii.gz", (5, 7, 9))
    model = segmenting(size=[9, 7, 5])
    values = {}
    for told in ([2], [], None):
        model.info.training["flip_axes"] = told
        mirrored = MirroredModel(model, RankConfig(device="cpu", precision="fp32"))
        values[str(told)] = strategy_called("entropy")(mirrored, Candidate("a", (path,)), 0).value
        assert mirrored.passes == (2 if told else 1)
    assert values["[]"] == values["None"] != values["[2]"]


def test_an_ensemble_that_is_mirrored_is_the_mean_of_all_its_answers(tmp_path):
    path = scan(tmp_path / "a.nii.gz", (5, 7, 9))
    size = list(segmenting(size=[64] * 3).preprocessing.prepare(read_image(path)).grid.shape)
    members = [segmenting(Lopsided(3, background), size=size) for background in (0.0, 2.5)]
    array = members[0].preprocessing.prepare(read_image(path)).array
    probabilities = np.mean([slow_probabilities(member, array) for member in members], 0)
    entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(3)
    found = strategy_called("entropy")(MirroredModel(members, CONFIG), Candidate("a", (path,)), 0)
    assert found.value == pytest.approx(entropy[probabilities[0] <= 0.9].mean(), abs=1e-5)


def test_a_model_that_is_sure_that_there_is_nothing_has_no_uncertainty(tmp_path):
    path = scan(tmp_path / "a.nii.gz", (5, 7, 9))
    model = MirroredModel(segmenting(Lopsided(3, 100.0)), CONFIG)
    found = strategy_called("entropy")(model, Candidate("a", (path,)), 0)
    assert found.value == 0 and found.facts == {"voxels": 0, "foreground_voxels": 0}


def test_rows_that_come_again_are_counted_once():
    measure = MeanEntropy()
    sure, unsure = torch.tensor([0.0, 1.0]).view(2, 1, 1), torch.tensor([0.5, 0.5]).view(2, 1, 1)
    for row, values in ((0, sure), (1, sure), (0, unsure), (1, sure)):  # memory ran out after two
        measure.take(row, slice(0, 1), values)
    assert measure.voxels == 2 and measure.mean == pytest.approx(0.5)
    assert FROM == 0.1  # docs/results/rank.md


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_entropy_of_classes_is_that_of_the_mean_of_the_mirrored_images(tmp_path, dims, several):
    path = scan(tmp_path / "a.nii.gz", (5, 7, 9))
    model = classifying(dims=dims, size=[4, 6, 8][:dims])
    object.__setattr__(model.info, "multi_label", several)
    object.__setattr__(model.info, "calibration", {"temperature": 0.5})
    mirrored = MirroredModel(model, CONFIG)
    values = []
    from medmae.inference.classifier import view_logits

    array = model.preprocessing.prepare(read_image(path)).array
    for axes in mirrorings(model.info, "all"):
        class Turned(nn.Module):
            def forward(self, images, axes=axes):
                return model.network(torch.flip(images, axes))
        logits = view_logits(Turned(), array, model.window, device=torch.device("cpu")).double().mean(0).numpy()
        logits = logits / mirrored.classifier.temperature
        values.append(1 / (1 + np.exp(-logits)) if several else softmax(logits, 0))
    mean = np.mean(values, 0)
    expected = (-(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).mean() / np.log(2) if several
                else -(mean * np.log(mean)).sum() / np.log(3))
    found = strategy_called("entropy")(mirrored, Candidate("a", (path,)), 0)
    assert found.value == pytest.approx(expected, abs=1e-6) and 0 < found.value < 1
    assert found.facts["probabilities"] == pytest.approx(dict(zip("abc", mean, strict=True)))
    assert found.labels is None and found.facts["label"]


@pytest.mark.parametrize("name", strategy_names())
@pytest.mark.parametrize("model", [segmenting(), classifying()], ids=["segmentation", "classification"])
def test_every_strategy_scores_a_case_by_itself(tmp_path, name, model):
    paths = [scan(tmp_path / f"{number}.nii.gz", (6, 9, 8), seed=number) for number in range(3)]
    score, mirrored = strategy_called(name), MirroredModel(model, CONFIG)

    def scores(order):
        return {number: score(mirrored, Candidate(str(number), (paths[number],)), 7) for number in order}

    once, again = scores((0, 1, 2)), scores((2, 0))
    assert all(np.isfinite(one.value) for one in once.values())
    assert all(once[number].value == one.value for number, one in again.items())
    assert score.__doc__ and len({one.value for one in once.values()}) == 3
    for one in once.values():
        assert one.labels is None or one.labels.shape == read_image(paths[0]).geometry.shape


def test_random_order_depends_on_seed_and_id_alone_and_opens_nothing():
    score, model = strategy_called("random"), MirroredModel(segmenting(), CONFIG)
    values = {seed: [score(model, Candidate(f"case{number}", (Path("absent"),)), seed).value for number in range(400)]
              for seed in (0, 1)}
    assert values[0] == [score(model, Candidate(f"case{number}", ()), 0).value for number in range(400)]
    assert len(set(values[0])) == 400 and values[0] != values[1]
    assert all(0 <= value < 1 for value in values[0])
    assert np.mean(values[0]) == pytest.approx(0.5, abs=0.06) and np.std(values[0]) == pytest.approx(0.289, abs=0.03)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcd")), max_size=30))
def test_subjects_take_turns_and_equal_scores_keep_their_order(scored):
    items = list(enumerate(scored))
    ordered = in_order(items, lambda item: item[1][0], lambda item: item[1][1])
    assert sorted(ordered) == items
    turn_of, seen = {}, {}
    for number, (_score, subject) in sorted(items, key=lambda item: (-item[1][0], item[0])):
        turn_of[number] = seen[subject] = seen.get(subject, -1) + 1
    assert ordered == sorted(items, key=lambda item: (turn_of[item[0]], -item[1][0], item[0]))
    subjects = len({subject for _, subject in scored})
    assert len({item[1][1] for item in ordered[:subjects]}) == subjects


def test_ranking_from_python_goes_on_after_a_bad_image(tmp_path):
    cases = [Case(f"case{number}", (scan(tmp_path / f"{number}.nii.gz", (6, 9, 8), seed=number),),
                  subject="s" if number < 2 else "") for number in range(3)]
    (tmp_path / "bad.nii.gz").write_text("no image")
    cases.insert(1, Case("bad", (tmp_path / "bad.nii.gz",)))
    found = medmae.active_learning.rank(segmenting(), cases)
    assert [one.rank for one in found.cases] == [1, 2, 3]
    assert found.failed[0][0].id == "bad" and "bad.nii.gz" in found.failed[0][1]
    assert {one.case.subject for one in found.cases[:2]} == {"s", "case2"}
    assert found.cases == medmae.active_learning.rank(segmenting(), cases[::-1]).cases
    plain = medmae.active_learning.rank(segmenting(), [case.images[0] for case in cases if case.id != "bad"])
    assert sorted(one.score for one in plain.cases) == sorted(one.score for one in found.cases)
    assert [one.score for one in plain.cases] == sorted((one.score for one in plain.cases), reverse=True)


def test_what_cannot_be_ranked_is_told_at_once(tmp_path):
    with pytest.raises(BadInput, match="entropy, random"):
        medmae.active_learning.rank(segmenting(), [], strategy="clever")
    encoder = LoadedModel.of(description("encoder"), Bands())
    with pytest.raises(BadInput, match="medmae finetune"):
        medmae.active_learning.rank(encoder, [])
    with pytest.raises(BadInput, match="segmentation only"):
        medmae.active_learning.rank([classifying(), classifying()], [])
    with pytest.raises(BadInput, match="No model"):
        medmae.active_learning.rank([], [])
    with pytest.raises(Stopped):
        medmae.active_learning.rank(segmenting(), [scan(tmp_path / "a.nii.gz", (6, 9, 8))], should_stop=lambda: True)


def test_the_package_stands_on_inference_and_what_inference_stands_on():
    """The layers of docs/architecture.md."""
    below = {"active_learning", "config", "datasets", "errors", "files", "folder_lock", "inference", "metrics",
             "models", "networks", "run_folder", "volumes"}
    found = set()
    for file in Path(medmae.active_learning.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[1] for name in names if name and name.startswith("medmae.")}
    assert "inference" in found and found <= below
