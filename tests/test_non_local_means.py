"""The second task of self-attention: the loss by its formula, and what it prefers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_models import TEXT_WIDTH, tiny_unet

from diffseg.pocket.training import non_local_means
from diffseg.pocket.training.loop import gaussian
from diffseg.pocket.training.non_local_means import (
    Attentions,
    draw_queries,
    meanings,
    noise_levels,
    non_local_means_loss,
    noun_vectors,
    values_of,
)
from diffseg.pocket.training.unet import build_scheduler

SIDE, HEADS, DIM = 4, 2, 8


def two_halves():
    """Values of two flat halves, and which half each position is in."""
    clean = torch.ones(1, 4, SIDE, SIDE)
    clean[..., SIDE // 2 :] = -1
    half = torch.arange(SIDE).repeat(SIDE) >= SIDE // 2
    return clean, half


def attention_to(scores):
    """Queries and keys whose attention is the softmax of some scores [positions, positions]."""
    positions = len(scores)
    query = torch.eye(positions).expand(1, HEADS, -1, -1) * positions**0.5  # undoes the division by sqrt(dim)
    return query, scores.T.expand(1, HEADS, -1, -1)


def test_the_loss_is_the_formula():
    """On two sides, each with the mean over its layers, whatever the order of the layers."""
    generator = torch.Generator().manual_seed(0)
    values, levels = torch.randn(2, 4, SIDE, SIDE, generator=generator), torch.tensor([0.5, 2.0])
    layers = [torch.randn(2, 2, HEADS, side**2, DIM, generator=generator) for side in (2, SIDE, 2)]
    rng, by_side = np.random.default_rng(5), []
    for side in (SIDE, 2):
        clean = F.avg_pool2d(values, SIDE // side).flatten(2).mT  # [n, positions, 4]
        noise = gaussian((2, 1, side**2, 4), rng, "cpu")
        rng.choice(side**2, side**2, replace=False)  # the positions that are asked: all
        errors = []
        for query, key in (layer for layer in layers if layer.shape[3] == side**2):
            for n, head in np.ndindex(2, HEADS):
                probs = (query[n, head] @ key[n, head].T / DIM**0.5).softmax(-1)
                errors.append((probs @ (clean[n] + levels[n] * noise[n, 0]) - clean[n]).square().mean())
        by_side.append(torch.stack(errors).mean())
    result = non_local_means_loss([tuple(layer) for layer in layers], values, levels, np.random.default_rng(5))
    torch.testing.assert_close(result, torch.stack(by_side).mean(), rtol=1e-4, atol=1e-5)


def test_attention_to_all_of_ones_own_kind_is_best():
    clean, half = two_halves()
    same = half[:, None] == half
    candidates = {
        "own half": 50.0 * same,
        "itself": 50.0 * torch.eye(SIDE**2),
        "everything": torch.zeros(SIDE**2, SIDE**2),
        "one key": 50.0 * (torch.arange(SIDE**2) == 0).float().expand(SIDE**2, -1),
        "the other half": 50.0 * ~same,
    }
    rng, level = np.random.default_rng(0), torch.tensor([1.5])
    losses = {
        name: np.mean([non_local_means_loss([attention_to(scores)], clean, level, rng).item() for _ in range(50)])
        for name, scores in candidates.items()
    }
    assert min(losses, key=losses.get) == "own half"
    assert losses["own half"] < 0.5 * min(loss for name, loss in losses.items() if name != "own half")


def test_with_hardly_any_noise_a_position_is_restored_from_itself():
    clean, half = two_halves()
    mixed = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    kinds, itself = attention_to(50.0 * (half[:, None] == half)), attention_to(50.0 * torch.eye(SIDE**2))
    for level, best in ((0.1, itself), (2.0, kinds)):
        rest = kinds if best is itself else itself
        own, other = (
            non_local_means_loss([layer], mixed, torch.tensor([level]), np.random.default_rng(0))
            for layer in (best, rest)
        )
        assert own < other


def test_noise_in_the_values_follows_the_noise_in_the_input():
    scheduler = build_scheduler()
    levels = noise_levels(scheduler, torch.arange(1000))
    assert levels[300].item() == pytest.approx(non_local_means.VALUE_NOISE)
    assert (levels.diff() >= 0).all()
    assert levels[0].item() == pytest.approx(non_local_means.LEAST_NOISE)
    assert levels[-1].item() == pytest.approx(non_local_means.MOST_NOISE)
    kept = scheduler.alphas_cumprod[torch.tensor([200, 500])]
    ratio = ((1 - kept) / kept).sqrt()
    assert (levels[500] / levels[200]).item() == pytest.approx((ratio[1] / ratio[0]).item())


def test_values_are_colours_and_nouns():
    clean = 3 * torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    places = torch.zeros(2, 5, SIDE, SIDE)
    places[0, 1] = 1
    places[1, 2:4] = 0.5
    meaning, vectors = meanings(places), noun_vectors(5)
    values = values_of(clean, meaning)
    assert values[:, :4].std().item() == pytest.approx(non_local_means.COLOURS)
    torch.testing.assert_close(values[0, 4:, 1, 2], vectors[1])
    torch.testing.assert_close(values[1, 4:, 0, 3], (vectors[2] + vectors[3]) / 2)
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((5,), non_local_means.NOUNS))
    assert torch.pdist(noun_vectors(27)).min() > 0.5 * non_local_means.NOUNS


def test_queries_are_different_positions():
    assert sorted(draw_queries(4, np.random.default_rng(0)).tolist()) == list(range(16))
    drawn = draw_queries(32, np.random.default_rng(0))
    assert len(drawn) == len(drawn.unique()) == non_local_means.QUERIES and drawn.max() < 32**2


def test_queries_and_keys_are_kept_with_their_gradients():
    unet, latent = tiny_unet(), torch.randn(2, 4, 16, 16)
    text = torch.randn(2, 7, TEXT_WIDTH)
    expected = unet(latent, 300, text).sample
    with Attentions() as kept:
        assert torch.equal(unet(latent, 300, text).sample, expected)
    assert len(kept.self_attention) == len(kept.cross_attention) == 6
    assert all(key.shape[2] == 7 for _, key in kept.cross_attention)
    non_local_means_loss(kept.self_attention, latent, torch.ones(2), np.random.default_rng(0)).backward()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    assert attention.to_q.weight.grad.abs().sum() > 0
    assert attention.to_v.weight.grad.abs().sum() > 0  # by the layers after it
    last = unet.up_blocks[-1].attentions[-1].transformer_blocks[0].attn1
    assert last.to_k.weight.grad.abs().sum() > 0 and last.to_v.weight.grad is None
