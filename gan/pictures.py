"""Pictures of images: grids, strips, films and the curve of a run."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from galaxies.atomic import whole_file


def displayable(images: Tensor) -> np.ndarray:
    """(N, C, H, W) float in [-1, 1], or uint8, to (N, H, W, 3) uint8.

    One or two channels become grey (the first); of more than three the first three are shown.
    """
    if images.dtype != torch.uint8:
        images = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    return images.permute(0, 2, 3, 1).cpu().numpy()


def grid(images: Tensor, columns: int) -> Image.Image:
    """Rows of ``columns`` images, one dark pixel apart."""
    pixels = displayable(images)
    count, side = len(pixels), pixels.shape[1]
    rows = -(-count // columns)
    canvas = np.full((rows * (side + 1) - 1, columns * (side + 1) - 1, 3), 40, dtype=np.uint8)
    for number, picture in enumerate(pixels):
        top, left = (number // columns) * (side + 1), (number % columns) * (side + 1)
        canvas[top : top + side, left : left + side] = picture
    return Image.fromarray(canvas)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG that is whole or absent."""
    with whole_file(path, overwrite=True) as temporary:
        picture.save(temporary, "PNG")


def save_film(images: Tensor, path: Path, *, milliseconds: int = 60, scale: int = 3) -> None:
    """Write a GIF that runs through (N, C, H, W) images and starts over."""
    frames = [
        Image.fromarray(frame).resize(
            (frame.shape[1] * scale, frame.shape[0] * scale), Image.Resampling.NEAREST
        )
        for frame in displayable(images)
    ]
    with whole_file(path, overwrite=True) as temporary:
        frames[0].save(
            temporary,
            "GIF",
            save_all=True,
            append_images=frames[1:],
            duration=milliseconds,
            loop=0,
        )


def save_curve(rows: Sequence[dict[str, Any]], path: Path, kept_step: int) -> None:
    """Plot the losses and, where they were measured, KID and overfitting by class.

    ``kept_step`` is that whose weights are kept.
    """
    from matplotlib.figure import Figure  # no pyplot: it keeps global state

    steps = [row for row in rows if row["kind"] == "training"]
    judged = [row for row in rows if row["kind"] == "evaluation" and "kid" in row]
    watched = [row for row in steps if "overfitting" in row]
    panels = 1 + bool(judged) + bool(watched)
    figure = Figure(figsize=(7, 1 + 2 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for key, label in (("discriminator_loss", "discriminator"), ("generator_loss", "generator")):
        axes[0].plot(
            [row["images"] / 1e3 for row in steps], [row[key] for row in steps], label=label
        )
    axes[0].set(ylabel="loss")
    axes[0].legend()
    if judged:
        for name in judged[0]["kid"]:
            values = [row["kid"][name] for row in judged]
            places = [row["images"] / 1e3 for row in judged]
            axes[1].plot(places, values, marker="o", markersize=3, label=name)
        kept = [row["images"] / 1e3 for row in judged if row["step"] == kept_step]
        for place in kept:
            axes[1].axvline(place, linestyle=":", color="grey", label="chosen")
        axes[1].set(ylabel="KID to validation")
        _add_legend(axes[1])
    if watched:
        _plot_overfitting(axes[-1], watched)
    axes[-1].set(xlabel="thousand images seen")
    with whole_file(path, overwrite=True) as temporary, warnings.catch_warnings():
        # The letters of a class may be in no font here: boxes stand for them, and that is seen.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(temporary, format="png", dpi=110)


def _plot_overfitting(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Each class in its colour; dashed, how often its images are augmented because of it."""
    places = [row["images"] / 1e3 for row in rows]
    for number, name in enumerate(rows[0]["overfitting"]):
        colour = f"C{number % 10}"
        values = [row["overfitting"][name] for row in rows]
        axes.plot(places, values, color=colour, linewidth=1, label=name)
        probabilities = [row["probabilities"][name] for row in rows]
        axes.plot(places, probabilities, color=colour, linestyle="--", linewidth=1)
    axes.set(ylabel="overfitting\n(dashed: augmentation)", ylim=(-1.05, 1.05))
    _add_legend(axes, fontsize="x-small", ncols=3)


def _add_legend(axes: Any, **how: Any) -> None:
    """A legend of class names as they are: a ``$`` in one is no formula."""
    for text in axes.legend(**how).get_texts():
        text.set_parse_math(False)
