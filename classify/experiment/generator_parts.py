"""``--gan-parts``: flags of gan-train for the generators that an experiment trains."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from galaxies.errors import InputError
from gan.preparation import refuse_broken_groups
from gan.recipes import RECIPES, PartChoices, RecipeName, resolve_parts


def parse_parts(words: Sequence[str], recipe: RecipeName) -> dict[str, Any]:
    """``loss=relativistic r2=9`` to values of the fields of `gan.recipes.PartChoices`.

    Raises
    ------
    InputError
        If a word is no ``PART=VALUE``, or its value does not fit the part or the recipe.
    """
    fields = [field.name for field in dataclasses.fields(PartChoices)]
    found: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        name = name.lstrip("-").replace("-", "_")
        if not sign or name not in fields:
            raise InputError(
                f"--gan-parts {word}: give PART=VALUE, with a flag of gan-train such as "
                f"loss=relativistic; parts are {', '.join(fields)}"
            )
        found[name] = _value(name, text, getattr(RECIPES[recipe], name))
    resolve_parts(recipe, PartChoices(**found))
    return found


def refuse_unfit_generators(recipe: RecipeName, words: Sequence[str], batch_size: int) -> None:
    """Refuse parts or a batch size with which no generator of a fold could be trained."""
    parts = resolve_parts(recipe, PartChoices(**parse_parts(words, recipe)))
    try:
        refuse_broken_groups(parts, batch_size)
    except InputError as error:
        raise InputError(f"generators of folds (--gan-batch-size, --gan-parts): {error}") from None


def _value(name: str, text: str, example: Any) -> Any:
    allowed = _words_allowed(typing.get_type_hints(PartChoices)[name])
    if isinstance(example, bool):
        if text not in ("True", "False"):
            raise InputError(f"--gan-parts {name}={text}: must be True or False")
        return text == "True"
    if isinstance(example, tuple):
        values = tuple(part for part in text.split(",") if part)
        _require_words(name, values, allowed)
        return values
    if isinstance(example, str):
        _require_words(name, (text,), allowed)
        return text
    try:
        return int(text) if isinstance(example, int) else float(text)
    except ValueError:
        raise InputError(f"--gan-parts {name}={text}: must be a number") from None


def _words_allowed(hint: Any) -> set[str]:
    """The words of every ``Literal`` within a type."""
    if typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint))
    return {word for part in typing.get_args(hint) for word in _words_allowed(part)}


def _require_words(name: str, values: Sequence[str], allowed: set[str]) -> None:
    for value in values:
        if value not in allowed:
            raise InputError(f"--gan-parts {name}={value}: must be {', '.join(sorted(allowed))}")
