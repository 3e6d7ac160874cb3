"""Attend: read the attention probabilities out of a UNet while it runs (Sec. 3.1, Fig. 10).

A UNet's attention layers hand their arithmetic to exchangeable *processors*. `record_attention`
exchanges the fast ones, which never form the probabilities, for ones that form them piece by
piece, keep what is asked for, and compute the layer's output from the same numbers.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

KINDS = ("self", "cross")
HEADS = ("mean", "all")

# Processors that compute plain softmax attention, so that a recorder may stand in for them.
_PLAIN = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor)

# Scores alive at once: small enough to stay in a CPU's cache; a GPU prefers one whole head.
_BLOCK = {"cpu": 2**18}
_BLOCK_ELSEWHERE = 2**24


@dataclass(frozen=True, repr=False)
class RecordedLayer:
    """What one attention layer looked at in one pass.

    Attributes:
        name: the path in the UNet, e.g. "mid_block.attentions.0.transformer_blocks.0.attn1".
        kind: "self" (keys are pixels) or "cross" (keys are the prompt's tokens).
        place: "down", "mid" or "up".
        heads: how many heads the layer has.
        size: side of the square of queries, in latent pixels of this layer.
        probs: float32 probabilities [queries, keys] (the mean of the heads) or
            [heads, queries, keys]; each row sums to 1; queries = size**2, row by row.
    """

    name: str
    kind: str
    place: str
    heads: int
    size: int
    probs: Float[Tensor, "*heads queries keys"]

    def __repr__(self) -> str:
        side, shape = f"{self.size}x{self.size}", list(self.probs.shape)
        return f"RecordedLayer({self.kind}, {self.place}, {side}, probs {shape}, {self.name})"


@contextmanager
def record_attention(
    unet: nn.Module, kinds: Sequence[str] = ("self",), heads: str = "mean"
) -> Iterator[list[RecordedLayer]]:
    """Record the attention of every pass that the UNet makes inside the `with` block.

        with record_attention(unet) as layers:
            unet(latent, 300, encoder_hidden_states=embedding)
        layers[0].probs    # [4096, 4096]

    The output of the UNet stays the same (up to rounding), and the old processors come back at
    the end of the block, whatever happens in it. With heads="mean" no tensor of
    [heads, queries, keys] ever exists: 64 MB instead of 512 for an 8-head layer of 64x64.

    Args:
        unet: any UNet2DConditionModel.
        kinds: which layers to record: "self", "cross" or both.
        heads: "mean" averages the heads, as the paper does; "all" keeps them apart.

    Yields:
        A list that grows by one `RecordedLayer` per layer, in the order of the computation.

    Raises:
        TypeError: if the model has no exchangeable attention processors.
        ValueError: for unknown kinds or heads, for layers whose processors do more than plain
            attention, and, during a pass, for a batch or for latents that are not square.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds={kinds!r} must name one or both of {KINDS}.")
    if heads not in HEADS:
        raise ValueError(f"heads={heads!r} must be one of {HEADS}.")
    if not hasattr(unet, "attn_processors"):
        raise TypeError(
            f"unet is a {type(unet).__name__}, which has no attention processors to exchange; "
            "pass a diffusers UNet2DConditionModel, for example `pipe.unet`."
        )
    layers: list[RecordedLayer] = []
    old = dict(unet.attn_processors)
    recorders = {
        name: _Recorder(name.removesuffix(".processor"), stock, kinds, heads, layers) for name, stock in old.items()
    }
    hook = unet.register_forward_pre_hook(_check_sample, with_kwargs=True)
    try:
        unet.set_attn_processor(recorders)
        yield layers
    finally:
        hook.remove()
        unet.set_attn_processor(dict(old))


def attend_in_blocks(
    query: Float[Tensor, "heads queries dim"],
    key: Float[Tensor, "heads keys dim"],
    value: Float[Tensor, "heads keys dim"],
    bias: Float[Tensor, "heads rows keys"] | None = None,
    heads: str = "mean",
) -> tuple[Float[Tensor, "heads queries dim"], Float[Tensor, "*heads queries keys"]]:
    """softmax(query key^T + bias) value, a few rows of one head at a time, in float32.

    Args:
        query: already scaled by 1 / sqrt(dim).
        key, value: one row per key.
        bias: added to the scores, e.g. a mask of 0 and -inf; one row for all queries or one each.
        heads: whether to return the heads' mean probabilities or all of them.

    Returns:
        The output of attention and its probabilities, [queries, keys] or [heads, queries, keys].
    """
    n_heads, queries, _ = query.shape
    keys = key.shape[1]
    output = torch.empty_like(query)
    value_columns = value.transpose(1, 2).contiguous()  # [heads, dim, keys]
    shape = (queries, keys) if heads == "mean" else (n_heads, queries, keys)
    recorded = query.new_empty(shape)
    step = max(1, _BLOCK.get(query.device.type, _BLOCK_ELSEWHERE) // keys)
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        for head in range(n_heads):
            scores = query[head, rows] @ key[head].T  # [rows, keys]
            if bias is not None:
                scores = scores + (bias[head] if bias.shape[1] == 1 else bias[head, rows])
            probs = scores.softmax(dim=-1)
            output[head, rows] = (value_columns[head] @ probs.T).T  # = probs @ value[head], faster
            kept = probs.detach()
            if heads == "all":
                recorded[head, rows] = kept
            elif head == 0:
                recorded[rows] = kept
            else:
                recorded[rows] += kept
    if heads == "mean":
        recorded /= n_heads
    return output, recorded


class _Recorder:
    """An attention processor that follows the stock one step by step and keeps what it sees."""

    def __init__(self, name, stock, kinds, heads, layers):
        self.name, self.stock, self.layers = name, stock, layers
        self.kinds, self.heads = kinds, heads

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states=None,
        attention_mask=None,
        temb=None,
        *args,
        **kwargs,
    ):
        kind = "self" if encoder_hidden_states is None else "cross"
        if kind not in self.kinds:
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        if not isinstance(self.stock, _PLAIN):
            raise ValueError(
                f"the layer {self.name} uses {type(self.stock).__name__}, which does more than "
                "plain attention and cannot be recorded; leave any other recording first, and "
                "call unet.set_default_attn_processor()."
            )
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        image_shape = hidden_states.shape if hidden_states.ndim == 4 else None
        if image_shape is not None:
            hidden_states = rearrange(hidden_states, "b c h w -> b (h w) c")
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)

        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        bias = attn.prepare_attention_mask(attention_mask, context.shape[1], 1)

        output, probs = self._attend(attn, hidden_states, context, bias)
        size = math.isqrt(probs.shape[-2])
        place = self.name.split("_block")[0]
        self.layers.append(RecordedLayer(self.name, kind, place, attn.heads, size, probs))

        output = attn.to_out[1](attn.to_out[0](output))  # projection, dropout
        if image_shape is not None:
            output = rearrange(output, "b (h w) c -> b c h w", h=image_shape[2])
        if attn.residual_connection:
            output = output + residual
        return output / attn.rescale_output_factor

    def _attend(self, attn, hidden_states, context, bias):
        """Project, attend in float32 whatever the model's type, and join the heads again."""
        query, key, value = (
            rearrange(projected, "1 n (heads d) -> heads n d", heads=attn.heads)
            for projected in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        with torch.autocast(query.device.type, enabled=False):
            output, probs = attend_in_blocks(
                query.float() * attn.scale,
                key.float(),
                value.float(),
                None if bias is None else bias.float(),
                self.heads,
            )
        return rearrange(output, "heads n d -> 1 n (heads d)").to(value.dtype), probs


def _check_sample(unet: nn.Module, args: tuple, kwargs: dict) -> None:
    """Before a recorded pass: one image, square."""
    sample = args[0] if args else kwargs["sample"]
    if sample.shape[0] != 1:
        raise ValueError(
            f"sample has a batch of {sample.shape[0]}; record one image at a time, without classifier-free guidance."
        )
    if sample.shape[-1] != sample.shape[-2]:
        raise ValueError(
            f"sample is {sample.shape[-2]}x{sample.shape[-1]}; recorded latents must be square: "
            "crop the image to a square first."
        )
