"""Several classifiers that answer as one: the mean of their probabilities, or a learnt stack.

The stack is a weight per member and an offset per class on the members' log probabilities,
fitted on validation predictions with every class weighing the same: a stack fitted on raw
frequencies would learn to favour the common classes again. Few numbers and a ridge towards the
geometric mean keep it from fitting the noise of a rare class.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from classify.checkpoint import load_classifier, write_checkpoint
from classify.classifier import TrainedClassifier
from classify.damage import refuse_damaged
from classify.neighbours import unit_length
from galaxies.errors import InputError
from galaxies.image_set import ImageSet

KIND = "ensemble"
Combine = Literal["mean", "stack"]
RIDGE = 0.05
SMALLEST_PROBABILITY = 1e-12


@dataclass
class Ensemble:
    """Members that take the same images and know the same classes.

    Attributes
    ----------
    members : tuple of TrainedClassifier
    combine : ``mean`` or ``stack``
    weights : (M,) float64
        Of each member's log probabilities; only for a stack.
    offsets : (K,) float64
        Of each class; only for a stack.
    temperature : float
        Joined log probabilities are divided by it before the softmax; 1 until it is fitted.
    record : dict
        As `TrainedClassifier.record`.
    """

    members: tuple[TrainedClassifier, ...]
    combine: Combine = "mean"
    weights: torch.Tensor | None = None
    offsets: torch.Tensor | None = None
    temperature: float = 1.0
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise InputError("an ensemble needs at least 2 checkpoints")
        first = self.members[0]
        for member in self.members[1:]:
            for name in ("class_names", "size", "channels"):
                if getattr(member, name) != getattr(first, name):
                    raise InputError(
                        f"members of an ensemble must agree: {name} is {getattr(first, name)} in "
                        f"the first and {getattr(member, name)} in another"
                    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.members[0].class_names

    @property
    def size(self) -> int:
        """Side of the images."""
        return self.members[0].size

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.members[0].channels

    @property
    def mirror_pairs(self) -> tuple[tuple[str, str], ...]:
        """Classes that a mirror turns into each other."""
        return self.members[0].mirror_pairs

    @property
    def takes_flux(self) -> bool:
        """Whether the images are float32 flux."""
        return self.members[0].takes_flux

    def member_probabilities(self, images: ImageSet | torch.Tensor) -> torch.Tensor:
        """(M, n, K) float64."""
        return torch.stack([member.probabilities(images) for member in self.members])

    def probabilities(self, images: ImageSet | torch.Tensor) -> torch.Tensor:
        """(n, K) float64; rows sum to 1."""
        return self.join(self.member_probabilities(images))

    def join(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(M, n, K) member probabilities to (n, K), at the fitted temperature."""
        if self.combine == "mean" and self.temperature == 1:
            return probabilities.mean(dim=0)
        return torch.softmax(self.scores(probabilities) / self.temperature, dim=1)

    def scores(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(M, n, K) member probabilities to (n, K) logits, before the temperature."""
        if self.combine == "mean":
            return probabilities.mean(dim=0).clamp_min(SMALLEST_PROBABILITY).log()
        if self.weights is None or self.offsets is None:
            raise InputError("the stack is not fitted yet: call fit_stack first")
        return _stacked(probabilities, self.weights, self.offsets)

    def features(self, images: ImageSet | torch.Tensor) -> torch.Tensor:
        """(n, sum of d) float32: the members' features, each of length one."""
        return torch.cat([unit_length(m.features(images)) for m in self.members], dim=1)


def fit_stack(ensemble: Ensemble, validation: ImageSet) -> Ensemble:
    """Learn the stack on validation images; the members stay as they are."""
    probabilities = ensemble.member_probabilities(validation)
    weights, offsets = stack_weights(probabilities, validation.labels)
    return dataclasses.replace(ensemble, combine="stack", weights=weights, offsets=offsets)


def stack_weights(
    probabilities: torch.Tensor, labels: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (M,) and offsets (K,) that minimise the class-averaged log loss plus a ridge.

    Parameters
    ----------
    probabilities
        (M, n, K) of the members on validation images.
    labels
        (n,) int64.
    """
    members, _, classes = probabilities.shape
    truth = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    counts = torch.bincount(truth, minlength=classes).double()
    importance = (1 / counts.clamp_min(1))[truth] / (counts > 0).sum()
    start = torch.full((members,), 1 / members, dtype=torch.float64)
    weights = start.clone().requires_grad_(True)
    offsets = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, offsets], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        scores = _stacked(probabilities, weights, offsets)
        losses = torch.nn.functional.cross_entropy(scores, truth, reduction="none")
        ridge = RIDGE * ((weights - start).square().sum() + offsets.square().sum())
        total = (losses * importance).sum() + ridge
        total.backward()
        return total

    optimiser.step(closure)
    return weights.detach(), offsets.detach()


def write_ensemble(ensemble: Ensemble, folder: Path) -> None:
    """Write into an existing folder; members stand whole in ``members/``."""
    for index, member in enumerate(ensemble.members):
        inside = folder / "members" / str(index)
        inside.mkdir(parents=True)
        write_checkpoint(member, inside)
    if ensemble.weights is not None and ensemble.offsets is not None:
        save_file(
            {"weights": ensemble.weights, "offsets": ensemble.offsets},
            folder / "stack.safetensors",
        )
    description = {
        "kind": KIND,
        "schema_version": 1,
        "combine": ensemble.combine,
        "members": [member.specification.name for member in ensemble.members],
        "class_names": ensemble.class_names,
        "temperature": ensemble.temperature,
        "record": ensemble.record,
    }
    (folder / "config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def load_any(
    folder: Path | str, device: torch.device | str = "cpu"
) -> TrainedClassifier | Ensemble:
    """Load a classifier or an ensemble, by what its ``config.json`` says it is."""
    folder = Path(folder)
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = description.get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # load_classifier says what is wrong
    if kind != KIND:
        return load_classifier(folder, device)
    with refuse_damaged(folder, "ensemble"):
        members = tuple(
            load_classifier(folder / "members" / str(index), device)
            for index in range(len(description["members"]))
        )
        stack: dict[str, torch.Tensor] = {}
        if description["combine"] == "stack":
            stack = load_file(folder / "stack.safetensors")
        return Ensemble(
            members,
            description["combine"],
            **stack,
            # Ensembles of older versions have none.
            temperature=float(description.get("temperature", 1.0)),
            record=description["record"],
        )


def _stacked(
    probabilities: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    logarithms = probabilities.clamp_min(SMALLEST_PROBABILITY).log()
    return torch.einsum("m,mnk->nk", weights, logarithms) + offsets
