"""Trial steps: which precision is faster, and what a run will need in time and memory."""

import time
from typing import Any

import torch

from gan.build import build_discriminator, build_generator, parameter_count
from gan.graphs import WARM_UP_STEPS, EagerStepper, GraphStepper, fast_kernels, make_stepper
from gan.preparation import Preparation, build_step
from gan.processes import decided_by_lead
from gan.training_config import TrainConfig

BF16_GAIN = 0.9
"""bfloat16 is taken on a CPU where it needs less than this share of the float32 time."""

TRIAL_BATCH = 8

TRIALS = 3
"""So often either precision is timed."""

TIMED_STEPS = {"cpu": 2, "cuda": 10}


def choose_precision(
    preparation: Preparation, config: TrainConfig, device: torch.device
) -> torch.dtype:
    """The dtype of the convolutions: as asked, or the faster one.

    On a CPU two steps of each are timed, because neither the processor's flags nor the version
    of the library tell how fast bfloat16 convolutions are. Of several processes all must ask;
    the first one decides for all.
    """
    if config.precision != "auto":
        return torch.float32 if config.precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        # Emulated bfloat16, as on cards before Ampere, is many times slower than float32.
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        seconds = {
            dtype: [_seconds_per_image(preparation, config, device, dtype) for _ in range(TRIALS)]
            for dtype in (torch.float32, torch.bfloat16)
        }
        # The least of several: another program's load must not change the choice, and the weights.
        faster = min(seconds[torch.bfloat16]) < BF16_GAIN * min(seconds[torch.float32])
    return torch.bfloat16 if decided_by_lead(faster, device) else torch.float32


def _seconds_per_image(
    preparation: Preparation, config: TrainConfig, device: torch.device, precision: torch.dtype
) -> float:
    """Time two small steps, after one that warms up."""
    step = build_step(preparation, config, device, precision, batch_size=TRIAL_BATCH)
    step.draw()
    step.run(penalised=False)
    start = time.perf_counter()
    for _ in range(2):
        step.draw()
        step.run(penalised=False)
    return (time.perf_counter() - start) / (2 * TRIAL_BATCH)


def seconds_per_step(
    preparation: Preparation, config: TrainConfig, device: torch.device, precision: torch.dtype
) -> float:
    """Mean over plain and penalised steps in the shares of a run.

    On CUDA of the whole batch, with graphs where the run will have them; on a CPU a small batch
    is timed and scaled.
    """
    batch_size = config.batch_size if device.type == "cuda" else TRIAL_BATCH
    with fast_kernels(device):
        step = build_step(preparation, config, device, precision, batch_size=batch_size)
        stepper = make_stepper(step, config.cuda_graphs)
        penalised = 1 / step.parts.penalty_every if step.is_penalised(0) else 0.0
        seconds = sum(
            share * _seconds_of(stepper, number, device)
            for number, share in ((0, penalised), (1, 1 - penalised))
            if share
        )
    return seconds * config.batch_size / batch_size


def _seconds_of(stepper: EagerStepper | GraphStepper, number: int, device: torch.device) -> float:
    """Seconds of one step of the kind of step ``number``."""
    for _ in range(WARM_UP_STEPS + 2 if isinstance(stepper, GraphStepper) else 1):
        stepper.advance(number)
    _wait(device)
    start = time.perf_counter()
    for _ in range(TIMED_STEPS[device.type]):
        stepper.advance(number)
    _wait(device)
    return (time.perf_counter() - start) / TIMED_STEPS[device.type]


def describe_dry_run(
    preparation: Preparation, config: TrainConfig, device: torch.device
) -> dict[str, Any]:
    """Configuration, parameters, memory in bytes and an estimate of the time in seconds."""
    random = torch.Generator().manual_seed(config.seed)
    generator = build_generator(preparation.shape, preparation.parts, random)
    discriminator = build_discriminator(preparation.shape, preparation.parts, random)
    parameters = parameter_count(generator), parameter_count(discriminator)
    precision = choose_precision(preparation, config, device)
    seconds = seconds_per_step(preparation, config, device, precision)
    # float32: weights and two moments of both networks, and the average of the generator.
    state = 4 * (4 * parameters[0] + 3 * parameters[1])
    return {
        "generator_parameters": parameters[0],
        "discriminator_parameters": parameters[1],
        "classes": {
            preparation.data.class_names[index]: count
            for index, count in zip(preparation.made, preparation.data.counts, strict=True)
        },
        "classes_left_out": preparation.left_out,
        "network": preparation.shape.as_json(),
        "device": str(device),
        "precision": str(precision).removeprefix("torch."),
        "memory_bytes": {
            "weights_and_optimizers": state,
            "training_images": preparation.train.pixel_bytes,
            "activations": _activation_bytes(preparation, config, device, precision),
        },
        "seconds_estimated": round(seconds * config.steps),
        "seconds_left_out": _left_out(config),
        "images": config.batch_size * config.steps,
    }


def _left_out(config: TrainConfig) -> str:
    """What the estimate of the time does not hold."""
    evaluations = -(-config.steps // config.steps_between_evaluations)
    judging = " and the training of their judge" if config.judge != "none" else ""
    return f"{evaluations} evaluations{judging}"


def _activation_bytes(
    preparation: Preparation, config: TrainConfig, device: torch.device, precision: torch.dtype
) -> int:
    """Most bytes that autograd keeps in a step, measured on a small batch and scaled."""
    step = build_step(preparation, config, device, precision, batch_size=TRIAL_BATCH)
    weights = {tensor.data_ptr() for tensor in step.tensors().values()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    step.draw()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step.run(penalised=step.is_penalised(0))
    return sum(kept.values()) * config.batch_size // TRIAL_BATCH


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
