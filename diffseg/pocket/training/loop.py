"""One training loop for every embedded model: seeded, logged, and resumable after any stop.

The randomness of a step depends on the seed and the step's number alone, so a run that was stopped and resumed sees
the same batches as one that was not.
"""

import copy
import csv
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    warmup: int = 100  # steps over which the learning rate rises from 0
    cooldown: float = 0.25  # the last part of the steps, over which it falls to 0
    ema: float = 0.999  # decay of the averaged weights, per step
    seed: int = 0
    save_seconds: float = 120.0  # between checkpoints


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
        torch.optim.Muon(matrices, lr=muon, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adamw, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def rate(step: int, plan: Plan) -> float:
    """Factor on the learning rate: a rise, a plateau, and a straight fall to zero at the end."""
    fall = max(plan.steps * plan.cooldown, 1)
    return min((step + 1) / max(plan.warmup, 1), 1.0, (plan.steps - step) / fall)


def average(ema: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the averaged weights towards the current ones; early on quickly, so that the start is forgotten."""
    decay = min(decay, (step + 1) / (step + 10))
    with torch.no_grad():
        for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


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
        plan: length, schedule, seed.
        folder: receives `checkpoint.pt` and `log.csv` (step, loss, rate, seconds).

    Returns:
        The model with averaged weights, in evaluation mode.

    Raises:
        FloatingPointError: when the loss is no longer finite; the last checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    full = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    start, seconds = _resume(folder, model, ema, optimizers)
    begun = saved = time.monotonic()
    with _Log(folder / "log.csv", start) as log:
        for step in (bar := tqdm(range(start, plan.steps), initial=start, total=plan.steps, mininterval=5)):
            for optimizer, rates in zip(optimizers, full, strict=True):
                for group, lr in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = lr * rate(step, plan)
            value = loss(model.train(), np.random.default_rng([plan.seed, step]), step)
            if not math.isfinite(value.item()):
                raise FloatingPointError(f"loss is {value.item()} at step {step}: lower the learning rate and resume")
            value.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            average(ema, model, step, plan.ema)
            now = time.monotonic()
            log.write(step, value.item(), rate(step, plan), seconds + now - begun)
            bar.set_postfix(loss=f"{log.recent:.4f}", refresh=False)
            if now - saved > plan.save_seconds or step + 1 == plan.steps:
                _save(folder, step + 1, seconds + now - begun, model, ema, optimizers)
                saved = now
    return ema


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
        optimizer.load_state_dict(saved)
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
            path.write_text("step,loss,rate,seconds\n")

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
