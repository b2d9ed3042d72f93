"""A conditional GAN for rows of numbers, and the rows it makes for one class.

Each feature is first mapped to a normal variable by its ranks in the training rows, as in
conditional table GANs (Xu et al. 2019, arXiv:1907.00503, use mixtures): photometry is skewed and
has tails that a network with a smooth output cannot reach. Generator and discriminator are
residual networks that know the class; the loss is the non-saturating one with the zero-centred
gradient penalty on real rows (Mescheder et al. 2018, arXiv:1801.04406), and rows are made by the
moving average of the generator. Rare classes are drawn as often as common ones, so what is known
of all classes helps the rare one.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtr, ndtri
from torch import nn
from tqdm import tqdm

from galaxies.errors import InputError

FEWEST_ROWS = 10
KNOTS = 1000
_EDGE = 3.5  # standard deviations; ranks beyond carry no information


@dataclass(frozen=True, kw_only=True)
class TableGanConfig:
    """Settings of the table GAN; the defaults suit hundreds to thousands of rows per class."""

    steps: int = 2000
    batch_size: int = 256
    width: int = 128
    noise: int = 32
    learning_rate: float = 5e-4
    penalty: float = 1.0
    average: float = 0.995
    seed: int = 0


@dataclass(frozen=True)
class NormalScores:
    """Monotone maps between features and normal variables.

    Attributes
    ----------
    values : (F, M) float64
        Quantiles of each feature at ``levels``.
    levels : (M,) float64
    """

    values: np.ndarray
    levels: np.ndarray

    def forward(self, features: np.ndarray) -> np.ndarray:
        """(n, F) features to normal variables, ties at the middle of their ranks."""
        result = np.empty(features.shape)
        for place, knots in enumerate(self.values):
            low = np.searchsorted(knots, features[:, place], side="left")
            high = np.searchsorted(knots, features[:, place], side="right")
            last = len(knots) - 1
            middle = (low + high - 1) / 2 / last
            # Between two knots: from the last of those that are tied below to the first above.
            below, above = (low - 1).clip(0, last), low.clip(0, last)
            width = knots[above] - knots[below]
            way = (features[:, place] - knots[below]) / np.where(width > 0, width, 1)
            between = (below + way.clip(0, 1) * (above - below)) / last
            result[:, place] = np.where(high > low, middle, between)
        return ndtri(result.clip(ndtr(-_EDGE), ndtr(_EDGE)))

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """(n, F) normal variables to features, never outside the training range."""
        levels = ndtr(scores)
        return np.stack(
            [
                np.interp(levels[:, place], self.levels, knots)
                for place, knots in enumerate(self.values)
            ],
            axis=1,
        )


def normal_scores_of(features: np.ndarray) -> NormalScores:
    """Measure (n, F) training features."""
    levels = np.linspace(0, 1, min(KNOTS, len(features)))
    return NormalScores(np.quantile(features, levels, axis=0).T, levels)


class ResidualRows(nn.Module):
    """Rows and a class to rows: two residual blocks between linear layers."""

    def __init__(self, inputs: int, classes: int, width: int, outputs: int) -> None:
        super().__init__()
        self.classes = classes
        self.first = nn.Linear(inputs + classes, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
                nn.Linear(width, width),
            )
            for _ in range(2)
        )  # fmt: skip
        self.last = nn.Linear(width, outputs)

    def forward(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(n, inputs) and (n,) int64 to (n, outputs)."""
        known = F.one_hot(labels, self.classes).to(rows)
        hidden = self.first(torch.cat([rows, known], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(F.leaky_relu(hidden, 0.2))


class Critic(nn.Module):
    """Rows to the score of their class (projection onto one output per class)."""

    def __init__(self, features: int, classes: int, width: int) -> None:
        super().__init__()
        self.rows = ResidualRows(features, classes, width, classes)

    def forward(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(n, F) and (n,) int64 to (n,) scores."""
        return self.rows(rows, labels).gather(1, labels[:, None]).squeeze(1)


@dataclass(frozen=True)
class TableGenerator:
    """A trained generator of rows.

    Attributes
    ----------
    network : ResidualRows
        Moving average of the weights.
    scores : NormalScores
    noise : int
    trained_classes : tuple of int
    """

    network: ResidualRows
    scores: NormalScores
    noise: int
    trained_classes: tuple[int, ...]

    @torch.no_grad()
    def generate(self, label: int, count: int, seed: int) -> np.ndarray:
        """(count, F) float64 rows of one class; the same seed gives the same rows."""
        if label not in self.trained_classes:
            raise InputError(
                f"this generator was not trained on class {label}; it knows "
                f"{', '.join(map(str, self.trained_classes))}"
            )
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, self.noise, generator=generator)
        labels = torch.full((count,), label, dtype=torch.int64)
        return self.scores.inverse(self.network(noise, labels).double().numpy())


def train_table_gan(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    config: TableGanConfig | None = None,
    *,
    progress: bool = True,
) -> TableGenerator:
    """Train on (n, F) training rows without missing values.

    Raises
    ------
    InputError
        If a class has fewer than `FEWEST_ROWS` rows: its marginals could not be known.
    """
    config = config or TableGanConfig()
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    few = [int(k) for k in present if counts[k] < FEWEST_ROWS]
    if few:
        raise InputError(
            f"class {few[0]} has {counts[few[0]]} training rows; a table GAN needs at least "
            f"{FEWEST_ROWS}; use smote instead"
        )
    scores = normal_scores_of(features)
    real = torch.from_numpy(scores.forward(features)).float()
    truth = torch.from_numpy(np.asarray(labels, np.int64))
    rows_of = [torch.from_numpy(np.flatnonzero(labels == k)) for k in range(classes)]
    random = torch.Generator().manual_seed(config.seed)
    generator = ResidualRows(config.noise, classes, config.width, features.shape[1])
    critic = Critic(features.shape[1], classes, config.width)
    for network in (generator, critic):
        _initialise(network, random)
    averaged = copy.deepcopy(generator).requires_grad_(False)
    betas = (0.0, 0.99)
    of_generator = torch.optim.Adam(generator.parameters(), config.learning_rate, betas=betas)
    of_critic = torch.optim.Adam(critic.parameters(), config.learning_rate, betas=betas)
    known = torch.from_numpy(present)
    bar = tqdm(
        range(config.steps), desc="table GAN", unit="step", disable=not progress, leave=False
    )
    for _ in bar:
        drawn = known[torch.randint(len(known), (config.batch_size,), generator=random)]
        rows = torch.empty(config.batch_size, dtype=torch.int64)
        for k in present.tolist():
            places = torch.nonzero(drawn == k).squeeze(1)
            pick = torch.randint(len(rows_of[k]), (len(places),), generator=random)
            rows[places] = rows_of[k][pick]
        batch, of_class = real[rows].requires_grad_(), truth[rows]
        noise = torch.randn(config.batch_size, config.noise, generator=random)
        made = generator(noise, drawn)
        on_real, on_made = critic(batch, of_class), critic(made.detach(), drawn)
        slope = torch.autograd.grad(on_real.sum(), batch, create_graph=True)[0]
        loss = (
            F.softplus(-on_real).mean()
            + F.softplus(on_made).mean()
            + 0.5 * config.penalty * (slope**2).sum(dim=1).mean()
        )
        of_critic.zero_grad(set_to_none=True)
        loss.backward()
        of_critic.step()
        deceit = F.softplus(-critic(made, drawn)).mean()
        of_generator.zero_grad(set_to_none=True)
        deceit.backward()
        of_generator.step()
        with torch.no_grad():
            for kept, new in zip(averaged.parameters(), generator.parameters(), strict=True):
                kept.lerp_(new, 1 - config.average)
    return TableGenerator(averaged.eval(), scores, config.noise, tuple(present.tolist()))


def _initialise(network: nn.Module, random: torch.Generator) -> None:
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for layer in linear:
        nn.init.kaiming_normal_(layer.weight, a=0.2, generator=random)
        nn.init.zeros_(layer.bias)
    linear[-1].weight.data *= 0.1  # the output starts near zero
