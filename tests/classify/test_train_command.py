"""``classify-train`` from the command line: what it writes, prints and refuses."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import classify.training
from classify.checkpoint import load_classifier, read_description
from classify.metrics import evaluate
from classify.resume import save_state
from classify.train import ClassifyTrain, run
from classify.train_command import open_data, training_part
from classify.validation_parts import hold_out_calibration
from galaxies.errors import InputError
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet

FAST = ["--steps", "6", "--batch-size", "8", "--validate-every", "3"]


def test_a_checkpoint_is_whole(checkpoint: Path, little_set: ImageSet) -> None:
    names = {path.name for path in checkpoint.iterdir()}
    assert names >= {
        "weights.safetensors", "config.json", "log.jsonl", "metrics.json", "card.md", "plots",
        "reference.safetensors", "examples.h5", "test_predictions.csv", "state.pt", "samples",
    }  # fmt: skip
    pictures = {path.name for path in (checkpoint / "plots").iterdir()}
    assert pictures >= {"curves.png", "confusion_matrix.png", "ranking_curves.png"}
    description = read_description(checkpoint)
    assert description["class_names"] == list(little_set.class_names)
    assert description["record"]["data"]["counts"]["test"] == {
        "double": 6, "round": 15, "elongated": 9,
    }  # fmt: skip
    assert description["record"]["training"]["parameters"] == 486_035
    assert description["record"]["command"]["calibration_share"] > 0  # flags beyond training
    card = (checkpoint / "card.md").read_text()
    assert "| double | 12 | 6 | 6 |" in card
    assert "double has 6 test images" in card


def test_the_reported_metrics_are_those_of_the_stored_checkpoint(
    checkpoint: Path, little_set: ImageSet
) -> None:
    classifier = load_classifier(checkpoint)
    test = little_set.side("test")
    found = evaluate(classifier.probabilities(test).numpy(), test.labels, test.class_names)
    assert found.as_json() == json.loads((checkpoint / "metrics.json").read_text())
    assert found.balanced_accuracy > 0.6


def test_the_state_joins_the_checkpoint_and_no_work_folder_stays(checkpoint: Path) -> None:
    assert not list(checkpoint.parent.glob(".*"))
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    assert state["step"] == state["config"]["steps"]


def test_json_is_one_object_on_stdout(
    little_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["--data", str(little_path), "--out", str(out), "--json", *FAST]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["checkpoint"] == str(out)
    assert [m["name"] for m in printed["metrics"]["per_class"]] == ["double", "round", "elongated"]
    assert len(printed["coverage"]["per_class"]) == 3


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ("--model cavanagh-c2 --size 100 --channels 1 --classes 4", 2_393_860),
        ("--model custom-cnn-final --size 64 --channels 3 --classes 10", 2_619_978),
    ],
)
def test_dry_run_counts_parameters_without_data(
    arguments: str, parameters: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments.split(), "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["parameters"] == printed["trainable_parameters"] == parameters


def test_dry_run_reads_the_shape_of_the_data(
    little_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--data", str(little_path), "--dry-run"]) == 0
    assert "small-d4 for 16x16x3, 3 classes: 136,494 parameters" in capsys.readouterr().out


def test_dry_run_counts_what_a_frozen_trunk_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--dry-run --json --size 32 --channels 3 --classes 5 --model mobilenetv3-small"
    assert run([*arguments.split(), "--transfer", "frozen", "--weights", "some.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out)["trainable_parameters"] == 1024 * 5 + 5


def test_list_models_names_every_published_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--list-models"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"small", "custom-cnn-final", "unam-cnn", "cavanagh-c2", "vgg16"} <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--data absent.h5", "absent.h5 does not exist"),
        ("--model resnet5000", "no network 'resnet5000'"),
        ("--steps 0", "--steps must be at least 1"),
        ("--leave-out quasar", "there is no class 'quasar'"),
        ("--model cavanagh-c2", "at least 38 pixels"),
        ("--device tpu", "tpu"),
        ("--transfer frozen", "learnt nothing"),
        ("--resume", "no interrupted run"),
        ("--seed -1", "--seed must be from 0 to 4294967295, got -1"),
        ("--seed 99999999999999999999999", "--seed must be from 0 to"),
        ("--model mobilenetv2 --weights absent.safetensors", "absent.safetensors does not exist"),
        ("--synthetic absent", "absent does not exist"),
        ("--epochs 50", "--epochs: for tables only"),
        ("--epochs 200", "--steps says how long"),
        ("--resample smote --columns g", "for tables only"),
        ("--model random-forest", "takes a table of photometry"),
        ("--examples 1", "--examples must be 0 or at least 2"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: str,
    complaint: str,
    little_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "checkpoints" / "run"
    data = [] if "--data" in arguments else ["--data", str(little_path)]
    assert run([*data, "--out", str(out), *FAST, *arguments.split()][:100]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("classify-train: ")
    assert complaint in error
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_hand_survives_overwrite(
    little_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    assert run(["--data", str(little_path), "--out", str(tmp_path), "--overwrite", *FAST]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_existing_output_is_refused(
    checkpoint: Path, little_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (checkpoint / "weights.safetensors").read_bytes()
    assert run(["--data", str(little_path), "--out", str(checkpoint), *FAST]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (checkpoint / "weights.safetensors").read_bytes() == before


def test_an_interrupted_run_resumes_to_the_same_weights(
    little_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--data", str(little_path), "--steps", "9", "--batch-size", "8",
              "--validate-every", "3"]  # fmt: skip
    assert run([*common, "--out", str(tmp_path / "whole")]) == 0

    def save_then_interrupt(state: object, step: int, folder: Path) -> None:
        save_state(state, step, folder)  # type: ignore[arg-type]
        if step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(classify.training, "save_state", save_then_interrupt)
        assert run([*common, "--out", str(tmp_path / "cut")]) == 130
    assert not (tmp_path / "cut").exists()
    # The same command without --resume must not throw the work away in silence.
    capsys.readouterr()
    assert run([*common, "--out", str(tmp_path / "cut")]) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert run([*common, "--out", str(tmp_path / "cut"), "--resume"]) == 0
    one, two = (load_classifier(tmp_path / name) for name in ("whole", "cut"))
    state = two.network.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in one.network.state_dict().items())


def test_a_set_without_a_test_side_is_refused_before_the_training(
    little_set: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert little_set.split is not None
    split = np.where(little_set.split == 2, 0, little_set.split).astype(np.int8)
    write_hdf5(dataclasses.replace(little_set, split=split), tmp_path / "set.h5")
    arguments = ["--data", str(tmp_path / "set.h5"), "--steps", "2", "--out", str(tmp_path / "out")]
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert "the test side of the split of" in error
    assert "classify-train:" in error
    assert "step" not in error  # no bar: nothing was trained


def test_a_leaking_synthetic_set_is_refused(
    little_set: ImageSet, little_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = little_set.side("test")
    synthetic = dataclasses.replace(
        little_set.side("train"),
        provenance={"generator": {"checkpoint": "x"}},
        training_fingerprints=test.fingerprints(),
        training_ids=test.ids,
    )
    write_hdf5(synthetic, tmp_path / "fake.h5")
    arguments = ["--data", str(little_path), "--synthetic", str(tmp_path / "fake.h5")]
    assert run([*arguments, "--out", str(tmp_path / "run"), *FAST]) == 2
    assert "trained on 30 of the 30 test images" in capsys.readouterr().err


def test_synthetic_images_are_recorded(
    little_set: ImageSet, little_path: Path, tmp_path: Path
) -> None:
    train = little_set.side("train").of_classes(["double"])
    synthetic = dataclasses.replace(
        train,
        split=None,
        provenance={"generator": {"checkpoint": "x"}},
        training_fingerprints=train.fingerprints(),
        training_ids=train.ids,
    )
    write_hdf5(synthetic, tmp_path / "fake.h5")
    arguments = ["--data", str(little_path), "--synthetic", str(tmp_path / "fake.h5")]
    assert run([*arguments, "--out", str(tmp_path / "run"), *FAST]) == 0
    recorded = load_classifier(tmp_path / "run").record["data"]["synthetic"]
    assert recorded["images"] == 12


def test_left_out_classes_are_renumbered(little_path: Path) -> None:
    left = open_data(ClassifyTrain(data=str(little_path), leave_out=("round",)))
    assert left.class_names == ("double", "elongated")
    assert np.bincount(left.labels).tolist() == [24, 36]


def test_the_training_part_of_the_command_is_what_the_checkpoint_keeps(checkpoint: Path) -> None:
    config = load_classifier(checkpoint).config
    assert type(config) is type(training_part(ClassifyTrain()))
    assert config.steps == 50


def test_contradicting_flags_are_refused() -> None:
    with pytest.raises(InputError, match="choose one"):
        ClassifyTrain(overwrite=True, resume=True)


@pytest.mark.parametrize("combine", ["mean", "stack"])
def test_an_ensemble_is_a_checkpoint_that_predicts(
    combine: str, checkpoint: Path, little_path: Path, little_set: ImageSet, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    second = tmp_path / "second"
    arguments = ["--data", str(little_path), "--out", str(second), *FAST]
    assert run([*arguments, "--model", "small-d4", "--seed", "1"]) == 0
    out = tmp_path / "both"
    capsys.readouterr()
    assert run(["--data", str(little_path), "--out", str(out), "--combine", combine,
                "--ensemble", str(checkpoint), str(second)]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "member small-d4: balanced accuracy" in printed
    from classify.ensemble import Ensemble, load_any

    loaded = load_any(out)
    assert isinstance(loaded, Ensemble)
    probabilities = loaded.probabilities(little_set)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(120).double())
    members = [load_classifier(path).probabilities(little_set) for path in (checkpoint, second)]
    if combine == "mean":
        scores = ((members[0] + members[1]) / 2).log() / loaded.temperature
        torch.testing.assert_close(probabilities, torch.softmax(scores, dim=1))
    _, calibration = hold_out_calibration(little_set.side("validation"), 0.5)
    assert calibration is not None
    found = float(nll(loaded.probabilities(calibration), calibration.labels))
    for temperature in (loaded.temperature / 1.2, loaded.temperature * 1.2, 1.0):
        other = dataclasses.replace(loaded, temperature=temperature).probabilities(calibration)
        assert found <= float(nll(other, calibration.labels)) + 1e-6


def nll(probabilities: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.nll_loss(probabilities.log(), torch.from_numpy(labels))


def test_members_chosen_by_what_calibrates_the_ensemble_are_refused(
    checkpoint: Path, little_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(little_path), "--out", str(tmp_path / "both")]
    arguments += ["--calibration-share", "0.3", "--ensemble", str(checkpoint), str(checkpoint)]
    assert run(arguments) == 2
    assert "--calibration-share 0.5" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_members_trained_on_other_images_are_refused(
    checkpoint: Path, little_set: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert little_set.split is not None
    other = dataclasses.replace(little_set, split=(little_set.split + 1) % 3)
    write_hdf5(other, tmp_path / "other.h5")
    arguments = ["--data", str(tmp_path / "other.h5"), "--out", str(tmp_path / "both")]
    assert run([*arguments, "--ensemble", str(checkpoint), str(checkpoint)]) == 2
    assert "trained on other images" in capsys.readouterr().err


def test_curves_for_tensorboard(little_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["--data", str(little_path), *FAST, "--tensorboard"]
    assert run([*words, "--out", str(tmp_path / "made")]) == 0
    events = EventAccumulator(str(tmp_path / "made" / "tensorboard")).Reload()
    assert "train_loss" in events.Tags()["scalars"]


def test_without_tensorboard_nothing_is_trained_first(
    little_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = ["--data", str(little_path), "--tensorboard", "--out", str(tmp_path / "made")]
    assert run(words) == 2
    assert "galaxy-augment[tensorboard]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_is_absent_from_a_side_is_named(
    little_set: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the mean recall over the other classes hides."""
    assert little_set.split is not None
    double, elongated = (little_set.class_names.index(n) for n in ("double", "elongated"))
    split = little_set.split.copy()
    split[(little_set.labels == double) & (split == 1)] = 2
    split[(little_set.labels == elongated) & (split == 0)] = 2
    write_hdf5(dataclasses.replace(little_set, split=split), tmp_path / "lame.h5")
    out = tmp_path / "run"
    assert run(["--data", str(tmp_path / "lame.h5"), "--out", str(out), *FAST]) == 0
    told = capsys.readouterr().err
    assert "no validation image of double: it has no part in choosing" in told
    assert "no training image of elongated: the classifier can never find that" in told
    assert not any(entry["validation_recall"][double] for entry in load_classifier(out).history)
