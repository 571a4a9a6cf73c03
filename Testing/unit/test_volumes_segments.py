import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.volumes import Segment, default_color, default_segments
from medmae.volumes.terminology import color_of, from_slicer_text, terminology_of, to_slicer_text

words = st.text(st.characters(codec="utf-8", exclude_characters="~^|\r\n", exclude_categories=("C",)), min_size=1)
terms = st.lists(words, min_size=3, max_size=3)


@pytest.mark.parametrize(("name", "code", "side"), [
    ("liver", "10200004", None), ("Liver", "10200004", None), ("left kidney", "64033007", "Left"),
    ("kidney_right", "64033007", "Right"), ("LeftKidney", "64033007", "Left"), ("Lung R", "39607008", "Right"),
    ("tumour", "4147007", None), ("Hippocampus", "5366008", None), ("left ventricle", "87878005", None)])
def test_common_structures_get_their_snomed_code_and_side(name, code, side):
    terminology = terminology_of(name)
    assert terminology["type"][:2] == ["SCT", code]
    assert terminology.get("type_modifier", [None] * 3)[2] == side


@pytest.mark.parametrize("name", ["structure 7", "", "liver tumour near the kidney", "left", "Anterior"])
def test_unknown_names_get_no_code(name):
    assert terminology_of(name) is None
    assert color_of(name) is None


@given(st.fixed_dictionaries({"category": terms, "type": terms}, optional={
    "type_modifier": terms, "region": terms, "region_modifier": terms}))
def test_slicers_text_form_gives_the_terms_back(terminology):
    assert from_slicer_text(to_slicer_text(terminology)) == terminology


def test_plain_tissue_means_no_terms():
    assert from_slicer_text(to_slicer_text(None)) is None
    assert from_slicer_text("nonsense") is None


def test_the_first_colours_are_far_apart_and_in_range():
    colors = [default_color(index) for index in range(1, 13)]
    assert all(0 <= part <= 1 for color in colors for part in color)
    distances = [sum((a - b) ** 2 for a, b in zip(one, two, strict=True)) ** 0.5
                 for one, two in itertools.combinations(colors, 2)]
    assert min(distances) > 0.1
    assert len({default_color(index) for index in range(1, 120)}) > 110


def test_segments_of_a_label_map_leave_the_background_out_and_are_sorted():
    segments = default_segments({"background": 0, "spleen": 5, "liver": 1, "what": 3})
    assert [(segment.name, segment.value) for segment in segments] == [("liver", 1), ("what", 3), ("spleen", 5)]
    assert segments[1].terminology is None
    assert len({segment.color for segment in segments}) == 3


def test_left_and_right_get_different_colours():
    left, right = default_segments({"left kidney": 1, "right kidney": 2})
    assert left.color != right.color


@pytest.mark.parametrize(("value", "color"), [(0, (1, 0, 0)), (-1, (1, 0, 0)), (1, (255, 0, 0)), (1, (1, 0))])
def test_an_impossible_segment_is_refused(value, color):
    with pytest.raises(ValueError, match="segment"):
        Segment("a", value, color)
