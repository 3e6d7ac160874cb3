"""The second task of self-attention: the loss by its formula, and what it prefers."""

import numpy as np
import pytest
import torch
from helpers_models import TEXT_WIDTH, TOKENS, tiny_unet

from diffseg.pocket.training import non_local_means
from diffseg.pocket.training.non_local_means import QueriesAndKeys, choose_side, non_local_means_loss

SIDE, HEADS, DIM = 4, 2, 8


def two_halves():
    """Latents of two flat halves, and which half each position is in."""
    clean = torch.ones(1, 4, SIDE, SIDE)
    clean[..., SIDE // 2 :] = -1
    half = torch.arange(SIDE).repeat(SIDE) >= SIDE // 2
    return clean, half


def attention_to(scores):
    """Queries and keys whose attention is the softmax of some scores [positions, positions]."""
    positions = len(scores)
    query = torch.eye(positions).expand(1, HEADS, -1, -1) * positions**0.5  # undoes the division by sqrt(dim)
    return query, scores.T.expand(1, HEADS, -1, -1)


def test_the_loss_is_the_formula(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 4, SIDE, SIDE, generator=generator)
    query, key = torch.randn(2, 2, HEADS, SIDE**2, DIM, generator=generator)
    targets = (clean / clean.std()).flatten(2).mT  # [n, positions, 4]
    noise = torch.from_numpy(np.random.default_rng(5).standard_normal((2, 1, SIDE**2, 4), dtype=np.float32))
    expected = []
    for n in range(2):
        for head in range(HEADS):
            probs = (query[n, head] @ key[n, head].T / DIM**0.5).softmax(-1)
            values = targets[n] + non_local_means.VALUE_NOISE * noise[n, 0]
            expected.append((probs @ values - targets[n]).square().mean())
    result = non_local_means_loss([(query, key)], clean, np.random.default_rng(5))
    torch.testing.assert_close(result, torch.stack(expected).mean())


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
    rng = np.random.default_rng(0)
    losses = {
        name: np.mean([non_local_means_loss([attention_to(scores)], clean, rng).item() for _ in range(50)])
        for name, scores in candidates.items()
    }
    assert min(losses, key=losses.get) == "own half"
    assert losses["own half"] < 0.5 * min(loss for name, loss in losses.items() if name != "own half")


def test_queries_and_keys_of_one_side_are_kept_with_their_gradients():
    unet, latent = tiny_unet(), torch.randn(2, 4, 16, 16)
    text = torch.randn(2, TOKENS, TEXT_WIDTH)
    with QueriesAndKeys(16) as fine:
        expected = unet(latent, 300, text).sample
    with QueriesAndKeys(8) as coarse:
        assert torch.equal(unet(latent, 300, text).sample, expected)
    assert len(fine.layers) == 5 and len(coarse.layers) == 1
    non_local_means_loss(coarse.layers, latent, np.random.default_rng(0)).backward()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    assert attention.to_q.weight.grad.abs().sum() > 0
    assert attention.to_v.weight.grad is None


@pytest.mark.parametrize("side", [32, 64])
def test_every_side_of_the_unet_is_chosen(side):
    rng = np.random.default_rng(0)
    assert {choose_side(side, rng) for _ in range(50)} == {side, side // 2, side // 4, side // 8}
