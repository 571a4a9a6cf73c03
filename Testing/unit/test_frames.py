"""Values between processes: what goes in comes out, and nothing but data goes in."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medmae.datasets.frames import decode, encode, read_frame, write_frame

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)
numbers = arrays.arrays(st.sampled_from([np.float16, np.float32, np.uint8, np.int64, np.bool_]),
                        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


@given(plain)
def test_plain_values_come_back(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.lists(numbers, max_size=4), st.binary(max_size=9))
def test_arrays_come_back_bit_by_bit_wherever_they_stand(found: list[np.ndarray], rest: bytes) -> None:
    value = decode(encode({"images": [{"array": array} for array in found], "rest": rest}))
    assert value["rest"] == rest
    for sent, received in zip(found, (image["array"] for image in value["images"]), strict=True):
        assert (received.dtype, received.shape) == (sent.dtype, sent.shape)
        assert received.tobytes() == np.ascontiguousarray(sent).tobytes()


@dataclass(frozen=True)
class Pair:
    first: tuple[int, ...]
    second: str


def test_tuples_arrive_as_lists_and_dataclasses_as_their_fields() -> None:
    assert decode(encode((Pair((1, 2), "a"), 3))) == [{"first": [1, 2], "second": "a"}, 3]


def test_names_that_are_no_text_survive() -> None:
    name = b"scan-\xff.png".decode("utf-8", "surrogateescape")
    assert decode(encode(name)) == name


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array([object()]), len, Pair, {"a": {3}}])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        encode(value)


def test_frames_follow_each_other_and_half_a_frame_is_none() -> None:
    stream = io.BytesIO()
    write_frame(stream, b"one")
    write_frame(stream, b"")
    end = stream.tell()
    write_frame(stream, b"three")
    stream.truncate(stream.tell() - 1)
    stream.seek(0)
    assert [read_frame(stream) for _ in range(4)] == [b"one", b"", None, None]
    assert end == 19
