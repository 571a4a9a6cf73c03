import numpy as np
import pytest

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.volumes import Intensity, default_intensity


def test_ct_is_clipped_in_hounsfield_units():
    array = np.array([-3000, -1000, 0, 500, 1000, 3000], np.int16).reshape(1, 1, 1, 6)
    np.testing.assert_allclose(default_intensity("CT").apply(array).ravel(), [0, 0, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize(("modality", "kind"), [
    ("CT", "ct_window"), ("ct", "ct_window"), ("MR", "robust"), ("MRI", "robust"), ("PT", "robust"), ("US", "robust"),
    ("DX", "xray"), ("CR", "xray"), ("X-ray", "xray"), ("unheard of", "robust")])
def test_the_modality_chooses_the_normalisation(modality, kind):
    assert default_intensity(modality).kind == kind


def test_the_background_of_an_mr_image_does_not_count():
    rng = np.random.default_rng(0)
    brain = rng.uniform(100, 200, 10_000)
    small, large = (default_intensity("MR").apply(np.concatenate([brain, np.zeros(air)]).reshape(1, 1, 1, -1))
                    for air in (100, 90_000))
    np.testing.assert_allclose(small.ravel()[:10_000], large.ravel()[:10_000], atol=1e-6)
    assert small.ravel()[-1] == 0


def test_robust_scaling_does_not_depend_on_the_scanners_scale():
    array = np.random.default_rng(0).gamma(2, 3, (1, 4, 30, 30))
    one, other = (default_intensity("MR").apply(array * scale) for scale in (1, 517))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert (one.min(), one.max()) == (0, 1)


def test_one_bright_voxel_does_not_darken_the_image():
    array = np.random.default_rng(0).uniform(0, 100, (1, 10, 30, 30))
    array[0, 0, 0, 0] = 1e6
    assert default_intensity("MR").apply(array).mean() > 0.4


def test_channels_are_scaled_on_their_own():
    array = np.random.default_rng(0).uniform(0, 1, (2, 4, 20, 20))
    array[1] *= 1000
    result = default_intensity("MR").apply(array)
    assert result[0].mean() == pytest.approx(result[1].mean(), abs=0.05)


@pytest.mark.parametrize("modality", ["CT", "MR", "DX"])
def test_nan_and_infinity_become_the_ends_of_the_range(modality):
    array = np.random.default_rng(0).uniform(-900, 900, (1, 4, 20, 20))
    array[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    result = default_intensity(modality).apply(array)
    assert result[0, 0, 0, :3].tolist() == [0, 1, 0]
    assert np.isfinite(result).all()


@pytest.mark.parametrize("value", [0, 7, -1000, np.nan])
@pytest.mark.parametrize("modality", ["MR", "DX"])
def test_an_image_of_one_value_becomes_zero(modality, value):
    assert not default_intensity(modality).apply(np.full((1, 2, 3, 4), value, np.float32)).any()


def test_the_input_is_not_changed_and_the_result_is_float32():
    array = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    before = array.copy()
    assert default_intensity("MR").apply(array).dtype == np.float32
    np.testing.assert_array_equal(array, before)


def test_standardised_weights_get_mean_and_deviation():
    array = np.array([-1000, 1000], np.int16).reshape(1, 1, 1, 2)
    result = Intensity("ct_window", -1000, 1000, mean=0.223, std=0.202).apply(array)
    np.testing.assert_allclose(result.ravel(), [-0.223 / 0.202, 0.777 / 0.202], rtol=1e-5)


def test_none_only_changes_the_type():
    array = np.array([-5, 300], np.int16).reshape(1, 1, 1, 2)
    assert Intensity("none").apply(array).ravel().tolist() == [-5, 300]


def test_it_survives_json():
    intensity = default_intensity("CT")
    assert from_json(Intensity, to_json(intensity)) == intensity


@pytest.mark.parametrize("data", [{"kind": "ct"}, {"kind": "robust", "low": 60, "high": 40}, {"kind": "none", "std": 0},
                                  {"kind": "xray", "high": 101}])
def test_impossible_settings_are_refused(data):
    with pytest.raises(BadInput):
        from_json(Intensity, data)


def test_a_window_of_stored_values_maps_pictures_of_8_bits_to_0_to_1():
    array = np.array([-5, 0, 51, 255, 300], np.int16).reshape(1, 1, 1, 5)
    np.testing.assert_allclose(Intensity("window", 0, 255).apply(array).ravel(), [0, 0, 0.2, 1, 1])


def test_percentiles_0_and_100_are_the_minimum_and_maximum_of_every_voxel():
    array = np.full((1, 1, 2001, 1999), 10.0)
    array[0, 0, 1234, 567], array[0, 0, 1, 2] = 30, -10
    result = Intensity("xray", 0, 100).apply(array)[0, 0]
    assert (result[1234, 567], result[1, 2], result[0, 0]) == (1, 0, 0.5)
