"""Published architectures at their full size, with random weights: built in code, in seconds, without a download."""

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffseg.models.paths import resolve_model
from diffseg.pipeline import DiffSegPipeline

_V1 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
#: Name -> what its UNet's configuration says beyond the defaults of diffusers.
UNETS = {
    "SD v1": _V1,
    "SD v2.1": _V1
    | {
        "sample_size": 96,
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "SDXL": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def full_unet(
    name: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> UNet2DConditionModel:
    """One of `UNETS`, with random weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name])
    return fill(unet, dtype, device)


def full_pipeline(dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> DiffSegPipeline:
    """Everything of Stable Diffusion v1; the tokenizer is the embedded model's, whose words are fewer.

    On the device "meta" nothing has values, and operations can be counted for free.
    """
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    return DiffSegPipeline(
        vae=fill(vae, dtype, device),
        text_encoder=fill(text_encoder, dtype, device),
        tokenizer=CLIPTokenizer.from_pretrained(resolve_model("pocket"), subfolder="tokenizer"),
        unet=full_unet("SD v1", dtype, device),
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    )


@torch.no_grad()
def fill(model: nn.Module, dtype: torch.dtype, device: str | torch.device = "cpu", seed: int = 0) -> nn.Module:
    """Give a model on the "meta" device memory and values: numbers as they come in, as large as they go out."""
    # Not the `to` of diffusers, which warns of modules that are kept in float32, even where there are none.
    model = nn.Module.to(model, dtype).to_empty(device=device).eval()
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(name.endswith("weight"))  # of a normalisation; else a bias
    for buffer in model.buffers():  # positions
        buffer.copy_(torch.arange(buffer.shape[-1]))
    return model
