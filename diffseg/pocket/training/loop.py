"""One training loop for every embedded model: seeded, logged, and resumable after any stop.

The randomness of a step depends on the seed and the step's number alone, so a run that was stopped and resumed sees
the same batches as one that was not.

A training can keep snapshots of its averaged weights, from which its story is told afterwards (`story`).
"""

import copy
import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ...files import write_whole
from .muon import Muon

T = TypeVar("T")

_SNAPSHOT = "snapshot-{:06d}.safetensors"


class OutOfTime(Exception):
    """The deadline has passed. What is done is on disk, and the same call goes on from there."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    warmup: int = 100  # steps over which the learning rate rises from 0
    cooldown: float = 0.25  # the last part of the steps, over which it falls to 0
    ema: float = 0.999  # decay of the averaged weights, per step
    seed: int = 0
    save_seconds: float = 120.0  # between checkpoints
    deadline: float = math.inf  # value of `time.monotonic()` after which training stops, to be resumed
    snapshots: Sequence[int] = ()  # after so many steps the averaged weights are kept, see `write_snapshot`


def muon_and_adamw(model: nn.Module, muon: float = 0.02, adamw: float = 1e-3) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of attention and feed-forward layers, AdamW for everything else.

    Muon orthogonalises each update, so that the query and key matrices grow in all directions at once: with it the
    attention maps become sharp many times sooner than with AdamW alone.
    """
    embeddings = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2 and p not in embeddings]
    rest = [p for p in parameters if p.ndim != 2 or p in embeddings]
    return [
        Muon(matrices, lr=muon, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adamw, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def gaussian(shape: Sequence[int], rng: np.random.Generator, device: str | torch.device) -> Float[Tensor, "..."]:
    """Standard normal numbers, drawn on the device, which is much faster; other devices draw others."""
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(tuple(shape), generator=generator, device=device)


class Ahead:
    """What a training needs for one step after the other, prepared by worker processes while the device computes.

    Args:
        steps: by the number of a step, what it needs; depends on nothing else, so that a resumed training goes on with
            the same.
        last: the number of steps.
        workers: processes; 0: this one, when asked.
    """

    def __init__(self, steps: Dataset[T], last: int, workers: int = 0) -> None:
        self.steps, self.last, self.workers = steps, last, workers
        self._coming: Iterator[T] | None = None

    def take(self, step: int) -> T:
        """For a step: any one at first, then the next ones in turn."""
        if self._coming is None:
            numbers = range(step, self.last)
            self._coming = iter(DataLoader(self.steps, batch_size=None, sampler=numbers, num_workers=self.workers))
        return next(self._coming)


def rate(step: int, plan: Plan) -> float:
    """Factor on the learning rate: a rise, a plateau, and a straight fall to zero at the end."""
    fall = max(plan.steps * plan.cooldown, 1)
    return min((step + 1) / max(plan.warmup, 1), 1.0, (plan.steps - step) / fall)


def averaging_decay(step: int, plan: Plan) -> float:
    """Decay of the averaged weights: lower in the first steps, so that the start is forgotten."""
    return min(plan.ema, (step + 1) / (step + 10))


def average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average: move averaged weights towards a model's current ones, in place.

    What is no weight, such as the statistics of batch normalisation, is taken over as it is.
    """
    get_ema_multi_avg_fn(decay)(list(ema.parameters()), list(model.parameters()), None)
    for averaged, current in zip(ema.buffers(), model.buffers(), strict=True):
        averaged.copy_(current)


def train(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Callable[[nn.Module, np.random.Generator, int], Tensor],
    plan: Plan,
    folder: Path,
) -> nn.Module:
    """Train until `plan.steps`, from the checkpoint in `folder` if there is one.

    Args:
        model: changed in place.
        optimizers: of the model's parameters, at their full learning rates.
        loss: (model, random generator of the step, step) -> scalar.
        plan: length, schedule, seed, deadline.
        folder: receives `checkpoint.pt`, `log.csv` (step, loss, rate, seconds) and the snapshots.

    Returns:
        The model with averaged weights, in evaluation mode.

    Raises:
        FloatingPointError: when the loss is no longer finite; the last checkpoint stays.
        OutOfTime: after the first step past the deadline, unless it is the last one; with a checkpoint of that step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    start, seconds = _resume(folder, model, ema, optimizers)
    if start in plan.snapshots and start not in find_snapshots(folder):  # the checkpoint is of a plan without it
        write_snapshot(folder, start, ema)
    schedulers = [LambdaLR(optimizer, lambda done: rate(start + done, plan)) for optimizer in optimizers]
    begun = saved = time.monotonic()
    with _Log(folder / "log.csv", start) as log:
        for step in (bar := tqdm(range(start, plan.steps), initial=start, total=plan.steps, mininterval=5)):
            value = loss(model.train(), np.random.default_rng([plan.seed, step]), step)
            if not math.isfinite(value.item()):
                raise FloatingPointError(f"loss is {value.item()} at step {step}: lower the learning rate and resume")
            value.backward()
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                scheduler.step()
            average(ema, model, averaging_decay(step, plan))
            now = time.monotonic()
            log.write(step, value.item(), rate(step, plan), seconds + now - begun)
            bar.set_postfix(loss=f"{log.recent:.4f}", refresh=False)
            done, late = step + 1, now >= plan.deadline
            if done in plan.snapshots:  # before the checkpoint: what a checkpoint has behind it is there
                write_snapshot(folder, done, ema)
            if late or done == plan.steps or now - saved > plan.save_seconds:
                _save(folder, done, seconds + now - begun, model, ema, optimizers)
                saved = now
            if late and done < plan.steps:
                raise OutOfTime(f"{folder.name}: {done} of {plan.steps} steps are done")
    return ema


def doublings(last: int, first: int = 50) -> tuple[int, ...]:
    """Steps for snapshots: `first`, twice as many, four times as many, ... below `last`, and `last`."""
    return (*takewhile(lambda step: step < last, (first * 2**power for power in count())), last)


def write_snapshot(folder: Path, step: int, model: nn.Module) -> None:
    """Keep a model's weights after a step: `snapshot-000500.safetensors`, see `write_weights`."""
    write_weights(folder / _SNAPSHOT.format(step), model)


def write_weights(file: Path, model: nn.Module) -> None:
    """Keep a model's weights as safetensors, in half precision; the file appears whole or not at all."""
    weights = {name: _halved(value) for name, value in model.state_dict().items()}
    write_whole(file, safetensors.torch.save(weights))


def find_snapshots(folder: Path) -> dict[int, Path]:
    """The snapshots in a run's folder by their steps, the first one first."""
    files = folder.glob("snapshot-*.safetensors")
    return dict(sorted((int(file.stem.removeprefix("snapshot-")), file) for file in files))


def _halved(value: Tensor) -> Tensor:
    """A copy on the CPU; numbers that count something stay whole."""
    dtype = torch.float16 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype, copy=True).contiguous()


def _save(folder: Path, step: int, seconds: float, model: nn.Module, ema: nn.Module, optimizers: Sequence) -> None:
    state = {
        "step": step,
        "seconds": seconds,
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    torch.save(state, folder / "checkpoint.tmp")
    os.replace(folder / "checkpoint.tmp", folder / "checkpoint.pt")  # whole or not at all


def _resume(folder: Path, model: nn.Module, ema: nn.Module, optimizers: Sequence) -> tuple[int, float]:
    """Load the checkpoint if there is one: (first step to do, seconds spent so far)."""
    if not (folder / "checkpoint.pt").exists():
        return 0, 0.0
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        # Moments only: learning rates are those of now, so that a run that diverged may go on with lower ones.
        optimizer.load_state_dict(optimizer.state_dict() | {"state": saved["state"]})
    return state["step"], state["seconds"]


class _Log:
    """A CSV file with one row per ten steps; rows past the resumed step are dropped."""

    EVERY = 10

    def __init__(self, path: Path, start: int) -> None:
        self.path, self.recent, self._losses = path, math.nan, []
        if path.exists():
            kept = pd.read_csv(path).query("step < @start")
            kept.to_csv(path, index=False)
        else:
            path.write_text("step,loss,rate,seconds\n", encoding="utf-8")

    def __enter__(self) -> "_Log":
        self._file = self.path.open("a", newline="")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, step: int, loss: float, rate: float, seconds: float) -> None:
        self._losses.append(loss)
        if (step + 1) % self.EVERY == 0:
            self.recent = float(np.mean(self._losses))
            csv.writer(self._file).writerow([step, f"{self.recent:.5f}", f"{rate:.4f}", f"{seconds:.1f}"])
            self._file.flush()
            self._losses.clear()
