"""What the class labels of a dataset mean together: one class a case, or a list of those that apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medmae.datasets.dataset import Case, Dataset
from medmae.errors import BadInput


def is_multi_label(dataset: Dataset, cases: Sequence[Case]) -> bool:
    """Whether the labels of `cases` are lists of the classes that apply (an empty list: none of them).

    Raises:
        BadInput: some cases have one class and others a list.
    """
    lists = [case for case in cases if isinstance(case.class_value, tuple)]
    single = [case for case in cases if case.class_value is not None and not isinstance(case.class_value, tuple)]
    if lists and single:
        raise BadInput(
            f"The dataset {dataset.path} gives {_cases(len(single))} one class ({single[0].id}) and "
            f"{_cases(len(lists))} a list of classes ({lists[0].id}). Where several classes may apply together, give "
            "every case a list: [] for none, [\"name\"] for one. Where exactly one applies, give no lists.")
    return bool(lists)


def classes_in(cases: Sequence[Case]) -> Counter[int | str]:
    """How many of `cases` have each stored class value."""
    found: Counter[int | str] = Counter()
    for case in cases:
        if case.class_value is not None:
            found.update(case.class_value if isinstance(case.class_value, tuple) else [case.class_value])
    return found


def check_learnable(dataset: Dataset, training: Sequence[Case], multi_label: bool) -> list[str]:
    """See that classes can be learned from the cases `training`; returns warnings.

    Raises:
        BadInput: the cases do not differ, or a class stands in another labelled list but in no case of the list
            "training".
    """
    if len({case.class_value for case in training}) < 2:
        count = len(training)
        subject = f"All {count} training cases of {dataset.path} are" if count > 1 else (
            f"The only training case taken from {dataset.path} is")
        raise BadInput(f"{subject} {_told(dataset, training[0])}, so there is nothing to tell apart. Take cases of at "
                       "least two classes.")
    names = {value: name for name, value in dataset.labels.items()}
    listed = classes_in(dataset.lists.get("training", ()))
    for key in ("validation", "test"):
        for case in dataset.lists.get(key, ()):
            unseen = [value for value in classes_in([case]) if not listed[value]]
            if unseen:
                raise BadInput(
                    f"The class '{names[int(unseen[0])]}' stands in the list '{key}' of {dataset.path} ({case.id}), "
                    "but no training case has it, so it cannot be learned. Move some of its cases to 'training', or "
                    "take the class out of the dataset.")
    found = classes_in(training)
    warnings = [f"No training case has the class '{name}': its probability will mean nothing."
                for name, value in dataset.labels.items() if not found[value]]
    if multi_label:
        warnings += [f"Every training case has the class '{name}': what it looks like without it cannot be learned."
                     for name, value in dataset.labels.items() if found[value] == len(training)]
    return warnings


def _told(dataset: Dataset, case: Case) -> str:
    names = {value: name for name, value in dataset.labels.items()}
    values = case.class_value if isinstance(case.class_value, tuple) else (case.class_value,)
    told = ", ".join(f"'{names[int(value)]}'" for value in values if value is not None)
    return f"of the class {told}" if told else "without any class"


def _cases(count: int) -> str:
    return f"{count} case{'' if count == 1 else 's'}"
