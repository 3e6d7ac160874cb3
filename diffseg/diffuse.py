"""Diffuse: image to latent, noise at time t, one pass through the UNet (Sec. 3.1).

The denoised result is thrown away. DiffSeg wants the attention on the way, so nothing is sampled, guided or decoded.
"""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from diffusers import DDPMScheduler
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from diffseg import SEED, TIMESTEP
from diffseg.arguments import check_whole


def to_tensor(image: Image.Image) -> Float[Tensor, "1 3 height width"]:
    """An RGB image, 0..255, as the autoencoder takes it: float32 from -1 to 1."""
    pixels = torch.from_numpy(np.array(image))  # [h, w, 3] uint8
    return rearrange(pixels, "h w c -> 1 c h w") / 127.5 - 1


def encode(vae: nn.Module, pixels: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
    """The latents of images: the MEAN of the posterior, times the model's scaling factor.

    Sampling the posterior would add noise that no seed of ours controls. Autoencoders that overflow in float16, as
    Stable Diffusion XL's does, say so in their configuration; they work in float32.
    """
    dtype = vae.dtype
    overflows = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if overflows:
        nn.Module.to(vae, torch.float32)  # diffusers' own `to` warns of every change of type
    try:
        mean = vae.encode(pixels.to(device_of(vae), vae.dtype)).latent_dist.mean
    finally:
        if overflows:
            nn.Module.to(vae, dtype)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (mean - shift) * vae.config.scaling_factor


def draw_noise(
    shape: Sequence[int], seed: int | torch.Generator | Sequence[torch.Generator] = SEED
) -> Float[Tensor, "n c h w"]:
    """Noise for latents. It is drawn on the CPU, so that a seed means the same picture on every device.

    Every image of a batch gets the same noise, that of the seed, so that its attention does not depend on its
    neighbours. A generator is advanced by one draw. A list has a generator for each image.

    Raises:
        TypeError, ValueError: if the seed is none of these.
    """
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        return torch.cat([draw_noise((1, *shape[1:]), each) for each in seed])
    check_seed(seed)
    generator = torch.Generator("cpu").manual_seed(int(seed)) if isinstance(seed, Integral) else seed
    one = torch.randn((1, *shape[1:]), generator=generator, device=generator.device)
    return one.expand(*shape)


def check_seed(seed: int | torch.Generator) -> None:
    """TypeError or ValueError for what noise cannot be drawn from."""
    if isinstance(seed, torch.Generator):
        return
    check_whole("seed", seed, "Or pass a torch.Generator.")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed={seed} does not fit into 64 bits; choose a smaller one, such as {SEED}.")


def diffuse(
    latent: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], scheduler, timestep: int
) -> Float[Tensor, "n c h w"]:
    r"""Latents at step t: sqrt(abar_t) z + sqrt(1 - abar_t) noise, in float32.

    The schedule is read as DDPM's whatever sampler the model ships with: some samplers scale their noise differently,
    and t is an index of the training schedule.

    Args:
        latent: clean latents.
        noise: of the same shape.
        scheduler: any diffusers scheduler; only its configuration is used.
        timestep: t, from 0 to scheduler.config.num_train_timesteps - 1.
    """
    ddpm = DDPMScheduler.from_config(scheduler.config)
    return ddpm.add_noise(latent.float(), noise.to(latent.device), torch.tensor([timestep], device=latent.device))


def add_noise(
    latent: Float[Tensor, "n c h w"], scheduler, timestep: int = TIMESTEP, seed: int | torch.Generator = SEED
) -> Float[Tensor, "n c h w"]:
    """`diffuse` with the noise of a seed, see `draw_noise`."""
    return diffuse(latent, draw_noise(latent.shape, seed), scheduler, timestep)


def embed_prompt(tokenizer, text_encoder: nn.Module, prompt: str = "") -> Float[Tensor, "1 n d"]:
    """A prompt as the UNet's cross-attention reads it; "" is the unconditional embedding."""
    tokens = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return text_encoder(tokens.input_ids.to(device_of(text_encoder)))[0]


def unet_pass(
    unet: nn.Module,
    latent: Float[Tensor, "n c h w"],
    timestep: int,
    encoder_hidden_states: Float[Tensor, "n tokens d"],
    **conditions,
) -> Float[Tensor, "n out h w"]:
    """Exactly one forward pass of the UNet, without classifier-free guidance.

    Args:
        unet: a UNet2DConditionModel.
        latent: noisy latents.
        timestep: t, the same for all.
        encoder_hidden_states: the embedded prompts.
        conditions: other arguments of the UNet, such as Stable Diffusion XL's `added_cond_kwargs`.
    """
    device = device_of(unet)
    latent, text = latent.to(device, unet.dtype), encoder_hidden_states.to(device, unet.dtype)
    return unet(latent, timestep, encoder_hidden_states=text, **conditions).sample


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes. With offloading its weights are elsewhere most of the time, or nowhere ("meta")."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return model.device
