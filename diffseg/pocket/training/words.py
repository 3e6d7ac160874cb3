"""Teaching pocket-sd what words mean, after its UNet has learned to see.

A small denoiser learns to do without its prompt: even in strong noise the mean colour of a region shows what it is, so
there is little left to ask the words for, and cross-attention learns nothing. Therefore

- most of a latent's four channels (or mixtures of them) are *hidden* before noise is added, much as if the picture had
  lost its colours. The network still has to give all of them back, and for that it must find out which word speaks of
  which place;
- the *queries are centred*: what all places have in common is most of their features, and a query made of it asks for
  the same word everywhere;
- the scenes are *painted*: only the caption says which of the things is the purple one;
- all classes of a scene *count the same*, a duck as much as the sky that fills half of the picture.

Only the cross-attention and the text encoder are trained, both from nothing; the rest of the UNet stays as it is. So
that its self-attention stays what it was, too, cross-attention learns to do for the empty prompt what it did before.
"""

import copy
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

#: How often the attention to the padding after a prompt is masked: it would otherwise take all of it.
UNPADDED = 0.5

#: Timesteps in training, from the first to before the last: with more noise the shapes of things are gone.
TIMES = (100, 700)

#: Scenes from which the common part of the queries is measured.
MEASURED = 32


def renew_cross_attention(unet: nn.Module) -> None:
    """Give the cross-attention random weights, in place; it has no effect until it is trained."""
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            for layer in (module.to_q, module.to_k, module.to_v):
                layer.reset_parameters()
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
            with torch.no_grad():  # as in self-attention: attention that prefers something is easier to train
                module.to_q.weight.mul_(2)
                module.to_k.weight.mul_(2)


def hide_channels(clean: Float[Tensor, "n channels h w"], rng: np.random.Generator) -> Float[Tensor, "n channels h w"]:
    """Leave one or two random directions of the channels of most latents, and 0 in all others."""
    channels = clean.shape[1]
    seen = clean.clone()
    for index in np.flatnonzero(rng.random(len(clean)) < HIDDEN):
        directions, _ = np.linalg.qr(rng.normal(size=(channels, rng.integers(1, 3))))
        kept = torch.from_numpy(directions @ directions.T).to(clean)  # [channels, channels], a projection
        seen[index] = torch.einsum("cd, dhw -> chw", kept, clean[index])
    return seen


def list_nouns(caption: str, rng: np.random.Generator) -> str:
    """The nouns of a caption in random order, as `words=[...]` writes them into a prompt."""
    return ", ".join(rng.permutation([noun.word for noun in find_nouns(caption)]))


def choose_prompts(captions: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Captions, some of them as lists of nouns, some left out."""
    chances = rng.random(len(captions))
    return [
        "" if chance < DROPPED else list_nouns(caption, rng) if chance < DROPPED + LISTED else caption
        for caption, chance in zip(captions, chances, strict=True)
    ]


def mask_padding(tokens: Int[Tensor, "n context"], end: int, rng: np.random.Generator) -> Int[Tensor, "n context"]:
    """1 for the tokens that may be looked at: all, or those before the end marker; of empty prompts all."""
    mask = torch.ones_like(tokens)
    for index, row in enumerate(tokens.tolist()):
        length = row.index(end)
        if length > 1 and rng.random() < UNPADDED:
            mask[index, length:] = 0
    return mask


@dataclass(frozen=True)
class Habit:
    """What cross-attention does for the empty prompt, before it is trained anew."""

    unet: UNet2DConditionModel
    silence: Float[Tensor, "1 context width"]  # the text encoder's answer to the empty prompt

    def error(
        self, denoiser: Denoiser, noisy: Tensor, timesteps: Tensor, empty: Int[Tensor, "1 context"]
    ) -> Float[Tensor, ""]:
        """How far another cross-attention is from it, on what this UNet sees: 1 if it does nothing, 0 if the same."""
        seen, done = {}, {}
        hooks = []
        for name, block in _blocks(self.unet).items():
            hooks.append(block.norm2.register_forward_pre_hook(lambda _, given, n=name: seen.update({n: given[0]})))
            hooks.append(block.attn2.register_forward_hook(lambda _, given, out, n=name: done.update({n: out})))
        with torch.no_grad():
            self.unet(noisy, timesteps, self.silence.expand(len(noisy), -1, -1))
        for hook in hooks:
            hook.remove()
        text = denoiser.text_encoder(empty).last_hidden_state.expand(len(noisy), -1, -1)
        errors = []
        for name, block in _blocks(denoiser.unet).items():
            new = block.attn2(block.norm2(seen[name]), encoder_hidden_states=text).float()
            errors.append((new - done[name]).square().mean() / done[name].float().square().mean())
        return torch.stack(errors).mean()


def remember(denoiser: Denoiser, tokenizer: CLIPTokenizer) -> Habit:
    """The habit of a denoiser as it is now."""
    with torch.no_grad():
        silence = denoiser.text_encoder(_empty(tokenizer).to(denoiser.unet.device)).last_hidden_state
    return Habit(copy.deepcopy(denoiser.unet).requires_grad_(False).eval(), silence)


def centre_queries(denoiser: Denoiser, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> None:
    """Take off what the features before cross-attention have in common, by the bias of their layer norms, in place."""
    norms = [block.norm2 for block in _blocks(denoiser.unet).values()]
    means = {}

    def measure(norm: nn.Module, _: object, features: Float[Tensor, "n places channels"]) -> None:
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
    long steps each head soon looks at one token only. AdamW for the text encoder, whose tokens Muon makes alike.
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


def even_weights(labels: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Weights of the places with which every class of a scene has the same sum; their mean is 1."""
    weights = torch.zeros(labels.shape)
    for row, places in zip(weights, labels, strict=True):
        _, inverse, counts = places.unique(return_inverse=True, return_counts=True)
        row.copy_((places.numel() / (len(counts) * counts))[inverse])
    return weights


def clean_error(
    scheduler: DDPMScheduler, clean: Tensor, noisy: Tensor, timesteps: Tensor, predicted: Tensor
) -> Float[Tensor, "n h w"]:
    """Mean squared error, over the channels, of the clean latent that follows from the predicted noise."""
    kept = scheduler.alphas_cumprod.to(clean.device)[timesteps][:, None, None, None]
    return ((noisy - (1 - kept).sqrt() * predicted) / kept.sqrt() - clean).square().mean(dim=1)


def train_words(
    denoiser: Denoiser,
    tokenizer: CLIPTokenizer,
    habit: Habit,
    latents: Latents,
    folder: Path,
    steps: int,
    batch: int,
    device: str = "cpu",
    seed: int = 0,
) -> Denoiser:
    """Train cross-attention and text encoder, or go on where it was stopped.

    Args:
        denoiser: a trained UNet and a new text encoder; changed in place.
        tokenizer: of the text encoder.
        habit: of the same UNet with the text encoder that it was trained with.
        latents: training scenes with captions.
        folder: for checkpoint and log; the loss is the weighted error in the clean latents plus that of the habit.
        steps: optimiser steps.
        batch: scenes per step.
        device: where to train.
        seed: of the new weights, noise, timesteps and the choice of scenes.
    """
    scheduler = build_scheduler()
    torch.manual_seed(seed)
    renew_cross_attention(denoiser.unet)
    denoiser.to(device)
    habit = Habit(habit.unet.to(device), habit.silence.to(device))
    empty = _empty(tokenizer).to(device)

    def draw(rng: np.random.Generator, number: int) -> tuple[Tensor, ...]:
        """clean, weights, noisy, timesteps, tokens"""
        clean, labels, captions = latents.sample(rng, number)
        weights = even_weights(labels)
        if rng.random() < 0.5:  # no caption speaks of left and right
            clean, weights = clean.flip(-1), weights.flip(-1)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        timesteps = torch.from_numpy(rng.integers(*TIMES, number))
        noisy = scheduler.add_noise(hide_channels(clean, rng), noise, timesteps)
        prompts = choose_prompts(captions, rng)
        tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return tuple(tensor.to(device) for tensor in (clean, weights, noisy, timesteps, tokens))

    def loss(model: Denoiser, rng: np.random.Generator, step: int) -> Tensor:
        clean, weights, noisy, timesteps, tokens = draw(rng, batch)
        mask = mask_padding(tokens, tokenizer.eos_token_id, rng)
        with torch.autocast(device, torch.bfloat16):
            predicted = model(noisy, timesteps, tokens, mask).float()
            few = slice(max(batch // 2, 1))
            noise = torch.from_numpy(rng.standard_normal(clean[few].shape, dtype=np.float32)).to(device)
            usual = scheduler.add_noise(clean[few], noise, timesteps[few])
            strayed = habit.error(model, usual, timesteps[few], empty)
        return (weights * clean_error(scheduler, clean, noisy, timesteps, predicted)).mean() + strayed

    _, _, *given = draw(np.random.default_rng([seed, steps]), min(MEASURED, len(latents.captions)))
    centre_queries(denoiser, *given)
    return train(denoiser, optimizers_for_words(denoiser), loss, Plan(steps, ema=0.998, seed=seed), folder)


def _blocks(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """The transformer blocks by name."""
    return {name: module for name, module in unet.named_modules() if hasattr(module, "attn2")}


def _empty(tokenizer: CLIPTokenizer) -> Int[Tensor, "1 context"]:
    return tokenizer([""], padding="max_length", return_tensors="pt").input_ids
