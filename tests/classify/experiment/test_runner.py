import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from classify.experiment import runner
from classify.experiment.arms import parse_arms
from classify.experiment.division import Setting
from classify.experiment.generators import one_precision
from classify.experiment.laboratory import Laboratory
from classify.experiment.opening import UNITS_FILE, OpenLaboratory
from classify.experiment.planner import GeneratorSource, Planner
from classify.experiment.runner import run_units
from classify.experiment.units import ClassifierUnit, UnitStore
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from gan.training_config import TrainConfig

Build = Callable[..., Laboratory]
HERE = Path(__file__).parent

EXPERIMENT = """
import sys, time
sys.path.insert(0, {here!r})
import conftest
from pathlib import Path
from classify.experiment.arms import parse_arms
from classify.experiment.division import Setting
from classify.experiment.laboratory import Laboratory
from classify.experiment.planner import Planner
from classify.experiment.runner import run_units
from classify.experiment.units import UnitStore

def train(*arguments, **options):
    time.sleep(0.15)
    return conftest.train_ridge(*arguments, **options)

training = {{"steps": 20, "batch_size": 16, "model": "small", "learning_rate": 1e-3}}
setting = Setting(Path({folder!r}), 0, 0, 0, "cpu", 1, training)
laboratory = Laboratory(conftest.blob_set(), setting, train=train)
units = Planner(laboratory, {{}}).units(parse_arms("plain,balanced"), 8)
print("ready", flush=True)
print(run_units(units, laboratory, UnitStore(setting.folder), progress=False), flush=True)
"""


def _units(laboratory: Laboratory, checkpoint: Path, repeats: int = 2) -> list[ClassifierUnit]:
    source = GeneratorSource("g", str(checkpoint), "sha")
    planner = Planner(laboratory, {("g", 0, None): source})
    return planner.units(parse_arms("plain,balanced,gan@1"), repeats)


def _probabilities(folder: Path) -> dict[str, bytes]:
    store = UnitStore(folder)
    return {
        path.name: store.load(path.name).predictions.test_probabilities.tobytes()
        for path in sorted((folder / "runs").glob("[0-9a-f]*"))
    }


def test_a_finished_unit_is_never_trained_again(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    laboratory, store = build(blobs, setting), UnitStore(setting.folder)
    units = _units(laboratory, checkpoint)
    assert run_units(units, laboratory, store, progress=False) == 6
    stamp = {p: p.stat().st_mtime_ns for p in (setting.folder / "runs").rglob("*")}
    assert run_units(units, laboratory, store, progress=False) == 0
    assert {p: p.stat().st_mtime_ns for p in (setting.folder / "runs").rglob("*")} == stamp
    more = _units(laboratory, checkpoint, repeats=3)
    assert run_units(more, laboratory, store, progress=False) == 3


def _start(folder: Path) -> "subprocess.Popen[str]":
    script = EXPERIMENT.format(here=str(HERE), folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = _start(tmp_path / "whole")
    assert whole.wait(timeout=120) == 0
    expected = _probabilities(tmp_path / "whole")
    assert len(expected) == 16
    folder, counts = tmp_path / "killed", [0]

    def finished() -> int:
        return len(list((folder / "runs").glob("[0-9a-f]*")))

    for _ in range(2):
        process = _start(folder)
        while finished() == counts[-1] and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)  # into the next unit
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(finished())
    assert 0 < counts[1] < counts[2] < 16
    last = _start(folder)
    output, _ = last.communicate(timeout=120)
    assert output.split() == ["ready", str(16 - counts[2])]
    assert _probabilities(folder) == expected


@pytest.mark.slow
def test_two_processes_share_one_folder(tmp_path: Path) -> None:
    both = [_start(tmp_path / "shared") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(output.startswith("ready") for output in outputs)
    assert len(_probabilities(tmp_path / "shared")) == 16
    metrics = list((tmp_path / "shared" / "runs").glob("*/metrics.json"))
    assert len(metrics) == 16
    assert not list((tmp_path / "shared" / "runs").glob(".*"))


@pytest.mark.slow
def test_worker_processes_give_the_serial_results(
    blobs: ImageSet, blobs_path: Path, setting: Setting, tmp_path: Path
) -> None:
    training = {"steps": 2, "batch_size": 8, "model": "small", "learning_rate": 1e-3}
    results = {}
    for name, workers in (("serial", 1), ("workers", 2)):
        own = dataclasses.replace(setting, folder=tmp_path / name, training=training)
        laboratory = Laboratory(blobs, own)
        units = Planner(laboratory, {}).units(parse_arms("plain,placebo@1"), 2)
        own.folder.mkdir()
        np.save(own.folder / UNITS_FILE, laboratory.units)
        run_units(
            units, laboratory, UnitStore(own.folder), workers=workers,
            open_laboratory=OpenLaboratory(str(blobs_path), own), progress=False,
        )  # fmt: skip
        results[name] = _probabilities(own.folder)
    assert len(results["serial"]) == 6
    assert results["workers"] == results["serial"]


@pytest.mark.slow
def test_a_dask_cluster_gives_the_serial_results(
    blobs: ImageSet, setting: Setting, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    training = {"steps": 2, "batch_size": 8, "model": "small", "learning_rate": 1e-3}
    results = {}
    for name in ("serial", "dask"):
        own = dataclasses.replace(setting, folder=tmp_path / name, training=training)
        laboratory = Laboratory(blobs, own)
        units = Planner(laboratory, {}).units(parse_arms("plain,placebo@1"), 2)
        store = UnitStore(own.folder)
        if name == "serial":
            run_units(units, laboratory, store, progress=False)
        else:
            with distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
            ) as cluster:
                run_units(units, laboratory, store, dask=cluster.scheduler_address, progress=False)
        results[name] = _probabilities(own.folder)
    assert len(results["serial"]) == 6
    assert results["dask"] == results["serial"]


def test_probabilities_are_stored_for_every_validation_and_test_image(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    laboratory, store = build(blobs, setting), UnitStore(setting.folder)
    unit = _units(laboratory, checkpoint)[0]
    run_units([unit], laboratory, store, progress=False)
    found = store.load(unit.key).predictions
    _, validation, test = laboratory.sides(0, 0, None)
    np.testing.assert_array_equal(found.validation_rows, validation)
    np.testing.assert_array_equal(found.test_labels, blobs.labels[test])
    np.testing.assert_allclose(found.test_probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_generators_of_an_experiment_share_one_precision(
    blobs: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the machine does while the second one begins."""
    timed = iter([torch.bfloat16, torch.float32])
    monkeypatch.setattr("gan.preparation.prepare", lambda config, images: None)
    monkeypatch.setattr("gan.trial.choose_precision", lambda *_: next(timed))
    place = tmp_path / "results" / "generators"
    place.mkdir(parents=True)
    config = TrainConfig(device="cpu")
    assert [one_precision(config, blobs, place) for _ in range(2)] == ["bfloat16"] * 2
    assert one_precision(config, blobs, tmp_path / "other" / "generators") == "float32"


@pytest.mark.slow
def test_the_workers_of_a_cluster_say_what_they_train_on(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    from classify.experiment import cluster

    monkeypatch.setattr(cluster, "choose_device", lambda wanted: torch.device("cuda", 1))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as workers:
        address = workers.scheduler_address
        with distributed.Client(address) as client:
            busy = client.submit(time.sleep, 5)  # every slot is taken by another experiment
            assert cluster.device_of_workers(address, "auto", ()) == "cuda"
            assert not busy.done()
            busy.cancel()
        with pytest.raises(InputError, match=r"no worker of the Dask cluster at .* offers GPU"):
            cluster.device_of_workers(address, "auto", ("GPU",))


def test_a_cluster_that_loses_a_training_says_so_in_one_line() -> None:
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    from distributed.comm.core import CommClosedError

    from classify.experiment.cluster import _losses_in_words

    killed = distributed.KilledWorker("galaxy-augment-1", SimpleNamespace(address="tcp://w:1"), 3)
    losses = (killed, CommClosedError("closed"), CancelledError())
    for loss in losses:
        with (
            pytest.raises(InputError, match=r"tcp://x:1 lost a training \(.+\); the same command"),
            _losses_in_words("tcp://x:1"),
        ):
            raise loss


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_training_for_another_device_is_refused_where_that_is_missing(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    """The machine that sends trainings to a cluster needs no GPU, and never trains in its place."""
    laboratory = build(blobs, dataclasses.replace(setting, device="cuda"))
    assert laboratory.device.type == "cpu"
    with pytest.raises(InputError, match="to run on cuda, which this machine does not have"):
        laboratory.run(_units(laboratory, checkpoint)[0])


def test_no_pool_is_begun_for_units_that_others_train(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    laboratory, store = build(blobs, setting), UnitStore(setting.folder)
    units = _units(laboratory, checkpoint)
    monkeypatch.setattr(runner, "_run_in_processes", lambda *_: pytest.fail("a pool was begun"))
    with contextlib.ExitStack() as others:
        for unit in units:
            others.enter_context(store.claim(unit.key))

        def finish(seconds: float) -> None:  # what the others do meanwhile
            for unit in units:
                store.save(unit, laboratory.run(unit))

        monkeypatch.setattr(runner.time, "sleep", finish)
        run_units(
            units, laboratory, store, workers=2, open_laboratory=lambda: laboratory, progress=False
        )
    assert all(store.has(unit.key) for unit in units)


def test_short_memory_of_a_gpu_is_said_without_workers_too(
    blobs: ImageSet, build: Build, setting: Setting, checkpoint: Path
) -> None:
    def train(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    laboratory = Laboratory(blobs, setting, train=train)  # type: ignore[arg-type]
    unit = _units(build(blobs, setting), checkpoint)[0]
    with pytest.raises(InputError, match=r"memory is short .* smaller --batch-size"):
        run_units([unit], laboratory, UnitStore(setting.folder), progress=False)
