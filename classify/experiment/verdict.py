"""When a difference is a claim: the rule, and its four answers in words."""

from dataclasses import dataclass
from typing import Literal

from scipy import stats

from classify.experiment.statistics import Estimate

Claim = Literal["helped", "harmed", "no detectable effect", "too small to tell"]
CLAIMS: tuple[Claim, ...] = ("helped", "harmed", "no detectable effect", "too small to tell")


@dataclass(frozen=True)
class ClaimRule:
    """What it takes to claim, stated before the run and printed in the report.

    Attributes
    ----------
    level
        Family-wise error rate; p is adjusted by Holm's method first.
    smallest_effect
        Smallest effect of interest: a smaller difference does not matter in practice.
    sharp_enough
        A null is called "no detectable effect" only where the interval lies inside the smallest
        effect of interest (so that nothing that matters is left, whatever p says), or where the
        experiment could have seen a difference of this size (power .8, at the level of the test)
        and its interval holds 0 and nothing larger.
    """

    level: float = 0.05
    smallest_effect: float = 0.02
    sharp_enough: float = 0.05

    def p_beyond(self, estimate: Estimate) -> float:
        """Two-sided p of the null that the difference is no larger than the smallest effect.

        At most ``level`` where the whole interval lies beyond the smallest effect. Adjusted by
        Holm's method it makes the claim, and not only the test of 0, hold in a family.
        """
        beyond = abs(estimate.difference) - self.smallest_effect
        if estimate.standard_error == 0:
            return 0.0 if beyond > 0 else 1.0
        t = beyond / estimate.standard_error
        return float(min(1.0, 2 * stats.t.sf(t, estimate.degrees_of_freedom)))

    def claim(
        self,
        estimate: Estimate,
        p_adjusted: float,
        detectable: float,
        *,
        beyond_adjusted: float | None = None,
        lower_is_better: bool = False,
    ) -> Claim:
        """Answer for one comparison.

        Parameters
        ----------
        estimate
            Difference and interval.
        p_adjusted
            After Holm.
        detectable
            Minimum detectable effect of this comparison, at the level that Holm's first step
            asks of it.
        beyond_adjusted
            `p_beyond` after Holm; by default unadjusted, for a family of one.
        lower_is_better
            For measures such as a false-positive rate.
        """
        low, high = estimate.interval
        significant = p_adjusted <= self.level
        beyond = self.p_beyond(estimate) if beyond_adjusted is None else beyond_adjusted
        if significant and beyond <= self.level:
            return "helped" if (estimate.difference > 0) != lower_is_better else "harmed"
        inside = -self.smallest_effect <= low and high <= self.smallest_effect
        small = -self.sharp_enough <= low <= 0 <= high <= self.sharp_enough
        if inside or (not significant and small and detectable <= self.sharp_enough):
            return "no detectable effect"
        return "too small to tell"

    def in_words(self) -> str:
        """The rule as a paragraph for the report."""
        points = f"{100 * self.smallest_effect:g} points"
        return (
            f"An arm helped (harmed) where its difference lies above +{points} (below -{points}), "
            f"the smallest effect of interest, with a p of at most {self.level:g} after Holm's "
            "adjustment; for a single comparison that is a 95 % interval that lies beyond it as a "
            f"whole. There is no detectable effect where the interval lies within ±{points}, so "
            "that an effect, if there is one, does not matter; or where it holds 0 and nothing "
            f"beyond ±{100 * self.sharp_enough:g} points and the test, at Holm's strictest level, "
            "could have seen that much with a power of 80 %, which leaves effects between "
            f"{100 * self.smallest_effect:g} and {100 * self.sharp_enough:g} points open. These "
            "two answers are not adjusted for their number. Everything else is too small to tell."
        )


def in_points(value: float, *, signed: bool = True) -> str:
    """A share as percentage points with one decimal: ``+6.1``."""
    points = 100 * value
    if abs(points) < 0.05:
        return "0.0"
    return f"{points:+.1f}" if signed else f"{points:.1f}"


def interval_in_points(interval: tuple[float, float]) -> str:
    """``-1.0 to +13.2``."""
    return f"{in_points(interval[0])} to {in_points(interval[1])}"
