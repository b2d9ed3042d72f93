import csv
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.experiment import analysis, command
from classify.experiment.arms import parse_arms
from classify.experiment.checks import note_of_twin
from classify.experiment.cli import ExperimentConfig, main
from classify.experiment.division import Setting
from classify.experiment.laboratory import Laboratory
from classify.experiment.paper import protocol_text
from classify.experiment.quality import related_to_gains
from classify.experiment.record import ArmRecord, ExperimentRecord
from classify.experiment.sources import generator_names
from classify.experiment.statistics import paired_t
from galaxies.errors import InputError
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.pixels import Stretch

Build = Callable[..., Laboratory]


@pytest.fixture(autouse=True)
def _no_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feature networks have their own test; here the road of the experiment is at stake."""
    monkeypatch.setattr(command, "measure_quality", lambda *_: None)


def _config(
    data: Path, out: Path, checkpoint: Path | None = None, **changes: Any
) -> ExperimentConfig:
    settings: dict[str, Any] = {
        "data": str(data), "classes": ("rare",), "out": out, "repeats": 4, "steps": 20,
        "batch_size": 16, "draws": 100, "workers": 1, "device": "cpu",
        "false_positive_rate": 0.1, "gan": () if checkpoint is None else (checkpoint,),
    }  # fmt: skip
    return ExperimentConfig(**{**settings, **changes})


def test_the_results_are_what_was_promised(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    out = tmp_path / "out"
    arms = "plain,balanced,gan@1,gan@0.5,symmetries+logit-adjusted,best+gan@1"
    results = command.run(_config(blobs_path, out, checkpoint, arms=arms), build=build)
    stored = json.loads((out / "results.json").read_text())
    assert stored["class"] == "rare"
    assert stored["repeats"] == 4
    for arm in arms.split(","):
        assert set(stored["arms"][arm]) == {"rare", "round", "long"}
        for found in stored["arms"][arm].values():
            assert len(found["recall"]) == len(found["precision"]) == 4
    gan, plain = (stored["arms"][arm]["rare"]["recall"] for arm in ("gan@1", "plain"))
    entry = next(
        c for c in stored["comparisons"]
        if (c["arm"], c["baseline"], c["class"]) == ("gan@1", "plain", "rare")
    )  # fmt: skip
    reference = paired_t(np.array(gan) - np.array(plain))
    assert entry["difference"] == pytest.approx(reference.difference)
    assert entry["over_repeats"]["p"] == pytest.approx(reference.p)
    assert entry["interval"][0] <= entry["difference"] <= entry["interval"][1]
    assert entry["p_holm"] >= entry["p"]
    claims = ("helped", "harmed", "no detectable effect", "too small to tell")
    assert {c["claim"] for c in stored["comparisons"]} <= set(claims)
    assert stored["verdict"]["claim"] in claims
    assert stored["verdict"]["sentence"].endswith(f"{stored['verdict']['claim']}.")
    assert results["verdict"] == stored["verdict"]
    test_images = read_hdf5(blobs_path).side("test").counts()
    for matrix in stored["confusion"].values():
        assert np.array(matrix).sum(axis=1).tolist() == test_images.tolist()
    rows = list(csv.DictReader((out / "summary.csv").open()))
    values = [r for r in rows if r["arm"] == "gan@1" and r["kind"] == "value"
              and r["class"] == "rare" and r["measure"] == "recall"]  # fmt: skip
    assert [float(row["value"]) for row in values] == gan


def test_the_report_stands_alone(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    out = tmp_path / "out"
    results = command.run(
        _config(blobs_path, out, checkpoint, arms="gan@0.5,gan@1,placebo"), build=build
    )
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert 'src="data:image/png;base64,' in page
    assert "<link" not in page
    assert "<script" not in page
    first = page.index("<h1>")
    assert results["verdict"]["claim"].capitalize() in page[first : first + 60]
    for heading in ("The arms", "Differences in recall", "Dose and response", "Confusion",
                    "Real beside generated", "The cost to other classes", "Protocol"):  # fmt: skip
        assert heading in page
    assert protocol_text(results)[:60] in page
    assert "None" not in page
    assert "nan" not in page.replace("gan", "")


def test_the_same_command_again_trains_nothing_and_ends_the_same(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    config = _config(blobs_path, tmp_path / "out", checkpoint)
    first = command.run(config, build=build)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*")}
    second = command.run(config, build=build)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*")} == stamps
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    more = command.run(dataclasses.replace(config, repeats=5), build=build)
    old, new = (r["arms"]["gan"]["rare"]["recall"] for r in (first, more))
    assert new[:4] == old


def test_report_only_recomputes_without_images_or_generator(
    blobs: ImageSet, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    data, out = tmp_path / "set.h5", tmp_path / "out"
    write_hdf5(blobs, data)
    first = command.run(_config(data, out, checkpoint), build=build)
    data.unlink()
    (out / "report.html").unlink()
    again = command.run(ExperimentConfig(out=out, report_only=True))
    assert again["verdict"] == first["verdict"]
    assert (out / "report.html").is_file()
    stricter = command.run(ExperimentConfig(out=out, report_only=True, smallest_effect=0.5))
    assert stricter["rule"]["smallest_effect"] == 0.5
    assert stricter["verdict"]["claim"] not in ("helped", "harmed")


def test_what_was_changed_with_results_in_hand_is_said(
    blobs_path: Path, tmp_path: Path, build: Build
) -> None:
    config = _config(blobs_path, tmp_path / "out", arms="plain,balanced", repeats=3)
    assert command.run(config, build=build)["notes"] == []
    assert command.run(config, build=build)["notes"] == []
    more = dataclasses.replace(config, repeats=4, measure="average_precision")
    (note,) = command.run(more, build=build)["notes"]
    assert "Changed after results were there: repeats from 3 to 4" in note
    assert "measure from recall_at_false_positive_rate to average_precision" in note
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Changed after results were there" in page
    assert command.run(config, build=build)["notes"] == []
    added = dataclasses.replace(config, arms="plain,balanced,symmetries")
    (note,) = command.run(added, build=build)["notes"]
    assert "Changed after results were there: arms (added symmetries)." in note
    other = dataclasses.replace(added, classes=("long",), repeats=4, overwrite=True)
    assert command.run(other, build=build)["notes"] == []  # begun anew


def test_a_filter_that_lets_too_few_pass_is_said(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    arms = "plain,balanced,gan@1,gan@1+filtered@0.999"
    results = command.run(_config(blobs_path, tmp_path / "out", checkpoint, arms=arms), build=build)
    (note,) = results["notes"]
    assert note.startswith("The filter of gan@1+filtered@0.999 let ")
    found = results["filtered"]["gan@1+filtered@0.999"]
    assert found["passed"] < found["wanted"] == 22
    assert found["candidates"] == 88
    assert found["short"] == 1
    assert note in (tmp_path / "out" / "report.html").read_text()


def test_sides_that_are_chosen_by_fold_stand_in_the_report(
    blobs_path: Path, tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"classic": ["plain", "balanced"], "generated": ["gan@1", "gan@1"]}
    monkeypatch.setattr(
        "classify.experiment.scoring.choose_best", lambda scores, role, keep: chosen[role]
    )
    out = tmp_path / "out"
    config = _config(blobs_path, out, folds=2, repeats=3, arms="plain,balanced,gan@1")
    results = command.run(config, build=build)
    name = results["verdict"]["baseline"]
    assert name == "best without generated images"
    own = results["chosen_by_fold"][name]["classes"]["rare"]["recall"]
    change = results["verdict"]["at_other_measures"]["recall"]["per_repeat"]
    gan = results["arms"]["gan@1"]["rare"]["recall"]
    assert np.subtract(gan, own) == pytest.approx(change)
    assert np.sum(results["confusion"][name][0]) == pytest.approx(results["counts"]["test"][0])
    assert (out / "report.html").read_text().count(name) >= 3  # table, curve, matrix
    with (out / "summary.csv").open() as file:
        kinds = {row["kind"] for row in csv.DictReader(file)}
    assert {"verdict", "verdict_other", "reached", "cost", "wilson", "dose"} <= kinds


def test_report_only_takes_what_was_named_even_at_its_default(
    blobs_path: Path, tmp_path: Path, build: Build
) -> None:
    out = tmp_path / "out"
    config = _config(blobs_path, out, arms="plain,balanced", measure="recall", repeats=3)
    command.run(config, build=build)
    usual = ExperimentConfig(out=out, report_only=True)
    assert command.run(usual)["settings"]["measure"] == "recall"
    named = command.run(usual, named=["report_only", "measure"])
    assert named["settings"]["measure"] == "recall_at_false_positive_rate"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"arms": "plain,gan@1+finish@75"}, r"arm gan@1\+finish@75 cannot be trained"),
        ({"features": "classifier", "feature_weights": Path("x")}, "--feature-weights x is for"),
        ({"features": "timm:mobilenetv2_100", "feature_weights": Path("/none")}, "/none"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_trains(
    changes: dict[str, Any], complaint: str,
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build,
) -> None:  # fmt: skip
    config = _config(blobs_path, tmp_path / "out", checkpoint, **{"arms": "gan@1", **changes})
    with pytest.raises(InputError, match=complaint):
        command.run(config, build=build)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["nothing-of-that-name", "margnet-small"])
def test_a_network_that_cannot_be_built_is_refused_before_anything_trains(
    model: str, blobs_path: Path, tmp_path: Path
) -> None:
    config = _config(blobs_path, tmp_path / "out", arms="plain,balanced", model=model)
    with pytest.raises(InputError):
        command.run(config)
    assert not (tmp_path / "out").exists()


def test_a_small_synthetic_set_ends_in_a_report(
    blobs: ImageSet, blobs_path: Path, tmp_path: Path, build: "partial[Laboratory]"
) -> None:
    """A set of exactly what the arms need once failed in the pictures, after all training."""
    made = dataclasses.replace(
        blobs.select(np.flatnonzero((blobs.labels == 0) & (blobs.split == 0))),
        provenance={"generator": {"checkpoint": "x"}}, split=None,
    )  # fmt: skip
    changed = made.pixels.flip(-1).clone()
    write_hdf5(dataclasses.replace(made, store=PixelsInMemory(changed)), tmp_path / "made.h5")
    config = _config(
        blobs_path, tmp_path / "out", synthetic=tmp_path / "made.h5", arms="plain,gan@0.5",
        repeats=3,
    )  # fmt: skip
    own = partial(Laboratory, train=build.keywords["train"])  # real generators, quick trainings
    results = command.run(config, build=own)
    generated = next(p for p in results["pictures"] if "generated" in p["file"])
    assert f"The first {min(24, len(made))} images" in generated["caption"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_verdict_never_calls_other_techniques_generated_images() -> None:
    arm = ArmRecord("gan@1", "", "balanced", "gan", 1.0, "", True, "generated", [0.0], [], {})
    on_best = dataclasses.replace(arm, name="best+gan@1", base="plain", stands_on=["a", "b"])
    record = ExperimentRecord(
        "rare", 0, ["rare", "round"], 3, 2, {"train": [40, 9]}, ["all"], False, [], {},
        [arm, on_best],
    )  # fmt: skip
    fair = analysis._subject(record, ["gan@1"] * 2, ["balanced"] * 2)
    assert fair.startswith("Adding 40 generated images of rare (gan@1 against balanced)")
    unlike = analysis._subject(record, ["gan@1"] * 2, ["symmetries"] * 2)
    assert unlike.startswith("The best arm with generated images")
    assert "Adding" not in unlike
    both = analysis._subject(record, ["best+gan@1"] * 2, ["a", "b"])
    assert both.startswith("Adding")
    other = analysis._subject(record, ["best+gan@1"] * 2, ["b", "b"])
    assert other.startswith("The best arm")
    assert "(best+gan@1 against by fold a or b)" in both


def test_folds_test_every_image_once_with_a_generator_each(
    blobs: ImageSet, blobs_path: Path, tmp_path: Path, build: Build
) -> None:
    out = tmp_path / "out"
    config = _config(blobs_path, out, folds=4, arms="plain,balanced,gan@1", repeats=3)
    results = command.run(config, build=build)
    assert results["counts"]["test"] == [40, 120, 80]
    assert results["arms"]["gan@1"]["rare"]["positives"] == 40
    generators = sorted((out / "generators").iterdir())
    assert len(generators) == 4
    prints = blobs.fingerprints()
    seen = [set(np.load(folder / "lineage.npy").tolist()) for folder in generators]
    by_key = {folder.name: prints for folder, prints in zip(generators, seen, strict=True)}
    drawn = set()
    for path in (out / "runs").glob("*/config.json"):
        unit = json.loads(path.read_text())
        if unit["images"]:
            drawn.add(unit["images"]["generator"])
            with np.load(path.parent / "probabilities.npz") as arrays:
                held_out = np.r_[arrays["test_rows"], arrays["validation_rows"]]
            assert not set(prints[held_out]) & by_key[unit["images"]["generator"]]
    assert drawn == set(by_key)
    covered = results["covered"]["covered"]
    assert "draw of the training and validation images" in covered
    entry = results["comparisons"][0]
    assert entry["over_folds"] is not None
    assert set(entry["variance"]) == {"repeats", "images", "folds"}


def test_a_learning_curve_and_an_exchange_rate(
    blobs_path: Path, tmp_path: Path, build: Build
) -> None:
    config = _config(
        blobs_path, tmp_path / "out", folds=2, keep=6, real_counts="4,6,8", repeats=3,
        arms="plain,balanced,gan@1,real@1",
    )  # fmt: skip
    results = command.run(config, build=build)
    points = [(p["real_images"], p["arm"]) for p in results["learning_curve"]]
    assert len(set(points)) == len(points)  # 6 stands there once, though it is named twice
    assert {count for count, _ in points} == {4, 6, 8}
    assert {p["arm"] for p in results["learning_curve"]} == {"plain", "balanced", "gan@1", "real@1"}
    assert [rate["arm"] for rate in results["exchange_rate"]] == ["gan@1"]
    assert results["counts"]["train"][0] == 6
    trained = {
        (unit["keep"], json.loads((path.parent / "metrics.json").read_text())["training_counts"][0])
        for path in (tmp_path / "out" / "runs").glob("*/config.json")
        if (unit := json.loads(path.read_text()))["images"] is None
    }
    assert trained == {(6, 6), (4, 4), (8, 8)}


def test_a_generator_that_saw_the_test_split_is_refused(
    blobs: ImageSet, blobs_path: Path, tmp_path: Path, build: Build
) -> None:
    folder = tmp_path / "leaky"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"w")
    for side in ("test", "validation"):
        np.save(folder / "lineage.npy", blobs.side(side).fingerprints()[:2])
        with pytest.raises(InputError, match=f"was trained on 2 of the .* {side} images"):
            command.run(_config(blobs_path, tmp_path / "out", folder), build=build)
    assert not (tmp_path / "out").exists()


def test_a_leaking_split_stops_the_experiment_or_marks_the_report(
    blobs: ImageSet, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    rows = np.r_[np.arange(len(blobs)), np.flatnonzero(blobs.split == 0)[:1]]
    twice = blobs.select(rows)
    assert twice.split is not None
    split = twice.split.copy()
    split[-1] = 2
    leaking = dataclasses.replace(twice, split=split, ids=np.r_[blobs.ids, ["twin"]])
    write_hdf5(leaking, tmp_path / "leaking.h5")
    config = _config(tmp_path / "leaking.h5", tmp_path / "out", arms="plain,balanced")
    with pytest.raises(InputError, match=r"leaks: 1 pairs of duplicates \(1 exact\)"):
        command.run(config, build=build)
    results = command.run(dataclasses.replace(config, allow_leak=True), build=build)
    assert "Leak allowed" in results["notes"][0]
    assert "Leak allowed" in (tmp_path / "out" / "report.html").read_text()


def test_another_experiment_in_the_folder_is_refused(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    config = _config(blobs_path, tmp_path / "out", arms="plain,balanced", repeats=3)
    command.run(config, build=build)
    other = dataclasses.replace(config, seed=1)
    with pytest.raises(InputError, match="holds an experiment with --seed 0, not 1"):
        command.run(other, build=build)
    command.run(dataclasses.replace(other, overwrite=True), build=build)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is no experiment"):
        command.run(dataclasses.replace(config, out=foreign), build=build)


def test_no_verdict_without_generated_images(
    blobs_path: Path, tmp_path: Path, build: Build
) -> None:
    config = _config(blobs_path, tmp_path / "out", arms="plain,balanced,balanced+again", repeats=3)
    results = command.run(config, build=build)
    assert results["verdict"]["claim"] is None
    again = [c for c in results["comparisons"] if c["arm"] == "balanced+again"]
    assert {c["baseline"] for c in again} == {"plain", "balanced"}
    assert not any(c["claim"] in ("helped", "harmed") for c in again if c["baseline"] == "balanced")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--repeats", "1"], "--repeats must be at least 2, got 1"),
        (["--class", "0", "--class", "1"], "one experiment is about one class"),
        (["--folds", "4", "--gan", "x"], "may have seen images that a fold tests"),
        (["--gan", "x", "--synthetic", "y.h5"], "contradict each other"),
        (["--gan-width", "0.01"], "--gan-width must be from 0.05 to 8, got 0.01"),
        (["--folds", "1"], "--folds must be 0 or at least 2"),
        (["--real-counts", "many"], "is a list such as 25,50"),
        (["--report-only"], "pass --out results/NAME"),
        (["--report-only", "--out", "/nonexistent"], "holds no experiment"),
        (["--data", "/nonexistent.h5"], "does not exist"),
        (["--measure", "beauty"], "measure"),
        (["--screen"], "--screen measures generators: pass --gan"),
        (["--dask-resources", "GPU"], "is a list such as GPU=1"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_wrong_input_that_needs_the_set_is_one_line_too(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "there is no class 'quasar'; the classes are: 0 rare, 1": ["--class", "quasar"],
        "pass --gan CHECKPOINT or --synthetic SET.h5, or --folds K": [],
        "there is no arm 'gna'": ["--arms", "gna"],
        "is not a checkpoint of gan-train": ["--gan", str(tmp_path)],
        "the generator of arm gan saw them; use --folds": ["--gan", str(checkpoint), "--keep", "5"],
    }  # fmt: skip
    for complaint, extra in cases.items():
        out = tmp_path / "out"
        words = ["--data", str(blobs_path), "--out", str(out), *extra]
        assert main(words) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert complaint in error
        assert not out.exists()


def test_a_generator_of_one_class_is_refused_for_an_arm_of_every_class(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    def poor(*arguments: Any, **options: Any) -> Laboratory:
        laboratory = build(*arguments, **options)
        every = laboratory._generate

        def one_class(path: Path, name: str, *rest: Any) -> ImageSet:
            if name != "rare":
                raise InputError(f"this generator cannot make class {name!r}; it makes: 0 rare")
            return every(path, name, *rest)

        laboratory._generate = one_class  # type: ignore[assignment]
        return laboratory

    out = tmp_path / "out"
    config = _config(blobs_path, out, checkpoint, arms="plain,gan@1+every-class")
    with pytest.raises(InputError, match=r"arm gan@1.every-class adds .* cannot make class"):
        command.run(config, build=poor)
    assert not out.exists()


def test_a_synthetic_set_smaller_than_a_dose_is_refused_before_anything_trains(
    blobs: ImageSet, blobs_path: Path, setting: Setting, tmp_path: Path, build: Build
) -> None:
    made = build(blobs, setting).generated(str(tmp_path), 5, 0)
    write_hdf5(made, tmp_path / "fake.h5")
    config = _config(
        blobs_path, tmp_path / "out", synthetic=str(tmp_path / "fake.h5"), arms="plain,gan@1"
    )
    with pytest.raises(InputError, match=r"fake.h5 holds 5 images of rare, but arm gan@1 adds \d+"):
        command.run(config)
    assert not (tmp_path / "out").exists()


def test_a_generator_of_other_images_stands_in_the_report(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    """Packed anew, the same galaxies have other pixels, and made-up ids tell nothing."""
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    np.save(other / "lineage.npy", np.array(["0" * 32]))
    twice = (other, other)
    config = _config(blobs_path, tmp_path / "out", gan=twice, arms="plain,gan@1", repeats=3)
    results = command.run(config, build=build)
    assert sum("nothing shows that it never saw" in note for note in results["notes"]) == 1
    assert "saw training images only" not in protocol_text(results)
    assert "nothing shows that it never saw" in (tmp_path / "out" / "report.html").read_text()
    known = _config(blobs_path, tmp_path / "known", checkpoint, arms="plain,gan@1", repeats=3)
    assert command.run(known, build=build)["notes"] == []


def test_snapshots_of_one_training_are_generators_of_their_own(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run)
    (run / "snapshots").mkdir()
    for step in (50, 100):
        (run / "snapshots" / f"{step:07d}.safetensors").write_bytes(bytes(step))
    snapshots = tuple(sorted((run / "snapshots").iterdir()))
    config = _config(blobs_path, tmp_path / "out", arms="plain,gan@1", repeats=3, gan=snapshots)
    results = command.run(config, build=build)
    assert {"gan:run-step-50@1", "gan:run-step-100@1"} <= set(results["arms"])
    digests = {source["sha256"] for source in results["sources"]}
    assert digests == {hashlib.sha256(bytes(step)).hexdigest() for step in (50, 100)}
    missed = results["covered"]["not_covered"]
    assert "training of the generator (ready ones, each as it is)" in missed


def test_generators_have_distinct_names_and_repeated_ones_are_named(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    paths = [tmp_path / one / name for one, name in (("x", "a-3"), ("y", "a"), ("z", "a"))]
    assert generator_names(paths) == ["a-3", "a", "a-4"]
    for path in paths[1:]:
        shutil.copytree(checkpoint, path)
    config = _config(blobs_path, tmp_path / "out", gan=tuple(paths[1:]), arms="gan@1", repeats=2)
    results = command.run(config, build=build)
    assert results["arms"]["gan:a@1"] == results["arms"]["gan:a-2@1"]
    assert f"{paths[2]} holds the weights of {paths[1]}: one generator" in capsys.readouterr().err


def test_screening_predicts_from_others_and_leaves_the_experiment_as_it_is(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    config = _config(blobs_path, out, checkpoint, arms="gan@1", repeats=2)
    command.run(config, build=build)
    quality: dict[str, Any] = {"features": "classifier", "weights_sha256": "w"}
    points = [
        {"name": f"g{n}", "sha256": f"s{n}", "arm": "gan@1", "gain": 0.01 * n,
         "measures": {"coverage": 0.1 * n}}
        for n in range(5)
    ]  # fmt: skip
    stored = json.loads((out / "results.json").read_text())
    (out / "results.json").write_text(
        json.dumps(stored | {"quality": quality | {"points": points}})
    )
    new = [{"name": "new", "sha256": "s9", "measures": {"coverage": 0.25}}, dict(points[4])]
    monkeypatch.setattr(command, "measure_quality", lambda *_: {**quality, "points": new})
    before = (out / "config.json").read_bytes()
    found = command.run(dataclasses.replace(config, screen=True, screen_from=(out,)), build=build)
    assert (out / "config.json").read_bytes() == before
    counts = [point["predicted"]["by_measure"]["coverage"]["count"] for point in found["points"]]
    assert counts == [5, 4]  # what is known of a generator is no prediction
    assert "new: coverage predicts +2.5 points of recall for gan@1" in capsys.readouterr().out
    few = [{**new[0], "images": 120}]
    monkeypatch.setattr(command, "measure_quality", lambda *_: {**quality, "points": few})
    found = command.run(dataclasses.replace(config, screen=True, screen_from=(out,)), build=build)
    assert found["points"][0]["predicted"]["best"] is None
    assert "measured on 120 images and 5 earlier generators on another" in capsys.readouterr().err


def test_the_cas_of_a_generator_stands_under_the_measure_of_the_verdict(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    """At the largest probability it is bought by calling more images the class."""
    out = tmp_path / "out"
    config = _config(blobs_path, out, checkpoint, arms="gan@1,gan@1+only", repeats=2)
    results = command.run(config, build=build)
    point: dict[str, Any] = {"generator": "blobby", "fold": 0, "measures": {}}
    related_to_gains([point], out, ExperimentRecord.read(out))
    expected = results["arms"]["gan@1+only"]["rare"]["recall_at_false_positive_rate"]
    assert point["measures"]["cas"] == pytest.approx(np.mean(expected))


def test_a_mirror_twin_is_named_where_real_images_are_limited(
    blobs: ImageSet, setting: Setting, build: Build
) -> None:
    """Mirrored images of the twin are images of the class to every arm with symmetries."""
    arms = parse_arms("plain,gan@1+only")
    assert note_of_twin(build(blobs, setting), arms, limited=True) == []
    twins = build(dataclasses.replace(blobs, mirror_pairs=(("rare", "long"),)), setting)
    (note,) = note_of_twin(twins, arms, limited=True)
    assert "rare has a mirror twin, long" in note
    assert "less limited than it seems and gan@1+only does not learn from generated" in note
    assert note_of_twin(twins, parse_arms("plain,gan@1"), limited=False) == []


def test_sizes_that_do_not_fit_are_refused_before_anything_trains(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    def small(*arguments: Any, **options: Any) -> Laboratory:
        laboratory = build(*arguments, **options)
        full = laboratory._generate

        def half(*wanted: Any) -> ImageSet:
            made = full(*wanted)
            pixels = made.pixels[..., ::2, ::2].contiguous()
            return dataclasses.replace(made, store=PixelsInMemory(pixels))

        laboratory._generate = half
        return laboratory

    out = tmp_path / "out"
    with pytest.raises(InputError, match="makes images of 8 pixels and 3 channels, the set has 16"):
        command.run(_config(blobs_path, out, checkpoint, arms="plain,gan@1"), build=small)
    with pytest.raises(InputError, match="make images of 32, 64, 128, 256 pixels, these have 16"):
        command.run(_config(blobs_path, out, arms="plain,gan@1", folds=4))
    assert not out.exists()


def test_a_generator_of_flux_is_refused_beside_bytes_before_anything_trains(
    blobs_path: Path, checkpoint: Path, tmp_path: Path, build: Build
) -> None:
    def of_flux(*arguments: Any, **options: Any) -> Laboratory:
        laboratory = build(*arguments, **options)
        full = laboratory._generate

        def flux(*wanted: Any) -> ImageSet:
            made = full(*wanted)
            store = PixelsInMemory(made.pixels.float() / 255)
            return dataclasses.replace(made, store=store, stretch=Stretch(0.0, 1.0, 0.1))

        laboratory._generate = flux
        return laboratory

    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"makes images of float32 flux .* the set has uint8"):
        command.run(_config(blobs_path, out, checkpoint, arms="plain,gan@1"), build=of_flux)
    assert not out.exists()


def test_a_record_never_stands_without_the_groups_that_it_names(
    blobs: ImageSet, tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = np.array([f"g{row // 2}" for row in range(len(blobs))])
    write_hdf5(dataclasses.replace(blobs, group=groups), tmp_path / "groups.h5")
    save = command._save_array

    def killed(path: Path, values: np.ndarray) -> None:
        if path.name == command.GROUPS_FILE:
            raise KeyboardInterrupt
        save(path, values)

    monkeypatch.setattr(command, "_save_array", killed)
    config = _config(tmp_path / "groups.h5", tmp_path / "out", arms="plain,balanced",
                     repeats=3, folds=2)  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        command.run(config, build=build)
    assert not (tmp_path / "out" / "plan.json").exists()


def test_short_trainings_are_warned_of(
    blobs_path: Path, tmp_path: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps, batch_size, warned in ((20, 16, True), (20, 128, False)):
        config = _config(
            blobs_path, tmp_path / f"{batch_size}", arms="plain,balanced", repeats=3,
            steps=steps, batch_size=batch_size,
        )  # fmt: skip
        results = command.run(config, build=build)
        assert ("any added image slows the learning" in capsys.readouterr().err) == warned
        passes = steps * batch_size / sum(results["counts"]["train"])
        assert f"{passes:.1f} passes over the training images" in protocol_text(results)


def test_help_is_quick() -> None:
    code = (
        "import sys; from classify.experiment.cli import main; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'h5py', 'sklearn', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
