"""Plain words for what a classifier answers; nothing here computes an answer."""

from collections.abc import Sequence

_VOWELS = "aeiou"


def readable(class_name: str) -> str:
    """A class name as a person writes it: ``edge_on`` becomes ``edge-on``."""
    words = class_name.replace("_", " ").strip()
    return words.replace("edge on", "edge-on").replace("in between", "in-between")


def with_article(class_name: str) -> str:
    """``a merger``, ``an elliptical``; a name of more than three words stays bare."""
    words = readable(class_name)
    if not words or len(words.split()) > 3 or words[0].isdigit():
        return f"“{words}”"
    return f"{'an' if words[0].lower() in _VOWELS else 'a'} {words}"


def listed(class_names: Sequence[str]) -> str:
    """``a merger``, ``a merger or a spiral``, ``a merger, a spiral or an elliptical``."""
    words = [with_article(name) for name in class_names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def describe_set(members: Sequence[str], classes: Sequence[str]) -> str:
    """One sentence for a prediction set.

    Parameters
    ----------
    members
        Classes in the prediction set, the most probable first.
    classes
        Every class of the classifier.
    """
    if not members:
        return "Unlike every class it knows; better to ask a person."
    if len(members) == len(classes) and len(classes) > 1:
        return "It could be any of the classes; this image does not let it say which."
    sentence = listed(members)
    sentence = sentence[0].upper() + sentence[1:]
    return f"{sentence}." if len(members) == 1 else f"{sentence}; not enough to say which."


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
