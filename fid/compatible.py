"""The matrix arithmetic of other programs, reproduced to compare with a published number.

These take the root of a rounded product and are off by up to 5e-3 when images are fewer than
features; they are here only for ``--compat``.
"""

import warnings
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch

from galaxies.errors import InputError

Moments = tuple[np.ndarray, np.ndarray]
"""Mean (d,) and covariance (d, d)."""


def compatible_distance(recipe: str, real: np.ndarray, fake: np.ndarray) -> float:
    """What the program of that recipe prints for (n, d) and (m, d) float32 features."""
    moments, distance = _PROGRAMS[recipe]
    return distance(moments(real), moments(fake))


def _numpy_moments(features: np.ndarray) -> Moments:
    features = features.astype(np.float64)
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def _numpy_moments_of_float32(features: np.ndarray) -> Moments:
    """Mean in float32, covariance in float64."""
    features = features.astype(np.float32)
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def _running_moments(features: np.ndarray) -> Moments:
    """Uncentred sums in float64, as a streaming metric keeps them."""
    values = torch.from_numpy(features).double()
    count = len(values)
    mean = (values.sum(dim=0) / count)[None]
    products = values.T.mm(values) - count * mean.T.mm(mean)
    return mean[0].numpy(), (products / (count - 1)).numpy()


def _by_matrix_root(real: Moments, fake: Moments) -> float:
    product = real[1].dot(fake[1])
    with warnings.catch_warnings():
        # That the product is singular is what these programs overlook.
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        root = scipy.linalg.sqrtm(product)
        if not np.isfinite(root).all():
            offset = np.eye(len(product)) * 1e-6
            root = scipy.linalg.sqrtm((real[1] + offset).dot(fake[1] + offset))
    if np.iscomplexobj(root):
        imaginary = np.abs(np.diagonal(root).imag).max()
        if imaginary > 1e-3:
            raise InputError(
                f"--compat: the matrix root has an imaginary part of {imaginary:.1e}, where the "
                "other program stops too; leave --compat out"
            )
        root = root.real
    gap = real[0] - fake[0]
    return float(gap.dot(gap) + np.trace(real[1]) + np.trace(fake[1]) - 2 * np.trace(root))


def _by_numpy_eigenvalues(real: Moments, fake: Moments) -> float:
    gap = real[0] - fake[0]
    values = np.linalg.eigvals(real[1].dot(fake[1])).astype("complex128")
    root = np.sum(np.sqrt(values).real)
    return float(gap.dot(gap) + np.trace(real[1]) + np.trace(fake[1]) - 2 * root)


def _by_torch_eigenvalues(real: Moments, fake: Moments) -> float:
    """The result is rounded to float32, as there."""
    first, second = torch.from_numpy(real[1]), torch.from_numpy(fake[1])
    root = torch.linalg.eigvals(first @ second).sqrt().real.sum()
    gap = torch.from_numpy(real[0] - fake[0]).square().sum()
    return float((gap + first.trace() + second.trace() - 2 * root).to(torch.float32))


_PROGRAMS: dict[
    str, tuple[Callable[[np.ndarray], Moments], Callable[[Moments, Moments], float]]
] = {
    "pytorch-fid": (_numpy_moments, _by_matrix_root),
    "torch-fidelity": (_numpy_moments_of_float32, _by_numpy_eigenvalues),
    "clean-fid": (_numpy_moments_of_float32, _by_matrix_root),
    "torchmetrics": (_running_moments, _by_torch_eigenvalues),
}
