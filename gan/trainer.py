"""The run: time, logs, looks at the images, saves, guards; the step itself is `gan.step`."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from galaxies.atomic import folder_lock
from galaxies.command_line import config_as_json
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.stop_requests import stop_requests
from gan import guards
from gan.announcements import Announcer
from gan.card import write_card
from gan.checkpoint import (
    CURVE,
    SAMPLES,
    RunDescription,
    RunLog,
    read_log,
    read_state,
    remove_cut_short,
    remove_run,
    weights_path,
    write_description,
    write_training_images,
)
from gan.evaluation import (
    judge_images,
    make_judge,
    rank_of,
    save_grid,
    save_reals,
    what_was_kept,
)
from gan.graphs import GraphStepper, fast_kernels, make_stepper
from gan.judge import Extractor
from gan.loaded_generator import LoadedGenerator
from gan.pictures import save_curve
from gan.preparation import Preparation, build_step, prepare
from gan.processes import Processes, any_process
from gan.resume import check_unchanged
from gan.run_state import RunState
from gan.step import METRICS
from gan.training_config import TrainConfig
from gan.trial import choose_precision

RATE_FACTOR = 0.5  # of both learning rates after a NaN
RIPE = 0.3  # share of the steps before the images are guarded
CURVE_SECONDS = 20.0  # drawing takes a good part of a second


@dataclass(frozen=True)
class Outcome:
    """What a finished run left.

    Attributes
    ----------
    folder : Path
        The checkpoint.
    step : int
        Last step.
    chosen_step : int
        Step whose weights were kept.
    kid : dict of str to float
        KID of each judged class at that step; empty without a judge.
    images_per_second : float
        Over the steps of this call.
    """

    folder: Path
    step: int
    chosen_step: int
    kid: dict[str, float]
    images_per_second: float


def train(
    config: TrainConfig,
    image_set: ImageSet,
    folder: Path,
    *,
    processes: Processes | None = None,
    preparation: Preparation | None = None,
    extractor: Extractor | None = None,
    progress: bool = True,
) -> Outcome:
    """Train a generator into ``folder``, or go on with the run that stands there.

    Parameters
    ----------
    config
        All flags; ``config.resume`` goes on, and refuses a changed setting by name.
    image_set
        With a split; only its training side is learned from, only its validation side chooses.
    folder
        The checkpoint.
    processes
        This process among several; alone on the configured device by default.
    preparation
        What `gan.preparation.prepare` made of the two, where it has been called.
    extractor
        Judge's features in place of a classifier trained here.
    progress
        Show a bar on stderr.

    Raises
    ------
    InputError
        If the input is wrong, or the training became NaN again after it was rolled back.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, with everything saved.
    """
    if processes is None:
        from galaxies.device import choose_device

        processes = Processes(0, 1, choose_device(config.device))
    preparation = preparation or prepare(config, image_set)
    lock = folder_lock(folder) if processes.leads else contextlib.nullcontext()
    with lock, fast_kernels(processes.device):
        if processes.leads:
            remove_cut_short(folder)
        if processes.leads and not config.resume:
            remove_run(folder)  # what an earlier run left must not pass for a part of this one
        run = Run(config, preparation, folder, processes, extractor, progress)
        return run.go()


class Run:
    """One run from its first (or resumed) step to its last."""

    def __init__(
        self,
        config: TrainConfig,
        preparation: Preparation,
        folder: Path,
        processes: Processes,
        extractor: Extractor | None,
        progress: bool,
    ) -> None:
        self.config, self.preparation, self.folder = config, preparation, folder
        self.processes, self.progress = processes, progress
        self.announcer = Announcer(
            config, preparation, processes.device, speaks=processes.leads, progress=progress
        )
        stored = self._resumed_state()
        precision = (
            getattr(torch, stored["precision"])
            if stored
            else choose_precision(preparation, config, processes.device)
        )
        self.description = RunDescription(
            command=config_as_json(config),
            parts=preparation.parts,
            shape=preparation.shape,
            data=preparation.data,
            precision=str(precision).removeprefix("torch."),
        )
        self.step = build_step(
            preparation,
            config,
            processes.device,
            precision,
            rank=processes.rank,
            world=processes.world,
        )
        self.stepper = make_stepper(self.step, config.cuda_graphs)
        self.state = RunState(self.step)
        if stored:
            self.state.take_up(stored, config, folder, self.announcer.say)
        self._restart_clock()
        self.fatal: list[str] = []  # sentences of guards that end the run
        self.last_curve = time.monotonic()
        self.judge = (
            make_judge(
                preparation,
                config,
                folder,
                processes.device,
                extractor,
                progress=progress,
                say=self.announcer.say,
            )
            if processes.leads
            else None
        )
        self.announcer.what_is_missing(watches_held_out=self.step.augmentation.held_out is not None)
        self.log: RunLog | None = None
        if processes.leads:
            self.log = RunLog(folder, self.state.number if stored else None)
            write_description(folder, self.description)
            write_training_images(folder, preparation.fingerprints, preparation.ids)
        self.rows = read_log(folder) if processes.leads else []

    def go(self) -> Outcome:
        """Run all remaining steps."""
        config, started_at, start = self.config, self.state.number, time.perf_counter()
        if self.state.number == 0 and self.processes.leads:
            save_reals(self.preparation, self.folder / SAMPLES / "reals.png")
        bar = tqdm(
            total=config.steps,
            initial=self.state.number,
            unit="step",
            desc="gan-train",
            disable=not (self.progress and self.processes.leads),
        )
        last_save = time.monotonic()
        self._restart_clock()
        with stop_requests() as stop, bar:
            while self.state.number < config.steps:
                self.stepper.advance(self.state.number)
                self.state.number += 1
                self.step.watch(self.state.number)
                bar.update()
                at_end = self.state.number == config.steps
                if self.state.number % config.log_every == 0 or at_end:
                    is_whole = self._look(bar)
                    self._restart_clock()
                    if not is_whole:
                        bar.n = self.state.number
                        continue
                if self.state.number % config.steps_between_evaluations == 0 or at_end:
                    if self._any_broken(not self.step.is_finite()):
                        self._roll_back()
                        self._restart_clock()
                        bar.n = self.state.number
                        continue
                    if self._evaluate():
                        self._save()  # the state must know of the weights that are kept
                    self._restart_clock()
                if self._is_stopped_by_guards():
                    raise InputError(self._stop())
                if self.processes.leads and time.monotonic() - last_save >= config.save_seconds:
                    self._save()
                    last_save = time.monotonic()
                if self._must_stop(stop):
                    self._save()
                    raise KeyboardInterrupt
        self._save()
        seconds = time.perf_counter() - start
        done = (self.state.number - started_at) * config.batch_size
        if self.processes.leads:
            self._finish()
        return Outcome(
            folder=self.folder,
            step=self.state.number,
            chosen_step=int(self.state.best["step"]),
            kid=dict(self.state.best["kid"]),
            images_per_second=done / seconds if done else 0.0,
        )

    def generator_now(self) -> LoadedGenerator:
        """The averaged generator of this moment, ready to sample."""
        return LoadedGenerator(
            network=self.step.average,
            description=self.description,
            conditioning=self.state.conditioning,
            device=self.step.device,
        )

    def _resumed_state(self) -> dict[str, Any] | None:
        if not self.config.resume:
            return None
        check_unchanged(self.config, self.preparation, self.folder)
        return read_state(self.folder)

    def _save(self) -> None:
        """Write the state of this moment; other processes hold the same one.

        A state that holds a NaN is not written: the one before it stays.
        """
        if not self.processes.leads or not self.step.is_finite():
            return
        if not weights_path(self.folder).exists():
            self.state.write_weights(weights_path(self.folder))
        self.state.write(self.folder, self.description.precision)

    def _restart_clock(self) -> None:
        self._clock = (time.perf_counter(), self.state.number)

    def _look(self, bar: tqdm) -> bool:
        """Read the sums once, log them; roll back and return false where they are not finite."""
        sums = self.step.sums.tolist()  # waits for the device: the time until here is the steps'
        since, first = self._clock
        steps_per_second = (self.state.number - first) / max(time.perf_counter() - since, 1e-9)
        steps = range(self.state.last_look, self.state.number)
        values = {name: total / len(steps) for name, total in zip(METRICS, sums, strict=True)}
        values["penalty"] *= len(steps) / max(1, sum(map(self.step.is_penalised, steps)))
        self.step.sums.zero_()
        self.state.last_look = self.state.number
        row: dict[str, Any] = {
            "kind": "training",
            "step": self.state.number,
            "images": self.state.number * self.config.batch_size,
            **{name: round(value, 6) for name, value in values.items()},
            "images_per_second": round(steps_per_second * self.config.batch_size, 1),
        }
        if self.step.augmentation.held_out is not None:
            row["overfitting"] = self._by_class(self.step.augmentation.overfitting)
            row["probabilities"] = self._by_class(self.step.augmentation.probability)
        if self._any_broken(guards.is_broken(row)):
            self._roll_back()
            return False
        self._append(row)
        bar.set_postfix_str(
            f"D {row['discriminator_loss']:.3f} G {row['generator_loss']:.3f} "
            f"{row['images_per_second']:.0f} img/s",
            refresh=False,
        )
        self.announcer.time_left(self.config.steps - self.state.number, steps_per_second)
        if isinstance(self.stepper, GraphStepper):
            self.announcer.eager_steps(self.stepper.reason)
        self._report(guards.discriminator_has_won(self.rows, self.step.parts.loss), "discriminator")
        self._report(guards.discriminator_is_silent(self.rows), "silent discriminator")
        return True

    def _any_broken(self, broken: bool) -> bool:
        """Whether any process found a NaN: all roll back, or none."""
        return any_process(broken, self.processes.device)

    def _by_class(self, values: Tensor) -> dict[str, float]:
        names = self.preparation.data.class_names
        made = (names[index] for index in self.preparation.made)
        return {name: round(value, 4) for name, value in zip(made, values.tolist(), strict=True)}

    def _roll_back(self) -> None:
        """Return to the last good state with lower rates, once."""
        broken_at = self.state.number
        if self.state.rollbacks:
            raise InputError(
                f"training became NaN again at step {broken_at}, after it was rolled back with "
                "lower rates; lower --learning-rate and --discriminator-learning-rate"
            )
        self.state.go_back(RATE_FACTOR, self.config.seed)
        self.rows = [row for row in self.rows if row["step"] <= self.state.number]
        self.announcer.say(
            f"training became NaN at step {broken_at}; rolled back to step {self.state.number} and "
            f"multiplied the learning rates by {RATE_FACTOR} (done once)"
        )
        if self.processes.leads:
            self.log = RunLog(self.folder, self.state.number)
        self._append(
            {
                "kind": "rollback",
                "step": self.state.number,
                "broken_at": broken_at,
                "rate_factor": RATE_FACTOR,
            }
        )
        self._save()  # a kill from here on must not forget it

    def _evaluate(self) -> bool:
        """Sample, judge, keep the weights where they are the best so far; whether they were."""
        self.state.mark_good()
        if not self.processes.leads:
            return False
        generator = self.generator_now()
        self.step.average.eval()
        picture = self.folder / SAMPLES / f"step-{self.state.number:07d}.png"
        save_grid(generator, self.preparation, picture)
        row: dict[str, Any] = {
            "kind": "evaluation",
            "step": self.state.number,
            "images": self.state.number * self.config.batch_size,
        }
        if self.judge is not None:
            found = judge_images(
                self.judge, generator, self.preparation, self.config.evaluation_images
            )
            row |= found.row
            for key, sentence in found.complaints if self._is_ripe() else ():
                self._report(sentence, key)
        self._append(row)
        if self.config.snapshots:
            self.state.write_weights(weights_path(self.folder, self.state.number))
        early = self.state.conditioning < 1.0 and self.state.number < self.config.steps
        rank = rank_of(row, early=early)
        is_best = self.state.best["rank"] is None or rank < self.state.best["rank"]
        if is_best:
            self.state.best = {
                "rank": rank,
                "step": self.state.number,
                "kid": dict(row.get("kid", {})),
            }
            self.state.write_weights(weights_path(self.folder))
        if time.monotonic() - self.last_curve > CURVE_SECONDS:
            self.last_curve = time.monotonic()
            save_curve(self.rows, self.folder / CURVE, self.state.best["step"])
        return is_best

    def _is_ripe(self) -> bool:
        """Whether the images have had time to become something: before, every guard would cry."""
        return self.state.conditioning == 1.0 and self.state.number >= RIPE * self.config.steps

    def _report(self, sentence: str | None, key: str) -> None:
        """Say a guard's sentence once, or remember that the run must stop with it."""
        if sentence is None or key in self.state.warned or self.config.guards == "off":
            return
        self.state.warned.append(key)
        self._append(
            {"kind": "guard", "step": self.state.number, "guard": key, "sentence": sentence}
        )
        if self.config.guards == "stop":
            self.fatal.append(sentence)
        else:
            self.announcer.say(sentence)

    def _is_stopped_by_guards(self) -> bool:
        """Whether a guard of any process ends the run at this step; only the first one judges."""
        config, number = self.config, self.state.number
        intervals = (config.log_every, config.steps_between_evaluations, config.steps)
        if config.guards != "stop" or all(number % interval for interval in intervals):
            return False
        return any_process(bool(self.fatal), self.processes.device)

    def _stop(self) -> str:
        """Leave all that a finished run leaves; returns the sentences of the guards."""
        self._save()
        if self.processes.leads:
            if self.state.best["rank"] is None:
                self.state.write_weights(weights_path(self.folder))
            self._finish()
        reasons = "; ".join(self.fatal) or "a guard of the first process"
        return f"stopped at step {self.state.number}: {reasons}; --resume --guards warn goes on"

    def _append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.log is not None:
            self.log.append(row)

    def _must_stop(self, stop: list[int]) -> bool:
        if self.processes.world == 1:
            return bool(stop)
        if (
            self.processes.device.type == "cuda" and self.state.number % 10
        ):  # asking costs a message
            return False
        return any_process(bool(stop), self.processes.device)

    def _finish(self) -> None:
        if self.rows:
            save_curve(self.rows, self.folder / CURVE, self.state.best["step"])
        kept = what_was_kept(self.state.best)
        if kept:
            self.announcer.say(kept)
        write_card(self.folder, self.description, self.rows, self.state.best, self.step)
