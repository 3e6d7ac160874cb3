"""Which noun belongs where, answered by a network that sees the whole picture.

The answers of `places` come from small neighbourhoods and from colours; where both mislead they are wrong. But another
picture misleads in another way. So a second network, a small U-Net that sees everything, is trained to give the answers
of the first for thousands of pictures. It cannot predict what is wrong by accident, but what is right by rule: it
becomes better than its teacher (Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification").

Still no label and no mask is used.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from .latents import Latents
from .loop import Plan, train
from .pictures import Conversion, store_scenes
from .places import NounNet, draw_mirrored, find_places, share_out, sharpen, table_of_nouns
from .vocabulary import POCKET_WORLD, Vocabulary

#: How far the nouns of a caption are led to their shares of the picture, see `share_out`: without it (0) 0.65 of the
#: positions of things are right on 32 tuning scenes, 0.90 of all; with 0.5 it is 0.80 and 0.91, with 1 0.89 and 0.84.
SHARED = 0.5

#: The file beside a model's parts that holds the network.
PLACES_FILE = "places.safetensors"


class PlaceNet(nn.Module):
    """Logits of the noun that belongs to each position of a latent: a U-Net with three halvings.

    Args:
        classes: how many nouns there are.
        width: channels on the finest grid.
    """

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        pairs = list(zip(widths, widths[1:]))
        self.first = _convolutions(4, width)
        self.down = nn.ModuleList(_convolutions(fine, coarse, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(_convolutions(fine + coarse, fine) for fine, coarse in reversed(pairs))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, latents: Float[Tensor, "n 4 side side"]) -> Float[Tensor, "n classes side side"]:
        states = [self.first(latents)]
        for block in self.down:
            states.append(block(states[-1]))
        state = states.pop()
        for block in self.up:
            enlarged = F.interpolate(state, scale_factor=2, mode="bilinear")
            state = block(torch.cat([states.pop(), enlarged], dim=1))
        return self.last(state)


def _convolutions(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.BatchNorm2d(outputs), nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.SiLU(),
    )  # fmt: skip


@torch.no_grad()
def places_in(
    net: PlaceNet,
    latents: Float[Tensor, "n 4 side side"],
    named: Bool[Tensor, "n classes"],
    vocabulary: Vocabulary = POCKET_WORLD,
) -> Float[Tensor, "n classes side side"]:
    """What `find_places` answers, by the network that sees the whole picture; takes the same arguments."""
    return sharpen(share_out(net(latents).log_softmax(dim=1), named, vocabulary, SHARED))


class _Stored(Dataset):
    """Latents as pictures that can be stored in another form; in place of labels each has a row of nouns."""

    def __init__(self, latents: Latents, named: Bool[Tensor, "n classes"]) -> None:
        self.latents, self.named = latents, named
        self.size = latents.values.shape[-1]
        self.name = f"{self.size}-{len(latents.captions)}"

    def __len__(self) -> int:
        return len(self.latents.captions)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        return self.latents.values[index].astype(np.float32), self.named[index].byte().numpy(), ""


def store_places(
    latents: Latents,
    nouns: NounNet,
    folder: Path,
    deadline: float = math.inf,
    vocabulary: Vocabulary = POCKET_WORLD,
) -> Float[np.ndarray, "scenes classes side side"]:
    """`find_places` for all latents: computed once, then read from disk, in half precision.

    Args:
        latents: with captions.
        nouns: the network that answers.
        folder: for the files; those of other latents or of another network must be elsewhere.
        deadline: value of `time.monotonic()` after which the work stops, to be resumed.
        vocabulary: the nouns.

    Raises:
        OutOfTime: see `store_scenes`.
    """
    scenes = _Stored(latents, table_of_nouns(latents.captions, vocabulary))
    device = next(nouns.parameters()).device

    def convert(values: np.ndarray, named: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        clean, known = torch.from_numpy(values).to(device), torch.from_numpy(named).bool().to(device)
        return find_places(nouns, clean, known, vocabulary).cpu().numpy(), named

    shape = (len(vocabulary), scenes.size, scenes.size)
    conversion = Conversion(convert, shape, (len(vocabulary),), np.float16)
    return store_scenes(scenes, conversion, folder / f"places-{scenes.name}", 32, 0, deadline)[0]


def train_place_net(
    latents: Latents,
    answers: Float[np.ndarray, "scenes classes side side"],
    folder: Path,
    steps: int,
    batch: int,
    device: str = "cpu",
    seed: int = 0,
    deadline: float = math.inf,
) -> PlaceNet:
    """Train the network on the answers of another, or go on where it was stopped.

    Args:
        latents: training scenes; their labels are not used.
        answers: see `store_places`.
        folder: for the checkpoint and the log.
        steps: optimiser steps.
        batch: scenes per step.
        device: where to train.
        seed: of the weights and the choice of scenes.
        deadline: see `Plan`.

    Raises:
        OutOfTime: see `train`.
    """
    torch.manual_seed(seed)
    net = PlaceNet(answers.shape[1]).to(device)

    def loss(model: PlaceNet, rng: np.random.Generator, step: int) -> Tensor:
        _, (clean, wanted) = draw_mirrored(rng, batch, device, latents.values, answers)
        return -(wanted * model(clean).log_softmax(dim=1)).sum(dim=1).mean()

    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    plan = Plan(steps, cooldown=0.6, ema=0.99, seed=seed, deadline=deadline)
    return train(net, [optimizer], loss, plan, folder)


def load_place_net(file: Path) -> PlaceNet:
    """A network that `write_weights` wrote, in single precision, for evaluation.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    weights = load_file(file)
    classes, width = weights["last.weight"].shape[:2]
    net = PlaceNet(classes, width)
    net.load_state_dict(weights)
    return net.eval()
