"""Guards on the numbers of the log."""

import pytest

from gan.guards import discriminator_has_won


def rows(gap: float, sign: float) -> list[dict]:
    row = {"kind": "training", "sign_real": sign, "sign_fake": -sign}
    return [row | {"logit_real": gap / 2, "logit_fake": -gap / 2}] * 3


@pytest.mark.parametrize(("loss", "gap"), [("logistic", 8), ("relativistic", 8), ("hinge", 2)])
def test_a_discriminator_that_tells_every_image_by_far_has_won(loss, gap):
    """The hinge loss teaches no gap beyond two, so it was never seen to win."""
    assert discriminator_has_won(rows(1.2 * gap, 1.0), loss) is not None
    assert discriminator_has_won(rows(0.9 * gap, 1.0), loss) is None
    assert discriminator_has_won(rows(1.2 * gap, 0.9), loss) is None
