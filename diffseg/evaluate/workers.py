"""Who does the work: this process, or the workers of a Dask cluster."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..cluster import WorkersLost, map_on_cluster, own_device
from ..datasets import Item, UnusableImage
from ..models.devices import best_device
from ..models.fingerprint import LENGTH, fingerprint
from ..models.paths import POCKET, resolve_model
from ..models.settings import SETTINGS_FILE, read_settings
from .counting import make_row
from .features import FEATURES, describe
from .methods import Encoder, Method, Named, Setting

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
        classes: the word for each class.
        words: the class that each word names.
        described: whether segments get descriptors, see `features`.
        models: fingerprints that the worker's models must have, by their role.
        device: where to run; None: an accelerator if the worker has one. The workers of one machine share its devices.
    """

    methods: Mapping[str, Method]
    model: str
    size: int
    classes: tuple[str, ...]
    words: Mapping[str, int]
    described: bool
    models: Mapping[str, str]
    device: str | None = None


@dataclass(frozen=True)
class Task:
    """An image, and what to try on it."""

    item: Item
    wanted: Wanted


def score_image(task: Task, job: Job) -> Rows | UnusableImage:
    """Read an image, encode it once for each encoder, and score all that is wanted.

    An image that cannot be used is an answer, not an error: the others are not its fault.

    Raises:
        ValueError: if this process has another model than the job is about.
    """
    # One model and one UNet pass in a process: while a pass is recorded, the model is changed.
    with _one_at_a_time:
        try:
            sample = replace(task.item.read(job.size), words=job.classes)
            source = task.item.digest()
        except UnusableImage as error:
            return error
        encodings: dict[Encoder, Any] = {}

        def encoded(encoder: Encoder) -> tuple[Any, Any]:
            model = _load_checked(encoder, job)
            if encoder not in encodings:
                encodings[encoder] = encoder.encode(model, sample)
            return model, encodings[encoder]

        rows = []
        for name, settings in task.wanted.items():
            method = job.methods[name]
            found = method.segment(*encoded(method.encoder), sample, settings)
            for setting, labels in zip(settings, found, strict=True):
                looks = None
                if needs_looks(method, job) and not isinstance(labels, Named):
                    looks = describe(encoded(FEATURES)[1], np.asarray(labels))
                rows.append(
                    make_row(
                        task.item.name,
                        (name, setting),
                        labels,
                        sample.truth,
                        len(job.classes),
                        job.words,
                        source,
                        looks,
                    )
                )
        return rows


def needs_looks(method: Method, job: Job) -> bool:
    """Whether the segments of a method are described."""
    return job.described and not method.shared


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


def load(encoder: Encoder, model: str, device: str) -> tuple[Any, dict[str, str]]:
    """The model of an encoder, and the fingerprints of its parts by their role.

    It is kept until its files change, so that a later run in the same process has it at once.
    """
    return _load(encoder, model, device, _stamp(model))


def _work_on_cluster(tasks: Sequence[Task], job: Job, scheduler: str) -> Iterator[tuple[Task, Rows | UnusableImage]]:
    for task, outcome in map_on_cluster(_score_on_worker, tasks, scheduler, job=job):
        if isinstance(outcome, WorkersLost):
            reason = f"{task.item.name}: several workers died of it, as a rule for want of memory ({outcome})."
            outcome = UnusableImage(reason)
        yield task, outcome


def _score_on_worker(task: Task, job: Job) -> Rows | UnusableImage:
    """`score_image`, on the worker's share of the devices."""
    return score_image(task, replace(job, device=own_device(job.device)))


def _load_checked(encoder: Encoder, job: Job) -> Any:
    """The model of an encoder, which must be the one that the job is about."""
    model, fingerprints = load(encoder, job.model, job.device or best_device())
    for role, found in fingerprints.items():
        if role in job.models and job.models[role] != found:
            raise ValueError(
                f"model={job.model!r}: the {role} model has the fingerprint {found} in this process, and "
                f"{job.models[role]} where the run was started. Give all machines the same files, and start again."
            )
    return model


@lru_cache(maxsize=4)
def _load(encoder: Encoder, model: str, device: str, stamp: str) -> tuple[Any, dict[str, str]]:
    loaded = encoder.load(model, device)
    return loaded, {role: fingerprint(part) for role, part in encoder.parts(loaded).items()}


def _stamp(model: str) -> str:
    """Changes whenever a file of a model in a folder, or of its captioner, may have changed."""
    found = Path(resolve_model(model))
    folders = [found.parent if model == POCKET else found]
    captioner = read_settings(found).captioner if (found / SETTINGS_FILE).is_file() else None
    folders += [found / captioner] if captioner else []
    files = sorted(file for folder in folders if folder.is_dir() for file in folder.rglob("*") if file.is_file())
    known = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return sha256(repr(known).encode()).hexdigest()[:LENGTH]
