"""Diffuse: image to latent, noise at time t, one pass through the UNet (Sec. 3.1).

The denoised result is thrown away. What DiffSeg wants is what the attention layers look at on the
way, so nothing is sampled, guided or decoded.
"""

import numpy as np
import torch
from diffusers import DDPMScheduler
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from diffseg import SEED, TIMESTEP


def to_tensor(image: Image.Image) -> Float[Tensor, "1 3 height width"]:
    """An RGB image, 0..255, as the autoencoder takes it: float32 from -1 to 1."""
    pixels = torch.from_numpy(np.array(image))  # [h, w, 3] uint8
    return rearrange(pixels, "h w c -> 1 c h w") / 127.5 - 1


def encode(vae: nn.Module, pixels: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 c h w"]:
    """The latent of an image: the MEAN of the posterior, times the model's scaling factor.

    Sampling the posterior would add noise that no seed of ours controls.
    """
    pixels = pixels.to(vae.device, vae.dtype)
    return vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor


def add_noise(
    latent: Float[Tensor, "1 c h w"], scheduler, timestep: int = TIMESTEP, seed: int = SEED
) -> Float[Tensor, "1 c h w"]:
    r"""Diffuse a latent to step t: sqrt(abar_t) z + sqrt(1 - abar_t) noise, in float32.

    The schedule is read as DDPM's whatever sampler the model ships with: some samplers scale
    their noise differently, and t is an index of the training schedule. The noise is drawn on
    the CPU, so that a seed means the same picture on every device.

    Args:
        latent: a clean latent.
        scheduler: any diffusers scheduler; only its configuration is used.
        timestep: t, from 0 to scheduler.config.num_train_timesteps - 1.
        seed: of the noise.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(latent.shape, generator=generator).to(latent.device)
    ddpm = DDPMScheduler.from_config(scheduler.config)
    return ddpm.add_noise(latent.float(), noise, torch.tensor([timestep], device=latent.device))


def embed_prompt(tokenizer, text_encoder: nn.Module, prompt: str = "") -> Float[Tensor, "1 n d"]:
    """A prompt as the UNet's cross-attention reads it; "" is the unconditional embedding."""
    tokens = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return text_encoder(tokens.input_ids.to(text_encoder.device))[0]


def unet_pass(
    unet: nn.Module,
    latent: Float[Tensor, "1 c h w"],
    timestep: int,
    embedding: Float[Tensor, "1 n d"],
) -> Float[Tensor, "1 out h w"]:
    """Exactly one forward pass of the UNet, without classifier-free guidance."""
    latent = latent.to(unet.device, unet.dtype)
    embedding = embedding.to(unet.device, unet.dtype)
    return unet(latent, timestep, encoder_hidden_states=embedding).sample
