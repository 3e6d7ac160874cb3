"""Attend: read the attention probabilities out of a diffusion model while it runs (Sec. 3.1, Fig. 10).

Every attention layer ends in one function, `scaled_dot_product_attention`, which never forms the probabilities.
`record_attention` watches the calls of that function, with hooks that say which layer is calling, and forms the
probabilities beside it, a block at a time. What the function returns is handed on untouched, so the model's output is
the same bit by bit, whatever the model: UNets, and transformers in which picture and text attend together.
"""

import inspect
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    attention_backend,
)
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diffseg.backbones.tokens import Tokens, find_tokens

KINDS = ("self", "cross")
HEADS = ("mean", "all")

#: Scores alive at once, beside as many probabilities: they fit into a CPU's cache, and a GPU is busy with them.
BLOCK = {"cpu": 2**20}
BLOCK_ELSEWHERE = 2**23

# Plain softmax attention that does not end in the watched function: exchanged for the one that does, for a pass.
_EXCHANGED = (AttnProcessor, SlicedAttnProcessor, XFormersAttnProcessor)

# Backends of diffusers' dispatcher that end in the watched function.
_WATCHED_BACKENDS = {"native", "_native_math", "_native_efficient", "_native_flash", "_native_cudnn"}

_STAGES = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


@dataclass(frozen=True, repr=False)
class RecordedLayer:
    """What one attention layer computed in one pass.

    Attributes:
        name: the path in the model, e.g. "mid_block.attentions.0.transformer_blocks.0.attn1".
        kind: "self" (the keys are positions of the picture) or "cross" (the keys are the prompt's tokens).
        stage: "down", "mid" or "up" of a UNet; of a transformer the list of blocks that the layer is in.
        heads: how many heads the layer has.
        size: the grid of the queries: the side of a square, or (rows, columns).
        probs: float32 probabilities [queries, keys], the mean of the heads, or [heads, queries, keys]; of a batch of
            several pictures with one more axis in front. Each row sums to 1. Queries go row by row through the grid.
        text_share: where picture and text share one softmax, the part of each query's attention that went to the
            text, shaped like `probs` without its last axis; else None.
    """

    name: str
    kind: str
    stage: str
    heads: int
    size: int | tuple[int, int]
    probs: Float[Tensor, "*front queries keys"]
    text_share: Float[Tensor, "*front queries"] | None = None

    @property
    def place(self) -> str:
        """The stage, under its older name."""
        return self.stage

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the queries."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def picture(self, index: int) -> "RecordedLayer":
        """The part of one picture of a batch."""
        share = None if self.text_share is None else self.text_share[index]
        return replace(self, probs=self.probs[index], text_share=share)

    def __repr__(self) -> str:
        rows, columns = self.grid
        shape = list(self.probs.shape)
        return f"RecordedLayer({self.kind}, {self.stage}, {rows}x{columns}, probs {shape}, {self.name})"


@contextmanager
def record_attention(
    model: nn.Module, kinds: Sequence[str] = ("self",), heads: str = "mean"
) -> Iterator[list[RecordedLayer]]:
    """Record the attention of every pass that the model makes inside the `with` block.

        with record_attention(unet) as layers:
            unet(latent, 300, encoder_hidden_states=embedding)
        layers[0].probs    # [4096, 4096]

    The output stays the same bit by bit. Only processors that compute attention in another way (attention slicing,
    xFormers, backends of diffusers' dispatcher that return no probabilities) are exchanged for the standard one
    during the block; there the output stays the same up to rounding. Everything is put back at the end of the block,
    whatever happens in it. Recordings can be nested.

    With heads="mean" no tensor of [heads, queries, keys] ever exists: 64 MB instead of 512 for an 8-head layer of
    64x64. Where picture and text share one softmax (SD3, FLUX), the part among the positions of the picture is "self"
    and the part that goes to the text "cross"; each is normalised, and `text_share` says how much went to the text.

    Args:
        model: any diffusers UNet or transformer.
        kinds: which attention to record: "self", "cross" or both.
        heads: "mean" averages the heads, as the paper does; "all" keeps them apart.

    Yields:
        A list that grows by one `RecordedLayer` per layer and kind, in the order of the computation.

    Raises:
        TypeError: if the model has no attention layers.
        ValueError: for unknown kinds or heads, and, during a pass, for a layer that does more than plain attention or
            whose tokens cannot be told apart.
    """
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    if not isinstance(chosen, Collection) or not chosen or not all(kind in KINDS for kind in chosen):
        raise ValueError(f"kinds={kinds!r} must name one or both of {KINDS}.")
    if heads not in HEADS:
        raise ValueError(f"heads={heads!r} must be one of {HEADS}.")
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    attentions = {name: module for name, module in modules if _is_attention(module)}
    if not attentions:
        raise TypeError(
            f"model is a {type(model).__name__} without attention layers of diffusers; pass a UNet or a transformer, "
            "for example `pipe.unet`."
        )
    recorder = _Recorder(tuple(chosen), heads)
    with ExitStack() as stack:
        stack.enter_context(_plain_processors(attentions.values()))
        for name, module in attentions.items():
            handles = (
                module.register_forward_pre_hook(recorder.entering(name), with_kwargs=True),
                module.register_forward_hook(recorder.leaving, always_call=True),
            )
            for handle in handles:
                stack.callback(handle.remove)
        for module in model.modules():
            if isinstance(module, Transformer2DModel):
                stack.callback(module.register_forward_pre_hook(recorder.see_grid, with_kwargs=True).remove)
        stack.callback(model.register_forward_pre_hook(recorder.see_tokens, with_kwargs=True).remove)
        stack.enter_context(recorder)
        yield recorder.layers


def attention_probabilities(
    query: Float[Tensor, "heads queries dim"],
    key: Float[Tensor, "heads keys dim"],
    scale: float | None = None,
    bias: Float[Tensor, "#heads #queries #keys"] | None = None,
    heads: str = "mean",
) -> Float[Tensor, "*heads queries keys"]:
    """softmax(scale query key^T + bias), in float32, a block at a time.

    A block is as many rows of one head as fit, and as many heads of these rows as fit: long rows of a single matrix
    are what processors multiply fastest, and the sum over the heads grows where it stays, in the result.

    Args:
        query, key: of any floating type.
        scale: None: 1 / sqrt(dim).
        bias: added to the scores, e.g. a mask of 0 and -inf.
        heads: whether to return the heads' mean probabilities or all of them.
    """
    n_heads, queries, dim = query.shape
    keys = key.shape[1]
    query = query.float() * (dim**-0.5 if scale is None else scale)
    key = key.float().transpose(1, 2)  # [heads, dim, keys]
    bias = None if bias is None else bias.expand(n_heads, queries, -1)
    result = _zeros((queries, keys) if heads == "mean" else (n_heads, queries, keys), query.device)
    size = BLOCK.get(query.device.type, BLOCK_ELSEWHERE)
    rows = min(queries, max(1, size // keys))
    group = min(n_heads, max(1, size // (rows * keys)))
    memory = query.new_empty(2, group * rows * keys)  # the same for all blocks: new memory costs time
    for start, first in product(range(0, queries, rows), range(0, n_heads, group)):
        block = slice(first, first + group), slice(start, start + rows)
        part = query[block]  # [group, rows, dim]
        scores, probs = memory[:, : part[..., 0].numel() * keys].view(2, *part.shape[:2], keys)
        if len(part) == 1:  # on a CPU much faster than a batch of one
            torch.mm(part[0], key[first], out=scores[0])
        else:
            torch.bmm(part, key[block[0]], out=scores)
        if bias is not None:
            scores += bias[block]
        torch.softmax(scores, dim=-1, out=probs)
        if heads == "mean":
            result[block[1]].add_(probs.sum(dim=0) if len(probs) > 1 else probs[0], alpha=1 / n_heads)
        else:
            result[block] = probs
    return result


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """New float32 memory. On the CPU it is numpy's, which the system gives in large pages, four times as fast."""
    if device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return torch.zeros(shape, device=device)


@dataclass
class _Call:
    """One attention layer at work."""

    name: str
    cross: bool  # whether it was given other tokens to attend to
    grid: tuple[int, int] | None  # of a picture that came as [n, channels, rows, columns]
    module: nn.Module
    seen: bool = False  # whether the watched function has been called


class _Recorder(TorchFunctionMode):
    """Sees every call of a torch function; acts on one of them while a layer is at work."""

    def __init__(self, kinds: Sequence[str], heads: str) -> None:
        super().__init__()
        self.kinds, self.heads = kinds, heads
        self.layers: list[RecordedLayer] = []
        self._calls: list[_Call] = []
        self._grid: tuple[int, int] | None = None  # of the positions in the UNet's present transformer
        self._tokens: Tokens | None = None  # of the present pass of a transformer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self._calls and not self._calls[-1].seen:
            self._calls[-1].seen = True
            self._record(self._calls[-1], *args, **kwargs)
        return func(*args, **kwargs)

    # ---- hooks

    def see_tokens(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before a pass: where a transformer's picture and text stand in the sequence."""
        self._calls.clear()
        self._grid = None
        self._tokens = find_tokens(model, inspect.signature(model.forward).bind(*args, **kwargs).arguments)

    def see_grid(self, transformer: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before the transformer blocks of one resolution of a UNet: they get the picture as a list of positions."""
        hidden = args[0] if args else kwargs["hidden_states"]
        self._grid = tuple(hidden.shape[-2:])

    def entering(self, name: str):
        """A hook for before an attention layer."""

        def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            context = args[1] if len(args) > 1 else kwargs.get("encoder_hidden_states")
            grid = tuple(hidden.shape[-2:]) if hidden.ndim == 4 else None
            self._calls.append(_Call(name, context is not None, grid, module))

        return enter

    def leaving(self, module: nn.Module, args: tuple, output: object) -> None:
        """After an attention layer, or after an exception in it."""
        if not self._calls or self._calls[-1].module is not module:
            return  # it was left by an exception before it was entered
        call = self._calls.pop()
        if output is not None and not call.seen and ("cross" if call.cross else "self") in self.kinds:
            raise ValueError(
                f"the layer {call.name} uses {type(module.processor).__name__}, which does not compute attention by "
                "torch's scaled_dot_product_attention and cannot be recorded. Exchange it: "
                "model.set_attn_processor(AttnProcessor2_0()) on a UNet."
            )

    # ---- recording

    def _record(
        self,
        call: _Call,
        query: Float[Tensor, "n heads q dim"],
        key: Float[Tensor, "n kv_heads k dim"],
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        """Keep the probabilities behind one call of `scaled_dot_product_attention`, whose arguments these are."""
        selected = self._select(call, query.shape[2], key.shape[2])
        if not selected or is_causal:
            return
        grid, rows, columns = selected
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            bias = None if attn_mask is None else _as_bias(attn_mask, query.shape[0], query.shape[2])
            pictures = []
            for index in range(len(query)):
                own = None if bias is None else bias[index] if bias.shape[2] == 1 else bias[index][:, rows]
                pictures.append(attention_probabilities(query[index, :, rows], key[index], scale, own, self.heads))
            probs = pictures[0] if len(pictures) == 1 else torch.stack(pictures)
        for layer in self._split(call, grid, probs, columns, query.shape[1]):
            self.layers.append(layer)

    def _select(self, call: _Call, queries: int, keys: int) -> tuple[tuple[int, int], slice, dict[str, slice]] | None:
        """The grid, the rows that are queries of the picture, and the columns of each kind that is wanted."""
        if self._tokens is None or call.grid is not None:
            kind = "cross" if call.cross else "self"
            if kind not in self.kinds:
                return None
            _check_plain(call, keys if call.cross else queries, keys)
            return _grid_of(call, call.grid or self._grid, queries), slice(None), {kind: slice(None)}
        tokens = self._tokens
        if call.name.startswith(tokens.text_only):
            return None
        rows, columns = tokens.picture, {"self": tokens.picture, "cross": tokens.text}
        if queries != tokens.total:  # only the picture's positions, or only the text
            if queries != tokens.alone:
                return None
            count = tokens.grid[0] * tokens.grid[1]
            rows, columns = slice(0, count), {"self": slice(0, count)} if keys == queries else {"cross": slice(None)}
        wanted = {kind: columns[kind] for kind in self.kinds if kind in columns}
        return (tokens.grid, rows, wanted) if wanted else None

    def _split(
        self, call: _Call, grid: tuple[int, int], probs: Tensor, columns: dict[str, slice], heads: int
    ) -> Iterator[RecordedLayer]:
        """One layer for each kind, normalised over the keys of that kind."""
        size = grid[0] if grid[0] == grid[1] else grid
        stage = call.name.split(".")[0]
        stage = _STAGES.get(stage, stage)
        shared = self._tokens is not None and probs.shape[-1] == self._tokens.total
        share = probs[..., self._tokens.text].sum(dim=-1) if shared else None
        for kind, chosen in columns.items():
            part = probs
            if chosen != slice(None) and (shared or part.shape[-1] != chosen.stop - chosen.start):
                part = probs[..., chosen]
                part = part / part.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(part.dtype).tiny)
            yield RecordedLayer(call.name, kind, stage, heads, size, part, share)


def _is_attention(module: nn.Module) -> bool:
    """Whether a module hands its arithmetic to a processor, as diffusers' attention layers do."""
    return hasattr(module, "processor") and hasattr(module, "heads")


@contextmanager
def _plain_processors(attentions) -> Iterator[None]:
    """Let every layer end in the watched function, and put back what was exchanged."""
    with ExitStack() as stack:
        active, _ = _AttentionBackendRegistry.get_active_backend()
        if active.value not in _WATCHED_BACKENDS:
            stack.enter_context(attention_backend(AttentionBackendName.NATIVE))
        for module in attentions:
            processor = module.processor
            if isinstance(processor, _EXCHANGED) and not isinstance(processor, AttnProcessor2_0):
                stack.callback(module.set_processor, processor)
                module.set_processor(AttnProcessor2_0())
            backend = getattr(processor, "_attention_backend", None)
            if backend is not None and AttentionBackendName(backend).value not in _WATCHED_BACKENDS:
                stack.callback(setattr, processor, "_attention_backend", backend)
                processor._attention_backend = AttentionBackendName.NATIVE
        yield


def _check_plain(call: _Call, expected: int, keys: int) -> None:
    if keys != expected:
        raise ValueError(
            f"the layer {call.name} attends from {expected} positions to {keys} keys: its processor, "
            f"{type(call.module.processor).__name__}, does more than plain attention and cannot be recorded."
        )


def _grid_of(call: _Call, grid: tuple[int, int] | None, queries: int) -> tuple[int, int]:
    """The grid of a layer's positions; a square where nothing says otherwise."""
    if grid is not None and grid[0] * grid[1] == queries:
        return grid
    side = math.isqrt(queries)
    if grid is None and side**2 == queries:
        return side, side
    raise ValueError(
        f"the layer {call.name} has {queries} queries, and nothing says what grid they form; such models cannot be "
        "recorded yet. Known are diffusers' UNets, SD3, FLUX, Qwen-Image, Z-Image, and transformers with patches."
    )


def _as_bias(mask: Bool[Tensor, "*shape"] | Float[Tensor, "*shape"], batch: int, queries: int) -> Tensor:
    """A mask of `scaled_dot_product_attention`, to be added to the scores: float32 [batch, heads or 1, rows, keys]."""
    mask = mask[(None,) * (4 - mask.ndim)]
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)
    rows = mask.shape[2] if mask.shape[2] == 1 else queries
    return mask.float().expand(batch, -1, rows, -1)
