"""A run over a data set: what is missing is computed, what is there is kept."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from errno import EROFS
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from .. import IMAGE_SIZE
from ..datasets import Dataset, UnusableImage
from ..metrics import PROTOCOLS
from ..models.devices import best_device
from ..models.fingerprint import LENGTH
from ..models.paths import POCKET, name_model
from ..models.versions import versions
from ..progress import silent
from .counting import DATASET, Key, is_there
from .features import FEATURES
from .methods import Method, Setting, find_method
from .report import Report
from .results import Results, file_name, key_of
from .tables import Tally, label
from .workers import Job, Task, load, needs_looks, work


def evaluate(
    data: Dataset,
    methods: Mapping[str, Sequence[Setting] | None],
    out: str | os.PathLike,
    model: str | os.PathLike | None = None,
    size: int = IMAGE_SIZE,
    device: str | None = None,
    scheduler: str | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Score methods on a data set, going on from whatever `out` holds already.

    What is there is used again only if nothing has changed that it depends on: the data set, each picture and truth,
    the weights and settings of every model, the size. A threshold that comes from the model's folder is kept as a
    number, so a new one there is a new setting. Other versions of the packages give a warning.

    Args:
        data: from `diffseg.datasets.open_dataset`.
        methods: the name of a registered method -> the settings to try; None: the method's own.
        out: a folder of Parquet files, see `Results`. More images, methods and settings can be added to it later.
        model: as `DiffSegPipeline.from_pretrained` takes it.
        size: images and truths are resized to this side, pixels (the paper: 512 and 320).
        device: None: a GPU if there is one.
        scheduler: None: this process; "local:N"; or the address of a Dask scheduler, whose workers must see the same
            paths.
        protocols: "paper", "clean", and "dataset", one matching for all images, which costs a pass through DINO for
            each image; see `diffseg.metrics.POLICIES`.
        tell: is told, line by line, what is used again and what will be computed.

    Raises:
        ValueError: for an unknown method or protocol; if `out` is about another data set, model or size; or if a
            picture has changed.
        BlockingIOError: if another command is at work in `out`.
        OSError: if a result could not be written. All that were written stay.
    """
    unknown = set(protocols) - {*PROTOCOLS, DATASET}
    if unknown or not protocols:
        raise ValueError(f"protocols={list(protocols)} must be some of {', '.join((*PROTOCOLS, DATASET))}.")
    found = {name: find_method(name) for name in methods}
    model, device = _name_model(model), device or (best_device() if scheduler is None else None)
    wanted, models = _settle(data, methods, found, model, device or "cpu", DATASET in protocols)
    about = {"dataset": data.name, "split": data.split, "classes": _digest(data.classes), "size": size}
    results = Results(out, about, models, versions())
    job = Job(found, model, size, data.spoken, data.words, DATASET in protocols, models, device)
    with results.sole_use():
        frame = _chosen(results.read(), data, wanted)
        done = _done(frame, job)
        _check_sources(frame, data, results.folder)
        tasks = [Task(item, _missing(wanted, done.get(item.name, set()))) for item in data]
        tasks = [task for task in tasks if task.wanted]
        for line in _summary(data, wanted, done, models, results.folder):
            tell(line)
        if tasks and not results.writable:
            raise OSError(EROFS, "Results cannot be added there; give an out= that can be written to", str(out))
        unusable = _work_off(tasks, job, scheduler, results, Tally(len(data.classes), _rows(frame)), data)
        frame = _chosen(results.read(), data, wanted)
    return Report(
        frame, data, _keys(wanted), tuple(protocols), unusable, models, {name: found[name].shared for name in found}
    )


def _work_off(
    tasks: Sequence[Task], job: Job, scheduler: str | None, results: Results, tally: Tally, data: Dataset
) -> dict[str, str]:
    """Compute what is missing, and keep it; returns which images could not be used, and why."""
    unusable = {}
    with (
        tqdm(
            desc=f"{data.name} {data.split}",
            total=len(data),
            initial=len(data) - len(tasks),
            unit="image",
            disable=silent(),
        ) as bar,
        closing(work(tasks, job, scheduler)) as outcomes,
    ):
        bar.set_postfix_str(tally.best())
        for task, outcome in outcomes:
            if isinstance(outcome, UnusableImage):
                unusable[task.item.name] = str(outcome)
            else:
                results.add(task.item.name, outcome)
                for row in outcome:
                    tally.add(row)
            bar.set_postfix_str(tally.best())
            bar.update()
    return unusable


def _settle(
    data: Dataset,
    methods: Mapping[str, Sequence[Setting] | None],
    found: Mapping[str, Method],
    model: str,
    device: str,
    described: bool,
) -> tuple[dict[str, tuple[Setting, ...]], dict[str, str]]:
    """The settings to try, as numbers wherever there is a number, and the fingerprints of the models by their role."""
    wanted: dict[str, tuple[Setting, ...]] = {}
    models: dict[str, str] = {}
    for name, given in methods.items():
        loaded, fingerprints = load(found[name].encoder, model, device)
        models |= fingerprints
        settings = _once(given) or found[name].settings(data)
        wanted[name] = _once([found[name].resolve(loaded) if value is None else value for value in settings])
    if described:
        models |= load(FEATURES, model, device)[1]
    return wanted, models


def _name_model(model: str | os.PathLike | None) -> str:
    """A name that means the same on another machine, which has an environment and a working directory of its own."""
    name = name_model(model or None)
    folder = Path(name).expanduser()
    return str(folder.absolute()) if name != POCKET and folder.exists() else name


def _once(given: Sequence[Setting] | None) -> tuple[Setting, ...]:
    """Each setting once, in the order given."""
    settings = () if given is None else given
    return tuple(dict.fromkeys(None if setting is None else float(setting) for setting in settings))


def _keys(wanted: Mapping[str, tuple[Setting, ...]]) -> list[Key]:
    return [(name, setting) for name, settings in wanted.items() for setting in settings]


def _digest(names: Iterable[str]) -> str:
    return sha256("\n".join(names).encode()).hexdigest()[:LENGTH]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.to_dict("records")


def _chosen(frame: pd.DataFrame, data: Dataset, wanted: Mapping[str, tuple[Setting, ...]]) -> pd.DataFrame:
    """The rows that belong to this run, in the order of the data set."""
    order = {item.name: index for index, item in enumerate(data)}
    keys = set(_keys(wanted))
    chosen = [row["image"] in order and key_of(row) in keys for row in _rows(frame[["image", "method", "setting"]])]
    frame = frame[pd.Series(chosen, index=frame.index, dtype=bool)]
    return frame.sort_values("image", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _done(frame: pd.DataFrame, job: Job) -> dict[str, set[Key]]:
    """What is there for each image. Rows without descriptors are no use where those are needed."""
    done: dict[str, set[Key]] = {}
    for row in _rows(frame[["image", "method", "setting", "descriptors", "hits_named"]]):
        named = is_there(row["hits_named"])
        if named or is_there(row["descriptors"]) or not needs_looks(job.methods[row["method"]], job):
            done.setdefault(row["image"], set()).add(key_of(row))
    return done


def _check_sources(frame: pd.DataFrame, data: Dataset, folder: Path) -> None:
    """Refuse results of a picture or a truth that is no longer what it was; one that is gone is not looked at."""
    sources = frame.groupby("image").source.unique()
    for item in data:
        if item.name in sources.index:
            with suppress(UnusableImage):
                if set(sources[item.name]) != {item.digest()}:
                    raise ValueError(
                        f"{item.name}: the picture or its truth has changed since it was scored. Delete "
                        f"{folder / file_name(item.name)} to have it scored again, or give another out=."
                    )


def _missing(wanted: Mapping[str, tuple[Setting, ...]], done: set[Key]) -> dict[str, tuple[Setting, ...]]:
    left = {name: tuple(s for s in settings if (name, s) not in done) for name, settings in wanted.items()}
    return {name: settings for name, settings in left.items() if settings}


def _summary(
    data: Dataset,
    wanted: Mapping[str, tuple[Setting, ...]],
    done: Mapping[str, set[Key]],
    models: Mapping[str, str],
    folder: Path,
) -> list[str]:
    """What is used again and what is computed, and with which models."""
    lines = [f"{role} model: {name}" for role, name in models.items()]
    for name, setting in _keys(wanted):
        there = sum((name, setting) in done.get(item.name, ()) for item in data)
        lines.append(f"{label(name, setting)}: {there} images from {folder}, {len(data) - there} to compute")
    return lines
