"""Which noun belongs where, answered by a network that sees the whole picture.

The answers of `places` come from small neighbourhoods and from colours; where both mislead they are wrong. But another
picture misleads in another way. So a second network, a small U-Net that sees everything, is trained to give the answers
of the first for thousands of pictures. It cannot predict what is wrong by accident, but what is right by rule: it
becomes better than its teacher (Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification").
What was learned once can be taught again: to another such network, or, carried to the edges of a larger picture by the
same random walk as in `places`, to one that answers on a finer grid.

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

from ...models.devices import half_precision
from .latents import Latents
from .loop import Plan, train
from .pictures import Conversion, store_scenes
from .places import NounNet, draw_mirrored, find_places, share_out, sharpen, table_of_nouns, walk
from .vocabulary import POCKET_WORLD, Vocabulary

#: How far the nouns of a caption are led to their shares of the picture, see `share_out`, where nothing else is said.
#: 0.5 is best after 800 steps: without it (0) 0.65 of the positions of things are right on 32 tuning scenes, 0.90 of
#: all; with 0.5 it is 0.80 and 0.91, with 1 0.89 and 0.84. After thousands of steps things have their parts without it.
SHARED = 0.5

#: Positions of all scenes of a batch whose answers walk: the table from each to each of one scene has side**4 numbers.
_WALKED = 2**14

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
    shared: float = SHARED,
) -> Float[Tensor, "n classes side side"]:
    """What `find_places` answers, by the network that sees the whole picture.

    Args:
        net: trained.
        latents, named, vocabulary: as `find_places` takes them.
        shared: see `SHARED`.
    """
    return sharpen(share_out(net(latents).log_softmax(dim=1), named, vocabulary, shared))


@torch.no_grad()
def ask(
    teacher: NounNet | PlaceNet,
    small: Float[Tensor, "n 4 half half"],
    latents: Float[Tensor, "n 4 side side"],
    named: Bool[Tensor, "n classes"],
    vocabulary: Vocabulary = POCKET_WORLD,
    shared: float = SHARED,
) -> Float[Tensor, "n classes side side"]:
    """What a teacher says about pictures, on the grid of the larger of two sizes; a walk finds the edges there.

    Args:
        teacher: trained on pictures of the smaller size.
        small, latents: the same pictures in both sizes, which may be one.
        named, vocabulary: see `find_places`.
        shared: see `SHARED`; a network of nouns shares out all it can.
    """
    if isinstance(teacher, NounNet):
        places = find_places(teacher, small, named, vocabulary)
    else:
        places = places_in(teacher, small, named, vocabulary, shared)
    if small.shape == latents.shape:
        return places
    larger = F.interpolate(places, size=latents.shape[-2:], mode="bilinear")
    return sharpen(walk(larger, latents / latents.std()))


class _Numbers(Dataset):
    """The numbers of scenes, in the form of pictures to be stored."""

    def __init__(self, latents: Latents) -> None:
        self.size, self.number = latents.values.shape[-1], len(latents.captions)
        self.name = f"{self.size}-{self.number}"

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        return np.array(index), np.array(index), ""


def store_places(
    latents: Latents,
    teacher: NounNet | PlaceNet,
    folder: Path,
    deadline: float = math.inf,
    vocabulary: Vocabulary = POCKET_WORLD,
    small: Latents | None = None,
    shared: float = SHARED,
) -> Float[np.ndarray, "scenes classes side side"]:
    """A teacher's answers for all latents: computed once, then read from disk, in half precision.

    Args:
        latents: with captions.
        teacher: the network that answers.
        folder: for the files; those of other latents or of another network must be elsewhere.
        deadline: value of `time.monotonic()` after which the work stops, to be resumed.
        vocabulary: the nouns.
        small: of the same scenes, at the size that the teacher was trained on; None: `latents`.
        shared: see `SHARED`.

    Raises:
        OutOfTime: see `store_scenes`.
    """
    named, sizes = table_of_nouns(latents.captions, vocabulary), (small or latents, latents)
    device = next(teacher.parameters()).device

    def convert(numbers: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked, clean = (torch.from_numpy(size.values[numbers]).to(device).float() for size in sizes)
        known = named[torch.from_numpy(numbers)]
        return ask(teacher, asked, clean, known.to(device), vocabulary, shared).cpu().numpy(), known.byte().numpy()

    scenes = _Numbers(latents)
    batch = max(1, _WALKED // scenes.size**2)
    shape = (len(vocabulary), scenes.size, scenes.size)
    conversion = Conversion(convert, shape, (len(vocabulary),), np.float16)
    return store_scenes(scenes, conversion, folder / f"places-{scenes.name}", batch, 0, deadline)[0]


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
        with half_precision(clean.device.type):
            logits = model(clean).float()
        return -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean()

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
