"""The preview picture of a model: upright, in proportion, cut to what is labelled, and nothing but pixels."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.image import imread

from medmae.models.preview import SIDE, is_transposed, preview_png, upright, without_small_print

RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def read(png):
    picture = imread(io.BytesIO(png), format="png")
    assert picture.shape == (SIDE, SIDE, 3)
    return picture


@pytest.mark.parametrize(("orientation", "axis", "first_row", "first_column"), [
    ("RAS", 0, "A", "R"), ("LPS", 0, "A", "R"), ("RAS", 1, "S", "R"), ("RAS", 2, "S", "A"), ("SAR", 2, "A", "R"),
    ("SAR", 0, "S", "A"), ("ASR", 0, "S", "A"), ("PIR", 1, "A", "R"), ("LIP", 0, "S", "R")])
def test_pictures_are_turned_as_radiologists_look_at_them(orientation, axis, first_row, first_column):
    lefts, posteriors, inferiors = {}, {}, {}
    for number, letter in enumerate(reversed(orientation)):  # how far each voxel lies to the left, behind and below
        way = np.arange(4.0) if letter in "LPI" else np.arange(4.0)[::-1]
        shape = [1, 1, 1]
        shape[number] = 4
        table = {"R": lefts, "L": lefts, "A": posteriors, "P": posteriors}.get(letter, inferiors)
        table["of"] = np.broadcast_to(way.reshape(shape), (4, 4, 4))
    way_of = {"R": lefts["of"], "A": posteriors["of"], "S": inferiors["of"]}
    shown = {letter: upright(way.take(0, axis), orientation, axis) for letter, way in way_of.items()}
    assert shown[first_row][0, 0] < shown[first_row][-1, 0]
    assert shown[first_column][0, 0] < shown[first_column][0, -1]
    letters = [letter for number, letter in enumerate(reversed(orientation)) if number != axis]
    rows_of = {"A": "AP", "S": "SI", "R": "RL"}[first_row]
    assert (letters[1] in rows_of) == is_transposed(orientation, axis)


def test_labels_are_drawn_in_their_colours_where_they_are():
    labels = np.zeros((40, 60), int)
    labels[10:20, 10:20], labels[10:20, 40:50] = 1, 3
    picture = read(preview_png(np.zeros((40, 60)), labels, {1: RED, 3: GREEN}, (1.0, 1.0)))
    left, right = picture[:, :SIDE // 2].sum((0, 1)), picture[:, SIDE // 2:].sum((0, 1))
    assert left[0] > 0 and left[1:].sum() == 0 and right[1] > 0 and right[[0, 2]].sum() == 0
    assert np.allclose(picture.reshape(-1, 3).max(0), [1, 1, 0]), "a line of the full colour around each"
    assert 0.3 < np.median(picture[..., 0][picture[..., 0] > 0]) < 0.5, "the image shows through"


def test_pixels_have_the_size_that_they_have_in_the_patient():
    image = np.zeros((20, 40))
    image[5:15, 10:30] = 1  # 30 mm high, 20 mm wide
    bright = read(preview_png(image, None, {}, (3.0, 1.0)))[..., 0] > 0.5
    height, width = np.ptp(np.argwhere(bright), axis=0) + 1
    assert height / width == pytest.approx(1.5, abs=0.05)
    assert height == pytest.approx(SIDE * 30 / 60, abs=3)


def test_the_picture_is_cut_to_what_is_labelled_but_not_to_less_than_half():
    image = np.random.default_rng(0).normal(size=(200, 200))
    labels = np.zeros((200, 200), int)
    labels[30:40, 30:40] = 1
    picture = read(preview_png(image, labels, {1: RED}, (1.0, 1.0)))
    drawn = np.argwhere((picture[..., 0] == 1) & (picture[..., 1] == 0))
    assert np.ptp(drawn[:, 0]) + 1 == pytest.approx(SIDE * 10 / 100, abs=3), "half of the slice is shown"
    labels[:] = 1
    picture = read(preview_png(image, labels, {1: RED}, (1.0, 1.0)))
    assert (picture[..., 0] > 0.39).all(), "all of it where all of it is labelled"


@pytest.mark.parametrize("shape", [(224, 180), (100, 224, 3), (64, 64), (1, 300)])
def test_what_is_as_small_as_print_is_gone_and_what_is_large_stays(shape):
    strokes = np.zeros(shape)
    strokes[::6, ::6] = 1  # of letters of a thirtieth of the height
    large = np.zeros(shape)
    large[shape[0] // 3:, shape[1] // 3:] = 1
    assert without_small_print(large).shape == shape
    assert np.abs(without_small_print(large) - large).mean() < 0.04
    if max(shape) > 100:
        assert np.ptp(without_small_print(strokes)[8:-8, 8:-8] if min(shape[:2]) > 30 else 0) < 0.3


def test_a_file_has_no_text_in_it():
    png = preview_png(np.zeros((8, 8)), None, {}, (1.0, 1.0))
    chunks, place = [], 8
    while place < len(png):
        length = int.from_bytes(png[place:place + 4], "big")
        chunks.append(png[place + 4:place + 8])
        place += length + 12
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]


@settings(max_examples=30, deadline=None)
@given(plane=arrays.arrays(np.float16, st.tuples(st.integers(1, 9), st.integers(1, 9)),
                           elements=st.floats(-1000, 1000, width=16)),
       is_colour=st.booleans(), down=st.floats(0.01, 50), across=st.floats(0.01, 50), value=st.integers(0, 3))
def test_every_slice_can_be_drawn(plane, is_colour, down, across, value):
    labels = np.full(plane.shape, value)
    image = np.repeat(plane[..., None], 3, -1) if is_colour else plane
    assert np.isfinite(read(preview_png(image, labels, {1: RED, 2: GREEN}, (down, across)))).all()


def test_a_picture_may_be_smaller():
    assert preview_png(np.zeros((40, 60)), None, {}, (1.0, 1.0), side=96)[16:24] == struct.pack(">II", 96, 96)
