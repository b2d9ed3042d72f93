"""Whether a run can be judged, and the judge's features: trained once, kept to resume with."""

import os
from pathlib import Path

import numpy as np
import torch

from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from gan.checkpoint import JUDGE
from gan.judge import LEAST_VALIDATION, Extractor
from gan.preparation import Preparation


def trained_extractor(
    folder: Path, train: ImageSet, *, seed: int, device: torch.device, progress: bool
) -> Extractor:
    """Features of a classifier trained on ``train``; those in ``folder`` where it has them.

    A resumed run must be judged by the same network, so the extractor is stored where it can
    store itself (``save(folder)``), and trained anew from the same seed where it cannot.
    """
    from fid.features import load_extractor, train_extractor

    stored = folder / JUDGE
    if stored.is_dir():
        return load_extractor(f"classifier:{stored}", None, device)
    extractor = train_extractor(train, seed=seed, device=device, progress=progress)
    save = getattr(extractor, "save", None)
    if save is None or not os.access(folder, os.W_OK):
        return extractor
    try:
        save(stored)
    except InputError:
        if not stored.is_dir():
            raise
        return load_extractor(f"classifier:{stored}", None, device)  # another process was faster
    return extractor


def why_no_judge(preparation: Preparation, *, has_features: bool) -> str | None:
    """What keeps the images of this run from being judged; ``None`` where nothing does."""
    if preparation.judge_validation is None:
        return "the set has no validation images"
    held_out = preparation.judge_validation.counts()
    if not any(held_out[index] >= LEAST_VALIDATION for index in preparation.chosen):
        return f"the chosen classes have fewer than {LEAST_VALIDATION} validation images"
    if len(np.unique(preparation.judge_train.labels)) < 2 and not has_features:
        return "the set has one class, which teaches a classifier nothing, so there is no judge"
    return None
