"""The same number inside a training loop: a ``torchmetrics.Metric``, also over many processes."""

from typing import Any

import torch
from torchmetrics import Metric

from fid.features import FeatureExtractor
from fid.frechet import FrechetDistance, frechet_distance
from fid.full_precision import precision_of
from fid.statistics import FeatureStatistics, StatisticsAccumulator, merge, statistics_of_features
from galaxies.errors import InputError

_SIDES = ("real", "fake")


class FrechetDistanceMetric(Metric):
    """Fréchet distance of the images seen so far, exact in float64.

    Every process keeps sums of its own images (mean, deviations, and the features that wait to
    be summed); `compute` gathers and merges them, so the value is that of all images together,
    whatever process or batch they came in.

    Parameters
    ----------
    extractor
        Network; it keeps its own device and is no submodule, so that ``model.train()`` cannot
        wake its batch norms.
    reset_real_features
        Whether `reset` forgets the real side too. ``False`` measures it once.
    **kwargs
        Of `torchmetrics.Metric`.

    Examples
    --------
    >>> metric = FrechetDistanceMetric(load_extractor("inception"))  # doctest: +SKIP
    >>> metric.update(real_images, real=True)  # doctest: +SKIP
    >>> metric.update(generated_images, real=False)  # doctest: +SKIP
    >>> metric.compute()  # doctest: +SKIP
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = True

    def __init__(
        self, extractor: FeatureExtractor, *, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._extractor = [extractor]  # in a list: never a submodule
        self.reset_real_features = reset_real_features
        dimensions = extractor.dimensions
        for side in _SIDES:
            self.add_state(f"{side}_waiting", torch.zeros(dimensions, dimensions), None)
            self.add_state(f"{side}_waiting_count", torch.zeros((), dtype=torch.int64), None)
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), None)
            self.add_state(f"{side}_mean", torch.zeros(dimensions, dtype=torch.float64), None)
            scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64)
            self.add_state(f"{side}_scatter", scatter, None)

    def update(self, images: torch.Tensor, real: bool) -> None:
        """Add (n, C, H, W) uint8 images to one side."""
        if images.dtype != torch.uint8:
            raise InputError(
                f"images are {images.dtype}; uint8 is needed (galaxies.pixels.to_storage)"
            )
        side = "real" if real else "fake"
        with precision_of(self._extractor[0]):
            features = self._extractor[0](images).to(self.device, torch.float32)
        waiting = getattr(self, f"{side}_waiting")
        count = int(getattr(self, f"{side}_waiting_count"))
        start = 0
        while start < len(features):
            if count == len(waiting):
                self._fold(side)
                count = 0
            step = min(len(features) - start, len(waiting) - count)
            waiting[count : count + step] = features[start : start + step]
            count, start = count + step, start + step
        setattr(self, f"{side}_waiting_count", torch.tensor(count, device=self.device))

    def compute(self) -> torch.Tensor:
        """Distance of all images of all processes, float64."""
        return torch.tensor(self.distance().value, dtype=torch.float64, device=self.device)

    def distance(self) -> FrechetDistance:
        """The distance and its terms; after `sync`, of all processes.

        Raises
        ------
        InputError
            If a side has fewer than 2 images.
        """
        return frechet_distance(self._statistics("real"), self._statistics("fake"))

    def reset(self) -> None:
        """Forget the images, but the real ones only if `reset_real_features`."""
        kept = {}
        if not self.reset_real_features:
            kept = {name: getattr(self, name) for name in self._defaults if name[:4] == "real"}
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)

    def _fold(self, side: str) -> None:
        waiting = getattr(self, f"{side}_waiting")
        block = statistics_of_features(waiting.cpu().numpy())
        accumulated = merge([*self._folded(side), block])
        assert accumulated.count is not None
        for name, value in (
            ("count", torch.tensor(accumulated.count)),
            ("mean", torch.from_numpy(accumulated.mean)),
            ("scatter", torch.from_numpy(_scatter_of(accumulated))),
        ):
            setattr(self, f"{side}_{name}", value.to(self.device))

    def _folded(self, side: str) -> list[FeatureStatistics]:
        """What each process has summed."""
        counts = getattr(self, f"{side}_count").reshape(-1)
        means = getattr(self, f"{side}_mean").reshape(len(counts), -1)
        scatters = getattr(self, f"{side}_scatter").reshape(len(counts), *[means.shape[1]] * 2)
        return [
            FeatureStatistics(int(count), mean.cpu().numpy(), scatter=scatter.cpu().numpy())
            for count, mean, scatter in zip(counts, means, scatters, strict=True)
            if count > 0
        ]

    def _statistics(self, side: str) -> FeatureStatistics:
        counts = getattr(self, f"{side}_waiting_count").reshape(-1)
        dimensions = self._extractor[0].dimensions
        waiting = getattr(self, f"{side}_waiting").reshape(len(counts), -1, dimensions)
        rest = StatisticsAccumulator(dimensions)
        for block, count in zip(waiting, counts, strict=True):
            rest.update(block[: int(count)].cpu().numpy())
        folded = self._folded(side)
        return merge([*folded, rest.result()]) if folded else rest.result()


def _scatter_of(statistics: FeatureStatistics) -> Any:
    if statistics.scatter is not None:
        return statistics.scatter
    centred = statistics.centred_rows
    return centred.T @ centred
