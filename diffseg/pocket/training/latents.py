"""Latents of training scenes, made once and kept on disk, so that the UNet's training never waits for pictures."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from .pictures import Scenes
from .vae import to_tensor


@dataclass(frozen=True)
class Latents:
    """Encoded scenes."""

    values: Float[np.ndarray, "scenes 4 side side"]  # float16, scaled
    labels: UInt8[np.ndarray, "scenes side side"]
    captions: list[str]

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


@torch.no_grad()
def encode_scenes(
    vae: AutoencoderKL, number: int, size: int, folder: Path, workers: int = 2, painted: bool = False
) -> Latents:
    """Encode the first `number` training scenes at `size` pixels, or read them if that was done before
    with the same autoencoder; `painted` as in `scene`."""
    name = f"{size}-{number}-{'painted-' if painted else ''}{_fingerprint(vae)}"
    values, labels, captions = folder / f"latents-{name}.npy", folder / f"labels-{name}.npy", folder / f"{name}.csv"
    if not captions.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pixels = 2 ** (len(vae.config.block_out_channels) - 1)  # per latent place, along one side
        side = size // pixels
        stored = np.lib.format.open_memmap(values, "w+", np.float16, (number, 4, side, side))
        classes = np.lib.format.open_memmap(labels, "w+", np.uint8, (number, side, side))
        loader = DataLoader(Scenes(number, size, painted), batch_size=8, num_workers=workers)
        said: list[str] = []
        for pictures, truths, batch_captions in tqdm(loader, desc=f"encoding at {size}", mininterval=5):
            inputs = to_tensor(pictures.numpy()).to(vae.device)
            with torch.autocast(vae.device.type, torch.bfloat16):
                means = vae.encode(inputs).latent_dist.mean.float()
            here = slice(len(said), len(said) + len(means))
            stored[here] = (means * vae.config.scaling_factor).cpu().numpy()
            classes[here] = truths[:, pixels // 2 :: pixels, pixels // 2 :: pixels].numpy()
            said += batch_captions
        stored.flush()
        classes.flush()
        pd.Series(said, name="caption").to_csv(captions, index=False)  # last: marks the rest as complete
    return Latents(
        np.load(values, mmap_mode="r"), np.load(labels, mmap_mode="r"), pd.read_csv(captions).caption.tolist()
    )
