"""Training pocket-sd's cross-attention and text encoder, after its UNet has been trained to denoise.

A small denoiser learns to ignore its prompt: even in strong noise the mean colour of a region reveals its class, so the
prompt adds little information, and cross-attention gets no gradient. Therefore

- most of a latent's four channels (or mixtures of them) are *hidden* before noise is added, much as if the picture had
  lost its colours. The network still has to predict all of them, and for that it must learn which word belongs to which
  position;
- the *queries are centred*: the mean over all positions is most of their features, and a query made of it attends to
  the same word everywhere;
- the scenes are *painted*: only the caption tells which of the things is the purple one;
- all classes of a scene have the *same weight* in the loss, a duck as much as the sky that fills half of the picture.

Only the cross-attention and the text encoder are trained, both from random weights; the rest of the UNet is frozen. So
that its self-attention does not change either, the old cross-attention is *distilled* into the new one for the empty
prompt.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ...semantics import find_nouns
from .latents import Latents
from .loop import Plan, train
from .unet import Denoiser, build_scheduler

#: How often channels are hidden, and a caption is replaced by the list of its nouns or by the empty prompt.
HIDDEN, LISTED, DROPPED = 0.8, 0.2, 0.1

#: How often the padding after a prompt is masked: most of the attention would otherwise go to it.
MASKED = 0.5

#: Timesteps in training, from the first to before the last: with more noise the shapes of things are gone.
TIMESTEPS = (100, 700)

#: Scenes over which the mean of the queries is computed.
CENTRED = 32


def renew_cross_attention(unet: nn.Module) -> None:
    """Give the cross-attention random weights, in place; it has no effect until it is trained."""
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            for layer in (module.to_q, module.to_k, module.to_v):
                layer.reset_parameters()
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
            with torch.no_grad():  # as in self-attention: attention that is far from uniform is easier to train
                module.to_q.weight.mul_(2)
                module.to_k.weight.mul_(2)


def hide_channels(clean: Float[Tensor, "n channels h w"], rng: np.random.Generator) -> Float[Tensor, "n channels h w"]:
    """Project the channels of most latents onto one or two random directions."""
    channels = clean.shape[1]
    visible = clean.clone()
    for index in np.flatnonzero(rng.random(len(clean)) < HIDDEN):
        directions, _ = np.linalg.qr(rng.normal(size=(channels, rng.integers(1, 3))))
        kept = torch.from_numpy(directions @ directions.T).to(clean)  # [channels, channels], a projection
        visible[index] = torch.einsum("cd, dhw -> chw", kept, clean[index])
    return visible


def list_nouns(caption: str, rng: np.random.Generator) -> str:
    """The nouns of a caption in random order, as `words=[...]` writes them into a prompt."""
    return ", ".join(rng.permutation([noun.word for noun in find_nouns(caption)]))


def choose_prompts(captions: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Captions, some of them replaced by lists of their nouns, some by the empty prompt."""
    chances = rng.random(len(captions))
    return [
        "" if chance < DROPPED else list_nouns(caption, rng) if chance < DROPPED + LISTED else caption
        for caption, chance in zip(captions, chances, strict=True)
    ]


def mask_padding(tokens: Int[Tensor, "n context"], end: int, rng: np.random.Generator) -> Int[Tensor, "n context"]:
    """1 for the tokens that may be attended to: all, or those before the end marker; of empty prompts all."""
    mask = torch.ones_like(tokens)
    for index, row in enumerate(tokens.tolist()):
        length = row.index(end)
        if length > 1 and rng.random() < MASKED:
            mask[index, length:] = 0
    return mask


@dataclass(frozen=True)
class CrossAttentionTeacher:
    """A trained UNet, whose cross-attention for the empty prompt is the target of another one's."""

    unet: UNet2DConditionModel
    null_embedding: Float[Tensor, "1 context width"]  # of the empty prompt

    def to(self, device: str) -> "CrossAttentionTeacher":
        """The same on another device; the UNet is moved in place."""
        return CrossAttentionTeacher(self.unet.to(device), self.null_embedding.to(device))

    def distillation_loss(
        self, denoiser: Denoiser, noisy: Tensor, timesteps: Tensor, empty: Int[Tensor, "1 context"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of the student's cross-attention, on this UNet's features, relative to the target's mean
        square: 1 if its output is 0, 0 if it equals the target.

        Args:
            denoiser: the student.
            noisy, timesteps: inputs of the UNet.
            empty: the tokens of the empty prompt.
        """
        features, targets = {}, {}  # name of the block -> [n, positions, channels]
        hooks = []
        for name, block in _blocks(self.unet).items():
            hooks.append(block.norm2.register_forward_pre_hook(lambda _, args, n=name: features.update({n: args[0]})))
            hooks.append(block.attn2.register_forward_hook(lambda _, args, out, n=name: targets.update({n: out})))
        with torch.no_grad():
            self.unet(noisy, timesteps, self.null_embedding.expand(len(noisy), -1, -1))
        for hook in hooks:
            hook.remove()
        text = denoiser.text_encoder(empty).last_hidden_state.expand(len(noisy), -1, -1)
        errors = []
        for name, block in _blocks(denoiser.unet).items():
            output = block.attn2(block.norm2(features[name]), encoder_hidden_states=text).float()
            errors.append((output - targets[name]).square().mean() / targets[name].float().square().mean())
        return torch.stack(errors).mean()


def teacher_of(denoiser: Denoiser, tokenizer: CLIPTokenizer) -> CrossAttentionTeacher:
    """A frozen copy of a denoiser as it is now, as the teacher of a later one."""
    with torch.no_grad():
        null_embedding = denoiser.text_encoder(_empty(tokenizer).to(denoiser.unet.device)).last_hidden_state
    return CrossAttentionTeacher(copy.deepcopy(denoiser.unet).requires_grad_(False).eval(), null_embedding)


def centre_queries(denoiser: Denoiser, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> None:
    """Subtract the mean of the features before cross-attention, by the bias of their layer norms, in place."""
    norms = [block.norm2 for block in _blocks(denoiser.unet).values()]
    means = {}

    def measure(norm: nn.Module, _: object, features: Float[Tensor, "n positions channels"]) -> None:
        means[norm] = features.float().mean(dim=(0, 1))

    hooks = [norm.register_forward_hook(measure) for norm in norms]
    with torch.no_grad():
        denoiser(noisy, timesteps, tokens)
        for hook, norm in zip(hooks, norms, strict=True):
            hook.remove()
            norm.bias.sub_(means[norm])


def optimizers_for_words(denoiser: Denoiser) -> list[torch.optim.Optimizer]:
    """Freeze everything but cross-attention and text encoder, and optimise these.

    Muon for the matrices of cross-attention, as for the rest of the UNet before, but slower for queries and keys: with
    long steps each head soon attends to one token only. AdamW for the text encoder, whose tokens Muon makes alike.
    """
    chosen = {"query": [], "value": [], "bias": [], "text": []}
    for name, parameter in denoiser.requires_grad_(False).named_parameters():
        kind = (
            "text" if name.startswith("text_encoder")
            else "" if "attn2" not in name
            else "query" if "to_q" in name or "to_k" in name
            else "bias" if parameter.ndim == 1
            else "value"
        )  # fmt: skip
        if kind:
            chosen[kind].append(parameter.requires_grad_(True))
    betas = (0.9, 0.98)
    return [
        torch.optim.Muon(chosen["query"], lr=0.006, momentum=0.95, weight_decay=0.01),
        torch.optim.Muon(chosen["value"], lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(chosen["bias"], lr=2e-3, betas=betas, weight_decay=0.01),
        torch.optim.AdamW(chosen["text"], lr=3e-4, betas=betas, weight_decay=0.01),
    ]


def class_balanced_weights(labels: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Weights of the positions with which every class of a scene has the same sum; their mean is 1."""
    weights = torch.zeros(labels.shape)
    for row, classes in zip(weights, labels, strict=True):
        _, inverse, counts = classes.unique(return_inverse=True, return_counts=True)
        row.copy_((classes.numel() / (len(counts) * counts))[inverse])
    return weights


def clean_latent_error(
    scheduler: DDPMScheduler, clean: Tensor, noisy: Tensor, timesteps: Tensor, predicted: Tensor
) -> Float[Tensor, "n h w"]:
    """Mean squared error, over the channels, of the clean latent that follows from the predicted noise."""
    kept = scheduler.alphas_cumprod.to(clean.device)[timesteps][:, None, None, None]
    return ((noisy - (1 - kept).sqrt() * predicted) / kept.sqrt() - clean).square().mean(dim=1)


def train_words(
    denoiser: Denoiser,
    tokenizer: CLIPTokenizer,
    teacher: CrossAttentionTeacher,
    latents: Latents,
    folder: Path,
    steps: int,
    batch: int,
    device: str = "cpu",
    seed: int = 0,
    deadline: float = math.inf,
) -> Denoiser:
    """Train cross-attention and text encoder, or go on where it was stopped.

    Args:
        denoiser: a trained UNet and a new text encoder; changed in place.
        tokenizer: of the text encoder.
        teacher: the same UNet with the text encoder that it was trained with.
        latents: training scenes with captions.
        folder: for checkpoint and log; the loss is the weighted error in the clean latents plus the distillation loss.
        steps: optimiser steps.
        batch: scenes per step.
        device: where to train.
        seed: of the new weights, noise, timesteps and the choice of scenes.
        deadline: see `Plan`.

    Raises:
        OutOfTime: see `train`.
    """
    scheduler = build_scheduler()
    torch.manual_seed(seed)
    renew_cross_attention(denoiser.unet)
    denoiser.to(device)
    teacher = teacher.to(device)
    empty = _empty(tokenizer).to(device)

    def draw(rng: np.random.Generator, number: int) -> tuple[Tensor, ...]:
        """clean, weights, noisy, timesteps, tokens"""
        clean, labels, captions = latents.sample(rng, number)
        weights = class_balanced_weights(labels)
        if rng.random() < 0.5:  # captions do not mention left and right
            clean, weights = clean.flip(-1), weights.flip(-1)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        timesteps = torch.from_numpy(rng.integers(*TIMESTEPS, number))
        noisy = scheduler.add_noise(hide_channels(clean, rng), noise, timesteps)
        prompts = choose_prompts(captions, rng)
        tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return tuple(tensor.to(device) for tensor in (clean, weights, noisy, timesteps, tokens))

    def loss(model: Denoiser, rng: np.random.Generator, step: int) -> Tensor:
        clean, weights, noisy, timesteps, tokens = draw(rng, batch)
        mask = mask_padding(tokens, tokenizer.eos_token_id, rng)
        with torch.autocast(device, torch.bfloat16):
            predicted = model(noisy, timesteps, tokens, mask).float()
            half = slice(max(batch // 2, 1))  # enough for distillation; no channel of these is hidden
            noise = torch.from_numpy(rng.standard_normal(clean[half].shape, dtype=np.float32)).to(device)
            unhidden = scheduler.add_noise(clean[half], noise, timesteps[half])
            distillation = teacher.distillation_loss(model, unhidden, timesteps[half], empty)
        return (weights * clean_latent_error(scheduler, clean, noisy, timesteps, predicted)).mean() + distillation

    _, _, *inputs = draw(np.random.default_rng([seed, steps]), min(CENTRED, len(latents.captions)))
    centre_queries(denoiser, *inputs)
    plan = Plan(steps, ema=0.998, seed=seed, deadline=deadline)
    return train(denoiser, optimizers_for_words(denoiser), loss, plan, folder)


def _blocks(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """The transformer blocks by name."""
    return {name: module for name, module in unet.named_modules() if hasattr(module, "attn2")}


def _empty(tokenizer: CLIPTokenizer) -> Int[Tensor, "1 context"]:
    return tokenizer([""], padding="max_length", return_tensors="pt").input_ids
