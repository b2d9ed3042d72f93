"""Small charts as SVG text, drawn for 360 pixels of width so that a phone shows them in full."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40

COLOURS = ("#3b6fb6", "#d1701c", "#2f8f6b", "#a6447f", "#7a6a2f", "#5d5fa8", "#b23a3a", "#4d4d4d")
"""Told apart by colour-blind readers; the dash pattern differs too."""

DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4", "4 2 1 2", "12 3")


@dataclass(frozen=True)
class Series:
    """One curve or cloud.

    Attributes
    ----------
    name : str
    x, y : sequence of float
    low, high : sequence of float or None
        Ends of vertical intervals.
    labels : sequence of str or None
        Shown when pointed at.
    line : bool
        Whether points are joined.
    marks : bool
        Whether points are drawn.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    labels: Sequence[str] | None = None
    line: bool = True
    marks: bool = True


def chart(
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
    zero: bool = False,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    description: str,
) -> str:
    """Line or scatter chart.

    Parameters
    ----------
    band
        Shaded horizontal region, such as differences too small to matter.
    zero
        Draw the line y = 0.
    x_ticks
        Places and labels on the horizontal axis, instead of round numbers.
    description
        Read out where the picture cannot be seen.
    """
    xs = [value for one in series for value in one.x]
    ys = [v for one in series for part in (one.y, one.low, one.high) if part for v in part]
    if band is not None:
        ys += list(band)
    x_low, x_high = x_range or _padded(xs)
    y_low, y_high = y_range or _padded(ys)

    def place_x(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    if band is not None:
        top, end = place_y(min(band[1], y_high)), place_y(max(band[0], y_low))
        parts.append(
            element("rect", class_="region", x=LEFT, y=top, width=right - LEFT, height=end - top)
        )
    for tick in ticks(y_low, y_high):
        y = place_y(tick)
        parts.append(line(LEFT, y, right, y, class_="grid"))
        parts.append(text(number(tick), LEFT - 6, y + 4, anchor="end"))
    for tick, label in x_ticks or [(tick, number(tick)) for tick in ticks(x_low, x_high)]:
        parts.append(text(label, place_x(tick), bottom + 16))
    if zero and y_low <= 0 <= y_high:
        parts.append(line(LEFT, place_y(0), right, place_y(0), class_="zero"))
    parts += [_draw(one, index, place_x, place_y) for index, one in enumerate(series)]
    parts.append(text(x_title, (LEFT + right) / 2, HEIGHT - 6, class_="axis"))
    turned = f"translate(11 {(TOP + bottom) / 2}) rotate(-90)"
    parts.append(text(y_title, 0, 0, class_="axis", transform=turned))
    return element(
        "svg",
        "".join(parts),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=description,
    )


def element(tag: str, content: str | None = None, /, **attributes: str | float) -> str:
    """One SVG element; ``_`` in a name is written ``-``, numbers with one decimal."""
    words = []
    for name, value in attributes.items():
        written = f"{value:.1f}" if isinstance(value, float) else escape(str(value))
        words.append(f'{name.rstrip("_").replace("_", "-")}="{written}"')
    opened = f"<{tag} {' '.join(words)}"
    return f"{opened}/>" if content is None else f"{opened}>{content}</{tag}>"


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def text(
    content: str, x: float, y: float, anchor: str = "middle", **attributes: str | float
) -> str:
    """A text at a point."""
    return element("text", escape(content), text_anchor=anchor, x=x, y=y, **attributes)


def strip(
    low: float,
    middle: float,
    high: float,
    *,
    scale: float,
    region: float,
    tone: str,
    ticks_below: bool = False,
) -> str:
    """One row of a forest plot: an interval on a scale from ``-scale`` to ``+scale``.

    Parameters
    ----------
    region
        Half-width of the shaded smallest effect of interest.
    tone
        CSS class of the interval.
    """
    width, height = 300, 40 if ticks_below else 22
    centre = 11

    margin = 14

    def place(value: float) -> float:
        inside = (max(-scale, min(scale, value)) + scale) / (2 * scale)
        return margin + inside * (width - 2 * margin)

    parts = [
        element("rect", class_="region", x=place(-region), y=0,
                width=place(region) - place(-region), height=22),
        line(width / 2, 0, width / 2, 22, class_="zero"),
        line(place(low), centre, place(high), centre, class_=f"whisker {tone}"),
    ]  # fmt: skip
    for value in (low, high):
        if abs(value) <= scale:
            x = place(value)
            parts.append(line(x, centre - 4, x, centre + 4, class_=f"whisker {tone}"))
    parts.append(element("circle", class_=f"dot {tone}", cx=place(middle), cy=centre, r=4.5))
    if ticks_below:
        for tick in ticks(-scale, scale):
            label = "0" if abs(tick) < 1e-9 else f"{100 * tick:+.0f}".replace("-", "\u2212")
            parts.append(text(label, place(tick), 37))
    view = f"0 0 {width} {height}"
    return element("svg", "".join(parts), class_="strip", viewBox=view, aria_hidden="true")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between ``low`` and ``high``."""
    span = high - low
    step = 10 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= most:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick label without noise digits."""
    return "0" if abs(value) < 1e-12 else f"{value:.6g}".replace("-", "\u2212")


def _padded(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    pad = 0.07 * (high - low) or max(0.05, 0.1 * abs(high))
    return low - pad, high + pad


def _draw(one: Series, index: int, place_x: object, place_y: object) -> str:
    assert callable(place_x)
    assert callable(place_y)
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    points = [(place_x(x), place_y(y)) for x, y in zip(one.x, one.y, strict=True)]
    parts = []
    if one.low is not None and one.high is not None:
        for (x, _), low, high in zip(points, one.low, one.high, strict=True):
            ends = (x, place_y(low), x, place_y(high))
            parts.append(line(*ends, stroke=colour, stroke_width=1.6))
    if one.line and len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn = element(
            "polyline",
            points=path,
            fill="none",
            stroke=colour,
            stroke_width=2,
            stroke_dasharray=dash or "none",
        )
        parts.append(drawn)
    if one.marks:
        labels = one.labels or [""] * len(points)
        for (x, y), label in zip(points, labels, strict=True):
            title = element("title", escape(label))
            parts.append(element("circle", title, cx=x, cy=y, r=4, fill=colour))
    return "".join(parts)


def legend(names: Sequence[str]) -> str:
    """Keys of the series, in the order of their colours, as HTML."""
    items = []
    for index, name in enumerate(names):
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        dashes = dash or "none"
        key = line(1, 5, 25, 5, stroke=colour, stroke_width=2.5, stroke_dasharray=dashes)
        sample = element("svg", key, viewBox="0 0 26 10", width=26, height=10, aria_hidden="true")
        items.append(f"<li>{sample} {escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
