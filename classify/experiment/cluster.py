"""Units on a Dask cluster: images are sent once to each worker, results come back to one store.

Workers need this package, and on a shared file system the checkpoints of ``--gan`` and, where
generators are trained per fold or generated images are filtered, the results folder.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from classify.dask_client import connect_to_dask, workers_of
from classify.experiment.division import Setting
from classify.experiment.generators import GeneratorUnit
from classify.experiment.laboratory import Laboratory
from classify.experiment.units import ClassifierUnit, UnitOutput, UnitStore
from galaxies.device import choose_device
from galaxies.errors import InputError
from galaxies.image_set import ImageSet

_AT_ONCE_PER_THREAD = 2  # units in flight: enough to keep workers busy, few claims held


@functools.cache
def device_of_workers(address: str, wanted: str, resources: tuple[str, ...]) -> str:
    """``cpu`` or ``cuda``: what ``--device`` comes to on a worker; this machine may lack it.

    Parameters
    ----------
    address
        Of the scheduler.
    wanted
        ``auto``, ``cpu`` or ``cuda``.
    resources
        Names of the resources that a training occupies: a worker that offers them is asked.

    Raises
    ------
    InputError
        If no such worker answers, or it has no such device.
    """
    client, _ = connect_to_dask(address)
    with client:
        offering = [
            worker
            for worker, known in workers_of(client).items()
            if set(resources) <= set(known["resources"])
        ]
        if not offering:
            raise InputError(
                f"no worker of the Dask cluster at {address} offers {', '.join(resources)}"
            )
        # Beside the queue of tasks: the worker may be busy for hours.
        return client.run(_device_here, wanted, workers=offering[:1])[offering[0]]


def _device_here(wanted: str) -> str:
    return choose_device(wanted).type


def run_on_dask(
    units: Sequence[ClassifierUnit | GeneratorUnit],
    laboratory: Laboratory,
    store: UnitStore,
    address: str,
    resources: dict[str, float] | None,
    bar: tqdm,
) -> None:
    """Train units on the cluster at ``address``.

    Raises
    ------
    InputError
        If dask is not installed, nothing answers at the address, there is no worker, or the
        cluster loses a training.
    """
    client, threads = connect_to_dask(address)
    from distributed import as_completed

    with client, _losses_in_words(address):
        images = client.scatter(
            (laboratory.image_set, laboratory.units), broadcast=True, hash=False
        )
        # Workers may stand in other folders than this process.
        setting = dataclasses.replace(
            laboratory.setting, folder=laboratory.setting.folder.resolve()
        )
        queue = list(units)
        claims: dict[str, tuple[Any, Any]] = {}
        flying = as_completed()

        def submit() -> None:
            while queue and len(claims) < _AT_ONCE_PER_THREAD * threads:
                unit = queue.pop(0)
                if isinstance(unit, GeneratorUnit):
                    claims[unit.key] = (unit, None)
                else:
                    claim = store.claim(unit.key)
                    if not claim.__enter__() or store.has(unit.key):
                        claim.__exit__(None, None, None)
                        continue
                    claims[unit.key] = (unit, claim)
                flying.add(
                    client.submit(
                        train_remotely, images, setting, _with_whole_path(unit),
                        key=f"galaxy-augment-{unit.key}", resources=resources, pure=False,
                    )
                )  # fmt: skip

        try:
            submit()
            for future in flying:
                key, output = future.result()
                unit, claim = claims.pop(key)
                if claim is not None:
                    store.save(unit, output)
                    claim.__exit__(None, None, None)
                bar.update()
                submit()
        finally:
            for _, claim in claims.values():
                if claim is not None:
                    claim.__exit__(None, None, None)


@contextlib.contextmanager
def _losses_in_words(address: str) -> Iterator[None]:
    """What to do where workers or the scheduler died, as `InputError`."""
    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (KilledWorker, CommClosedError, CancelledError) as error:
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else "cancelled"
        raise InputError(
            f"the Dask cluster at {address} lost a training ({reason}); the same command goes on "
            "where it was, with more memory for each worker if that was short"
        ) from None


_opened: dict[tuple[str, str], Laboratory] = {}
_one_at_a_time = threading.Lock()
"""torch's global random numbers, of which dropout and initial weights are drawn, belong to a
process: two trainings in threads of one Dask worker would take each other's."""


def _with_whole_path(unit: ClassifierUnit | GeneratorUnit) -> ClassifierUnit | GeneratorUnit:
    if isinstance(unit, GeneratorUnit) or not unit.generator_path:
        return unit
    return dataclasses.replace(unit, generator_path=str(Path(unit.generator_path).resolve()))


def train_remotely(
    images: tuple[ImageSet, np.ndarray], setting: Setting, unit: ClassifierUnit | GeneratorUnit
) -> tuple[str, UnitOutput | None]:
    """Train one unit on a Dask worker; a generator stays on the shared file system."""
    from classify.experiment.runner import memory_in_words, train_unit

    place = (unit.data, repr(setting))
    with _one_at_a_time:
        if place not in _opened:
            _opened.clear()
            _opened[place] = Laboratory(images[0], setting, units=images[1])
        laboratory = _opened[place]
        if isinstance(unit, GeneratorUnit):
            train_unit(unit, laboratory, UnitStore(setting.folder))
            return unit.key, None
        with memory_in_words():
            return unit.key, laboratory.run(unit)
