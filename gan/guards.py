"""Guards: what has gone wrong in a run, in words that say what to do.

Each guard looks at numbers that the run computes anyway and returns a sentence or nothing. The
thresholds are wide: a guard that cries at every run is switched off.
"""

import math
from collections.abc import Sequence
from typing import Any

from gan.judge import Verdict
from gan.recipes import LossName

WON_SIGN = 0.99
"""Mean sign of the logits beyond which the discriminator no longer makes mistakes."""

WON_LOGIT: dict[LossName, float] = {"logistic": 8.0, "relativistic": 8.0, "hinge": 2.0}
"""Mean logit gap beyond which the discriminator has nothing left to learn; the hinge loss is zero
from margins of one on."""

WON_LOOKS = 3

SILENT_GAP = 0.05
"""Real minus generated mean logit below which the discriminator teaches nothing."""

SILENT_LOOKS = 10
COLLAPSED_DIVERSITY = 0.4
COPYING = 0.6
COPYING_NEARNESS = 0.6
WRONG_CLASS = 0.5

EARLIER = "train for fewer --steps (--snapshots keeps every evaluation, for gan-generate --step)"
MORE_AUGMENTATION = (
    "augment more (recipe tail: lower --augment-target, or --augment-target 0 "
    "--augment-probability 0.5)"
)


def discriminator_has_won(rows: Sequence[dict[str, Any]], loss: LossName) -> str | None:
    """Look at the last training rows of the log."""
    recent = [row for row in rows if row["kind"] == "training"][-WON_LOOKS:]
    if len(recent) < WON_LOOKS:
        return None
    won = all(
        row["sign_real"] > WON_SIGN
        and row["sign_fake"] < -WON_SIGN
        and row["logit_real"] - row["logit_fake"] > WON_LOGIT[loss]
        for row in recent
    )
    if not won:
        return None
    return (
        f"the discriminator has won: for {WON_LOOKS} looks it told every image "
        f"(logits {recent[-1]['logit_real']:+.1f} real, {recent[-1]['logit_fake']:+.1f} "
        "generated), "
        "so the generator learns nothing; raise --r1, lower --discriminator-learning-rate, or "
        f"{MORE_AUGMENTATION}"
    )


def discriminator_is_silent(rows: Sequence[dict[str, Any]]) -> str | None:
    """Look at the last training rows of the log; a longer while, for it may find its way back."""
    recent = [row for row in rows if row["kind"] == "training"][-SILENT_LOOKS:]
    if len(recent) < SILENT_LOOKS:
        return None
    if any(row["logit_real"] - row["logit_fake"] > SILENT_GAP for row in recent):
        return None
    return (
        f"the discriminator tells nothing apart: for {SILENT_LOOKS} looks its mean logit of real "
        f"images was not {SILENT_GAP:g} above that of generated ones, so the generator learns "
        "nothing; lower --r1 or raise --discriminator-learning-rate"
    )


def has_collapsed(name: str, verdict: Verdict) -> str | None:
    """Look at the diversity within a class."""
    if verdict.diversity >= COLLAPSED_DIVERSITY:
        return None
    return (
        f"class {name!r} has collapsed: its images differ by {100 * verdict.diversity:.0f} % of "
        f"what real ones do; {EARLIER}, lower --chosen-share (with --scope all), or raise --r1"
    )


def has_memorised(name: str, verdict: Verdict) -> str | None:
    """Look at the nearest training images, against held-out ones."""
    if verdict.copying < COPYING or verdict.nearness > COPYING_NEARNESS:
        return None
    return (
        f"class {name!r} is being copied: generated images lie at {verdict.nearness:.2f} of the "
        "distance that held-out images keep from the training images, and nearest to those "
        f"{100 * verdict.copying:.0f} % more often than chance; {EARLIER}, or "
        f"{MORE_AUGMENTATION}"
    )


def is_mistaken(index: int, names: Sequence[str], verdict: Verdict) -> str | None:
    """Look at what a classifier takes the class for."""
    floor = WRONG_CLASS * verdict.agreement_real
    if verdict.mistaken_for == index or verdict.agreement >= floor:
        return None
    return (
        f"class {names[index]!r} comes out as {names[verdict.mistaken_for]!r}: only "
        f"{100 * verdict.agreement:.0f} % of its images are taken for it, "
        f"{100 * verdict.agreement_real:.0f} % of real ones are; train longer or raise "
        "--chosen-share (with --scope all)"
    )


def is_broken(row: dict[str, Any]) -> bool:
    """Whether a number of a training row is NaN or infinite."""
    return any(isinstance(value, float) and not math.isfinite(value) for value in row.values())
