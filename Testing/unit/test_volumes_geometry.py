import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from volume_builders import AXIS_ORDERS, geometries, turned

from medmae.errors import BadInput
from medmae.volumes import Geometry
from medmae.volumes.geometry import SHEAR_TOLERANCE, direction_of_axes


@pytest.mark.parametrize("axes", AXIS_ORDERS)
def test_axes_name_the_direction_of_i_j_k(axes):
    assert Geometry.of((2, 3, 4), (1, 2, 3), axes=axes).axes == axes


@given(st.sampled_from(AXIS_ORDERS), st.tuples(*[st.floats(-0.3, 0.3)] * 3))
def test_axes_are_the_nearest_ones_of_an_oblique_grid(axes, angles):
    assert turned(Geometry.of((2, 3, 4), (5, 2, 0.5), axes=axes), angles).axes == axes


def test_spacing_is_in_array_order():
    assert Geometry.of((2, 3, 4), (5, 2, 0.5), axes="PSR").spacing_mm == pytest.approx((5, 2, 0.5))


@given(geometries(), st.tuples(*[st.floats(-20, 20)] * 3))
def test_world_and_indices_are_inverse(geometry, index):
    np.testing.assert_allclose(geometry.to_indices(geometry.to_world(index)), index, atol=1e-8)


def test_world_of_an_index_follows_the_affine():
    geometry = Geometry.of((5, 6, 7), (3, 2, 1), axes="LPS", origin_mm=(10, 20, 30))
    np.testing.assert_allclose(geometry.to_world((4, 3, 2)), (10 - 2, 20 - 6, 30 + 12))


@given(geometries(min_size=3))
def test_a_crop_keeps_the_place_of_its_voxels(geometry):
    crop = geometry.cropped((1, 0, 2), (2, 3, 1))
    np.testing.assert_allclose(crop.to_world((0.5, 1, 0)), geometry.to_world((1.5, 1, 2)), atol=1e-9)
    assert crop.shape == (2, 3, 1)


def test_closeness_looks_at_the_farthest_voxel_not_at_the_matrix():
    one = Geometry.of((1, 1, 1001), (1, 1, 1))
    affine = one.affine.copy()
    affine[0, 0] += 1e-6
    other = Geometry(one.shape, affine)
    assert not one.is_close(other)
    assert one.is_close(other, tolerance_mm=2e-3)
    assert not one.is_close(Geometry.of((1, 1, 1000), (1, 1, 1)), tolerance_mm=1e9)


@pytest.mark.parametrize(("column", "row"), [(0, 1), (1, 2), (2, 1), (2, 0)])
def test_a_sheared_affine_is_refused_with_its_angle(column, row):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[row, column] = affine[column, column] * np.tan(np.radians(5))
    with pytest.raises(BadInput, match=r"sheared.*5\.0.*degrees"):
        Geometry((2, 2, 2), affine)


@given(st.floats(-0.5, 0.5).filter(lambda shear: abs(shear) > 2 * SHEAR_TOLERANCE), st.sampled_from(AXIS_ORDERS))
def test_every_shear_is_refused_in_every_orientation(shear, axes):
    affine = np.eye(4)
    affine[:3, :3] = direction_of_axes(axes) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 4.0]])
    with pytest.raises(BadInput):
        Geometry((2, 2, 2), affine)


def test_rounding_in_a_header_is_not_a_shear():
    affine = np.eye(4)
    affine[0, 1] = 1e-5
    assert Geometry((2, 2, 2), affine).axes == "RAS"


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_affine_without_size_is_refused(value):
    affine = np.eye(4)
    affine[1, 1] = value
    with pytest.raises(BadInput, match="geometry"):
        Geometry((2, 2, 2), affine)


def test_nobody_can_change_the_affine_of_a_grid():
    with pytest.raises(ValueError, match="read-only"):
        Geometry.of((1, 1, 1), (1, 1, 1)).affine[0, 0] = 2


@pytest.mark.parametrize("axes", ["RA", "RAX", "RLS", "RASI", ""])
def test_an_orientation_that_is_none_is_refused(axes):
    with pytest.raises(ValueError, match="orientation"):
        direction_of_axes(axes)
