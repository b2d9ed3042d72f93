"""Which weights a run keeps."""

import math

import pytest

from gan.selection import Lowest, kept_row, score_error


def _row(step, kid, error=0.1, conditional=True):
    verdicts = {"rare": {"kid": kid, "kid_error": error}}
    return {
        "kind": "evaluation", "step": step, "score": kid, "verdicts": verdicts,
        "conditional": conditional,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kids", "kept"),
    [
        ([0.9, 0.5, 0.3, 0.2], 4),  # better and better
        ([0.9, 0.2, 0.25, 0.29], 4),  # as good as the best: the longer training wins
        ([0.9, 0.2, 0.31, 0.8], 2),  # it got worse by more than the error of the best
        ([0.9, 0.2, 0.28, 0.8], 3),
        ([0.2, 0.15, 0.28], 2),  # within the error of the first, not of the lowest
    ],
)
def test_the_latest_within_the_error_of_the_lowest_is_kept(kids, kept):
    row = kept_row([_row(step, kid) for step, kid in enumerate(kids, start=1)])
    assert row["step"] == kept


def test_weights_from_before_the_class_mattered_give_way_to_any_later_ones():
    rows = [_row(1, 0.1, conditional=False), _row(2, 0.05, conditional=False)]
    assert kept_row(rows)["step"] == 1
    assert kept_row([*rows, _row(3, 5.0)])["step"] == 3


def test_other_lines_of_the_log_do_not_count():
    assert kept_row([{"kind": "training", "step": 1}, {"kind": "evaluation", "step": 1}]) is None


def test_the_error_of_a_mean_over_classes():
    verdicts = {"a": {"kid_error": 0.3}, "b": {"kid_error": 0.4}}
    assert score_error(verdicts) == pytest.approx(0.25)
    assert Lowest().admits(math.inf)
