"""Who does the work: this process, or the workers of a Dask cluster."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ..datasets import Item, UnusableImage
from ..models.devices import best_device, device_count, share_device
from .methods import Encoder, Method, Setting
from .results import make_row

Rows = list[dict[str, Any]]
Wanted = Mapping[str, tuple[Setting, ...]]  # the name of a method -> settings to try

_LOCAL = "local:"
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Job:
    """What a worker has to know besides the image.

    Attributes:
        methods: by name.
        model: "pocket", a folder or a hub id.
        size: side of image and truth, pixels.
        device: where to run; None: an accelerator if the worker has one. The workers of one machine share its devices.
    """

    methods: Mapping[str, Method]
    model: str
    size: int
    device: str | None = None


@dataclass(frozen=True)
class Task:
    """An image, and what to try on it."""

    item: Item
    wanted: Wanted


def score_image(task: Task, job: Job) -> Rows | UnusableImage:
    """Read an image, encode it once for each encoder, and score all that is wanted.

    An image that cannot be used is an answer, not an error: the others are not its fault.
    """
    # One model and one UNet pass in a process: while a pass is recorded, the model is changed.
    with _one_at_a_time:
        try:
            sample = task.item.read(job.size)
        except UnusableImage as error:
            return error
        encodings: dict[Encoder, Any] = {}
        rows = []
        for name, settings in task.wanted.items():
            method = job.methods[name]
            model = _load(method.encoder, job.model, job.device or best_device())
            if method.encoder not in encodings:
                encodings[method.encoder] = method.encoder.encode(model, sample)
            found = method.segment(model, encodings[method.encoder], sample, settings)
            for setting, labels in zip(settings, found, strict=True):
                rows.append(make_row(task.item.name, (name, setting), labels, sample.truth))
        return rows


def work(tasks: Sequence[Task], job: Job, scheduler: str | None) -> Iterator[tuple[Task, Rows | UnusableImage]]:
    """Each task with its outcome, as they get done.

    Args:
        scheduler: None: one after the other, here; "local:N": N processes of this machine; else the address of a
            Dask scheduler.

    Raises:
        ImportError: if Dask is asked for and not installed.
        ValueError: for a scheduler that is none of these.
        OSError: if there is no scheduler at the address.
    """
    if scheduler is None or not tasks:
        return ((task, score_image(task, job)) for task in tasks)
    return _work_on_cluster(tasks, job, scheduler)


def _work_on_cluster(tasks: Sequence[Task], job: Job, scheduler: str) -> Iterator[tuple[Task, Rows | UnusableImage]]:
    with _connect(scheduler) as client:  # first: it says what to do if there is no Dask
        from distributed import KilledWorker, as_completed

        # Dask gives the tasks of a lost worker to others, and gives a task up when several workers died of it.
        futures = client.map(_score_on_worker, tasks, job=job, pure=False)
        waiting = {future.key: task for future, task in zip(futures, tasks)}
        for future in as_completed(futures):
            task = waiting[future.key]
            error = future.exception()
            if isinstance(error, KilledWorker):
                reason = f"{task.item.name}: several workers died of it, as a rule for want of memory ({error})."
                yield task, UnusableImage(reason)
            else:
                yield task, future.result()


def _score_on_worker(task: Task, job: Job) -> Rows | UnusableImage:
    """`score_image`, on the worker's share of the devices.

    The workers of a local cluster are numbered. Others have names, and what started them chose their devices.
    """
    from distributed import get_worker

    number, device = get_worker().name, job.device or best_device()
    if isinstance(number, int):
        device = share_device(device, number, device_count(device))
    return score_image(task, replace(job, device=device))


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


@cache
def _load(encoder: Encoder, model: str, device: str) -> Any:
    return encoder.load(model, device)
