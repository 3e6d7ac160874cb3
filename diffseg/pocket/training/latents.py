"""Latents of training scenes, made once and kept on disk, so that the UNet's training never waits for pictures."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ...diffuse import to_tensor
from ...models.devices import half_precision
from .pictures import Conversion, Scenes, Source, store_scenes


@dataclass(frozen=True)
class Latents:
    """Encoded scenes."""

    values: Float[np.ndarray, "scenes 4 side side"]  # float16, scaled
    labels: UInt8[np.ndarray, "scenes side side"]
    captions: list[str]

    def first(self, number: int) -> "Latents":
        """So many of the scenes, or all if there are no more."""
        return Latents(self.values[:number], self.labels[:number], self.captions[:number])

    def sample(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[Float[Tensor, "batch 4 side side"], UInt8[Tensor, "batch side side"], list[str]]:
        """Latents, labels and captions of random scenes."""
        chosen = np.sort(rng.choice(len(self.values), batch, replace=False))
        values = torch.from_numpy(self.values[chosen].astype(np.float32))
        return values, torch.from_numpy(self.labels[chosen]), [self.captions[index] for index in chosen]


def _fingerprint(vae: AutoencoderKL) -> str:
    """Short digest of the weights: latents of another autoencoder must not be mistaken for this one's."""
    digest = hashlib.sha256()
    for weights in vae.state_dict().values():
        digest.update(weights.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def encode_scenes(
    vae: AutoencoderKL,
    number: int,
    size: int,
    folder: Path,
    workers: int = 2,
    painted: bool = False,
    deadline: float = math.inf,
) -> Latents:
    """`encode_pictures` for the first `number` training scenes at `size` pixels; `painted` as in `scene`."""
    return encode_pictures(vae, Scenes(number, size, painted), folder, workers, deadline)


def encode_pictures(
    vae: AutoencoderKL, pictures: Source, folder: Path, workers: int = 2, deadline: float = math.inf
) -> Latents:
    """Encode pictures, or read their latents if that was done before with the same autoencoder.

    Raises:
        OutOfTime: see `store_scenes`.
    """
    pixels = 2 ** (len(vae.config.block_out_channels) - 1)  # per latent position, along one side
    side, middle = pictures.size // pixels, slice(pixels // 2, None, pixels)

    @torch.no_grad()
    def convert(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = torch.cat([to_tensor(Image.fromarray(image)) for image in images]).to(vae.device)
        with half_precision(vae.device.type):
            means = vae.encode(inputs).latent_dist.mean.float()
        return (means * vae.config.scaling_factor).cpu().numpy(), labels[:, middle, middle]

    latents = Conversion(convert, (4, side, side), (side, side), np.float16)
    stem = folder / f"latents-{pictures.name}-{_fingerprint(vae)}"
    return Latents(*store_scenes(pictures, latents, stem, 8, workers, deadline))
