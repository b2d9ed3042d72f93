import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.experiment.comparison import detectable_in_family
from classify.experiment.statistics import minimum_detectable_effect, student_estimate
from classify.experiment.verdict import (
    ClaimRule,
    in_points,
    interval_in_points,
)

RULE = ClaimRule(level=0.05, smallest_effect=0.02, sharp_enough=0.05)


@pytest.mark.parametrize(
    ("difference", "error", "claim"),
    [
        (0.10, 0.02, "helped"),
        (-0.10, 0.02, "harmed"),
        (0.03, 0.012, "too small to tell"),  # significant, but may be below what matters
        (0.00, 0.005, "no detectable effect"),  # inside the region
        (0.005, 0.012, "no detectable effect"),  # could have seen 5 points, did not
        (0.06, 0.05, "too small to tell"),
    ],
)
def test_each_answer_has_its_case(difference: float, error: float, claim: str) -> None:
    estimate = student_estimate(difference, error, 9)
    detectable = minimum_detectable_effect(error, 9)
    assert RULE.claim(estimate, estimate.p, detectable) == claim


@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.3), st.floats(2, 60))
def test_the_answer_turns_with_the_sign(difference: float, error: float, freedom: float) -> None:
    turned = {"helped": "harmed", "harmed": "helped"}
    detectable = minimum_detectable_effect(error, 9)
    there = student_estimate(difference, error, freedom)
    back = student_estimate(-difference, error, freedom)
    claim = RULE.claim(there, there.p, detectable)
    assert RULE.claim(back, back.p, detectable) == turned.get(claim, claim)


@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.3))
def test_nothing_is_claimed_without_the_adjusted_p(difference: float, error: float) -> None:
    estimate = student_estimate(difference, error, 9)
    assert RULE.claim(estimate, 0.06, 0.2) not in ("helped", "harmed")


def test_a_null_must_have_been_able_to_see_at_the_level_it_is_tested_at() -> None:
    """One of seven arms, +0.8 to +7.6 points, p .02 alone and .14 by Holm: no proof of nothing."""
    estimate = student_estimate(0.042, 0.0165, 20)
    alone = minimum_detectable_effect(0.0165, 20)
    assert alone < RULE.sharp_enough
    assert RULE.claim(estimate, 0.14, alone) == "too small to tell"
    assert detectable_in_family(estimate, 0.05, 1) == alone
    assert detectable_in_family(estimate, 0.05, 7) > RULE.sharp_enough
    wide = student_estimate(0.025, 0.0165, 20)  # holds 0, but reaches +5.9
    assert RULE.claim(wide, 0.14, alone) == "too small to tell"


def test_points_are_written_with_their_sign() -> None:
    assert in_points(0.0612) == "+6.1"
    assert in_points(-0.0004) == "0.0"
    assert interval_in_points((-0.01, 0.132)) == "-1.0 to +13.2"
    assert "2 points" in RULE.in_words()


@given(st.floats(-0.3, 0.3), st.floats(0.001, 0.1), st.floats(2, 60))
def test_a_single_claim_is_an_interval_beyond_what_matters(
    difference: float, error: float, freedom: float
) -> None:
    estimate = student_estimate(difference, error, freedom)
    low, high = estimate.interval
    if min(abs(abs(end) - 0.02) for end in (low, high)) < 1e-6:
        return  # on the border, by rounding either
    claimed = RULE.claim(estimate, estimate.p, 0.2) in ("helped", "harmed")
    assert claimed == (low > 0.02 or high < -0.02)


def test_in_a_family_what_is_beyond_is_adjusted_too() -> None:
    """+6 points, +2.5 to +9.5: alone a claim of more than 2, not as one of ten."""
    estimate = student_estimate(0.06, 0.0168, 20)
    assert RULE.claim(estimate, 10 * estimate.p, 0.2) == "helped"
    beyond = min(1.0, 10 * RULE.p_beyond(estimate))
    assert RULE.claim(estimate, 10 * estimate.p, 0.2, beyond_adjusted=beyond) == "too small to tell"


def test_more_false_alarms_are_harm() -> None:
    estimate = student_estimate(0.10, 0.02, 9)
    assert RULE.claim(estimate, estimate.p, 0.2, lower_is_better=True) == "harmed"
