"""Stable Diffusion XL and its distilled descendants: two text encoders, and the picture's size as a condition."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffseg.backbones.stable_diffusion import StableDiffusion, check_channels
from diffseg.backbones.stock import ONE_MODEL, stock_pipeline
from diffseg.diffuse import unet_pass


class StableDiffusionXL(StableDiffusion):
    """A UNet of three resolutions, with up to ten transformer blocks in a row."""

    parts = (*StableDiffusion.parts, "text_encoder_2", "tokenizer_2")

    def check(self, parts: Mapping[str, Any]) -> None:
        """See `Backbone`."""
        kind = getattr(parts["unet"].config, "addition_embed_type", None)
        if kind != "text_time":
            raise ValueError(
                f"unet has the added condition {kind!r}, not 'text_time' as Stable Diffusion XL's has. {ONE_MODEL}"
            )
        check_channels(parts)

    def embed(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """Both encoders' last states but one; zeros for the empty prompt, as in training."""
        stock = stock_pipeline("StableDiffusionXLPipeline", pipe, self.parts, add_watermarker=False)
        text, _, pooled, _ = stock.encode_prompt(
            prompts, device=pipe._execution_device, do_classifier_free_guidance=False
        )
        said = torch.tensor([bool(prompt) for prompt in prompts], device=text.device)
        return {"encoder_hidden_states": text * said[:, None, None], "pooled": pooled * said[:, None]}

    def denoise(self, pipe: Any, latent: Tensor, timestep: int, conditions: dict[str, Tensor]) -> None:
        """The size and the crop that the picture is said to have are those that it has."""
        height, width = (side * pipe.vae_scale_factor for side in latent.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=latent.device).repeat(len(latent), 1)
        pooled = conditions["pooled"].to(pipe.unet.dtype)
        added = {"text_embeds": pooled, "time_ids": sizes.to(pipe.unet.dtype)}
        unet_pass(pipe.unet, latent, timestep, conditions["encoder_hidden_states"], added_cond_kwargs=added)
