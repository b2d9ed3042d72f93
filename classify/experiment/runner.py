"""Trains units: one after another, in worker processes, or on a Dask cluster.

All three train a unit by the same function with the same number of threads, so their results
are identical; the order does not matter because no unit knows another.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from classify import pixel_bank
from classify.experiment.division import Division
from classify.experiment.generators import GeneratorUnit
from classify.experiment.units import ClassifierUnit, UnitStore
from galaxies.command_line import EXIT_INTERRUPTED
from galaxies.errors import InputError

AnyUnit = ClassifierUnit | GeneratorUnit

OpenLaboratory = Callable[[], Division]
"""Opens the laboratory anew in a worker process; must be picklable."""

_WAIT_FOR_OTHERS = 1.0  # seconds between two looks at units that another process is training


def is_finished(unit: AnyUnit, store: UnitStore) -> bool:
    """Whether a unit needs no training."""
    if isinstance(unit, GeneratorUnit):
        return unit.finished(store.folder)
    return store.has(unit.key)


def train_unit(unit: AnyUnit, laboratory: Division, store: UnitStore) -> bool:
    """Train and store one unit; ``False`` where another process is training it."""
    with memory_in_words():
        if isinstance(unit, GeneratorUnit):
            return laboratory.run_generator(unit)
        with store.claim(unit.key) as free:
            if store.has(unit.key):
                return True
            if not free:
                return False
            store.save(unit, laboratory.run(unit))
    return True


@contextlib.contextmanager
def memory_in_words() -> Iterator[None]:
    """What to do where a GPU's memory is short, as `InputError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the GPU's memory is short ({reason}); the same command goes on where it was, with "
            "fewer --workers or a smaller --batch-size"
        ) from None


def _is_free(unit: AnyUnit, store: UnitStore) -> bool:
    """Whether no other process is training a unit at this moment."""
    with store.claim(unit.key) as free:
        return free


def run_units(
    units: Sequence[AnyUnit],
    laboratory: Division,
    store: UnitStore,
    *,
    workers: int = 1,
    open_laboratory: OpenLaboratory | None = None,
    dask: str | None = None,
    dask_resources: dict[str, float] | None = None,
    title: str = "train",
    progress: bool = True,
) -> int:
    """Train what is not finished yet and wait for what other processes train.

    Parameters
    ----------
    laboratory
        Of this process.
    workers
        Processes; 1 trains in this one.
    open_laboratory
        For workers; needed where ``workers`` is above 1.
    dask
        Address of a Dask scheduler, instead of workers.
    dask_resources
        What each unit occupies of a Dask worker, for example ``{"GPU": 1}``.

    Returns
    -------
    int
        How many units were missing when the call began.
    """
    unfinished = [unit for unit in units if not is_finished(unit, store)]
    missing = len(unfinished)
    bar = tqdm(total=len(units), initial=len(units) - missing, desc=title, unit="run",
               disable=not progress or not units, leave=False)  # fmt: skip
    with bar:
        while unfinished:
            if dask is not None:
                from classify.experiment.cluster import run_on_dask
                from classify.experiment.laboratory import Laboratory

                assert isinstance(laboratory, Laboratory)  # tables refuse the flag
                run_on_dask(unfinished, laboratory, store, dask, dask_resources, bar)
            else:
                # A pool takes seconds to begin: none for units that others train.
                free = [unit for unit in unfinished if _is_free(unit, store)]
                if workers > 1 and len(free) > 1 and open_laboratory is not None:
                    jobs: dict[str, list[AnyUnit]] = {}
                    for unit in free:
                        shared = isinstance(unit, ClassifierUnit)
                        key = laboratory.trained_with(unit) if shared else unit.key  # type: ignore[arg-type]
                        jobs.setdefault(key, []).append(unit)
                    _run_in_processes(
                        list(jobs.values()), store, min(workers, len(jobs)), open_laboratory, bar
                    )
                else:
                    for unit in free:
                        if train_unit(unit, laboratory, store):
                            bar.update()
            unfinished = [unit for unit in unfinished if not is_finished(unit, store)]
            if unfinished:
                bar.set_postfix_str("waiting for another process")
                time.sleep(_WAIT_FOR_OTHERS)
    return missing


def _run_in_processes(
    jobs: Sequence[Sequence[AnyUnit]],
    store: UnitStore,
    workers: int,
    open_laboratory: OpenLaboratory,
    bar: tqdm,
) -> None:
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_begin_worker,
        initargs=(open_laboratory, store.folder, os.getpid(), workers, context.Value("i", 0)),
    )
    try:
        waiting = {executor.submit(_train_in_worker, job) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                bar.update(future.result())
    except BrokenProcessPool:
        raise InputError(
            "a worker process died (killed, or out of memory); the same command goes on where "
            "it was, with fewer --workers if memory was short"
        ) from None
    except BaseException:
        for process in list((executor._processes or {}).values()):
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}


def _begin_worker(
    open_laboratory: OpenLaboratory, folder: Any, parent: int, workers: int, begun: Any
) -> None:
    """Open the laboratory once per process; Ctrl-C is the parent's business."""
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    if torch.cuda.device_count() > 1:  # the GPUs of a machine are dealt out in turn
        torch.cuda.set_device(number % torch.cuda.device_count())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pixel_bank.sharers = workers
    _worker["laboratory"] = open_laboratory()
    _worker["store"] = UnitStore(folder)


def _end_with(parent: int) -> None:
    """End this worker when its parent was killed: nobody waits for it any more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _train_in_worker(job: Sequence[AnyUnit]) -> int:
    """How many units of the job were finished here."""
    try:
        return sum(train_unit(unit, _worker["laboratory"], _worker["store"]) for unit in job)
    except KeyboardInterrupt:  # the pool would catch it and hand this worker the next job
        os._exit(EXIT_INTERRUPTED)
