"""Labels, ids and pixels as the arrays of HDF5 and ``.npz`` files give them."""

import numpy as np

from galaxies.command_line import warn
from galaxies.errors import InputError

MOST_CLASSES = 100_000


def labels_of_array(values: np.ndarray, where: str) -> np.ndarray:
    """(N,) int64 labels of an array of integers, truth values, whole floats or a one-hot matrix.

    Parameters
    ----------
    values
        (N,) or (N, 1), or (N, K) with a single 1 in each row.
    where
        Begins the message of an error.

    Raises
    ------
    InputError
        If the array is none of these, or the labels do not count classes from 0.
    """
    labels = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    one_hot = labels.ndim == 2 and labels.dtype.kind in "biuf"
    if one_hot and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1).astype(np.int64)
    whole = labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all())
    if labels.ndim != 1 or not (whole or labels.dtype.kind in "biu"):
        raise InputError(
            f"{where}: labels are {values.dtype} of shape {values.shape}; (N,) integers are "
            "needed, or a row per image with a single 1; of probabilities: p.argmax(axis=1)"
        )
    if labels.min(initial=0) < 0:
        raise InputError(f"{where}: labels must not be negative, the least is {labels.min()}")
    if labels.max(initial=0) >= MOST_CLASSES:
        raise InputError(
            f"{where}: labels count classes from 0, but the largest is {labels.max()}: are these "
            "identifiers?"
        )
    return labels.astype(np.int64)


def unique_ids(ids: np.ndarray, where: str) -> np.ndarray:
    """The ids as they are.

    Raises
    ------
    InputError
        If one stands twice; names it.
    """
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{where}: {(counts > 1).sum()} ids stand at more than one image, such as "
            f"{names[counts > 1][0]}; each image needs its own"
        )
    return ids


def native_dtype(dtype: np.dtype) -> np.dtype:
    """In the byte order of this machine; half precision is read as float32."""
    native = dtype.newbyteorder("=")
    return np.dtype(np.float32) if native == np.float16 else native


def unusable_dtype(dtype: np.dtype) -> str:
    """What to say of an array of images whose `native_dtype` is neither uint8 nor float32."""
    advice = ""
    if dtype == np.uint16:
        advice = "; galaxy-set pack --scale-16-bit divides by 257"
    elif dtype.kind == "f":
        advice = "; convert it with: images.astype('float32')"
    elif dtype.kind in "iu":
        advice = "; convert pictures with images.astype('uint8') where their values are 0 to 255"
    return f"images are {dtype}; uint8 or float32 flux is needed{advice}"


def groups_of_column(values: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    """(N,) str groups of a column of text; where it is empty or NaN an image is its own group.

    Says how many are.
    """
    missing = np.isin(np.char.lower(np.char.strip(values)), ("", "nan"))
    if not missing.any():
        return values
    warn(f"column {name!r} is empty in {missing.sum()} rows; each of them is a group of its own")
    alone = np.char.add(ids.astype(str), f" without {name}")
    return np.where(missing, alone, values)
