"""Time and memory of DiffSeg, as ratios measured in one process.

    python -m benchmarks.bench                 # the embedded model, or --model NAME
    python -m benchmarks.bench --full          # and Stable Diffusion v1 at its full size, with random weights

Ratios travel between machines, seconds do not. The variants of one comparison take turns and the
best of several runs counts, so that a busy machine disturbs both alike.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from diffseg import ATTENTION_SIZE, DiffSegPipeline, pocket
from diffseg.costs import MIB, best_of, peak_memory, stages
from diffseg.full_size import full_pipeline
from diffseg.masks import suppress
from diffseg.merging import anchor_grid, merge
from diffseg.models.devices import best_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket", help="'pocket', a folder or a hub id")
    parser.add_argument("--full", action="store_true", help="also Stable Diffusion v1 at its full size; needs 10 GB")
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many runs counts")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = best_device()
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    models: dict[str, Callable[[], DiffSegPipeline]] = {
        arguments.model: lambda: DiffSegPipeline.from_pretrained(arguments.model)
    }
    if arguments.full:
        models["SD v1, float32"] = full_pipeline
        models["SD v1, bfloat16"] = lambda: full_pipeline(torch.bfloat16)
    with torch.no_grad():
        attention = object_like_attention().to(device)
        show(pd.DataFrame(segmenting(attention, arguments.repeats), columns=["what", "value", "target"]))
        columns = {name: whole_picture(load().to(device), arguments.repeats) for name, load in models.items()}
    show(pd.DataFrame(columns).assign(target=pd.Series(TARGETS)).fillna("").rename_axis("one picture").reset_index())


def show(table: pd.DataFrame) -> None:
    print(table.to_string(index=False), end="\n\n")


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


#: Row of `whole_picture` -> what it should be.
TARGETS = {
    "recorded pass / stock pass": "at most 1.25",
    "all / (1.25 (encode + stock pass) + merge + suppress)": "at most 1",
    "recorded pass above the stock pass, MiB": "at most 450",
}


def whole_picture(pipe: DiffSegPipeline, repeats: int) -> dict[str, str]:
    """One picture through a model, stage by stage: seconds, ratios and memory."""
    calls = stages(pipe, np.array(pocket.scene(1_000_002).image))
    seconds = best_of(repeats, **calls)
    memory = {name: peak_memory(calls[name], pipe.device) for name in ("stock pass", "recorded pass")}
    parts = 1.25 * (seconds["encode"] + seconds["stock pass"]) + seconds["merge"] + seconds["suppress"]
    ratio, whole, above = TARGETS
    return {
        **{f"{stage}, seconds": f"{value:.3f}" for stage, value in seconds.items()},
        ratio: f"{seconds['recorded pass'] / seconds['stock pass']:.2f}",
        whole: f"{seconds['all'] / parts:.2f}",
        "stock pass, peak MiB above rest": f"{memory['stock pass'] / MIB:.0f}",
        above: f"{(memory['recorded pass'] - memory['stock pass']) / MIB:.0f}",
    }


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


if __name__ == "__main__":
    main()
