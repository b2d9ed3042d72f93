import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.experiment import command, table_laboratory
from classify.experiment.arms import parse_arm, parse_arms
from classify.experiment.cli import ExperimentConfig
from classify.experiment.division import Setting
from classify.experiment.paper import protocol_text
from classify.experiment.planner import Planner
from classify.experiment.record import ExperimentRecord
from classify.experiment.table_arms import TABLE_ARMS
from classify.experiment.table_laboratory import TableLaboratory, crossing_rows
from classify.tabular.options import ColumnOptions
from galaxies.errors import InputError
from galaxies.tables import Table, read_table, row_units, split_table

COUNTS = (40, 160, 100)
NAMES = ("QSO", "GALAXY", "STAR")


def _rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping normal clouds in four magnitudes, the first one rare."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), COUNTS)
    centres = np.array([[1.2, 0.0, 0.3, 0.0], [0.0, 0.8, 0.0, 0.3], [0.0, -0.8, -0.3, 0.0]])
    features = 18 + centres[labels] + random.normal(0, 0.8, (len(labels), 4))
    features[random.random(features.shape) < 0.02] = np.nan
    return features, labels


@pytest.fixture
def csv_path(tmp_path: Path) -> Path:
    features, labels = _rows()
    path = tmp_path / "sources.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["objid", "u", "g", "r", "i", "redshift", "class"])
        for number, (row, label) in enumerate(zip(features, labels, strict=True)):
            cells = ["" if np.isnan(v) else f"{v:.6f}" for v in row]
            out.writerow([f"s{number}", *cells, f"{label:.2f}", NAMES[label]])
    return path


@pytest.fixture
def table(csv_path: Path) -> Table:
    return split_table(read_table(csv_path))


def _config(data: Path, out: Path, **changes: Any) -> ExperimentConfig:
    settings: dict[str, Any] = {
        "data": str(data), "classes": ("QSO",), "out": out, "repeats": 3, "draws": 100,
        "workers": 1, "model": "logistic-regression", "gan_steps": 20,
        "false_positive_rate": 0.1,
    }  # fmt: skip
    return ExperimentConfig(**{**settings, **changes})


def _laboratory(table: Table, folder: Path, folds: int = 0) -> TableLaboratory:
    training = {"model": "logistic-regression", "gan_steps": 20}
    index = table.class_names.index("QSO")
    return TableLaboratory(table, Setting(folder, index, folds, 0, "cpu", 1, training))


def test_the_whole_road_ends_in_a_verdict_about_rows(csv_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arms = "plain,class-weights,smote@balance,gan@1,random-forest+gan@1,best+gan@0.5"
    results = command.run(_config(csv_path, out, arms=arms))
    stored = json.loads((out / "results.json").read_text())
    # Each baseline that an arm needs is there, also the forest without added rows.
    for arm in [*arms.split(","), "balanced", "random-forest"]:
        assert set(stored["arms"][arm]) == set(NAMES)
        assert len(stored["arms"][arm]["QSO"]["recall"]) == 3
    assert results["arms"]["random-forest"] != results["arms"]["plain"]
    assert "generated rows of QSO" in results["verdict"]["sentence"]
    assert "training of the generator" in results["covered"]["covered"]
    page = (out / "report.html").read_text()
    assert "Generated rows and the recall of" in page
    assert "optimiser steps" not in page
    assert "images" not in page.replace("image/png", "")
    assert "network" not in page
    assert "images" not in protocol_text(results)
    again = command.run(ExperimentConfig(out=out, report_only=True))
    assert again["verdict"] == results["verdict"]


def test_the_answers_to_imbalance_raise_recall_and_lower_precision(
    csv_path: Path, tmp_path: Path
) -> None:
    arms = "plain,class-weights,balanced,smote@balance"
    found = command.run(_config(csv_path, tmp_path / "out", arms=arms, folds=4))["arms"]
    recall, precision = (
        {arm: np.mean(found[arm]["QSO"][measure]) for arm in arms.split(",")}
        for measure in ("recall", "precision")
    )
    for arm in ("class-weights", "balanced", "smote@balance"):
        assert recall[arm] > recall["plain"] + 0.1
        assert precision[arm] < precision["plain"] - 0.05
    assert found["plain"]["QSO"]["positives"] == COUNTS[0]


def test_the_same_command_again_trains_nothing(csv_path: Path, tmp_path: Path) -> None:
    config = _config(csv_path, tmp_path / "out", arms="plain,gan@1")
    first = command.run(config)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*")}
    second = command.run(config)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*")} == stamps
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_worker_processes_give_the_same_numbers(csv_path: Path, tmp_path: Path) -> None:
    alone = command.run(_config(csv_path, tmp_path / "one", arms="plain,gan@1"))
    together = command.run(_config(csv_path, tmp_path / "two", arms="plain,gan@1", workers=2))
    assert alone["arms"] == together["arms"]


@pytest.mark.parametrize("kind", ["gan", "placebo", "smote", "borderline-smote", "adasyn"])
@pytest.mark.parametrize("instead", [False, True])
def test_an_arm_adds_as_many_rows_of_the_class_as_its_dose(
    table: Table, tmp_path: Path, kind: str, instead: bool
) -> None:
    if instead and kind not in ("gan", "placebo"):
        with pytest.raises(InputError, match="cannot take their place"):
            parse_arm(f"{kind}@2+only", TABLE_ARMS)
        return
    laboratory = _laboratory(table, tmp_path)
    arm = parse_arm(f"{kind}@2" + "+only" * instead, TABLE_ARMS)
    unit = Planner(laboratory, {}).unit(arm, 0, 0)
    train = table.select(laboratory.sides(0, 0, None)[0])
    rows = np.nan_to_num(train.features - 18)
    made, labels = laboratory._augmented(unit, rows, train.known_labels)
    assert unit.images is not None
    index, real = laboratory.setting.class_index, train.counts()
    assert unit.images["count"] == 2 * table.side("train").counts()[index]
    expected = real.copy()
    expected[index] = unit.images["count"] + (0 if instead else real[index])
    assert np.bincount(labels).tolist() == expected.tolist()
    assert np.isfinite(made).all()
    if not instead:  # the real rows stand first and unchanged
        assert np.array_equal(made[: len(rows)], rows)
    if kind == "placebo":
        own = rows[train.known_labels == index]
        nearest = np.linalg.norm(made[labels == index][:, None] - own[None], axis=2).min(axis=1)
        assert nearest.max() < 10 * table_laboratory.PLACEBO_NOISE


def test_the_generator_sees_the_rows_that_its_classifier_trains_on_and_no_other(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    original = table_laboratory.train_table_gan

    def watched(rows: np.ndarray, *others: Any, **named: Any) -> Any:
        seen.append(rows)
        return original(rows, *others, **named)

    monkeypatch.setattr(table_laboratory, "train_table_gan", watched)
    laboratory = _laboratory(table, tmp_path)
    planner = Planner(laboratory, {})
    for name in ("gan@1", "gan@0.5"):
        laboratory.run(planner.unit(parse_arm(name, TABLE_ARMS), 0, 0))
    assert len(seen) == 1  # the doses of one repeat share it
    laboratory.run(planner.unit(parse_arm("gan@1", TABLE_ARMS), 1, 0))
    assert len(seen) == 2
    train = laboratory.sides(0, 0, None)[0]
    scaled = np.nan_to_num(table.features[train])
    assert len(seen[0]) == len(train)
    # Scaling keeps the order of a column without missing values: the rows are the training rows.
    column = int(np.argmin(np.isnan(table.features[train]).sum(axis=0)))
    known = ~np.isnan(table.features[train][:, column])
    assert np.array_equal(np.argsort(seen[0][known, column]), np.argsort(scaled[known, column]))


def test_a_generator_of_wrong_rows_costs_the_class_its_recall(
    csv_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
            self.others = rows[labels == 2]

        def generate(self, label: int, count: int, seed: int) -> np.ndarray:
            return self.others[np.random.default_rng(seed).integers(0, len(self.others), count)]

    def train(rows: np.ndarray, labels: np.ndarray, *_: Any, **__: Any) -> Wrong:
        return Wrong(rows, labels)

    monkeypatch.setattr(table_laboratory, "train_table_gan", train)
    arms = "plain,balanced,gan@balance+only"
    found = command.run(_config(csv_path, tmp_path / "out", arms=arms, folds=4))
    index = NAMES.index("QSO")
    recall = {arm: np.mean(found["arms"][arm][NAMES[index]]["recall"]) for arm in arms.split(",")}
    assert recall["gan@balance+only"] < 0.2 < recall["balanced"]
    entry = next(
        c for c in found["comparisons"]
        if (c["arm"], c["baseline"], c["class"]) == ("gan@balance+only", "balanced", "QSO")
    )  # fmt: skip
    assert entry["claim"] == "harmed"


def test_held_back_rows_give_the_exchange_rate(csv_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = _config(csv_path, out, arms="balanced,gan@1,real@1", keep=12, folds=4)
    results = command.run(config)
    assert results["counts"]["train"][results["class_names"].index("QSO")] == 12
    assert [rate["arm"] for rate in results["exchange_rate"]] == ["gan@1"]
    with pytest.raises(InputError, match=r"real@9 needs 108 real rows held back"):
        command.run(_config(csv_path, tmp_path / "b", arms="real@9", keep=12, folds=4))


def test_an_arm_without_use_is_left_out_and_named(
    csv_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = "balanced,smote@balance,class-weights"
    config = _config(
        csv_path, tmp_path / "out", classes=("GALAXY",), arms=arms, model="nearest-neighbours"
    )
    results = command.run(config)
    assert list(results["arms"]) == ["plain", "balanced"]
    told = capsys.readouterr().err
    assert "arm smote@balance is left out: GALAXY is as large as any class" in told
    assert "arm class-weights is left out: nearest-neighbours cannot weigh rows" in told
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_rarest_class_is_at_stake_unless_named(csv_path: Path, tmp_path: Path) -> None:
    config = _config(csv_path, tmp_path / "out", classes=(), arms="balanced")
    assert command.run(config)["class"] == "QSO"


def test_a_number_is_no_index_where_classes_are_numbers(csv_path: Path, tmp_path: Path) -> None:
    text = csv_path.read_text()
    for name, number in (("QSO", "10"), ("GALAXY", "2"), ("STAR", "3")):
        text = text.replace(name, number)
    numbered = tmp_path / "numbered.csv"
    numbered.write_text(text)
    with pytest.raises(InputError, match="there is no class '1'; the classes are: 2, 3, 10"):
        command.run(_config(numbered, tmp_path / "out", classes=("1",)))
    found = command.run(_config(numbered, tmp_path / "out", classes=("2",), arms="balanced"))
    assert found["class"] == "2"


def test_best_stands_on_no_arm_whose_rows_it_would_drop(csv_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arms = "smote@balance,adasyn@balance,placebo@1,gan@1,best+gan@1"
    command.run(_config(csv_path, out, arms=arms, folds=4))
    record = ExperimentRecord.read(out)
    assert set(record.arm("best+gan@1").stands_on) <= {"plain", "balanced"}


def test_logit_adjustment_counts_the_rows_that_were_added(table: Table, tmp_path: Path) -> None:
    laboratory = _laboratory(table, tmp_path)
    unit = Planner(laboratory, {}).unit(parse_arm("logit-adjusted+smote@2", TABLE_ARMS), 0, 0)
    assert unit.images is not None
    real = table.select(laboratory.sides(0, 0, None)[0]).counts()
    real[laboratory.setting.class_index] += unit.images["count"]
    assert laboratory.run(unit).metrics["training_counts"] == real.tolist()


def test_groups_and_copies_are_kept_whole_together(table: Table, tmp_path: Path) -> None:
    rows = np.concatenate([np.arange(len(table)), np.arange(0, len(table), 5)])
    alone = np.array([f"group {n}" for n in range(len(rows))])
    doubled = dataclasses.replace(table.select(rows), group=alone, split=None)
    parted = split_table(doubled)
    assert crossing_rows(parted) == []
    for fold in _laboratory(doubled, tmp_path, folds=4).folds():
        known = {row.tobytes() for row in doubled.features[fold.train]}
        assert not any(row.tobytes() in known for row in doubled.features[fold.test])


def test_a_results_folder_that_is_a_link_works(
    csv_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "results").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "work")
    config = dataclasses.replace(_config(csv_path, tmp_path), out=None, arms="balanced")
    command.run(config)
    assert (tmp_path / "elsewhere" / "sources-QSO" / "report.html").is_file()


def test_other_columns_are_another_experiment(csv_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command.run(_config(csv_path, out, arms="balanced"))
    changed = _config(csv_path, out, arms="balanced", table=ColumnOptions(columns=("u", "g")))
    with pytest.raises(InputError, match=r"experiment with --columns \(none\), not u g; choose"):
        command.run(changed)


@pytest.mark.parametrize("model", ["gradient-boosting", "svm", "random-forest"])
def test_a_class_of_one_row_is_refused_before_anything_is_written(
    csv_path: Path, tmp_path: Path, model: str
) -> None:
    lines = csv_path.read_text().splitlines()
    odd = lines[-1].rsplit(",", 1)[0] + ",ODD"
    sides = [f"{line},{('train', 'validation', 'test')[n % 3]}" for n, line in enumerate(lines[1:])]
    path = tmp_path / "odd.csv"
    path.write_text("\n".join([lines[0] + ",split", *sides, odd + ",train"]) + "\n")
    with pytest.raises(InputError, match="1 rows of ODD"):
        command.run(_config(path, tmp_path / "out", model=model, allow_leak=True))
    assert not (tmp_path / "out").exists()


def test_folds_keep_copies_of_a_row_together(table: Table, tmp_path: Path) -> None:
    doubled = table.select(np.concatenate([np.arange(len(table)), np.arange(0, len(table), 3)]))
    laboratory = _laboratory(doubled, tmp_path, folds=4)
    units = row_units(doubled)
    tested = np.concatenate([fold.test for fold in laboratory.folds()])
    assert np.array_equal(np.sort(tested), np.arange(len(doubled)))
    for fold in laboratory.folds():
        assert not np.isin(units[fold.train], units[fold.test]).any()
        assert not np.isin(units[fold.validation], units[fold.test]).any()


def test_copies_across_a_published_split_are_a_leak(csv_path: Path, tmp_path: Path) -> None:
    lines = csv_path.read_text().splitlines()
    sides = ["split", *(("train", "validation", "test")[n % 3] for n in range(len(lines) - 1))]
    rows = [f"{line},{side}" for line, side in zip(lines, sides, strict=True)]
    leaking = tmp_path / "leaking.csv"
    cells = rows[1].split(",")
    copied = ",".join(["copy", *cells[1:-1], "test"])
    leaking.write_text("\n".join([*rows, copied]) + "\n")
    table = read_table(leaking)
    assert crossing_rows(table) == [
        "2 rows have identical features with rows on another side of the split, such as row s0"
    ]
    with pytest.raises(InputError, match="leaks: 2 rows have identical features"):
        command.run(_config(leaking, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    results = command.run(
        _config(leaking, tmp_path / "out", allow_leak=True, arms="plain,balanced")
    )
    assert results["notes"][0].startswith("Leak allowed by --allow-leak: 2 rows")


def test_a_column_that_gives_the_class_away_stays_out_unless_forced(
    csv_path: Path, tmp_path: Path
) -> None:
    honest = command.run(_config(csv_path, tmp_path / "a", arms="plain,balanced"))
    columns = ColumnOptions(allow_column=("redshift",))
    told = command.run(_config(csv_path, tmp_path / "b", arms="plain,balanced", table=columns))
    recall = [np.mean(r["arms"]["balanced"]["QSO"]["recall"]) for r in (honest, told)]
    assert recall[0] < 0.95 < recall[1]


def test_the_arms_of_a_table_are_named_and_described() -> None:
    arms = parse_arms("full", (), TABLE_ARMS)
    assert all(arm.words for arm in arms)
    assert {"plain", "balanced", "adasyn@balance", "gan@balance", "best+gan@1"} <= {
        arm.name for arm in arms
    }
    forest = parse_arm("random-forest+class-weights", TABLE_ARMS)
    assert forest.settings == {"balance": "class-weights", "model": "random-forest"}
    with pytest.raises(InputError, match="two parts set model differently"):
        parse_arm("random-forest+svm", TABLE_ARMS)
    with pytest.raises(InputError, match="there is no arm 'mixup'; parts: plain, class-weights"):
        parse_arm("mixup", TABLE_ARMS)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"steps": 5}, "--steps: of no use for a table"),
        ({"gan": (Path("x"),)}, "--gan: of no use for a table"),
        ({"model": "small"}, "'small' takes no table; models for tables are: logistic"),
        ({"classes": ("quasar",)}, "there is no class 'quasar'; the classes are: 0 GALAXY, 1 QSO"),
        ({"arms": "randaugment"}, "there is no arm 'randaugment'"),
        ({"keep": 9999, "folds": 4}, "fewer than the 9999 to keep"),
        ({"keep": 4, "folds": 4, "arms": "gan@1"}, "4 rows of QSO; the generator of arm gan@1"),
        ({"keep": 10, "folds": 4, "arms": "gan@1", "model": "gradient-boosting"}, "10 rows of QSO"),
        ({"real_counts": "999", "folds": 4, "arms": "balanced"}, "fewer than the 999 to keep"),
        ({"arms": "real@1"}, "none were; hold some back with --folds K --keep N"),
        ({"arms": "logit-adjusted@nan"}, "'nan' after @ is not a number"),
        ({"arms": "balanced+logit-adjusted"}, "sampling has already changed"),
        ({"device": "cuda"}, "--device cuda: algorithms for tables run on the CPU"),
        ({"model": "nearest-neighbours", "arms": "class-weights"}, "no arm is left to compare"),
        ({"table": ColumnOptions(split_column="no")}, r"has no column 'no' \(--split-column\)"),
        ({"table": ColumnOptions(columns=("x",))}, "has no column 'x'"),
    ],
)
def test_what_a_table_cannot_do_is_refused_and_nothing_is_written(
    csv_path: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        command.run(_config(csv_path, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_flags_about_columns_are_refused_for_images(blobs_path: Path, tmp_path: Path) -> None:
    config = ExperimentConfig(
        data=str(blobs_path), out=tmp_path / "out", table=ColumnOptions(columns=("u",))
    )
    with pytest.raises(InputError, match="is no table; leave out the flags about its columns"):
        command.run(config)
