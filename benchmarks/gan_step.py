"""Images per second of one training step, beside the plain form of it.

The plain form is that of the published PyTorch DCGAN example: the same networks and batch,
float32, NCHW, a DataLoader with two workers over a set in memory, three passes with
``backward`` into all gradients, ``.item()`` every step. Ours is the recipe ``dcgan`` on one
class, and the recipe ``tail`` beside it. The peak is that of a large convolution (CPU) or
matrix product (CUDA), measured in the same run.

    python benchmarks/gan_step.py [--batch 64] [--size 64] [--seconds 10] [--json FILE]
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.image_set import ImageSet, PixelsInMemory
from gan.build import NetworkShape
from gan.graphs import EagerStepper, GraphStepper, make_stepper
from gan.recipes import RECIPES, RecipeName
from gan.step import Schedule, TrainingStep
from gan.training_data import prepare_training_data
from gan.trial import BF16_GAIN, TRIALS

IMAGES = 16384
CHANNELS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--recipes", nargs="+", default=["dcgan", "tail"])
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print the longest kernels")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    torch.backends.cudnn.benchmark = True
    precision = choose_precision(options, device)
    peak = measured_peak(device, precision)
    print(f"peak of {peak['what']}: {peak['rate'] / 1e12:.3f} Tflop/s ({precision})", flush=True)
    results: dict[str, Any] = {"device": where, "torch": torch.__version__, "peak": peak}
    rows = []
    for batch in options.batch:
        plain = plain_rate(options, batch, device)
        print(f"batch {batch}: plain form {plain:,.0f} images/s", flush=True)
        rows.append({"batch": batch, "form": "plain", "images_per_second": plain})
        for recipe in options.recipes:
            row = our_rate(options, recipe, batch, device, precision, peak["rate"])
            row["ratio"] = row["images_per_second"] / plain
            rows.append(row)
            print(
                f"batch {batch}: {recipe} ({row['path']}, {precision}) "
                f"{row['images_per_second']:,.0f} images/s, {row['ratio']:.2f} times the plain "
                f"form, {row['gflop_per_image']:.2f} Gflop per image, "
                f"{100 * row['share_of_peak']:.1f} % of the peak, "
                f"loss finite: {row['finite']}",
                flush=True,
            )
    results["rows"] = rows
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def choose_precision(options: argparse.Namespace, device: torch.device) -> torch.dtype:
    """As gan-train chooses: bfloat16 on CUDA, the faster of two on a CPU."""
    if options.precision != "auto":
        return getattr(torch, options.precision)
    if device.type == "cuda":
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        step = make_step(options, "dcgan", 8, device, dtype)
        trials = []
        for _ in range(1 + TRIALS):  # the first one warms up
            start = time.perf_counter()
            step.draw()
            step.run(penalised=False)
            trials.append(time.perf_counter() - start)
        seconds[dtype] = min(trials[1:])
    faster = seconds[torch.bfloat16] < BF16_GAIN * seconds[torch.float32]
    return torch.bfloat16 if faster else torch.float32


def random_set(size: int) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (IMAGES, CHANNELS, size, size), dtype=np.uint8))
    ids = np.array([str(row) for row in range(IMAGES)])
    return ImageSet(PixelsInMemory(pixels), np.zeros(IMAGES, np.int64), ("all",), ids)


def make_step(
    options: argparse.Namespace,
    recipe: RecipeName,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
) -> TrainingStep:
    parts = RECIPES[recipe]
    data = prepare_training_data(random_set(options.size), [0], [0], parts, device)
    return TrainingStep(
        NetworkShape(1, CHANNELS, options.size, options.width),
        parts,
        data,
        batch_size=batch,
        schedule=Schedule(0, 0),
        precision=dtype,
        seed=0,
    )


def our_rate(
    options: argparse.Namespace,
    recipe: RecipeName,
    batch: int,
    device: torch.device,
    precision: torch.dtype,
    peak: float,
) -> dict[str, Any]:
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    step = make_step(options, recipe, batch, device, precision)
    with FlopCounterMode(display=False) as counter:
        step.draw()
        step.run(penalised=False)
    flops = counter.get_total_flops()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    stepper = make_stepper(step, not options.no_graphs)
    penalised = step.parts.r1 > 0
    warm_up = (4 * step.parts.penalty_every if penalised else 8) if device.type == "cuda" else 1
    for number in range(warm_up):
        stepper.advance(number)
    wait(device)
    if options.profile and device.type == "cuda":
        profile(stepper, warm_up)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        stride = 100 if device.type == "cuda" else 1
        for _ in range(stride):
            stepper.advance(warm_up + count)
            count += 1
        wait(device)
    seconds = time.perf_counter() - start
    return {
        "batch": batch,
        "form": recipe,
        "path": stepper.name,
        "images_per_second": count * batch / seconds,
        "milliseconds_per_step": 1e3 * seconds / count,
        "gflop_per_image": flops / batch / 1e9,
        "share_of_peak": flops * count / seconds / peak,
        "finite": bool(torch.isfinite(step.sums).all()),
    }


def profile(stepper: EagerStepper | GraphStepper, number: int) -> None:
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as record:
        for offset in range(16):
            stepper.advance(number + offset)
        torch.cuda.synchronize()
    print(record.key_averages().table(sort_by="cuda_time_total", row_limit=25))


class PlainImages(Dataset):
    """Items as the example's dataset gives them: one normalised float32 image."""

    def __init__(self, size: int) -> None:
        self.pixels = random_set(size).pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> torch.Tensor:
        return (self.pixels[row].float() / 255 - 0.5) / 0.5


def plain_networks(size: int, width: float) -> tuple[nn.Module, nn.Module]:
    """The published layout as two plain sequences."""
    from gan.networks import dcgan_channels

    widths = dcgan_channels(size, width)
    layers: list[nn.Module] = []
    inputs = 100
    for index, outputs in enumerate(widths):
        stride, padding = (1, 0) if index == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]
        inputs = outputs
    layers += [nn.ConvTranspose2d(inputs, CHANNELS, 4, 2, 1, bias=False), nn.Tanh()]
    judged: list[nn.Module] = []
    inputs = CHANNELS
    for index, outputs in enumerate(reversed(widths)):
        judged.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
        if index:
            judged.append(nn.BatchNorm2d(outputs))
        judged.append(nn.LeakyReLU(0.2, inplace=True))
        inputs = outputs
    judged += [nn.Conv2d(inputs, 1, 4, 1, 0, bias=False), nn.Sigmoid(), nn.Flatten(0)]
    return nn.Sequential(*layers), nn.Sequential(*judged)


def plain_rate(options: argparse.Namespace, batch: int, device: torch.device) -> float:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    generator, discriminator = (
        network.to(device) for network in plain_networks(options.size, options.width)
    )
    loader = DataLoader(
        PlainImages(options.size),
        batch_size=batch,
        shuffle=True,
        num_workers=options.workers,
        drop_last=True,
    )
    criterion = nn.BCELoss()
    move_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    move_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    count, start = 0, None
    while True:
        for images in loader:
            discriminator.zero_grad()
            reals = images.to(device)
            labels = torch.full((batch,), 1.0, device=device)
            output = discriminator(reals)
            error_real = criterion(output, labels)
            error_real.backward()
            output.mean().item()
            fakes = generator(torch.randn(batch, 100, 1, 1, device=device))
            labels.fill_(0.0)
            output = discriminator(fakes.detach())
            error_fake = criterion(output, labels)
            error_fake.backward()
            output.mean().item()
            error = error_real + error_fake
            move_d.step()
            generator.zero_grad()
            labels.fill_(1.0)
            output = discriminator(fakes)
            error_generator = criterion(output, labels)
            error_generator.backward()
            output.mean().item()
            move_g.step()
            error.item(), error_generator.item()  # the example prints them every step
            if start is None:
                count += 1
                if count >= (10 if device.type == "cuda" else 1):
                    wait(device)
                    count, start = 0, time.perf_counter()
                continue
            count += 1
            seconds = time.perf_counter() - start
            if seconds > options.seconds:
                wait(device)
                return count * batch / (time.perf_counter() - start)


def measured_peak(device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """Best rate of a large matrix product (CUDA) or 3x3 convolution of 256 channels (CPU)."""
    if device.type == "cuda":
        left = torch.randn(8192, 8192, device=device, dtype=precision)
        flops, repeats = 2 * 8192**3, 30
        rate = 0.0
        for _ in range(3):
            for _ in range(5):
                left @ left
            wait(device)
            start = time.perf_counter()
            for _ in range(repeats):
                left @ left
            wait(device)
            rate = max(rate, flops * repeats / (time.perf_counter() - start))
        return {"what": "a matrix product of 8192", "rate": rate}
    rate = 0.0
    flops = 2 * 64 * 256 * 256 * 9 * 16 * 16
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(64, 256, 16, 16, dtype=precision).to(memory_format=memory_format)
        layer = nn.Conv2d(256, 256, 3, padding=1, dtype=precision)
        layer = layer.to(memory_format=memory_format)
        with torch.no_grad():
            for _ in range(5):
                start = time.perf_counter()
                layer(images)
                rate = max(rate, flops / (time.perf_counter() - start))
    return {"what": "a 3x3 convolution of 256 channels", "rate": rate}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
