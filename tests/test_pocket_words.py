"""How pocket-sd learns words: which prompts are given, and what is asked of attention to them."""

import numpy as np
import pytest
import torch

from diffseg.pocket import CLASSES, scene
from diffseg.pocket.training.text import CONTEXT, build_tokenizer
from diffseg.pocket.training.vocabulary import Vocabulary
from diffseg.pocket.training.words import (
    EMPTY,
    TO_NOUNS,
    Prompt,
    choose_prompt,
    classes_of_tokens,
    read_prompt,
    words_loss,
)
from diffseg.semantics import find_nouns

DOG, GRASS = CLASSES.index("dog"), CLASSES.index("grass")
CAPTION = "A dog on the grass"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(scene(seed, 64).caption for seed in range(40))


def test_prompts_are_captions_lists_or_empty(tokenizer):
    rng = np.random.default_rng(0)
    prompts = [choose_prompt(CAPTION, tokenizer, rng) for _ in range(1500)]
    texts = [prompt.text for prompt in prompts]
    shares = {text: texts.count(text) / 1500 for text in set(texts)}
    assert shares.keys() == {CAPTION, "dog, grass", "grass, dog", ""}
    assert shares[""] == pytest.approx(0.3, abs=0.05)
    assert shares["dog, grass"] + shares["grass, dog"] == pytest.approx(0.2, abs=0.04)
    assert all((prompt == EMPTY) == (not prompt.text) for prompt in prompts)


def test_prompts_name_what_a_vocabulary_holds(tokenizer):
    own, rng = Vocabulary(("castle", "grass")), np.random.default_rng(0)
    prompts = [choose_prompt("A dog and an old castle on the grass", tokenizer, rng, own) for _ in range(300)]
    assert {prompt.text for prompt in prompts} == {
        "A dog and an old castle on the grass", "castle, grass", "grass, castle", ""
    }  # fmt: skip
    assert {tuple(sorted(number for number, _ in prompt.tokens)) for prompt in prompts} == {(0, 1), ()}
    table = classes_of_tokens(prompts, CONTEXT, len(own))
    assert table.shape == (300, CONTEXT, 3) and torch.equal(table.sum(2), torch.ones(300, CONTEXT))


def test_tokens_of_a_prompt_spell_its_nouns(tokenizer):
    for caption in ("Two dogs and a sailboat in front of a brick wall", CAPTION, "A spoon on the sand"):
        prompt = read_prompt(caption, find_nouns(caption), tokenizer)
        ids = tokenizer(caption).input_ids
        spelt = {CLASSES[number]: tokenizer.decode([ids[i] for i in own]) for number, own in prompt.tokens}
        wanted = {"dog": "dogs", "sailboat": "sailboat", "wall": "brick wall"} if "dogs" in caption else None
        wanted = wanted or ({"dog": "dog", "grass": "grass"} if "dog" in caption else {"sand": "sand"})
        assert {name: text.replace(" ", "") for name, text in spelt.items()} == {
            name: text.replace(" ", "") for name, text in wanted.items()
        }


def test_every_token_has_one_class_or_none():
    table = classes_of_tokens([Prompt("", ((DOG, (2, 3)), (GRASS, (6,)))), EMPTY], context=10)
    assert table.shape == (2, 10, len(CLASSES) + 1)
    assert torch.equal(table.sum(2), torch.ones(2, 10))
    assert table[0].argmax(1).tolist() == [27, 27, DOG, DOG, 27, 27, GRASS, 27, 27, 27]
    assert (table[1].argmax(1) == 27).all()


def places_and_classes(side=4):
    """The left half is a dog, the right half grass; token 1 is the dog, 2 and 3 are the grass, 0 is the rest."""
    places = torch.zeros(1, len(CLASSES), side, side)
    places[:, DOG, :, : side // 2] = 1
    places[:, GRASS, :, side // 2 :] = 1
    return places, classes_of_tokens([Prompt("", ((DOG, (1,)), (GRASS, (2, 3))))], context=4)


def layer_with(probs):
    """Queries and keys, one head, of given attention [positions, tokens]."""
    positions, tokens = probs.shape
    query = probs.clamp_min(1e-9).log()[None, None] * tokens**0.5
    return query, torch.eye(tokens)[None, None]


def test_attention_as_wanted_costs_nothing():
    places, classes = places_and_classes()
    left = torch.arange(4).repeat(4) < 2
    wanted = torch.where(left[:, None], torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0.5, 0, 0.2, 0.3]))
    swapped = torch.where(left[:, None], torch.tensor([0.5, 0, 0.5, 0]), torch.tensor([0.5, 0.5, 0, 0]))
    even = torch.full((16, 4), 0.25)
    costs = [
        words_loss([layer_with(probs)], classes, places, np.random.default_rng(0)).item()
        for probs in (wanted, even, swapped)
    ]
    assert costs[0] == pytest.approx(0, abs=1e-4)
    # KL of (1/2 dog, 1/2 rest) and (1/4, 1/2, 1/4), and of (1/2 grass, 1/2 rest)
    even_cost = np.mean([0.5 * np.log(2) + 0.5 * np.log(2), 0.5 * np.log(1) + 0.5 * np.log(2)])
    assert costs[1] == pytest.approx(even_cost, abs=1e-4)
    assert costs[2] > 3 > costs[1]
    assert TO_NOUNS == 0.5


def test_the_mean_over_heads_is_asked_and_the_coarse_sides_get_means_of_places():
    places, classes = places_and_classes(side=4)
    left = torch.arange(4).repeat(4) < 2
    wanted = torch.where(left[:, None], torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0.5, 0, 0.5, 0]))
    only, none = wanted * torch.tensor([0, 2.0, 2, 2]), torch.eye(4)[0].expand(16, 4)
    heads = [layer_with(probs) for probs in (only, none)]
    layer = tuple(torch.cat(parts, dim=1) for parts in zip(*heads))
    assert words_loss([layer], classes, places, np.random.default_rng(0)).item() == pytest.approx(0, abs=1e-4)
    whole = layer_with(torch.tensor([[0.5, 0.25, 0.25, 0.0]]))  # one position: half dog, half grass
    assert words_loss([whole], classes, places, np.random.default_rng(0)).item() == pytest.approx(0, abs=1e-4)


def test_attention_to_the_right_word_is_learned(tokenizer):
    places, classes = places_and_classes()
    query, key = torch.zeros(1, 2, 16, 8, requires_grad=True), torch.randn(1, 2, 4, 8)
    optimizer = torch.optim.Adam([query], lr=0.5)
    for step in range(60):
        loss = words_loss([(query, key)], classes, places, np.random.default_rng(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 and CONTEXT == 77
