"""A second task for self-attention: each head alone, used as a non-local means filter, has to denoise.

Non-local means (Buades, Coll and Morel 2005) restores a position of a picture from all positions that are like it, by
a weighted mean; self-attention is such a mean. In a small UNet convolutions do most of the denoising and leave
attention little to do: heads settle on single keys ("sinks") and never learn to group, the coarse layers least of all.
So each head is asked, besides, to restore values x from values with noise of standard deviation s:

    loss = E || sum_j p_ij (x_j + s n_j) - x_i ||^2 = || sum_j p_ij x_j - x_i ||^2 + s^2 sum_j p_ij^2

The first part wants attention to go to what is alike, the second wants it to go to as much of it as there is. The noise
is as strong as that in the network's own input: where there is little, a position can be restored from itself and its
neighbours; where there is much, only all of its kind together help.

The values are the clean latent, and beside its colours which noun belongs there, as far as captions tell
(`places`). No label and no mask is used.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .loop import gaussian

#: Standard deviation of the noise in the values at DiffSeg's timestep, and its least and its greatest.
VALUE_NOISE, LEAST_NOISE, MOST_NOISE = 1.5, 0.1, 4.0
TIMESTEP = 300

#: Scales of the two parts of the values: colours have this standard deviation, nouns are vectors of this length.
COLOURS, NOUNS = 0.7, 4.0

#: Numbers that stand for a noun. With four of colour they are as many as the narrowest head has; the fast kernels want
#: values no wider than keys.
NOUN_WIDTH = 12

#: Positions of which the loss is computed in a layer, drawn anew in each step; all are looked at.
QUERIES = 256

#: Of one layer: [n, heads, positions, dim] each; layers differ in everything but n.
QueryAndKey = tuple[Float[Tensor, "n _ _ _"], Float[Tensor, "n _ _ _"]]


class Attentions(TorchFunctionMode):
    """Keeps the queries and keys of all attention layers, with their gradients.

    Self-attention is where there are as many keys as queries: a prompt must not have as many tokens as a side has
    positions.

    with Attentions() as kept:
        unet(...)
    kept.self_attention, kept.cross_attention
    """

    def __init__(self) -> None:
        super().__init__()
        self.self_attention: list[QueryAndKey] = []
        self.cross_attention: list[QueryAndKey] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]
            layers = self.self_attention if query.shape[2] == key.shape[2] else self.cross_attention
            layers.append((query, key))
        return func(*args, **(kwargs or {}))


def side_of(layer: QueryAndKey) -> int:
    """Positions along one side of a square picture."""
    return round(layer[0].shape[2] ** 0.5)


def draw_queries(side: int, rng: np.random.Generator) -> Int[Tensor, " queries"]:
    """The positions of which a loss is computed: `QUERIES` random ones, or all if there are fewer."""
    return torch.from_numpy(rng.choice(side**2, min(QUERIES, side**2), replace=False))


def noise_levels(scheduler: DDPMScheduler, timesteps: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Standard deviations of the noise in the values: in proportion to noise over signal in the network's input."""
    kept = scheduler.alphas_cumprod.to(timesteps.device)
    ratio = ((1 - kept) / kept).sqrt()
    return (VALUE_NOISE * ratio[timesteps] / ratio[TIMESTEP]).clamp(LEAST_NOISE, MOST_NOISE)


def noun_vectors(classes: int) -> Float[Tensor, "classes width"]:
    """A fixed random direction for each noun: fewer numbers than nouns, and hardly two alike."""
    directions = torch.randn(classes, NOUN_WIDTH, generator=torch.Generator().manual_seed(3))
    return NOUNS * directions / directions.norm(dim=1, keepdim=True)


def meanings(places: Float[Tensor, "n classes side side"]) -> Float[Tensor, "n width side side"]:
    """The mean of the vectors of the nouns that may belong to each position."""
    return torch.einsum("nkhw, kc -> nchw", places, noun_vectors(places.shape[1]).to(places))


def values_of(
    clean: Float[Tensor, "n 4 side side"], meaning: Float[Tensor, "n width side side"]
) -> Float[Tensor, "n channels side side"]:
    """What heads have to restore: colours and nouns."""
    return torch.cat([COLOURS * clean / clean.std(), meaning], dim=1)


def non_local_means_loss(
    layers: Sequence[QueryAndKey],
    values: Float[Tensor, "n channels side side"],
    levels: Float[Tensor, " n"],
    rng: np.random.Generator,
) -> Float[Tensor, ""]:
    """The mean, over sides and over the layers and heads of each, of the error with which a head alone restores values.

    Args:
        layers: of self-attention, of any sides that divide that of the values.
        values: clean; they are averaged to the side of a layer.
        levels: standard deviation of the noise in the values of each picture.
        rng: of the noise, and of the positions that are restored.
    """
    errors: dict[int, list[Tensor]] = {}
    for side in sorted({side_of(layer) for layer in layers}, reverse=True):
        clean = rearrange(F.adaptive_avg_pool2d(values, side), "n c h w -> n 1 (h w) c")
        noisy = clean + levels[:, None, None, None] * gaussian(clean.shape, rng, clean.device)
        chosen = draw_queries(side, rng).to(clean.device)
        errors[side] = [
            (_filtered(query[:, :, chosen], key, noisy) - clean[:, :, chosen]).square().mean()
            for query, key in layers
            if query.shape[2] == side**2
        ]
    return torch.stack([torch.stack(of_side).mean() for of_side in errors.values()]).mean()


def _filtered(
    query: Float[Tensor, "n heads queries dim"],
    key: Float[Tensor, "n heads keys dim"],
    values: Float[Tensor, "n 1 keys channels"],
) -> Float[Tensor, "n heads queries channels"]:
    """The values as each head's attention mixes them."""
    channels = values.shape[-1]
    padded = F.pad(values, (0, max(query.shape[-1] - channels, 0))).expand(-1, query.shape[1], -1, -1)
    return F.scaled_dot_product_attention(query.float(), key.float(), padded)[..., :channels]
