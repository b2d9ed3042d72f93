"""When a difference is a claim: the rule, and its four answers in words."""

from dataclasses import dataclass
from typing import Literal

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
        effect of interest, or where the experiment could have seen a difference of this size
        (power .8, at the level of the test) and its interval holds 0 and nothing larger.
    """

    level: float = 0.05
    smallest_effect: float = 0.02
    sharp_enough: float = 0.05

    def claim(self, estimate: Estimate, p_adjusted: float, detectable: float) -> Claim:
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
        """
        low, high = estimate.interval
        significant = p_adjusted <= self.level
        if significant and low > self.smallest_effect:
            return "helped"
        if significant and high < -self.smallest_effect:
            return "harmed"
        inside = -self.smallest_effect <= low and high <= self.smallest_effect
        small = -self.sharp_enough <= low <= 0 <= high <= self.sharp_enough
        if inside or (not significant and small and detectable <= self.sharp_enough):
            return "no detectable effect"
        return "too small to tell"

    def in_words(self) -> str:
        """The rule as a paragraph for the report."""
        points = f"{100 * self.smallest_effect:g} points"
        return (
            f"An arm helped (harmed) where Holm's adjusted p is at most {self.level:g} and the "
            f"whole 95 % interval lies above +{points} (below -{points}), the smallest effect of "
            f"interest. There is no detectable effect where the interval lies within ±{points}, "
            f"or where it holds 0 and nothing beyond ±{100 * self.sharp_enough:g} points and the "
            "test, at Holm's strictest level, could have seen that much with a power of 80 %. "
            "Everything else is too small to tell: the data allow both an effect that matters "
            "and none."
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
