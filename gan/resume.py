"""Resuming: which settings may change, and refusing by name those that may not."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galaxies.errors import InputError
from gan.checkpoint import RunDescription, read_description
from gan.preparation import Preparation
from gan.recipes import PartChoices, Parts
from gan.training_config import RUN_ONLY, TrainConfig


def stored_config(given: TrainConfig, named: Sequence[str], folder: Path) -> TrainConfig:
    """The settings of the run in ``folder``, with those replaced that the user named.

    Parameters
    ----------
    given
        The parsed flags.
    named
        Fields that stood on the command line; the others take their stored value.
    """
    command = read_description(folder).command
    values: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        if field.name in named or field.name in ("resume", "json", "overwrite", "out"):
            values[field.name] = getattr(given, field.name)
        elif field.name in command:
            values[field.name] = _from_json(field.name, command[field.name])
    return TrainConfig(**values)


def check_unchanged(config: TrainConfig, preparation: Preparation, folder: Path) -> None:
    """Refuse to resume under another setting or on other images.

    ``--steps`` may be raised: the ramp keeps the length that it was planned with.

    Raises
    ------
    InputError
        Names every setting that differs, with both values.
    """
    description = read_description(folder)
    stored, now = description.data, preparation.data
    changed = _changed_flags(config, preparation, description)
    if description.command.get("recipe", config.recipe) == config.recipe:
        changed += _changed_parts(config, preparation, description)
    if now.digest != stored.digest:
        changed.append("the training images are others than those it began with (--data)")
    elif stored.labels_digest not in ("", now.labels_digest):
        changed.append("the training images have other classes than when it began (--data)")
    if stored.judging_digest not in ("", now.judging_digest):
        changed.append(
            "the validation images, or other images that judge the run, are others than those it "
            "began with (--data)"
        )
    if now.class_names != stored.class_names:
        changed.append(
            f"the classes were called {', '.join(stored.class_names)}, now "
            f"{', '.join(now.class_names)} (--data)"
        )
    if (now.mirror_pairs, now.stretch) != (stored.mirror_pairs, stored.stretch):
        changed.append("the set has other mirror pairs or another stretch (--data)")
    if changed:
        raise InputError(
            f"{folder} cannot be resumed: {'; '.join(changed)}. "
            "Resume with the stored settings, or begin anew with another --out"
        )


def _changed_flags(
    config: TrainConfig, preparation: Preparation, description: RunDescription
) -> list[str]:
    changed = []
    parts = {field.name for field in dataclasses.fields(PartChoices)}
    for field in dataclasses.fields(TrainConfig):
        if field.name in parts or field.name in RUN_ONLY or field.name not in description.command:
            continue
        before = _from_json(field.name, description.command[field.name])
        now = getattr(config, field.name)
        if field.name == "steps":
            if now < before:
                changed.append(f"--steps was {before}, now {now} (it may only be raised)")
        elif field.name == "classes":
            if preparation.data.chosen != description.data.chosen:
                changed.append(f"--class was {' '.join(before)}, now {' '.join(now)}")
        elif field.name == "width":
            before, now = description.shape.width, preparation.shape.width
            if now != before:
                changed.append(f"--width was {before}, now {now}")
        elif now != before:
            changed.append(f"--{field.name.replace('_', '-')} was {before}, now {now}")
    return changed


def _changed_parts(
    config: TrainConfig, preparation: Preparation, description: RunDescription
) -> list[str]:
    """What the recipe was, against what it is now, whether a flag or the version changed it."""
    changed = []
    for field in dataclasses.fields(Parts):
        before, now = getattr(description.parts, field.name), getattr(preparation.parts, field.name)
        if before == now:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        sentence = f"{flag} was {_as_word(before)}, now {_as_word(now)}"
        if getattr(config, field.name) is None and description.command.get(field.name) is None:
            sentence += f" by default (pass {flag} {_as_word(before)})"
        changed.append(sentence)
    return changed


def _as_word(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _from_json(name: str, value: Any) -> Any:
    if name == "out":
        return None if value is None else Path(value)
    return tuple(value) if isinstance(value, list) else value
