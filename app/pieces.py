"""Pieces of HTML that several pages show: probability bars, pictures, cards."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from app.wording import describe_probability, readable
from galaxies.pixels import Stretch, to_network, to_storage

if TYPE_CHECKING:
    import torch

STYLE = """
<style>
.block-container, .stMainBlockContainer { max-width: 62rem; padding-top: 4.2rem; }
.bars { display: grid; gap: .45rem; margin: .2rem 0 .4rem; }
.bar-row { display: grid; grid-template-columns: 1fr auto; column-gap: .75rem; font-size: .92rem; }
.bar-row .track { grid-column: 1 / -1; height: .5rem; border-radius: .25rem; overflow: hidden;
  background: color-mix(in srgb, currentColor 11%, transparent); }
.bar-row .fill { height: 100%; border-radius: .25rem; min-width: 2px;
  background: color-mix(in srgb, currentColor 35%, transparent); }
.bar-row.in-set .fill { background: #4c7fd6; }
.bar-row.in-set { font-weight: 600; }
.bar-row .number { font-variant-numeric: tabular-nums; }
.verdict { font-size: 1.35rem; line-height: 1.35; font-weight: 650; margin: 0 0 .2rem; }
.quiet { opacity: .78; font-size: .92rem; line-height: 1.45; margin: 0 0 .35rem; }
.file-name { opacity: .72; font-size: .85rem; overflow-wrap: anywhere; margin: 0 0 .4rem; }
.picture { width: 100%; max-width: 22rem; border-radius: .6rem; display: block; background: #000; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); gap: .6rem; }
.tiles figure { margin: 0; }
.tiles img { width: 100%; border-radius: .45rem; display: block; background: #000; }
.tiles figcaption { font-size: .8rem; line-height: 1.3; opacity: .82; margin-top: .25rem;
  overflow-wrap: anywhere; }
.notice { border-left: .25rem solid #d08a1d; padding: .45rem .8rem; border-radius: .3rem;
  background: color-mix(in srgb, #d08a1d 13%, transparent); font-size: .93rem; margin: .4rem 0; }
.notice ul { margin: .25rem 0 0; padding-left: 1.1rem; overflow-wrap: anywhere; }
</style>
"""


def probability_bars(
    probabilities: Mapping[str, float], in_set: Sequence[str], most: int = 10
) -> str:
    """Bars of the classes, the most probable first; those of the prediction set stand out.

    Parameters
    ----------
    probabilities
        Class name to probability.
    in_set
        Classes of the prediction set.
    most
        Most bars; further classes are summed in one line.
    """
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    rows = [_bar(readable(name), value, name in in_set) for name, value in ordered[:most]]
    if len(ordered) > most:
        rest = sum(value for _, value in ordered[most:])
        rows.append(_bar(f"{len(ordered) - most} other classes", rest, False))
    return f'<div class="bars">{"".join(rows)}</div>'


def _bar(name: str, value: float, in_set: bool) -> str:
    return (
        f'<div class="bar-row{" in-set" if in_set else ""}"><span>{escape(name)}</span>'
        f'<span class="number">{escape(describe_probability(value))}</span>'
        f'<div class="track"><div class="fill" style="width:{100 * value:.1f}%"></div></div></div>'
    )


def shown_pixels(pixels: np.ndarray, stretch: Stretch | None = None) -> np.ndarray:
    """Stored pixels of one image as a picture for people.

    Parameters
    ----------
    pixels : (C, H, W)
        uint8, or float32 flux with its stretch.

    Returns
    -------
    (H, W, 1 or 3) uint8
        Grey stays grey. Of more than three bands, taken to run from blue to red, three are shown
        with the red one in red: for ugriz these are i, r and g.
    """
    import torch

    unit = to_network(torch.from_numpy(np.ascontiguousarray(pixels)), stretch)
    values = to_storage(unit).numpy()
    count = len(values)
    if count > 3:
        values = values[[count - 2, count // 2, 1]]
    elif count == 2:
        values = values.astype(np.float32).mean(axis=0, keepdims=True).round().astype(np.uint8)
    return values.transpose(1, 2, 0)


def png_bytes(pixels: np.ndarray, side: int | None = None) -> bytes:
    """(H, W, C) uint8 as a PNG, made smaller where it is larger than ``side``.

    One channel is grey, three are red, green and blue. Small images are enlarged by the browser.
    """
    shown = pixels if pixels.shape[2] == 3 else pixels[..., :1].repeat(3, axis=2)
    image = Image.fromarray(np.ascontiguousarray(shown))
    if side is not None and max(image.size) > side:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # the network is this machine; time counts more
    return file.getvalue()


def picture(pixels: np.ndarray, alternative: str, side: int = 352) -> str:
    """One picture as large as its column; ``alternative`` is read aloud in its place."""
    return f'<img class="picture" alt="{escape(alternative)}" src="{_address(pixels, side)}">'


def thumbnail(pixels: "torch.Tensor", stretch: Stretch | None, side: int = 48) -> str:
    """Stored pixels of one image as the address of a small picture, for a table."""
    return _address(shown_pixels(pixels.numpy(), stretch), side)


def tiles(pictures: Sequence[tuple[np.ndarray, str]], side: int = 128) -> str:
    """A grid of small pictures with a caption below each; as many columns as fit."""
    figures = "".join(
        f'<figure><img alt="{escape(caption)}" src="{_address(pixels, side)}">'
        + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "")
        + "</figure>"
        for pixels, caption in pictures
    )
    return f'<div class="tiles">{figures}</div>'


def notice(sentence: str, items: Sequence[str] = ()) -> str:
    """A sentence that should not be overlooked, and a list below it."""
    below = "".join(f"<li>{escape(item)}</li>" for item in items)
    below = f"<ul>{below}</ul>" if below else ""
    return f'<div class="notice" role="note">{escape(sentence)}{below}</div>'


def _address(pixels: np.ndarray, side: int) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels, side)).decode()
