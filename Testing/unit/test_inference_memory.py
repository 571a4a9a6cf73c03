"""Sizes as people write them, and what the process holds."""

from __future__ import annotations

import mmap
import subprocess
import sys

import numpy as np
import pytest

from medmae.errors import BadInput
from medmae.inference import memory
from medmae.inference.memory import (
    Growth,
    available_bytes,
    format_memory,
    parse_memory,
    peak_bytes,
    resident_bytes,
    return_freed_memory,
)

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("text, size", [
    ("4GB", 4 * 10**9), ("3.5 gb", 3_500_000_000), ("800MB", 800 * 10**6), ("2GiB", 2 * 2**30), ("1.5 MiB", 3 * 2**19),
    ("12345", 12345), (" 16G ", 16 * 10**9), (".5gb", 5 * 10**8),
])
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "GB", "four GB", "4 XB", "-1GB", "0GB", "1,5GB", "nan", "1e9"])
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(BadInput, match="for example 4GB"):
        parse_memory(text)


def test_sizes_are_written_so_that_they_can_be_read_back_and_are_never_too_low_by_much():
    for size in (1, 999_999, 640 * 10**6, 999_400_000, 2_149_000_000, 31_000_000_000):
        assert abs(parse_memory(format_memory(size)) - size) <= max(size * 0.05, 10**6)
    assert format_memory(2_100_000_000) == "2.1 GB" and format_memory(640 * 10**6) == "640 MB"


def new_pages(size):
    """An array in memory that is new to the process, not what an allocator kept of earlier tests."""
    array = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    array[:] = 1
    return array


def test_the_process_sees_what_it_takes_and_its_peak():
    before = resident_bytes()
    array = new_pages(40_000_000)
    held = resident_bytes()
    assert 35_000_000 < held - before < 60_000_000
    del array
    assert peak_bytes() >= held - 1_000_000
    assert available_bytes() is None or available_bytes() > 10**8


@pytest.mark.parametrize("can_reset", [True, False])
def test_growth_of_a_piece_of_work_is_measured_and_the_peak_of_all_is_kept(can_reset, monkeypatch):
    if not can_reset:
        monkeypatch.setattr(memory, "_reset_system_peak", lambda: False)
    large = new_pages(150_000_000)
    peak = peak_bytes()
    del large
    with Growth() as growth:
        for _ in range(3):
            array = new_pages(60_000_000)
            np.sort(array[:2_000_000])  # time for a look
            del array
    assert 50_000_000 < growth.bytes < 90_000_000
    assert peak_bytes() >= peak - 2_000_000  # the system counts pages of each thread in batches
    with Growth() as growth:
        pass
    assert growth.bytes < 5_000_000


CHURN = """
import sys
import numpy as np
from medmae.inference import memory
if sys.argv[1] == "returned":
    assert memory.return_freed_memory()
rng, kept = np.random.default_rng(0), []
for round in range(60):
    block = np.ones(int(rng.integers(2, 30)) * 1_000_000, np.uint8)
    kept.append(np.ones(20_000, np.uint8))  # small ones in between keep the heap from shrinking
    del block
print(memory.resident_bytes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is that of Linux")
def test_freed_blocks_go_back_to_the_system():
    if not return_freed_memory():
        pytest.skip("this Linux has another C library than glibc, to which the setting belongs")
    held = {way: int(subprocess.run([sys.executable, "-c", CHURN, way], check=True, capture_output=True).stdout)
            for way in ("kept", "returned")}
    assert held["returned"] < held["kept"] - 10_000_000
