"""Who does the work: this process, or the workers of a Dask cluster."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ..cluster import WorkersLost, map_on_cluster, own_device
from ..datasets import Item, UnusableImage
from ..models.devices import best_device
from .methods import Encoder, Method, Setting
from .results import make_row

Rows = list[dict[str, Any]]
Wanted = Mapping[str, tuple[Setting, ...]]  # the name of a method -> settings to try

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
    for task, outcome in map_on_cluster(_score_on_worker, tasks, scheduler, job=job):
        if isinstance(outcome, WorkersLost):
            reason = f"{task.item.name}: several workers died of it, as a rule for want of memory ({outcome})."
            outcome = UnusableImage(reason)
        yield task, outcome


def _score_on_worker(task: Task, job: Job) -> Rows | UnusableImage:
    """`score_image`, on the worker's share of the devices."""
    return score_image(task, replace(job, device=own_device(job.device)))


@cache
def _load(encoder: Encoder, model: str, device: str) -> Any:
    return encoder.load(model, device)
