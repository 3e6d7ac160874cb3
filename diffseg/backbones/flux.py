"""FLUX.1: a transformer over text and picture together.

Experimental: proved on small random models of the same classes only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffseg.backbones.sd3 import interpolate
from diffseg.backbones.stock import ONE_MODEL, stock_pipeline

_PACKED = 2  # latent pixels along the side of a token
_GUIDANCE = 3.5  # what the distilled models are usually sampled with


class Flux:
    """A flow-matching transformer; T5's tokens are attended to, CLIP gives one vector."""

    denoiser = "transformer"
    denoiser_class = "FluxTransformer2DModel"
    parts = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer", "scheduler")

    def check(self, parts: Mapping[str, Any]) -> None:
        """See `Backbone`."""
        taken, made = parts["transformer"].config.in_channels, parts["vae"].config.latent_channels
        if taken != made * _PACKED**2:
            raise ValueError(
                f"transformer takes {taken} channels and vae makes {made}, four of which are packed into a token: "
                f"expected {made * _PACKED**2}. Models for filling in, depth or edges take more; {ONE_MODEL}"
            )

    def default_size(self, pipe: Any) -> int:
        """Nothing in the model's folder says it."""
        return 1024

    def size_step(self, pipe: Any) -> int:
        """See `Backbone`."""
        return pipe.vae_scale_factor * _PACKED

    def pixels_per_position(self, pipe: Any) -> int:
        """See `Backbone`."""
        return self.size_step(pipe)

    def tokenizer(self, pipe: Any) -> Any:
        """T5's."""
        return pipe.tokenizer_2

    def embed(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """See `Backbone`."""
        stock = stock_pipeline("FluxPipeline", pipe, self.parts)
        text, pooled, positions = stock.encode_prompt(prompts, None, device=pipe._execution_device)
        return {"encoder_hidden_states": text, "pooled_projections": pooled, "txt_ids": positions}

    def add_noise(self, pipe: Any, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """See `Backbone`."""
        return interpolate(latent, noise, timestep, pipe.scheduler)

    def denoise(self, pipe: Any, latent: Tensor, timestep: int, conditions: dict[str, Tensor]) -> None:
        """Four latent pixels make one token."""
        from diffusers import FluxPipeline

        dtype, (count, channels, height, width) = pipe.transformer.dtype, latent.shape
        packed = FluxPipeline._pack_latents(latent.to(dtype), count, channels, height, width)
        positions = FluxPipeline._prepare_latent_image_ids(
            count, height // _PACKED, width // _PACKED, latent.device, dtype
        )
        share = timestep / pipe.scheduler.config.num_train_timesteps
        steps = torch.full((count,), share, device=latent.device, dtype=dtype)
        guided = pipe.transformer.config.guidance_embeds
        guidance = torch.full_like(steps, _GUIDANCE) if guided else None
        conditions = {name: value.to(dtype) for name, value in conditions.items()}
        pipe.transformer(packed, timestep=steps, img_ids=positions, guidance=guidance, **conditions)
