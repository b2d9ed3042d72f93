"""Every choice that shapes the training of one classifier, in one frozen dataclass."""

from dataclasses import dataclass
from typing import Literal

from galaxies.errors import InputError

Balance = Literal["none", "sampling", "sqrt-sampling", "class-weights", "effective-number"]
Loss = Literal["cross-entropy", "focal", "logit-adjusted"]
Augment = Literal["none", "physical"]
Schedule = Literal["cosine", "constant", "step"]
Statistics = Literal["shared", "own"]
Precision = Literal["auto", "float32", "bfloat16"]
Transfer = Literal["all", "last", "frozen"]
BestBy = Literal["balanced-accuracy", "loss", "last"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one classifier is trained; the defaults suit 3,000 images of 64 pixels on two cores."""

    model: str = "small"
    """Network by name: see --list-models; any timm name works too (extra timm)."""
    steps: int = 800
    """Optimiser steps; the same number makes two runs comparable, whatever they augment."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.02
    """Decoupled weight decay; biases and normalisation layers are spared."""
    schedule: Schedule = "cosine"
    """Learning rate after a warm-up of 5 % of the steps: cosine to zero, constant, or
    a tenth after 60 % and again after 85 %."""
    dropout: float = 0.2
    """Dropout before the head, where the network's published architecture leaves it open."""

    balance: Balance = "sampling"
    """Against imbalance: draw every class equally often (sampling), by the square root of its
    count, or weigh the loss by 1/count or by the effective number of Cui et al. 2019."""
    loss: Loss = "cross-entropy"
    """cross-entropy, focal (Lin et al. 2017) or logit-adjusted (Menon et al. 2021)."""
    focal_gamma: float = 2.0
    """Focusing exponent of the focal loss; no effect on the others."""
    logit_adjustment_tau: float = 1.0
    """Strength of the logit-adjusted loss; no effect on the others."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    retrain_head_steps: int = 0
    """cRT (Kang et al. 2020): the last so many of the steps train a new head alone, on balanced
    draws; the total number of steps stays the same."""

    symmetries: bool = True
    """Show each image under a random one of the square's eight symmetries; a mirrored image
    takes the label of its mirror class."""
    augment: Augment = "none"
    """physical: two random changes per image out of small rotation, shift, zoom, flux scale,
    noise and blur (RandAugment restricted to what a telescope could do)."""
    augment_strength: float = 0.5
    """Strength of --augment physical, 0 to 1."""
    crops: int = 0
    """Cut one of five squares of this side (corners, centre) from each training image, the
    centre otherwise (Cavanagh et al. 2021); 0 keeps the whole image."""
    mixup: float = 0.0
    """Parameter of the Beta distribution of mixup (Zhang et al. 2018); 0 turns it off."""
    cutmix: float = 0.0
    """Parameter of the Beta distribution of CutMix (Yun et al. 2019); 0 turns it off."""

    synthetic_share: float | None = None
    """Share of synthetic images among the draws of a class that has some; by default in
    proportion to their number."""
    synthetic_until: float = 1.0
    """Synthetic images are drawn during this share of the steps; the rest sees real ones only."""
    synthetic_weight: float = 1.0
    """Weight of a synthetic image in the loss; a real one has 1."""

    synthetic_statistics: Statistics = "shared"
    """own: batch normalisation sees real and synthetic images apart, and keeps the statistics of
    the real ones; for synthetic images of every class."""

    weights: str | None = None
    """Pretrained weights for --model: a .safetensors or .pth file, or imagenet, from the hub. The
    images are then normalised as the weights expect."""
    transfer: Transfer = "all"
    """What is trained of a network with pretrained weights: all, the last block and the head,
    or the head alone (frozen)."""
    layer_decay: float = 1.0
    """Each block nearer to the input learns at this factor of the rate of the next; 1 trains
    all alike."""

    best_by: BestBy = "balanced-accuracy"
    """What chooses the weights that are kept, on the validation side: the highest mean recall,
    the lowest class-averaged loss, or simply the last step."""
    validate_every: int = 100
    """Steps between two looks at the validation side."""
    patience: int = 0
    """Stop after so many looks without a better one; 0 always makes all steps."""
    precision: Precision = "auto"
    """auto: bfloat16 on CUDA and on processors with matrix units for it, float32 elsewhere."""
    seed: int = 0
    """Initial weights, order of the images and augmentation."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "--steps must be at least 1", self.steps)
        _require(self.batch_size >= 2, "--batch-size must be at least 2", self.batch_size)
        _require(self.learning_rate > 0, "--learning-rate must be above 0", self.learning_rate)
        _require(self.weight_decay >= 0, "--weight-decay must not be negative", self.weight_decay)
        _require(self.validate_every >= 1, "--validate-every must be above 0", self.validate_every)
        _require(self.layer_decay > 0, "--layer-decay must be above 0", self.layer_decay)
        _require(self.crops >= 0, "--crops must not be negative", self.crops)
        _require(self.patience >= 0, "--patience must not be negative", self.patience)
        for flag, value in (
            ("--mixup", self.mixup),
            ("--cutmix", self.cutmix),
            ("--focal-gamma", self.focal_gamma),
            ("--synthetic-weight", self.synthetic_weight),
        ):
            _require(value >= 0, f"{flag} must not be negative", value)
        for flag, share in (
            ("--label-smoothing", self.label_smoothing),
            ("--augment-strength", self.augment_strength),
            ("--synthetic-until", self.synthetic_until),
            ("--synthetic-share", self.synthetic_share),
            ("--dropout", self.dropout),
        ):
            _require(share is None or 0 <= share <= 1, f"{flag} must be from 0 to 1", share)
        _require(
            0 <= self.retrain_head_steps < self.steps,
            f"--retrain-head-steps must be below --steps {self.steps}",
            self.retrain_head_steps,
        )
        if self.synthetic_statistics == "own" and (self.mixup or self.cutmix):
            raise InputError("--synthetic-statistics own cannot part what --mixup and --cutmix mix")
        if self.transfer != "all" and self.weights is None:
            raise InputError(
                f"--transfer {self.transfer} freezes a trunk that has learnt nothing; add --weights"
            )
        if self.loss == "logit-adjusted" and self.balance == "sampling":
            raise InputError(
                "--loss logit-adjusted has no effect on balanced draws; add --balance none"
            )


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise InputError(f"{rule}, got {value}")
