"""What is recommended for images and a computer, and what people may write instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from MedMAETrainLib.Computer import Computer, computerOf
from MedMAETrainLib.Fingerprint import Fingerprint, ImageHeader, readFingerprint, readHeader
from MedMAETrainLib.Recommendation import Purpose, recommendNetwork, recommendSettings
from MedMAETrainLib.SettingValues import readValue, refuseSettings, showValue

from medmae.errors import BadInput
from medmae.jobs.target import Target

GIB = 2**30
CPU = Computer()


def volumes(*grids, axes="RAS"):
    """The fingerprint of volumes of shapes and spacings (k, j, i)."""
    return Fingerprint({f"case-{number:04d}": ImageHeader(shape, spacing, axes, size=100)
                        for number, (shape, spacing) in enumerate(grids)})


CUBIC = volumes(((100, 256, 256), (1.0, 0.8, 0.8)), ((120, 256, 256), (1.5, 0.7, 0.7)))
THICK = volumes(*[((30, 256, 256), (5.0, 0.8, 0.8))] * 3)
PICTURES = Fingerprint({"a": ImageHeader(isPicture=True), "b": ImageHeader(isPicture=True)})


@pytest.mark.parametrize(("images", "count", "computer", "task", "expected"), [
    (CUBIC, 4, CPU, "segmentation", "gl-mae tiny-hybrid"),
    (CUBIC, 4, CPU, "classification", "gl-mae tiny"),
    (CUBIC, 4, Computer(8 * GIB), "segmentation", "gl-mae small"),
    (CUBIC, 4, Computer(4 * GIB), "segmentation", "gl-mae tiny-hybrid"),
    (CUBIC, 1000, Computer(48 * GIB), "pretraining", "gl-mae base"),
    (CUBIC, 10, Computer(48 * GIB), "pretraining", "gl-mae small"),
    (CUBIC, 10, Computer(None), "pretraining", "gl-mae small"),
    (THICK, 10, CPU, "segmentation", "gl-mae tiny-thin"),
    (THICK, 10, Computer(8 * GIB), "segmentation", "gl-mae small-thin"),
    (volumes(((12, 200, 200), (1.0, 1.0, 1.0))), 10, CPU, "segmentation", "gl-mae tiny-thin"),
    (PICTURES, 4, CPU, "classification", "vis-mae tiny"),
    (PICTURES, 1000, Computer(24 * GIB), "pretraining", "vis-mae base"),
    (Fingerprint(), 0, CPU, "segmentation", "gl-mae tiny-hybrid")])
def test_the_network_follows_the_images_and_the_computer(images, count, computer, task, expected):
    network = recommendNetwork(task, images, count, computer)
    assert f"{network.method} {network.preset}" == expected and network.reason


def test_every_recommended_network_has_settings_that_the_engine_takes():
    for images in (CUBIC, THICK, PICTURES, Fingerprint()):
        for task in ("segmentation", "classification", "pretraining"):
            for computer in (CPU, Computer(24 * GIB, 10**9), Computer(None)):
                network = recommendNetwork(task, images, 500, computer)
                purpose = Purpose(task, network.method, network.preset, "MR")
                settings = recommendSettings(purpose, images, computer)
                assert all(setting.reason and setting.shown for setting in settings)
                refuseSettings(purpose, {one.key: one.value for one in settings if one.value is not None})


def setting(key, images=CUBIC, computer=CPU, **purpose):
    given = Purpose(**{"task": "segmentation", "method": "gl-mae", "preset": "tiny", "modality": "CT", **purpose})
    return next(one for one in recommendSettings(given, images, computer) if one.key == key)


def test_the_spacing_is_the_median_in_the_order_that_the_network_sees():
    assert setting("spacing_mm").shown == "1.25 x 0.75 x 0.75"
    assert setting("spacing_mm").reason == "The median of 2 images; others are resampled."
    turned = volumes(((40, 50, 60), (3.0, 2.0, 1.0)), axes="SAR")  # stored i, j, k run up, forward and right
    assert setting("spacing_mm", turned).shown == "1 x 2 x 3" and setting("spacing_mm", turned).reason == (
        "All images have it.")
    assert setting("spacing_mm", task="classification").shown == "to fit all"


def test_little_memory_calls_for_fewer_images_at_once():
    assert setting("device_batch_size", computer=Computer(0, 2 * 10**9)).value == 1
    assert setting("device_batch_size", computer=Computer(0, 9 * 10**9)).value is None


def test_intensities_are_those_of_the_modality():
    assert "HU" in setting("modality").reason and setting("modality", modality="OT").shown == "not known"
    assert "own range" in setting("modality", modality="MR").reason


def test_what_is_known_of_a_target():
    assert computerOf(Target("box", "ssh", "box")).graphicsBytes is None
    assert not computerOf(Target("box", "ssh", "box", gpus=0)).hasGraphics


sizes = st.lists(st.integers(1, 2000), min_size=2, max_size=3)


@given(st.one_of(st.tuples(st.just("steps"), st.integers(-5, 10**6)), st.tuples(st.just("input_size"), sizes),
                 st.tuples(st.just("spacing_mm"), st.lists(st.sampled_from([0.5, 0.75, 1.0, 2.5, 10.0]), min_size=3,
                                                           max_size=3))))
def test_a_value_that_is_shown_can_be_read_again(pair):
    key, value = pair
    assert readValue(key, showValue(value)) == value


@given(st.sampled_from(["steps", "input_size", "spacing_mm", "modality"]), st.text(max_size=20))
def test_whatever_is_written_is_read_or_explained(key, text):
    try:
        readValue(key, text)
    except ValueError as error:
        assert str(error)


def test_headers_are_read_once_and_again_when_a_file_has_changed(small_project, monkeypatch):
    read = []

    def count(path):
        read.append(path.name)
        return readHeader(path)

    monkeypatch.setattr("MedMAETrainLib.Fingerprint.readHeader", count)
    first = readFingerprint(small_project)
    assert len(read) == 4 and first.headers["case-0001"].shape == (32, 40, 40)
    assert first.size() == 2 * 40 * 40 * (32 + 33 + 34 + 35)
    assert readFingerprint(small_project) == first and len(read) == 4
    image = small_project.file(small_project.case("case-0002").image)
    image.write_bytes(b"no image")
    assert list(readFingerprint(small_project).problems) == ["case-0002"] and len(read) == 5
    (small_project.path / "headers.json").write_text("[1, 2")
    assert len(readFingerprint(small_project).headers) == 4


def test_a_size_of_other_dimensions_is_refused():
    with pytest.raises(BadInput, match="2 numbers, but this network needs 3"):
        refuseSettings(Purpose("segmentation", "gl-mae", "tiny"), {"input_size": [48, 48]})
