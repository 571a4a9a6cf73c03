"""Every file of a dataset is checked before a run, and all that is wrong is told at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medmae.datasets import load_dataset, validate, validate_cases
from medmae.errors import BadInput

sitk = pytest.importorskip("SimpleITK")

SPACING = (0.8, 0.9, 2.5)  # i, j, k


def save(path, array, spacing=SPACING, origin=(1.0, 2.0, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(array, isVector=False)
    if array.ndim == 3:
        volume.SetSpacing(spacing)
        volume.SetOrigin(origin)
    sitk.WriteImage(volume, str(path))


@pytest.fixture
def project(tmp_path):
    """Three sound cases; `project(...)` adds items and writes the dataset file."""
    generator = np.random.default_rng(0)
    items = []
    for name in "abc":
        label = np.zeros((4, 6, 8), np.uint8)
        label[1, :2, :3] = 1
        label[2] = 7
        save(tmp_path / "images" / f"{name}.nii.gz", generator.normal(100, 10, (4, 6, 8)).astype(np.float32))
        save(tmp_path / "labels" / f"{name}.nii.gz", label)
        items.append({"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "subject": name})

    def write(*more, **changes):
        data = {"task": "segmentation", "modality": {"0": "MR"}, "training": [*items, *more],
                "labels": {"background": 0, "organ": 1, "lesion": 7}, **changes}
        (tmp_path / "dataset.json").write_text(json.dumps(data))
        return load_dataset(tmp_path / "dataset.json")
    write.folder = tmp_path
    write.items = items
    return write


def test_sound_files_give_a_summary_of_what_they_hold(project):
    seen = []
    summary = validate(project(), ["training"], on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [case.id for case in summary.cases] == ["images/a", "images/b", "images/c"]
    assert summary.shapes == [(4, 6, 8)] * 3 and summary.channels == 1 and not summary.is_2d
    np.testing.assert_allclose(summary.spacings_mm, [SPACING[::-1]] * 3, rtol=1e-6)
    case = summary.cases[0]
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(project.folder / "images/a.nii.gz")))
    assert case.percentiles[0] == pytest.approx(np.percentile(voxels, [0.5, 50, 99.5]))
    assert case.label_voxels == {"organ": 6, "lesion": 48}
    assert case.label_ml == {"organ": pytest.approx(6 * 1.8e-3), "lesion": pytest.approx(48 * 1.8e-3)}
    ranges = summary.to_json()
    assert ranges["cases"] == 3 and ranges["shape"] == [[4, 6, 8], [4, 6, 8]] and ranges["axes"] == ["LPS"]
    assert json.loads(json.dumps(ranges, allow_nan=False)) == ranges
    assert "images/a" not in json.dumps(ranges)


def test_every_broken_file_is_in_one_message(project):
    folder = project.folder
    whole = (folder / "images/a.nii.gz").read_bytes()
    (folder / "images/cut.nii.gz").write_bytes(whole[:len(whole) // 2])
    (folder / "images/text.nii.gz").write_text("this is no image")
    (folder / "images/zero.nii.gz").write_bytes(b"")
    (folder / "images/folder").mkdir()
    save(folder / "labels/small.nii.gz", np.zeros((4, 6, 7), np.uint8))
    save(folder / "labels/moved.nii.gz", np.zeros((4, 6, 8), np.uint8), origin=(1.0, 2.0, 3.01))
    save(folder / "labels/strange.nii.gz", np.full((4, 6, 8), 5, np.uint8))
    save(folder / "labels/half.nii.gz", np.full((4, 6, 8), 0.5, np.float32))
    save(folder / "images/nan.nii.gz", np.full((4, 6, 8), np.nan, np.float32))
    save(folder / "images/4d.nii.gz", np.zeros((2, 4, 6, 8), np.float32))
    for name in ("small", "moved", "strange", "half"):
        (folder / f"images/{name}.nii.gz").write_bytes(whole)
    bad = [{"image": f"images/{name}.nii.gz", "label": "labels/a.nii.gz"}
           for name in ("cut", "text", "zero", "nan", "4d")]
    bad += [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
            for name in ("small", "moved", "strange", "half")]
    bad += [{"image": "images/folder", "label": "labels/a.nii.gz"}, {"image": "images/nowhere.nii.gz"},
            {"image": "images/b.nii.gz", "id": "no label"}]
    with pytest.raises(BadInput) as caught:
        validate(project(*bad), ["training"])
    message = str(caught.value)
    for part in ("cut.nii.gz", "text.nii.gz", "zero.nii.gz", "images/folder", "nowhere.nii.gz", "4d.nii.gz holds 2",
                 "nan.nii.gz holds no finite value", "half.nii.gz holds values that are not whole",
                 "7 x 6 x 4 voxels (i x j x k), its image", "up to 0.01 mm apart",
                 "not in 'labels': 5 (192 voxels)", "0 (background), 1 (organ), 7 (lesion)",
                 "no label: it has no label"):
        assert part in message, part
    assert "images/a.nii.gz " not in message and "take their cases out" in message


def test_a_difference_of_header_rounding_is_no_other_grid(project):
    save(project.folder / "labels/a.nii.gz", np.zeros((4, 6, 8), np.uint8), origin=(1.0, 2.0, 3.0005))
    assert validate(project(), ["training"]).shapes[0] == (4, 6, 8)


def test_a_sheared_image_is_refused_with_its_name(project):
    import struct

    path = project.folder / "images/shear.nii"
    save(path, np.zeros((4, 6, 8), np.float32))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<hh", raw, 252, 0, 1)  # only the sform counts
    struct.pack_into("<12f", raw, 280, 1, 0.4, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    path.write_bytes(raw)
    with pytest.raises(BadInput, match="shear") as caught:
        validate(project({"image": "images/shear.nii", "label": "labels/a.nii.gz"}), ["training"])
    assert "shear.nii" in str(caught.value)


def test_labels_are_left_aside_or_asked_for(project):
    (project.folder / "labels/a.nii.gz").write_bytes(b"")
    dataset = project(unlabeled=["images/c.nii.gz"])
    assert len(validate(dataset, ["training"], labels=False).cases) == 3
    with pytest.raises(BadInput, match="zero bytes"):
        validate(dataset, ["training"])
    assert validate(dataset, ["unlabeled"]).cases[0].label_ml == {}
    with pytest.raises(BadInput, match="images/c: it has no label"):
        validate(dataset, ["unlabeled"], labels=True)


def test_without_voxels_only_presence_is_looked_at(project):
    (project.folder / "images/a.nii.gz").write_text("no image")
    (project.folder / "images/b.nii.gz").unlink()
    (project.folder / "images/c.nii.gz").write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        validate(project(), ["training"], read_voxels=False)
    assert "b.nii.gz does not exist" in str(caught.value) and "c.nii.gz is empty" in str(caught.value)
    assert "a.nii.gz" not in str(caught.value)


def test_a_case_in_two_lists_is_checked_once_and_no_case_is_a_problem(project):
    dataset = project(unlabeled=["images/a.nii.gz"])
    for keys in (["training", "unlabeled"], ["unlabeled", "training"]):
        summary = validate(dataset, keys)
        assert sorted(case.id for case in summary.cases) == ["images/a", "images/b", "images/c"]
        assert all(case.label_ml for case in summary.cases)
    with pytest.raises(BadInput, match="no case"):
        validate_cases(dataset, [])
    with pytest.raises(BadInput, match="no list 'test'"):
        validate(dataset, ["test"])


def test_channels_must_be_as_declared_and_on_one_grid(project):
    two = [{"image": ["images/a.nii.gz", "images/b.nii.gz"], "label": "labels/a.nii.gz"}]
    declared = {"modality": {"0": "MR", "1": "PT"}}
    summary = validate(project(training=two, **declared), ["training"])
    assert summary.channels == 2 and len(summary.cases[0].percentiles) == 2
    save(project.folder / "images/b.nii.gz", np.zeros((4, 6, 9), np.float32))
    with pytest.raises(BadInput, match="b.nii.gz has the size 9 x 6 x 4"):
        validate(project(training=two, **declared), ["training"])
    one = [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}]
    with pytest.raises(BadInput, match=r"1 channels, but 2 are declared \(MR, PT\)"):
        validate(project(training=one, **declared), ["training"])


def test_pictures_with_masks_and_one_in_colour_among_grey_ones(tmp_path):
    generator = np.random.default_rng(0)
    items = []
    for name in "abc":
        save(tmp_path / f"{name}.png", generator.integers(0, 255, (10, 12), dtype=np.uint8))
        save(tmp_path / f"{name}_mask.png", np.where(generator.random((10, 12)) < 0.5, 255, 0).astype(np.uint8))
        items.append({"image": f"{name}.png", "label": f"{name}_mask.png"})
    data = {"modality": {"0": "US"}, "labels": {"background": 0, "lesion": 255}, "training": items}
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    summary = validate(load_dataset(tmp_path), ["training"])
    assert summary.is_2d and summary.to_json()["spacing_mm"] is None and "label_voxels" in summary.to_json()
    colour = sitk.GetImageFromArray(generator.integers(0, 255, (10, 12, 3), dtype=np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "b.png"))
    with pytest.raises(BadInput, match="b has 3 channels, most others have 1"):
        validate(load_dataset(tmp_path), ["training"])


@pytest.mark.parametrize("file", ["hippocampus_mr/dataset.json", "chest_xray_lungs/dataset_segmentation.json",
                                  "sarcoma_mr_t1/dataset.json", "breast_ultrasound/dataset_classification.json"])
def test_the_shared_datasets_are_sound(shared_data, file):
    dataset = load_dataset(shared_data / file)
    summary = validate(dataset, list(dataset.lists))
    assert len(summary.cases) == sum(map(len, dataset.lists.values()))
    assert json.dumps(summary.to_json(), allow_nan=False)
