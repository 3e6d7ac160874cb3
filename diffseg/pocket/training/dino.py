"""pocket-dino: a small vision transformer that learns from scenes without labels, as DINO does, and its training.

The inputs of the student are many crops of a scene, large (global) and small (local) ones; those of the teacher, whose
weights are the moving average of the student's, are the global ones only. The student's output for each crop has to be
the teacher's for another one (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers").
"""

import copy
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from ...models.devices import half_precision
from .loop import Plan, average, muon_and_adamw, train
from .pictures import Pictures

SIDE, PATCH, WIDTH, LAYERS, HEADS = 224, 8, 192, 6, 4

#: Dimensions of the output: the similarity of a crop to each of so many learned prototypes.
PROTOTYPES = 1024
HIDDEN, BOTTLENECK = 512, 128  # widths between the class token and the prototypes

#: A low temperature makes the teacher's distributions peaked ("sharpening"): uniform ones are then no solution.
#: Half of DINO's 0.04, with which a short training drifts towards just that.
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.02

#: Decay, per step, of the teacher's mean output. It is subtracted ("centring"): one prototype for all is no solution.
CENTRE_DECAY = 0.9

#: Decay of the teacher at the first step; it rises to 1. DINO's own 0.996 is meant for far more steps.
TEACHER_DECAY = 0.99

#: Crops of a scene: how many, and which share of its area they cover.
GLOBAL_CROPS, LOCAL_CROPS = 2, 4
GLOBAL_SCALE, LOCAL_SCALE = (0.4, 1.0), (0.05, 0.4)

#: Side of the local crops, as a fraction of that of the global ones: DINO's 96 of 224 pixels.
LOCAL_SIDE = (3, 7)

#: How far brightness, contrast and saturation are turned up or down, and how many crops become grey: the class of a
#: thing does not depend on its colour.
JITTER, GREY = 0.4, 0.2

#: Amplitude of the position embeddings at the start.
POSITION_AMPLITUDE = 0.3


def build_vit() -> ViTModel:
    """DINO's architecture with few layers and random weights, 2.9 M parameters.

    Weights start with the variance that keeps that of the activations, not with the usual 0.02, which is meant for
    wider models, and queries and keys twice as large: attention then prefers some positions over others from the
    start, which gives a gradient. Position embeddings start as sine waves, so that near patches are alike, and the
    table can be shrunk for smaller crops.
    """
    vit = ViTModel(
        ViTConfig(
            image_size=SIDE,
            patch_size=PATCH,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            layer_norm_eps=1e-6,
            initializer_range=WIDTH**-0.5,
        ),
        add_pooling_layer=False,
    )
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(2)
        vit.embeddings.position_embeddings[0, 1:] = POSITION_AMPLITUDE * get_2d_sincos_pos_embed(WIDTH, SIDE // PATCH)
    return vit


def build_processor() -> ViTImageProcessorPil:
    """To SIDE pixels and from -1 to 1."""
    return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


class ProjectionNetwork(nn.Module):
    """The transformer, and a head that compares its class token with the prototypes; the head is dropped later."""

    def __init__(self, vit: ViTModel) -> None:
        super().__init__()
        self.vit = vit
        self.head = nn.Sequential(
            nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK)
        )
        self.prototypes = nn.Linear(BOTTLENECK, PROTOTYPES, bias=False)

    def forward(self, pixels: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n prototypes"]:
        """Cosines between crops and prototypes, float32: they will be divided by low temperatures."""
        with half_precision(pixels.device.type):
            tokens = self.vit(pixels, interpolate_pos_encoding=True).last_hidden_state  # [n, 1 + patches, width]
        projected = self.head(tokens[:, 0].float())  # [n, bottleneck]
        return F.linear(F.normalize(projected, dim=-1), F.normalize(self.prototypes.weight, dim=-1))


class Distillation(nn.Module):
    """A student, its teacher, and the mean of the teacher's outputs."""

    def __init__(self, vit: ViTModel) -> None:
        super().__init__()
        self.student = ProjectionNetwork(vit)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centre = nn.Parameter(torch.zeros(PROTOTYPES), requires_grad=False)

    def update_teacher(self, decay: float) -> None:
        """Move the teacher's weights towards the student's."""
        average(self.teacher, self.student, decay)

    def forward(
        self, large: Float[Tensor, "large n 3 side side"], small: Float[Tensor, "small n 3 smaller smaller"]
    ) -> Float[Tensor, ""]:
        """The loss of global and local crops; updates the centre."""
        count = large.shape[1]
        with torch.no_grad():
            teacher = self.teacher(large.flatten(0, 1))  # [large * n, prototypes]
        student = torch.cat([self.student(crops.flatten(0, 1)) for crops in (large, small)])
        loss = distillation_loss(student.unflatten(0, (-1, count)), teacher.unflatten(0, (-1, count)), self.centre)
        with torch.no_grad():
            self.centre.lerp_(teacher.mean(dim=0), 1 - CENTRE_DECAY)
        return loss


def distillation_loss(
    student: Float[Tensor, "views n prototypes"],
    teacher: Float[Tensor, "large n prototypes"],
    centre: Float[Tensor, " prototypes"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the student's distributions with the teacher's, over all pairs of different crops of a scene.

    Args:
        student: outputs for all crops, the global ones first.
        teacher: outputs for the global ones.
        centre: the teacher's mean output.
    """
    targets = ((teacher - centre) / TEACHER_TEMPERATURE).softmax(dim=-1)
    logs = (student / STUDENT_TEMPERATURE).log_softmax(dim=-1)
    losses = -torch.einsum("tnk,snk->ts", targets, logs) / student.shape[1]  # [large, views]
    different = ~torch.eye(*losses.shape, dtype=torch.bool, device=losses.device)
    return losses[different].mean()


def teacher_decay(step: int, steps: int) -> float:
    """From TEACHER_DECAY to 1 on a half cosine."""
    return 1 - (1 - TEACHER_DECAY) * (1 + math.cos(math.pi * step / steps)) / 2


def random_crop(
    picture: Float[Tensor, "3 whole whole"], share: tuple[float, float], size: int, rng: np.random.Generator
) -> Float[Tensor, "3 {size} {size}"]:
    """A random square that covers some share of the picture's area, resized; mirrored half of the time."""
    whole = picture.shape[-1]
    side = round(whole * math.sqrt(rng.uniform(*share)))
    top, left = rng.integers(whole - side + 1, size=2)
    square = picture[None, :, top : top + side, left : left + side]
    resized = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.flip(-1) if rng.random() < 0.5 else resized


def jitter_colours(crops: Float[Tensor, "n 3 h w"], rng: np.random.Generator) -> Float[Tensor, "n 3 h w"]:
    """Change brightness, contrast and saturation of crops from 0 to 1; some become grey."""
    factors = rng.uniform(1 - JITTER, 1 + JITTER, (3, len(crops)))
    factors[2, rng.random(len(crops)) < GREY] = 0
    brightness, contrast, saturation = torch.from_numpy(factors).to(crops)[:, :, None, None, None]
    crops = crops * brightness
    mean = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = mean + contrast * (crops - mean)
    grey = crops.mean(dim=1, keepdim=True)
    return (grey + saturation * (crops - grey)).clamp(0, 1)


def views(
    pictures: Float[Tensor, "n 3 whole whole"],
    number: int,
    share: tuple[float, float],
    size: int,
    rng: np.random.Generator,
) -> Float[Tensor, "{number} n 3 {size} {size}"]:
    """Some recoloured crops of each picture, from -1 to 1."""
    crops = torch.stack([random_crop(picture, share, size, rng) for _ in range(number) for picture in pictures])
    return (2 * jitter_colours(crops, rng) - 1).unflatten(0, (number, len(pictures)))


def train_dino(
    distillation: Distillation,
    pictures: Pictures,
    folder: Path,
    size: int,
    steps: int,
    batch: int,
    lr_scale: float = 1.0,
    device: str = "cpu",
    deadline: float = math.inf,
) -> Distillation:
    """Train the student and its teacher, or go on where it was stopped.

    Args:
        distillation: changed in place.
        pictures: training scenes, larger than `size`.
        folder: for checkpoint and log.
        size: side of the global crops, pixels.
        steps: optimiser steps.
        batch: scenes per step.
        lr_scale: factor on the learning rates.
        device: where to train.
        deadline: see `Plan`.

    Raises:
        OutOfTime: see `train`.
        ValueError: if the crops cannot be cut into whole patches.
    """
    part, of = LOCAL_SIDE
    if size < 1 or size % (PATCH * of):
        raise ValueError(f"size={size} must be a positive multiple of {PATCH * of}, such as {SIDE}.")
    distillation.to(device).student.requires_grad_(True)

    def loss(model: Distillation, rng: np.random.Generator, step: int) -> Tensor:
        model.update_teacher(teacher_decay(step, steps))
        images, _, _ = pictures.sample(rng, batch)
        pixels = rearrange(torch.from_numpy(images).to(device), "n h w c -> n c h w") / 255
        large = views(pixels, GLOBAL_CROPS, GLOBAL_SCALE, size, rng)
        small = views(pixels, LOCAL_CROPS, LOCAL_SCALE, size * part // of, rng)
        return model(large, small)

    optimizers = muon_and_adamw(distillation, 0.003 * lr_scale, 5e-4 * lr_scale)
    # The teacher is an average already: no other one.
    plan = Plan(steps, warmup=steps // 10, ema=0.0, seed=size, deadline=deadline)
    return train(distillation, optimizers, loss, plan, folder)
