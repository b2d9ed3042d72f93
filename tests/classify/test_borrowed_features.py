"""Rows for generated images come from real ones of the same class that look alike."""

import dataclasses

import numpy as np
import pytest
import torch

from classify.borrowed_features import with_borrowed_features
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory


def blobs(widths: np.ndarray, labels: np.ndarray, seed: int) -> ImageSet:
    """Round sources whose only feature is their width."""
    rng = np.random.default_rng(seed)
    axis = np.arange(32) - 15.5
    square = axis[:, None] ** 2 + axis[None] ** 2
    light = 180 * np.exp(-square[None] / (2 * widths[:, None, None] ** 2))
    pixels = (light + rng.normal(20, 2, light.shape)).clip(0, 255).astype(np.uint8)
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(pixels[:, None])),
        labels=labels,
        class_names=("a", "b"),
        ids=np.arange(len(labels)).astype(str),
        features=np.stack([widths, 10.0 * labels], axis=1).astype(np.float32),
        feature_names=("width", "of_class"),
    )


def test_rows_follow_the_looks_and_the_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    real = blobs(rng.uniform(1.5, 5, 120), labels, seed=1)
    widths = rng.uniform(1.8, 4.7, 40)
    made = blobs(widths, np.repeat([0, 1], 20), seed=2)
    bare = dataclasses.replace(made, features=np.zeros((40, 0)), feature_names=())
    filled = with_borrowed_features(bare, real, seed=3)
    assert filled.feature_names == real.feature_names
    np.testing.assert_array_equal(filled.features[:, 1], 10 * made.labels)
    assert np.corrcoef(filled.features[:, 0], widths)[0, 1] > 0.9
    known = {tuple(row) for row in real.features}
    assert all(tuple(row) in known for row in filled.features)  # whole rows, never mixtures
    again = with_borrowed_features(bare, real, seed=3)
    np.testing.assert_array_equal(filled.features, again.features)


def test_a_class_without_real_images_is_refused() -> None:
    real = blobs(np.full(6, 3.0), np.zeros(6, np.int64), seed=0)
    made = blobs(np.full(2, 3.0), np.ones(2, np.int64), seed=1)
    with pytest.raises(InputError, match="'b' has no real training image"):
        with_borrowed_features(made, real)
