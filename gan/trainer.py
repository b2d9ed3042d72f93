"""The run: time, logs, looks at the images, saves, guards; the step itself is `gan.step`."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from galaxies.atomic import folder_lock
from galaxies.command_line import config_as_json
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.pixels import to_network
from galaxies.stop_requests import stop_requests
from gan import guards
from gan.card import write_card
from gan.checkpoint import (
    SAMPLES,
    RunDescription,
    RunLog,
    read_log,
    read_state,
    write_description,
    write_state,
    write_training_images,
    write_weights,
)
from gan.graphs import GraphStepper, make_stepper
from gan.judge import Extractor, Judge
from gan.judge_training import trained_extractor, why_no_judge
from gan.pictures import grid, save_curve, save_picture
from gan.preparation import Preparation, build_step, choose_precision, prepare
from gan.processes import Processes, any_process
from gan.recipes import RECIPES
from gan.resume import check_unchanged
from gan.sampling import CHUNK, LoadedGenerator, draw_chunk, generate, render
from gan.step import METRICS
from gan.training_config import CPU_WIDTH, TrainConfig

GRID_COLUMNS = 8
RATE_FACTOR = 0.5  # of both learning rates after a NaN
EVALUATION_SEED = 77
RIPE = 0.3  # share of the steps before the images are guarded
LONG_HOURS = 2.0  # from here on a CPU user is told what would shorten the wait
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
    with lock, _fast_kernels(processes.device):
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
        state = self._resumed_state()
        precision = (
            getattr(torch, state["precision"])
            if state
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
        self.number = 0
        self.last_look = 0  # step at which the sums began
        self.rollbacks = 0
        self.warned: list[str] = []
        self.told_duration = self.told_eager = False
        self.best: dict[str, Any] = {"rank": None, "step": 0, "kid": {}}
        if state:
            self._take_up(state)
        self.last_good = self.step.snapshot()
        self.last_good_number, self.last_good_look = self.number, self.last_look
        self.last_curve = time.monotonic()
        self.judge = self._make_judge(extractor) if processes.leads else None
        self._say_if_unwatched()
        self.log: RunLog | None = None
        if processes.leads:
            self.log = RunLog(folder, self.number if state else None)
            write_description(folder, self.description)
            write_training_images(folder, preparation.fingerprints, preparation.ids)
        self.rows = read_log(folder) if processes.leads else []

    def go(self) -> Outcome:
        """Run all remaining steps."""
        config, started_at, start = self.config, self.number, time.perf_counter()
        if self.number == 0 and self.processes.leads:
            self._save_reals()
        bar = tqdm(
            total=config.steps,
            initial=self.number,
            unit="step",
            desc="gan-train",
            disable=not (self.progress and self.processes.leads),
        )
        last_save = time.monotonic()
        tick = (time.perf_counter(), self.number)
        with stop_requests() as stop, bar:
            while self.number < config.steps:
                self.stepper.advance(self.number)
                self.number += 1
                self.step.watch(self.number)
                bar.update()
                at_end = self.number == config.steps
                if self.number % config.log_every == 0 or at_end:
                    now = time.perf_counter()
                    rate = (self.number - tick[1]) / max(now - tick[0], 1e-9)
                    if not self._look(bar, rate):
                        tick = (time.perf_counter(), self.number)
                        bar.n = self.number
                        continue
                    tick = (now, self.number)
                if self.number % config.steps_between_evaluations == 0 or at_end:
                    if self._any_broken(not self.step.is_finite()):
                        self._roll_back()
                        tick = (time.perf_counter(), self.number)
                        bar.n = self.number
                        continue
                    self._evaluate()
                    tick = (time.perf_counter(), self.number)
                if self.processes.leads and time.monotonic() - last_save >= config.save_seconds:
                    self._save()
                    last_save = time.monotonic()
                if self._must_stop(stop):
                    self._save()
                    raise KeyboardInterrupt
        self._save()
        seconds = time.perf_counter() - start
        done = (self.number - started_at) * config.batch_size
        if self.processes.leads:
            self._finish()
        return Outcome(
            folder=self.folder,
            step=self.number,
            chosen_step=int(self.best["step"]),
            kid=dict(self.best["kid"]),
            images_per_second=done / seconds if done else 0.0,
        )

    def generator_now(self) -> LoadedGenerator:
        """The averaged generator of this moment, ready to sample."""
        return LoadedGenerator(
            network=self.step.average,
            description=self.description,
            conditioning=self._conditioning(),
            device=self.step.device,
        )

    def _conditioning(self) -> float:
        """How much the class mattered in the last step."""
        schedule = self.step.schedule
        length = schedule.condition_full - schedule.condition_from
        last = max(self.number - 1, 0)
        if length <= 0:
            return float(last >= schedule.condition_from)
        return min(1.0, max(0.0, (last - schedule.condition_from) / length))

    def _resumed_state(self) -> dict[str, Any] | None:
        if not self.config.resume:
            return None
        check_unchanged(self.config, self.preparation, self.folder)
        return read_state(self.folder)

    def _take_up(self, state: dict[str, Any]) -> None:
        missing = sorted(self.step.tensors().keys() - state["tensors"].keys())
        if missing:
            raise InputError(
                f"{self.folder} cannot be resumed: its state holds no {', '.join(missing[:3])}, "
                "so another version began it; its images can still be sampled"
            )
        if state["threads"] != torch.get_num_threads() and self.step.device.type == "cpu":
            self._say(
                f"the run used {state['threads']} threads, this one has "
                f"{torch.get_num_threads()}: the result will differ in the last bits"
            )
        self.number = state["number"]
        self.last_look = state["last_look"]
        self.rollbacks = state["rollbacks"]
        self.warned = list(state["warned"])
        self.best = dict(state["best"])
        if "rank" not in self.best:  # a run begun before weights that copy had a rank
            score = self.best.pop("score")
            self.best["rank"] = None if score is None else [float(score == math.inf), 0.0, score]
        self.step.schedule = type(self.step.schedule)(*state["schedule"])
        if len(state["tensors"]["random"]) == len(self.step.random.get_state()):
            self.step.restore(state["tensors"])
            return
        # The generators of a CPU and of a GPU have nothing in common.
        fresh = self.step.random.manual_seed(self.config.seed + 1_000_003 * self.number)
        self.step.restore(state["tensors"] | {"random": fresh.get_state()})
        self._say(
            f"the run was begun on another kind of device than {self.step.device.type}: its random "
            "numbers begin anew, so the result will differ from an uninterrupted run"
        )

    def _save(self) -> None:
        """Write the state of this moment; other processes hold the same one.

        A state that holds a NaN is not written: the one before it stays.
        """
        if not self.processes.leads or not self.step.is_finite():
            return
        if not (self.folder / "weights.safetensors").exists():
            self._write_weights()
        write_state(
            self.folder,
            {
                "number": self.number,
                "last_look": self.last_look,
                "rollbacks": self.rollbacks,
                "warned": self.warned,
                "best": self.best,
                "precision": self.description.precision,
                "threads": torch.get_num_threads(),
                "schedule": [self.step.schedule.condition_from, self.step.schedule.condition_full],
                "tensors": self.step.snapshot(),
            },
        )

    def _write_weights(self) -> None:
        tensors: dict[str, Tensor] = {"conditioning": torch.tensor(self._conditioning())}
        for prefix, network in (
            ("generator", self.step.average),
            ("discriminator", self.step.discriminator),
        ):
            for name, value in network.state_dict().items():
                tensors[f"{prefix}.{name}"] = value
        write_weights(self.folder, tensors, self.number)

    def _look(self, bar: tqdm, steps_per_second: float) -> bool:
        """Read the sums once, log them; roll back and return false where they are not finite."""
        means = (self.step.sums / (self.number - self.last_look)).tolist()
        self.step.sums.zero_()
        self.last_look = self.number
        values = dict(zip(METRICS, means, strict=True))
        values["penalty"] *= self.step.parts.penalty_every
        row: dict[str, Any] = {
            "kind": "training",
            "step": self.number,
            "images": self.number * self.config.batch_size,
            **{name: round(value, 6) for name, value in values.items()},
            "images_per_second": round(steps_per_second * self.config.batch_size, 1),
        }
        if self.step.held_out is not None:
            row["overfitting"] = self._by_class(self.step.overfitting_average)
            row["probabilities"] = self._by_class(self.step.probability)
        if self._any_broken(guards.is_broken(row)):
            self._roll_back()
            return False
        self._append(row)
        bar.set_postfix_str(
            f"D {row['discriminator_loss']:.3f} G {row['generator_loss']:.3f} "
            f"{row['images_per_second']:.0f} img/s",
            refresh=False,
        )
        self._say_if_long(steps_per_second)
        if isinstance(self.stepper, GraphStepper) and self.stepper.reason and not self.told_eager:
            self.told_eager = True
            self._say(f"no CUDA graphs, so steps are slower: {self.stepper.reason}")
        if self.config.guards != "off":
            self._report(guards.discriminator_has_won(self.rows), "discriminator")
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
        broken_at = self.number
        if self.rollbacks:
            raise InputError(
                f"training became NaN again at step {broken_at}, after it was rolled back with "
                "lower rates; lower --learning-rate and --discriminator-learning-rate"
            )
        self.rollbacks += 1
        self.step.restore(self.last_good)
        self.step.lower_rates(RATE_FACTOR)
        # Other numbers than those that led to the NaN.
        self.step.random.manual_seed(self.config.seed + 1 + 1_000_003 * self.rollbacks)
        self.number = self.last_good_number
        self.last_look = self.last_good_look
        self.rows = [row for row in self.rows if row["step"] <= self.number]
        self._say(
            f"training became NaN at step {broken_at}; rolled back to step {self.number} and "
            f"multiplied the learning rates by {RATE_FACTOR} (done once)"
        )
        if self.processes.leads:
            self.log = RunLog(self.folder, self.number)
        self._append(
            {
                "kind": "rollback",
                "step": self.number,
                "broken_at": broken_at,
                "rate_factor": RATE_FACTOR,
            }
        )

    def _evaluate(self) -> None:
        """Sample, judge, keep the weights where they are the best so far."""
        self.last_good = self.step.snapshot()
        self.last_good_number, self.last_good_look = self.number, self.last_look
        if not self.processes.leads:
            return
        generator = self.generator_now()
        self.step.average.eval()
        self._save_grid(generator)
        row: dict[str, Any] = {
            "kind": "evaluation",
            "step": self.number,
            "images": self.number * self.config.batch_size,
        }
        if self.judge is not None:
            self._judge(generator, row)
        self._append(row)
        rank = self._rank(row)
        if self.best["rank"] is None or rank < self.best["rank"]:
            self.best = {"rank": rank, "step": self.number, "kid": dict(row.get("kid", {}))}
            self._write_weights()
        if time.monotonic() - self.last_curve > CURVE_SECONDS:
            self.last_curve = time.monotonic()
            save_curve(self.rows, self.folder / "curve.png", self.best["step"])

    def _rank(self, row: dict[str, Any]) -> list[float]:
        """What an evaluation is compared by; the least is kept.

        Weights from before the class mattered fully never win over later ones. Real training
        images would have a KID of 0, so a copy must not win by being one; where all copy, the
        one that does so least is kept. Without a judge the last weights are.
        """
        early = self._conditioning() < 1.0 and self.number < self.config.steps
        copied = row.get("copied", [])
        if copied:
            score = max(row["verdicts"][name]["copying"] for name in copied)
        else:
            score = row.get("score", -float(self.number))
        return [float(early), float(bool(copied)), float(score)]

    def _say_what_was_kept(self) -> None:
        if self.best["rank"] is None:
            return
        early, copied, score = self.best["rank"]
        if copied:
            self._say(
                f"the weights that are kept, of step {self.best['step']}, copy training images "
                f"({100 * score:.0f} % more often nearest to them than chance), and every other "
                "judged step does so more: generated images add nothing new; train for fewer steps"
            )
        elif early:
            self._say(
                f"the weights that are kept, of step {self.best['step']}, are from before the "
                "class mattered fully; train for more steps"
            )

    def _judge(self, generator: LoadedGenerator, row: dict[str, Any]) -> None:
        assert self.judge is not None
        names = self.preparation.data.class_names
        kid: dict[str, float] = {}
        copied: list[str] = []
        verdicts: dict[str, Any] = {}
        for index in self.preparation.chosen:
            if not self.judge.can_judge(index):
                continue
            images = generate(generator, index, self.config.evaluation_images, EVALUATION_SEED)
            verdict = self.judge.judge(index, images)
            kid[names[index]] = round(verdict.kid, 6)
            verdicts[names[index]] = verdict.as_json()
            if guards.has_memorised(names[index], verdict):
                copied.append(names[index])
            if self.config.guards != "off" and self._is_ripe():
                self._report(guards.has_collapsed(names[index], verdict), f"diversity {index}")
                self._report(guards.has_memorised(names[index], verdict), f"copying {index}")
                self._report(guards.is_mistaken(index, names, verdict), f"class {index}")
        if kid:
            row["kid"] = kid
            row["score"] = sum(kid.values()) / len(kid)
            row["verdicts"] = verdicts
            row["copied"] = copied

    def _is_ripe(self) -> bool:
        """Whether the images have had time to become something: before, every guard would cry."""
        return self._conditioning() == 1.0 and self.number >= RIPE * self.config.steps

    def _make_judge(self, extractor: Extractor | None) -> Judge | None:
        """Without one, say why."""
        preparation, config = self.preparation, self.config
        if extractor is None and config.judge == "none":
            return None
        reason = why_no_judge(preparation, has_features=extractor is not None)
        if reason:
            self._say(f"{reason}: the last checkpoint is kept")
            return None
        assert preparation.validation is not None
        if extractor is None:
            extractor = trained_extractor(
                self.folder,
                preparation.train,
                seed=config.seed,
                device=self.processes.device,
                progress=self.progress,
            )
        return Judge(extractor, preparation.train, preparation.validation)

    def _say_if_unwatched(self) -> None:
        """The recipe watches held-out images, but the set has none."""
        usual, parts = RECIPES[self.config.recipe], self.preparation.parts
        if self.config.augment_watch is None and parts.augment_watch != usual.augment_watch:
            self._say(
                "no class has 4 validation images: the augmentation watches the signs of the "
                "logits of all classes together, and may not notice that a rare one is memorised"
            )

    def _say_if_long(self, steps_per_second: float) -> None:
        """Once, on a CPU: hours to go, and what would shorten them."""
        hours = (self.config.steps - self.number) / max(steps_per_second, 1e-9) / 3600
        if self.told_duration or self.step.device.type != "cpu":
            return
        self.told_duration = True
        width = self.preparation.shape.width
        if hours > LONG_HOURS and width > CPU_WIDTH:
            self._say(
                f"at this speed {hours:.1f} hours remain; --width {width / 2:g} takes "
                "about a quarter of it, and Ctrl-C saves what --resume goes on with"
            )

    def _report(self, sentence: str | None, key: str) -> None:
        """Say a guard's sentence once, or stop the run with it."""
        if sentence is None or key in self.warned:
            return
        self.warned.append(key)
        self._append({"kind": "guard", "step": self.number, "guard": key, "sentence": sentence})
        if self.config.guards == "stop":
            self._save()
            raise InputError(f"stopped at step {self.number}: {sentence}")
        self._say(sentence)

    def _append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.log is not None:
            self.log.append(row)

    def _say(self, sentence: str) -> None:
        if self.processes.leads:
            tqdm.write(f"warning: {sentence}", file=sys.stderr)

    def _must_stop(self, stop: list[int]) -> bool:
        if self.processes.world == 1:
            return bool(stop)
        if self.number % 10:  # asking each other costs a message
            return False
        return any_process(bool(stop), self.processes.device)

    def _save_reals(self) -> None:
        train = self.preparation.train
        of_each = (train.of_classes([index]) for index in self.preparation.made)
        pieces = [own.read(np.arange(min(GRID_COLUMNS, len(own)))) for own in of_each]
        picture = grid(to_network(torch.cat(pieces), train.stretch), GRID_COLUMNS)
        save_picture(picture, self.folder / SAMPLES / "reals.png")

    def _save_grid(self, generator: LoadedGenerator) -> None:
        """One row per class, three rows for each chosen one, from the same latents every time."""
        random = torch.Generator().manual_seed(EVALUATION_SEED)
        drawn = draw_chunk(generator, random)
        pieces = []
        for index in self.preparation.made:
            rows = 3 if index in self.preparation.chosen else 1
            images = render(generator, drawn, index)
            pieces.append(images[: min(CHUNK, rows * GRID_COLUMNS)])
        save_picture(
            grid(torch.cat(pieces), GRID_COLUMNS),
            self.folder / SAMPLES / f"step-{self.number:07d}.png",
        )

    def _finish(self) -> None:
        if self.rows:
            save_curve(self.rows, self.folder / "curve.png", self.best["step"])
        self._say_what_was_kept()
        write_card(self.folder, self.description, self.rows, self.best, self.step)


@contextlib.contextmanager
def _fast_kernels(device: torch.device) -> Iterator[None]:
    """On CUDA: kernels chosen by timing, and TF32; afterwards as before, for other trainings."""
    if device.type != "cuda":
        yield
        return
    benchmark, matmul = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True  # shapes never change
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(matmul)
