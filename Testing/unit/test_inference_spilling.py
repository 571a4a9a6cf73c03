"""Arrays in temporary files: values stay, memory is given back, nothing is left behind."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from medmae.inference.memory import Growth, resident_bytes
from medmae.inference.spilling import SpilledArrays
from medmae.inference.windows import least_values


def test_values_stay_when_their_pages_are_dropped(tmp_path):
    with SpilledArrays(tmp_path) as spilled:
        one, two = spilled.empty((3, 200, 300), np.float32), spilled.empty((50,), np.int16)
        assert not one.any() and one.flags.writeable
        one[...] = np.arange(180_000).reshape(one.shape)
        two[...] = 7
        spilled.forget()
        assert np.array_equal(one.ravel(), np.arange(180_000)) and (two == 7).all()
    assert (two == 7).all()  # also after the end, as long as the array is held
    assert list(tmp_path.iterdir()) == []


def test_an_array_without_voxels_is_possible(tmp_path):
    assert SpilledArrays(tmp_path).empty((0, 3), np.uint8).shape == (0, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts resident memory in /proc")
def test_dropped_pages_do_not_count():
    with SpilledArrays() as spilled:
        before = resident_bytes()
        array = spilled.empty((80_000_000,), np.uint8)
        array[...] = 1
        assert resident_bytes() - before > 70_000_000
        spilled.forget()
        assert resident_bytes() - before < 10_000_000
        assert int(array[::1000].sum()) == 80_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts resident memory in /proc")
def test_the_least_values_of_a_prepared_volume_are_found_without_holding_it():
    with SpilledArrays() as spilled:
        array = spilled.empty((2, 50, 400, 500), np.float32)
        array[0], array[1] = 3, 5
        array[1, 20, 30, 40] = -2
        spilled.forget()
        with Growth() as growth:
            assert least_values(array, spilled.forget) == [3, -2]
        assert growth.bytes < 20_000_000 < array.nbytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file system of a known size")
def test_a_full_disk_is_told_at_once():
    with pytest.raises(OSError), SpilledArrays() as spilled:
        spilled.empty((2**60,), np.uint8)
