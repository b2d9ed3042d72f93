"""The Fréchet distance here against pytorch-fid, torch-fidelity and torchmetrics, in one run.

Same images, same weights (random, in the published layout, so that nothing is downloaded), same
machine, one after the other; each line prints a ratio. The matrix step is timed in this process,
the whole road from two folders to a number as separate programs.

    python benchmarks/fid_against_peers.py                 # both parts, 600 + 600 images
    python benchmarks/fid_against_peers.py --images 100    # a quick look
    python benchmarks/fid_against_peers.py --peers-python /tmp/peers/bin/python

pytorch-fid needs scipy < 1.18; where that conflicts, install the peers into an environment of
their own and name its python.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from PIL import Image

from fid.frechet import frechet_distance
from fid.inception import WEIGHTS_NAME, convolution_shapes
from fid.statistics import FeatureStatistics, statistics_of_features

DIMENSIONS = 2048
PEERS = ("pytorch-fid", "torch-fidelity", "torchmetrics", "torchmetrics, channels last")

TORCHMETRICS_PROGRAM = """
import sys, torch
from pathlib import Path
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.transforms.functional import pil_to_tensor
real, fake, weights = sys.argv[1:4]
metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=weights)
for folder, is_real in ((real, True), (fake, False)):
    files = sorted(Path(folder).iterdir())
    for start in range(0, len(files), 50):
        batch = [pil_to_tensor(Image.open(f).convert("RGB")) for f in files[start:start + 50]]
        batch = torch.stack(batch)
        if len(sys.argv) > 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        metric.update(batch, real=is_real)
print("FID:", metric.compute().item())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600, help="images a side")
    parser.add_argument("--data", help="image set whose images are used; default: synthetic blobs")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--skip-matrix", action="store_true")
    parser.add_argument("--skip-programs", action="store_true")
    parser.add_argument("--repeats", type=int, default=3, help="of the matrix step")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    if not options.skip_matrix:
        matrix_step(options.repeats)
    if not options.skip_programs:
        programs(options.images, options.data, options.peers_python, options.peers)


def matrix_step(repeats: int) -> None:
    """From mean and covariance (or few features) to the distance, at 2048 features."""
    for count in (10_000, 300):
        rng = np.random.default_rng(0)
        sides = [correlated(rng, count) for _ in range(2)]
        statistics = [statistics_of_features(side) for side in sides]
        covariances = [part.covariance for part in statistics]
        means = [part.mean for part in statistics]
        ours = median_time(functools.partial(our_distance, statistics), repeats)
        print(f"\nmatrix step, {count} samples of {DIMENSIONS} features")
        print(f"  {'fid-score':34s} {ours[0]:8.3f} s          {ours[1]:.9f}")
        for name, root in (
            ("scipy.linalg.sqrtm (pytorch-fid)", by_matrix_root),
            ("numpy eigvals (torch-fidelity)", by_numpy_eigenvalues),
            ("torch eigvals (torchmetrics)", by_torch_eigenvalues),
        ):
            seconds, value = median_time(
                functools.partial(distance_with, root, covariances, means), max(1, repeats - 1)
            )
            print(f"  {name:34s} {seconds:8.3f} s {seconds / ours[0]:7.1f}x {value:.9f}")


def our_distance(sides: list[FeatureStatistics]) -> float:
    return frechet_distance(*sides).value


def correlated(rng: np.random.Generator, count: int) -> np.ndarray:
    """Gaussian features with a spectrum 8 / k in a random basis."""
    basis, _ = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))
    scale = np.sqrt(8 / np.arange(1, DIMENSIONS + 1))
    return (rng.normal(size=(count, DIMENSIONS)) * scale) @ basis.T


def distance_with(
    root: Callable[[np.ndarray], float], covariances: list[np.ndarray], means: list[np.ndarray]
) -> float:
    gap = means[0] - means[1]
    traces = np.trace(covariances[0]) + np.trace(covariances[1])
    return float(gap @ gap + traces - 2 * root(covariances[0] @ covariances[1]))


def by_matrix_root(product: np.ndarray) -> float:
    return float(np.trace(scipy.linalg.sqrtm(product)).real)


def by_numpy_eigenvalues(product: np.ndarray) -> float:
    return float(np.sqrt(np.linalg.eigvals(product).astype(complex)).real.sum())


def by_torch_eigenvalues(product: np.ndarray) -> float:
    return torch.linalg.eigvals(torch.from_numpy(product)).sqrt().real.sum().item()


def median_time(action: Callable[[], float], repeats: int) -> tuple[float, float]:
    seconds, value = [], 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        value = action()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), value


def programs(images: int, data: str | None, peers_python: str, peers: list[str]) -> None:
    """Each program from two folders of PNG to its number."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        real, fake = write_folders(root, images, data)
        weights = root / "hub" / "checkpoints" / WEIGHTS_NAME
        weights.parent.mkdir(parents=True)
        torch.save(random_weights(), weights)
        neutral = root / "random_inception.pth"
        neutral.hardlink_to(weights)
        environment = dict(os.environ, TORCH_HOME=name, GALAXY_AUGMENT_CACHE=str(root / "cache"))
        score = [sys.executable, "-c", "import fid.cli, sys; sys.exit(fid.cli.main())"]
        score += [str(real), str(fake), "--weights", str(neutral), "--json"]
        compared = {
            "pytorch-fid": [
                *(peers_python, "-m", "pytorch_fid", str(real), str(fake), "--device", "cpu"),
            ],
            "torch-fidelity": [
                *(peers_python, "-m", "torch_fidelity.fidelity", "--fid", "--cpu", "--json"),
                *("--input1", str(real), "--input2", str(fake)),
                *("--feature-extractor-weights-path", str(neutral), "--no-datasets-download"),
                "--cache-off",
            ],
            "torchmetrics": [
                *(peers_python, "-c", TORCHMETRICS_PROGRAM, str(real), str(fake), str(neutral)),
            ],
        }
        # The same program by someone who knows that this layout is faster on a CPU.
        compared["torchmetrics, channels last"] = [*compared["torchmetrics"], "channels-last"]
        print(f"\nwhole road, {images} + {images} PNG, CPU")
        for peer in peers:
            theirs = measured(compared[peer], environment)
            recipe = peer.partition(",")[0]
            ours = measured([*score, "--recipe", recipe, "--no-cache"], environment)
            print_comparison(peer, theirs, ours)
        first = measured(score, environment)
        again = measured(score, environment)
        print(
            f"  both sides remembered: {again['wall']:.1f} s instead of {first['wall']:.1f} s, "
            f"{first['wall'] / again['wall']:.1f}x ({first['cpu'] / again['cpu']:.1f}x cpu)"
        )


def print_comparison(peer: str, theirs: dict, ours: dict) -> None:
    if "error" in theirs:
        print(f"  {peer:27s} did not run: {theirs['error']}")
        return
    print(
        f"  {peer:27s} {theirs['wall']:7.1f} s {theirs['cpu']:7.1f} cpu-s "
        f"{theirs['memory']:6.0f} MB  {theirs['value']:.6f}\n"
        f"  {'fid-score':27s} {ours['wall']:7.1f} s {ours['cpu']:7.1f} cpu-s "
        f"{ours['memory']:6.0f} MB  {ours['value']:.6f}   {theirs['wall'] / ours['wall']:.2f}x "
        f"faster ({theirs['cpu'] / ours['cpu']:.2f}x cpu), "
        f"difference {ours['value'] - theirs['value']:+.1e}"
    )


def measured(command: list[str], environment: dict[str, str]) -> dict:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        text, complaint = output.read(), errors.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        return {"error": complaint.strip().splitlines()[-1] if complaint.strip() else "?"}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "memory": usage.ru_maxrss / 1024, "value": number_in(text)}


def number_in(text: str) -> float:
    start = text.find("{")
    if start >= 0:
        report = json.loads(text[start : text.rfind("}") + 1])
        return float(report.get("value", report.get("frechet_inception_distance", np.nan)))
    return float(text.split("FID:")[1].split()[0])


def write_folders(root: Path, images: int, data: str | None) -> tuple[Path, Path]:
    pixels = pixels_of(data, 2 * images)
    folders = root / "real", root / "fake"
    for side, folder in enumerate(folders):
        folder.mkdir()
        for index in range(images):
            Image.fromarray(pixels[side * images + index]).save(folder / f"{index:05d}.png")
    return folders


def pixels_of(data: str | None, count: int) -> np.ndarray:
    """(count, 64, 64, 3) uint8."""
    rng = np.random.default_rng(0)
    if data is not None:
        from galaxies.sources import open_image_set

        image_set = open_image_set(data)
        rows = rng.choice(len(image_set), count, replace=False)
        return image_set.read(rows).permute(0, 2, 3, 1).numpy()
    axis = np.linspace(-1, 1, 64)
    squares = axis[:, None] ** 2 + axis**2
    widths = rng.uniform(0.02, 0.2, (count, 1, 1, 1))
    light = np.exp(-squares[None, :, :, None] / widths) * rng.uniform(60, 200, (count, 1, 1, 3))
    return (light + rng.normal(25, 6, light.shape)).clip(0, 255).astype(np.uint8)


def random_weights() -> dict[str, torch.Tensor]:
    """566 tensors in the published layout."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name, (source, target, kernel, _, _) in convolution_shapes().items():
        spread = (2 / (source * kernel[0] * kernel[1])) ** 0.5
        weight = torch.randn(target, source, *kernel, generator=random) * spread
        state[f"{name}.conv.weight"] = weight
        state[f"{name}.bn.weight"] = torch.ones(target)
        state[f"{name}.bn.bias"] = 0.1 * torch.randn(target, generator=random)
        state[f"{name}.bn.running_mean"] = torch.zeros(target)
        state[f"{name}.bn.running_var"] = torch.ones(target)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1008, DIMENSIONS), torch.zeros(1008)
    return state


if __name__ == "__main__":
    main()
