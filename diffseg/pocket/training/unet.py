"""The denoiser of pocket-sd: Stable Diffusion v1's UNet with few channels, and its training."""

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from .latents import Latents
from .loop import Plan, muon_and_adamw, train
from .non_local_means import QueriesAndKeys, choose_side, non_local_means_loss

#: How often a caption is replaced by the empty prompt, which DiffSeg uses.
CAPTION_DROPOUT = 0.3

#: Cap of the signal-to-noise ratio in the loss (Hang et al. 2023, "min-SNR"): nearly clean latents, where only
#: unpredictable detail is left to learn, would otherwise take most of the gradient.
MAX_SNR = 5.0

#: Beta distribution of the timesteps in training, as parts of the schedule: most often around 0.3, DiffSeg's timestep.
TIMESTEP_BETA = (1.5, 2.5)


#: Weight of the second task of self-attention beside the denoising of the whole network.
NON_LOCAL_MEANS = 0.5


class Denoiser(nn.Module):
    """UNet and text encoder, trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(
        self,
        noisy: Float[Tensor, "n 4 side side"],
        timesteps: Int[Tensor, " n"],
        tokens: Int[Tensor, "n context"],
        mask: Int[Tensor, "n context"] | None = None,
    ) -> Float[Tensor, "n 4 side side"]:
        """The noise that was added; a mask is 0 for the tokens that must not be attended to."""
        text = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, text, encoder_attention_mask=mask).sample


def build_unet(text_width: int = 64) -> UNet2DConditionModel:
    """Stable Diffusion v1's topology: 16 transformer blocks, 5 + 5 + 5 + 1 on four sides.

    The queries and keys of self-attention start twice as large as usual, which gives attention that already prefers
    some positions over others, and so a gradient.
    """
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(32, 64, 128, 160),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=text_width,
        attention_head_dim=(2, 4, 4, 4),  # the number of heads, as in Stable Diffusion's own configuration
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn1.to_q" in name or "attn1.to_k" in name:
                parameter.mul_(2)
    return unet


def build_scheduler() -> DDPMScheduler:
    """The noise schedule of Stable Diffusion."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def snr_weights(scheduler: DDPMScheduler, timesteps: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weights min(SNR, cap) / SNR of the squared error in the noise."""
    kept = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    return (MAX_SNR * (1 - kept) / kept).clamp(max=1)


def drop_captions(rng: np.random.Generator, captions: list[str]) -> list[str]:
    """Replace some captions by the empty prompt."""
    dropped = rng.random(len(captions)) < CAPTION_DROPOUT
    return ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]


def train_unet(
    denoiser: Denoiser,
    tokenizer: CLIPTokenizer,
    latents: Latents,
    folder: Path,
    steps: int,
    batch: int,
    lr_scale: float = 1.0,
    device: str = "cpu",
    seed: int = 0,
    deadline: float = math.inf,
) -> Denoiser:
    """Train the denoiser on latents of one size, or go on where it was stopped.

    Args:
        denoiser: changed in place.
        tokenizer: of the text encoder.
        latents: training scenes.
        folder: for checkpoint and log.
        steps: optimiser steps.
        batch: scenes per step.
        lr_scale: factor on the learning rates.
        device: where to train.
        seed: of noise, timesteps and the choice of scenes.
        deadline: see `Plan`.

    Raises:
        OutOfTime: see `train`.
    """
    scheduler = build_scheduler()
    denoiser.to(device)

    def loss(model: Denoiser, rng: np.random.Generator, step: int) -> Tensor:
        clean, _, captions = latents.sample(rng, batch)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.from_numpy((1000 * rng.beta(*TIMESTEP_BETA, batch)).astype(np.int64))
        noisy = scheduler.add_noise(clean, noise, timesteps).to(device)
        prompts = drop_captions(rng, captions)
        tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        with torch.autocast(device, torch.bfloat16), QueriesAndKeys(choose_side(clean.shape[-1], rng)) as kept:
            predicted = model(noisy, timesteps.to(device), tokens)
        errors = (predicted.float() - noise.to(device)).square().mean((1, 2, 3))
        denoising = (snr_weights(scheduler, timesteps.to(device)) * errors).mean()
        return denoising + NON_LOCAL_MEANS * non_local_means_loss(kept.layers, clean.to(device), rng)

    optimizers = muon_and_adamw(denoiser, 0.02 * lr_scale, 1e-3 * lr_scale)
    return train(denoiser, optimizers, loss, Plan(steps, ema=0.998, seed=seed, deadline=deadline), folder)
