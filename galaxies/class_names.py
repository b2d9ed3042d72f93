"""The order of class names, and a class found by its name or its index."""

import math
import re
from collections.abc import Iterable, Sequence

from galaxies.errors import InputError

_NUMBER = re.compile(r"(?:class )?([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)", re.ASCII)


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by number where every name is one (``2`` before ``10``), else by letter.

    ``class 2`` counts as the number 2, as sets without class names call their classes.
    """
    different = sorted(set(names))
    if all(_number(name) is not None for name in different):
        different.sort(key=lambda name: _number(name) or 0.0)
    return tuple(different)


def class_index(wanted: str | int, names: Sequence[str]) -> int:
    """Index of a class given by name or index (also an index written as text).

    Where every name is a number, text is a name and never an index, and is compared by its
    value, so ``2`` finds ``2.0``: of the classes 1 to 5, ``1`` is the first and ``0`` is none.

    Raises
    ------
    InputError
        If there is no such class; lists those that exist.
    """
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    numbers = [_number(name) for name in names]
    if isinstance(wanted, str) and None not in numbers:
        value = _number(wanted)
        if value is not None and value in numbers:
            return numbers.index(value)
        raise InputError(f"there is no class {wanted!r}; the classes are: {', '.join(names)}")
    try:
        index = int(wanted)
    except ValueError:
        index = -1
    if not 0 <= index < len(names):
        with_numbers = ", ".join(f"{i} {name}" for i, name in enumerate(names))
        raise InputError(f"there is no class {wanted!r}; the classes are: {with_numbers}")
    return index


def _number(name: str) -> float | None:
    found = _NUMBER.fullmatch(name)
    value = float(found[1]) if found else math.inf
    return value if math.isfinite(value) else None


def table_cell(name: str) -> str:
    """A class name inside a Markdown table, where a bar would begin the next cell."""
    return name.replace("|", r"\|")
