import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from volume_builders import AXIS_ORDERS, geometries

from medmae.volumes import Geometry, reorient


def numbered(geometry):
    return np.arange(2 * np.prod(geometry.shape), dtype=np.int32).reshape(2, *geometry.shape)


@given(geometries(), st.sampled_from(AXIS_ORDERS))
def test_turning_there_and_back_gives_the_same_voxels_on_the_same_grid(geometry, axes):
    array = numbered(geometry)
    turned_array, turned_geometry = reorient(array, geometry, axes)
    back, back_geometry = reorient(turned_array, turned_geometry, geometry.axes)
    np.testing.assert_array_equal(back, array)
    assert back_geometry.is_close(geometry, 1e-6)


@given(geometries(), st.sampled_from(AXIS_ORDERS))
def test_the_result_has_the_orientation_asked_for(geometry, axes):
    assert reorient(numbered(geometry), geometry, axes)[1].axes == axes


@given(geometries(), st.sampled_from(AXIS_ORDERS), st.randoms(use_true_random=False))
def test_every_voxel_keeps_its_place_in_the_world(geometry, axes, random):
    array = numbered(geometry)
    turned_array, turned_geometry = reorient(array, geometry, axes)
    index = tuple(random.randrange(size) for size in geometry.shape)
    there = turned_geometry.to_indices(geometry.to_world(index))
    np.testing.assert_allclose(there, np.rint(there), atol=1e-6)
    assert turned_array[(1, *np.rint(there).astype(int))] == array[(1, *index)]


def test_an_image_that_is_turned_already_is_not_changed():
    geometry = Geometry.of((2, 3, 4), (1, 2, 3))
    array = numbered(geometry)
    same, same_geometry = reorient(array, geometry, "RAS")
    np.testing.assert_array_equal(same, array)
    np.testing.assert_array_equal(same_geometry.affine, geometry.affine)


def test_the_result_is_contiguous_so_that_torch_takes_it():
    geometry = Geometry.of((2, 3, 4), (1, 2, 3), axes="SPL")
    assert reorient(numbered(geometry), geometry, "RAS")[0].flags.c_contiguous


def test_it_agrees_with_simpleitk():
    import SimpleITK as sitk

    from medmae.volumes.simpleitk_images import affine_of, image_of

    geometry = Geometry.of((2, 3, 4), (1, 2, 3), axes="SRP", origin_mm=(5, -6, 7))
    array = numbered(geometry)[0]
    array_ras, geometry_ras = reorient(array, geometry, "RAS")
    # SimpleITK names an orientation by where an axis points to, in the same letters.
    oracle = sitk.DICOMOrient(image_of(array, geometry), "RAS")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(oracle), array_ras)
    np.testing.assert_allclose(affine_of(oracle.GetSpacing(), oracle.GetOrigin(), oracle.GetDirection()),
                               geometry_ras.affine, atol=1e-9)
