"""Models of diffusers as a single file with the names of the original code, in which most models are handed on."""

import torch
from safetensors.torch import save_file

_IN_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_IN_AUTOENCODER = {
    "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut", "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1", "group_norm": "norm", "to_q": "q",
    "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip
_IN_OPEN_CLIP = {
    "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "fc1": "c_fc",
    "fc2": "c_proj", "self_attn": "attn", "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding", "embeddings.position_embedding.weight": "positional_embedding",
}  # fmt: skip


def save_original(file, unet, vae, text_encoder, text_encoder_2=None, **unused):
    """A .safetensors of Stable Diffusion v1 or, with a second text encoder, XL."""
    clip = "conditioner.embedders.0" if text_encoder_2 else "cond_stage_model"
    weights = {
        **_with_prefix("model.diffusion_model.", _unet(unet)),
        **_with_prefix("first_stage_model.", _autoencoder(vae)),
        **_with_prefix(f"{clip}.transformer.text_model.", _without("text_model.", text_encoder.state_dict())),
    }
    if text_encoder_2:
        weights |= _with_prefix("conditioner.embedders.1.model.", _open_clip(text_encoder_2))
    save_file({name: weight.contiguous().clone() for name, weight in weights.items()}, file)


def _with_prefix(prefix, weights):
    return {prefix + name: weight for name, weight in weights.items()}


def _without(prefix, weights):
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _replaced(text, names):
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _unet(unet):
    """Blocks are numbered through all resolutions, in one list for the way down and one for the way up."""
    names = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }  # fmt: skip
    number = 0
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            number += 1
            names[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
            names[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
        if block.downsamplers:
            number += 1
            names[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
    number = -1
    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            number += 1
            names[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{number}.0"
            names[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{number}.1"
        names[f"up_blocks.{i}.upsamplers.0"] = f"output_blocks.{number}.{1 + hasattr(block, 'attentions')}"
    renamed = {}
    for name, weight in unet.state_dict().items():
        (old,) = [old for old in names if name.startswith(old + ".")]
        rest = name.removeprefix(old)
        renamed[names[old] + (_replaced(rest, _IN_RESNET) if ".resnets." in old else rest)] = weight
    return renamed


def _autoencoder(vae):
    """The way up is numbered from the finest resolution; attention is by convolutions of one pixel."""
    last = len(vae.config.up_block_types) - 1
    numbers = {
        **{f"down_blocks.{i}.": f"down.{i}." for i in range(last + 1)},
        **{f"up_blocks.{i}.": f"up.{last - i}." for i in range(last + 1)},
        "resnets": "block", "downsamplers.0": "downsample", "upsamplers.0": "upsample",
    }  # fmt: skip
    renamed = {_replaced(_replaced(name, _IN_AUTOENCODER), numbers): w for name, w in vae.state_dict().items()}
    return {name: w[:, :, None, None] if ".attn_1." in name and w.ndim == 2 else w for name, w in renamed.items()}


def _open_clip(encoder):
    """Query, key and value are one matrix; the projection is transposed."""
    renamed = {
        _replaced(name, _IN_OPEN_CLIP): weight for name, weight in _without("text_model.", encoder.state_dict()).items()
    }
    for name in [name for name in renamed if ".q_proj." in name]:
        joined = torch.cat([renamed.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"])
        renamed[name.replace("q_proj.", "in_proj_")] = joined
    renamed["text_projection"] = renamed.pop("text_projection.weight").T
    return renamed
