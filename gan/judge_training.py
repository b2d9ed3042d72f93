"""The judge's features: trained once per run, kept in its folder for a resumed run."""

import contextlib
from pathlib import Path

import torch

from galaxies.image_set import ImageSet
from gan.judge import Extractor

JUDGE = "judge"


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
    if save is not None:
        with contextlib.suppress(FileExistsError):
            save(stored)
    return extractor
