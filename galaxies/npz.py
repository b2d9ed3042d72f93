"""An image set as one ``.npz`` file, or images alone as ``.npy``: read whole, into memory.

The sides of a split may be arrays of their own, as MedMNIST (``train_images``, ``val_labels``)
and Keras (``x_train``, ``y_test``) write them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from galaxies.arrays import (
    IMAGE_NAMES,
    LABEL_NAMES,
    SIDE_NAMES,
    as_strings,
    channels_stand_first,
    features_of_array,
    groups_of_column,
    image_name,
    label_name,
    labels_and_names,
    native_dtype,
    split_of_array,
    unique_ids,
    unusable_dtype,
)
from galaxies.eight_bits import to_eight_bits
from galaxies.errors import UNREADABLE, InputError
from galaxies.hdf5 import UNLABELLED, ordinal_ids
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.resize import centre_of

Arrays = Mapping[str, np.ndarray]


def read_npz(
    path: Path, *, scale_16_bit: bool = False, crop: int | None = None, labelled: bool = True
) -> ImageSet:
    """Read an ``.npz`` or ``.npy`` file; the parameters are those of `galaxies.hdf5.read_hdf5`.

    Raises
    ------
    InputError
        If the file is damaged, has no images or labels, or its lengths differ.
    """
    found = _load(path)
    sides = _joined_sides(found, str(path))
    found = found if sides is None else sides
    images_key = image_name(found)
    label_key = None if images_key is None else label_name(found, images_key)
    if images_key is None or (label_key is None and labelled):
        needed = "arrays 'images' and 'labels'" if labelled else "an array 'images'"
        raise InputError(f"{path} needs {needed} (found: {', '.join(found) or 'none'})")
    images = found[images_key]
    images = images[..., None] if images.ndim == 3 else images
    labels: np.ndarray = np.zeros(len(images) if images.ndim else 0, np.int64)
    class_names: tuple[str, ...] | None = (UNLABELLED,)
    if label_key is not None:
        names = as_strings(found["class_names"]).tolist() if "class_names" in found else None
        labels, class_names = labels_and_names(found[label_key], names, str(path))
    if images.ndim != 4 or len(images) != len(labels):
        raise InputError(
            f"{path}: images are {images.shape}, labels {labels.shape}; "
            "(N, H, W, C) and (N,) are needed"
        )
    pixels = _pixels(images, scale_16_bit=scale_16_bit, where=str(path))
    ids = as_strings(found["ids"]) if "ids" in found else ordinal_ids(len(images))
    group = as_strings(found["group"]) if "group" in found else None
    if group is not None and len(group) == len(ids):
        group = groups_of_column(group, ids, "group")
    features: np.ndarray = np.zeros((len(images), 0), np.float32)
    feature_names: tuple[str, ...] = ()
    if "features" in found:
        told = found.get("feature_names")
        features, feature_names = features_of_array(
            found["features"], None if told is None else as_strings(told).tolist(), str(path)
        )
    if class_names is None:
        class_names = tuple(f"class {index}" for index in range(int(labels.max(initial=-1)) + 1))
    try:
        return ImageSet(
            store=centre_of(PixelsInMemory(torch.from_numpy(pixels)), crop),
            labels=labels,
            class_names=class_names,
            ids=unique_ids(ids, "ids"),
            split=split_of_array(found["split"], "split") if "split" in found else None,
            group=group,
            features=features,
            feature_names=feature_names,
            provenance={"source": str(path)},
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _load(path: Path) -> Arrays:
    try:
        if path.suffix.lower() == ".npy":
            return {"images": np.load(path, allow_pickle=False)}
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (*UNREADABLE, ValueError) as error:
        ending = path.suffix.lower()
        raise InputError(f"{path} is not a readable {ending} file ({error})") from None


def _joined_sides(found: Arrays, where: str) -> Arrays | None:
    """Arrays of sides, such as ``train_images``, as one set with its split; else ``None``."""
    if image_name(found) is not None:
        return None
    parts: list[tuple[int, np.ndarray, np.ndarray | None]] = []
    for side, index in SIDE_NAMES.items():
        images = _of_side(found, side, IMAGE_NAMES)
        if images is not None:
            parts.append((index, images, _of_side(found, side, LABEL_NAMES)))
    if not parts:
        return None
    parts.sort(key=lambda part: part[0])
    shapes = {images.shape[1:] for _, images, _ in parts}
    if len(shapes) > 1 or () in {images.shape for _, images, _ in parts}:
        raise InputError(f"{where}: the sides hold images of several shapes: {sorted(shapes)}")
    joined = {
        "images": np.concatenate([images for _, images, _ in parts]),
        "split": np.repeat([index for index, _, _ in parts], [len(part[1]) for part in parts]),
    }
    labels = [labels for _, _, labels in parts if labels is not None]
    if len(labels) == len(parts):
        if len({values.shape[1:] for values in labels}) > 1:
            raise InputError(f"{where}: the labels of the sides have several shapes")
        joined["labels"] = np.concatenate(labels)
    if "class_names" in found:
        joined["class_names"] = found["class_names"]
    return joined


def _of_side(found: Arrays, side: str, names: tuple[str, ...]) -> np.ndarray | None:
    """``train_images`` or ``x_train``."""
    for name in names:
        for key in (f"{side}_{name}", f"{name}_{side}"):
            if key in found:
                return found[key]
    return None


def _pixels(images: np.ndarray, *, scale_16_bit: bool, where: str) -> np.ndarray:
    """(N, C, H, W) uint8 or float32 of (N, H, W, C)."""
    images = images.astype(native_dtype(images.dtype), copy=False)
    if images.dtype == np.uint16 and scale_16_bit:
        images = to_eight_bits(images)
    if images.dtype not in (np.uint8, np.float32):
        raise InputError(f"{where}: {unusable_dtype(images.dtype)}")
    first = channels_stand_first(images.shape)
    return images.copy() if first else images.transpose(0, 3, 1, 2).copy()
