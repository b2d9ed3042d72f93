import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classify.experiment.added_images import generate_images
from classify.experiment.arms import parse_arm
from classify.experiment.checks import (
    refuse_sizes,
    refuse_small,
    usable_arms,
    warn_of_short_trainings,
)
from classify.experiment.division import Setting
from classify.experiment.laboratory import Laboratory
from classify.experiment.planner import GeneratorSource, Planner
from classify.experiment.smote import interpolate, retrain_head_with_smote
from classify.training import TrainingConfig, train_classifier
from galaxies.errors import InputError
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet

Build = Callable[..., Laboratory]


def _planner(laboratory: Laboratory, path: Path) -> Planner:
    return Planner(laboratory, {("g", 0, None): GeneratorSource("g", str(path), "sha")})


def test_arms_of_a_repeat_share_seed_and_images_and_repeats_differ(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    planner = _planner(build(blobs, setting), checkpoint)
    first = [planner.unit(parse_arm(name), 0, 0) for name in ("plain", "balanced", "gan@1")]
    assert len({unit.training["seed"] for unit in first}) == 1
    assert len({unit.train_rows for unit in first}) == 1
    assert len({unit.training["steps"] for unit in first}) == 1
    second = planner.unit(parse_arm("plain"), 1, 0)
    assert second.training["seed"] != first[0].training["seed"]
    assert second.validation_rows != first[0].validation_rows
    assert second.test_rows == first[0].test_rows
    again = planner.unit(parse_arm("plain+again"), 0, 0)
    assert again.training["seed"] != first[0].training["seed"]
    assert again.train_rows == first[0].train_rows


def test_arms_with_one_training_share_one_unit(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    planner = _planner(build(blobs, setting), checkpoint)
    same = ["balanced", "sampling+symmetries", "symmetries", "symmetries+logit-adjusted"]
    keys = [planner.unit(parse_arm(name), 0, 0).key for name in same]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[0] != keys[2]
    assert len(planner.units([parse_arm(name) for name in same], 3)) == 2 * 3


def test_the_count_of_added_images_is_the_same_for_equal_doses(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    planner = _planner(build(blobs, setting), checkpoint)
    counts = set()
    for name in ("gan@0.5", "placebo@0.5", "smote@0.5", "gan@0.5+filtered"):
        images = planner.unit(parse_arm(name), 0, 0).images
        assert images is not None
        counts.add(images["count"])
    assert len(counts) == 1


def test_a_unit_gives_the_same_bytes_again(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    unit = _planner(build(blobs, setting), checkpoint).unit(parse_arm("gan@1"), 0, 0)
    first, second = (build(blobs, setting).run(unit).predictions for _ in range(2))
    np.testing.assert_array_equal(first.test_probabilities, second.test_probabilities)
    np.testing.assert_array_equal(first.test_rows, np.flatnonzero(blobs.split == 2))


def test_placebo_images_are_noisy_copies_of_training_images(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    laboratory = build(blobs, setting)
    unit = _planner(laboratory, checkpoint).unit(parse_arm("placebo@2"), 0, 0)
    train = blobs.select(laboratory.sides(0, 0, None)[0])
    added, note = laboratory._added_images(unit, train)
    own = train.of_classes([0])
    assert len(added) == note["count"] == 2 * blobs.side("train").counts()[0]
    assert (added.labels == 0).all()
    twin = {name: row for row, name in enumerate(own.ids)}
    originals = own.pixels[[twin[name] for name in added.ids]].float()
    difference = added.pixels.float() - originals
    assert 3 < difference.std() < 7
    times = np.bincount([twin[name] for name in added.ids], minlength=len(own))
    assert times.max() - times.min() == 1


def test_only_takes_the_real_images_of_the_class_away(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    laboratory = build(blobs, setting)
    unit = _planner(laboratory, checkpoint).unit(parse_arm("gan@1+only"), 0, 0)
    counts = laboratory.run(unit).metrics["training_counts"]
    assert unit.images is not None
    assert counts[0] == unit.images["count"]  # and no real one beside them
    assert min(counts[1:]) > 0


def test_every_class_gets_generated_images_at_one_dose(blobs: ImageSet, setting: Setting) -> None:
    def generate(
        path: Path, class_name: str, count: int, seed: int, device: torch.device
    ) -> ImageSet:
        own = blobs.of_classes([class_name])
        return own.select(np.arange(count) % len(own))

    laboratory = Laboratory(blobs, setting, generate=generate)
    source = GeneratorSource("g", "g", "0")
    planner = Planner(laboratory, {("g", 0, None): source})
    unit = planner.unit(parse_arm("gan@0.5+every-class"), 0, 0)
    train = blobs.select(laboratory.sides(0, 0, None)[0])
    added, note = laboratory._added_images(unit, train)
    real = blobs.select(laboratory.folds()[0].train).counts()
    assert np.array_equal(added.counts(), np.rint(0.5 * real))
    assert len(set(added.ids)) == len(added)
    for label in range(3):  # pixels and labels stay together
        own = {p.numpy().tobytes() for p in blobs.of_classes([label]).pixels}
        assert all(p.numpy().tobytes() in own for p in added.of_classes([label]).pixels)
    assert note["per_class"] == added.counts().tolist()
    with pytest.raises(InputError, match="every-class goes with generated images"):
        parse_arm("gan@1+every-class+filtered")


def test_real_images_come_from_those_held_back(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    laboratory = build(blobs, setting)
    planner = Planner(laboratory, {})
    unit = planner.unit(parse_arm("real@1"), 0, 0, keep=8)
    train_rows = laboratory.sides(0, 0, 8)[0]
    added, _ = laboratory._added_images(unit, blobs.select(train_rows))
    held_back = laboratory.folds(8)[0].held_back
    assert set(added.ids) <= set(blobs.ids[held_back])
    assert not set(added.ids) & set(blobs.ids[train_rows])
    with pytest.raises(InputError, match=r"adds real images that were held back, and none were"):
        refuse_small(laboratory, [parse_arm("real@1")], [None])
    with pytest.raises(InputError, match=r"needs 16 real images held back, fold 0 has 14"):
        refuse_small(laboratory, [parse_arm("real@2")], [8])


def test_a_filter_keeps_likely_images_that_are_no_copies(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    laboratory = build(blobs, setting)
    real = blobs.side("train").of_classes([0])

    def half_copies(path: Path, name: str, count: int, seed: int, device: object) -> ImageSet:
        made = original(path, name, count, seed, device)
        pixels = made.pixels.clone()
        pixels[::2] = real.pixels[torch.arange(len(pixels[::2])) % len(real)].flip(-1)
        store = dataclasses.replace(made.store, pixels=pixels)  # type: ignore[type-var]
        return dataclasses.replace(made, store=store)

    original = laboratory._generate
    laboratory._generate = half_copies  # type: ignore[assignment]
    unit = _planner(laboratory, checkpoint).unit(parse_arm("gan@0.5+filtered@0.2"), 0, 0)
    assert unit.images is not None
    added, note = laboratory._added_images(unit, real)
    assert note["candidates"] == 4 * unit.images["count"]
    assert note["copies"] >= note["candidates"] // 2
    assert len(added) == unit.images["count"]
    numbers = [int(str(name).rsplit("-", 1)[1]) for name in added.ids]
    assert note["passed"] >= unit.images["count"]
    assert all(number % 2 == 1 for number in numbers)


def test_a_copy_of_a_mirror_twin_is_a_copy(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    """A generator of clockwise spirals learns from mirrored anticlockwise ones as well."""
    twins = dataclasses.replace(blobs, mirror_pairs=(("rare", "long"),))
    laboratory = build(twins, setting)
    others = blobs.side("train").of_classes([2])
    made = laboratory._generate(checkpoint, "rare", 40, 0, laboratory.device)
    pixels = others.pixels[torch.arange(40) % len(others)].flip(-1)
    copies = dataclasses.replace(made, store=dataclasses.replace(made.store, pixels=pixels))  # type: ignore[type-var]
    laboratory._generate = lambda *_: copies  # type: ignore[assignment]
    unit = _planner(laboratory, checkpoint).unit(parse_arm("gan@0.25+filtered@0.0001"), 0, 0)
    _, note = laboratory._added_images(unit, blobs.side("train").of_classes([0]))
    assert note["copies"] == note["candidates"]


def test_a_synthetic_set_too_small_for_the_dose_says_so(blobs: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "fake.h5"
    write_hdf5(blobs, path)
    drawn = generate_images(path, "rare", 10, 3, torch.device("cpu"))
    assert len(set(drawn.ids)) == 10
    assert drawn.counts().tolist() == [10, 0, 0]
    with pytest.raises(InputError, match="holds 40 images of rare, but an arm adds 41"):
        generate_images(path, "rare", 41, 3, torch.device("cpu"))


def test_interpolated_features_lie_between_neighbours(rng: np.random.Generator) -> None:
    cloud = np.concatenate([rng.normal(0, 0.1, (6, 4)), rng.normal(9, 0.1, (6, 4))])
    points = interpolate(cloud, 200, rng)
    assert points.shape == (200, 4)
    near = np.minimum(np.abs(points - 0).max(1), np.abs(points - 9).max(1))
    assert near.max() < 0.6
    assert len(np.unique(points, axis=0)) == 200
    assert (interpolate(cloud[:1], 3, rng) == cloud[0].astype(np.float32)).all()


def test_smote_replaces_the_head_and_leaves_the_trunk(blobs: ImageSet) -> None:
    config = TrainingConfig(steps=2, batch_size=8, balance="none", validate_every=2)
    train = blobs.select(np.r_[np.arange(12), np.arange(60, 80), np.arange(180, 200)])
    classifier = train_classifier(train, None, config, progress=False)
    before = {k: v.clone() for k, v in classifier.network.state_dict().items()}
    note = retrain_head_with_smote(
        classifier, train, 0, count=6, seed=0, steps=3, batch_size=8, learning_rate=1e-2
    )
    after = classifier.network.state_dict()
    assert note["points"] == 8 * 6
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all(key.startswith("head") for key in changed)


def test_a_field_that_came_later_leaves_the_names_of_finished_runs_alone(
    blobs: ImageSet, setting: Setting, build: Build, checkpoint: Path
) -> None:
    laboratory = build(blobs, setting)
    plain = laboratory.training_of(parse_arm("gan@1+every-class"), 0)
    apart = laboratory.training_of(parse_arm("gan@1+every-class+own-statistics"), 0)
    assert "synthetic_statistics" not in plain
    assert apart == {**plain, "synthetic_statistics": "own"}
    assert TrainingConfig(**plain).synthetic_statistics == "shared"


def test_runs_whose_numbers_a_changed_rule_touches_have_names_of_their_own(
    blobs: ImageSet, setting: Setting, build: Build, checkpoint: Path
) -> None:
    """All others are found again in folders that were begun before."""
    twins = dataclasses.replace(blobs, mirror_pairs=(("rare", "long"),))

    def images_of(images: ImageSet, name: str) -> dict[str, object]:
        unit = _planner(build(images, setting), checkpoint).unit(parse_arm(name), 0, 0)
        assert unit.images is not None
        return unit.images

    before = {"kind", "count", "seed", "keep_above", "instead", "generator"}
    assert set(images_of(twins, "gan@1+filtered")) - before == {"copies_of"}
    assert set(images_of(blobs, "balanced+mixup+gan@1+weight")) - before == {"mixed_weights"}
    assert set(images_of(blobs, "balanced+cutmix+placebo@1+weight")) - before == {"mixed_weights"}
    for name in ("gan@1+filtered", "gan@1+weight", "balanced+mixup+gan@1",
                 "balanced+mixup+gan@1+weight@1"):  # fmt: skip
        assert set(images_of(blobs, name)) == before
    assert set(images_of(twins, "gan@1")) == before


def test_the_precision_of_a_run_is_what_its_name_says(
    blobs: ImageSet, setting: Setting, build: "partial[Laboratory]", checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A folder may be begun on a processor with matrix units and gone on with elsewhere."""
    used = []

    def train(*sets: Any, **options: Any) -> Any:
        used.append(sets[2].precision)
        return build.keywords["train"](*sets, **options)

    laboratory = Laboratory(blobs, setting, train=train)
    for pays, named, trained in ((True, "bfloat16", "bfloat16"), (False, "auto", "float32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", partial(bool, pays))
        unit = _planner(laboratory, checkpoint).unit(parse_arm("plain"), 0, 0)
        assert unit.training["precision"] == named
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", partial(bool, not pays))
        laboratory.run(unit)
        assert used[-1] == trained


def test_a_selector_trains_with_the_threads_and_by_the_name_of_its_device(
    blobs: ImageSet, setting: Setting, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    laboratory = build(blobs, setting)
    laboratory.selector(0, None)
    assert threads == [setting.threads]
    laboratory.device = torch.device("cuda")
    laboratory.selector(0, None)
    assert len(list((setting.folder / "selectors").iterdir())) == 2


def test_arms_that_leave_one_class_or_lack_one_are_refused(
    blobs: ImageSet, setting: Setting, build: Build
) -> None:
    two = dataclasses.replace(
        blobs.select(np.flatnonzero(blobs.labels < 2)), class_names=("rare", "round")
    )
    with pytest.raises(InputError, match=r"gan@1.only leaves real images of one class only"):
        refuse_small(build(two, setting), [parse_arm("gan@1+only")], [None])
    refuse_small(build(blobs, setting), [parse_arm("gan@1+only")], [None])
    laboratory = build(blobs, dataclasses.replace(setting, folds=4))
    arms = [parse_arm("gan@1+every-class")]
    with pytest.raises(InputError, match="use --gan-scope all"):
        refuse_sizes(laboratory, arms, 4, "class")
    refuse_sizes(laboratory, arms, 4, "all")
    refuse_sizes(laboratory, [parse_arm("gan@1")], 4, "class")


def test_what_is_usable_is_judged_by_the_images_that_are_kept(
    blobs: ImageSet, setting: Setting, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest class is small once most of its images are held back."""
    laboratory = build(blobs, dataclasses.replace(setting, class_index=1, folds=2))
    arms = [parse_arm(name) for name in ("plain", "gan@1", "gan@balance")]
    assert [arm.name for arm in usable_arms(arms, laboratory)] == ["plain", "gan@1"]
    assert usable_arms(arms, laboratory, 10) == arms
    few = len(laboratory.folds(10)[0].train)
    training = {**setting.training, "steps": 1, "batch_size": 10 * few}
    own = dataclasses.replace(setting, class_index=1, folds=2, training=training)
    capsys.readouterr()
    warn_of_short_trainings(build(blobs, own), 10)
    assert capsys.readouterr().err == ""
