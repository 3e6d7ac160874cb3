"""Stable Diffusion v1 and v2, their distilled descendants with fewer blocks, and the pocket model.

v2 predicts a velocity instead of the noise; that changes what comes out of a pass, not what goes in.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffseg.backbones.stock import ONE_MODEL
from diffseg.diffuse import diffuse, embed_prompt, unet_pass


class StableDiffusion:
    """A UNet over latents, one text encoder."""

    denoiser = "unet"
    denoiser_class = "UNet2DConditionModel"
    parts = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")

    def check(self, parts: Mapping[str, Any]) -> None:
        """See `Backbone`."""
        config, width = parts["unet"].config, parts["text_encoder"].config.hidden_size
        extras = [
            name
            for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type")
            if getattr(config, name, None) is not None
        ]
        if extras:
            raise ValueError(f"unet needs inputs besides an image and a prompt ({', '.join(extras)}). {ONE_MODEL}")
        check_channels(parts)
        if config.cross_attention_dim != width:
            raise ValueError(
                f"unet reads text of width {config.cross_attention_dim} and text_encoder writes {width}. {ONE_MODEL}"
            )

    def default_size(self, pipe: Any) -> int:
        """See `Backbone`."""
        return pipe.unet.config.sample_size * pipe.vae_scale_factor

    def size_step(self, pipe: Any) -> int:
        """The UNet halves the latent once less often than it has blocks."""
        return pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)

    def pixels_per_position(self, pipe: Any) -> int:
        """The first blocks may have no attention: XL's has none."""
        blocks = pipe.unet.config.down_block_types
        return pipe.vae_scale_factor * 2 ** next((i for i, name in enumerate(blocks) if "Attn" in name), 0)

    def tokenizer(self, pipe: Any) -> Any:
        """See `Backbone`."""
        return pipe.tokenizer

    def embed(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """See `Backbone`."""
        embeddings = [embed_prompt(pipe.tokenizer, pipe.text_encoder, prompt) for prompt in prompts]
        return {"encoder_hidden_states": torch.cat(embeddings)}

    def add_noise(self, pipe: Any, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """See `Backbone`."""
        return diffuse(latent, noise, pipe.scheduler, timestep)

    def denoise(self, pipe: Any, latent: Tensor, timestep: int, conditions: dict[str, Tensor]) -> None:
        """See `Backbone`."""
        unet_pass(pipe.unet, latent, timestep, **conditions)


def check_channels(parts: Mapping[str, Any]) -> None:
    """ValueError for a UNet that takes more than a latent, as one for inpainting does."""
    taken, made = parts["unet"].config.in_channels, parts["vae"].config.latent_channels
    if taken != made:
        raise ValueError(
            f"unet takes {taken} channels and vae makes {made}, as in a model for inpainting. Pass the model that it "
            "was made from."
        )
