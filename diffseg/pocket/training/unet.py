"""The denoiser of pocket-sd: Stable Diffusion v1's UNet with few channels, and its training."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPTextModel, CLIPTokenizer

from ...models.devices import half_precision
from .latents import Latents
from .loop import Ahead, Plan, doublings, gaussian, muon_and_adamw, train
from .non_local_means import NOUN_WIDTH, Attentions, meanings, noise_levels, non_local_means_loss, values_of
from .place_net import SHARED, PlaceNet, places_in
from .places import table_of_nouns
from .vocabulary import POCKET_WORLD, Vocabulary
from .words import choose_prompt, classes_of_tokens, words_loss

#: Cap of the signal-to-noise ratio in the loss (Hang et al. 2023, "min-SNR"): nearly clean latents, where only
#: unpredictable detail is left to learn, would otherwise take most of the gradient.
MAX_SNR = 5.0

#: Beta distribution of the timesteps in training, as parts of the schedule: most often around 0.3, DiffSeg's timestep.
TIMESTEP_BETA = (1.5, 2.5)

#: Weights of the tasks: denoising by the whole network, self-attention as non-local means, nouns in hidden states and
#: nouns in cross-attention.
WEIGHTS = {"denoising": 1.0, "non-local means": 1.0, "probes": 0.5, "words": 0.3}


#: How often a step is made on scenes of the other size, where there is one: seldom enough that most of the training is
#: at the size of use.
OTHER_SIZE_CHANCE = 1 / 3


class Denoiser(nn.Module):
    """UNet and text encoder, trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


class ProbedDenoiser(nn.Module):
    """A denoiser, and linear probes that tell from its hidden states which noun belongs where.

    What is asked of hidden states is learned much sooner than what has to come about by itself (Yu et al. 2025,
    "Representation Alignment for Generation"). The probes are dropped after training.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        first, second, third, last = denoiser.unet.config.block_out_channels
        self.probes = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, channels), nn.Conv2d(channels, NOUN_WIDTH, 1))
            for channels in (second, third, last, last, third, second)
        )

    @contextmanager
    def hidden_states(self) -> Iterator[dict[int, Float[Tensor, "n channels h w"]]]:
        """Filled by the passes inside the `with`: the states that the probes read, by the probe's number."""
        unet, states = self.denoiser.unet, {}

        def keep(number: int, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
            def read(_: nn.Module, given: tuple, output: Tensor | tuple[Tensor]) -> None:
                states[number] = output[0] if isinstance(output, tuple) else output

            return module.register_forward_hook(read)

        modules = [*(block.attentions[-1] for block in unet.down_blocks[1:3]), unet.mid_block]
        modules += [block.resnets[-1] for block in unet.up_blocks[:3]]
        hooks = [keep(number, module) for number, module in enumerate(modules)]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    def probing_loss(self, states: dict[int, Tensor], meaning: Float[Tensor, "n width side side"]) -> Float[Tensor, ""]:
        """Mean squared error of the probes."""
        errors = []
        for number, state in states.items():
            wanted = F.adaptive_avg_pool2d(meaning, state.shape[-1])
            errors.append((self.probes[number](state.float()) - wanted).square().mean())
        return torch.stack(errors).mean()


def build_unet(text_width: int = 64) -> UNet2DConditionModel:
    """Stable Diffusion v1's topology: 16 transformer blocks, 5 + 5 + 5 + 1 on four sides.

    The queries and keys of self-attention start twice as large as usual, which gives attention that already prefers
    some positions over others, and so a gradient.
    """
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(32, 64, 128, 160),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=text_width,
        attention_head_dim=(2, 4, 4, 4),  # the number of heads, as in Stable Diffusion's own configuration
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn1.to_q" in name or "attn1.to_k" in name:
                parameter.mul_(2)
    return unet


def build_scheduler() -> DDPMScheduler:
    """The noise schedule of Stable Diffusion."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def snr_weights(scheduler: DDPMScheduler, timesteps: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weights min(SNR, cap) / SNR of the squared error in the noise."""
    kept = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    return (MAX_SNR * (1 - kept) / kept).clamp(max=1)


@dataclass(frozen=True)
class Drawn:
    """What chance decides about a step before anything is computed."""

    scenes: Int[Tensor, " n"]  # their numbers
    which: int  # of the sizes: 0 `Lessons.latents`, 1 `Lessons.also`
    timesteps: Int[Tensor, " n"]
    tokens: Int[Tensor, "n context"]
    told: Int[Tensor, " told"]  # which prompts are not empty
    classes: Float[Tensor, "told context columns"]  # of their tokens, see `classes_of_tokens`


@dataclass(frozen=True)
class Batch:
    """Noisy scenes with prompts, and what is known of them."""

    clean: Float[Tensor, "n 4 side side"]
    noise: Float[Tensor, "n 4 side side"]
    places: Float[Tensor, "n classes small small"]
    drawn: Drawn


@dataclass(frozen=True)
class Lessons:
    """What a denoiser is trained on.

    Attributes:
        latents: of the scenes, with captions.
        taught: of the same scenes, at the size that `net` was trained on; there may be more of them.
        net: says which noun belongs where.
        tokenizer: of the text encoder.
        vocabulary: the nouns; each caption holds one of them.
        also: of the same scenes, at another size, on which each step is made with the chance `OTHER_SIZE_CHANCE`.
        shared: of the answers of `net`, see `place_net.SHARED`.
    """

    latents: Latents
    taught: Latents
    net: PlaceNet
    tokenizer: CLIPTokenizer
    vocabulary: Vocabulary = POCKET_WORLD
    also: Latents | None = None
    shared: float = SHARED


class Choices(Dataset):
    """What each step is made on, by its number; knows no more than that needs, since worker processes get a copy.

    Args:
        lessons: what the denoiser is trained on.
        batch: scenes per step.
        seed: of all steps; another stream of chance than that of the losses.
    """

    def __init__(self, lessons: Lessons, batch: int, seed: int) -> None:
        self.captions, self.tokenizer, self.vocabulary = lessons.latents.captions, lessons.tokenizer, lessons.vocabulary
        self.two_sizes = lessons.also is not None
        self.batch, self.seed = batch, seed

    def __getitem__(self, step: int) -> Drawn:
        rng = np.random.default_rng([self.seed, step, 1])
        chosen = np.sort(rng.choice(len(self.captions), self.batch, replace=False))
        timesteps = torch.from_numpy((1000 * rng.beta(*TIMESTEP_BETA, self.batch)).astype(np.int64))
        captions = [self.captions[index] for index in chosen]
        prompts = [choose_prompt(caption, self.tokenizer, rng, self.vocabulary) for caption in captions]
        texts = [prompt.text for prompt in prompts]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        told = torch.tensor([index for index, text in enumerate(texts) if text], dtype=torch.int64)
        classes = classes_of_tokens([prompts[index] for index in told], tokens.shape[1], len(self.vocabulary))
        other = self.two_sizes and rng.random() < OTHER_SIZE_CHANCE
        return Drawn(torch.from_numpy(chosen), int(other), timesteps, tokens, told, classes)


class Materials:
    """The latents of lessons on a device, as far as they are needed there again and again.

    Args:
        lessons: what the denoiser is trained on.
        device: where it is trained.

    Raises:
        ValueError: if there are fewer scenes for the teacher than for the denoiser.
    """

    def __init__(self, lessons: Lessons, device: str) -> None:
        self.lessons, self.device, self.scenes = lessons, device, len(lessons.latents.captions)
        if len(lessons.taught.captions) < self.scenes:
            raise ValueError(
                f"lessons.taught has {len(lessons.taught.captions)} scenes, lessons.latents {self.scenes}: "
                "encode as many at both sizes."
            )
        lessons.net.to(device)
        stored = [lessons.latents] if lessons.also is None else [lessons.latents, lessons.also]
        self.sizes = [self._load(latents) for latents in stored]
        sides = [values.shape[-1] for values in self.sizes]
        side = lessons.taught.values.shape[-1]
        self.taught = self.sizes[sides.index(side)] if side in sides else self._load(lessons.taught)
        self.named = table_of_nouns(lessons.latents.captions, lessons.vocabulary).to(device)

    def _load(self, latents: Latents) -> Float[Tensor, "scenes 4 side side"]:
        return torch.from_numpy(np.array(latents.values[: self.scenes])).to(self.device)

    def batch(self, drawn: Drawn, rng: np.random.Generator) -> Batch:
        """The scenes that were drawn, with noise, and which noun belongs where in them."""
        scenes = drawn.scenes.to(self.device)
        clean, asked = (latents[scenes].float() for latents in (self.sizes[drawn.which], self.taught))
        lessons = self.lessons
        places = places_in(lessons.net, asked, self.named[scenes], lessons.vocabulary, lessons.shared)
        return Batch(clean, gaussian(clean.shape, rng, self.device), places, drawn)


def losses(
    model: ProbedDenoiser, batch: Batch, scheduler: DDPMScheduler, rng: np.random.Generator
) -> dict[str, Float[Tensor, ""]]:
    """The loss of each task: denoising, and the three beside it, see `WEIGHTS`; without prompts there are no words.

    Args:
        model: on the device of the batch.
        batch: see `Materials.batch`.
        scheduler: of the model.
        rng: of the noise in values, and of the positions that are asked.
    """
    device, drawn = batch.clean.device, batch.drawn
    timesteps = drawn.timesteps.to(device)
    noisy = scheduler.add_noise(batch.clean, batch.noise, timesteps)
    with half_precision(device.type):
        text = model.denoiser.text_encoder(drawn.tokens.to(device)).last_hidden_state
        with model.hidden_states() as states, Attentions() as kept:
            predicted = model.denoiser.unet(noisy, timesteps, text).sample
    errors = (predicted.float() - batch.noise).square().mean((1, 2, 3))
    meaning = meanings(batch.places)
    values = values_of(batch.clean, F.interpolate(meaning, size=noisy.shape[-2:], mode="bilinear"))
    levels = noise_levels(scheduler, timesteps)
    results = {
        "denoising": (snr_weights(scheduler, timesteps) * errors).mean(),
        "non-local means": non_local_means_loss(kept.self_attention, values, levels, rng),
        "probes": model.probing_loss(states, meaning),
    }
    if len(drawn.told):
        told = drawn.told.to(device)
        layers = [(query[told], key[told]) for query, key in kept.cross_attention]
        results["words"] = words_loss(layers, drawn.classes.to(device), batch.places[told], rng)
    return results


def train_unet(
    denoiser: Denoiser,
    lessons: Lessons,
    folder: Path,
    steps: int,
    batch: int,
    lr_scale: float = 1.0,
    device: str = "cpu",
    seed: int = 0,
    deadline: float = math.inf,
    workers: int = 0,
) -> Denoiser:
    """Train the denoiser on latents of one size, or of two in turn by chance, or go on where it was stopped.

    Args:
        denoiser: changed in place.
        lessons: what it is trained on.
        folder: for checkpoint, log and the snapshots of `doublings`.
        steps: optimiser steps.
        batch: scenes per step.
        lr_scale: factor on the learning rates.
        device: where to train.
        seed: of noise, timesteps and the choice of scenes.
        deadline: see `Plan`.
        workers: processes that prepare steps; 0: this one.

    Raises:
        OutOfTime: see `train`.
    """
    scheduler, materials = build_scheduler(), Materials(lessons, device)
    ahead = Ahead(Choices(lessons, batch, seed), steps, workers)

    def loss(model: ProbedDenoiser, rng: np.random.Generator, step: int) -> Tensor:
        parts = losses(model, materials.batch(ahead.take(step), rng), scheduler, rng)
        return torch.stack([WEIGHTS[task] * value for task, value in parts.items()]).sum()

    probed = ProbedDenoiser(denoiser).to(device)
    optimizers = muon_and_adamw(probed, 0.02 * lr_scale, 1e-3 * lr_scale)
    plan = Plan(steps, ema=0.998, seed=seed, deadline=deadline, snapshots=doublings(steps))
    return train(probed, optimizers, loss, plan, folder).denoiser
