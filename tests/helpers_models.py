"""Small Stable-Diffusion-like models with random weights, built in a moment."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 16
TOKENS = 8


def tiny_unet(seed=0, **changes):
    """Two resolutions, attention everywhere: 2 + 3 layers at the full side, 1 at half of it."""
    torch.manual_seed(seed)
    config = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    } | changes
    return UNet2DConditionModel(**config).eval()


def tiny_vae(seed=0, **changes):
    """An autoencoder that halves the side twice."""
    torch.manual_seed(seed)
    config = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
    } | changes
    return AutoencoderKL(**config).eval()


def tiny_text_encoder(width=TEXT_WIDTH, vocabulary=64, tokens=TOKENS):
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=tokens,
            eos_token_id=1,
        )
    ).eval()


def tiny_tokenizer(folder, tokens=TOKENS):
    """A CLIP tokenizer that knows letters and no merges."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: index for index, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=tokens)


def tiny_components(folder, tokens=TOKENS):
    """Everything that `DiffSegPipeline` takes; the folder is for the tokenizer's files, `tokens` its context."""
    return {
        "vae": tiny_vae(),
        "text_encoder": tiny_text_encoder(tokens=tokens),
        "tokenizer": tiny_tokenizer(folder, tokens),
        "unet": tiny_unet(),
        "scheduler": DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
        ),
    }


# ---- transformers, each with the arguments of a pass over a picture of ROWS x COLUMNS tokens ------------------------

ROWS, COLUMNS, WORDS = 4, 6, 10


def tiny_sd3(batch=1, **changes):
    """Picture, then text; the first block attends to the picture alone, too, as SD 3.5 does."""
    torch.manual_seed(0)
    config = {
        "sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 32,
        "pooled_projection_dim": 64, "pos_embed_max_size": 16, "dual_attention_layers": (0,), "qk_norm": "rms_norm",
    }  # fmt: skip
    model = SD3Transformer2DModel(**config | changes).eval()
    return model, {
        "hidden_states": torch.randn(batch, 4, 2 * ROWS, 2 * COLUMNS),
        "encoder_hidden_states": torch.randn(batch, WORDS, 32),
        "pooled_projections": torch.randn(batch, 64),
        "timestep": torch.full((batch,), 300),
    }


def tiny_flux(batch=1, **changes):
    """Text, then picture, in one block of two streams and one of a single stream."""
    torch.manual_seed(0)
    config = {
        "patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": [4, 4, 8],
    }  # fmt: skip
    model = FluxTransformer2DModel(**config | changes).eval()
    grid = torch.cartesian_prod(torch.arange(ROWS), torch.arange(COLUMNS)).float()
    return model, {
        "hidden_states": torch.randn(batch, ROWS * COLUMNS, 4),
        "encoder_hidden_states": torch.randn(batch, WORDS, 32),
        "pooled_projections": torch.randn(batch, 32),
        "timestep": torch.full((batch,), 0.3),
        "img_ids": torch.cat([torch.zeros(len(grid), 1), grid], dim=1),
        "txt_ids": torch.zeros(WORDS, 3),
    }


def tiny_qwen_image(batch=1):
    """Text, then picture; the last two words of the text are padding."""
    torch.manual_seed(0)
    model = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    ).eval()  # fmt: skip
    mask = torch.ones(batch, WORDS, dtype=torch.long)
    mask[:, -2:] = 0
    return model, {
        "hidden_states": torch.randn(batch, ROWS * COLUMNS, 16),
        "encoder_hidden_states": torch.randn(batch, WORDS, 16),
        "encoder_hidden_states_mask": mask,
        "timestep": torch.full((batch,), 0.3),
        "img_shapes": [(1, ROWS, COLUMNS)] * batch,
    }


def tiny_z_image(batch=1):
    """Picture, then text, each padded to 32 tokens."""
    torch.manual_seed(0)
    model = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=16, dim=16, n_layers=1, n_refiner_layers=1, n_heads=1,
        n_kv_heads=1, qk_norm=True, cap_feat_dim=16, rope_theta=256.0, t_scale=1000.0, axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    ).eval()  # fmt: skip
    for name in ("x_pad_token", "cap_pad_token"):  # created without values
        torch.nn.init.normal_(getattr(model, name))
    return model, {
        "x": [torch.randn(16, 1, 2 * ROWS, 2 * COLUMNS) for _ in range(batch)],
        "t": torch.full((batch,), 0.3),
        "cap_feats": [torch.randn(WORDS, 16) for _ in range(batch)],
    }


def tiny_pixart(batch=1):
    """Picture and text in layers of their own."""
    torch.manual_seed(0)
    model = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, norm_num_groups=1,
        cross_attention_dim=16, sample_size=8, patch_size=2, caption_channels=8, use_additional_conditions=False,
    ).eval()  # fmt: skip
    return model, {
        "hidden_states": torch.randn(batch, 4, 2 * ROWS, 2 * COLUMNS),
        "encoder_hidden_states": torch.randn(batch, WORDS, 8),
        "timestep": torch.full((batch,), 300),
        "added_cond_kwargs": {"aspect_ratio": None, "resolution": None},
    }
