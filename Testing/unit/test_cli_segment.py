"""The options of ``medmae segment``, ``classify`` and ``evaluate``, from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from inference_helpers import description

from medmae.cli import options
from medmae.cli.app import run
from medmae.errors import BadInput
from medmae.inference.channels import cases_of_channels
from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.volumes import Geometry, read_image, read_label
from medmae.volumes.nifti_writing import write_nifti

SIZES = {"patch": 8, "width": 24, "depth": 3, "heads": 2, "feature_size": 4, "skip_blocks": [1, 2]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "model")


def saved(folder, channels=1):
    torch.manual_seed(3)
    architecture = architecture_for("gl-mae", "tiny", "segmentation", channels, 3)
    architecture["arguments"] |= SIZES
    info = description(size=[16] * 3, architecture=architecture, channels=channels, intensity={"kind": "robust"})
    return save_model(folder, info, build_network(architecture))


def scan(path, seed=0, shape=(18, 20, 17)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 400, shape).astype(np.int16)
    write_nifti(path, array, Geometry.of(shape, (1.0, 1.0, 1.0), axes="LPS"))
    return path


def call(*arguments):
    return run([str(one) for one in arguments])


@click.command(cls=options.Command)
@options.combine(options.images, options.channels, options.frame)
def echo(images, channels, frame):
    click.echo(json.dumps([images, channels, frame]))


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--channel", "a", "b", "--channel", "c", "d"], [[], [["a", "b"], ["c", "d"]], None]),
    (["--channel=a", "b", "--frame", "3", "--channel", "c"], [[], [["a", "b"], ["c"]], 3]),
    (["--channel", "a+b c.nii", "x=1", "--images", "d", "e"], [["d", "e"], [["a+b c.nii", "x=1"]], None]),
    (["--images", "a", "--frame", "1"], [["a"], [], 1]),
])
def test_values_after_each_use_of_channel_stay_together(arguments, expected, capsys):
    echo.main(arguments, standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == expected


def test_channel_without_a_value_is_wrong_usage():
    with pytest.raises(click.UsageError):
        echo.main(["--images", "a", "--channel"], standalone_mode=False)


def test_channels_make_cases_of_names_that_belong_together(tmp_path):
    for channel in ("t1", "t2"):
        for case in ("p+1", "p 10", "p2"):
            scan(tmp_path / channel / f"{case}_{channel}.nii.gz")
    cases = cases_of_channels([[str(tmp_path / "t1")], [str(tmp_path / "t2" / "*.nii.gz")]])
    assert [tuple(path.name for path in case) for case in cases] == [
        (f"{name}_t1.nii.gz", f"{name}_t2.nii.gz") for name in ("p 10", "p+1", "p2")]
    (tmp_path / "t1" / "p2_t1.nii.gz").unlink()
    with pytest.raises(BadInput, match="2, 3 images"):
        cases_of_channels([[str(tmp_path / "t1")], [str(tmp_path / "t2")]])
    scan(tmp_path / "t1" / "p3_t1.nii.gz")
    with pytest.raises(BadInput, match="p3_t1.*p2_t2.*belong together"):
        cases_of_channels([[str(tmp_path / "t1")], [str(tmp_path / "t2")]])
    with pytest.raises(BadInput, match="absent"):
        cases_of_channels([[str(tmp_path / "absent")], [str(tmp_path / "t2")]])


def test_a_model_of_two_channels_is_used_from_the_command_line(tmp_path, capsys):
    model = saved(tmp_path / "model", channels=2)
    images = [scan(tmp_path / "in" / f"{name}.nii.gz", seed) for seed, name in enumerate(("a+t1", "a+t2"))]
    code = call("segment", "--model", model, "--channel", images[0], "--channel", images[1], "--out", tmp_path / "out",
                "--json")
    assert code == 0
    case = json.loads(capsys.readouterr().out)["cases"][0]
    assert case["channels"] == [str(image) for image in images] and Path(case["output"]).name == "a+t1.nii.gz"
    both = ("--images", images[0], "--channel", images[1])
    assert call("segment", "--model", model, *both, "--out", tmp_path / "o") == 2
    assert "either --images" in capsys.readouterr().err


def test_everything_at_once(model, tmp_path, capsys):
    image = scan(tmp_path / "in" / "a.nii.gz")
    base = tmp_path / "base.nii.gz"
    write_nifti(base, np.full((18, 20, 17), 7, np.uint8), read_image(image).geometry)
    roi = ("-12", "-2", "-16", "-4.5", "3", "14")
    code = call("segment", "--model", model, model, "--images", image, "--out", tmp_path / "out", "--roi", *roi,
                "--base", base, "--mirror", "--overlap", "0.25", "--no-skip-empty", "--memory", "8GB", "--batch", "2",
                "--probabilities", "--uncertainty", "--postprocess", "none", "--largest-component", "--fill-holes",
                "--format", "nrrd", "--device", "cpu", "--precision", "fp32")
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "passes each (mirroring and 2 models)" in captured.err and "Peak memory" in captured.err
    output = next((tmp_path / "out").rglob("a.nrrd"))
    labels = read_label(output).array[0]
    # LPS: R = -i, A = -j
    inside = np.zeros(labels.shape, bool)
    inside[3:15, 5:17, 2:13] = True
    assert (labels[~inside] == 7).all() and not (labels[inside] == 7).any()
    assert {path.name for path in output.parent.iterdir()} == {
        "a.nrrd", "a.probability-rim.nii.gz", "a.probability-core.nii.gz", "a.uncertainty.nii.gz"}


def test_resume_from_the_command_line(model, tmp_path, capsys):
    images = [scan(tmp_path / "in" / f"{name}.nii.gz", number) for number, name in enumerate("ab")]
    command = ("segment", "--model", model, "--images", tmp_path / "in", "--out", tmp_path / "out")
    assert call(*command, "--resume") == 0  # nothing is there yet
    assert call(*command) == 2 and "not empty" in capsys.readouterr().err
    next((tmp_path / "out").rglob("a.nii.gz")).unlink()
    images.append(scan(tmp_path / "in" / "c.nii.gz", 5))
    assert call(*command, "--resume", "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [case["image"] for case in result["cases"]] == [str(image) for image in images]
    assert result["finished_before"] == 1 and "1 of the cases were finished before" in captured.err
    assert call(*command, "--resume", "--mirror") == 2
    assert "mirror=False (not True)" in capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 3


@pytest.mark.parametrize(("wrong", "told"), [
    (("--memory", "much"), "amount of memory"), (("--roi", "5", "1", "0", "1", "0", "1"), "roi"),
    (("--overlap", "1"), "overlap"), (("--base", "absent.nii.gz"), "--roi"), (("--format", "dicom-seg"), "not DICOM"),
    (("--memory", "1MB"), "Raise the limit"),
])
def test_what_cannot_be_is_bad_input_and_leaves_nothing(model, tmp_path, capsys, wrong, told):
    image = scan(tmp_path / "in" / "a.nii.gz")
    assert call("segment", "--model", model, "--images", image, "--out", tmp_path / "out", *wrong) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evaluate_takes_the_same_options(model, tmp_path, capsys):
    image = scan(tmp_path / "a.nii.gz")
    label = tmp_path / "l.nii.gz"
    write_nifti(label, np.ones((18, 20, 17), np.uint8), read_image(image).geometry)
    (tmp_path / "dataset.json").write_text(json.dumps({
        "name": "made", "task": "segmentation", "channel_names": {"0": "MR"},
        "labels": {"background": 0, "rim": 1, "core": 2}, "training": [],
        "test": [{"image": "a.nii.gz", "label": "l.nii.gz", "subject": "a"}]}))
    code = call("evaluate", "--model", model, model, "--dataset", tmp_path / "dataset.json", "--mirror", "--overlap",
                "0.25", "--memory", "8GB", "--batch", "2", "--no-skip-empty", "--postprocess", "none", "--json")
    assert code == 0 and json.loads(capsys.readouterr().out)["task"] == "segmentation"


@pytest.mark.parametrize("command", ["segment", "classify", "evaluate"])
def test_help_says_every_option_in_short_lines(command, capsys):
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100 and "\0" not in text
    if command == "segment":
        assert [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
            "What:", "Results:", "Quality, speed, memory:", "Elsewhere:", "Options:"]
