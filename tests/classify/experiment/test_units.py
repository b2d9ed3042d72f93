import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from classify.experiment.measures import FoldPredictions
from classify.experiment.units import ClassifierUnit, UnitOutput, UnitStore
from galaxies.errors import InputError

UNIT = ClassifierUnit("data", 0, 0, 0, None, "a", "b", "c", {"steps": 5, "seed": 1})


def _output() -> UnitOutput:
    rng = np.random.default_rng(0)
    return UnitOutput(
        FoldPredictions(
            np.arange(4), np.zeros(4, np.int64), rng.random((4, 3)).astype(np.float32),
            np.arange(6), np.ones(6, np.int64), rng.random((6, 3)).astype(np.float32),
        ),
        {"seconds": 1.0, "training_counts": [1, 2, 3]},
    )  # fmt: skip


def test_a_unit_comes_back_as_it_was_and_takes_three_files(tmp_path: Path) -> None:
    store, output = UnitStore(tmp_path), _output()
    assert not store.has(UNIT.key)
    store.save(UNIT, output)
    back = store.load(UNIT.key)
    for field in dataclasses.fields(FoldPredictions):
        np.testing.assert_array_equal(
            getattr(back.predictions, field.name), getattr(output.predictions, field.name)
        )
    assert back.metrics == output.metrics
    folder = tmp_path / "runs" / UNIT.key
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "metrics.json", "probabilities.npz",
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["training"] == {"steps": 5, "seed": 1}


def test_the_key_follows_everything_but_the_place_of_the_generator() -> None:
    assert dataclasses.replace(UNIT, generator_path="/elsewhere").key == UNIT.key
    changes = [
        {"data": "other"}, {"fold": 1}, {"repeat": 1}, {"keep": 5}, {"train_rows": "z"},
        {"training": {"steps": 6, "seed": 1}}, {"images": {"kind": "gan"}},
    ]  # fmt: skip
    # Runs from before units knew their device are found again.
    assert "device" not in UNIT.config()
    assert dataclasses.replace(UNIT, device="cuda").key != UNIT.key
    keys = {dataclasses.replace(UNIT, **change).key for change in changes}
    assert len(keys | {UNIT.key}) == len(changes) + 1


def test_the_first_of_two_writers_stays(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    store.save(UNIT, _output())
    late = dataclasses.replace(_output(), metrics={"seconds": 2.0})
    store.save(UNIT, late)
    assert store.load(UNIT.key).metrics["seconds"] == 1.0


def test_a_damaged_unit_is_named(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    store.save(UNIT, _output())
    path = tmp_path / "runs" / UNIT.key / "probabilities.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{UNIT.key} is damaged"):
        store.load(UNIT.key)


def _try_claim(folder: Path, answer: "multiprocessing.Queue[bool]") -> None:
    with UnitStore(folder).claim("key") as held:
        answer.put(held)


def test_a_claim_keeps_another_process_out(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answer = context.Queue()

    def ask() -> bool:
        process = context.Process(target=_try_claim, args=(tmp_path, answer))
        process.start()
        process.join()
        return answer.get(timeout=10)

    with UnitStore(tmp_path).claim("key") as held:
        assert held
        assert ask() is False
    assert ask() is True


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    leftover = tmp_path / "runs" / f".{UNIT.key}.abc.partial"
    leftover.mkdir(parents=True)
    (leftover / "config.json").write_text("{")
    store.sweep()
    assert not leftover.exists()
