"""Whether a synthetic set may be trained on: never, if its generator saw what we will test on."""

import dataclasses

import numpy as np

from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import SPLITS, ImageSet

ORDINAL_PREFIX = "row-"
"""Ids that begin so were made up from the order of a file; two sets share them by accident."""


def refuse_leaking(synthetic: ImageSet, image_set: ImageSet) -> str | None:
    """Refuse a synthetic set whose generator saw validation or test images of ``image_set``.

    Compares the fingerprints (pixels) and, unless they are mere ordinals, the ids of the
    generator's training images with both held-out sides, and the synthetic images themselves
    with the held-out images. Warns where nothing can be known, and where none of the
    generator's training images is found in the training split.

    Parameters
    ----------
    synthetic
        From gan-generate; its ``training_fingerprints`` and ``training_ids`` are its lineage.
    image_set
        Real images, split.

    Returns
    -------
    str or None
        The warning, where one was given: nothing shows that no test image was seen.

    Raises
    ------
    InputError
        If an image leaks; names the side and how many.
    """
    if image_set.split is None:
        raise InputError("the real set has no split yet; make one with: galaxy-set split SET.h5")
    seen_prints = set(synthetic.training_fingerprints.tolist())
    seen_ids = _real_names(synthetic.training_ids)
    made_prints = set(synthetic.fingerprints().tolist())
    for side in ("validation", "test"):
        rows = np.flatnonzero(image_set.split == SPLITS.index(side))
        if not len(rows):
            continue
        held_out = image_set.select(rows)
        prints = held_out.fingerprints()
        by_pixels = [name for name in prints.tolist() if name in seen_prints]
        by_id = [name for name in held_out.ids.tolist() if name in seen_ids]
        leaked = max(len(by_pixels), len(by_id))
        if leaked:
            raise InputError(
                f"the generator of the synthetic set was trained on {leaked} of the {len(rows)} "
                f"{side} images; train it on the training split of this very set (gan-train "
                "--data SET reads only that) and generate anew"
            )
        copied = sum(name in made_prints for name in prints.tolist())
        if copied:
            raise InputError(
                f"{copied} images of the synthetic set are {side} images, pixel for pixel; "
                "they may not be trained on"
            )
    if not seen_prints and not seen_ids:
        return _warned(
            "the synthetic set does not say which images its generator was trained on, so "
            "nothing shows that it never saw the validation or test images"
        )
    train = image_set.side("train")
    known = seen_prints.intersection(train.fingerprints().tolist())
    known_ids = seen_ids.intersection(train.ids.tolist())
    if not known and not known_ids:
        return _warned(
            "none of the images that the generator was trained on is in the training split; "
            "it was made from another set, or from other cut-outs of this one, and then nothing "
            "shows that it never saw the validation or test images"
        )
    return None


def _warned(sentence: str) -> str:
    warn(sentence)
    return sentence


def align_classes(synthetic: ImageSet, class_names: tuple[str, ...]) -> ImageSet:
    """Number the synthetic classes as the real set does; names decide.

    Raises
    ------
    InputError
        If a synthetic class does not exist in the real set.
    """
    used = [synthetic.class_names[label] for label in np.unique(synthetic.labels)]
    foreign = [name for name in used if name not in class_names]
    if foreign:
        raise InputError(
            f"synthetic class {', '.join(foreign)} is not among the classes of the real set: "
            f"{', '.join(class_names)}"
        )
    index = np.array(
        [class_names.index(name) if name in class_names else -1 for name in synthetic.class_names],
        dtype=np.int64,
    )
    pairs = synthetic.mirror_pairs or ()
    return dataclasses.replace(
        synthetic,
        labels=index[synthetic.labels] if len(synthetic) else synthetic.labels,
        class_names=class_names,
        mirror_pairs=tuple(pair for pair in pairs if set(pair) <= set(class_names)),
    )


def _real_names(ids: np.ndarray) -> set[str]:
    return {name for name in ids.astype(str).tolist() if not name.startswith(ORDINAL_PREFIX)}
