"""Training one classifier: step after step of its phases, and the weights that are kept.

``train_classifier`` is all that a caller needs; `TrainingConfig`, `TrainedClassifier` and
`load_classifier` stand here beside it.
"""

import contextlib
import hashlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from classify.augmentation import five_crops, physical
from classify.borrowed_features import with_borrowed_features
from classify.checkpoint import load_classifier
from classify.classifier import TrainedClassifier
from classify.determinism import derived_seed, generator_for, isolated_randomness
from classify.early_stopping import BestWeights, ValidationScore, score_validation
from classify.joint_features import (
    JOINT_NETWORKS,
    STACKED_NETWORKS,
    JointFeatures,
    joint_features_of,
)
from classify.mixing import cutmix, mixup
from classify.networks.pretrained import pretrained_weights
from classify.networks.registry import NetworkSpecification, build, is_library_name
from classify.normalisation import Normalisation, normalisation_of
from classify.optimisation import make_optimiser, schedule_factor, set_learning_rate
from classify.own_statistics import forward_apart, has_batch_statistics
from classify.phases import Phase, plan_phases
from classify.pixel_bank import PixelBank
from classify.resume import load_state, save_state
from classify.training_config import TrainingConfig
from classify.training_sets import loss_weights, refuse_unlike
from classify.transfer import choose_trainable, frozen_modules, rate_groups
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.stop_requests import stop_requests
from galaxies.symmetry import apply_symmetry, mirror_labels, random_symmetries

__all__ = ["TrainedClassifier", "TrainingConfig", "load_classifier", "train_classifier"]


def train_classifier(
    train: ImageSet,
    validation: ImageSet | None,
    config: TrainingConfig,
    *,
    synthetic: ImageSet | None = None,
    image_weights: np.ndarray | None = None,
    synthetic_weights: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    state_folder: Path | None = None,
) -> TrainedClassifier:
    """Train one classifier; the same seed on the same CPU gives the same bytes.

    Parameters
    ----------
    train
        Real training images; normalisation is measured on them alone.
    validation
        Chooses the weights that are kept (``config.best_by``); ``None`` keeps the last.
    synthetic
        Generated images of the same classes, drawn beside the real ones. Whether they may be
        used at all is for the caller to check, see `classify.synthetic.refuse_leaking`.
    image_weights, synthetic_weights
        (N,) and (M,) weights in the loss; default 1, and ``config.synthetic_weight``.
    device
        Where to train.
    progress
        Show a bar on stderr.
    state_folder
        Where ``state.pt`` is kept at each look at the validation side; a run that finds one
        there continues it exactly.

    Raises
    ------
    InputError
        If the sets do not fit each other or the network.
    """
    if synthetic is not None and len(synthetic) == 0:
        synthetic = None
    if config.model in STACKED_NETWORKS:
        from classify.tabular.margnet_training import train_margnet

        return train_margnet(
            train, validation, config, synthetic=synthetic, device=device, progress=progress,
            state_folder=state_folder, image_weights=image_weights,
            synthetic_weights=synthetic_weights,
        )  # fmt: skip
    refuse_unlike(train, validation, synthetic)
    run = _Run(
        train,
        validation,
        config,
        synthetic,
        loss_weights(train, synthetic, config, image_weights, synthetic_weights),
        torch.device(device),
    )
    return run.train(progress, state_folder)


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        train: ImageSet,
        validation: ImageSet | None,
        config: TrainingConfig,
        synthetic: ImageSet | None,
        weights: np.ndarray,
        device: torch.device,
    ) -> None:
        if config.patience and config.best_by == "last":
            raise InputError(
                "--patience waits for a better look, and with --best-by last every look is better; "
                "leave one of them out"
            )
        if config.synthetic_statistics == "own" and config.weights is not None:
            raise InputError(
                "--synthetic-statistics own has no effect with --weights, whose batch "
                "normalisation keeps its statistics; leave one of them out"
            )
        self.config, self.device = config, device
        self.validation = validation
        self.class_count = len(train.class_names)
        if config.crops > train.size:
            raise InputError(f"--crops {config.crops} is larger than the images ({train.size})")
        self.permutation = train.mirror_permutation()
        self.joint: JointFeatures | None = None
        if config.model in JOINT_NETWORKS:
            if config.mixup or config.cutmix:
                raise InputError(
                    f"--mixup and --cutmix mix images, not the features that {config.model} sees"
                )
            self.joint = joint_features_of(train)
            if synthetic is not None and not set(self.joint.names) & set(synthetic.feature_names):
                synthetic = with_borrowed_features(synthetic, train, config.seed)
        pretrained = pretrained_weights(config, config.crops or train.size)
        self.specification = NetworkSpecification(
            name=config.model,
            channels=train.channels,
            size=config.crops or train.size,
            classes=self.class_count,
            dropout=config.dropout,
            mirror_permutation=tuple(self.permutation.tolist()),
            same_padding=pretrained is not None and pretrained.from_tensorflow,
            table_columns=0 if self.joint is None else self.joint.scaling.outputs,
        )
        self.network = build(
            self.specification,
            derived_seed(config.seed, "network"),
            pretrained=pretrained.state if pretrained else None,
            pretrained_source=str(config.weights),
        ).to(device)
        choose_trainable(self.network, config.transfer)
        if config.synthetic_statistics == "own" and not has_batch_statistics(self.network):
            raise InputError(
                f"--synthetic-statistics own: {config.model} has no batch normalisation"
            )
        expected: Normalisation | None = None
        if pretrained is not None:
            expected = pretrained.normalisation(
                config.model,
                train.channels,
                train.stretch,
                from_library=is_library_name(config.model),
            )
        self.normalisation = expected or normalisation_of(train)
        self.bank = PixelBank([train, *([synthetic] if synthetic is not None else [])], device)
        everything = [train.labels, *([synthetic.labels] if synthetic is not None else [])]
        self.real_count = len(train)
        self.labels = torch.from_numpy(np.concatenate(everything)).to(device)
        self.table: torch.Tensor | None = None
        if self.joint is not None:
            parts = [train, *([synthetic] if synthetic is not None else [])]
            table = np.concatenate([self.joint(part) for part in parts])
            self.table = torch.from_numpy(table).to(device)
        self.weights = torch.from_numpy(weights.astype(np.float32)).to(device)
        self.phases = plan_phases(
            train.labels,
            None if synthetic is None else synthetic.labels,
            config,
            self.permutation.numpy(),
            device,
        )
        self.permutation = self.permutation.to(device)
        self.best = BestWeights(config.best_by if validation is not None else "last")
        self.history: list[dict[str, Any]] = []
        self.loss_since_look = torch.zeros((), device=device)
        self.steps_since_look = 0
        self.diverged_at: int | None = None
        self._data_digest: str | None = None
        self.precision = autocast_dtype(config, device)
        self.classifier = TrainedClassifier(
            network=self.network,
            specification=self.specification,
            class_names=train.class_names,
            size=train.size,
            normalisation=self.normalisation,
            config=config,
            mirror_pairs=train.mirror_pairs or (),
            history=self.history,
            device=device,
            joint_features=self.joint,
        )
        self.optimiser = self._optimiser(head_only=False)
        self.frozen: list[nn.Module] = []

    def train(self, progress: bool, state_folder: Path | None) -> TrainedClassifier:
        config = self.config
        step = load_state(self, state_folder) if state_folder is not None else 0
        bar = tqdm(
            total=config.steps, initial=step, desc="classify-train", unit="step",
            disable=not progress, leave=False,
        )  # fmt: skip
        timed, clock = 0, time.perf_counter()
        with contextlib.ExitStack() as stack:
            stack.enter_context(bar)
            stack.enter_context(isolated_randomness(config.seed, self.device))
            # Without a folder there is nothing to save, so Ctrl-C interrupts at once.
            stop = stack.enter_context(stop_requests()) if state_folder is not None else []
            for phase in self.phases:
                if step >= phase.last:
                    continue
                # A head stage has two phases where its last steps are on real images alone.
                if phase.head_only and step == config.steps - config.retrain_head_steps:
                    self._begin_head_stage()
                if step == phase.first:
                    self.best.looks_since = 0
                self.frozen = frozen_modules(self.network, pretrained=config.weights is not None)
                stopped = bool(config.patience) and self.best.looks_since >= config.patience
                rows = self._rows_on_device(phase)
                while step < phase.last and not stopped:
                    self.loss_since_look += self._step(step, phase, rows[step - phase.first])
                    step += 1
                    self.steps_since_look += 1
                    timed += 1
                    bar.update()
                    due = step % config.validate_every == 0 or step in (phase.last, config.steps)
                    if due:
                        seconds = time.perf_counter() - clock
                        mean_loss = float(self.loss_since_look) / self.steps_since_look
                        if not math.isfinite(mean_loss):
                            self._diverged(step)
                            break
                        self._look(step, mean_loss, timed, seconds, bar)
                        self.loss_since_look.zero_()
                        self.steps_since_look = 0
                        timed, clock = 0, time.perf_counter()
                        stopped = bool(config.patience) and self.best.looks_since >= config.patience
                    # After the look that is due here: a resumed run begins with the next step.
                    if state_folder is not None and (due or stop):
                        save_state(self, step, state_folder)
                        if stop:
                            raise KeyboardInterrupt
                if self.diverged_at is not None:
                    break
                step = phase.last  # a phase that was stopped leaves the later ones their steps
        self.best.restore(self.network)
        self.network.requires_grad_(True).eval()
        self.classifier.record["training"] = {
            "steps_made": self.history[-1]["step"],
            "kept_step": self.best.step,
            "kept_score": self.best.score,
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }
        if self.diverged_at is not None:
            self.classifier.record["training"]["diverged_at"] = self.diverged_at
        return self.classifier

    def _diverged(self, step: int) -> None:
        """Go on with the best weights so far, and say so; there may be none."""
        advice = "lower --learning-rate"
        if self.best.state is None:
            raise InputError(f"the training loss is not finite at step {step}; {advice}")
        self.diverged_at = step
        warn(
            f"the training loss is not finite at step {step}: training ends there, and the weights "
            f"of step {self.best.step} are kept; {advice}"
        )

    def data_digest(self) -> str:
        """Hash of all images and labels that the run learns from or chooses by."""
        if self._data_digest is not None:
            return self._data_digest
        sides = [*self.bank.sets, *([] if self.validation is None else [self.validation])]
        content = hashlib.sha256()
        for side in sides:
            content.update("".join(side.fingerprints().tolist()).encode() + b"|")
            content.update(side.labels.astype("<i8").tobytes())
            content.update(side.features.astype("<f4").tobytes())
        self._data_digest = content.hexdigest()
        return self._data_digest

    def _rows_on_device(self, phase: Phase) -> torch.Tensor | np.ndarray:
        if self.bank.resident is None:
            return phase.rows
        return torch.from_numpy(phase.rows.astype(np.int64)).to(self.device)

    def _step(self, step: int, phase: Phase, rows: torch.Tensor | np.ndarray) -> torch.Tensor:
        """One optimiser step; returns the batch's loss without waiting for the device."""
        config, device = self.config, self.device
        random = generator_for(config.seed, "augmentation", step, device)
        torch.manual_seed(derived_seed(config.seed, "dropout", step))
        images, targets, weights, table = self._batch(rows, random)
        self.network.train()
        for module in self.frozen:
            module.eval()
        begin, end = self._stage_of(phase)
        rate = config.learning_rate * schedule_factor(config.schedule, step - begin, end - begin)
        set_learning_rate(self.optimiser, rate)
        with torch.autocast(device.type, self.precision, enabled=self.precision is not None):
            inputs = [images] if table is None else [images, table]
            if self.config.synthetic_statistics == "own":
                logits = forward_apart(self.network, inputs, self._is_synthetic(step, phase))
            else:
                logits = self.network(*inputs)
        loss = (phase.loss(logits.float(), targets) * weights).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _is_synthetic(self, step: int, phase: Phase) -> torch.Tensor:
        return torch.from_numpy(phase.rows[step - phase.first] >= self.real_count)

    def _batch(
        self, rows: torch.Tensor | np.ndarray, random: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Network input (n, C, H, W), targets (n, K), weights (n,), features (n, F) if any."""
        config = self.config
        pixels = self.bank.read(rows)
        index = rows if isinstance(rows, torch.Tensor) else torch.from_numpy(rows).long()
        index = index.to(self.device)
        labels = self.labels[index]
        if config.crops:
            pixels = five_crops(pixels, config.crops, random)
        if config.symmetries:
            elements = random_symmetries(len(pixels), random, self.device)
            pixels = apply_symmetry(pixels, elements)
            labels = mirror_labels(labels, elements, self.permutation)
        images = self.normalisation.scale(pixels)
        if config.augment == "physical":
            images = physical(images, config.augment_strength, random)
        images = self.normalisation.centre(images)
        targets = torch.nn.functional.one_hot(labels, self.class_count).float()
        weights, mixing = self.weights[index], None
        if config.mixup and config.cutmix:  # one or the other, by the toss of a coin per batch
            coin = derived_seed(config.seed, "mixup or cutmix", random.initial_seed()) % 2
            mix, alpha = (mixup, config.mixup) if coin else (cutmix, config.cutmix)
            images, targets, mixing = mix(images, targets, alpha, random)
        elif config.mixup:
            images, targets, mixing = mixup(images, targets, config.mixup, random)
        elif config.cutmix:
            images, targets, mixing = cutmix(images, targets, config.cutmix, random)
        if mixing is not None:
            weights = mixing.of(weights)
        images = images.contiguous(memory_format=torch.channels_last)
        table = None if self.table is None else self.table[index]
        return images, targets, weights, table

    def _stage_of(self, phase: Phase) -> tuple[int, int]:
        """First step and end of the schedule that a phase belongs to."""
        head_from = self.config.steps - self.config.retrain_head_steps
        return (head_from, self.config.steps) if phase.head_only else (0, head_from)

    def _begin_head_stage(self) -> None:
        """Keep the best trunk so far, forget the head, and train a new one alone."""
        self.best.restore(self.network)
        fresh = build(self.specification, derived_seed(self.config.seed, "second head"))
        self.network.head.load_state_dict(fresh.head.state_dict())
        self.network.trunk.requires_grad_(False)
        self.optimiser = self._optimiser(head_only=True)
        self.best = BestWeights(self.best.by)

    def _optimiser(self, *, head_only: bool) -> torch.optim.AdamW:
        module: nn.Module = self.network.head if head_only else self.network
        groups = (
            [(list(module.parameters()), 1.0)]
            if head_only
            else rate_groups(self.network, self.config.layer_decay)
        )
        return make_optimiser(groups, self.config.learning_rate, self.config.weight_decay)

    def _look(self, step: int, loss: float, steps: int, seconds: float, bar: tqdm) -> None:
        """Score the validation side, remember the best weights, and write the log."""
        entry: dict[str, Any] = {
            "step": step,
            "train_loss": loss,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "images_per_second": steps * self.config.batch_size / max(seconds, 1e-9),
        }
        score: ValidationScore | None = None
        if self.validation is not None:
            score = score_validation(self.classifier.logits(self.validation), self.validation)
            entry |= score.as_log()
            bar.set_postfix(loss=f"{loss:.3f}", recall=f"{score.balanced_accuracy:.3f}")
        self.best.look(step, score, self.network)
        self.history.append(entry)


def autocast_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Reduced precision that pays on this device, or ``None`` for float32.

    Measured on a Xeon without matrix units for bfloat16, autocast made a step five times slower.
    """
    if config.precision == "float32":
        return None
    pays = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if config.precision == "bfloat16" or pays else None
