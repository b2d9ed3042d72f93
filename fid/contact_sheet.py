"""The closest pairs of generated and training image, side by side in one PNG."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from fid.memorisation import Memorisation
from fid.recipes import to_three_channels
from galaxies.atomic import whole_file
from galaxies.symmetry import apply_symmetry

_TILE = 96
_CAPTION = 26
_GAP = 12
_PAIRS_PER_ROW = 4


def write_contact_sheet(
    path: Path,
    memorisation: Memorisation,
    generated: torch.Tensor,
    training: torch.Tensor,
    training_names: list[str],
    *,
    overwrite: bool = False,
) -> int:
    """Write the most suspicious pairs, the generated image turned as it matches best.

    Parameters
    ----------
    path
        PNG file.
    memorisation
        Measured on these images.
    generated, training
        (p, C, H, H) and (p, C, H, H) uint8: the images of ``memorisation.closest()``, and the
        training images nearest to them.
    training_names
        p names for the captions.
    overwrite
        Replace an existing file.

    Returns
    -------
    int
        Number of pairs shown.
    """
    rows = memorisation.closest()
    symmetries = torch.from_numpy(memorisation.nearest.symmetry[rows])
    left = apply_symmetry(generated, symmetries)
    cell_width = 2 * _TILE + _GAP
    lines = -(-len(rows) // _PAIRS_PER_ROW)
    width = _PAIRS_PER_ROW * cell_width + _GAP
    sheet = Image.new("RGB", (width, lines * (_TILE + _CAPTION + _GAP) + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, row in enumerate(rows):
        x = _GAP + place % _PAIRS_PER_ROW * cell_width
        y = _GAP + place // _PAIRS_PER_ROW * (_TILE + _CAPTION + _GAP)
        sheet.paste(_tile(left[place]), (x, y))
        sheet.paste(_tile(training[place]), (x + _TILE, y))
        name = training_names[place]
        shown = name if len(name) <= 30 else "…" + name[-29:]
        caption = f"{row}: ratio {memorisation.ratio[row]:.2f}\n{shown}"
        pen.text((x, y + _TILE + 2), caption, fill="black", font_size=10)
    with whole_file(path, overwrite=overwrite) as temporary:
        sheet.save(temporary, "PNG")
    return len(rows)


def _tile(image: torch.Tensor) -> Image.Image:
    colour = to_three_channels(image[None])[0].permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(colour))
    return picture.resize((_TILE - 2, _TILE - 2), Image.Resampling.NEAREST)
