"""What each stage costs, in seconds and in memory (Sec. 9.7, notebook 10)."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextlib import suppress as suppress_errors

import psutil
import torch

from diffseg import TIMESTEP
from diffseg.aggregation import aggregate
from diffseg.attention import record_attention
from diffseg.diffuse import add_noise, encode, to_tensor
from diffseg.images import ImageLike, centre_square, load_image
from diffseg.masks import suppress
from diffseg.merging import merge
from diffseg.pipeline import DiffSegPipeline

MIB = 2**20


def stages(pipe: DiffSegPipeline, image: ImageLike, size: int | None = None) -> dict[str, Callable]:
    """What happens to a picture, one after the other, and all of it; each stage can be repeated.

    Args:
        pipe: of Stable Diffusion's kind.
        image: its central square is used.
        size: its side in the model, pixels; None: what the model was made for.
    """
    denoiser = getattr(pipe, pipe.backbone.denoiser)
    side = pipe.backbone.default_size(pipe) if size is None else size

    def read() -> torch.Tensor:
        return to_tensor(centre_square(load_image(image), side)).to(pipe.device)

    def stock_pass() -> None:
        pipe.backbone.denoise(pipe, noisy, TIMESTEP, conditions)

    def recorded_pass() -> list[torch.Tensor]:
        with record_attention(denoiser) as layers:
            stock_pass()
        return [layer.probs for layer in layers]

    pixels = read()
    noisy = add_noise(encode(pipe.vae, pixels), pipe.scheduler)
    conditions = pipe.backbone.embed(pipe, [""])
    maps = recorded_pass()
    grid = side // pipe.pixels_per_position
    attention = aggregate(maps, grid)
    proposals = merge(attention, threshold=pipe.threshold)
    return {
        "read": read,
        "encode": lambda: encode(pipe.vae, pixels),
        "embed": lambda: pipe.backbone.embed(pipe, [""]),
        "stock pass": stock_pass,
        "recorded pass": recorded_pass,
        "aggregate": lambda: aggregate(maps, grid),
        "merge": lambda: merge(attention, threshold=pipe.threshold),
        "suppress": lambda: suppress(proposals, side),
        "all": lambda: pipe(image, size=size),
    }


def best_of(repeats: int, **calls: Callable) -> dict[str, float]:
    """Seconds of each call: after a warm-up they take turns, and the best turn counts."""
    seconds = dict.fromkeys(calls, float("inf"))
    for turn in range(repeats + 1):
        for name, call in calls.items():
            synchronize()
            start = time.perf_counter()
            call()
            synchronize()
            if turn > 0 or repeats == 1:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def peak_memory(call: Callable, device: torch.device) -> int:
    """Bytes that a call needs at its worst, above what was in use before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    give_back_memory()
    with watched_memory() as peak:
        call()
    return peak[0]


def give_back_memory() -> None:
    """glibc keeps what was freed for later, where it would hide what a call needs."""
    with suppress_errors(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def watched_memory(interval: float = 0.001) -> Iterator[list[int]]:
    """Sample the memory of this process; the first item becomes the peak above the start."""
    process, done = psutil.Process(), threading.Event()
    start = process.memory_info().rss
    peak = [0]

    def watch() -> None:
        while not done.wait(interval):
            peak[0] = max(peak[0], process.memory_info().rss - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
