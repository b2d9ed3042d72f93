import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from classify.experiment.statistics import (
    corrected_paired_t,
    holm_adjusted,
    minimum_detectable_effect,
    paired_t,
    planned_detectable_effect,
    satterthwaite,
    sign_flip_p,
    single_pair_p,
)
from galaxies.errors import InputError

differences = st.lists(
    st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3)), min_size=2, max_size=12
)


def test_paired_t_equals_scipy(rng: np.random.Generator) -> None:
    values = rng.normal(0.3, 1.0, 9)
    ours, reference = paired_t(values), stats.ttest_1samp(values, 0)
    assert ours.p == pytest.approx(reference.pvalue, rel=1e-10)
    assert ours.interval == pytest.approx(tuple(reference.confidence_interval(0.95)), rel=1e-10)


def test_the_correction_widens_by_the_published_factor(rng: np.random.Generator) -> None:
    values = rng.normal(size=10)
    plain, corrected = paired_t(values), corrected_paired_t(values, test_to_train=1 / 9)
    ratio = corrected.standard_error / plain.standard_error
    assert ratio == pytest.approx(math.sqrt((1 / 10 + 1 / 9) / (1 / 10)), rel=1e-12)


@given(differences)
def test_turning_the_arms_around_turns_the_answer_around(values: list[float]) -> None:
    there, back = paired_t(values), paired_t([-value for value in values])
    assert back.p == pytest.approx(there.p, abs=1e-12)
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]), abs=1e-12)
    assert sign_flip_p([-value for value in values]) == sign_flip_p(values)


@given(differences)
def test_p_is_below_the_level_exactly_where_the_interval_excludes_zero(values: list[float]) -> None:
    estimate = paired_t(values)
    if estimate.standard_error > 0 and abs(estimate.p - 0.05) > 1e-6:
        low, high = estimate.interval
        assert (estimate.p < 0.05) == (low > 0 or high < 0)


def test_equal_differences_fall_back_on_the_sign_flip_test() -> None:
    estimate = paired_t([0.1, 0.1, 0.1])
    assert estimate.p == sign_flip_p([0.1, 0.1, 0.1]) == 0.25
    assert paired_t([0.0, 0.0, 0.0]).p == 1.0


@pytest.mark.parametrize(("repeats", "smallest"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_the_sign_flip_test_cannot_go_below_its_floor(repeats: int, smallest: float) -> None:
    assert sign_flip_p(np.arange(1.0, repeats + 1)) == smallest


def test_the_sign_flip_test_equals_scipy_and_its_sampled_form_agrees(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(0.4, 1.0, 12)
    reference = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(reference.pvalue, abs=1e-12)
    many = rng.normal(0.25, 1.0, 25)
    assert sign_flip_p(many, rng) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)


@settings(max_examples=5)  # the reference takes long
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    reference = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm_adjusted(p_values), reference, atol=1e-12)


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    adjusted = holm_adjusted([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])


@pytest.mark.parametrize(
    ("repeats", "alpha", "expected"),
    [(3, 0.05, 3.27), (5, 0.05, 1.69), (10, 0.05, 1.00), (30, 0.05, 0.53), (10, 0.005, 1.49)],
)
def test_the_detectable_effect_in_standard_deviations(
    repeats: int, alpha: float, expected: float
) -> None:
    found = minimum_detectable_effect(1 / math.sqrt(repeats), repeats - 1, alpha=alpha)
    assert found == pytest.approx(expected, abs=0.012)
    reference = TTestPower().solve_power(nobs=repeats, alpha=alpha, power=0.8)
    assert found == pytest.approx(reference, rel=0.01)


def test_more_images_and_more_repeats_see_smaller_effects() -> None:
    few, many = planned_detectable_effect(21, 10), planned_detectable_effect(86, 10)
    assert 0.08 < many < few < 0.3
    assert planned_detectable_effect(86, 3) > planned_detectable_effect(86, 10)
    assert planned_detectable_effect(0, 10) == math.inf


def test_satterthwaite_of_one_part_is_that_part() -> None:
    assert satterthwaite([(0.3, 7), (0.0, 2)]) == pytest.approx(7)
    assert satterthwaite([(0.1, 4), (0.1, 4)]) == pytest.approx(8)


def test_one_pair_of_networks_is_the_binomial_test_of_its_disagreements() -> None:
    right, baseline = np.zeros(20, bool), np.zeros(20, bool)
    right[:9] = True
    baseline[8:10] = True
    assert single_pair_p(right, baseline) == pytest.approx(stats.binomtest(8, 9).pvalue)
    assert single_pair_p(right, right) == 1.0


def test_too_few_or_undefined_differences_are_refused() -> None:
    with pytest.raises(InputError, match="2 differences"):
        paired_t([0.1])
    with pytest.raises(InputError, match="finite"):
        sign_flip_p([0.1, np.nan])
