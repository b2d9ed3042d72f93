"""Whether new rows are like the calibration rows: the assumption under every conformal promise.

Two monitors. `two_sample_monitor` needs no labels: it asks whether a classifier can tell the two
sets apart (Lopez-Paz & Oquab 2017, arXiv:1610.06545), with a p-value by permutation and an effect
in words, because with enough rows any difference is significant. `score_martingale` follows a
stream of labelled rows and raises an alarm with a false-alarm probability that holds whenever one
looks (Vovk et al. 2003; Volkhonskiy et al. 2017, arXiv:1706.03415).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classify.tabular.density_ratio import DensityRatio, estimate_density_ratio

HARMLESS_AUC = 0.55
"""Up to here the sets are called alike even where the difference is significant."""
SEVERE_AUC = 0.97
SMALLEST_SHARE = 0.04
FEWEST_EFFECTIVE = 20
"""Beyond these (or where fewer rows, or a smaller share of them, still count) the sets hardly
overlap, and weights cannot repair what was never calibrated."""
JUMP = 0.01
STEPS = np.array([-1.0, 0.0, 1.0])
"""Slopes of the betting functions of the simple jumper."""


@dataclass(frozen=True)
class Exchangeability:
    """What the monitor found.

    Attributes
    ----------
    auc : float
        Of telling new rows from calibration rows: .5 alike, 1 disjoint.
    p_value : float
        That an AUC so large arises where the sets are alike.
    effective_rows, calibration_rows : float, int
        What the calibration is worth after weighting, and how many rows it has.
    verdict : str
        ``alike``, ``shifted`` or ``disjoint``.
    """

    auc: float
    p_value: float
    effective_rows: float
    calibration_rows: int
    verdict: str

    def as_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def in_words(self) -> str:
        """One sentence for the report."""
        if self.verdict == "alike":
            return (
                f"the new rows are like the calibration rows (they are told apart with an AUC of "
                f"{self.auc:.2f}): the promise of the sets holds"
            )
        start = (
            f"the new rows are not like the calibration rows (told apart with an AUC of "
            f"{self.auc:.2f}, p {self.p_value:.2g}): unweighted sets promise nothing here; "
        )
        worth = f"weighted ones rest on {self.effective_rows:.0f} of {self.calibration_rows} rows"
        if self.verdict == "disjoint":
            return start + worth + ", and large parts were never calibrated: label some new rows"
        return start + worth


def two_sample_monitor(
    calibration: np.ndarray, new: np.ndarray, *, seed: int = 0
) -> tuple[Exchangeability, DensityRatio]:
    """Compare (n, F) calibration rows with (m, F) new ones, without labels.

    The p-value is that of the Mann-Whitney statistic of held-out scores (normal approximation
    with the variance under the null, (n + m + 1) / (12 n m) of the AUC).
    """
    from scipy.stats import norm

    ratio = estimate_density_ratio(calibration, new, seed=seed)
    n, m = len(calibration), len(new)
    error = np.sqrt((n + m + 1) / (12 * n * m))
    p_value = float(norm.sf((ratio.auc - 0.5) / error))
    if p_value > 0.01 or ratio.auc <= HARMLESS_AUC:
        verdict = "alike"
    else:
        least = max(FEWEST_EFFECTIVE, SMALLEST_SHARE * n)
        disjoint = ratio.auc >= SEVERE_AUC or ratio.effective_rows < least
        verdict = "disjoint" if disjoint else "shifted"
    return Exchangeability(ratio.auc, p_value, ratio.effective_rows, n, verdict), ratio


def conformal_p_values(
    calibration_scores: np.ndarray, scores: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(m,) smoothed p-values: uniform where scores are exchangeable with the calibration.

    p = (#{s_i > s} + u (#{s_i = s} + 1)) / (n + 1), u uniform (Vovk et al. 2005, eq. 2.20).
    """
    ordered = np.sort(calibration_scores)
    above = len(ordered) - np.searchsorted(ordered, scores, side="right")
    ties = len(ordered) - np.searchsorted(ordered, scores, side="left") - above
    return (above + rng.random(len(scores)) * (ties + 1)) / (len(ordered) + 1)


def score_martingale(p_values: np.ndarray) -> np.ndarray:
    """(m,) log10 wealth of the simple jumper betting against uniform p-values.

    Where the rows are exchangeable the wealth reaches 10^c with a probability of at most 10^-c,
    at whatever time one looks (Ville's inequality): a value of 2 is an alarm at 1 %.
    """
    capital = np.full(len(STEPS), 1 / len(STEPS))
    wealth = np.empty(len(p_values))
    log_wealth = 0.0
    for time, p in enumerate(p_values):
        capital = (1 - JUMP) * capital + JUMP * capital.sum() / len(STEPS)
        capital = capital * (1 + STEPS * (p - 0.5))
        total = capital.sum()
        log_wealth += np.log10(total)
        capital = capital / total
        wealth[time] = log_wealth
    return wealth
