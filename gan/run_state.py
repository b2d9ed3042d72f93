"""Where a run stands: what a kill must not lose, and what a NaN leads back to.

``state.pt`` holds tensors and plain values alone. Every tensor of a step stays in place while it
is saved and restored, so that captured graphs stay valid and a resumed run ends with the same
bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galaxies.errors import InputError
from gan.checkpoint import write_state, write_weights
from gan.step import TrainingStep
from gan.training_config import TrainConfig


@dataclass(frozen=True)
class GoodState:
    """The last evaluation without a NaN, which a NaN leads back to.

    Attributes
    ----------
    number, last_look : int
        Its step, and the step at which the sums of the log began.
    warned : list of str
        Guards that had fired.
    tensors : dict of str to Tensor
        What `TrainingStep.snapshot` gave.
    """

    number: int
    last_look: int
    warned: list[str]
    tensors: dict[str, Tensor]


class RunState:
    """Counters, warnings and the best weights of a run, beside the tensors of its step.

    Parameters
    ----------
    step
        Networks and optimizers before their first step.

    Attributes
    ----------
    number : int
        Steps done.
    last_look : int
        Step at which the sums of the log began.
    rollbacks : int
        How often a NaN led back.
    warned : list of str
        Guards that have fired.
    best : dict
        ``rank``, ``step`` and ``kid`` of the evaluation whose weights are kept.
    last_good : GoodState
        What a NaN leads back to.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.number = 0
        self.last_look = 0
        self.rollbacks = 0
        self.warned: list[str] = []
        self.best: dict[str, Any] = {"rank": None, "step": 0, "kid": {}}
        self.last_good = self._as_good()

    @property
    def conditioning(self) -> float:
        """How much the class mattered in the last step."""
        last = torch.tensor(max(self.number - 1, 0), dtype=torch.float64)
        return float(self.step.schedule.conditioning(last))

    def mark_good(self) -> None:
        """A NaN shall lead back to this moment."""
        self.last_good = self._as_good()

    def go_back(self, rate_factor: float, seed: int) -> None:
        """Return to the last good state with lower rates, and other draws than led to the NaN."""
        self.rollbacks += 1
        self.step.restore(self.last_good.tensors)
        self.step.lower_rates(rate_factor)
        self.step.random.manual_seed(seed + 1 + 1_000_003 * self.rollbacks)
        self.number = self.last_good.number
        self.last_look = self.last_good.last_look
        self.warned = list(self.last_good.warned)

    def write(self, folder: Path, precision: str) -> None:
        """Write ``state.pt``."""
        schedule = self.step.schedule
        write_state(
            folder,
            {
                "number": self.number,
                "last_look": self.last_look,
                "rollbacks": self.rollbacks,
                "warned": self.warned,
                "best": self.best,
                "precision": precision,
                "threads": torch.get_num_threads(),
                "schedule": [schedule.condition_from, schedule.condition_full],
                "tensors": self.step.snapshot(),
                "last_good": dict(self.last_good.__dict__),
            },
        )

    def write_weights(self, path: Path) -> None:
        """Write the averaged generator and the discriminator of this moment."""
        tensors: dict[str, Tensor] = {"conditioning": torch.tensor(self.conditioning)}
        for prefix, network in (
            ("generator", self.step.average),
            ("discriminator", self.step.discriminator),
        ):
            for name, value in network.state_dict().items():
                tensors[f"{prefix}.{name}"] = value
        write_weights(path, tensors, self.number)

    def take_up(
        self, stored: dict[str, Any], config: TrainConfig, folder: Path, say: Callable[[str], None]
    ) -> None:
        """Go on from what `write` wrote; ``say`` what keeps the result from being the same.

        Raises
        ------
        InputError
            If another version wrote it and something is missing.
        """
        device = self.step.device.type
        if stored["threads"] != torch.get_num_threads() and device == "cpu":
            say(
                f"the run used {stored['threads']} threads, this one has "
                f"{torch.get_num_threads()}: the result will differ in the last bits"
            )
        tensors, is_exact = stored_tensors(stored["tensors"], self.step, config, folder)
        if not is_exact:
            say(
                "the run was begun on another kind of device than "
                f"{device}: its random numbers begin anew, so the result will "
                "differ from an uninterrupted run"
            )
        self.number = stored["number"]
        self.last_look = stored["last_look"]
        self.rollbacks = stored["rollbacks"]
        self.warned = list(stored["warned"])
        self.best = stored_best(stored)
        self.step.schedule = type(self.step.schedule)(*stored["schedule"])
        self.step.restore(tensors)
        self.mark_good()
        if "last_good" in stored:  # earlier versions kept none
            good = dict(stored["last_good"])
            good["tensors"], _ = stored_tensors(good["tensors"], self.step, config, folder)
            self.last_good = GoodState(**good)

    def _as_good(self) -> GoodState:
        return GoodState(self.number, self.last_look, list(self.warned), self.step.snapshot())


def stored_tensors(
    tensors: dict[str, Tensor], step: TrainingStep, config: TrainConfig, folder: Path
) -> tuple[dict[str, Tensor], bool]:
    """Tensors of a stored state that ``step`` can restore, and whether exactly so.

    The random generators of a CPU and of a GPU have nothing in common: on another kind of device
    the random numbers begin anew.

    Raises
    ------
    InputError
        If some are missing, because another version wrote the state.
    """
    missing = sorted(step.tensors().keys() - tensors.keys())
    if missing:
        raise InputError(
            f"{folder} cannot be resumed: its state holds no {', '.join(missing[:3])}, "
            "so another version began it; its images can still be sampled"
        )
    if len(tensors["random"]) == len(step.random.get_state()):
        return tensors, True
    seed = config.seed + 1_000_003 * int(tensors["step_count"])
    fresh = torch.Generator(step.device).manual_seed(seed)
    return tensors | {"random": fresh.get_state()}, False


def stored_best(state: dict[str, Any]) -> dict[str, Any]:
    """The evaluation whose weights are kept."""
    best = dict(state["best"])
    if "rank" not in best:  # a run begun before weights that copy had a rank
        score = best.pop("score")
        best["rank"] = None if score is None else [float(score == math.inf), 0.0, score]
    return best
