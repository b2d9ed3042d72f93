"""MargNet as published: two parts trained apart, and a stack on images that neither part saw.

The image part is trained like any network here; the table part is a dense network. Both choose
their weights on one part of the validation side; the stack, which joins their probabilities, is
fitted on the other, where both are as unsure as they will be on new sources. A stack fitted on
training data would trust whichever part had memorised more.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from classify.balance import class_weights
from classify.classifier import TrainedClassifier
from classify.determinism import derived_seed
from classify.joint_features import JointFeatures, joint_features_of
from classify.networks.joint import JointNetwork
from classify.networks.margnet import MARGNET_DENSE, SMALL_DENSE, BothParts, LogarithmicPool
from classify.networks.registry import build
from classify.tabular.dense import DenseConfig, train_dense
from classify.training_config import TrainingConfig
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.split import split_set

IMAGE_PART = {"margnet": "margnet-cnn", "margnet-small": "small"}
TABLE_PART = {"margnet": MARGNET_DENSE, "margnet-small": SMALL_DENSE}
STACK_SHARE = 0.4
EVEN = 0.5
"""Weights of the geometric mean of both parts, towards which the pool is drawn."""
STACK_STEPS = 400
STACK_DECAY = 1e-3


def train_margnet(
    train: ImageSet,
    validation: ImageSet | None,
    config: TrainingConfig,
    *,
    synthetic: ImageSet | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    state_folder: Path | None = None,
    **weights: Any,
) -> TrainedClassifier:
    """Train ``margnet`` or ``margnet-small``; the arguments are those of ``train_classifier``.

    Without a validation side 15 % of the training images are held out for the stack.

    Raises
    ------
    InputError
        If the set has no features.
    """
    from classify.training import train_classifier

    joint = joint_features_of(train)
    if validation is None:
        parted = split_set(train, (0.85, 0.15, 0.0), seed=config.seed)
        train, chooser, for_stack = parted.side("train"), None, parted.side("validation")
    else:
        chooser, for_stack = part_for_stack(validation, config.seed)
    image = train_classifier(
        train, chooser, dataclasses.replace(config, model=IMAGE_PART[config.model]),
        synthetic=synthetic, device=device, progress=progress, state_folder=state_folder, **weights,
    )  # fmt: skip
    counts = train.counts()
    row_weights = class_weights(counts, "none" if config.balance == "none" else "class-weights")
    table = train_dense(
        joint(train), train.labels, row_weights[train.labels],
        None if chooser is None else (joint(chooser), chooser.labels), len(train.class_names),
        DenseConfig(widths=TABLE_PART[config.model], seed=config.seed), progress=progress,
    )  # fmt: skip
    specification = dataclasses.replace(
        image.specification, name=config.model, table_columns=joint.scaling.outputs
    )
    network = build(specification, derived_seed(config.seed, "network")).to(device)
    assert isinstance(network, JointNetwork)
    assert isinstance(network.trunk, BothParts)
    network.trunk.image_part.load_state_dict(image.network.state_dict())
    network.trunk.table_part.load_state_dict(table.network.state_dict())
    network.eval()
    joined = dataclasses.replace(
        image, network=network, specification=specification, config=config,
        joint_features=joint,
    )  # fmt: skip
    fit_stack(joined, for_stack, row_weights, config.seed)
    joined.record["training"] |= {
        "parameters": sum(p.numel() for p in network.parameters()),
        "table_part": {"kept_epoch": table.kept_epoch, "epochs": len(table.history)},
        "stack_images": len(for_stack),
    }
    return joined


def part_for_stack(validation: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """(chooser, for the stack): two stratified parts of the validation side."""
    try:
        parted = split_set(validation, (1 - STACK_SHARE, STACK_SHARE, 0.0), seed=seed)
    except InputError as error:
        raise InputError(
            f"the validation side is too small for MargNet's stack, which needs images that "
            f"neither part saw ({error})"
        ) from None
    return parted.side("train"), parted.side("validation")


def fit_stack(
    classifier: TrainedClassifier, images: ImageSet, row_weights: np.ndarray, seed: int
) -> None:
    """Train the stack alone on the probabilities of both parts, in place.

    Parameters
    ----------
    row_weights : (K,)
        Weight of each class in the loss: that of the parts.
    """
    network = classifier.network
    labels = torch.from_numpy(images.labels)
    stack = fitted_stack(
        network.head,
        classifier.features(images),  # (n, 2 K): probabilities of both parts
        labels,
        torch.from_numpy(row_weights).float()[labels],
        seed,
    )
    network.head.load_state_dict(stack.state_dict())
    network.head.eval()


def fitted_stack(
    head: nn.Module, probabilities: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor,
    seed: int,
) -> nn.Module:  # fmt: skip
    """A stack like ``head`` that has least weighted cross-entropy on (n, 2 K) probabilities."""
    stack: nn.Module
    optimiser: torch.optim.Optimizer
    if isinstance(head, LogarithmicPool):
        stack, steps = LogarithmicPool(), 1
        optimiser = torch.optim.LBFGS(
            stack.parameters(), max_iter=100, line_search_fn="strong_wolfe"
        )
    else:
        generator = torch.Generator().manual_seed(derived_seed(seed, "stack"))
        stack, steps = _fresh_stack(head, generator), STACK_STEPS
        optimiser = torch.optim.AdamW(stack.parameters(), lr=0.02, weight_decay=STACK_DECAY)

    def loss() -> float:
        optimiser.zero_grad(set_to_none=True)
        losses = nn.functional.cross_entropy(stack(probabilities), labels, reduction="none")
        mean = (losses * weight).mean()
        if isinstance(stack, LogarithmicPool):
            # Worth one image: a few images that are all right would else call for certainty.
            mean = mean + (stack.weights - EVEN).square().sum() / len(labels)
        mean.backward()
        return float(mean.detach())

    for _ in range(steps):
        optimiser.step(loss)
    return stack


def _fresh_stack(head: nn.Module, generator: torch.Generator) -> nn.Sequential:
    """A stack on the CPU, whose initial weights hang on the generator alone."""
    layers: list[nn.Module] = []
    for layer in head.children():
        if isinstance(layer, nn.Linear):
            copied = nn.Linear(layer.in_features, layer.out_features)
            with torch.no_grad():
                nn.init.kaiming_uniform_(copied.weight, a=5**0.5, generator=generator)
                nn.init.zeros_(copied.bias)
            layers.append(copied)
        else:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


__all__ = ["JointFeatures", "fit_stack", "part_for_stack", "train_margnet"]
