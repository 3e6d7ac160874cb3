"""Stable Diffusion 3 and 3.5: a transformer over picture and text together.

Experimental: proved on small random models of the same classes only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffseg.backbones.stock import ONE_MODEL, stock_pipeline


class StableDiffusion3:
    """A flow-matching transformer with two or three text encoders."""

    denoiser = "transformer"
    denoiser_class = "SD3Transformer2DModel"
    parts = (
        "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer", "scheduler",
    )  # fmt: skip
    optional = ("text_encoder_3", "tokenizer_3")

    def check(self, parts: Mapping[str, Any]) -> None:
        """See `Backbone`."""
        taken, made = parts["transformer"].config.in_channels, parts["vae"].config.latent_channels
        if taken != made:
            raise ValueError(f"transformer takes {taken} channels and vae makes {made}. {ONE_MODEL}")

    def default_size(self, pipe: Any) -> int:
        """See `Backbone`."""
        return pipe.transformer.config.sample_size * pipe.vae_scale_factor

    def size_step(self, pipe: Any) -> int:
        """See `Backbone`."""
        return pipe.vae_scale_factor * pipe.transformer.config.patch_size

    def pixels_per_position(self, pipe: Any) -> int:
        """See `Backbone`."""
        return self.size_step(pipe)

    def tokenizer(self, pipe: Any) -> Any:
        """CLIP's tokens come first."""
        return pipe.tokenizer

    def embed(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """See `Backbone`."""
        stock = stock_pipeline("StableDiffusion3Pipeline", pipe, (*self.parts, *self.optional))
        text, _, pooled, _ = stock.encode_prompt(
            prompts, None, None, device=pipe._execution_device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": text, "pooled_projections": pooled}

    def add_noise(self, pipe: Any, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """See `Backbone`."""
        return interpolate(latent, noise, timestep, pipe.scheduler)

    def denoise(self, pipe: Any, latent: Tensor, timestep: int, conditions: dict[str, Tensor]) -> None:
        """See `Backbone`."""
        dtype = pipe.transformer.dtype
        steps = torch.full((len(latent),), timestep, device=latent.device)
        pipe.transformer(latent.to(dtype), timestep=steps, **{k: v.to(dtype) for k, v in conditions.items()})


def interpolate(latent: Tensor, noise: Tensor, timestep: int, scheduler: Any) -> Tensor:
    """Rectified flow: a straight line from the latent to the noise, in float32."""
    share = timestep / scheduler.config.num_train_timesteps
    return (1 - share) * latent.float() + share * noise
