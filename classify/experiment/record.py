"""What an experiment consists of, as JSON: enough to recompute every statistic and the report."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galaxies.atomic import write_text
from galaxies.errors import InputError

RECORD = "plan.json"
RECORD_VERSION = 1

RULE_SETTINGS = (
    "measure", "false_positive_rate", "precision", "smallest_effect", "sharp_enough", "draws",
)  # fmt: skip
"""Settings that the verdict is read by."""


def _change_of(name: str, before: Any, now: Any) -> str:
    if not isinstance(now, list):
        return f"{name.replace('_', ' ')} from {before} to {now}"
    if name == "generators":
        return "the generators"
    added, gone = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    parts = [f"added {', '.join(added)}"] if added else []
    parts += [f"left out {', '.join(gone)}"] if gone else []
    return f"arms ({'; '.join(parts)})"


@dataclass(frozen=True)
class ArmRecord:
    """One arm and where its predictions lie.

    Attributes
    ----------
    name, words, base : str
        As `classify.experiment.arms.Arm`.
    kind : str
        Kind of added images, or empty.
    dose : float
        Added images per real one (as counted, also for ``gan@balance``); 0 without.
    generator : str
        Name of the generator, where there are several.
    plain_dose : bool
        Whether the arm is a dose of unfiltered, one-stage images: a point of the dose curve.
    role : str
        ``classic`` and ``generated`` arms compete for the best on validation; ``other`` do not.
    adjust_logits : list of float
        Strength of logit adjustment in each fold.
    stands_on : list of str
        The arm chosen in each fold, for ``best+…``.
    units : dict
        Limit of real images (``all`` or a number) -> [repeat][fold] -> key of the unit.
    """

    name: str
    words: str
    base: str
    kind: str
    dose: float
    generator: str
    plain_dose: bool
    role: str
    adjust_logits: list[float]
    stands_on: list[str]
    units: dict[str, list[list[str]]]


@dataclass(frozen=True)
class ExperimentRecord:
    """Everything but the pixels.

    Attributes
    ----------
    class_name, class_index, class_names
        The class that is augmented, among all.
    repeats, folds : int
        ``folds`` is 0 for the stored split.
    counts : dict
        Images per side and class, of the first fold's sides: ``train``, ``validation``; ``test``
        over all folds.
    keeps : list of str
        ``all`` and the limits of the learning curve.
    grouped : bool
    sources : list of dict
        Generators: name, path, sha256, description.
    settings : dict
        Smallest effect, level, matched rates, measure, draws, seed, training.
    notes : list of str
        Warnings that the report must repeat, such as allowed leaks.
    noun : str
        What the items are called: ``images``, or ``rows`` of a table.
    generator_per_unit : bool
        Whether every training had a generator of its own, trained on its own items.
    mirror_permutation : list of int
        Class of the mirror image of each class; empty for tables, and in records from before it
        was kept, whose logits are adjusted by the counts as they are.
    """

    class_name: str
    class_index: int
    class_names: list[str]
    repeats: int
    folds: int
    counts: dict[str, list[int]]
    keeps: list[str]
    grouped: bool
    sources: list[dict[str, Any]]
    settings: dict[str, Any]
    arms: list[ArmRecord]
    notes: list[str] = field(default_factory=list)
    noun: str = "images"
    generator_per_unit: bool = False
    mirror_permutation: list[int] = field(default_factory=list)

    def arm(self, name: str) -> ArmRecord:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def after(self, folder: Path) -> "ExperimentRecord":
        """Remember the rule that stood before results were there in ``folder``."""
        try:
            earlier = ExperimentRecord.read(folder)
        except InputError:
            first = self._rule()
        else:
            first = earlier.settings.get("first_rule") or earlier._rule()
            if earlier._subject() != self._subject():  # begun anew with --overwrite
                first = self._rule()
        return dataclasses.replace(self, settings={**self.settings, "first_rule": first})

    def afterthoughts(self) -> list[str]:
        """What was changed once results were there, in one sentence; nothing where nothing was."""
        first, now = self.settings.get("first_rule") or {}, self._rule()
        changed = [
            _change_of(name, first[name], value)
            for name, value in now.items()
            if name in first and first[name] != value
        ]
        if not changed:
            return []
        return [
            f"Changed after results were there: {'; '.join(changed)}. A verdict is fixed "
            "beforehand under the first rule alone; the p values know nothing of the change."
        ]

    def _subject(self) -> tuple[Any, ...]:
        """What an experiment is about: another one begins with a rule of its own."""
        return (self.class_name, self.folds, self.settings.get("data_sha256"))

    def _rule(self) -> dict[str, Any]:
        """What a verdict depends on and a user may change with results in hand."""
        return {
            "repeats": self.repeats,
            "arms": sorted(arm.name for arm in self.arms),
            # Generators of folds follow from the other settings.
            "generators": [] if self.folds else sorted(s["sha256"] for s in self.sources),
        } | {name: self.settings.get(name) for name in RULE_SETTINGS}

    def write(self, folder: Path) -> None:
        """Write ``plan.json``."""
        content = {"version": RECORD_VERSION, **dataclasses.asdict(self)}
        write_text(folder / RECORD, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "ExperimentRecord":
        """Read ``plan.json`` of a results folder.

        Raises
        ------
        InputError
            If the folder holds no experiment.
        """
        path = folder / RECORD
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{folder} holds no experiment ({RECORD} is missing); run it without --report-only"
            ) from None
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error})") from None
        if content.pop("version", None) != RECORD_VERSION:
            raise InputError(f"{path} was written by another version; run the experiment again")
        content["arms"] = [ArmRecord(**arm) for arm in content["arms"]]
        return cls(**content)
