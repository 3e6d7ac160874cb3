"""Time and memory of each stage of DiffSeg, as ratios measured in one process.

    python -m benchmarks.bench [--model NAME] [--repeats N]

Ratios travel between machines, seconds do not. The variants of one comparison take turns and the
best of several runs counts, so that a busy machine disturbs both alike.
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import psutil
import torch
from diffusers import UNet2DConditionModel

from diffseg import ATTENTION_SIZE, IMAGE_SIZE, TIMESTEP, DiffSegPipeline
from diffseg.aggregation import aggregate
from diffseg.attention import record_attention
from diffseg.diffuse import add_noise, embed_prompt, encode, to_tensor, unet_pass
from diffseg.images import read_image
from diffseg.masks import suppress
from diffseg.merging import anchor_grid, merge

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None, help="'pocket', a folder or a hub id")
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many runs counts")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = load(arguments.model)
    unet = (pipe.unet if pipe else random_unet()).to(device)
    with torch.no_grad():
        rows = [
            *segmenting(object_like_attention().to(device), arguments.repeats),
            *recording(unet, arguments.repeats),
            *(stages(pipe.to(device), arguments.repeats) if pipe else ()),
        ]
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(pd.DataFrame(rows, columns=["what", "value", "target"]).to_string(index=False))


def segmenting(attention: torch.Tensor, repeats: int) -> list[tuple[str, str, str]]:
    """merge + suppress against its unavoidable products, and against the formula as written."""
    size = attention.shape[0]
    maps = attention.reshape(size**2, size**2)
    rows, columns = anchor_grid(size).to(maps.device).T
    anchors = maps[rows * size + columns]
    transposed = maps.T
    seconds = best_of(
        repeats,
        merge_and_suppress=lambda: suppress(merge(attention)),
        products=lambda: (anchors @ transposed, anchors @ transposed, anchors @ maps),
    )
    slow = best_of(1, elementwise=lambda: elementwise_distances(anchors, maps))
    ours, products = seconds["merge_and_suppress"], seconds["products"]
    return [
        ("merge + suppress, seconds", f"{ours:.3f}", ""),
        ("  / three products of pass 1", f"{ours / products:.2f}", "at most 1.6"),
        ("elementwise KL / merge + suppress", f"{slow['elementwise'] / ours:.1f}", "at least 10"),
    ]


def recording(unet: UNet2DConditionModel, repeats: int) -> list[tuple[str, str, str]]:
    """A recorded UNet pass against the stock pass."""
    side = ATTENTION_SIZE
    latent = torch.randn(1, unet.config.in_channels, side, side, device=unet.device)
    text = torch.randn(1, 77, unet.config.cross_attention_dim, device=unet.device)

    def stock() -> None:
        unet_pass(unet, latent, TIMESTEP, text)

    def recorded() -> list:
        with record_attention(unet) as layers:
            unet_pass(unet, latent, TIMESTEP, text)
        return layers

    seconds = best_of(repeats, stock=stock, recorded=recorded)
    memory = {call.__name__: peak_memory(call, unet.device) for call in (stock, recorded)}
    kept = sum(layer.probs.nbytes for layer in recorded())
    return [
        ("recorded UNet pass, seconds", f"{seconds['recorded']:.3f}", "at most 2"),
        ("  / stock pass", f"{seconds['recorded'] / seconds['stock']:.2f}", ""),
        ("stock pass, peak MiB above rest", f"{memory['stock'] / MIB:.0f}", ""),
        ("recorded pass, peak MiB above rest", f"{memory['recorded'] / MIB:.0f}", ""),
        ("  of which kept, MiB", f"{kept / MIB:.0f}", ""),
    ]


def stages(pipe: DiffSegPipeline, repeats: int) -> Iterator[tuple[str, str, str]]:
    """Seconds for each stage of one image."""
    noise = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    image = read_image(noise)
    pixels = to_tensor(image)
    latent = add_noise(encode(pipe.vae, pixels), pipe.scheduler)
    text = embed_prompt(pipe.tokenizer, pipe.text_encoder)
    with record_attention(pipe.unet) as layers:
        unet_pass(pipe.unet, latent, TIMESTEP, text)
    maps = [layer.probs for layer in layers]
    size = latent.shape[-1]
    attention = aggregate(maps, size)
    proposals = merge(attention, threshold=pipe.threshold)
    seconds = best_of(
        repeats,
        read=lambda: to_tensor(read_image(noise)),
        encode=lambda: encode(pipe.vae, pixels),
        embed=lambda: embed_prompt(pipe.tokenizer, pipe.text_encoder),
        aggregate=lambda: aggregate(maps, size),
        merge=lambda: merge(attention, threshold=pipe.threshold),
        suppress=lambda: suppress(proposals),
        everything=lambda: pipe(image),
    )
    for stage, value in seconds.items():
        yield f"one image: {stage}, seconds", f"{value:.3f}", ""


def elementwise_distances(anchors: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Eq. 5 as it is written, one anchor at a time: what the matrix form replaces."""
    distances = []
    for anchor in anchors:
        log_ratio = anchor.log() - maps.log()
        distances.append(0.5 * ((anchor * log_ratio).sum(1) - (maps * log_ratio).sum(1)))
    return torch.stack(distances)


def object_like_attention(size: int = ATTENTION_SIZE, objects: int = 12) -> torch.Tensor:
    """Attention in which every position looks at its own object, of a random Voronoi picture."""
    ticks = torch.arange(size) + 0.5
    positions = torch.cartesian_prod(ticks, ticks)
    owner = torch.cdist(positions, size * torch.rand(objects, 2)).argmin(1)
    same = (owner[:, None] == owner).float()
    logits = 5 * same + 0.3 * torch.randn(size**2, size**2)
    return logits.softmax(-1).reshape(size, size, size, size)


def random_unet() -> UNet2DConditionModel:
    """Stable Diffusion's blocks with few channels and random weights."""
    return UNet2DConditionModel(
        sample_size=ATTENTION_SIZE,
        block_out_channels=(32, 64, 96, 96),
        cross_attention_dim=96,
        attention_head_dim=4,
    ).eval()


def load(name: str | None) -> DiffSegPipeline | None:
    """The model to measure; None if the embedded one has not been trained yet."""
    try:
        return DiffSegPipeline.from_pretrained(name)
    except FileNotFoundError as error:
        print(f"{error}\nMeasuring a UNet with random weights instead.")
        return None


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
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(call: Callable, device: torch.device) -> int:
    """Bytes that a call needs at its worst, above what was in use before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with watched_memory() as peak:
        call()
    return peak[0]


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


if __name__ == "__main__":
    main()
