"""Pictures of images: grids, strips, films and the curve of a run."""

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


def save_curve(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the losses and, where the run was judged, the KID of each chosen class."""
    from matplotlib.figure import Figure  # no pyplot: it keeps global state

    steps = [row for row in rows if row["kind"] == "training"]
    judged = [row for row in rows if row["kind"] == "evaluation" and "kid" in row]
    figure = Figure(figsize=(7, 5 if judged else 3), layout="constrained")
    axes = figure.subplots(2 if judged else 1, 1, squeeze=False)[:, 0]
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
        best = min(judged, key=lambda row: row["score"])
        axes[1].axvline(best["images"] / 1e3, linestyle=":", color="grey", label="chosen")
        axes[1].set(ylabel="KID to validation")
        axes[1].legend()
    axes[-1].set(xlabel="thousand images seen")
    with whole_file(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
