"""classify-train and classify-predict on a table: files, streams, statuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.predict import run as predict
from classify.tabular.algorithms import _folds_of_whole_rows
from classify.tabular.last_layer import _gauss_newton, laplace_samples, with_ones
from classify.train import run as train


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    count = 900
    labels = rng.choice(3, size=count, p=[0.5, 0.35, 0.15])
    colour = np.array([[0.0, 0], [1.2, 0.4], [-0.8, 0.9]])[labels] + rng.normal(0, 0.35, (count, 2))
    g = rng.normal(20, 1, count)
    columns = {
        "objid": 1237648720142401536 + np.arange(count),
        "u": g + colour[:, 0],
        "g": g,
        "r": g - colour[:, 1],
        "redshift": labels + rng.normal(0, 0.01, count),
        "class": np.array(["STAR", "GALAXY", "QSO"])[labels],
    }
    path = tmp_path_factory.mktemp("survey") / "survey.csv"
    rows = zip(*columns.values(), strict=True)
    text = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(text) + "\n")
    return path


@pytest.fixture(scope="module")
def checkpoint(survey: Path) -> Path:
    out = survey.parent / "checkpoint"
    arguments = ["--data", str(survey), "--model", "logistic-regression", "--features", "colours"]
    assert train([*arguments, "--out", str(out), "--calibration-share", "0.6"]) == 0
    return out


def test_train_writes_all_that_a_network_writes(checkpoint: Path) -> None:
    names = {path.name for path in checkpoint.iterdir()}
    assert names >= {
        "config.json", "pipeline.skops", "calibration.safetensors", "card.md", "metrics.json",
        "test_predictions.csv", "plots", "log.jsonl",
    }  # fmt: skip
    card = (checkpoint / "card.md").read_text()
    assert "redshift (gives the class away)" in card
    assert "u-g" in card
    description = json.loads((checkpoint / "config.json").read_text())
    assert "redshift" not in description["feature_names"]
    assert description["record"]["metrics"]["accuracy"] > 0.85
    assert not list(checkpoint.parent.glob(".*"))  # no work folder stays


def test_redshift_is_used_only_when_forced_and_the_card_says_so(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(survey), "--model", "logistic-regression", "--json"]
    out = tmp_path / "forced"
    assert train([*arguments, "--allow-column", "redshift", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "redshift" in printed["features"]
    assert printed["metrics"]["accuracy"] > 0.99
    assert "Forced in" in (out / "card.md").read_text()


def test_predict_answers_in_json_and_csv(
    survey: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "answers.csv"
    arguments = [str(checkpoint), str(survey), "--json", "--csv", str(table), "--evaluate"]
    assert predict(arguments) == 0
    captured = capsys.readouterr()
    answers = json.loads(captured.out)
    assert len(answers) == 900
    assert answers[0]["file"] == "1237648720142401536"
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)
    assert set(answers[0]) >= {"file", "class", "probabilities", "set"}
    assert table.read_text().startswith("id,class,p_GALAXY,p_QSO,p_STAR,set,set_size\n")
    assert "sets hold the truth" in captured.err
    assert "not like the calibration rows" not in captured.err


def test_a_table_is_not_shared_over_dask(
    survey: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict([str(checkpoint), str(survey), "--dask", "tcp://127.0.0.1:8786"]) == 2
    assert "takes features, alone or beside images; leave out --dask" in capsys.readouterr().err


def test_predict_says_where_the_rows_are_shifted(
    survey: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *lines = survey.read_text().splitlines()
    faint = [line for line in lines if float(line.split(",")[2]) > 20.8]
    shifted = tmp_path / "faint.csv"
    shifted.write_text("\n".join([header, *faint]) + "\n")
    assert predict([str(checkpoint), str(shifted), "--json"]) == 0
    assert "not like the calibration rows" in capsys.readouterr().err


@pytest.fixture(scope="module")
def parted(survey: Path) -> tuple[Path, Path]:
    """A survey with columns of its own for name and split, and a classifier of it."""
    header, *lines = survey.read_text().splitlines()
    sides = ("train", "train", "train", "validation", "test")
    rows = [f"{line},galaxy{i},{sides[i % 5]}" for i, line in enumerate(lines)]
    path = survey.parent / "parted.csv"
    path.write_text("\n".join([f"{header},source,part", *rows]) + "\n")
    out = survey.parent / "of-parted"
    arguments = ["--data", str(path), "--model", "logistic-regression", "--out", str(out)]
    assert train([*arguments, "--id-column", "source", "--split-column", "part"]) == 0
    return path, out


def test_one_side_of_a_table_is_asked_alone_and_rows_keep_their_names(
    parted: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = parted
    assert predict([str(out), str(path), "--side", "test", "--json", "--evaluate"]) == 0
    captured = capsys.readouterr()
    answers = json.loads(captured.out)
    assert [answer["file"] for answer in answers] == [f"galaxy{i}" for i in range(4, 900, 5)]
    stored = json.loads((out / "metrics.json").read_text())
    assert f"accuracy {stored['accuracy']:.3f}" in captured.err


def test_a_side_of_a_table_without_a_split_is_refused(
    survey: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict([str(checkpoint), str(survey), "--side", "test"]) == 2
    assert "--side test" in capsys.readouterr().err


def test_a_shard_without_a_row_still_writes_its_table(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("\n".join(survey.read_text().splitlines()[:3]) + "\n")
    table = tmp_path / "answers.csv"
    assert predict([str(checkpoint), str(few), "--shard", "3/3", "--csv", str(table)]) == 0
    assert table.read_text() == "id,class,p_GALAXY,p_QSO,p_STAR,set,set_size\n"


def test_flags_that_cut_images_are_refused_for_a_table(
    survey: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict([str(checkpoint), str(survey), "--crop", "10", "--hdu", "1"]) == 2
    assert "leave out --crop, --hdu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "small"], "models for tables are"),
        (["--model", "random-forest", "--mixup", "0.2"], "--mixup: of no use for a table"),
        (["--model", "svm", "--steps", "800"], "--steps: of no use for a table"),
        (["--model", "svm", "--patience", "3", "--tensorboard"], "--patience, --tensorboard: of"),
        (["--model", "svm", "--class-column", "kind"], "has no column 'kind'"),
        (["--model", "svm", "--columns", "u", "redshift"], "--allow-column redshift"),
        (["--model", "svm", "--bayesian", "laplace"], "needs a dense network"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(
    arguments: list[str],
    words: str,
    survey: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert train(["--data", str(survey), "--out", str(out), *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said
    assert not out.exists()


def test_a_table_without_the_features_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("u,g\n20,19\n21,20\n")
    assert predict([str(checkpoint), str(other)]) == 2
    assert "needs the columns u, g, r" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "batch", "rate"),
    [
        ([], 256, 0.001),
        (["--batch-size", "64", "--learning-rate=0.002"], 64, 0.002),  # the defaults for images
        (["--batch_size", "32", "--learning-rate", "0.01"], 32, 0.01),
    ],
    ids=str,
)
def test_a_dense_network_trains_as_it_is_told(
    arguments: list[str], batch: int, rate: float, survey: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["--data", str(survey), "--model", "dense-small", "--epochs", "1", "--out", str(out)]
    assert train([*words, *arguments]) == 0
    dense = json.loads((out / "config.json").read_text())["training"]["dense"]
    assert (dense["batch_size"], dense["learning_rate"]) == (batch, rate)


def test_dry_run_counts_the_dense_network(survey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--data", str(survey), "--model", "dense", "--dry-run", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    # 3 features: 3 x 1024 + 1024, then as published.
    assert counts["parameters"] == 331_331 - 21 * 1024


@pytest.mark.slow
def test_a_joint_network_is_trained_and_asked_by_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from galaxies.hdf5 import write_hdf5
    from galaxies.image_set import ImageSet, PixelsInMemory

    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    pixels = rng.normal(60, 12, (240, 1, 16, 16))
    pixels[labels == 0, :, 5:11, 5:11] += 90
    features = rng.normal(size=(240, 2)) + np.array([[0, 0], [3, 0], [-3, 0]])[labels]
    write_hdf5(
        ImageSet(
            store=PixelsInMemory(torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))),
            labels=labels.astype(np.int64),
            class_names=("a", "b", "c"),
            ids=np.arange(240).astype(str),
            split=np.tile(np.repeat([0, 1, 2], 6), 14)[:240].astype(np.int8),
            features=features.astype(np.float32),
            feature_names=("g_r", "r_i"),
        ),
        tmp_path / "set.h5",
    )
    data, out = str(tmp_path / "set.h5"), str(tmp_path / "checkpoint")
    arguments = ["--data", data, "--model", "margformer-small", "--steps", "40", "--out", out]
    assert train([*arguments, "--batch-size", "32", "--validate-every", "20"]) == 0
    capsys.readouterr()
    assert predict([out, data, "--side", "test", "--json", "--evaluate"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers) == 78
    assert set(answers[0]["probabilities"]) == {"a", "b", "c"}


def test_the_columns_of_the_training_are_those_that_are_asked(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained without r, `u-g` is the only colour; the same table was once refused."""
    out = tmp_path / "checkpoint"
    arguments = ["--data", str(survey), "--model", "logistic-regression", "--features", "colours"]
    assert train([*arguments, "--exclude-column", "r", "--out", str(out)]) == 0
    header, *rows = survey.read_text().splitlines()
    blank = [line.rsplit(",", 1)[0] + "," for line in rows]  # new rows have no class yet
    (tmp_path / "new.csv").write_text("\n".join([header, *blank]) + "\n")
    capsys.readouterr()
    assert predict([str(out), str(tmp_path / "new.csv"), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers) == len(rows)
    assert predict([str(out), str(survey), "--shard", "2/3", "--json"]) == 0
    shard = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in shard] == [row["file"] for row in answers][1::3]


def test_rows_of_a_support_vector_machine_are_not_calibrated_on_their_copies() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    labels = np.repeat([0, 1], [45, 15])
    copied = np.concatenate([np.arange(60), np.tile(np.arange(45, 60), 2)])
    for fitted, judged in _folds_of_whole_rows(rows[copied], labels[copied], 0):
        assert not set(copied[fitted]) & set(copied[judged])


def test_posteriors_count_rows_as_the_loss_did() -> None:
    """A row of weight 3 is three rows."""
    head = torch.nn.Linear(2, 2)
    features = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 2
    counts = torch.where(labels == 0, 3, 1)
    every = torch.repeat_interleave(torch.arange(30), counts)
    repeated = laplace_samples(
        head, features[every], labels[every], torch.Generator().manual_seed(1)
    )
    weighted = laplace_samples(
        head, features, labels, torch.Generator().manual_seed(1), weights=counts.double()
    )
    assert repeated[1] == weighted[1]
    inputs = with_ones(features).double()
    answers = torch.softmax(inputs @ torch.randn(3, 2, dtype=torch.float64), dim=1)
    torch.testing.assert_close(
        _gauss_newton(answers[every], inputs[every], torch.ones(len(every))),
        _gauss_newton(answers, inputs, counts.double()),
    )


def test_a_column_that_no_row_of_a_table_has_is_missing_everywhere(
    tmp_path: Path, survey: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One source that was not detected in u is asked about as among many others."""
    lines = survey.read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True)) | {"u": ""}
    alone, among = tmp_path / "alone.csv", tmp_path / "among.csv"
    alone.write_text("\n".join([",".join(row), ",".join(row.values())]) + "\n")
    among.write_text("\n".join([",".join(row), ",".join(row.values()), *lines[2:]]) + "\n")
    answers = []
    for path in (alone, among):
        assert predict([str(checkpoint), str(path), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)[0])
    assert answers[0]["probabilities"] == pytest.approx(answers[1]["probabilities"])


def test_classes_that_sets_can_never_rule_out_are_named(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("\n".join(survey.read_text().splitlines()[:80]) + "\n")
    arguments = ["--data", str(few), "--model", "logistic-regression"]
    assert train([*arguments, "--out", str(tmp_path / "few")]) == 0
    assert "too few to rule it out at 0.9" in capsys.readouterr().out
