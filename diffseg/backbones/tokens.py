"""Where the picture and the text stand in the sequence that a transformer attends to.

A UNet attends to the picture and to the text in different layers. The transformers of SD3, FLUX and their kin put both
into one sequence, each family in an order of its own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_PADDED_TO = 32  # Z-Image pads picture and text to multiples of this


@dataclass(frozen=True)
class Tokens:
    """The sequence of one pass.

    Attributes:
        grid: rows and columns of the picture's tokens.
        picture: where they are in the common sequence.
        text: where the text's tokens are; empty if the text is not in the sequence.
        total: length of the common sequence, with its padding; 0 if there is none.
        alone: length of the sequence in layers that see the picture only.
        text_only: what the names of layers begin with that see the text only.
    """

    grid: tuple[int, int]
    picture: slice
    text: slice
    total: int
    alone: int
    text_only: tuple[str, ...] = ()


def find_tokens(model: nn.Module, given: Mapping[str, Any]) -> Tokens | None:
    """The tokens of a pass, from the arguments of the model's `forward`; None for a UNet.

    Raises:
        ValueError: for several pictures in one sequence.
    """
    for kind in type(model).__mro__:
        if kind.__name__ in _FAMILIES:
            return _FAMILIES[kind.__name__](model, given)
    hidden = given.get("hidden_states")
    if torch.is_tensor(hidden) and hidden.ndim == 4 and isinstance(getattr(model.config, "patch_size", None), int):
        return _separate(_patches(model, hidden))
    return None


def _patches(model: nn.Module, latent: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of the patches that a latent [n, channels, height, width] is cut into."""
    patch = model.config.patch_size
    return latent.shape[-2] // patch, latent.shape[-1] // patch


def _separate(grid: tuple[int, int]) -> Tokens:
    """PixArt, Sana and others: as in a UNet, text is attended to in layers of its own."""
    count = math.prod(grid)
    return Tokens(grid, slice(0, count), slice(0, 0), total=0, alone=count)


def _text_first(grid: tuple[int, int], text: int) -> Tokens:
    count = math.prod(grid)
    return Tokens(grid, slice(text, text + count), slice(0, text), text + count, count)


def _sd3(model: nn.Module, given: Mapping[str, Any]) -> Tokens:
    grid, text = _patches(model, given["hidden_states"]), given["encoder_hidden_states"].shape[1]
    count = math.prod(grid)
    return Tokens(grid, slice(0, count), slice(count, count + text), count + text, count)


def _flux(model: nn.Module, given: Mapping[str, Any]) -> Tokens:
    """Packed latents; `img_ids` [tokens, 3] holds the row and the column of each."""
    ids = given["img_ids"].reshape(-1, given["img_ids"].shape[-1])[: given["hidden_states"].shape[1]]
    rows, columns = (int(ids[:, axis].max()) + 1 for axis in (1, 2))
    _check_one_picture(rows * columns, given["hidden_states"].shape[1])
    return _text_first((rows, columns), given["encoder_hidden_states"].shape[1])


def _qwen_image(model: nn.Module, given: Mapping[str, Any]) -> Tokens:
    """Packed latents; `img_shapes` holds frames, rows and columns, once for each picture of the batch."""
    shape = given["img_shapes"][0]
    _, rows, columns = shape[0] if isinstance(shape[0], (tuple, list)) else shape
    _check_one_picture(rows * columns, given["hidden_states"].shape[1])
    return _text_first((rows, columns), given["encoder_hidden_states"].shape[1])


def _z_image(model: nn.Module, given: Mapping[str, Any]) -> Tokens:
    """Lists with an entry for each picture; the picture, then the text, each padded."""
    latent, text = given["x"][0], given["cap_feats"][0]  # [channels, 1, height, width], [tokens, width]
    if isinstance(latent, (list, tuple)):
        raise ValueError("x holds several pictures for one output; record the model with one picture each.")
    patch = given.get("patch_size", 2)
    grid = latent.shape[-2] // patch, latent.shape[-1] // patch
    count, padded = math.prod(grid), _padded(math.prod(grid))
    return Tokens(
        grid,
        slice(0, count),
        slice(padded, padded + len(text)),
        padded + _padded(len(text)),
        padded,
        ("context_refiner",),
    )


def _padded(length: int) -> int:
    return -(-length // _PADDED_TO) * _PADDED_TO


def _check_one_picture(positions: int, tokens: int) -> None:
    if positions != tokens:
        raise ValueError(
            f"hidden_states has {tokens} tokens and the picture's grid {positions} positions; record the model with "
            "one picture in the sequence."
        )


#: Class of the model -> its order of tokens.
_FAMILIES: dict[str, Callable[[nn.Module, Mapping[str, Any]], Tokens]] = {
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "QwenImageTransformer2DModel": _qwen_image,
    "ZImageTransformer2DModel": _z_image,
}
