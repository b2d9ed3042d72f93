"""One training step as a function of static tensors, the same eagerly and in a CUDA graph.

Everything that a step reads or writes lives in tensors that stay in place: weights, moments,
averages, the adaptive probability, the counter of steps. Random numbers are drawn outside and
copied in, for the whole batch of all processes, of which each process takes its part; so one
process, several processes, the eager path and the graph all see the same numbers.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from galaxies.symmetry import is_mirrored, mirror_labels
from gan.adaptive_augmentation import AdaptiveAugmentation
from gan.augmentation import DRAWS, augment
from gan.build import NetworkShape, build_discriminator, build_generator
from gan.objective import (
    class_bound_penalty,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    lecam_penalty,
    rarity_weights,
)
from gan.overfitting import HeldOutImages
from gan.recipes import Parts
from gan.synchronised_norm import is_distributed
from gan.tail_networks import standardise, start_at_sky
from gan.training_data import BATCH_DRAWS, TrainingData

METRICS = (
    "discriminator_loss",
    "generator_loss",
    "logit_real",
    "logit_fake",
    "sign_real",
    "sign_fake",
    "penalty",
    "probability",
)
"""Means over the steps since the last look, in the order of `TrainingStep.sums`."""

REAL_TURN = BATCH_DRAWS - 1  # column of the uniforms that turns the real images
UNIFORMS = BATCH_DRAWS + 2 + 3 * DRAWS
PENALTY_SIDE = 64
"""Side of the images whose gradient penalty is taken as it is."""

EMA_RAMP = 0.05  # the average never looks back further than this share of what was seen
LECAM_DECAY = 0.99


@dataclass(frozen=True)
class Schedule:
    """When the class begins to matter and when fully, in steps."""

    condition_from: int
    condition_full: int

    def conditioning(self, step: Tensor) -> Tensor:
        """How much the class matters at ``step`` () from 0: () float32, 0 to 1."""
        length = self.condition_full - self.condition_from
        if length <= 0:
            return (step >= self.condition_from).float()
        return ((step - self.condition_from) / length).clamp(0, 1).float()


class TrainingStep:
    """Networks, optimizers and the step that moves them.

    Parameters
    ----------
    shape, parts
        What the networks are and how they train.
    data
        Training images on the device.
    batch_size
        Images per step over all processes.
    schedule
        Steps of the ramp from unconditional to conditional.
    precision
        dtype of convolutions and matrix products; losses and weights stay float32.
    held_out
        Images that the augmentation watches; without them it watches the signs of the logits.
    seed
        Initialises the networks and every draw.
    rank, world
        Which part of the batch is ours.
    """

    def __init__(
        self,
        shape: NetworkShape,
        parts: Parts,
        data: TrainingData,
        *,
        batch_size: int,
        schedule: Schedule,
        precision: torch.dtype,
        held_out: HeldOutImages | None = None,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        device = data.pixels.device
        self.parts, self.data, self.schedule = parts, data, schedule
        self.device, self.precision = device, precision
        self.batch_size, self.rank, self.world = batch_size, rank, world
        initial = torch.Generator().manual_seed(seed)
        self.generator = build_generator(shape, parts, initial).to(device)
        if parts.start_at_sky:
            start_at_sky(self.generator, data.sky)
        self.discriminator = build_discriminator(shape, parts, initial).to(device)
        self.penalty_unit: Tensor | float = 1.0
        if parts.standardise:
            standardise(self.discriminator, data.sky, data.contrast)
            # The gradient by what the network sees: faint sets are not penalised more. Twice the
            # side spreads the same gradient over four times the pixels.
            self.penalty_unit = (data.contrast * shape.size / PENALTY_SIDE).square()
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.optimizers = {
            "generator": _adam(self.generator, parts.learning_rate, parts, device),
            "discriminator": _adam(
                self.discriminator, parts.discriminator_learning_rate, parts, device
            ),
        }
        self.random = torch.Generator(device).manual_seed(seed + 1)
        noise_length: int = self.generator.noise_length  # type: ignore[assignment]
        self.uniforms = torch.zeros((batch_size, UNIFORMS), device=device)
        self.normals = torch.zeros((batch_size, parts.latent + noise_length), device=device)
        self.rarity = rarity_weights(data.counts)
        self.parameters = {
            "generator": list(self.generator.parameters()),
            "discriminator": list(self.discriminator.parameters()),
        }
        self.step_count = torch.zeros((), device=device, dtype=torch.float64)
        self.augmentation = AdaptiveAugmentation(parts, data.classes, batch_size, device, held_out)
        self.lecam_means = torch.zeros(2, device=device)
        self.sums = torch.zeros(len(METRICS), device=device, dtype=torch.float64)

    def draw(self) -> None:
        """Fill the static buffers with the random numbers of the next step."""
        self.uniforms.uniform_(generator=self.random)
        self.normals.normal_(generator=self.random)

    def is_penalised(self, step: int) -> bool:
        """Whether step number ``step`` (from 0) carries the gradient penalty."""
        return (self.parts.r1 > 0 or self.parts.r2 > 0) and step % self.parts.penalty_every == 0

    def run(self, penalised: bool) -> None:
        """One step of both networks on the numbers that `draw` left; never waits for the device."""
        uniforms, latent, noise = self._our_part()
        conditioning = self._conditioning()
        offset = BATCH_DRAWS
        with torch.no_grad():
            reals, labels = self.data.batch(uniforms[:, :offset])
        made = self._classes_made(labels, uniforms)
        with torch.autocast(self.device.type, self.precision, enabled=self._is_mixed):
            fakes = self.generator(latent, made, conditioning, noise)
        fakes = fakes.float()
        self._step_discriminator(reals, labels, fakes.detach(), uniforms, conditioning, penalised)
        self._step_generator(reals, labels, fakes, uniforms, conditioning)
        self._update_average()
        self.step_count += 1

    @property
    def _is_mixed(self) -> bool:
        return self.precision != torch.float32

    def _our_part(self) -> tuple[Tensor, Tensor, Tensor | None]:
        share = self.batch_size // self.world
        rows = slice(self.rank * share, (self.rank + 1) * share)
        normals = self.normals[rows]
        noise = normals[:, self.parts.latent :] if self.generator.noise_length else None
        return self.uniforms[rows], normals[:, : self.parts.latent], noise

    def _conditioning(self) -> Tensor:
        """How much the class matters at this step, 0 to 1."""
        return self.schedule.conditioning(self.step_count)

    def _augmented(self, images: Tensor, labels: Tensor, uniforms: Tensor, turn: int) -> Tensor:
        start = BATCH_DRAWS + 2 + turn * DRAWS
        draws = uniforms[:, start : start + DRAWS]
        probability = self.augmentation.probability[labels]
        return augment(images, draws, probability, self.parts.augment, self.data.sky)

    @property
    def _pairs_mirrors(self) -> bool:
        """Whether a generated image is mirrored where the real one that it is paired with is.

        Relativistic losses compare like with like: both images of a pair show the same class.
        """
        return self.parts.loss == "relativistic" and self.parts.fake_symmetries

    def _classes_made(self, labels: Tensor, uniforms: Tensor) -> Tensor:
        """Labels (N,) to generate for, from those that the real images have once turned."""
        if not self._pairs_mirrors:
            return labels
        return mirror_labels(labels, self._elements(uniforms, REAL_TURN), self.data.permutation)

    def _elements(self, uniforms: Tensor, column: int) -> Tensor:
        return self.data.draw_symmetries(uniforms[:, column])

    def _fakes_seen(
        self, fakes: Tensor, labels: Tensor, uniforms: Tensor, turn: int
    ) -> tuple[Tensor, Tensor]:
        """Generated images as the discriminator sees them: turned, mirrored, augmented.

        ``labels`` are those of the real images beside them.
        """
        if self.parts.fake_symmetries:
            elements = self._elements(uniforms, BATCH_DRAWS + turn)
            made = self._classes_made(labels, uniforms)
            if self._pairs_mirrors:
                shared = is_mirrored(self._elements(uniforms, REAL_TURN))
                elements = torch.where(is_mirrored(elements) == shared, elements, elements ^ 1)
            fakes, labels = self.data.transform(fakes, made, elements)
        return self._augmented(fakes, labels, uniforms, 1 + turn), labels

    def _judge(self, images: Tensor, labels: Tensor, conditioning: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.precision, enabled=self._is_mixed):
            logits: Tensor = self.discriminator(images, labels, conditioning)
        return logits.float()

    def _step_discriminator(
        self,
        reals: Tensor,
        labels: Tensor,
        fakes: Tensor,
        uniforms: Tensor,
        conditioning: Tensor,
        penalised: bool,
    ) -> None:
        parts = self.parts
        with torch.no_grad():
            seen = self._augmented(reals, labels, uniforms, 0)
            fakes, fake_labels = self._fakes_seen(fakes, labels, uniforms, 0)
        seen.requires_grad_(penalised and parts.r1 > 0)
        fakes.requires_grad_(penalised and parts.r2 > 0)
        # Statistics of batches must not mix the two; groups of four do not (`prepare` sees to it).
        if self.discriminator.has_batch_norm:
            real = self._judge(seen, labels, conditioning)
            fake = self._judge(fakes, fake_labels, conditioning)
        else:
            both = self._judge(
                torch.cat([seen, fakes]), torch.cat([labels, fake_labels]), conditioning
            )
            real, fake = both.chunk(2)
        loss = discriminator_loss(parts.loss, real, fake)
        objective = loss
        penalty = torch.zeros((), device=self.device)
        if penalised:
            scale = parts.penalty_every / 2
            if parts.r1:
                penalty = self.penalty_unit * gradient_penalty(real, seen)
                objective = objective + parts.r1 * scale * penalty
            if parts.r2:
                own = self.penalty_unit * gradient_penalty(fake, fakes)
                objective = objective + parts.r2 * scale * own
        if parts.lecam:
            warmed = (self.step_count >= max(100, self.schedule.condition_full)).float()
            weight = parts.lecam * warmed
            objective = objective + weight * lecam_penalty(real, fake, *self.lecam_means.unbind())
        objective = objective + self._class_bound(self.discriminator)
        self._move("discriminator", objective)
        self._observe(loss, real, fake, penalty)

    def _step_generator(
        self,
        reals: Tensor,
        labels: Tensor,
        fakes: Tensor,
        uniforms: Tensor,
        conditioning: Tensor,
    ) -> None:
        seen, fake_labels = self._fakes_seen(fakes, labels, uniforms, 1)
        fake = self._judge(seen, fake_labels, conditioning)
        real = None
        if self.parts.loss == "relativistic":
            with torch.no_grad():
                seen_reals = self._augmented(reals, labels, uniforms, 2)
                real = self._judge(seen_reals, labels, conditioning)
        loss = generator_loss(self.parts.loss, real, fake)
        self._move("generator", loss + self._class_bound(self.generator))
        self.sums[METRICS.index("generator_loss")] += loss.detach()

    def _class_bound(self, network: nn.Module) -> Tensor:
        if not self.parts.class_bound:
            return torch.zeros((), device=self.device)
        tables: list[Tensor] = network.class_tables()  # type: ignore[operator]
        if not tables:
            return torch.zeros((), device=self.device)
        return self.parts.class_bound * class_bound_penalty(tables, self.rarity)

    def _move(self, name: str, objective: Tensor) -> None:
        """Gradients of one network alone, averaged over processes, and one step of Adam."""
        # `grad` with inputs computes no weight gradient of the other network.
        parameters = self.parameters[name]
        gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
        gradients = tuple(
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, gradients, strict=True)
        )
        if is_distributed():
            gradients = _average_gradients(gradients)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient.stride() != parameter.stride():  # fused Adam walks memory, not indices
                gradient = torch.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient
        self.optimizers[name].step()
        for parameter in parameters:
            parameter.grad = None

    @torch.no_grad()
    def _observe(self, loss: Tensor, real: Tensor, fake: Tensor, penalty: Tensor) -> None:
        """Sum what is logged, move the running means and the augmentation probability."""
        # Relativistic logits have no zero of their own: an image is told by its distance from the
        # mean of the other side.
        relative = self.parts.loss == "relativistic"
        mean_real, mean_fake = self.lecam_means.unbind() if relative else (0.0, 0.0)
        told_real, told_fake = (real - mean_fake).sign(), (fake - mean_real).sign()
        values = torch.stack(
            [real.mean(), fake.mean(), told_real.mean(), told_fake.mean(), loss.detach()]
        )
        if is_distributed():
            distributed.all_reduce(values)
            values = values / self.world
        self.lecam_means.lerp_(values[:2], 1 - LECAM_DECAY)
        self.augmentation.observe(values[2])
        gained = torch.stack(
            [
                values[4],
                torch.zeros_like(loss),  # the generator's own, added by its step
                values[0],
                values[1],
                values[2],
                values[3],
                penalty.detach(),
                self.augmentation.probability.mean(),
            ]
        )
        self.sums += gained

    @torch.no_grad()
    def watch(self, number: int) -> None:
        """After step ``number`` (from 1): look at held-out images where it is time to.

        Runs outside the CUDA graph.
        """
        if not self.augmentation.is_due(number):
            return
        conditioning = self._conditioning()
        # Relativistic logits have no zero of their own.
        zero = self.lecam_means[1] if self.parts.loss == "relativistic" else 0.0
        self.discriminator.eval()  # spectral norm must not iterate on what it is not trained on
        self.augmentation.look(
            lambda images, labels: self._judge(images, labels, conditioning) - zero, number
        )
        self.discriminator.train()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential average of the generator, young while few images were seen."""
        ours: list[Tensor] = list(self.generator.parameters())
        averages: list[Tensor] = list(self.average.parameters())
        if self.parts.ema_images == 0:
            torch._foreach_copy_(averages, ours)
        else:
            seen = (self.step_count + 1) * self.batch_size
            half_life = (seen * EMA_RAMP).clamp_max(self.parts.ema_images)
            weight = (1 - torch.exp2(-self.batch_size / half_life)).float()
            moves = torch._foreach_sub(ours, averages)
            torch._foreach_mul_(moves, weight)
            torch._foreach_add_(averages, list(moves))
        for average, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            average.copy_(buffer)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a later step depends on, by name; they stay in place."""
        named: dict[str, Tensor] = {
            "step_count": self.step_count,
            **self.augmentation.tensors(),
            "lecam_means": self.lecam_means,
            "sums": self.sums,
        }
        for name in ("generator", "discriminator", "average"):
            network: nn.Module = getattr(self, name)
            for key, value in network.state_dict(keep_vars=True).items():
                named[f"{name}.{key}"] = value.data
        for name, optimizer in self.optimizers.items():
            for index, parameter in enumerate(self.parameters[name]):
                for key, value in optimizer.state[parameter].items():
                    named[f"{name}_optimizer.{index}.{key}"] = value
            for number, group in enumerate(optimizer.param_groups):
                named[f"{name}_optimizer.rate.{number}"] = group["lr"]
        return named

    def is_finite(self) -> bool:
        """Whether no tensor that a later step depends on holds NaN or infinity."""
        found = [torch.isfinite(tensor).all() for tensor in self.tensors().values()]
        return bool(torch.stack(found).all())

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of `tensors` and of the state of the random generator, on the host."""
        copies = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors().items()}
        copies["random"] = self.random.get_state()
        return copies

    @torch.no_grad()
    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Put a snapshot back in place, so that captured graphs stay valid."""
        for name, tensor in self.tensors().items():
            tensor.copy_(snapshot[name])
        self.random.set_state(snapshot["random"])

    def lower_rates(self, factor: float) -> None:
        """Multiply both learning rates, in place."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"].mul_(factor)


def _adam(
    network: nn.Module, rate: float, parts: Parts, device: torch.device
) -> torch.optim.Optimizer:
    """Adam whose rate and moments are tensors that exist from the start."""
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=torch.tensor(rate, device=device),
        betas=(parts.beta1, parts.beta2),
        fused=True,
        capturable=device.type == "cuda",
    )
    # Steps before the capture, and without graphs, are meant: torch warns of them otherwise.
    optimizer._warned_capturable_if_run_uncaptured = True
    for parameter in network.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return optimizer


def _average_gradients(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mean over processes, in one message."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    pieces = flat.split([gradient.numel() for gradient in gradients])
    return tuple(
        piece.view(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)
    )
