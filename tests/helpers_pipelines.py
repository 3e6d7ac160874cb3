"""The components of small pipelines of every family, with random weights.

Each function takes a folder for the files of its tokenizers and returns what the stock pipeline of diffusers takes.
"""

import torch
from diffusers import (
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)
from helpers_models import TEXT_WIDTH, TOKENS, tiny_components, tiny_tokenizer, tiny_unet, tiny_vae
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WIDER = 24  # of the second CLIP, in numbers per token
T5_TOKENS = 12
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sd1(folder):
    """Stable Diffusion v1."""
    return tiny_components(folder)


def sd2(folder):
    """Stable Diffusion v2: predicts a velocity; linear projections around the attention."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    unet = tiny_unet(use_linear_projection=True, attention_head_dim=(2, 4))
    return tiny_components(folder) | {"unet": unet, "scheduler": scheduler}


def distilled(folder):
    """A UNet with one layer in a block and no middle, as small distilled models have."""
    return tiny_components(folder) | {"unet": tiny_unet(layers_per_block=1, mid_block_type=None)}


def sdxl(folder):
    """Stable Diffusion XL: three resolutions, of which the first has no attention, and two text encoders."""
    unet = tiny_unet(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        cross_attention_dim=TEXT_WIDTH + WIDER,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + WIDER,
    )
    return {
        "vae": tiny_vae(),
        "text_encoder": _clip(CLIPTextModel),
        "tokenizer": tiny_tokenizer(folder),
        "text_encoder_2": _clip(CLIPTextModelWithProjection, WIDER),
        "tokenizer_2": tiny_tokenizer(folder),
        "unet": unet,
        "scheduler": EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    }


def sd3(folder):
    """Stable Diffusion 3 with all three text encoders."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=TEXT_WIDTH + WIDER,
        pooled_projection_dim=TEXT_WIDTH + WIDER, pos_embed_max_size=24, dual_attention_layers=(0,), qk_norm="rms_norm",
    ).eval()  # fmt: skip
    return {
        "vae": tiny_vae(shift_factor=0.06),
        "text_encoder": _clip(CLIPTextModelWithProjection),
        "tokenizer": tiny_tokenizer(folder),
        "text_encoder_2": _clip(CLIPTextModelWithProjection, WIDER),
        "tokenizer_2": tiny_tokenizer(folder),
        "text_encoder_3": _t5(),
        "tokenizer_3": _t5_tokenizer(),
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def sd3_without_t5(folder):
    """Stable Diffusion 3 without its largest text encoder, which may be left out."""
    return sd3(folder) | {"text_encoder_3": None, "tokenizer_3": None}


def flux(folder, guidance_embeds=True):
    """FLUX.1; with guidance_embeds=False its "schnell"."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH + WIDER, pooled_projection_dim=TEXT_WIDTH, axes_dims_rope=[4, 4, 8],
        guidance_embeds=guidance_embeds,
    ).eval()  # fmt: skip
    return {
        "vae": tiny_vae(shift_factor=0.06),
        "text_encoder": _clip(CLIPTextModel),
        "tokenizer": tiny_tokenizer(folder),
        "text_encoder_2": _t5(),
        "tokenizer_2": _t5_tokenizer(),
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def schnell(folder):
    """FLUX.1 without guidance as an input."""
    return flux(folder, guidance_embeds=False)


def _clip(kind, width=TEXT_WIDTH):
    """A text encoder of two layers, whose last state but one is neither its input nor its output."""
    torch.manual_seed(width)
    config = CLIPTextConfig(
        vocab_size=64, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, eos_token_id=1, projection_dim=width,
    )  # fmt: skip
    return kind(config).eval()


def _t5():
    torch.manual_seed(2)
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=TEXT_WIDTH + WIDER, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).eval()


def _t5_tokenizer():
    """Unigram pieces: every letter, and a mark at the start of a word."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces = marks + [(letter, -3.0) for letter in _LETTERS + ","]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_TOKENS)
