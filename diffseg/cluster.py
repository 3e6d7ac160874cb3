"""Work on the processes of a Dask cluster, of this machine or of many."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffseg.models.devices import best_device, device_count, share_device

_LOCAL = "local:"


class WorkersLost(RuntimeError):
    """Several workers died of one task."""


def map_on_cluster(
    function: Callable[..., Any], tasks: Sequence[Any], scheduler: str, **fixed: Any
) -> Iterator[tuple[Any, Any]]:
    """Each task with function(task, **fixed), as they get done.

    Dask gives the tasks of a lost worker to others. When several workers die of one task, it is given up, and a
    `WorkersLost` comes in place of its result.

    Args:
        function: of a module, so that the workers can find it by name.
        tasks, fixed: what can be pickled.
        scheduler: "local:N": N processes of this machine; else the address of a Dask scheduler.

    Raises:
        ImportError: if Dask is not installed.
        ValueError: for a scheduler that is none of these.
        OSError: if there is no scheduler at the address.
        Exception: what the function raises.
    """
    with _connect(scheduler) as client:  # first: it says what to do if there is no Dask
        from distributed import KilledWorker, as_completed

        futures = client.map(function, tasks, **fixed, pure=False)
        waiting = {future.key: task for future, task in zip(futures, tasks)}
        for future in as_completed(futures):
            error = future.exception()
            lost = isinstance(error, KilledWorker)
            yield waiting[future.key], WorkersLost(str(error)) if lost else future.result()


def own_device(device: str | None) -> str:
    """Where the worker that calls this computes: on its share of the devices of its machine.

    The workers of a local cluster are numbered. Others have names, and what started them chose their devices.

    Args:
        device: None: an accelerator if there is one.
    """
    from distributed import get_worker

    number, device = get_worker().name, device or best_device()
    return share_device(device, number, device_count(device)) if isinstance(number, int) else device


@contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    """A client of the scheduler; a local cluster lives as long as it does."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(f"scheduler={scheduler!r} needs Dask: pip install 'diffseg[cluster]'") from error
    if not scheduler.startswith(_LOCAL):
        with Client(scheduler) as client:
            yield client
        return
    count = scheduler.removeprefix(_LOCAL)
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(
            f"scheduler={scheduler!r} must be local:N with N from 1 on, or an address like tcp://host:8786."
        )
    with (
        LocalCluster(n_workers=int(count), threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client
