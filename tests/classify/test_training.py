"""Training: deterministic, resumable, and honest about which weights it reports."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classify.early_stopping import BestWeights, ValidationScore, score_validation
from classify.features import load_extractor, train_extractor
from classify.optimisation import schedule_factor
from classify.resume import save_state
from classify.training import (
    TrainedClassifier,
    TrainingConfig,
    _Run,
    load_classifier,
    train_classifier,
)
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory

FAST = TrainingConfig(steps=12, batch_size=16, validate_every=4)


def shrink(image_set: ImageSet, size: int = 16) -> ImageSet:
    small = torch.nn.functional.avg_pool2d(image_set.pixels.float(), image_set.size // size)
    return dataclasses.replace(image_set, store=PixelsInMemory(small.round().to(torch.uint8)))


@pytest.fixture(scope="module")
def little(tiny_set: ImageSet) -> ImageSet:
    """The tiny set at 16 pixels."""
    return shrink(tiny_set)


@pytest.fixture(scope="module")
def trained(little: ImageSet) -> TrainedClassifier:
    return fit(little, FAST)


def fit(image_set: ImageSet, config: TrainingConfig, **options: object) -> TrainedClassifier:
    return train_classifier(
        image_set.side("train"),
        image_set.side("validation"),
        config,
        progress=False,
        **options,  # type: ignore[arg-type]
    )


def weights_of(classifier: TrainedClassifier) -> dict[str, torch.Tensor]:
    return classifier.network.state_dict()


def test_the_small_network_learns_the_tiny_set(tiny_set: ImageSet) -> None:
    tiny_set = shrink(tiny_set, 32)
    classifier = fit(tiny_set, TrainingConfig(steps=50, batch_size=32, validate_every=25))
    test = tiny_set.side("test")
    right = classifier.probabilities(test).argmax(dim=1).numpy() == test.labels
    assert right.mean() > 0.8


def test_the_same_seed_gives_the_same_bytes(little: ImageSet, trained: TrainedClassifier) -> None:
    torch.manual_seed(99)  # the global state must not matter
    again = fit(little, FAST)
    assert all(torch.equal(a, weights_of(again)[name]) for name, a in weights_of(trained).items())


def test_training_leaves_the_global_random_state_alone(little: ImageSet) -> None:
    before = torch.get_rng_state()
    fit(little, dataclasses.replace(FAST, steps=2))
    assert torch.equal(before, torch.get_rng_state())


def test_another_seed_gives_other_weights(little: ImageSet, trained: TrainedClassifier) -> None:
    other = fit(little, dataclasses.replace(FAST, seed=1))
    assert any(not torch.equal(a, weights_of(other)[n]) for n, a in weights_of(trained).items())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "focal"},
        {"balance": "none", "loss": "logit-adjusted"},
        {"balance": "effective-number", "label_smoothing": 0.1},
        {"mixup": 0.2, "cutmix": 1.0},
        {"augment": "physical", "augment_strength": 1.0},
        {"model": "small-d4", "schedule": "step"},
        {"retrain_head_steps": 6, "balance": "none"},
        {"layer_decay": 0.5, "schedule": "constant"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_option_trains_to_finite_probabilities(
    little: ImageSet, changes: dict[str, object]
) -> None:
    config = dataclasses.replace(FAST, steps=8, **changes)  # type: ignore[arg-type]
    classifier = fit(little, config)
    probabilities = classifier.probabilities(little)
    assert torch.isfinite(probabilities).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(little)).double())
    assert classifier.history[-1]["step"] == 8


def test_crops_are_cut_in_training_and_centred_after_it(tiny_set: ImageSet) -> None:
    images = shrink(tiny_set, 32)
    config = dataclasses.replace(FAST, steps=4, crops=28)
    classifier = fit(images, config)
    assert classifier.specification.size == 28
    assert classifier.size == 32
    centre = classifier.network_input(images.pixels[:2])
    expected = classifier.normalisation(images.pixels[:2])[..., 2:30, 2:30]
    assert torch.equal(centre, expected)
    with pytest.raises(InputError, match="--crops 40 is larger"):
        fit(images, dataclasses.replace(FAST, crops=40))


def test_checkpoint_gives_the_same_logits(
    little: ImageSet, trained: TrainedClassifier, tmp_path: Path
) -> None:
    trained.save(tmp_path / "run")
    loaded = load_classifier(tmp_path / "run")
    assert torch.equal(loaded.logits(little), trained.logits(little))
    assert loaded.config == trained.config
    assert loaded.class_names == little.class_names
    with pytest.raises(InputError, match="exists"):
        trained.save(tmp_path / "run")


def test_normalisation_is_recorded_and_applied_once(
    little: ImageSet, trained: TrainedClassifier
) -> None:
    scaled = trained.normalisation(little.side("train").pixels)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    # The same pixels as a set and as a tensor: nothing is divided a second time.
    assert torch.equal(trained.logits(little), trained.logits(little.pixels))


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, trained: TrainedClassifier) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_classifier(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        load_classifier(tmp_path / "empty")
    trained.save(tmp_path / "cut")
    weights = tmp_path / "cut" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        load_classifier(tmp_path / "cut")


class TestBestWeights:
    def test_restored_weights_are_bitwise_those_that_were_scored(self) -> None:
        network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
        best = BestWeights("loss")
        labels = ImageSet(
            PixelsInMemory(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)),
            np.array([0, 1, 2]), ("a", "b", "c"), np.array(["0", "1", "2"]),
        )  # fmt: skip
        good = score_validation(torch.eye(3) * 5, labels)
        bad = score_validation(-torch.eye(3) * 5, labels)
        best.look(1, good, network)
        scored = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)  # in place, as an optimiser does
        network(torch.randn(8, 4))  # moves the running statistics too
        best.look(2, bad, network)
        best.restore(network)
        assert best.step == 1
        assert all(torch.equal(scored[n], t) for n, t in network.state_dict().items())

    def test_the_reported_score_is_that_of_the_kept_weights(
        self, little: ImageSet, trained: TrainedClassifier
    ) -> None:
        validation = little.side("validation")
        score = score_validation(trained.logits(validation), validation)
        assert score.as_log() == trained.record["training"]["kept_score"]
        best = max(entry["validation_balanced_accuracy"] for entry in trained.history)
        assert score.balanced_accuracy == best

    def test_patience_stops_early(self, little: ImageSet) -> None:
        config = dataclasses.replace(
            FAST, steps=200, validate_every=1, patience=2, learning_rate=1e-9
        )
        classifier = fit(little, config)
        training = classifier.record["training"]
        assert training["steps_made"] < 200
        assert training["steps_made"] == training["kept_step"] + 2

    def test_patience_ends_a_phase_and_not_the_ones_after_it(
        self, little: ImageSet, tmp_path: Path
    ) -> None:
        """Stopped beside synthetic images, the run still trains on real ones alone."""
        config = dataclasses.replace(
            FAST, steps=20, validate_every=1, patience=2, learning_rate=1e-9, synthetic_until=0.6
        )
        train = little.side("train")
        steps = [entry["step"] for entry in fit(little, config, synthetic=train).history]
        assert steps[-1] > 12
        assert len(steps) < 20
        assert 12 not in steps  # the first phase was cut short, the second began at its place
        interrupt_at(steps[2], little, config, tmp_path, synthetic=train)
        resumed = fit(little, config, synthetic=train, state_folder=tmp_path)
        assert [entry["step"] for entry in resumed.history] == steps

    def test_patience_that_can_never_end_is_refused(self, little: ImageSet) -> None:
        with pytest.raises(InputError, match="--best-by last"):
            fit(little, dataclasses.replace(FAST, patience=3, best_by="last"))


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_an_image_without_weight_teaches_nothing_through_a_partner(
    little: ImageSet, mixing: str
) -> None:
    train = little.side("train")
    weights = np.where(train.labels == 0, 0.0, 1.0)
    config = dataclasses.replace(FAST, symmetries=False, **{mixing: 0.5})
    run = _Run(train, None, config, None, weights, torch.device("cpu"))
    rows = torch.arange(len(train))
    _, targets, mixed, _ = run._batch(rows, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed, 1 - targets[:, 0])


def test_an_absent_class_is_no_zero_in_the_mean() -> None:
    image_set = ImageSet(
        PixelsInMemory(torch.zeros(4, 1, 2, 2, dtype=torch.uint8)),
        np.array([0, 0, 1, 1]), ("a", "b", "c"), np.arange(4).astype(str),
    )  # fmt: skip
    score = score_validation(torch.eye(3)[[0, 0, 1, 0]] * 9, image_set)
    assert np.isnan(score.recall[2])
    assert score.balanced_accuracy == 0.75
    assert score.as_log()["validation_recall"] == [1.0, 0.5, None]


class TestResume:
    @pytest.mark.parametrize("head_steps", [0, 8])
    def test_a_resumed_run_ends_in_the_same_bytes(
        self, little: ImageSet, tmp_path: Path, head_steps: int
    ) -> None:
        config = dataclasses.replace(
            FAST, steps=16, retrain_head_steps=head_steps, dropout=0.5, mixup=0.2
        )
        whole = fit(little, config)
        interrupt_at(12, little, config, tmp_path)
        resumed = fit(little, config, state_folder=tmp_path)
        assert all(torch.equal(t, weights_of(resumed)[n]) for n, t in weights_of(whole).items())
        assert [e["step"] for e in resumed.history] == [e["step"] for e in whole.history]

    @pytest.mark.parametrize("stopped_at", [3, 8, 16])
    def test_ctrl_c_leaves_a_run_that_ends_as_if_it_had_not_been(
        self, little: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
    ) -> None:
        """Between two looks, at a look, and at the last step of all."""
        config = dataclasses.replace(FAST, steps=16, validate_every=8)
        whole = fit(little, config)
        original = _Run._step

        def interrupted(run: _Run, step: int, *rest: Any) -> torch.Tensor:
            if step + 1 == stopped_at:
                os.kill(os.getpid(), signal.SIGINT)
            return original(run, step, *rest)

        monkeypatch.setattr(_Run, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(little, config, state_folder=tmp_path)
        monkeypatch.setattr(_Run, "_step", original)
        assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == stopped_at
        resumed = fit(little, config, state_folder=tmp_path)
        assert all(torch.equal(t, weights_of(resumed)[n]) for n, t in weights_of(whole).items())
        assert resumed.record["training"] == whole.record["training"]
        told = [
            [{k: v for k, v in entry.items() if k != "images_per_second"} for entry in run.history]
            for run in (resumed, whole)
        ]
        assert told[0] == told[1]

    def test_other_settings_are_refused_by_name(self, little: ImageSet, tmp_path: Path) -> None:
        interrupt_at(4, little, FAST, tmp_path)
        with pytest.raises(InputError, match=r"learning_rate was 0.002, is 0.1"):
            fit(little, dataclasses.replace(FAST, learning_rate=0.1), state_folder=tmp_path)

    def test_another_split_of_the_same_counts_is_refused(
        self, little: ImageSet, tmp_path: Path
    ) -> None:
        """Test images of the new split would have been trained on, and nobody would know."""
        interrupt_at(4, little, FAST, tmp_path)
        assert little.split is not None
        split = little.split.copy()
        rows = np.flatnonzero(little.labels == 1)
        train, test = rows[split[rows] == 0][0], rows[split[rows] == 2][0]
        split[[train, test]] = split[[test, train]]
        with pytest.raises(InputError, match="images that it learns from or chooses by"):
            fit(dataclasses.replace(little, split=split), FAST, state_folder=tmp_path)

    def test_a_damaged_state_is_refused(self, little: ImageSet, tmp_path: Path) -> None:
        (tmp_path / "state.pt").write_bytes(b"nothing")
        with pytest.raises(InputError, match="damaged"):
            fit(little, FAST, state_folder=tmp_path)


class _InterruptedError(Exception):
    pass


def interrupt_at(
    step: int, image_set: ImageSet, config: TrainingConfig, folder: Path, **options: object
) -> None:
    """Train until the state of ``step`` is written, then stop as if killed."""
    import classify.training

    def save_then_stop(run: _Run, at: int, to: Path) -> None:
        save_state(run, at, to)
        if at == step:
            raise _InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify.training, "save_state", save_then_stop)
        with pytest.raises(_InterruptedError):
            fit(image_set, config, state_folder=folder, **options)


def test_synthetic_images_until_a_step_only(little: ImageSet) -> None:
    train = little.side("train")
    config = dataclasses.replace(FAST, steps=10, synthetic_until=0.4, synthetic_share=1.0)
    weights = np.ones(len(train))
    run = _Run(train, None, config, train, np.concatenate([weights, weights]), torch.device("cpu"))
    assert [(phase.first, phase.last) for phase in run.phases] == [(0, 4), (4, 10)]
    assert (run.phases[0].rows >= len(train)).all()
    assert (run.phases[1].rows < len(train)).all()


def test_a_head_stage_begins_once_where_its_last_steps_are_on_real_images(
    little: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    original = _Run._begin_head_stage

    def count(run: _Run) -> None:
        begun.append(1)
        original(run)

    monkeypatch.setattr(_Run, "_begin_head_stage", count)
    config = dataclasses.replace(FAST, steps=12, retrain_head_steps=6, synthetic_until=0.75)
    fit(little, config, synthetic=little.side("train"))
    assert len(begun) == 1


def weights_and_prior(
    image_set: ImageSet, config: TrainingConfig, synthetic: ImageSet | None, monkeypatch: Any
) -> tuple[np.ndarray, np.ndarray]:
    """What the loss of the first phase is made of."""
    import classify.phases

    seen: list[tuple[np.ndarray, np.ndarray]] = []
    original = classify.phases.loss_for

    def keep(config: Any, weights: torch.Tensor, prior: torch.Tensor) -> Any:
        seen.append((weights.numpy(), prior.numpy()))
        return original(config, weights, prior)

    monkeypatch.setattr(classify.phases, "loss_for", keep)
    count = len(image_set) + (0 if synthetic is None else len(synthetic))
    _Run(image_set, None, config, synthetic, np.ones(count), torch.device("cpu"))
    return seen[0]


def test_class_weights_follow_what_is_drawn(
    little: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a share of synthetic images the real frequencies are drawn, however many were added."""
    train = little.side("train")
    rare = train.of_classes([0])
    many = rare.select(np.tile(np.arange(len(rare)), 20))
    config = dataclasses.replace(FAST, balance="class-weights", symmetries=False)
    shared = dataclasses.replace(config, synthetic_share=0.5)
    plain, _ = weights_and_prior(train, config, None, monkeypatch)
    with_share, _ = weights_and_prior(train, shared, many, monkeypatch)
    np.testing.assert_allclose(with_share, plain)
    in_one_pool, _ = weights_and_prior(train, config, many, monkeypatch)
    assert in_one_pool[0] < 0.3 * plain[0]


def test_mirrored_twins_weigh_alike_where_symmetries_swap_them(
    little: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = little.class_names
    train = dataclasses.replace(little, mirror_pairs=((names[0], names[1]),)).side("train")
    counts = train.counts()
    assert counts[0] != counts[1]
    config = dataclasses.replace(FAST, balance="class-weights", symmetries=True)
    weights, _ = weights_and_prior(train, config, None, monkeypatch)
    assert weights[0] == pytest.approx(weights[1])
    drawn = dataclasses.replace(config, balance="none", loss="logit-adjusted")
    _, prior = weights_and_prior(train, drawn, None, monkeypatch)
    assert prior[0] == pytest.approx(prior[1]) == (counts[0] + counts[1]) / 2 / counts.sum()
    still, _ = weights_and_prior(
        train, dataclasses.replace(config, symmetries=False), None, monkeypatch
    )
    assert still[0] / still[1] == pytest.approx(counts[1] / counts[0])


def test_a_training_that_diverges_keeps_the_best_weights_and_says_so(
    little: ImageSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = _Run._step

    def diverge(run: _Run, step: int, *rest: Any) -> torch.Tensor:
        loss = original(run, step, *rest)
        if step >= 6:
            with torch.no_grad():
                next(run.network.parameters()).fill_(torch.nan)
        return loss

    monkeypatch.setattr(_Run, "_step", diverge)
    kept = fit(little, dataclasses.replace(FAST, best_by="loss"))
    assert all(torch.isfinite(t).all() for t in weights_of(kept).values() if t.is_floating_point())
    assert kept.record["training"]["kept_step"] == 4
    assert kept.record["training"]["diverged_at"] == 8
    assert "not finite at step 8" in capsys.readouterr().err


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    network = torch.nn.Linear(2, 2)
    best = BestWeights("loss")
    best.look(1, score_of(0.5), network)
    best.look(2, score_of(float("nan")), network)
    assert best.step == 1


def score_of(loss: float) -> ValidationScore:
    return ValidationScore(np.array([0.5, 0.5]), 0.5, loss, 0.5)


def test_an_image_of_weight_zero_teaches_nothing(little: ImageSet) -> None:
    """Other labels on images of weight zero give the same weights."""
    train = little.side("train")
    wrong = dataclasses.replace(train, labels=(train.labels + 1) % 3)
    config = dataclasses.replace(FAST, steps=4, balance="none", best_by="last")
    results = []
    for synthetic in (train, wrong):
        results.append(
            train_classifier(
                train, None, config, synthetic=synthetic,
                synthetic_weights=np.zeros(len(train)), progress=False,
            )
        )  # fmt: skip
    one, two = (weights_of(result) for result in results)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_mirrored_spirals_take_the_mirror_label(rng: np.random.Generator) -> None:
    """A set whose classes differ in handedness alone is learnt with symmetries on."""
    pixels = rng.integers(0, 30, (60, 1, 16, 16))
    labels = np.repeat([0, 1], 30)
    pixels[:, 0, 2:5, 2:8] += 180  # the letter L, and its mirror image
    pixels[:, 0, 2:12, 2:5] += 180
    pixels = pixels.clip(0, 255).astype(np.uint8)
    pixels[labels == 1] = pixels[labels == 1][..., ::-1]
    handed = ImageSet(
        PixelsInMemory(torch.from_numpy(np.ascontiguousarray(pixels))),
        labels, ("clockwise", "anticlockwise"), np.arange(60).astype(str),
    )  # fmt: skip
    assert handed.mirror_pairs == (("clockwise", "anticlockwise"),)
    config = TrainingConfig(steps=60, batch_size=16, best_by="last", learning_rate=5e-3)
    classifier = train_classifier(handed, None, config, progress=False)
    right = classifier.probabilities(handed).argmax(dim=1).numpy() == labels
    assert right.mean() > 0.95


def test_sets_that_do_not_fit_are_refused(little: ImageSet, tiny_set: ImageSet) -> None:
    train = little.side("train")
    with pytest.raises(InputError, match="64x64x3"):
        fit(little, FAST, synthetic=tiny_set.side("train"))
    renamed = dataclasses.replace(train, class_names=("a", "b", "c"))
    with pytest.raises(InputError, match="classes a, b, c"):
        fit(little, FAST, synthetic=renamed)
    with pytest.raises(InputError, match="at least 2 classes"):
        train_classifier(train.of_classes(["round"]), None, FAST, progress=False)


def test_a_frozen_trunk_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="learnt nothing"):
        TrainingConfig(transfer="frozen")


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [("cosine", 0.2, 0.5, 0.0), ("constant", 0.2, 1.0, 1.0), ("step", 0.2, 1.0, 0.01)],
)
def test_schedules(schedule: str, first: float, middle: float, last: float) -> None:
    steps = 100
    assert schedule_factor(schedule, 0, steps) == pytest.approx(first)  # type: ignore[arg-type]
    halfway = schedule_factor(schedule, 52, steps)  # type: ignore[arg-type]
    assert halfway == pytest.approx(middle, abs=0.02)
    assert schedule_factor(schedule, 99, steps) == pytest.approx(last, abs=0.002)  # type: ignore[arg-type]


def test_classifier_features_serve_the_fid_room(little: ImageSet, tmp_path: Path) -> None:
    extractor = train_extractor(little.side("train"), seed=0, progress=False, steps=4)
    features = extractor(little.pixels)
    assert features.shape == (len(little), extractor.dimensions) == (120, 128)
    assert features.dtype == torch.float32
    assert extractor.name == "classifier"
    assert len(extractor.weights_sha256) == 64
    extractor.classifier.save(tmp_path / "judge")
    loaded = load_extractor(str(tmp_path / "judge"), None, "cpu")
    assert torch.equal(loaded(little.pixels), features)


@pytest.mark.parametrize("transfer", ["frozen", "last", "all"])
def test_transfer_from_real_weights(real_data, little: ImageSet, transfer: str) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("timm")
    path = real_data("weights/mobilenetv2_100_same_imagenet1001.safetensors")
    config = dataclasses.replace(
        FAST, model="mobilenetv2_100", weights=str(path), transfer=transfer,
        steps=2, batch_size=4, learning_rate=1e-3, best_by="last",
    )  # fmt: skip
    train = dataclasses.replace(little, split=None).select(np.arange(0, 120, 10))
    big = torch.nn.functional.interpolate(train.pixels.float(), 32).to(torch.uint8)
    train = dataclasses.replace(train, store=PixelsInMemory(big))
    classifier = train_classifier(train, None, config, progress=False)
    from classify.networks.pretrained import read_weights

    given, own = read_weights(path), weights_of(classifier)
    first_moved = not torch.equal(own["trunk.body.conv_stem.weight"], given["conv_stem.weight"])
    last_moved = not torch.equal(own["trunk.body.conv_head.weight"], given["conv_head.weight"])
    assert (first_moved, last_moved) == (transfer == "all", transfer != "frozen")
    assert torch.equal(own["trunk.body.bn1.running_mean"], given["bn1.running_mean"])
    assert classifier.normalisation.mean == (0.0, 0.0, 0.0)
    assert classifier.specification.same_padding
