"""The calibration rows that a table checkpoint keeps: what sets and the shift monitor need."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classify.conformal import ConformalCalibration, SetKind
from classify.damage import refuse_damaged
from classify.tabular.exchangeability import Exchangeability, two_sample_monitor
from classify.tabular.weighted_conformal import WeightedCalibration

FILE = "calibration.safetensors"
FEWEST_NEW_ROWS = 50
"""Fewer new rows cannot show a shift; sets are then unweighted, and that is said."""


@dataclass(frozen=True)
class CalibrationRows:
    """Held-out rows with their features.

    Attributes
    ----------
    features : (n, F) float64
    calibration : ConformalCalibration
    """

    features: np.ndarray
    calibration: ConformalCalibration

    def write(self, folder: Path) -> None:
        """Write into an existing checkpoint folder."""
        from safetensors.torch import save_file

        save_file(
            {
                "features": torch.from_numpy(np.ascontiguousarray(self.features)),
                "probabilities": torch.from_numpy(self.calibration.probabilities),
                "labels": torch.from_numpy(self.calibration.labels),
            },
            folder / FILE,
        )

    @classmethod
    def read(cls, folder: Path) -> "CalibrationRows | None":
        """Read what `write` wrote; ``None`` where nothing was held out."""
        from safetensors.torch import load_file

        if not (folder / FILE).is_file():
            return None
        with refuse_damaged(folder, "table classifier"):
            found = {name: tensor.numpy() for name, tensor in load_file(folder / FILE).items()}
            calibration = ConformalCalibration(found["probabilities"], found["labels"])
            return cls(found["features"], calibration)

    def sets(
        self, features: np.ndarray, probabilities: np.ndarray, level: float, kind: SetKind
    ) -> tuple[np.ndarray, Exchangeability | None]:
        """(m, K) sets of new rows, weighted where the monitor finds them unlike these.

        Returns
        -------
        sets, monitor
            ``None`` for the monitor where the rows are too few for one.
        """
        if len(features) < FEWEST_NEW_ROWS or len(self.features) < FEWEST_NEW_ROWS:
            return self.calibration.sets(probabilities, level, kind), None
        monitor, ratio = two_sample_monitor(self.features, features)
        if monitor.verdict == "alike":
            return self.calibration.sets(probabilities, level, kind), monitor
        weighted = WeightedCalibration(self.calibration, ratio.calibration)
        return weighted.sets(probabilities, ratio.new, level, kind), monitor
