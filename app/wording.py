"""Plain words for what a classifier answers; nothing here computes an answer."""

import re
from collections.abc import Sequence

_VOWELS = "aeiou"
_TURNS = ("clockwise", "anticlockwise", "counterclockwise")
_ADJECTIVES = (
    *("edge-on", "face-on", "elliptical", "round", "smooth", "elongated", "disturbed", "merging"),
    *("irregular", "lenticular", "barred", "unbarred", "peculiar", "featured", "interacting"),
    *("compact", "double"),
)
"""A class whose name ends in one of these is called a galaxy of that kind."""

_CUT_A_SQUARE = ("; pass --crop to cut a square", "; cut a square around the galaxy")

_ADVICE_WITH_FLAGS = (r"[;(]? *(?:pass|give|use|see|run) --.*$", r" *\(--[^)]*\)", r"--(?=\w)")


def readable(class_name: str) -> str:
    """A class name as a person writes it.

    ``edge_on`` becomes ``edge-on``, ``spiral_clockwise`` ``clockwise spiral``,
    ``Barred Spiral Galaxies`` ``barred spiral galaxy``.
    """
    words = [_lowered(word) for word in class_name.replace("_", " ").split()]
    if words and words[-1] in _TURNS and len(words) > 1:
        words = [words[-1], *words[:-1]]
    text = " ".join("galaxy" if word == "galaxies" else word for word in words)
    return re.sub(r"\b(edge|face|in) (on|between)\b", r"\1-\2", text)


def with_article(class_name: str) -> str:
    """``a merger``, ``an edge-on galaxy``; a name that is no noun phrase stands in quotes."""
    words = readable(class_name)
    last = words.split()[-1] if words else ""
    if not last or last.isdigit() or "," in words:
        return f"“{words}”"
    if last in _ADJECTIVES:
        words += " galaxy"
    words = re.sub(r"^(.*?)(?: galaxy)? (with|without|no) ", r"\1 galaxy \2 ", words)
    return f"{'an' if words[0].lower() in _VOWELS else 'a'} {words}"


def _lowered(word: str) -> str:
    """Title case and shouted words in small letters; abbreviations such as QSO stay."""
    shouted = word.isupper() and len(word) > 3
    return word.lower() if shouted or word[1:].islower() else word


def listed(class_names: Sequence[str]) -> str:
    """``a merger``, ``a merger or a spiral``, ``a merger, a spiral or an elliptical``."""
    words = [with_article(name) for name in class_names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def describe_set(
    members: Sequence[str],
    classes: Sequence[str],
    never_ruled_out: Sequence[str] = (),
    most_like: str | None = None,
) -> str:
    """One or two sentences for a prediction set.

    Parameters
    ----------
    members
        Classes in the prediction set, the most probable first.
    classes
        Every class of the classifier.
    never_ruled_out
        Classes that stand in every set, whatever the image shows.
    most_like
        The most probable class, said where the set names none for what the image shows.
    """
    told = [name for name in members if name not in never_ruled_out]
    standing = [name for name in members if name in never_ruled_out]
    guess = f" Most like {with_article(most_like)}." if most_like is not None else ""
    if len(standing) == len(classes):
        return (
            "It could be any of the classes: it was checked on too few galaxies to rule one out "
            f"at this confidence.{guess}"
        )
    if len(members) == len(classes) and not standing and len(classes) > 1:
        return "It could be any of the classes; this image does not let it say which."
    if told:
        sentence = listed(told)
        sentence = sentence[0].upper() + sentence[1:]
        sentence += "." if len(told) == 1 else "; not enough to say which."
    else:
        sentence = f"No class is clear enough at this confidence.{guess}"
    if standing:
        sentence += f" It was checked on too few galaxies to rule out {listed(standing)}."
    return sentence


def describe_probability(value: float) -> str:
    """A probability as a percentage that never claims 0 or 100 without having it."""
    if 0 < value < 0.01:
        return "<1 %"
    if 0.99 < value < 1:
        return ">99 %"
    return f"{100 * value:.0f} %"


def describe_record(name: str, right: int, total: int, kind: str) -> str:
    """How often a class was right on images that the classifier had never seen.

    Parameters
    ----------
    name
        Class.
    right, total
        Of ``total`` images, ``right`` were right.
    kind
        ``recall``: of the class, found. ``precision``: called so, rightly.
    """
    words = readable(name)
    if total == 0:
        return f"It was never tested on the class {words}."
    if kind == "recall":
        return f"Of {total:,} test images of the class {words}, it found {right:,}."
    return f"Of {total:,} test images that it called {words}, {right:,} were right."


def reason_for_people(message: str, name: str) -> str:
    """An error of the command line as a visitor of the page reads it: no flags, no file name."""
    words = message.removeprefix(name).lstrip(": ").strip().replace(*_CUT_A_SQUARE)
    for flag in _ADVICE_WITH_FLAGS:
        words = re.sub(flag, "", words)
    return words.strip(" ;,")
