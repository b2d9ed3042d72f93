"""The arms of an experiment: what each trains with, by a name made of parts.

``balanced+mixup+gan@0.5`` is balanced sampling with symmetries, mixup, and one generated image
for every two real ones of the class. Parts are joined by ``+``; a value follows ``@``. An arm
that adds images and names no technique of its own stands on ``balanced``; ``plain+gan@1`` adds
them to plain training.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from galaxies.errors import InputError

AddedKind = Literal["gan", "placebo", "smote", "borderline-smote", "adasyn", "real"]

TO_BALANCE = -1.0
"""The dose of ``gan@balance``: as many images as bring the class to the size of the largest."""

_Settings = dict[str, Any]

TECHNIQUES: dict[str, tuple[_Settings, str | None, float, str]] = {
    "plain": ({}, None, 0.0, "cross-entropy, images drawn as they come"),
    "class-weights": ({"balance": "class-weights"}, None, 0.0, "loss weighted by 1/count"),
    "effective-number": (
        {"balance": "effective-number"}, None, 0.0, "loss weighted by the effective number",
    ),
    "sampling": ({"balance": "sampling"}, None, 0.0, "every class drawn equally often"),
    "sqrt-sampling": ({"balance": "sqrt-sampling"}, None, 0.0, "drawn by the root of the count"),
    "symmetries": ({"symmetries": True}, None, 0.0, "random symmetries of the square"),
    "balanced": (
        {"balance": "sampling", "symmetries": True}, None, 0.0,
        "every class drawn equally often, random symmetries",
    ),
    "randaugment": (
        {"augment": "physical"}, None, 0.0, "RandAugment restricted to what a telescope could do",
    ),
    "mixup": ({}, "mixup", 0.4, "mixup; value: alpha"),
    "cutmix": ({}, "cutmix", 1.0, "CutMix; value: alpha"),
    "focal": ({"loss": "focal"}, "focal_gamma", 2.0, "focal loss; value: gamma"),
    "label-smoothing": ({}, "label_smoothing", 0.1, "label smoothing; value: its share"),
    "logit-adjusted-loss": (
        {"loss": "logit-adjusted"}, "logit_adjustment_tau", 1.0,
        "logit adjustment in the loss (balanced softmax at 1); value: tau",
    ),
    "logit-adjusted": ({}, None, 1.0, "logit adjustment after training; value: tau"),
    "crt": ({}, None, 0.25, "a new head on balanced draws for the last share of the steps (cRT)"),
}  # fmt: skip
"""Part -> settings, the setting that its value fills, the default value, and words."""

MODIFIERS: dict[str, tuple[float, str]] = {
    "filtered": (0.5, "generated images that a classifier of real images calls the class"),
    "finish": (0.75, "added images only for this share of the steps, then real ones alone"),
    "weight": (0.5, "weight of an added image in the loss"),
    "share": (0.25, "share of the added images in the draws of a class that has some"),
    "own-statistics": (
        0.0,
        "batch normalisation sees real and generated images apart; needs every-class",
    ),
    "only": (0.0, "added images instead of the real ones of the class"),
    "every-class": (
        0.0,
        "generated images of every class at the same dose: the mark of a generated image "
        "tells no class",
    ),
    "again": (0.0, "the same arm with other seeds, for an A/A comparison"),
}
"""Part -> default value and words."""

FIELD_OF_MODIFIER = {
    "finish": "synthetic_until",
    "weight": "synthetic_weight",
    "share": "synthetic_share",
}
"""Modifier -> the setting of a training that its value fills."""

KINDS: dict[AddedKind, str] = {
    "gan": "generated images",
    "placebo": "noisy copies of real images",
    "smote": "SMOTE in feature space",
    "real": "further real images",
}
"""Kind of added images -> words."""

GROUPS: dict[str, str] = {
    "classic": "plain,class-weights,effective-number,sampling,symmetries,balanced,"
    "balanced+randaugment,balanced+mixup,balanced+cutmix,balanced+focal,"
    "symmetries+logit-adjusted,symmetries+logit-adjusted-loss,symmetries+crt,smote@1,placebo@1",
    "doses": "gan@0.25,gan@0.5,gan@1,gan@2,gan@balance",
    "generated": "gan@0.5,gan@1,gan@1+filtered,gan@1+finish,gan@1+filtered+finish,best+gan@1",
    "full": "classic,doses,gan@1+filtered,gan@1+finish,gan@1+filtered+finish,best+gan@1",
}
"""Names that stand for several arms."""


@dataclass(frozen=True)
class ArmVocabulary:
    """The parts that arms are made of, for one kind of data.

    Attributes
    ----------
    techniques, modifiers, groups : dict
        As `TECHNIQUES`, `MODIFIERS` and `GROUPS`.
    kinds : dict
        Kind of added items -> words.
    noun : str
        What the items are called, in the plural.
    plain : dict
        Settings of plain training that techniques may replace.
    """

    techniques: Mapping[str, tuple[_Settings, str | None, float, str]]
    modifiers: Mapping[str, tuple[float, str]]
    groups: Mapping[str, str]
    kinds: Mapping[AddedKind, str]
    noun: str
    plain: Mapping[str, Any]

    def describe(self) -> str:
        """All parts and groups, on one line."""
        return (
            f"parts: {', '.join([*self.techniques, *self.kinds, 'best', *self.modifiers])}; "
            f"groups: {', '.join(self.groups)}"
        )


IMAGE_ARMS = ArmVocabulary(
    TECHNIQUES, MODIFIERS, GROUPS, KINDS, "images", {"balance": "none", "symmetries": False}
)


@dataclass(frozen=True)
class AddedItems:
    """Images (or rows) that an arm adds to its training set.

    Attributes
    ----------
    kind : str
        ``gan``, ``placebo`` (noisy copies), ``smote`` (in feature space) and its relatives for
        tables, ``real`` (held back).
    dose : float
        Added images per real training image of the class, or `TO_BALANCE`.
    generator : str
        Which of several generators; empty for the first.
    keep_above : float
        Filter: least probability of the class by a classifier of real images; 0 keeps all.
    instead : bool
        Whether they take the place of the real images of the class.
    every_class : bool
        Whether every class gets them, at the same dose.
    """

    kind: AddedKind
    dose: float = 1.0
    generator: str = ""
    keep_above: float = 0.0
    instead: bool = False
    every_class: bool = False

    def count(self, real: int, largest: int) -> int:
        """How many images, for ``real`` images of the class and ``largest`` of the largest."""
        if self.dose == TO_BALANCE:
            return max(1, largest - real)
        return max(1, round(self.dose * real))


@dataclass(frozen=True)
class Arm:
    """One recipe of training.

    Attributes
    ----------
    name : str
        As the user wrote it.
    settings : dict
        Fields of ``classify.training_config.TrainingConfig`` that differ from plain training.
    added : AddedItems or None
    base : str
        Name of the same arm without added images: the baseline that shows what they bring.
    adjust_logits : float
        Strength of logit adjustment after training.
    head_share : float
        Share of the steps that train a new head (cRT).
    on_best : bool
        Stands on the best arm without generated images, chosen on validation in each fold.
    again : bool
        Takes other seeds.
    words : str
        What the arm does, for the report.
    """

    name: str
    settings: Mapping[str, Any]
    added: AddedItems | None = None
    base: str = "plain"
    adjust_logits: float = 0.0
    head_share: float = 0.0
    on_best: bool = False
    again: bool = False
    words: str = ""

    @property
    def generated(self) -> bool:
        """Whether it trains on generated images."""
        return self.added is not None and self.added.kind == "gan"

    def standing_on(self, best: "Arm") -> "Arm":
        """The images and modifiers of this arm on the recipe of ``best``."""
        own = {k: v for k, v in self.settings.items() if k.startswith("synthetic_")}
        return dataclasses.replace(
            self,
            settings={**best.settings, **own},
            base=best.name,
            adjust_logits=best.adjust_logits,
            head_share=best.head_share,
            on_best=False,
        )


def parse_arm(name: str, vocabulary: ArmVocabulary = IMAGE_ARMS) -> Arm:
    """Read one arm from its name.

    Raises
    ------
    InputError
        If a part is unknown or contradicts another; lists what there is.
    """
    noun = vocabulary.noun
    parts = [_name_and_value(part) for part in name.split("+")]
    names = [part for part, _ in parts]
    if len(set(names)) != len(names):
        raise InputError(f"arm {name!r} names a part twice")
    techniques = [(part, value) for part, value in parts if part in vocabulary.techniques]
    added = [(part, value) for part, value in parts if part.partition(":")[0] in vocabulary.kinds]
    modifiers = {part: value for part, value in parts if part in vocabulary.modifiers}
    on_best = "best" in names
    known = [part for part, _ in techniques + added] + list(modifiers) + ["best"] * on_best
    for part in names:
        if part not in known:
            raise InputError(f"there is no arm {part!r}; {vocabulary.describe()}")
    if len(added) > 1:
        raise InputError(f"arm {name!r} adds two kinds of {noun}; name one")
    if not added and (set(modifiers) - {"again"}):
        raise InputError(f"arm {name!r}: {', '.join(modifiers)} needs added {noun}, such as gan@1")
    if on_best and (techniques or not added):
        raise InputError(f"arm {name!r}: best takes added {noun} alone, such as best+gan@1")
    if added and not techniques and not on_best:
        techniques = [("balanced", None)]
    arm = Arm(name, dict(vocabulary.plain), on_best=on_best, words=_in_words(parts, vocabulary))
    arm = _with_techniques(arm, techniques, vocabulary)
    base = "best" if on_best else "+".join(_written(part, value) for part, value in techniques)
    items = _added_items(added[0], modifiers, vocabulary) if added else None
    settings = dict(arm.settings)
    for part, field in FIELD_OF_MODIFIER.items():
        if part in modifiers:
            settings[field] = _value(modifiers[part], vocabulary.modifiers[part][0])
    if "own-statistics" in modifiers:
        settings["synthetic_statistics"] = "own"
    again = "again" in modifiers
    if items is None:
        base = base if again else "plain"
    return dataclasses.replace(arm, settings=settings, added=items, base=base, again=again)


def parse_arms(
    text: str, generators: Iterable[str] = (), vocabulary: ArmVocabulary = IMAGE_ARMS
) -> list[Arm]:
    """Read ``a,b,…``, with group names expanded, in order and once each.

    ``plain`` and the base of every arm that adds images are put in where they are missing: a
    difference needs its baseline. With several ``generators`` an arm ``gan@…`` that names none
    becomes one arm per generator, ``gan:NAME@…``.

    Parameters
    ----------
    text
        Comma-separated names.
    generators
        Names of the generators at hand.
    vocabulary
        The parts that there are.
    """
    labels = list(generators)
    found: dict[str, Arm] = {}

    def add(arm: Arm) -> None:
        found.setdefault(arm.name, arm)

    add(parse_arm("plain", vocabulary))
    for name in _expand(text, vocabulary):
        for written in _per_generator(name, labels):
            arm = parse_arm(written, vocabulary)
            if arm.base not in ("plain", "best", arm.name):
                add(parse_arm(arm.base, vocabulary))
            add(arm)
    for arm in found.values():
        wanted = arm.added.generator if arm.added else ""
        if wanted and wanted not in labels:
            raise InputError(
                f"arm {arm.name!r}: there is no generator {wanted!r}; "
                f"there are: {', '.join(labels) or 'none'}"
            )
    return list(found.values())


def _expand(text: str, vocabulary: ArmVocabulary) -> list[str]:
    names = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        names += (
            _expand(vocabulary.groups[name], vocabulary) if name in vocabulary.groups else [name]
        )
    if not names:
        raise InputError(f"--arms names no arm; {vocabulary.describe()}")
    return names


def _per_generator(name: str, generators: list[str]) -> list[str]:
    parts = name.split("+")
    place = next((i for i, part in enumerate(parts) if part.partition("@")[0] == "gan"), None)
    if place is None or len(generators) < 2:
        return [name]
    rest = parts[place].removeprefix("gan")
    return [
        "+".join([*parts[:place], f"gan:{label}{rest}", *parts[place + 1 :]])
        for label in generators
    ]


def _with_techniques(
    arm: Arm, techniques: list[tuple[str, str | None]], vocabulary: ArmVocabulary
) -> Arm:
    settings = dict(arm.settings)
    for part, value in techniques:
        own, field, default, _ = vocabulary.techniques[part]
        clash = [
            field_name
            for field_name, wanted in own.items()
            if settings.get(field_name) not in (vocabulary.plain.get(field_name), wanted)
        ]
        if clash:
            raise InputError(f"arm {arm.name!r}: two parts set {clash[0]} differently")
        settings |= own
        number = _value(value, default)
        if value is not None and field is None and part not in ("logit-adjusted", "crt"):
            raise InputError(f"arm {arm.name!r}: {part} takes no value")
        if field is not None:
            settings[field] = number
        elif part == "logit-adjusted":
            arm = dataclasses.replace(arm, adjust_logits=number)
        elif part == "crt":
            arm = dataclasses.replace(arm, head_share=number)
    if arm.adjust_logits and settings["balance"] != "none":
        raise InputError(
            f"arm {arm.name!r}: logit adjustment corrects the class frequencies that "
            f"{settings['balance']} has already changed; stand it on plain training"
        )
    if settings.get("loss") == "logit-adjusted" and settings["balance"] == "sampling":
        raise InputError(
            f"arm {arm.name!r}: the logit-adjusted loss has no effect on balanced draws; use "
            "symmetries+logit-adjusted-loss"
        )
    return dataclasses.replace(arm, settings=settings)


def _added_items(
    part: tuple[str, str | None], modifiers: dict[str, str | None], vocabulary: ArmVocabulary
) -> AddedItems:
    name, value = part
    kind, _, generator = name.partition(":")
    if kind != "gan" and (generator or "filtered" in modifiers):
        raise InputError(
            f"only generated {vocabulary.noun} have a generator and a filter, not {kind}"
        )
    dose = TO_BALANCE if value == "balance" else _value(value, 1.0)
    if dose != TO_BALANCE and not 0 < dose <= 100:
        raise InputError(f"the dose of {name} must be above 0 and at most 100, got {value}")
    if kind in ("smote", "borderline-smote", "adasyn") and "only" in modifiers:
        raise InputError(f"{kind} interpolates real {vocabulary.noun} and cannot take their place")
    if "only" in modifiers and {"share", "finish"} & set(modifiers):
        raise InputError(
            f"only leaves no real {vocabulary.noun} of the class, which share and finish need"
        )
    if "own-statistics" in modifiers and "every-class" not in modifiers:
        raise InputError(
            "own-statistics needs every-class: images of one class, normalised by themselves, "
            "lose what makes them that class"
        )
    if "every-class" in modifiers and (kind != "gan" or {"only", "filtered"} & set(modifiers)):
        raise InputError(
            "every-class goes with generated images that are neither only nor filtered"
        )
    keep = _value(modifiers["filtered"], MODIFIERS["filtered"][0]) if "filtered" in modifiers else 0
    return AddedItems(
        kind=next(k for k in vocabulary.kinds if k == kind),
        dose=dose,
        generator=generator,
        keep_above=keep,
        instead="only" in modifiers,
        every_class="every-class" in modifiers,
    )


def _name_and_value(part: str) -> tuple[str, str | None]:
    name, at, value = part.partition("@")
    return name, value if at else None


def _written(name: str, value: str | None) -> str:
    return name if value is None else f"{name}@{value}"


def _value(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} after @ is not a number (or 'balance', for a dose)")
    return value


def _in_words(parts: list[tuple[str, str | None]], vocabulary: ArmVocabulary) -> str:
    """What an arm does, for the report; unknown parts are left to `parse_arm`."""
    words = []
    for name, value in parts:
        kind = next((k for k in vocabulary.kinds if k == name.partition(":")[0]), None)
        if kind is not None:
            words.append(_added_in_words(vocabulary.kinds[kind], value))
        elif name == "best":
            words.append(f"the best arm without generated {vocabulary.noun}")
        elif name in vocabulary.techniques:
            words.append(vocabulary.techniques[name][3].partition(";")[0])
        elif name in vocabulary.modifiers:
            words.append(vocabulary.modifiers[name][1])
    return "; ".join(words)


def _added_in_words(what: str, value: str | None) -> str:
    if value == "balance":
        return f"{what} up to the size of the largest class"
    dose = _value(value, 1.0)
    if dose == 1:
        return f"as many {what} as real ones of the class"
    return f"{dose:g} {what} per real one of the class"
