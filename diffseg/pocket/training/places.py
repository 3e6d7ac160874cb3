"""Which noun belongs where in a picture, learned from captions alone.

A caption says what a picture shows, but not where. Nevertheless every position is asked for the whole caption, by a
network that sees no more than 14 of 32 latent positions around it. Of what it sees it can be sure; of everything else
it can only say how often that is there. So the nouns whose probability p rises most above their share q of all captions
are those that the neighbourhood shows. Two measures of the rise are mixed,

    0.8 (log p - log q) + 0.2 (logit p - logit q)

The first favours the rarer nouns, the things; the second counts what must be absent, too, which tells the common
stuff apart.

A noun that the network knows badly would lose everywhere to those that it knows well. But the caption says that it is
there. So each noun is given its share of the picture: a factor for each noun is found with which a thing gets a fixed
part of all positions and the kinds of stuff share the rest alike; where in the picture, the network decides. So
Sinkhorn's iteration balances the clusters of Asano et al. (2020, "Self-labelling via simultaneous clustering"). Where
it is not known which nouns are things, all nouns of a caption share the picture alike.

The answers are coarse. A random walk between positions of like colour carries them to the edges of things, as in
weakly supervised segmentation (Ahn and Kwak 2018, "Learning Pixel-level Semantic Affinity with Image-level
Supervision").

No label and no mask is used: whoever has pictures with captions can do the same.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from ...models.devices import half_precision
from .latents import Latents
from .loop import Plan, train
from .vocabulary import POCKET_WORLD, Vocabulary

#: The file beside a model's parts that holds the network which taught it where nouns belong.
NOUNS_FILE = "nouns.safetensors"

#: Part of the first measure of the rise, see above.
RARENESS = 0.8

#: Distances at which two positions stop being alike: in colour, as parts of the standard deviation of the latents, and
#: in the plane, as parts of a picture's side.
COLOUR_REACH, PLACE_REACH = 0.35, 1 / 4

#: Steps of the random walk, and the chance to walk on in each; otherwise it starts again where it began.
WALK_STEPS, WALK_ON = 10, 0.95

#: The part of a picture that a thing gets, as all things of one noun, before the walk; and how often the factors that
#: give it that much are corrected. A thing takes 0.10 of a scene; a network that sees far also answers around it.
THING_SHARE, CORRECTIONS = 0.18, 20

#: The power of the probabilities after the walk, which makes borders sharp again: DiffSeg in non-local means of places
#: and colours has an mIoU of 0.70 with 4, of 0.62 with 1 (8 tuning scenes).
SHARPNESS = 4


def table_of_nouns(captions: Sequence[str], vocabulary: Vocabulary = POCKET_WORLD) -> Bool[Tensor, "captions classes"]:
    """Whether each caption names each class."""
    table = torch.zeros(len(captions), len(vocabulary), dtype=torch.bool)
    for row, caption in zip(table, captions, strict=True):
        row[list(vocabulary.nouns_in(caption))] = True
    return table


class NounNet(nn.Module):
    """Logits of the nouns of a caption, from the neighbourhood of each second position of a latent.

    Args:
        shares: of all captions that name each class, which is what can be known without a picture.
        width: channels.
    """

    def __init__(self, shares: Float[Tensor, " classes"], width: int = 96) -> None:
        super().__init__()
        # Batch normalisation: any other would let a position see the whole picture, in its mean and variance.
        self.layers = nn.Sequential(
            nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, width, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.SiLU(), nn.Dropout2d(0.1),
            nn.Conv2d(2 * width, 2 * width, 1), nn.SiLU(),
            nn.Conv2d(2 * width, len(shares), 1),
        )  # fmt: skip
        self.register_buffer("shares", shares)

    def forward(self, latents: Float[Tensor, "n 4 side side"]) -> Float[Tensor, "n classes half half"]:
        return self.layers(latents)

    def rise(self, latents: Float[Tensor, "n 4 side side"]) -> Float[Tensor, "n classes half half"]:
        """How much more probable each noun is at a position than in general, see above."""
        logits, prior = self(latents), self.shares.logit()[:, None, None]
        return RARENESS * (F.logsigmoid(logits) - F.logsigmoid(prior)) + (1 - RARENESS) * (logits - prior)


def draw_mirrored(
    rng: np.random.Generator, batch: int, device: str, *maps: Float[np.ndarray, "scenes _ side side"]
) -> tuple[Int[np.ndarray, " batch"], list[Float[Tensor, "batch _ side side"]]]:
    """The numbers of random scenes, and their maps; half of the batches are mirrored: captions do not mention left and
    right."""
    chosen = np.sort(rng.choice(len(maps[0]), batch, replace=False))
    drawn = [torch.from_numpy(values[chosen]).to(device).float() for values in maps]
    return chosen, [values.flip(-1) for values in drawn] if rng.random() < 0.5 else drawn


def train_noun_net(
    latents: Latents,
    folder: Path,
    steps: int,
    batch: int,
    device: str = "cpu",
    seed: int = 0,
    deadline: float = math.inf,
    vocabulary: Vocabulary = POCKET_WORLD,
) -> NounNet:
    """Train the network on latents with captions, or go on where it was stopped.

    Args:
        latents: training scenes; their labels are not used.
        folder: for checkpoint and log.
        steps: optimiser steps.
        batch: scenes per step.
        device: where to train.
        seed: of the weights and the choice of scenes.
        deadline: see `Plan`.
        vocabulary: the nouns.

    Raises:
        OutOfTime: see `train`.
    """
    torch.manual_seed(seed)
    named = table_of_nouns(latents.captions, vocabulary).float()
    net = NounNet(named.mean(dim=0).clamp(0.5 / len(named), 1 - 0.5 / len(named))).to(device)

    def loss(model: NounNet, rng: np.random.Generator, step: int) -> Tensor:
        chosen, (clean,) = draw_mirrored(rng, batch, device, latents.values)
        with half_precision(clean.device.type):
            logits = model(clean).float()
        targets = named[torch.from_numpy(chosen)].to(device)[:, :, None, None].expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, targets)

    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    plan = Plan(steps, warmup=steps // 4, cooldown=0.75, ema=0.99, seed=seed, deadline=deadline)
    return train(net, [optimizer], loss, plan, folder)


def load_noun_net(file: Path) -> NounNet:
    """A network that `write_weights` wrote, in single precision, for evaluation.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    weights = load_file(file)
    net = NounNet(weights["shares"].float(), width=len(weights["layers.2.weight"]))
    net.load_state_dict(weights)
    return net.eval()


def expected_shares(
    named: Bool[Tensor, "n classes"], vocabulary: Vocabulary = POCKET_WORLD
) -> Float[Tensor, "n classes"]:
    """The part of each scene that each of its nouns is given: things a fixed one, stuff alike of the rest; all alike
    where it is not known which are things."""
    if vocabulary.things is None:
        return named / named.sum(dim=1, keepdim=True)
    things = named & torch.tensor([name in vocabulary.things for name in vocabulary.names], device=named.device)
    stuff = named & ~things
    rest = (1 - THING_SHARE * things.sum(dim=1)).clamp_min(THING_SHARE)
    shares = THING_SHARE * things + (rest / stuff.sum(dim=1).clamp_min(1))[:, None] * stuff
    return shares / shares.sum(dim=1, keepdim=True)


def share_out(
    rise: Float[Tensor, "n classes side side"],
    named: Bool[Tensor, "n classes"],
    vocabulary: Vocabulary = POCKET_WORLD,
    part: float = 1.0,
) -> Float[Tensor, "n classes side side"]:
    """The probability of each noun of a caption at each position, with the shares of `expected_shares` on the whole;
    with only a part of the factors that give it so much, on the way to them."""
    scores = rise.masked_fill(~named[:, :, None, None], -math.inf)
    wanted, bias = expected_shares(named, vocabulary), torch.zeros_like(rise[:, :, 0, 0])
    for _ in range(CORRECTIONS if part else 0):
        given = (scores + bias[:, :, None, None]).softmax(dim=1).mean(dim=(2, 3))
        bias = bias + torch.where(named, wanted.log() - given.clamp_min(1e-6).log(), 0)
    return (scores + part * bias[:, :, None, None]).softmax(dim=1)


def sharpen(probability: Float[Tensor, "n classes side side"]) -> Float[Tensor, "n classes side side"]:
    """The power `SHARPNESS` of probabilities, of sum 1 again."""
    powers = probability.pow(SHARPNESS)
    return powers / powers.sum(dim=1, keepdim=True)


def walk(
    start: Float[Tensor, "n classes side side"], latents: Float[Tensor, "n 4 side side"]
) -> Float[Tensor, "n classes side side"]:
    """Where random walks between like positions end: the mean of what the answers are there.

    Args:
        start: an answer for each position.
        latents: of standard deviation 1.
    """
    number, _, _, side = latents.shape
    colours = rearrange(latents, "n c h w -> n (h w) c") / COLOUR_REACH
    places = torch.cartesian_prod(*[torch.arange(side, device=latents.device) / (side * PLACE_REACH)] * 2)
    points = torch.cat([colours, places.expand(number, -1, -1)], dim=-1)
    # Half the squared distance of a and b is |a|^2 / 2 + |b|^2 / 2 - ab, and what depends on a alone drops out.
    lengths = points.square().sum(dim=-1)[:, None]
    transition = torch.baddbmm(lengths, points, points.mT, beta=-0.5).softmax(dim=-1)  # [n, from, to]
    begun = answers = rearrange(start, "n k h w -> n (h w) k")
    for _ in range(WALK_STEPS):
        answers = torch.baddbmm(begun, transition, answers, beta=1 - WALK_ON, alpha=WALK_ON)
    return rearrange(answers, "n (h w) k -> n k h w", h=side)


@torch.no_grad()
def find_places(
    net: NounNet,
    latents: Float[Tensor, "n 4 side side"],
    named: Bool[Tensor, "n classes"],
    vocabulary: Vocabulary = POCKET_WORLD,
) -> Float[Tensor, "n classes side side"]:
    """The probability of each noun of a scene's caption at each position; of nouns that it does not hold 0.

    Args:
        net: trained.
        latents: of clean pictures, of the size that the network was trained on.
        named: see `table_of_nouns`; each caption holds a noun.
        vocabulary: the nouns.
    """
    rise = F.interpolate(net.rise(latents), size=latents.shape[-2:], mode="bilinear")
    return sharpen(walk(share_out(rise, named, vocabulary), latents / latents.std()))
