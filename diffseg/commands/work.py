"""Segmenting the pictures of a run, here or on the workers of a cluster; what is done already is kept."""

import errno
import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from PIL import Image

from diffseg.cluster import WorkersLost, map_on_cluster, own_device
from diffseg.commands.pictures import Picture
from diffseg.export import ABOUT, LABELS, OVERLAY, save
from diffseg.models.devices import best_device
from diffseg.models.versions import versions
from diffseg.output import DiffSegOutput, plain_settings
from diffseg.pipeline import DiffSegPipeline
from diffseg.plus import find_method

#: Nothing more can be written once these have happened; other errors of writing are those of one file.
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

Group = tuple[Picture, ...]

_one_at_a_time = threading.Lock()


class OtherSettings(ValueError):
    """The folder holds results of other settings, or of another model."""


@dataclass(frozen=True)
class Job:
    """What a worker has to know besides the pictures.

    Attributes:
        out: the folder of results.
        model: "pocket", a folder, a file or a hub id.
        words, threshold, size, crop: of the pipeline; threshold and size may be None, the model's own.
        method: of `diffseg.plus.METHODS`.
        overlay: whether overlays are wanted.
        device: where to run; None: an accelerator if the worker has one.
    """

    out: Path
    model: str
    words: str | tuple[str, ...] | None = None
    threshold: float | None = None
    size: int | None = None
    crop: bool = True
    method: str = "paper"
    overlay: bool = False
    device: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        failure: why there is no result; None if there is one.
        kept: whether the result had been there before.
        versions: of the packages that made a result that was kept.
    """

    picture: Picture
    failure: str | None = None
    kept: bool = False
    versions: Mapping[str, str] | None = None


def make_groups(pictures: Sequence[Picture], size: int, out: Path) -> list[Group]:
    """Pictures that go through the model together; first come those of which there is a result.

    Which pictures are in a group does not depend on what is done: sums of floats do depend on the group, and a run
    that goes on gives what it would have given.
    """
    groups = [tuple(pictures[start : start + size]) for start in range(0, len(pictures), size)]
    return sorted(groups, key=lambda group: not any(_file(out, picture, ABOUT).exists() for picture in group))


def work(groups: Sequence[Group], job: Job, scheduler: str | None) -> Iterator[list[Outcome]]:
    """The outcomes of each group, as they get done.

    Args:
        scheduler: None: one after the other, here; "local:N": N processes of this machine; else the address of a
            Dask scheduler, whose workers must see the same paths.

    Raises:
        OtherSettings: if the folder holds results of other settings.
        ImportError, ValueError, OSError: for a model or a scheduler that cannot be had; or if nothing more can be
            written, see FATAL.
    """
    if scheduler is None:
        yield from (segment_group(group, job) for group in groups)
        return
    for group, outcomes in map_on_cluster(_segment_on_worker, groups, scheduler, job=job):
        if isinstance(outcomes, WorkersLost):
            reason = f"several workers died of it, as a rule for want of memory ({outcomes})"
            outcomes = [Outcome(picture, reason) for picture in group]
        yield outcomes


def segment_group(group: Group, job: Job) -> list[Outcome]:
    """Segment the pictures of a group that have no result yet, and write the results.

    A picture that cannot be used is an outcome, not an error: the others are not its fault.
    """
    # One model and one pass in a process: while a pass is recorded, the model is changed.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are welcome
        pipe = _load(job.model, job.device or best_device())
        expected = _expected(pipe, job)
        outcomes, left, digests = {}, [], {}
        for picture in group:
            try:
                digests[picture] = _digest(picture.path)
            except OSError as error:
                outcomes[picture] = Outcome(picture, _reason(error))
                continue
            if (older := _result(picture, digests[picture], job, expected)) is None:
                left.append(picture)
            else:
                outcomes[picture] = Outcome(picture, kept=True, versions=older.get("versions"))
        if left:
            for picture, out in _segment([picture for picture in group if picture in digests], pipe, job):
                if picture in left:
                    about = {"file": picture.file, "sha256": digests[picture]}
                    outcomes[picture] = _keep(picture, out, job, {"picture": about, "model": expected["model"]})
        return [outcomes[picture] for picture in group]


# ---- helpers --------------------------------------------------------------------------------------------------------


def _segment_on_worker(group: Group, job: Job) -> list[Outcome]:
    """`segment_group`, on the worker's share of the devices."""
    return segment_group(group, replace(job, device=own_device(job.device)))


@cache
def _load(model: str, device: str) -> DiffSegPipeline:
    pipe = DiffSegPipeline.from_pretrained(model).to(device)
    pipe.set_progress_bar_config(disable=True)  # there is one for all pictures
    return pipe


@cache
def _describe(pipe: DiffSegPipeline, captioned: bool) -> dict[str, str | None]:
    """Name and fingerprint, for which all vocabularies are read anew each time."""
    return pipe.describe(captioned)


def _expected(pipe: DiffSegPipeline, job: Job) -> dict[str, Any]:
    """What the JSON file of a result must say if the result is one of this job.

    Raises:
        ValueError: for a size that the model cannot take.
    """
    size = pipe.backbone.default_size(pipe) if job.size is None else job.size
    if size < pipe.size_step or size % pipe.size_step:
        raise ValueError(f"size={size} must be a positive multiple of {pipe.size_step} for this model.")
    method = find_method(job.method)
    threshold = pipe.default_threshold(method) if job.threshold is None else job.threshold
    settings = {
        "method": method.changes(), "words": job.words, "threshold": threshold, "size": size, "crop": job.crop,
    }  # fmt: skip
    return {"settings": plain_settings(settings), "model": _describe(pipe, job.words == "caption")}


def _result(picture: Picture, digest: str, job: Job, expected: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is written about the result of a picture; None if there is none, or not all of it, or of another picture.

    Raises:
        OtherSettings: if it was made with other settings or by another model.
    """
    file = _file(job.out, picture, ABOUT)
    try:
        about = json.loads(file.read_bytes())
        settings, model, given = about["settings"], about["model"], about["picture"]["sha256"]
        used = {name: settings[name] for name in expected["settings"]}
        used |= {f"model's {name}": model.get(name) for name in expected["model"] if name != "name"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged
        return None
    wanted = expected["settings"] | {f"model's {name}": expected["model"][name] for name in expected["model"]}
    for name, value in used.items():
        if value != wanted[name]:
            raise OtherSettings(
                f"{file} was made with {name} {value!r}, and this run has {wanted[name]!r}. Give another --out, or the "
                "settings of before; or remove the folder to have all pictures segmented anew."
            )
    ends = (LABELS, OVERLAY) if job.overlay else (LABELS,)
    whole = all(_file(job.out, picture, end).is_file() for end in ends)
    return about if whole and given == digest else None


def _segment(group: Sequence[Picture], pipe: DiffSegPipeline, job: Job) -> Iterator[tuple[Picture, Any]]:
    """Each picture with its output, or with the reason why there is none."""
    words = list(job.words) if isinstance(job.words, tuple) else job.words
    try:
        outs = pipe(
            [picture.path for picture in group],
            words=words, threshold=job.threshold, size=job.size, crop=job.crop, batch_size=len(group),
            method=job.method,
        )  # fmt: skip
    except Exception as error:  # of a decoder, for want of memory, of a caption, ...
        if len(group) == 1:
            yield group[0], _reason(error)
        else:  # one of them is to blame; the others are segmented without it
            for picture in group:
                yield from _segment([picture], pipe, job)
    else:
        yield from zip(group, outs, strict=True)


def _keep(picture: Picture, out: DiffSegOutput | str, job: Job, about: Mapping[str, Any]) -> Outcome:
    """Write the result of a picture; of what failed, hand on the reason."""
    if isinstance(out, str):
        return Outcome(picture, out)
    target = _file(job.out, picture, "")
    try:
        save(out, target.parent, target.name, job.overlay, about)
    except OSError as error:
        if error.errno in FATAL:
            raise
        return Outcome(picture, _reason(error))
    return Outcome(picture)


def _digest(path: Path) -> str:
    if not path.is_file():  # a pipe, for example, from which reading would wait for ever
        raise FileNotFoundError(errno.ENOENT, "is not a file", str(path))
    with open(path, "rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _file(out: Path, picture: Picture, end: str) -> Path:
    return out / (picture.name + end)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def other_versions(outcome: Outcome) -> dict[str, str]:
    """The packages that made a result that was kept in versions that are not those of today."""
    now = versions()
    return {name: old for name, old in (outcome.versions or {}).items() if now.get(name) != old}
