"""The logic recommends what the page "Train" recommends, and measures the run that it would start."""

from __future__ import annotations

import pytest

from medmae.errors import BadInput


def _of(recommended, key):
    return next(setting for setting in recommended.settings if setting.key == key)


def test_the_console_is_told_what_the_panel_shows(train_page, starting_logic, small_project):
    found, shown = starting_logic.recommend(small_project), train_page.settings._settings
    assert (found.network.method, found.network.preset) == train_page.start.network
    assert list(found.settings) == shown and _of(found, "modality").shown == "CT"


def test_another_computer_and_another_network_have_other_settings(starting_logic, small_project, home):
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    add_target(Target("gpu-box", "ssh", host="gpu.example", folder="medmae", gpus=1))
    here = starting_logic.recommend(small_project, "pretraining", device="cpu")
    there = starting_logic.recommend(small_project, "pretraining", target="gpu-box")
    assert (here.network.preset, there.network.preset) == ("tiny-hybrid", "small")
    assert int(_of(there, "steps").shown) > int(_of(here, "steps").shown)
    slices = starting_logic.recommend(small_project, method="vis-mae")
    assert (slices.network.method, slices.network.preset) == ("vis-mae", "tiny")
    assert all(setting.key != "spacing_mm" for setting in slices.settings), "slices are not resampled to a spacing"


@pytest.mark.parametrize("wrong", [{"encoder": "nobody"}, {"target": "nowhere"}])
def test_what_is_not_there_is_refused(starting_logic, small_project, home, wrong):
    with pytest.raises(BadInput, match=next(iter(wrong.values()))):
        starting_logic.recommend(small_project, **wrong)
    with pytest.raises(BadInput, match=next(iter(wrong.values()))):
        starting_logic.measure(small_project, **wrong)
