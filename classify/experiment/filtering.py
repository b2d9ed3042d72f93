"""What the filter of generated images left of them, from the notes of finished trainings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from classify.experiment.scoring import ALL, Scores


def filtered_arms(scores: Scores) -> dict[str, dict[str, Any]]:
    """Arm -> means over its trainings of what its filter saw, where it has one.

    ``candidates`` were generated, ``unlikely`` of them are not taken for the class, ``copies``
    lie too near to a training image, ``passed`` are neither, ``wanted`` were added: where fewer
    passed than were wanted, the likeliest of the others filled the dose. ``short`` is the share
    of trainings in which that was so.
    """
    found = {}
    for arm in scores.record.arms:
        keys = {key for repeat in arm.units.get(ALL, []) for key in repeat}
        notes = [scores.store.load(key).metrics.get("added") or {} for key in sorted(keys)]
        notes = [note for note in notes if "passed" in note]
        if notes:
            found[arm.name] = {
                "wanted": float(np.mean([note["count"] for note in notes])),
                **{
                    name: float(np.mean([note[name] for note in notes]))
                    for name in ("candidates", "unlikely", "copies", "passed")
                },
                "short": float(np.mean([note["passed"] < note["count"] for note in notes])),
            }
    return found


def filtered_notes(filtered: Mapping[str, dict[str, Any]]) -> list[str]:
    """A sentence for each arm whose filter let too few images pass."""
    return [
        f"The filter of {name} let {found['passed']:.0f} of {found['candidates']:.0f} generated "
        f"images pass on average and {found['wanted']:.0f} were wanted: in {found['short']:.0%} of "
        "its trainings the likeliest of the others filled the dose."
        for name, found in filtered.items()
        if found["short"] > 0
    ]
