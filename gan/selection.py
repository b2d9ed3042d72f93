"""Which weights of a run are kept: the latest that are as good as the best, within its error.

The class KID against a dozen validation images has a standard error that is larger than what the
later part of a run gains. Its minimum is then a matter of luck, and mostly an early one; so the
latest weights win whose KID lies within one standard error of the lowest (the rule of Breiman et
al. 1984 for pruning trees, turned towards the longer training).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Lowest:
    """The lowest score so far.

    Attributes
    ----------
    score : float
        Mean KID over the chosen classes.
    error : float
        Its standard error.
    """

    score: float = math.inf
    error: float = 0.0

    def with_score(self, score: float, error: float) -> "Lowest":
        """The lowest after one more evaluation."""
        return Lowest(score, error) if score < self.score else self

    def admits(self, score: float) -> bool:
        """Whether weights of this score are as good as the best."""
        return score <= self.score + self.error


def score_error(verdicts: dict[str, Any]) -> float:
    """Standard error of the mean KID over classes."""
    errors = [verdict["kid_error"] for verdict in verdicts.values()]
    return math.sqrt(sum(error * error for error in errors)) / len(errors)


def kept_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The evaluation whose weights a run kept, from its log; ``None`` without any."""
    kept, lowest = None, Lowest()
    for row in rows:
        if row["kind"] != "evaluation" or "score" not in row:
            continue
        if not row["conditional"]:  # weights from before the class mattered fully
            kept = kept or row
            continue
        lowest = lowest.with_score(row["score"], score_error(row["verdicts"]))
        if lowest.admits(row["score"]):
            kept = row
    return kept
