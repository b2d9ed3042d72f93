"""``classify-predict`` on a Dask cluster: a worker opens the checkpoint once and reads its share.

Only names travel to the workers and only answers come back, so the checkpoint and the images lie
on a file system that all see. Shares are batches: the numbers are those of one machine.
"""

import threading
import uuid
from collections.abc import Iterator

from classify.dask_client import connect_to_dask
from classify.inputs import Item
from classify.predict import ClassifyPredict
from classify.predict_command import AnsweredBatch, answered_batches, open_service_and_items
from classify.service import ClassifierService
from galaxies.errors import InputError

_AT_ONCE_PER_THREAD = 2  # batches in flight: enough to keep workers busy, few answers waiting

_opened: dict[str, tuple[ClassifierService, list[Item]]] = {}
_opening = threading.Lock()


def answered_on_dask(config: ClassifyPredict, count: int) -> Iterator[AnsweredBatch]:
    """Answers of ``count`` images from the cluster at ``config.dask``, in their order.

    Raises
    ------
    InputError
        If there is no cluster, or its workers see other images than this machine.
    """
    assert config.dask is not None
    client, threads = connect_to_dask(config.dask)
    with client:
        starts = iter(range(0, count, config.batch_size))

        def submit() -> None:
            while len(flying) < _AT_ONCE_PER_THREAD * threads:
                start = next(starts, None)
                if start is None:
                    return
                flying.append(client.submit(answer_share, config, start, count, run, pure=False))

        run = uuid.uuid4().hex  # workers outlive a command, after which its files may change
        flying: list = []
        submit()
        while flying:
            yield flying.pop(0).result()
            submit()


def answer_share(config: ClassifyPredict, start: int, count: int, run: str) -> AnsweredBatch:
    """The batch that begins at ``start``, on a worker; ``run`` names one call of the command."""
    with _opening:
        if run not in _opened:
            _opened.clear()
            _opened[run] = open_service_and_items(config)
        service, items = _opened[run]
    if len(items) != count:
        raise InputError(
            f"a Dask worker finds {len(items)} images where {count} were listed; checkpoint and "
            "images must lie on a file system that all workers see, under absolute paths"
        )
    (batch,) = answered_batches(config, service, items[start : start + config.batch_size])
    return batch
