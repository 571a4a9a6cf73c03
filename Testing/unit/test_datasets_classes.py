"""Classes of a dataset: what is refused before training, what is only warned of."""

from __future__ import annotations

import json

import pytest

from medmae.datasets import load_dataset
from medmae.datasets.classes import check_learnable, classes_in, is_multi_label
from medmae.errors import BadInput


def dataset(tmp_path, training, validation=(), test=(), labels=None):
    lists = {key: [{"image": f"{key}{n}.png", "label": label} for n, label in enumerate(found)]
             for key, found in (("training", training), ("validation", validation), ("test", test))}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"task": "classification", "modality": "US", **lists,
                                "labels": labels or {"normal": 3, "benign": -1, "malignant": 90}}))
    return load_dataset(path)


def checked(data):
    cases = data.cases("training")
    return check_learnable(data, cases, is_multi_label(data, cases))


def test_one_class_each_and_lists_are_told_apart_and_not_mixed(tmp_path):
    single = dataset(tmp_path, ["normal", 90])
    assert not is_multi_label(single, single.cases("training"))
    lists = dataset(tmp_path, [["normal"], []])
    assert is_multi_label(lists, lists.cases("training"))
    mixed = dataset(tmp_path, ["normal", ["benign"]])
    with pytest.raises(BadInput, match=r"training0.*training1.*give every case a list"):
        is_multi_label(mixed, mixed.cases("training"))


def test_classes_that_no_training_case_has_are_refused_where_they_are_to_be_found(tmp_path):
    for key in ("validation", "test"):
        data = dataset(tmp_path, ["normal", "benign"], **{key: ["normal", "malignant"]})
        with pytest.raises(BadInput, match=f"'malignant' stands in the list '{key}' .*{key}1"):
            checked(data)
    data = dataset(tmp_path, [["normal"], []], validation=[["benign"]])
    with pytest.raises(BadInput, match="'benign'"):
        checked(data)
    (warning,) = checked(dataset(tmp_path, ["normal", "benign"], ["benign"]))
    assert "'malignant'" in warning


def test_a_few_drawn_cases_may_lack_a_class_that_others_have(tmp_path):
    data = dataset(tmp_path, ["normal", "benign", "malignant"], ["malignant"])
    (warning,) = check_learnable(data, data.cases("training")[:2], False)
    assert "malignant" in warning


def test_cases_that_do_not_differ_are_refused(tmp_path):
    with pytest.raises(BadInput, match="of the class 'benign'.*at least two classes"):
        checked(dataset(tmp_path, ["benign", -1]))
    with pytest.raises(BadInput, match="without any class"):
        checked(dataset(tmp_path, [[], []]))
    with pytest.raises(BadInput, match="'normal'"):
        checked(dataset(tmp_path, [["normal", "benign"], ["benign", "normal"]]))


def test_a_class_that_all_have_is_warned_of(tmp_path):
    data = dataset(tmp_path, [["normal"], ["normal", "benign"]], labels={"normal": 0, "benign": 1})
    (warning,) = checked(data)
    assert "Every training case" in warning and "'normal'" in warning
    assert classes_in(data.cases("training")) == {0: 2, 1: 1}


def test_a_single_case_is_refused_in_the_singular(tmp_path):
    data = dataset(tmp_path, ["normal", "benign"])
    with pytest.raises(BadInput, match="The only training case .* is of the class 'normal'"):
        check_learnable(data, data.cases("training")[:1], False)


def test_stored_values_may_be_written_as_text_but_names_come_first(tmp_path):
    path = tmp_path / "dataset.json"
    items = [{"image": f"{n}.png", "label": label} for n, label in enumerate(["0", "1", 1, "no"])]
    path.write_text(json.dumps({"labels": {"no": 0, "yes": 1}, "training": items}))
    data = load_dataset(path)
    assert data.task == "classification" and [case.class_value for case in data.cases("training")] == [0, 1, 1, 0]
    path.write_text(json.dumps({"labels": {"1": 0, "0": 1}, "task": "classification", "training": items[:2]}))
    assert [case.class_value for case in load_dataset(path).cases("training")] == [1, 0]
