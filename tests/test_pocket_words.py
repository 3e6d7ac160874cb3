"""How pocket-sd learns words: which channels are hidden, which prompts are given, and which weights are trained."""

import copy

import numpy as np
import pytest
import torch

from diffseg.pocket import scene
from diffseg.pocket.training.latents import Latents
from diffseg.pocket.training.text import CONTEXT, build_text_encoder, build_tokenizer
from diffseg.pocket.training.unet import Denoiser, build_scheduler, build_unet
from diffseg.pocket.training.words import (
    centre_queries,
    choose_prompts,
    class_balanced_weights,
    clean_latent_error,
    hide_channels,
    list_nouns,
    mask_padding,
    optimizers_for_words,
    renew_cross_attention,
    teacher_of,
    train_words,
)

CAPTIONS = [scene(seed, 64).caption for seed in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CAPTIONS)


@pytest.fixture(scope="module")
def untrained(tokenizer):
    torch.manual_seed(0)
    return Denoiser(build_unet(), build_text_encoder(tokenizer))


@pytest.fixture
def denoiser(untrained):
    return copy.deepcopy(untrained)


def tokens_of(tokenizer, prompts):
    return tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids


def test_hidden_latents_are_projections_onto_one_or_two_directions():
    clean = torch.randn(400, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    visible = hide_channels(clean, np.random.default_rng(0))
    ranks = torch.linalg.matrix_rank(visible.flatten(2), rtol=1e-4).tolist()
    assert set(ranks) == {1, 2, 4}
    assert ranks.count(4) / 400 == pytest.approx(0.2, abs=0.06)
    assert ranks.count(1) / 400 == pytest.approx(0.4, abs=0.08)
    # what is left is orthogonal to what is hidden
    torch.testing.assert_close((visible * (clean - visible)).sum((1, 2, 3)), torch.zeros(400), atol=1e-4, rtol=0)
    whole = [index for index, rank in enumerate(ranks) if rank == 4]
    assert torch.equal(visible[whole], clean[whole])


def test_lists_hold_the_nouns_of_a_caption_in_any_order():
    caption = "Two sheep and a red car on the grass in front of a brick wall"
    lists = {list_nouns(caption, np.random.default_rng(seed)) for seed in range(30)}
    assert {frozenset(one.split(", ")) for one in lists} == {frozenset({"sheep", "car", "grass", "brick wall"})}
    assert len(lists) > 5


def test_prompts_are_captions_lists_or_empty():
    prompts = choose_prompts(["A dog on the grass"] * 3000, np.random.default_rng(0))
    shares = {prompt: prompts.count(prompt) / 3000 for prompt in set(prompts)}
    assert shares.keys() == {"A dog on the grass", "dog, grass", "grass, dog", ""}
    assert shares[""] == pytest.approx(0.1, abs=0.02)
    assert shares["dog, grass"] + shares["grass, dog"] == pytest.approx(0.2, abs=0.03)


def test_masks_hide_padding_only_and_never_all(tokenizer):
    prompts = ["a red car", "", "a dog on the grass"] * 100
    tokens = tokens_of(tokenizer, prompts)
    mask = mask_padding(tokens, tokenizer.eos_token_id, np.random.default_rng(0))
    lengths = [len(tokenizer(prompt).input_ids) - 1 for prompt in prompts]  # up to the end marker
    kept = mask.sum(dim=1).tolist()
    for prompt, length, number, row in zip(prompts, lengths, kept, mask):
        assert number in ({length, CONTEXT} if prompt else {CONTEXT})
        assert row[:number].all()
    assert sum(number < CONTEXT for number in kept) / 200 == pytest.approx(0.5, abs=0.1)


def test_new_cross_attention_has_no_effect_yet(denoiser, tokenizer):
    noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([300, 300])
    prompts = [tokens_of(tokenizer, [prompt] * 2) for prompt in ("a dog", "")]
    with torch.no_grad():
        first, second = (denoiser(noisy, timesteps, tokens) for tokens in prompts)
        assert not torch.allclose(first, second, atol=1e-4)
        renew_cross_attention(denoiser.unet)
        first, second = (denoiser(noisy, timesteps, tokens) for tokens in prompts)
    torch.testing.assert_close(first, second)


def test_centred_queries_have_nothing_in_common(denoiser, tokenizer):
    # as after training: norms with biases of their own
    norms = [m for n, m in denoiser.unet.named_modules() if n.endswith("transformer_blocks.0.norm2")]
    for norm in norms:
        torch.nn.init.normal_(norm.bias)
    renew_cross_attention(denoiser.unet)
    given = torch.randn(3, 4, 8, 8), torch.tensor([200, 400, 600]), tokens_of(tokenizer, CAPTIONS[:3])
    centre_queries(denoiser, *given)
    means = []
    for norm in norms:
        norm.register_forward_hook(lambda _, given, features: means.append(features.mean(dim=(0, 1)).abs().max()))
    with torch.no_grad():
        denoiser(*given)
    assert len(means) == 16 and max(means) < 1e-4


def test_distillation_loss_is_relative_to_the_cross_attention_of_the_empty_prompt(denoiser, tokenizer):
    given = torch.randn(2, 4, 8, 8), torch.tensor([300, 500]), tokens_of(tokenizer, [""])
    teacher = teacher_of(denoiser, tokenizer)
    assert teacher.distillation_loss(denoiser, *given).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for name, module in denoiser.unet.named_modules():
            if name.endswith("attn2"):
                module.to_out[0].weight.mul_(0.5)
                module.to_out[0].bias.mul_(0.5)
    assert teacher.distillation_loss(denoiser, *given).item() == pytest.approx(0.25, rel=1e-3)
    renew_cross_attention(denoiser.unet)
    loss = teacher.distillation_loss(denoiser, *given)
    assert loss.item() == pytest.approx(1)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.unet.parameters())


def test_true_noise_has_no_error_and_others_follow_the_formula():
    scheduler = build_scheduler()
    generator = torch.Generator().manual_seed(0)
    clean, noise, guess = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    steps = torch.tensor([250, 800])
    noisy = scheduler.add_noise(clean, noise, steps)
    none = clean_latent_error(scheduler, clean, noisy, steps, noise)
    torch.testing.assert_close(none, torch.zeros(2, 3, 3), atol=1e-6, rtol=0)
    kept = scheduler.alphas_cumprod[steps][:, None, None]
    expected = (1 - kept) / kept * (noise - guess).square().mean(dim=1)
    torch.testing.assert_close(
        clean_latent_error(scheduler, clean, noisy, steps, guess), expected, rtol=1e-3, atol=1e-5
    )


def test_all_classes_of_a_scene_have_the_same_weight():
    drawn = [scene(seed, 64) for seed in range(20)]
    labels = np.stack([one.labels for one in drawn])
    weights = class_balanced_weights(torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(weights.mean(axis=(1, 2)), 1, rtol=1e-5)
    for truth, weight in zip(labels, weights):
        sums = [weight[truth == index].sum() for index in np.unique(truth)]
        np.testing.assert_allclose(sums, truth.size / len(sums), rtol=1e-4)
        assert all(np.ptp(weight[truth == index]) == 0 for index in np.unique(truth))


def test_only_words_are_trained(denoiser, tokenizer, tmp_path):
    values = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float16)
    labels = np.random.default_rng(0).integers(0, 27, (4, 8, 8), dtype=np.uint8)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    teacher, latents = teacher_of(denoiser, tokenizer), Latents(values, labels, CAPTIONS[:4])
    after = train_words(denoiser, tokenizer, teacher, latents, tmp_path, steps=3, batch=2).state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    for name in before:
        if "attn2" in name or name.endswith("norm2.bias") and "transformer_blocks" in name:
            assert name in changed, name
        elif not name.startswith("text_encoder"):
            assert name not in changed, name
    assert "text_encoder.embeddings.token_embedding.weight" in changed


def test_every_trained_parameter_has_one_optimizer(denoiser):
    groups = [p for o in optimizers_for_words(denoiser) for g in o.param_groups for p in g["params"]]
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    assert len(groups) == len({id(p) for p in groups}) == len(trained)
    assert 0 < len(trained) < len(list(denoiser.parameters()))
