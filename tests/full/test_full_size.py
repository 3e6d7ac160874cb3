"""Stable Diffusion v1, v2.1 and XL at their full size, with random weights: what the small models cannot show.

`make test-full` runs these and plain pytest does not: they take 8 GB of memory and some minutes.
"""

import gc

import pytest
import torch

from diffseg.aggregation import aggregate
from diffseg.attention import record_attention
from diffseg.costs import MIB, peak_memory
from diffseg.full_size import UNETS, full_unet

WORDS = 77
TEMPORARY = (
    64 * MIB
)  # what a pass may need for a moment beyond what it keeps; all heads of the largest layer are 512 MiB

# Name -> dtype, side of the latent, layers of self-attention as (stage, number, side, heads).
MODELS = {
    "SD v1": (
        torch.float32,
        64,
        [("down", 2, 64, 8), ("down", 2, 32, 8), ("down", 2, 16, 8), ("mid", 1, 8, 8)]
        + [("up", 3, 16, 8), ("up", 3, 32, 8), ("up", 3, 64, 8)],
    ),
    "SD v2.1": (
        torch.bfloat16,
        96,
        [("down", 2, 96, 5), ("down", 2, 48, 10), ("down", 2, 24, 20), ("mid", 1, 12, 20)]
        + [("up", 3, 24, 20), ("up", 3, 48, 10), ("up", 3, 96, 5)],
    ),
    "SDXL": (
        torch.bfloat16,
        64,
        [("down", 4, 32, 10), ("down", 20, 16, 20), ("mid", 10, 16, 20), ("up", 30, 16, 20), ("up", 6, 32, 10)],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_recording(name):
    """The right layers in the right order, the same output bit by bit, and little memory beyond what is kept."""
    dtype, side, expected = MODELS[name]
    (stock, _, stock_peak), (recorded, layers, recorded_peak) = two_passes(name, dtype, side)
    assert stock.isfinite().all()
    assert torch.equal(recorded, stock)
    check_layers(layers, expected)
    kept = sum(layer.probs.nbytes for layer in layers)
    assert recorded_peak - stock_peak < kept + TEMPORARY
    if name == "SD v1":
        assert recorded_peak - stock_peak < 450 * MIB
    check_aggregated([layer for layer in layers if layer.kind == "self"])


def two_passes(name, dtype, side):
    """Output, layers and peak memory of a stock pass and of a recorded one. The model is gone afterwards."""
    gc.collect()
    unet = full_unet(name, dtype)
    inputs = one_input(unet, side)
    found = []
    for kinds in ((), ("self", "cross")):
        outcome = []
        peak = peak_memory(lambda: outcome.extend(one_pass(unet, inputs, kinds)), unet.device)  # noqa: B023
        found.append((*outcome, peak))
    return found


@torch.no_grad()
def one_pass(unet, inputs, kinds):
    """The output, and the layers of the kinds that are wanted."""
    if not kinds:
        return unet(**inputs).sample, []
    with record_attention(unet, kinds) as layers:
        return unet(**inputs).sample, layers


def one_input(unet, side):
    """A latent, a step, an embedded prompt, and what else the model asks for."""
    generator = torch.Generator().manual_seed(0)
    config = unet.config
    latent = torch.randn(1, 4, side, side, generator=generator).to(unet.dtype)
    text = torch.randn(1, WORDS, config.cross_attention_dim, generator=generator).to(unet.dtype)
    inputs = {"sample": latent, "timestep": 300, "encoder_hidden_states": text}
    if config.addition_embed_type == "text_time":
        pooled = torch.randn(1, 1280, generator=generator).to(unet.dtype)
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.tensor([[512, 512, 0, 0, 512, 512]])}
    return inputs


def check_layers(layers, expected):
    """Number, order, stages, sides and heads; each row of probabilities sums to 1."""
    selfs, crosses = ([layer for layer in layers if layer.kind == kind] for kind in ("self", "cross"))
    wanted = [(stage, side, heads) for stage, number, side, heads in expected for _ in range(number)]
    for kind in (selfs, crosses):
        assert [(layer.stage, layer.size, layer.heads) for layer in kind] == wanted
    assert [layer.name.removesuffix("1") for layer in selfs] == [layer.name.removesuffix("2") for layer in crosses]
    for layer in layers:
        keys = layer.size**2 if layer.kind == "self" else WORDS
        assert layer.probs.shape == (layer.size**2, keys) and layer.probs.dtype == torch.float32
        sums = layer.probs.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)


def check_aggregated(layers):
    """All of them make one map for each position of the finest."""
    side = max(layer.size for layer in layers)
    attention = aggregate([layer.probs for layer in layers], side)
    assert attention.shape == (side,) * 4
    sums = attention.sum((2, 3))
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-4)


def test_the_models_are_those_of_the_table():
    assert MODELS.keys() == UNETS.keys()
