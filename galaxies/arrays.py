"""Labels, ids and pixels as the arrays of HDF5 and ``.npz`` files give them."""

from collections.abc import Container, Sequence

import numpy as np

from galaxies.class_names import class_order
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import SPLITS

IMAGE_NAMES = ("images", "image", "x", "X", "data", "arr_0")
"""What programs call an array of images; the first that a file has is the one."""

LABEL_NAMES = ("ans", "labels", "label", "y", "Y", "target", "targets", "arr_1")
"""The same of labels."""

SIDE_NAMES = {name: index for index, name in enumerate(SPLITS)} | {
    "val": 1,
    "valid": 1,
    "training": 0,
    "testing": 2,
}
"""What the sides of a split are called, and their values."""

MOST_CLASSES = 100_000


def image_name(found: Container[str]) -> str | None:
    """What a file calls its images."""
    return next((name for name in IMAGE_NAMES if name in found), None)


def label_name(found: Container[str], images: str) -> str | None:
    """What a file calls its labels, beside images of that name.

    ``y`` beside ``x`` and other images is a position, and ``arr_1`` belongs to ``arr_0``.
    """
    for name in LABEL_NAMES:
        position = (
            name in ("y", "Y") and images not in ("x", "X") and ("x" in found or "X" in found)
        )
        if name in found and not position and (name != "arr_1" or images == "arr_0"):
            return name
    return None


def labels_and_names(
    values: np.ndarray, class_names: Sequence[str] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """(N,) int64 labels, and the names of the classes where labels or file tell them.

    Parameters
    ----------
    values
        What `labels_of_array` takes, or (N,) text: the class's name at each image.
    class_names
        Names that the file gives beside the labels.
    where
        Begins the message of an error.

    Raises
    ------
    InputError
        If they are no labels, or name a class that is not among ``class_names``.
    """
    given = None if class_names is None else tuple(class_names)
    values = _as_column(values)
    if values.ndim != 1 or values.dtype.kind not in "SUO":
        return labels_of_array(values, where), given
    texts = [text.strip() for text in as_strings(values).tolist()]
    if "" in texts:
        raise InputError(f"{where}: {texts.count('')} labels are empty; each image needs a class")
    names = class_order(texts) if given is None else given
    absent = sorted(set(texts) - set(names))
    if absent:
        raise InputError(
            f"{where}: labels name {', '.join(absent[:5])}, which "
            f"{'is' if len(absent) == 1 else 'are'} not among the class_names {', '.join(names)}"
        )
    if len(names) > MOST_CLASSES:
        raise InputError(f"{where}: labels name {len(names)} classes: are these identifiers?")
    index = {name: position for position, name in enumerate(names)}
    return np.array([index[text] for text in texts], dtype=np.int64), names


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
    labels = _as_column(values)
    one_hot = labels.ndim == 2 and labels.dtype.kind in "biuf"
    if one_hot and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1).astype(np.int64)
    if labels.ndim == 1 and labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(
            f"{where}: {(~np.isfinite(labels)).sum()} of {len(labels)} labels are NaN or infinite; "
            "leave those images out, or give them a class ((N,) integers)"
        )
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


def split_of_array(values: np.ndarray, where: str) -> np.ndarray:
    """(N,) int8 sides of an array of 0, 1, 2 or of their names.

    Raises
    ------
    InputError
        If there are other values; names some.
    """
    values = _as_column(values)
    if values.ndim == 1 and values.dtype.kind in "SUO":
        texts = [text.strip().lower() for text in as_strings(values)]
        known = SIDE_NAMES | {str(index): index for index in range(len(SPLITS))}
        unknown = sorted(set(texts) - set(known))
        if unknown:
            raise InputError(
                f"{where}: split holds {', '.join(unknown[:5])}; use {', '.join(SPLITS)}"
            )
        return np.array([known[text] for text in texts], dtype=np.int8)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"{where}: split must be (N,) integers: 0 train, 1 validation, 2 test")
    if not np.isin(values, range(len(SPLITS))).all():
        raise InputError(f"{where}: split holds values other than 0 train, 1 validation, 2 test")
    return values.astype(np.int8)


def features_of_array(
    values: np.ndarray, names: Sequence[str] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, F) float32 features and their names; without names they are numbered.

    Raises
    ------
    InputError
        If they are no numbers, or not a row per image.
    """
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(
            f"{where}: features are {values.dtype} of shape {values.shape}; (N, F) numbers are "
            "needed"
        )
    if not names:
        names = [f"feature_{place}" for place in range(values.shape[1])]
    return values.astype(np.float32), tuple(names)


def as_strings(values: np.ndarray) -> np.ndarray:
    """(N,) str of a column as HDF5 gives it: numbers, bytes in UTF-8 (else Latin-1), or text."""
    values = np.atleast_1d(_as_column(values))
    if values.dtype.kind in "biuf":
        return values.astype(str)
    return np.array([decoded(value) for value in values], dtype=str)


def decoded(value: object) -> str:
    """Text of one value: bytes in UTF-8, else Latin-1."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def channels_stand_first(shape: Sequence[int]) -> bool:
    """Whether (N, C, H, W) is meant: read as (N, H, W, C) there would be too many channels."""
    return len(shape) == 4 and shape[1] <= 10 < min(shape[2], shape[3])


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
    """In the byte order of this machine; half and double precision are read as float32."""
    native = dtype.newbyteorder("=")
    return np.dtype(np.float32) if native in (np.float16, np.float64) else native


def unusable_dtype(dtype: np.dtype) -> str:
    """What to say of an array of images whose `native_dtype` is neither uint8 nor float32."""
    advice = ""
    if dtype == np.uint16:
        advice = "; galaxy-set pack --scale-16-bit divides by 257"
    elif dtype.kind == "f":
        advice = "; convert it with: images.astype('float32')"
    elif dtype.kind == "b":
        advice = "; convert masks with: images.astype('uint8') * 255"
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


def _as_column(values: np.ndarray) -> np.ndarray:
    """(N,) of an (N, 1); anything else as it is."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
