"""Small Stable-Diffusion-like models with random weights, built in a moment."""

import json

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
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


def tiny_text_encoder(width=TEXT_WIDTH, vocabulary=64):
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            eos_token_id=1,
        )
    ).eval()


def tiny_tokenizer(folder):
    """A CLIP tokenizer that knows letters and no merges."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: index for index, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=TOKENS)


def tiny_components(folder):
    """Everything that `DiffSegPipeline` takes; the folder is for the tokenizer's files."""
    return {
        "vae": tiny_vae(),
        "text_encoder": tiny_text_encoder(),
        "tokenizer": tiny_tokenizer(folder),
        "unet": tiny_unet(),
        "scheduler": DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
        ),
    }
