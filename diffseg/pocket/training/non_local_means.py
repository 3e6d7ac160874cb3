"""A second task for self-attention: each head alone, used as a non-local means filter, has to denoise.

Non-local means (Buades, Coll and Morel 2005) restores a position of a picture from all positions that are like it, by
a weighted mean; self-attention is such a mean. In a small UNet convolutions do most of the denoising and leave
attention little to do: heads settle on single keys ("sinks") and never learn to group, the coarse layers least of all.
So each head is asked, besides, to restore the clean latent x from values with noise of standard deviation s:

    loss = E || sum_j p_ij (x_j + s n_j) - x_i ||^2 = || sum_j p_ij x_j - x_i ||^2 + s^2 sum_j p_ij^2

The first part wants attention to go to what is alike, the second wants it to go to as much of it as there is. No label
and no mask is used.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Standard deviation of the noise in the values, in that of the latents.
VALUE_NOISE = 1.5

QueryAndKey = tuple[Float[Tensor, "n heads positions dim"], Float[Tensor, "n heads positions dim"]]


class QueriesAndKeys(TorchFunctionMode):
    """Keeps the queries and keys of all self-attention over pictures of one side, with their gradients.

    with QueriesAndKeys(side) as kept:
        unet(...)
    kept.layers
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.positions, self.layers = side**2, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]
            if query.shape[2] == key.shape[2] == self.positions:
                self.layers.append((query, key))
        return func(*args, **kwargs)


def choose_side(latent_side: int, rng: np.random.Generator) -> int:
    """One of the four sides of Stable Diffusion's UNet: that of the latent, or it halved up to three times."""
    return latent_side // 2 ** int(rng.integers(4))


def non_local_means_loss(
    layers: Sequence[QueryAndKey], clean: Float[Tensor, "n c side side"], rng: np.random.Generator
) -> Float[Tensor, ""]:
    """The mean over layers and heads of the error with which each head alone restores the clean latents.

    Args:
        layers: queries and keys, of one side.
        clean: the latents; they are averaged to the side of the layers, and scaled to the standard deviation 1.
        rng: of the noise in the values.
    """
    side = round(layers[0][0].shape[2] ** 0.5)
    small = F.adaptive_avg_pool2d(clean / clean.std(), side)
    targets = rearrange(small, "n c h w -> n 1 (h w) c")
    noise = torch.from_numpy(rng.standard_normal(targets.shape, dtype=np.float32)).to(targets.device)
    values = targets + VALUE_NOISE * noise
    errors = []
    for query, key in layers:
        # The fast kernels want values as wide as keys.
        padded = F.pad(values, (0, query.shape[-1] - values.shape[-1])).expand(-1, query.shape[1], -1, -1)
        restored = F.scaled_dot_product_attention(query.float(), key.float(), padded)[..., : values.shape[-1]]
        errors.append((restored - targets).square().mean())
    return torch.stack(errors).mean()
