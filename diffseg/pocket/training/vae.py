"""The autoencoder of pocket-sd: 512x512 pictures to latents of 4 channels, eight times smaller, and back."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...diffuse import to_tensor
from ...models.devices import half_precision
from ..scenes import TUNING_SEED, scene
from .loop import Ahead, Plan, train

#: Weight of the KL term: just enough that latents of all scenes share one scale.
KL_WEIGHT = 1e-6

#: Standard deviation of scaled latents. Stable Diffusion takes 1; these scenes' latents hold less detail and would
#: be covered by more noise at the same timestep.
LATENT_STD = 1.6

#: Standard deviation of the posterior at the start: with the usual one, noise would drown colour.
START_STD = 0.05

#: Undoes, roughly, the last normalisation at the start.
START_GAIN = 0.4


def build() -> AutoencoderKL:
    """Stable Diffusion's autoencoder with fewer channels; no attention, which at 64x64 would cost most of the time."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        sample_size=512,
        mid_block_add_attention=False,
    )
    initialise_as_downsampling(vae)
    return vae


@torch.no_grad()
def initialise_as_downsampling(vae: AutoencoderKL) -> None:
    """Set the weights so that the first latents are the picture's mean colours, eight times smaller, in place.

    From a random start the small autoencoder spends most of a short training on finding colour at all: its
    normalisation layers take means away. So each colour travels in a pair of channels of opposite sign, which has
    mean zero, and whose SiLUs differ by just the colour: silu(x) - silu(-x) = x. A fourth pair carries a constant,
    to which the scale of the picture can be compared. Residual branches start at zero and add the detail.
    """
    pairs = 8
    for block in vae.modules():
        if isinstance(block, ResnetBlock2D):
            block.conv2.weight.zero_()
            block.conv2.bias.zero_()
            if block.conv_shortcut is not None:
                _pass_through(block.conv_shortcut, pairs)
        elif isinstance(block, Upsample2D):
            _pass_through(block.conv, pairs)
        elif isinstance(block, Downsample2D):
            _pass_through(block.conv, pairs)
            block.conv.weight[range(pairs), range(pairs), :2, :2] = 1 / 4
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        _zero(conv, pairs)
        centre = _centre(conv)
        for colour in range(3):
            centre[2 * colour, colour], centre[2 * colour + 1, colour] = 1, -1
        conv.bias[pairs - 2], conv.bias[pairs - 1] = 1, -1
    for conv in (vae.encoder.conv_out, vae.decoder.conv_out):
        _zero(conv, 3)
        centre = _centre(conv)
        for colour in range(3):
            centre[colour, 2 * colour], centre[colour, 2 * colour + 1] = START_GAIN, -START_GAIN
    for conv in (vae.quant_conv, vae.post_quant_conv):
        _pass_through(conv, 3)
    vae.quant_conv.weight[4:] = 0
    vae.quant_conv.bias[4:] = 2 * math.log(START_STD)


def _centre(conv: nn.Conv2d) -> Float[Tensor, " outputs inputs"]:
    """A view of a convolution's weights at the middle of its window."""
    return conv.weight[:, :, conv.weight.shape[2] // 2, conv.weight.shape[3] // 2]


def _zero(conv: nn.Conv2d, channels: int) -> None:
    """Set the first output channels of a convolution to zero, in place."""
    conv.weight[:channels] = 0
    conv.bias[:channels] = 0


def _pass_through(conv: nn.Conv2d, channels: int) -> None:
    """Set the weights with which the first channels of a convolution copy its input, in place."""
    _zero(conv, channels)
    _centre(conv)[range(channels), range(channels)] = 1


def crops(rng: np.random.Generator, batch: int, side: int = 128) -> Float[Tensor, "batch 3 side side"]:
    """Random squares of training scenes, four of each, of scenes drawn at 256 or 512 pixels."""

    def squares() -> Iterator[Image.Image]:
        for _ in range(batch // 4):
            size = int(rng.choice([256, 512]))
            picture = scene(int(rng.integers(TUNING_SEED)), size).image
            for top, left in rng.integers(0, size - side + 1, (4, 2)).tolist():
                yield picture.crop((left, top, left + side, top + side))

    return torch.cat([to_tensor(square) for square in squares()])


class Crops(Dataset):
    """The squares of each step, by its number."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> Float[Tensor, "batch 3 side side"]:
        return crops(np.random.default_rng(step), self.batch)


def reconstruction_loss(vae: AutoencoderKL, pictures: Float[Tensor, "n 3 h w"]) -> Tensor:
    """L1 on pixels, on their differences (for sharp edges) and on 8x8 means (for colour), and a little KL."""
    with half_precision(pictures.device.type):
        posterior = vae.encode(pictures).latent_dist
        output = vae.decode(posterior.sample()).sample
    output = output.float()
    pixels = F.l1_loss(output, pictures)
    edges = sum(F.l1_loss(output.diff(dim=axis), pictures.diff(dim=axis)) for axis in (2, 3))
    means = F.l1_loss(F.avg_pool2d(output, 8), F.avg_pool2d(pictures, 8))
    return pixels + edges + 2 * means + KL_WEIGHT * posterior.kl().mean()


def train_vae(
    folder: Path,
    steps: int,
    batch: int = 16,
    device: str = "cpu",
    deadline: float = math.inf,
    workers: int = 0,
) -> AutoencoderKL:
    """Train the autoencoder, or go on where it was stopped; sets its scaling factor at the end.

    Raises:
        OutOfTime: see `train`.
    """
    torch.manual_seed(0)
    vae, ahead = build().to(device), Ahead(Crops(batch), steps, workers)

    def loss(model: AutoencoderKL, rng: np.random.Generator, step: int) -> Tensor:
        torch.manual_seed(step)  # the posterior's sample
        return reconstruction_loss(model, ahead.take(step).to(device))

    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    vae = train(vae, [optimizer], loss, Plan(steps, ema=0.995, deadline=deadline), folder)
    vae.register_to_config(scaling_factor=scaling_factor(vae))
    return vae


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, scenes: int = 32) -> float:
    """The factor that gives latents the standard deviation LATENT_STD, measured on training scenes."""
    pictures = (to_tensor(scene(seed).image).to(vae.device) for seed in range(scenes))
    latents = torch.cat([vae.encode(picture).latent_dist.mean for picture in pictures])
    return round(LATENT_STD / latents.std().item(), 5)
