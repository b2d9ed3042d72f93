"""The features that judge generated images do not know their own training images by heart."""

import dataclasses

import numpy as np

from classify import features
from classify.balance import plan_draws
from classify.features import train_extractor
from galaxies.image_set import ImageSet


def test_the_judge_sees_each_rare_image_a_few_dozen_times(tiny_set: ImageSet) -> None:
    """52 mergers among 2,972 images, drawn as often as each other class for 800 steps, were seen
    200 times each, and lay as far from unseen mergers as from other classes.
    """
    train = tiny_set.side("train")
    config = train_extractor(train, progress=False, steps=2).classifier.config
    config = dataclasses.replace(config, steps=features.STEPS)
    labels = np.repeat(np.arange(5), [449, 2090, 52, 196, 185])
    plan = plan_draws(labels, 5, config.steps, config.batch_size, config.balance, config.seed)
    seen = np.bincount(plan.rows.ravel(), minlength=len(labels))
    assert 20 < seen[labels == 2].mean() < 60
    assert config.symmetries
    assert config.augment == "physical"
