"""What the columns of a photometric table are: magnitudes, errors, names, or the answer itself.

A classifier must learn from what a survey measures of every source. A redshift, or the plate and
fibre of its spectrum, exists because someone looked at the spectrum that the class was read from:
it gives the answer away and is left out unless it is asked for by name. A position says where a
survey looked, an identifier who wrote the row; neither is a property of the source.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BANDS = ("u", "g", "r", "i", "z", "y", "J", "H", "K", "Ks", "W1", "W2", "W3", "W4")
"""Photometric bands from blue to red; colours are differences of neighbours in this order."""

_FEWEST_OF_A_VALUE = 5

ALWAYS_MISSING = (-9999.0, -99999.0, -999.0)
"""Values that mean "not measured" in any column."""
MISSING_MAGNITUDES = (99.0, 99.99, 999.0, 9999.0, -99.0)
"""Values that mean "not measured" in a magnitude or its error (99 is SExtractor's)."""

_GIVES_AWAY = re.compile(
    r"(redshift|z_?spec|spec_?z|zwarning|z_?err$|zerr|^plate|^mjd|fibre|fiber|spec_?obj|spec_?class"
    r"|sub_?class|spec_?type|^truth|^target$|_true$|^true_)",
    re.IGNORECASE,
)
CLASS_COLUMNS = ("class", "label", "target_class", "type")
"""Names of columns of classes; the first that a table has is the one, unless another is named."""

# Votes of Galaxy Zoo on what a galaxy is: of the first (P_EL), of the second and of its challenge
# (t01_..._a01_..._fraction, Class1.1), and of those that followed (smooth-or-featured_smooth).
_VOTES = re.compile(
    r"(^p_(el|cw|acw|edge|dk|mg|cs)(_|$)|^(spiral|elliptical|uncertain)$|_debiased$|^gz2?_?class$"
    r"|(?<![a-z])n?votes?(?![a-z])|total[-_]classifications|^t\d\d_|^class\d+\.\d+$"
    r"|^(smooth[-_]or[-_]featured|disk[-_]edge[-_]on|has[-_]spiral[-_]arms|bulge[-_]size"
    r"|how[-_]rounded|edge[-_]on[-_]bulge|spiral[-_]winding|spiral[-_]arm[-_]count)"
    r"|^bar(-\w+)?_(strong|weak|no)|^merging(-\w+)?_(none|minor|major|merger|both|neither|tidal))",
    re.IGNORECASE,
)
_NAMES = re.compile(
    r"^(|index|unnamed: ?\d+|id|.*obj_?id|object_?id|source_?id|run|rerun|rerunid|run_id|camcol"
    r"|cam_col|field|field_?id|row|name|designation|ident|htmid|thing_?id)$",
    re.IGNORECASE,
)
_POSITIONS = re.compile(r"^(ra|dec|ra_?j2000|dej2000|de_?j2000|glon|glat|alpha|delta)(_deg)?$",
                        re.IGNORECASE)  # fmt: skip
_ERROR_MARK = re.compile(r"(_?err(or)?_?|^sigma_?|^e_|^d_(?=[ugrizy]$))", re.IGNORECASE)
_OTHER_QUANTITY = re.compile(
    r"(rad|fwhm|ext|phi|ab$|ell|size|conc|sersic|flag|class|type|prob|lnl|frac|petror|seeing|psffwhm)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Magnitude:
    """A column that holds a magnitude.

    Attributes
    ----------
    column, band : str
    system : str
        The name without its band, such as ``dered_`` of ``dered_u``; colours are built inside
        one system.
    error : str or None
        Column of its error.
    """

    column: str
    band: str
    system: str
    error: str | None


def why_left_out(name: str, columns: Sequence[str]) -> str | None:
    """Why a numeric column is no feature, in a word or two; ``None`` where it is one.

    The lone letter ``z`` is a magnitude beside other bands, and a redshift without them.
    """
    if _GIVES_AWAY.search(name):
        return "gives the class away"
    if _VOTES.search(name):
        return "gives the class away: a vote on it"
    if name.lower() in CLASS_COLUMNS:
        return "names a class"
    if _NAMES.match(name):
        return "a name"
    if _POSITIONS.match(name):
        return "a position"
    if name in ("z", "Z") and sum(band in columns for band in "ugri") < 2:
        return "gives the class away (a redshift, where no other band stands beside it)"
    return None


def values_of_one_class(
    features: np.ndarray, names: Sequence[str], labels: np.ndarray
) -> tuple[str, ...]:
    """Names of columns of few values, each of which occurs in one class only.

    Such a column gives the class away whatever it is called. Columns whose values occur fewer
    than five times each, on average, are not judged.

    Parameters
    ----------
    features
        (N, F), NaN where missing.
    names
        F names.
    labels
        (N,) integers.
    """
    found = []
    for name, column in zip(names, np.asarray(features).T, strict=True):
        known = np.isfinite(column)
        values, index = np.unique(column[known], return_inverse=True)
        if len(values) < 2 or len(values) * _FEWEST_OF_A_VALUE > known.sum():
            continue
        pairs = np.unique(np.stack([index, labels[known]]), axis=1)
        if pairs.shape[1] == len(values) and len(np.unique(labels[known])) > 1:
            found.append(name)
    return tuple(found)


def is_error(name: str) -> bool:
    """Whether a column is named as an error."""
    return bool(_ERROR_MARK.search(name)) and not _GIVES_AWAY.search(name)


def magnitudes(columns: Sequence[str]) -> tuple[Magnitude, ...]:
    """Magnitudes among column names, from blue to red; a lone band is none.

    ``u``, ``dered_u``, ``psfMag_u``, ``u_mag``, ``mag u`` are; sizes, errors and colours are not.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for column in columns:
        if is_error(column) or _OTHER_QUANTITY.search(column) or why_left_out(column, columns):
            continue
        parts = _band_and_system(column)
        if parts is not None:
            found.setdefault(parts[1], []).append((column, parts[0]))
    result = []
    for system, members in found.items():
        if len(members) < 2:
            continue
        members.sort(key=lambda member: BANDS.index(member[1]))
        result += [
            Magnitude(column, band, system, _error_column(column, band, system, columns))
            for column, band in members
        ]
    return tuple(result)


def _band_and_system(column: str) -> tuple[str, str] | None:
    for band in sorted(BANDS, key=len, reverse=True):
        if column == band:
            return band, "{}"
        for pattern in (f"_{band}", f" {band}"):
            if column.endswith(pattern):
                return band, column[: -len(band)] + "{}"
        for pattern in (f"{band}_", f"{band} "):
            if column.startswith(pattern) and "mag" in column.lower():
                return band, "{}" + column[len(band) :]
        if column.lower().startswith("mag") and column[3:] == band:
            return band, column[:3] + "{}"
    return None


def _error_column(column: str, band: str, system: str, columns: Sequence[str]) -> str | None:
    plain = system.replace("{}", "").strip("_ ")
    candidates = [
        f"{column}_err", f"{column}err", f"err_{column}", f"{column}_error", f"sigma_{column}",
        f"e_{column}", f"{plain}Err_{band}", f"{plain}_err_{band}", f"{plain}err_{band}",
        f"err_{band}", f"{band}_err", f"{band}_error", f"magerr_{band}", f"mag_err_{band}",
    ]  # fmt: skip
    lower = {name.lower(): name for name in columns}
    for candidate in candidates:
        if candidate.lower() in lower and lower[candidate.lower()] != column:
            return lower[candidate.lower()]
    return None


def colours(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Differences of neighbouring magnitudes, and their errors where both are known.

    Parameters
    ----------
    values
        Name -> (N,) float64; missing values are NaN and stay so.

    Returns
    -------
    dict
        ``u-g`` (or ``dered_u-dered_g``) -> (N,), and ``error of u-g`` by quadrature, as
        independent errors add. A system with one band gives nothing.
    """
    found = magnitudes(tuple(values))
    result: dict[str, np.ndarray] = {}
    for system in dict.fromkeys(m.system for m in found):
        members = [m for m in found if m.system == system]
        for blue, red in itertools.pairwise(members):
            name = f"{blue.column}-{red.column}"
            result[name] = values[blue.column] - values[red.column]
            if blue.error and red.error:
                result[f"error of {name}"] = np.hypot(values[blue.error], values[red.error])
    return result


def mark_missing(values: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Turn the surveys' codes for "not measured" into NaN, and count them per column.

    Infinite values are missing too: they come from the logarithm of a flux of zero.
    """
    photometric = {m.column for m in magnitudes(tuple(values))}
    photometric |= {name for name in values if is_error(name)}
    marked, counts = {}, {}
    for name, column in values.items():
        codes = ALWAYS_MISSING + (MISSING_MAGNITUDES if name in photometric else ())
        wrong = np.isin(column, codes) | np.isinf(column)
        marked[name] = np.where(wrong, np.nan, column)
        if wrong.any():
            counts[name] = int(wrong.sum())
    return marked, counts
