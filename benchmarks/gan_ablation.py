"""Which part of the recipe earns its place: variants of ``gan-train`` at equal images.

Each variant changes one part of ``tail`` (or is the plain baseline) and is trained with several
seeds on the training split; the checkpoint is chosen on the validation split and measured
against the held-out side named by ``--against``, beside the floor of real against real. Work is
kept in ``--out`` and never repeated, so the table can be made in slices of minutes:

    python benchmarks/gan_ablation.py --data gz1.h5 --class merger --steps 5000 --seeds 3 \
        --out ablation --minutes 8

Two processes with other seeds (``--first-seed``) may write to one folder. Writes
``OUT/results.json`` (one row per variant and seed, and the floor), ``OUT/table.md`` and one grid
per variant, ``OUT/VARIANT.png``.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.pixels import to_network
from galaxies.sources import open_image_set
from gan.judge import Judge
from gan.loaded_generator import load_generator
from gan.pictures import grid, save_picture
from gan.preparation import prepare
from gan.recipes import TAIL
from gan.sampling import generate
from gan.trainer import train
from gan.training_config import TrainConfig

REPOSITORY = Path(__file__).resolve().parent.parent

VARIANTS: dict[str, dict[str, Any]] = {
    "dcgan": {"recipe": "dcgan"},
    "dcgan, one class": {"recipe": "dcgan", "scope": "class"},
    "tail": {},
    "tail without symmetries": {"symmetries": "none", "fake_symmetries": False},
    "tail, symmetries of reals only": {"fake_symmetries": False},
    "tail without augmentation": {"augment": ()},
    "tail, translation and flux only": {"augment": ("translation", "flux", "saturation")},
    "tail, fixed probability": {"augment_target": 0.0, "augment_probability": 0.6},
    "tail, augmentation watches signs": {"augment_watch": "sign"},
    "tail, augmentation from 0.4": {"augment_probability": 0.4},
    "tail without R1": {"r1": 0.0},
    "tail, R1 1.8": {"r1": 1.8},
    "tail, R1 36": {"r1": 36.0},
    "tail, relativistic R1 R2": {"loss": "relativistic", "r2": 9.0},
    "tail, hinge": {"loss": "hinge"},
    "tail with LeCam": {"lecam": 0.1},
    "tail without noise": {"pixel_noise": False},
    "tail without start at sky": {"start_at_sky": False},
    "tail without smooth upsampling": {"smooth_upsampling": False},
    "tail without standardising": {"standardise": False},
    "tail without average": {"ema_images": 0.0},
    "tail without deviation": {"minibatch_deviation": False},
    "tail without ramp": {"condition_from": 0.0, "condition_full": 0.0},
    "tail, class from 16": {"class_from": 16},
    "tail with class bound": {"class_bound": 0.01},
    "tail, embedded plane": {"projection": False},
    "tail, uniform classes": {"balance": 0.0},
    "tail, natural classes": {"balance": 1.0, "chosen_share": 0.0},
    "tail, one class": {"scope": "class"},
    "tail, convolutional D": {"discriminator": "convolutional"},
    "tail, spectral norm D": {"discriminator": "convolutional", "spectral_norm": True},
    "tail, convolutional G": {"generator": "convolutional", "class_from": 16},
    "tail, rate 5e-4": {"learning_rate": 5e-4, "discriminator_learning_rate": 1e-3},
    "tail, equal rates": {"discriminator_learning_rate": 2e-4},
    "tail, width 0.5": {"width": 0.5},
    "tail, width 2": {"width": 2.0},
}
"""Name -> flags that differ from ``gan-train --recipe tail``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--class", dest="classes", action="append", required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--against", default="test", choices=["validation", "test", "both"])
    parser.add_argument("--count", type=int, default=600, help="generated images per class")
    parser.add_argument("--variants", nargs="*", help="names, or parts of names; default all")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="PART=VALUE", help="flags of every variant"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run beyond this")
    parser.add_argument("--weights", type=Path, help="MobileNetV2 weights for FD and KID beside")
    parser.add_argument("--judge-steps", type=int, help="of the classifiers whose features judge")
    parser.add_argument("--keep-checkpoints", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the variants and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(VARIANTS))
        return
    deadline = time.monotonic() + 60 * options.minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    images = open_image_set(options.data)
    names = [n for n in VARIANTS if not options.variants or any(v in n for v in options.variants)]
    if options.variants:
        exact = [name for name in VARIANTS if name in options.variants]
        names = exact if len(exact) == len(options.variants) else names
    results = Results(options.out / "results.json", settings_of(options, device))
    bench = Bench(options, images, device)
    if "floor" not in results.content:
        results.set_floor(bench.floor())
    longest = 0.0
    # Seeds outside, so that a first slice already shows every variant once.
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in names:
            if results.has(name, seed):
                continue
            if time.monotonic() + 1.3 * longest > deadline:
                print("out of time; run again to go on", flush=True)
                results.write_table(options.out / "table.md")
                return
            start = time.monotonic()
            row = bench.run(name, seed)
            longest = max(longest, time.monotonic() - start)
            results.add(row)
            print(results.line(row), flush=True)
    results.write_table(options.out / "table.md")
    print("complete", flush=True)


def settings_of(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    kept = (
        "classes", "steps", "batch_size", "size", "width", "against", "count", "set", "judge_steps",
    )  # fmt: skip
    return {
        "device": gpu,
        "torch": torch.__version__,
        "data": Path(options.data).name,
        **{name: getattr(options, name) for name in kept},
        "tail": dataclasses.asdict(TAIL),  # a changed default makes other rows
    }


def parsed(settings: list[str]) -> dict[str, Any]:
    """``PART=VALUE`` words to values: Python literals, or words as they are."""
    import ast

    values = {}
    for word in settings:
        name, _, text = word.partition("=")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


class Bench:
    """The set, the judges, and one run after the other."""

    def __init__(self, options: argparse.Namespace, images: ImageSet, device: torch.device) -> None:
        self.options, self.images, self.device = options, images, device
        if images.split is None:
            from galaxies.split import split_set

            images = split_set(images)
        self.images, split = images, images.split
        assert split is not None
        self.preparation = prepare(self._config("tail", 0), images)
        every = self.preparation.train
        held_out = np.isin(split, {"validation": [1], "test": [2], "both": [1, 2]}[options.against])
        from gan.training_data import resize_set

        self.held_out = resize_set(images.select(held_out), options.size).in_memory()
        self.extractor = self._classifier(seed=0)  # chooses checkpoints
        self.measures = {"classifier": self._classifier(seed=1)}  # another one measures
        mobile = self._mobilenet()
        if mobile is not None:
            self.measures["mobilenetv2"] = mobile
        # MobileNetV2 is wide and slow on a CPU: it looks at the chosen classes alone.
        chosen = [int(index) for index in self.preparation.chosen]
        only = self.preparation.train.of_classes(chosen), self.held_out.of_classes(chosen)
        self.judges = {
            name: Judge(extractor, *(only if name == "mobilenetv2" else (every, self.held_out)))
            for name, extractor in self.measures.items()
        }

    def floor(self) -> dict[str, Any]:
        """Training images in the place of generated ones: what perfect images would score."""
        floor = {}
        for index in self.preparation.chosen:
            train = self.preparation.train.of_classes([index]).pixels
            floor[self.images.class_names[index]] = self._measure(index, train, real=True)
        print("floor (real training images against held-out ones):", json.dumps(floor), flush=True)
        return floor

    def run(self, name: str, seed: int) -> dict[str, Any]:
        options = self.options
        config = self._config(name, seed)
        folder = options.out / "runs" / f"{slug(name)}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        start = time.monotonic()
        row: dict[str, Any] = {"variant": name, "seed": seed, "flags": VARIANTS[name]}
        try:
            outcome = train(config, self.images, folder, extractor=self.extractor, progress=False)
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {error}"
            return row
        row["seconds"] = time.monotonic() - start
        row["images_per_second"] = outcome.images_per_second
        row["chosen_step"] = outcome.chosen_step
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        row["last"] = next(r for r in reversed(log) if r["kind"] == "training")
        row["curve"] = [(r["step"], r.get("kid")) for r in log if r["kind"] == "evaluation"]
        row["guards"] = [r["sentence"] for r in log if r["kind"] in ("guard", "rollback")]
        generator = load_generator(folder, self.device)
        row["classes"] = {}
        pictures = []
        for index in self.preparation.chosen:
            made = generate(generator, index, options.count, seed=1000 + seed)
            row["classes"][self.images.class_names[index]] = self._measure(index, made)
            pictures.append(made[:40])
        if seed == options.first_seed:
            stretch = self.images.stretch
            picture = grid(to_network(torch.cat(pictures), stretch), 10)
            save_picture(picture, options.out / f"{slug(name)}.png")
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(folder / "curve.png", options.out / f"{slug(name)}-curve.png")
        if not options.keep_checkpoints:
            shutil.rmtree(folder, ignore_errors=True)
        return row

    def _config(self, name: str, seed: int) -> TrainConfig:
        options = self.options
        flags: dict[str, Any] = {
            "classes": tuple(options.classes),
            "data": str(options.data),
            "steps": options.steps,
            "batch_size": options.batch_size,
            "size": options.size,
            "width": options.width,
            "save_seconds": 1e9,
            "evaluate_every": max(1, options.steps // 10),
        }
        common = parsed(options.set)
        if VARIANTS[name].get("recipe") != "dcgan":
            flags |= common
        flags |= VARIANTS[name]
        return TrainConfig(**flags, seed=seed)

    def _measure(self, index: int, made: torch.Tensor, *, real: bool = False) -> dict[str, Any]:
        from fid.frechet import frechet_distance_of_features
        from fid.manifold import precision_recall_density_coverage
        from fid.physics import measure

        chosen = self.held_out.labels == index
        train = self.preparation.train.of_classes([index]).pixels
        found: dict[str, Any] = {}
        for name, judge in self.judges.items():
            verdict = judge.judge(index, made)
            reals = judge.validation_features[judge.validation_labels == index]
            trained = judge.train_features[judge.train_labels == index]
            features = judge.features(made)
            # Recall and coverage need neighbours: training and held-out reals together.
            both = np.concatenate([reals, trained])
            manifold = precision_recall_density_coverage(both, features, k=3)
            found[name] = {
                "kid": verdict.kid,
                "kid_error": verdict.kid_error,
                "fd": frechet_distance_of_features(reals, features),
                "kid_all_reals": kid(both, features) if not real else kid(reals, trained),
                # The training images are among the reals: they would score 1 by construction.
                "precision": None if real else manifold.precision,
                "recall": None if real else manifold.recall,
                "coverage": None if real else manifold.coverage,
                "diversity": verdict.diversity,
            }
            if name == "classifier":
                found |= {
                    # Nor is the classifier's own training set a floor.
                    "agreement": verdict.agreement_real if real else verdict.agreement,
                    "agreement_real": verdict.agreement_real,
                    "copying": 0.0 if real else verdict.copying,
                    "nearness": verdict.nearness,
                }
        # Physics: mean over the measurements of the 1-D Wasserstein distance in real deviations.
        real_pixels = train if not real else self.held_out.pixels[torch.from_numpy(chosen)]
        try:
            found["physics"] = physical_distance(measure(real_pixels), measure(made))
        except RuntimeError as error:  # images without any object have nothing to measure
            print(f"physics not measured: {error}", flush=True)
            found["physics"] = float("nan")
        found["sharpness"] = sharpness(made) / sharpness(train)
        return found

    def _classifier(self, seed: int) -> Any:
        from classify.features import load_extractor, train_extractor

        folder = self.options.out / f"judge-{seed}"
        if (folder / "weights.safetensors").is_file():
            return load_extractor(str(folder), None, self.device)
        extractor = train_extractor(
            self.preparation.train,
            seed=seed,
            device=self.device,
            progress=False,
            steps=self.options.judge_steps,
        )
        try:
            extractor.classifier.save(folder)
        except InputError:  # a process beside this one was faster; all rows need one judge
            return load_extractor(str(folder), None, self.device)
        return extractor

    def _mobilenet(self) -> Any:
        weights = self.options.weights
        if weights is None:
            found = [
                root / "weights" / "mobilenetv2_100_same_imagenet1001.safetensors"
                for root in (REPOSITORY / "shared", REPOSITORY.parent / "shared")
            ]
            weights = next((path for path in found if path.is_file()), None)
        if weights is None or self.images.channels not in (1, 3):
            return None
        try:
            from fid.timm_features import load

            return load("mobilenetv2_100", weights, self.device)
        except Exception as error:
            print(f"no MobileNetV2 features: {error}", flush=True)
            return None


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    from fid.kernel import kernel_distance

    return kernel_distance(real, fake).value


def physical_distance(real: Any, fake: Any) -> float:
    from scipy.stats import wasserstein_distance

    distances = []
    for column in range(real.values.shape[1]):
        left, right = real.values[:, column], fake.values[:, column]
        left, right = left[np.isfinite(left)], right[np.isfinite(right)]
        if len(left) > 1 and len(right) > 1 and left.std() > 0:
            distances.append(wasserstein_distance(left, right) / left.std())
    return float(np.mean(distances)) if distances else float("nan")


def sharpness(pixels: torch.Tensor) -> float:
    """Mean absolute difference of neighbouring pixels beyond what a half-size image keeps."""
    unit = pixels.float()
    small = torch.nn.functional.avg_pool2d(unit, 2)
    back = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    return float((unit - back).abs().mean())


def slug(name: str) -> str:
    return "-".join(name.replace(",", "").lower().split())


class Results:
    """``results.json``, written after every run."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"settings": settings, "rows": []}
        if path.is_file():
            self.content = json.loads(path.read_text())
            before = {k: v for k, v in self.content["settings"].items() if k != "device"}
            now = {k: v for k, v in json.loads(json.dumps(settings)).items() if k != "device"}
            if before != now:
                raise SystemExit(f"{path} was made with {before}, not {now}; take another --out")

    def has(self, name: str, seed: int) -> bool:
        return any(r["variant"] == name and r["seed"] == seed for r in self.content["rows"])

    def add(self, row: dict[str, Any]) -> None:
        with self._shared():
            self.content["rows"].append(row)

    def set_floor(self, floor: dict[str, Any]) -> None:
        with self._shared():
            self.content.setdefault("floor", floor)

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        """What a process beside this one wrote is read before, and all of it saved after."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.path.is_file():
                self.content = json.loads(self.path.read_text())
            yield
            self.save()

    def save(self) -> None:
        temporary = self.path.with_suffix(".partial")
        temporary.write_text(json.dumps(self.content, indent=1, default=float))
        temporary.replace(self.path)

    @staticmethod
    def line(row: dict[str, Any]) -> str:
        if "failed" in row:
            return f"{row['variant']} seed {row['seed']}: FAILED {row['failed']}"
        text = f"{row['variant']} seed {row['seed']}: {row['images_per_second']:,.0f} img/s, "
        text += f"{row['seconds']:.0f} s, kept {row['chosen_step']}"
        for name, found in row["classes"].items():
            measured = found.get("mobilenetv2", found["classifier"])
            text += (
                f"; {name}: KID {found['classifier']['kid']:.3f} / {measured['kid']:.3f} "
                f"FD {measured['fd']:.1f} P {measured['precision']:.2f} R {measured['recall']:.2f} "
                f"C {measured['coverage']:.2f} diversity {measured['diversity']:.2f} "
                f"copying {found['copying']:.2f} class {found['agreement']:.2f} "
                f"physics {found['physics']:.2f} sharpness {found['sharpness']:.2f}"
            )
        last = row["last"]
        text += (
            f"; D {last['discriminator_loss']:.2f} G {last['generator_loss']:.2f} "
            f"signs {last['sign_real']:+.2f} {last['sign_fake']:+.2f} p {last['probability']:.2f}"
        )
        return text

    def write_table(self, path: Path) -> None:
        lines = []
        for name, floor in self.content.get("floor", {}).items():
            lines += [f"## {name}", "", "mean ± standard deviation over seeds", ""]
            heads = [
                "KID (classifier)",
                "KID (mobilenetv2)",
                "FD (mobilenetv2)",
                "precision",
                "recall",
            ]
            heads += ["coverage", "diversity", "copying", "class", "physics", "sharpness"]
            lines += ["| variant | seeds | " + " | ".join(heads) + " |"]
            lines += ["| --- " * (len(heads) + 2) + "|"]
            lines.append(f"| real | | {' | '.join(self._cells([floor]))} |")
            for variant in VARIANTS:
                rows = [
                    row["classes"][name]
                    for row in self.content["rows"]
                    if row["variant"] == variant and name in row.get("classes", {})
                ]
                if rows:
                    lines.append(f"| {variant} | {len(rows)} | {' | '.join(self._cells(rows))} |")
            lines.append("")
        path.write_text("\n".join(lines))

    @staticmethod
    def _cells(rows: list[dict[str, Any]]) -> list[str]:
        def cell(*path: str) -> str:
            values = []
            for row in rows:
                value: Any = row
                for key in path:
                    value = value.get(key) if isinstance(value, dict) else None
                if value is not None and not np.isnan(value):  # nan: images without an object
                    values.append(float(value))
            if not values:
                return "–"
            digits = 1 if path[-1] == "fd" else 2 if abs(np.mean(values)) >= 0.1 else 3
            text = f"{np.mean(values):.{digits}f}"
            if len(values) > 1:
                text += f" ± {np.std(values, ddof=1):.{digits}f}"
            return text if len(values) == len(rows) else f"{text} ({len(values)} of {len(rows)})"

        mobile = "mobilenetv2" if "mobilenetv2" in rows[0] else "classifier"
        return [
            cell("classifier", "kid"),
            cell("mobilenetv2", "kid"),
            cell("mobilenetv2", "fd"),
            *(cell(mobile, key) for key in ("precision", "recall", "coverage", "diversity")),
            *(cell(key) for key in ("copying", "agreement", "physics", "sharpness")),
        ]


if __name__ == "__main__":
    main()
