"""The Dask cluster that an address names."""

from typing import TYPE_CHECKING, Any

from galaxies.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = "20s"
"""How long a scheduler may take to answer."""


def connect_to_dask(address: str) -> "tuple[Client, int]":
    """A client of the scheduler at ``address``, and how many threads its workers have.

    Raises
    ------
    InputError
        If dask is not installed, nothing answers at the address, or there is no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--dask needs: pip install 'galaxy-augment[dask]'") from None
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address} ({error})") from None
    threads = sum(worker["nthreads"] for worker in workers_of(client).values())
    if threads == 0:
        client.close()
        raise InputError(f"the Dask scheduler at {address} has no workers")
    return client, threads


def workers_of(client: "Client") -> dict[str, dict[str, Any]]:
    """Address of each worker -> what the scheduler knows of it, such as its resources."""
    try:
        return client.scheduler_info(n_workers=-1)["workers"]
    except TypeError:  # versions before 2025.4, which always told of all
        return client.scheduler_info()["workers"]
