"""Which image or group goes to which side of a split: the arithmetic behind `galaxies.split`."""

from collections.abc import Sequence

import numpy as np

from galaxies.errors import InputError
from galaxies.image_set import SPLITS

_RESTARTS = 4  # assignments of few groups that are tried; the best one is kept
_FEW_GROUPS = 200  # up to here restarts and swaps of pairs are cheap, and they matter
_MOST_MOVES = 1000
_ABSENT = 1e9
_TINY = 1e-9


def split_labels(
    labels: np.ndarray,
    class_names: Sequence[str],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
    noun: str = "images",
) -> np.ndarray:
    """Return (N,) int8 sides of single items; every class stands on every wanted side.

    ``noun`` is what the items are called in an error.
    """
    present = np.flatnonzero(np.bincount(labels, minlength=len(class_names)))
    counts = np.bincount(labels, minlength=len(class_names))[present]
    wanted = [side for side, fraction in enumerate(fractions) if fraction > 0]
    for index, count in zip(present, counts, strict=True):
        if count < len(wanted):
            found = f"{count} {noun if count != 1 else noun.removesuffix('s')}"
            raise InputError(
                f"class {class_names[int(index)]!r} has {found}, too few to stand on "
                f"{len(wanted)} sides ({', '.join(SPLITS[side] for side in wanted)}); "
                "add some or leave the class out"
            )
    table = side_counts(counts, fractions)
    split = np.empty(len(labels), dtype=np.int8)
    for index, row in zip(present, table, strict=True):
        split[rng.permutation(np.flatnonzero(labels == index))] = np.repeat(np.arange(3), row)
    return split


def joined_units(*markings: np.ndarray) -> np.ndarray:
    """(N,) int64 units: items that share a mark in any of the markings stand in one unit."""
    numbers = [np.unique(marking, return_inverse=True)[1].reshape(-1) for marking in markings]
    first = numbers[0]
    parent = np.arange(first.max() + 1 if len(first) else 0)

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = int(parent[unit])
        return unit

    for marks in numbers[1:]:
        first_with: dict[int, int] = {}
        for unit, mark in zip(first.tolist(), marks.tolist(), strict=True):
            other = first_with.setdefault(mark, unit)
            parent[root(unit)] = root(other)
    return np.array([root(int(unit)) for unit in first], dtype=np.int64)


def side_counts(counts: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    """Return (classes, 3) int64: how many images of each class each side gets.

    The test side is rounded first, as in a two-way split, then validation from what remains;
    each total is rounded up, and remainders go to the classes with the largest fractions.
    """
    total = int(counts.sum())
    test = _share(counts, _round_up(fractions[2] * total))
    rest = counts - test
    not_test = fractions[0] + fractions[1]
    validation = _share(rest, _round_up(fractions[1] / not_test * int(rest.sum())))
    table = np.stack([rest - validation, validation, test], axis=1)
    wanted = np.flatnonzero(np.array(fractions) > 0)
    for row in table:
        for side in wanted:
            if row[side] == 0:
                row[wanted[np.argmax(row[wanted])]] -= 1
                row[side] = 1
    return table


def split_groups(
    labels: np.ndarray,
    class_names: Sequence[str],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
    groups: np.ndarray,
) -> np.ndarray:
    """Return (N,) int8 sides such that no group stands on two.

    Groups are dealt one by one (many of them from the largest down), each to the side where it
    brings the class counts nearest to the fractions. Then groups move, or swap where there are
    few, while that helps; of few groups the best of several random orders is kept.
    """
    _, members = np.unique(groups, return_inverse=True)
    present, classes = np.unique(labels, return_inverse=True)
    table = np.zeros((members.max(initial=-1) + 1, len(present)), dtype=np.int64)
    np.add.at(table, (members, classes), 1)
    wanted = [side for side, fraction in enumerate(fractions) if fraction > 0]
    for column, index in enumerate(present):
        holding = int((table[:, column] > 0).sum())
        if holding < len(wanted):
            raise InputError(
                f"class {class_names[index]!r} stands in {holding} "
                f"group{'s' if holding > 1 else ''}, too few for {len(wanted)} sides "
                f"({', '.join(SPLITS[side] for side in wanted)}) without cutting a group; "
                "use coarser sides, other groups, or leave the class out"
            )
    best, best_cost = None, np.inf
    for _ in range(_RESTARTS if len(table) <= _FEW_GROUPS else 1):
        sides = _improve(_deal(table, fractions, wanted, rng), table, fractions, wanted)
        cost = _cost(_side_table(table, sides), _targets(table, fractions)).sum()
        if cost < best_cost:
            best, best_cost = sides, cost
    assert best is not None
    reached = _side_table(table, best)
    for column, index in enumerate(present):
        empty = [SPLITS[side] for side in wanted if reached[side, column] == 0]
        if empty:
            raise InputError(
                f"no way was found to put whole groups on each side so that class "
                f"{class_names[index]!r} stands on {' and '.join(empty)}; "
                "try another --seed or other --fractions"
            )
    return best[members].astype(np.int8)


def _deal(
    table: np.ndarray,
    fractions: tuple[float, float, float],
    wanted: list[int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Assign groups (rows of ``table``) to sides one by one, the largest first."""
    targets = _targets(table, fractions)[wanted]
    order = rng.permutation(len(table))
    if len(table) > _FEW_GROUPS:  # few groups swap anyway; a free order lets seeds differ
        order = order[np.argsort(-(table[order] / table.sum(axis=0)).max(axis=1), kind="stable")]
    reached = np.zeros((len(wanted), table.shape[1]), dtype=np.int64)
    sides = np.empty(len(table), dtype=np.int64)
    for row in order:
        change = _miss(reached + table[row], targets) - _miss(reached, targets)
        chosen = int(np.argmin(change))
        reached[chosen] += table[row]
        sides[row] = wanted[chosen]
    return sides


def _improve(
    sides: np.ndarray,
    table: np.ndarray,
    fractions: tuple[float, float, float],
    wanted: list[int],
) -> np.ndarray:
    """Move single groups, or swap two where there are few groups, while the cost falls."""
    targets = _targets(table, fractions)
    sides = sides.copy()
    for _ in range(_MOST_MOVES):
        reached = _side_table(table, sides)
        here = _cost(reached, targets)
        leaving = _cost(reached[sides] - table, targets[sides]) - here[sides]
        gains = np.full((len(table), 3), np.inf)
        for side in wanted:
            gains[:, side] = leaving + _cost(reached[side] + table, targets[side]) - here[side]
        gains[np.arange(len(table)), sides] = np.inf
        row, chosen = np.unravel_index(np.argmin(gains), gains.shape)
        if gains[row, chosen] < -_TINY:
            sides[row] = chosen
            continue
        if len(table) > _FEW_GROUPS:
            break
        # Row i goes to the side of row j and back.
        exchange = table[None, :, :] - table[:, None, :]
        swapped = _cost(reached[sides][:, None] + exchange, targets[sides][:, None])
        swapped = swapped - here[sides][:, None]
        total = swapped + swapped.T
        total[sides[:, None] == sides[None, :]] = np.inf
        row, other = np.unravel_index(np.argmin(total), total.shape)
        if not total[row, other] < -_TINY:
            break
        sides[row], sides[other] = sides[other], sides[row]
    return sides


def _targets(table: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    return np.outer(fractions, table.sum(axis=0))


def _miss(reached: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Chi-squared distance of class counts (..., classes) from their targets."""
    return (((reached - targets) ** 2) / np.maximum(targets, _TINY)).sum(axis=-1)


def _cost(reached: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`_miss`, and a price above any miss for each class that is absent where it is wanted."""
    return _miss(reached, targets) + _ABSENT * ((reached == 0) & (targets > 0)).sum(axis=-1)


def _side_table(table: np.ndarray, sides: np.ndarray) -> np.ndarray:
    reached = np.zeros((3, table.shape[1]), dtype=np.int64)
    np.add.at(reached, sides, table)
    return reached


def _share(counts: np.ndarray, total: int) -> np.ndarray:
    """Share ``total`` over classes in proportion to ``counts``, by largest remainder."""
    if counts.sum() == 0:
        return np.zeros_like(counts)
    exact = counts / counts.sum() * total
    shares = np.floor(exact).astype(np.int64)
    missing = total - int(shares.sum())
    # Ties go to the larger class, then to the first, so the supports never depend on the seed.
    order = np.lexsort((np.arange(len(counts)), -counts, -np.round(exact - shares, 9)))
    shares[order[:missing]] += 1
    return shares


def _round_up(value: float) -> int:
    return int(np.ceil(round(value, 6)))
