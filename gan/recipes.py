"""What a recipe is made of: each part has one name, one flag and one value per recipe.

``dcgan`` is the plain conditional baseline (Radford et al. 2016). ``tail`` is made for a class
with about a hundred images. This module imports nothing heavy: it is read by ``--help``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from galaxies.errors import InputError

RecipeName = Literal["tail", "dcgan"]
GeneratorName = Literal["style", "convolutional"]
DiscriminatorName = Literal["residual", "convolutional"]
LossName = Literal["logistic", "relativistic", "hinge"]
SymmetryName = Literal["square", "rotations", "none"]
AugmentationName = Literal["translation", "rotation", "scale", "flux", "saturation"]
WatchName = Literal["held-out", "sign"]


@dataclass(frozen=True)
class PartChoices:
    """The parts of a recipe as flags; ``None`` leaves a part as the recipe has it."""

    generator: GeneratorName | None = None
    """`style`: mapping network and modulated convolutions (Karras et al. 2020); `convolutional`:
    the DCGAN trunk with batch norm."""
    discriminator: DiscriminatorName | None = None
    """`residual`: residual blocks without normalisation; `convolutional`: the DCGAN trunk with
    batch norm (or spectral norm)."""
    latent: int | None = None
    """Length of the latent vector z."""
    pixel_noise: bool | None = None
    """Feed fresh noise to every resolution of the style generator: grain costs no capacity."""
    start_at_sky: bool | None = None
    """Begin the style generator at images of the sky instead of a mottled mid-grey, of which a
    short training never gets rid."""
    smooth_upsampling: bool | None = None
    """Let the style generator double pixels before it filters them; else each of the four phases
    of a finer grid has its own filter, which a short training shows as a weave of fine lines."""
    standardise: bool | None = None
    """Show the residual discriminator how far an image lies above the sky, in standard deviations
    of the training images; else it sees a large constant with little upon it."""
    class_from: int | None = None
    """Resolution from which the class enters the generator; below it all classes share
    (Khorram et al. 2024). 4: everywhere."""
    class_bound: float | None = None
    """Weight of the spectral bound on class tables, stronger for rare classes (Rangwani et al.
    2022); 0 turns it off."""
    projection: bool | None = None
    """Judge the class by a projection (Miyato & Koyama 2018) instead of an embedded plane."""
    spectral_norm: bool | None = None
    """Spectral norm in every layer of the discriminator instead of batch norm."""
    minibatch_deviation: bool | None = None
    """Show the discriminator the deviation within groups of four images (Karras et al. 2018)."""
    condition_from: float | None = None
    """Share of the planned steps before the class begins to matter (Shahbazi et al. 2022)."""
    condition_full: float | None = None
    """Share of the planned steps after which the class matters fully; 0: from the start."""
    loss: LossName | None = None
    """`logistic` (softplus, non-saturating), `relativistic` (pairs, Huang et al. 2024) or
    `hinge`."""
    r1: float | None = None
    """Weight gamma of the gradient penalty on real images (Mescheder et al. 2018); 0: off. With
    `standardise` the gradient is taken by pixels in units of the training images' contrast, and
    its square multiplied by (size / 64)^2, so that one value does for all sets and sizes; without
    it by pixels in [-1, 1]."""
    r2: float | None = None
    """Weight gamma of the gradient penalty on generated images, in the same unit; 0: off."""
    penalty_every: int | None = None
    """Steps between gradient penalties; the weight is multiplied by it (lazy regularisation)."""
    lecam: float | None = None
    """Weight of the LeCam regulariser (Tseng et al. 2021), once the class matters; 0: off."""
    symmetries: SymmetryName | None = None
    """Symmetries drawn for each real image: the eight of the square (a mirrored image takes its
    twin's class), the four `rotations`, or `none`."""
    fake_symmetries: bool | None = None
    """Draw them for generated images too, before the discriminator and when sampling, so that
    the generated distribution is exactly symmetric and orientation costs no capacity."""
    augment: tuple[AugmentationName, ...] | None = None
    """Differentiable augmentations of what the discriminator sees (Zhao et al. 2020), in flux
    space: the sky fills what moves in."""
    augment_probability: float | None = None
    """Probability of each augmentation and image; the start value where it adapts."""
    augment_watch: WatchName | None = None
    """What adapts the probability (Karras et al. 2020). `held-out`: each class has its own, which
    rises where the discriminator knows its training images from validation images; `sign`: one
    for all, by the mean sign of the discriminator on real images."""
    augment_target: float | None = None
    """Adapt the probability until what is watched is this: the mean sign, or half of how much
    higher it is for training images than for held-out ones; 0 keeps the probability fixed."""
    balance: float | None = None
    """Exponent of the class draws: a class of n images is drawn with weight n to this power."""
    chosen_share: float | None = None
    """Least share of a batch that shows the chosen classes."""
    ema_images: float | None = None
    """Half-life, in images, of the average of the generator's weights; 0: no average."""
    learning_rate: float | None = None
    """Adam's rate for the generator."""
    discriminator_learning_rate: float | None = None
    """Adam's rate for the discriminator."""
    beta1: float | None = None
    """Adam's first decay."""
    beta2: float | None = None
    """Adam's second decay."""


@dataclass(frozen=True)
class Parts:
    """All parts of a recipe, decided; the fields of `PartChoices` without ``None``."""

    generator: GeneratorName
    discriminator: DiscriminatorName
    latent: int
    pixel_noise: bool
    start_at_sky: bool
    smooth_upsampling: bool
    standardise: bool
    class_from: int
    class_bound: float
    projection: bool
    spectral_norm: bool
    minibatch_deviation: bool
    condition_from: float
    condition_full: float
    loss: LossName
    r1: float
    r2: float
    penalty_every: int
    lecam: float
    symmetries: SymmetryName
    fake_symmetries: bool
    augment: tuple[AugmentationName, ...]
    augment_probability: float
    augment_watch: WatchName
    augment_target: float
    balance: float
    chosen_share: float
    ema_images: float
    learning_rate: float
    discriminator_learning_rate: float
    beta1: float
    beta2: float

    def __post_init__(self) -> None:
        for name in ("latent", "penalty_every"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("r1", "r2", "lecam", "class_bound", "balance", "ema_images"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("learning_rate", "discriminator_learning_rate"):
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("augment_probability", "augment_target", "chosen_share", "condition_from"):
            _require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, "from 0 to below 1", getattr(self, name))
        _require(
            self.condition_full == 0 or self.condition_from <= self.condition_full <= 1,
            "condition_full",
            "0, or from --condition-from to 1",
            self.condition_full,
        )
        _require(self.class_from in (4, 8, 16, 32), "class_from", "4, 8, 16 or 32", self.class_from)
        if self.augment and not (self.augment_target or self.augment_probability):
            raise InputError(
                "--augment-target 0 keeps the probability where it begins, and that is 0; pass "
                "--augment-probability above 0"
            )
        if self.pixel_noise and self.generator != "style":
            raise InputError("--pixel-noise True needs --generator style")
        if self.start_at_sky and self.generator != "style":
            raise InputError("--start-at-sky True needs --generator style")
        if self.smooth_upsampling and self.generator != "style":
            raise InputError("--smooth-upsampling True needs --generator style")
        if self.standardise and self.discriminator != "residual":
            raise InputError("--standardise True needs --discriminator residual")
        if self.fake_symmetries and self.symmetries == "none":
            raise InputError("--fake-symmetries True needs --symmetries square or rotations")


def _require(holds: bool, name: str, allowed: str, value: object) -> None:
    if not holds:
        raise InputError(f"--{name.replace('_', '-')} must be {allowed}, got {value}")


HELD_OUT_TARGET = 0.1
SIGN_TARGET = 0.6
RAW_R1 = 0.05
"""What `tail` takes without `standardise`, where pixels in [-1, 1] are the unit."""

DCGAN = Parts(
    generator="convolutional",
    discriminator="convolutional",
    latent=100,
    pixel_noise=False,
    start_at_sky=False,
    smooth_upsampling=False,
    standardise=False,
    class_from=4,
    class_bound=0.0,
    projection=False,
    spectral_norm=False,
    minibatch_deviation=False,
    condition_from=0.0,
    condition_full=0.0,
    loss="logistic",
    r1=0.0,
    r2=0.0,
    penalty_every=16,
    lecam=0.0,
    symmetries="none",
    fake_symmetries=False,
    augment=(),
    augment_probability=0.0,
    augment_watch="sign",
    augment_target=0.0,
    balance=0.5,
    chosen_share=0.25,
    ema_images=0.0,
    learning_rate=2e-4,
    discriminator_learning_rate=2e-4,
    beta1=0.5,
    beta2=0.999,
)

TAIL = Parts(
    generator="style",
    discriminator="residual",
    latent=128,
    pixel_noise=True,
    start_at_sky=True,
    smooth_upsampling=True,
    standardise=True,
    class_from=4,
    class_bound=0.0,
    projection=True,
    spectral_norm=False,
    minibatch_deviation=True,
    condition_from=0.05,
    condition_full=0.25,
    loss="logistic",
    r1=0.9,  # ten times as much outweighs the task: the discriminator ends at 2 log 2
    r2=0.0,
    penalty_every=8,
    lecam=0.0,
    symmetries="square",
    fake_symmetries=True,
    augment=("translation", "rotation", "scale", "flux", "saturation"),
    augment_probability=0.0,  # a blurred look from the start costs the first 15,000 images
    augment_watch="held-out",
    augment_target=HELD_OUT_TARGET,
    balance=0.5,
    chosen_share=0.25,
    ema_images=15_000.0,
    learning_rate=2e-4,
    discriminator_learning_rate=4e-4,  # equal rates leave it near 2 log 2
    beta1=0.0,
    beta2=0.99,
)

RECIPES: dict[RecipeName, Parts] = {"tail": TAIL, "dcgan": DCGAN}


def resolve_parts(recipe: RecipeName, choices: PartChoices) -> Parts:
    """The parts of ``recipe`` with those replaced that ``choices`` names."""
    changed: dict[str, Any] = {
        field.name: getattr(choices, field.name)
        for field in dataclasses.fields(PartChoices)
        if getattr(choices, field.name) is not None
    }
    if changed.get("generator", "style") == "convolutional" and recipe == "tail":
        changed.setdefault("pixel_noise", False)
        changed.setdefault("start_at_sky", False)
        changed.setdefault("smooth_upsampling", False)
    if changed.get("discriminator", "residual") == "convolutional" and recipe == "tail":
        changed.setdefault("standardise", False)
    if changed.get("standardise") is False and recipe == "tail":
        changed.setdefault("r1", RAW_R1)
    if changed.get("symmetries") == "none":
        changed.setdefault("fake_symmetries", False)
    if changed.get("augment_watch") == "sign" and recipe == "tail":
        changed.setdefault("augment_target", SIGN_TARGET)
    if changed.get("condition_full") == 0:
        changed.setdefault("condition_from", 0.0)
    return dataclasses.replace(RECIPES[recipe], **changed)
