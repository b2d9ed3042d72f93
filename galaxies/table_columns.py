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

ALWAYS_MISSING = (-9999.0, -99999.0, -999.0)
"""Values that mean "not measured" in any column."""
MISSING_MAGNITUDES = (99.0, 99.99, 999.0, 9999.0, -99.0)
"""Values that mean "not measured" in a magnitude or its error (99 is SExtractor's)."""

_GIVES_AWAY = re.compile(
    r"(redshift|z_?spec|spec_?z|zwarning|z_?err$|zerr|^plate|^mjd|fibre|fiber|spec_?obj|spec_?class"
    r"|sub_?class|spec_?type|^truth|^target$|_true$|^true_)",
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
    if _NAMES.match(name):
        return "a name"
    if _POSITIONS.match(name):
        return "a position"
    if name in ("z", "Z") and sum(band in columns for band in "ugri") < 2:
        return "gives the class away (a redshift, where no other band stands beside it)"
    return None


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
