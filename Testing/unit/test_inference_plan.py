"""Plans: what is told before an image is segmented, and how a limit of memory is kept."""

from __future__ import annotations

import dataclasses

import pytest

from medmae.errors import BadInput
from medmae.inference.memory import parse_memory
from medmae.inference.plan import Work, duration, estimated_peak, plan

WORK = Work(held_bytes=800_000_000, prepared=(1, 240, 240, 240), wanted=(slice(0, 240),) * 3, stored=(400, 512, 512),
            target=(400, 512, 512), window=(96, 96, 96), overlap=0.5, batch=1, members=1, mirrored_axes=0, features=14,
            classes=14)


def passes(window, batch):
    """A network that takes 300 bytes a voxel."""
    return 300 * window[0] * window[1] * window[2] * batch


def halved(window):
    return tuple(side // 2 for side in window) if window[0] > 32 else None


def test_the_plan_says_windows_passes_and_memory():
    text = str(plan(WORK, passes))
    assert text.startswith("64 windows, peak ") and text.endswith(" GB")
    mirrored = plan(dataclasses.replace(WORK, mirrored_axes=3), passes)
    assert str(mirrored).startswith("64 windows, 8 passes each (mirroring), peak ")
    both = plan(dataclasses.replace(WORK, mirrored_axes=3, members=5), passes)
    assert str(both).startswith("64 windows, 40 passes each (mirroring and 5 models), peak ")


def test_time_is_told_once_windows_were_timed():
    timed = plan(dataclasses.replace(WORK, mirrored_axes=3), passes).timed(4, 11.25)
    assert timed.seconds == 180
    assert ", about 3 min, peak " in str(timed)


@pytest.mark.parametrize("seconds, text", [(0.2, "1 s"), (40, "40 s"), (100, "2 min"), (7800, "2 h 10 min")])
def test_times_are_written_for_people(seconds, text):
    assert duration(seconds) == text


def test_two_dimensional_networks_count_windows_of_every_slice():
    work = dataclasses.replace(WORK, window=(224, 224), wanted=(slice(10, 30), slice(0, 240), slice(0, 240)))
    assert plan(work, lambda window, batch: 10**8).windows == 20 * 4
    fitted = dataclasses.replace(work, prepared=(1, 240, 200, 224),
                                 wanted=(slice(0, 240), slice(0, 200), slice(0, 224)))
    assert plan(fitted, lambda window, batch: 10**8).windows == 240


def test_without_a_limit_nothing_is_given_up_and_one_pass_is_measured():
    asked = []

    def measured(window, batch):
        asked.append((window, batch))
        return passes(window, batch)

    made = plan(dataclasses.replace(WORK, batch=4), measured)
    assert (made.batch, made.window, made.spill, made.given_up) == (4, (96, 96, 96), False, ())
    assert asked == [((96, 96, 96), 4)]


def test_a_tighter_limit_gives_up_more_step_by_step():
    work = dataclasses.replace(WORK, batch=4)
    peaks = [estimated_peak(work, (96, 96, 96), batch, passes((96, 96, 96), batch), spill=False) for batch in (4, 2, 1)]
    spilled = estimated_peak(work, (96, 96, 96), 1, passes((96, 96, 96), 1), spill=True)
    smaller = estimated_peak(work, (48, 48, 48), 4, passes((48, 48, 48), 4), spill=False)
    assert peaks[0] > peaks[1] > peaks[2] > spilled > smaller
    found = [plan(work, passes, limit=limit, smaller=halved) for limit in (*peaks, spilled, smaller)]
    assert [(one.window[0], one.batch, one.spill) for one in found] == [
        (96, 4, False), (96, 2, False), (96, 1, False), (96, 1, True), (48, 4, False)]
    assert "volumes in temporary files" in str(found[3]) and "windows of 48 x 48 x 48" in str(found[4])
    assert all(one.estimated_peak_bytes <= one.limit for one in found)


def test_a_limit_that_cannot_be_kept_is_refused_with_the_smallest_that_can():
    with pytest.raises(BadInput, match=r"Raise the limit to ([\d.]+ [MG]B)") as caught:
        plan(WORK, passes, limit=900_000_000, smaller=halved)
    least = parse_memory(str(caught.value).split("Raise the limit to ")[1].split(" or more")[0])
    plan(WORK, passes, limit=least, smaller=halved)
    with pytest.raises(BadInput):
        plan(WORK, passes, limit=int(least * 0.9), smaller=halved)


@pytest.mark.parametrize("constant", [0, 50_000_000, 250_000_000])
def test_windows_are_shrunk_only_where_larger_ones_do_not_fit_and_those_are_not_even_tried(constant):
    asked = []

    def measured(window, batch):
        asked.append(window)
        return constant + passes(window, batch)

    for tried, sides in enumerate(((48, 48, 48), (96, 96, 96)), start=1):
        asked.clear()
        limit = estimated_peak(WORK, sides, 1, constant + passes(sides, 1), spill=True, returned=True)
        assert plan(WORK, measured, limit=limit, smaller=halved).window == sides
        assert asked == [(24, 24, 24), (48, 24, 24), (48, 48, 48), (96, 96, 96)][:tried + 2]
        assert plan(WORK, measured, limit=limit - 1, smaller=halved).window < sides


def test_a_pass_that_took_less_than_a_smaller_one_is_no_hope_for_larger_ones():
    """As with the slow convolutions of small single windows in fp32."""
    asked = []

    def measured(window, batch):
        asked.append(window)
        return 2 * passes((48, 24, 24), 1) if window == (24, 24, 24) else passes(window, batch)

    limit = estimated_peak(WORK, (48, 48, 48), 1, passes((48, 48, 48), 1), spill=True, returned=True)
    assert plan(WORK, measured, limit=limit, smaller=halved).window == (48, 48, 48)
    assert (96, 96, 96) not in asked


def test_memory_hardly_grows_with_the_length_of_the_scan_and_not_with_classes_beyond_the_features():
    def peak(work, spill):
        return estimated_peak(work, work.window, work.batch, 0, spill=spill)

    longer = dataclasses.replace(WORK, prepared=(1, 480, 240, 240), wanted=(slice(0, 480), *WORK.wanted[1:]),
                                 stored=(800, 512, 512), target=(800, 512, 512))
    volumes = 240**3 * 4 + 400 * 512**2
    assert peak(longer, spill=False) - peak(WORK, spill=False) <= volumes * 1.05
    assert peak(longer, spill=True) - peak(WORK, spill=True) < 10**6
    many = dataclasses.replace(WORK, classes=118)
    assert peak(many, spill=False) == peak(WORK, spill=False)
