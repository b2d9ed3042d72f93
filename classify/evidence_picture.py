"""A picture of an image with the Grad-CAM map over it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classify.service import Prediction
from galaxies.pixels import Stretch, to_network

LEAST_SIDE = 256
_HOT = np.array([1.0, 0.35, 0.1])


def evidence_overlay(
    pixels: torch.Tensor, evidence: np.ndarray, stretch: Stretch | None = None
) -> np.ndarray:
    """The image with its evidence in warm colours.

    Parameters
    ----------
    pixels
        (C, H, W) stored pixels.
    evidence
        (H', W') in [0, 1]; where the network saw the centre only, it is laid over the centre.

    Returns
    -------
    (H, W, 3) uint8 ndarray
    """
    unit = ((to_network(pixels[None], stretch)[0] + 1) / 2).numpy()
    grey = unit if unit.shape[0] == 3 else np.repeat(unit.mean(axis=0, keepdims=True), 3, axis=0)
    picture = grey.transpose(1, 2, 0)
    side, seen = len(picture), len(evidence)
    margin = (side - seen) // 2
    full = np.zeros((side, side), np.float32)
    full[margin : margin + seen, margin : margin + seen] = evidence
    strength = 0.6 * full[..., None]
    return np.rint(255 * (picture * (1 - strength) + _HOT * strength).clip(0, 1)).astype(np.uint8)


def write_evidence_picture(
    pixels: torch.Tensor, answer: Prediction, stretch: Stretch | None, path: Path
) -> None:
    """Write the image and, beside it, the image under its evidence."""
    assert answer.evidence is not None
    plain = evidence_overlay(pixels, np.zeros_like(answer.evidence), stretch)
    both = np.concatenate([plain, evidence_overlay(pixels, answer.evidence, stretch)], axis=1)
    factor = max(1, -(-LEAST_SIDE // both.shape[0]))
    image = Image.fromarray(both)
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)
