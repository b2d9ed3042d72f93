import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from classify.intervals import clopper_pearson_interval, wilson_interval
from galaxies.errors import InputError

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_the_published_counts_give_the_published_intervals() -> None:
    assert wilson_interval(18, 216) == pytest.approx((0.053, 0.128), abs=5e-4)
    assert clopper_pearson_interval(18, 216) == pytest.approx((0.050, 0.129), abs=1e-3)
    assert wilson_interval(33, 67) == pytest.approx((0.377, 0.609), abs=5e-4)
    assert wilson_interval(0, 67) == pytest.approx((0.0, 0.0542), abs=5e-4)


@given(counts, st.sampled_from([0.68, 0.9, 0.95, 0.99]))
def test_both_equal_scipy(count: tuple[int, int], level: float) -> None:
    successes, trials = count
    reference = stats.binomtest(successes, trials)
    wilson = reference.proportion_ci(level, method="wilson")
    exact = reference.proportion_ci(level, method="exact")
    assert wilson_interval(successes, trials, level) == pytest.approx(tuple(wilson), abs=1e-9)
    assert clopper_pearson_interval(successes, trials, level) == pytest.approx(
        tuple(exact), abs=1e-9
    )


@given(counts)
def test_an_interval_holds_the_proportion_and_mirrors(count: tuple[int, int]) -> None:
    successes, trials = count
    for interval in (wilson_interval, clopper_pearson_interval):
        low, high = interval(successes, trials)
        assert 0 <= low <= successes / trials <= high <= 1
        mirrored = interval(trials - successes, trials)
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_no_trial_says_nothing_and_impossible_counts_are_refused() -> None:
    assert wilson_interval(0, 0) == clopper_pearson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(InputError, match="5 successes of 4"):
        wilson_interval(5, 4)
    with pytest.raises(InputError, match="between 0 and 1"):
        clopper_pearson_interval(1, 4, level=95)
