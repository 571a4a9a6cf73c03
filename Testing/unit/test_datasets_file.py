"""Reading dataset.json: every accepted form, and one message for everything that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmae.datasets import load_dataset
from medmae.errors import BadInput

SEGMENTATION = {
    "name": "liver", "task": "segmentation", "modality": {"0": "CT"}, "labels": {"background": 0, "liver": 1},
    "training": [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz", "subject": "p1"},
                 {"image": "./images/b.nii.gz", "label": "./labels/b.nii.gz", "subject": "p2"}],
    "validation": [{"image": "images/v.nii.gz", "label": "labels/v.nii.gz", "subject": "p3"}],
    "test": ["images/t.nii.gz"],
    "subsets": {"n1": ["images/b.nii.gz"]},
}
CLASSIFICATION = {
    "task": "classification", "channel_names": {"0": "DX"}, "labels": {"normal": 0, "ill": 4, "very ill": 2},
    "training": [{"image": "a.png", "label": 4}, {"image": "b.png", "label": "normal"},
                 {"image": "c.png", "label": ["very ill", 4]}, {"image": "d.png", "label": []}],
}


@pytest.fixture
def write(tmp_path):
    def write(data, name="dataset.json"):
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path
    return write


def changed(base, **changes):
    return {key: value for key, value in {**json.loads(json.dumps(base)), **changes}.items() if value is not ...}


def test_a_segmentation_dataset_is_read_with_paths_beside_the_file(write, tmp_path):
    dataset = load_dataset(write(SEGMENTATION))
    assert (dataset.name, dataset.task, dataset.modalities) == ("liver", "segmentation", ("CT",))
    assert dataset.labels == {"background": 0, "liver": 1} and dataset.foreground == {"liver": 1}
    first, second = dataset.cases("training")
    assert first.id == "images/a" and first.subject == "p1" and first.class_value is None
    assert first.images == (tmp_path / "images/a.nii.gz",) and first.label == tmp_path / "labels/a.nii.gz"
    assert second.id == "images/b"
    assert dataset.cases("test")[0].label is None and dataset.cases("test")[0].subject == "images/t"
    assert [case.id for case in dataset.subset("n1")] == ["images/b"]
    assert dataset.subsets == {"n1": ("images/b.nii.gz",)}


def test_classes_may_be_values_names_or_lists_and_become_stored_values(write):
    dataset = load_dataset(write(CLASSIFICATION))
    assert [case.class_value for case in dataset.cases("training")] == [4, 0, (2, 4), ()]
    assert dataset.labels == {"normal": 0, "very ill": 2, "ill": 4}
    assert dataset.class_of_value == {0: 0, 2: 1, 4: 2}
    assert dataset.foreground == dataset.labels


@pytest.mark.parametrize("labels", [{"0": "background", "255": "lung", "1": "heart"},
                                    {"lung": 255, "heart": 1, "background": 0}, {"lung": 255, "heart": 1}])
def test_labels_are_read_in_both_directions_with_the_background_first(write, labels):
    dataset = load_dataset(write(changed(SEGMENTATION, labels=labels)))
    assert list(dataset.labels.items()) == [("background", 0), ("heart", 1), ("lung", 255)]
    assert dataset.background == "background" and dataset.class_of_value == {0: 0, 1: 1, 255: 2}


def test_a_background_with_another_value_comes_first(write):
    dataset = load_dataset(write(changed(SEGMENTATION, labels={"liver": 3, "background": 9})))
    assert list(dataset.labels) == ["background", "liver"]


@pytest.mark.parametrize(("changes", "task"), [
    ({"task": ...}, "segmentation"),
    ({"task": ..., "training": [{"image": "a.png", "label": 1}], "validation": [], "subsets": {}}, "classification"),
    ({"task": ..., "training": [{"image": "a.png", "label": "liver"}], "validation": [], "subsets": {}},
     "classification"),
    ({"task": ..., "labels": ..., "training": ["a.png"], "validation": [], "subsets": {}}, None),
])
def test_a_missing_task_follows_from_the_labels(write, changes, task):
    assert load_dataset(write(changed(SEGMENTATION, **changes))).task == task


@pytest.mark.parametrize(("given", "codes"), [
    ({"modality": {"0": "MRI"}}, ("MR",)), ({"modality": "x-ray"}, ("DX",)),
    ({"channel_names": ["CT", "PET"]}, ("CT", "PT")),
    ({"channel_names": {"1": "T1w", "0": "FLAIR"}}, ("MR", "MR")), ({}, ("OT", "OT")),
    ({"modality": {"0": "MRI"}, "channel_names": {"0": "MR"}}, ("MR",)),
])
def test_modalities_become_dicom_codes(write, given, codes):
    data = changed(SEGMENTATION, modality=..., training=[{"image": ["a_0.nii", "a_1.nii"], "label": "a_s.nii"}],
                   validation=[], test=[], subsets={}, **given) if len(codes) == 2 else changed(
                   SEGMENTATION, **{"modality": ..., **given})
    assert load_dataset(write(data)).modalities == codes


def test_the_files_of_decathlon_and_of_monai_with_their_other_keys_are_accepted(write):
    data = changed(SEGMENTATION, description="x", relase="1.0", tensorImageSize="3D", numTraining=2, numTest=1,
                   reference="y", licence="z", fold_names=["a"])
    data["training"][0]["fold"] = 3
    assert len(load_dataset(write(data)).cases("training")) == 2


def test_any_other_list_is_a_list_and_unlabelled_is_unlabeled(write):
    dataset = load_dataset(write(changed(SEGMENTATION, holdout=["h.nii"], unlabelled=["u.nii"])))
    assert set(dataset.lists) == {"training", "validation", "test", "holdout", "unlabeled"}
    with pytest.raises(BadInput, match="no list 'val'.*training, validation"):
        dataset.cases("val")
    with pytest.raises(BadInput, match="no subset 'n4'.*n1"):
        dataset.subset("n4")
    with pytest.raises(BadInput, match="not in the list 'validation'"):
        dataset.subset("n1", "validation")


def test_a_folder_with_a_dataset_file_is_enough(write, tmp_path):
    write(SEGMENTATION)
    assert load_dataset(tmp_path).name == "liver"
    (tmp_path / "dataset.json").rename(tmp_path / "other.json")
    with pytest.raises(BadInput, match=r"no dataset.json.*other\.json"):
        load_dataset(tmp_path)


def test_ids_keep_the_extension_only_where_two_images_would_share_one(write):
    images = ["x/a.nii.gz", "x/a.png", "../y/b.v2.nii"]
    data = changed(SEGMENTATION, training=[], validation=[], subsets={}, test=images)
    assert [case.id for case in load_dataset(write(data)).cases("test")] == ["x/a.nii.gz", "x/a.png", "y/b.v2"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"labels": ...}, "'labels' is missing"),
    ({"labels": {"background": 0, "liver": 0}}, "value 0 to several names"),
    ({"labels": {"0": "liver", "1": "liver"}}, "'liver' twice"),
    ({"labels": {"background": 0, "whole": [1, 2]}}, "one whole number"),
    ({"labels": {"background": 0, "liver": 1.5}}, "one whole number"),
    ({"labels": {"background": 0, "liver": True}}, "one whole number"),
    ({"task": "detection"}, "'segmentation' or 'classification'"),
    ({"taks": "segmentation"}, "probably 'task' is meant"),
    ({"trainin": 3}, "probably 'training' is meant"),
    ({"training": {"image": "a"}}, "must be a list"),
    ({"training": [{"imge": "a.nii", "image": "b.nii"}], "subsets": {}}, "probably 'image' is meant"),
    ({"training": [{"image": 3}], "subsets": {}}, "'image' must be a path"),
    ({"training": [7], "subsets": {}}, "neither an object nor a path"),
    ({"training": [{"image": "a.nii", "label": 3}], "subsets": {}}, "not the path of a label map"),
    ({"training": [{"image": "a.nii", "subject": ""}], "subsets": {}}, "'subject' must be text"),
    ({"training": ["a.nii", "./a.nii"], "subsets": {}}, "stands 2 times"),
    ({"training": [{"image": "a.nii", "id": "../x"}], "subsets": {}}, "must be a plain name"),
    ({"training": [{"image": "a.nii", "id": "/x"}], "subsets": {}}, "must be a plain name"),
    ({"training": [{"image": "a.nii", "id": "C:\\x"}], "subsets": {}}, "must be a plain name"),
    ({"training": [{"image": "a.nii", "id": "x"}, {"image": "b.nii", "id": "x"}], "subsets": {}}, "same id 'x'"),
    ({"subsets": {"n1": ["images/zzz.nii.gz"]}}, "images/zzz.nii.gz, which is in no list"),
    ({"subsets": {"n1": []}}, "must be a list of image paths"),
    ({"modality": {"1": "CT"}}, "must number its channels"),
    ({"channel_names": {"0": "MR"}}, "say different things"),
    ({"modality": {"0": "CT", "1": "PT", "2": "PT"}, "training": [{"image": ["a.nii", "b.nii"]}], "subsets": {},
      "validation": [], "test": []}, "3 channels are declared"),
])
def test_what_is_wrong_is_named(write, changes, message):
    with pytest.raises(BadInput, match=message):
        load_dataset(write(changed(SEGMENTATION, **changes)))


def test_an_unknown_class_is_named_with_the_known_ones(write):
    with pytest.raises(BadInput, match=r"'sick' is not in 'labels' \(normal \(0\)"):
        load_dataset(write(changed(CLASSIFICATION, training=[{"image": "a.png", "label": "sick"}])))
    for wrong in (True, 4.0, 1):
        with pytest.raises(BadInput, match="is not in 'labels'"):
            load_dataset(write(changed(CLASSIFICATION, training=[{"image": "a.png", "label": wrong}])))


def test_all_problems_are_in_one_message(write):
    with pytest.raises(BadInput) as caught:
        load_dataset(write(changed(SEGMENTATION, task="x", labels={"a": 1, "b": 1}, training=[7, {"image": None}],
                                   subsets={"n": ["q"]})))
    for part in ("5 problems", "'task'", "value 1", "item 1", "item 2", "names q"):
        assert part in str(caught.value)


def test_a_subject_or_image_on_two_sides_of_a_split_is_refused(write):
    for other in ("validation", "test", "holdout"):
        data = changed(SEGMENTATION, **{other: [{"image": "images/new.nii.gz", "subject": "p1"}]})
        with pytest.raises(BadInput, match=f"subject 'p1' is in training and in {other}"):
            load_dataset(write(data))
    data = changed(SEGMENTATION, test=[{"image": "images/a.nii.gz", "subject": "somebody else"}])
    with pytest.raises(BadInput, match="image .*a.nii.gz' is in training and in test"):
        load_dataset(write(data))
    shared = changed(SEGMENTATION, unlabeled=[{"image": "images/more.nii.gz", "subject": "p1"}])
    assert load_dataset(write(shared)).cases("unlabeled")[0].subject == "p1"
    with pytest.raises(BadInput, match="test and in unlabeled"):
        load_dataset(write(changed(SEGMENTATION, unlabeled=["images/t.nii.gz"])))


def test_a_key_given_twice_is_an_error_and_not_a_lost_list(write):
    with pytest.raises(BadInput, match="'training' stands twice"):
        load_dataset(write('{"training": ["a.nii"], "training": ["b.nii"]}'))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "\x00\x01"])
def test_a_file_that_is_no_dataset_is_refused(write, text):
    with pytest.raises(BadInput, match=r"dataset\.json"):
        load_dataset(write(text))
    with pytest.raises(BadInput, match="does not exist"):
        load_dataset("nowhere.json")


JSON = st.recursive(st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False) | st.text(max_size=4)
                    | st.sampled_from(["a.png", "b.png", "liver", "background"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["image", "label", "subject", "id", "0", "1", "liver"]), inner, max_size=3),
                    max_leaves=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*SEGMENTATION, "channel_names", "unlabeled", "extra"]), JSON), st.booleans())
def test_whatever_the_json_holds_it_is_read_or_refused_but_never_a_crash(write, data, on_top):
    try:
        dataset = load_dataset(write({**SEGMENTATION, **data} if on_top else data))
    except BadInput as error:
        assert "dataset.json" in str(error)
        return
    for key in dataset.lists:
        for case in dataset.cases(key):
            assert case.id and case.subject and case.images
    assert len(set(dataset.labels.values())) == len(dataset.labels)


names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names.filter(lambda name: name.lower() != "background"), st.integers(1, 60000), min_size=1,
                       max_size=6), st.booleans())
def test_any_label_map_survives_both_directions(write, labels, by_value):
    distinct = {name: value for value, name in {value: name for name, value in labels.items()}.items()}
    raw = {str(value): name for name, value in distinct.items()} if by_value else distinct
    dataset = load_dataset(write(changed(SEGMENTATION, labels=raw)))
    assert dataset.labels == {"background": 0, **distinct}
    assert list(dataset.labels.values()) == sorted(dataset.labels.values())


def test_importing_datasets_and_metrics_loads_nothing_heavy():
    code = ("import sys, medmae.datasets, medmae.metrics; "
            "print([name for name in ('torch', 'SimpleITK', 'monai', 'scipy') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_shared_dataset_is_read(shared_data):
    files = sorted(shared_data.glob("*/dataset*.json"))
    assert len(files) >= 7
    for file in files:
        dataset = load_dataset(file)
        assert all(dataset.cases(key) for key in ("training", "validation", "test"))
        assert all(dataset.subset(name) for name in dataset.subsets)
        assert all(path.exists() for found in dataset.lists.values() for case in found for path in case.images)


@pytest.mark.parametrize(("labels", "message"), [
    ({"background": 0, "organ": -3}, "'organ' the value -3"),
    ({"background": 255, "organ": 0}, "'organ' the value 0"),
    ({"organ": -1}, "'organ' the value -1"), ({"background": 0, "organ": 2**31}, "2147483648"),
])
def test_values_that_label_maps_cannot_hold_are_refused_before_anything_is_computed(write, labels, message):
    with pytest.raises(BadInput, match=message):
        load_dataset(write(changed(SEGMENTATION, labels=labels)))


def test_classes_may_have_negative_values(write):
    assert load_dataset(write(changed(CLASSIFICATION, labels={"no": -1, "yes": 1}, training=[]))).labels == {
        "no": -1, "yes": 1}


def test_labels_may_bring_the_colours_and_terms_that_a_model_shows(write):
    from medmae.models.labels import model_labels

    terms = {"category": ["SCT", "1", "Structure"], "type": ["SCT", "2", "Lobe"]}
    dataset = load_dataset(write(changed(SEGMENTATION, labels={"background": 0, "liver": 1, "lobe": 2},
                                         looks={"lobe": {"color": [0.1, 0.2, 1], "terminology": terms}})))
    background, liver, lobe = model_labels(dataset.labels, dataset.looks)
    assert lobe == {"name": "lobe", "value": 2, "color": [0.1, 0.2, 1], "terminology": terms}
    assert [background, liver] == model_labels(dataset.labels)[:2]


@pytest.mark.parametrize(("looks", "message"), [
    ({"spleen": {"color": [0, 0, 1]}}, "spleen"), ([], "'looks' must give"), ({"liver": "red"}, "'looks' must give"),
    ({"liver": {"color": [0, 0, 2]}}, "three numbers from 0 to 1"), ({"liver": {"color": [True, 0, 0]}}, "three num"),
    ({"liver": {"terminology": {"type": ["SCT", "2"]}}}, "lists of scheme, code and meaning")])
def test_looks_that_nobody_can_show_are_told(write, looks, message):
    with pytest.raises(BadInput, match=message):
        load_dataset(write(changed(SEGMENTATION, looks=looks)))
