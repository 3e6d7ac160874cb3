"""A run over a data set: what is missing is computed, what is there is kept."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .. import IMAGE_SIZE
from ..datasets import Dataset, UnusableImage
from ..models.paths import MODEL_VARIABLE, POCKET, resolve_model
from ..progress import silent
from .methods import Setting, find_method
from .results import Key, Results, Tally, key_of
from .workers import Job, Task, work


@dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
        scores: one row per method, setting and protocol: images, accuracy, miou.
        unusable: name of an image -> why it could not be used. The scores are without these; another run tries them
            again.
    """

    scores: pd.DataFrame
    unusable: dict[str, str]


def evaluate(
    data: Dataset,
    methods: Mapping[str, Sequence[Setting] | None],
    out: str | os.PathLike,
    model: str | os.PathLike | None = None,
    size: int = IMAGE_SIZE,
    device: str | None = None,
    scheduler: str | None = None,
) -> Report:
    """Score methods on a data set, going on from whatever `out` holds already.

    Args:
        data: from `diffseg.datasets.open_dataset`.
        methods: the name of a registered method -> the settings to try; None: the method's own.
        out: a folder of Parquet files, see `Results`. More images, methods and settings can be added to it later.
        model: as `DiffSegPipeline.from_pretrained` takes it.
        size: images and truths are resized to this side, pixels (the paper: 512 and 320).
        device: None: a GPU if there is one.
        scheduler: None: this process; "local:N"; or the address of a Dask scheduler, whose workers must see the same
            paths.

    Raises:
        ValueError: for an unknown method, or if `out` is about another data set, model or size.
        OSError: if a result could not be written. All that were written stay.
    """
    found = {name: find_method(name) for name in methods}
    wanted = {name: _settings(given) or found[name].settings(data) for name, given in methods.items()}
    keys = [(name, setting) for name, settings in wanted.items() for setting in settings]
    model = _name_model(model)
    about = {"dataset": data.name, "split": data.split, "model": _identify(model), "size": size}
    results = Results(out, about)
    tally, done = _tally(results, data, keys)
    tasks = [Task(item, _missing(wanted, done.get(item.name, set()))) for item in data]
    tasks = [task for task in tasks if task.wanted]
    unusable = {}
    job = Job(found, model, size, device)
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
    return Report(_tally(results, data, keys)[0].table(), unusable)


def _name_model(model: str | os.PathLike | None) -> str:
    """A name that means the same on another machine, which has an environment and a working directory of its own."""
    name = os.fspath(model or os.environ.get(MODEL_VARIABLE) or POCKET)
    folder = Path(name).expanduser()
    return str(folder.absolute()) if name != POCKET and folder.is_dir() else name


def _identify(model: str) -> str:
    """What distinguishes a model: its name, and a digest of the UNet in a folder, which may be trained anew."""
    folder = Path(resolve_model(model))
    if not folder.is_dir():
        return model
    digests = []
    for weights in sorted((folder / "unet").glob("*.safetensors")):
        with open(weights, "rb") as opened:
            digests.append(file_digest(opened, "sha256").hexdigest()[:12])
    return " ".join([folder.name, *digests])


def _settings(given: Sequence[Setting] | None) -> tuple[Setting, ...]:
    """Each setting once, in the order given."""
    settings = () if given is None else given
    return tuple(dict.fromkeys(None if setting is None else float(setting) for setting in settings))


def _tally(results: Results, data: Dataset, keys: Sequence[Key]) -> tuple[Tally, dict[str, set[Key]]]:
    """The scores of what is on disk and belongs to this run, and what is done for each image."""
    names, tally, done = {item.name for item in data}, Tally(), {}
    for row in results.read().to_dict("records"):
        key = key_of(row)
        if row["image"] in names and key in keys:
            tally.add(row)
            done.setdefault(row["image"], set()).add(key)
    return tally, done


def _missing(wanted: Mapping[str, tuple[Setting, ...]], done: set[Key]) -> dict[str, tuple[Setting, ...]]:
    left = {name: tuple(s for s in settings if (name, s) not in done) for name, settings in wanted.items()}
    return {name: settings for name, settings in left.items() if settings}
