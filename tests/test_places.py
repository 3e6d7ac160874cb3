"""Where the nouns of captions belong: what the network may see, the random walk, and that captions are enough."""

import numpy as np
import pytest
import torch

from diffseg import DiffSegPipeline
from diffseg.diffuse import encode, to_tensor
from diffseg.models.paths import data_dir
from diffseg.pocket import CLASSES, TUNING_SEED, scene
from diffseg.pocket.training import places
from diffseg.pocket.training.latents import Latents
from diffseg.pocket.training.loop import write_weights
from diffseg.pocket.training.place_net import (
    PLACES_FILE,
    PlaceNet,
    ask,
    load_place_net,
    places_in,
    store_places,
    train_place_net,
)
from diffseg.pocket.training.places import (
    NOUNS_FILE,
    THING_SHARE,
    NounNet,
    expected_shares,
    find_places,
    load_noun_net,
    share_out,
    table_of_nouns,
    train_noun_net,
    walk,
)
from diffseg.pocket.training.vocabulary import POCKET_WORLD, Vocabulary

DOG, SHEEP, GRASS, SNOW = (CLASSES.index(name) for name in ("dog", "sheep", "grass", "snow"))


def test_nouns_of_captions_are_a_table():
    table = table_of_nouns(["A dog", "The snow and a sheep"])
    assert table.shape == (2, len(CLASSES)) and table.sum().item() == 3
    assert table[0, DOG] and table[1, SNOW] and table[1, SHEEP]
    own = table_of_nouns(["A dog", "A cat and a dog", "A bird"], Vocabulary(("cat", "dog")))
    assert own.tolist() == [[False, True], [True, True], [False, False]]


def test_a_position_sees_no_more_than_its_neighbourhood():
    net = NounNet(torch.full((27,), 0.2)).eval()
    latents = torch.randn(1, 4, 32, 32, requires_grad=True)
    net(latents)[0, :, 8, 8].sum().backward()
    rows, columns = np.nonzero(latents.grad[0].abs().sum(0).numpy())
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == 14
    assert rows.min() <= 16 <= rows.max()


def test_a_network_is_kept_in_half_precision(tmp_path):
    net = NounNet(torch.linspace(0.1, 0.6, 5), width=16).eval()
    write_weights(tmp_path / NOUNS_FILE, net)
    latents = torch.randn(2, 4, 16, 16)
    torch.testing.assert_close(load_noun_net(tmp_path / NOUNS_FILE)(latents), net(latents), atol=5e-3, rtol=5e-3)
    assert (tmp_path / NOUNS_FILE).stat().st_size < 2.2 * sum(part.numel() for part in net.parameters()) + 6000


def test_the_network_in_the_box_knows_where_nouns_belong():
    """On tuning scenes: a guess among the nouns of a caption would be right for a fifth of all positions."""
    vae = DiffSegPipeline.from_pretrained("pocket").vae
    net, right = load_noun_net(data_dir() / "models" / "pocket-sd" / NOUNS_FILE), []
    for seed in range(TUNING_SEED, TUNING_SEED + 4):
        drawn = scene(seed, 256)
        found = find_places(net, encode(vae, to_tensor(drawn.image)), table_of_nouns([drawn.caption]))
        right.append((found[0].argmax(dim=0).numpy() == drawn.labels[4::8, 4::8]).mean())
    assert np.mean(right) > 0.75


def test_what_is_known_without_the_picture_is_no_rise():
    shares = torch.linspace(0.05, 0.9, 27)
    net = NounNet(shares).eval()
    with torch.no_grad():
        net.layers[-1].weight.zero_()
        net.layers[-1].bias.copy_(shares.logit())
        torch.testing.assert_close(net.rise(torch.randn(1, 4, 8, 8)), torch.zeros(1, 27, 4, 4), atol=1e-5, rtol=0)
        net.layers[-1].bias.copy_((2 * shares).clamp(max=0.95).logit())
        probable, prior = (2 * shares).clamp(max=0.95), shares
        wanted = 0.8 * (probable / prior).log() + 0.2 * (probable.logit() - prior.logit())
        torch.testing.assert_close(net.rise(torch.randn(1, 4, 8, 8))[0, :, 0, 0], wanted, atol=1e-5, rtol=1e-4)


def test_a_thing_gets_its_share_and_stuff_the_rest():
    named = table_of_nouns(["A dog on the grass", "The snow, the sky, a dog and a sheep", "A dog and a sheep", "Grass"])
    shares = expected_shares(named)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert (shares[~named] == 0).all()
    assert shares[0, DOG].item() == pytest.approx(THING_SHARE)
    assert shares[1, SNOW].item() == pytest.approx(0.5 - THING_SHARE)
    assert shares[2, DOG] == shares[2, SHEEP] == 0.5 and shares[3, GRASS] == 1


def test_nouns_share_alike_where_nobody_knows_which_are_things():
    unknown = Vocabulary(POCKET_WORLD.names)
    named = table_of_nouns(["A dog on the grass", "The snow, the sky, a dog and a sheep", "Grass"], unknown)
    shares = expected_shares(named, unknown)
    torch.testing.assert_close(shares, named / torch.tensor([[2.0], [4.0], [1.0]]))
    rise = torch.randn(3, len(CLASSES), 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(share_out(rise, named, unknown).mean((2, 3)), shares, atol=1e-3, rtol=0)


def test_a_noun_that_is_hardly_known_gets_its_share_where_it_is_likeliest():
    named = table_of_nouns(["A dog on the grass"])
    rise = torch.randn(1, len(CLASSES), 16, 16, generator=torch.Generator().manual_seed(0))
    rise[:, DOG] = 0.1 * rise[:, DOG] - 9  # nowhere above the grass
    rise[:, GRASS] = 0
    rise[:, DOG, 2:8, 2:8] += 7
    found = share_out(rise, named)
    torch.testing.assert_close(found.mean((2, 3)), expected_shares(named), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 16, 16))
    assert found[0, DOG, 2:8, 2:8].min() > 0.9 and found[0, SHEEP].max() == 0


def test_the_walk_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    side, latents, start = 3, torch.randn(1, 4, 3, 3, generator=generator), torch.rand(1, 2, 3, 3, generator=generator)
    transition = np.zeros((9, 9))
    for i, j in np.ndindex(9, 9):
        (r, c), (s, d) = divmod(i, side), divmod(j, side)
        colour = (latents[0, :, r, c] - latents[0, :, s, d]).square().sum().item() / places.COLOUR_REACH**2
        place = ((r - s) ** 2 + (c - d) ** 2) / (side * places.PLACE_REACH) ** 2
        transition[i, j] = np.exp(-(colour + place) / 2)
    transition /= transition.sum(1, keepdims=True)
    begun = answer = start[0].reshape(2, 9).T.double().numpy()
    for _ in range(places.WALK_STEPS):
        answer = places.WALK_ON * transition @ answer + (1 - places.WALK_ON) * begun
    np.testing.assert_allclose(walk(start, latents)[0].reshape(2, 9).T, answer, atol=1e-5)


def test_the_walk_stays_within_a_colour_and_keeps_sums():
    latents = torch.ones(1, 4, 16, 16)
    latents[..., 8:] = -1
    start = torch.zeros(1, 2, 16, 16)
    start[:, 0] = 1
    start[:, :, :, :2] = torch.tensor([0.0, 1.0])[:, None, None]  # known at the left edge only
    end = walk(start, latents)
    torch.testing.assert_close(end.sum(1), torch.ones(1, 16, 16))
    assert end[0, 1, :, 7].min() > 0.05  # carried to the border of the colour
    assert end[0, 1, :, 8:].max() < 1e-3  # and not beyond


def banded(number, side=32):
    """Latents with a thing in the upper or the lower quarter and stuff in the rest, two of four nouns, and captions
    without a word about where."""
    rng = np.random.default_rng(0)
    colours = dict(zip((DOG, SHEEP, GRASS, SNOW), np.linalg.qr(rng.normal(size=(4, 4)))[0]))
    values, labels, captions = [], [], []
    for _ in range(number):
        thing, stuff = rng.choice([DOG, SHEEP]), rng.choice([GRASS, SNOW])
        label = np.full((side, side), stuff, np.uint8)
        label[slice(side // 4) if rng.random() < 0.5 else slice(-(side // 4), None)] = thing
        latent = np.stack([colours[n] for n in label.flat], -1).reshape(4, side, side)
        values.append(latent + 0.1 * rng.standard_normal(latent.shape))
        labels.append(label)
        captions.append(f"A {CLASSES[thing]} on the {CLASSES[stuff]}")
    return Latents(np.array(values, np.float16), np.array(labels), captions)


@pytest.mark.slow
def test_captions_are_enough_to_find_what_is_where(tmp_path):
    drawn = banded(96)
    net = train_noun_net(drawn, tmp_path, steps=60, batch=16, seed=1)
    unseen = banded(120)
    latents = torch.from_numpy(unseen.values[96:].astype(np.float32))
    found = find_places(net, latents, table_of_nouns(unseen.captions[96:]))
    torch.testing.assert_close(found.sum(1), torch.ones(24, 32, 32))
    assert (found.argmax(1).numpy() == unseen.labels[96:]).mean() > 0.85  # 0.75: nothing but stuff
    again = train_noun_net(drawn, tmp_path, steps=60, batch=16, seed=1)  # nothing is left to do
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_a_pupil_makes_fewer_accidental_mistakes_than_its_teacher(tmp_path):
    """The answers are wrong, at random, for a fifth of all positions."""
    drawn, rng = banded(96), np.random.default_rng(3)
    named = table_of_nouns(drawn.captions)
    answers = np.zeros((96, len(CLASSES), 32, 32), np.float16)
    for answer, row, labels in zip(answers, named, drawn.labels, strict=True):
        first, second = row.nonzero().flatten().tolist()
        answer[first] = (labels == first) ^ (rng.random((32, 32)) < 0.2)
        answer[second] = 1 - answer[first]
    net = train_place_net(drawn, answers, tmp_path, steps=40, batch=8)
    unseen = banded(108)
    latents = torch.from_numpy(unseen.values[96:].astype(np.float32))
    found = places_in(net, latents, table_of_nouns(unseen.captions[96:]))
    assert (found.argmax(1).numpy() == unseen.labels[96:]).mean() > 0.88  # 0.80 of the answers are right
    write_weights(tmp_path / PLACES_FILE, net)
    kept = places_in(load_place_net(tmp_path / PLACES_FILE), latents, table_of_nouns(unseen.captions[96:]))
    torch.testing.assert_close(kept, found, atol=0.02, rtol=0)


def test_answers_are_computed_once(tmp_path):
    net, drawn = NounNet(torch.full((27,), 0.2)).eval(), banded(3)
    answers = store_places(drawn, net, tmp_path)
    latents = torch.from_numpy(drawn.values.astype(np.float32))
    wanted = find_places(net, latents, table_of_nouns(drawn.captions))
    torch.testing.assert_close(torch.from_numpy(answers.astype(np.float32)), wanted, atol=1e-3, rtol=0)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    np.testing.assert_array_equal(store_places(drawn, net, tmp_path), answers)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


@pytest.mark.parametrize("kind", ["nouns", "places"])
def test_answers_for_small_pictures_walk_on_the_grid_of_large_ones(kind):
    torch.manual_seed(0)
    teacher = (NounNet(torch.full((27,), 0.2)) if kind == "nouns" else PlaceNet(27)).eval()
    small, large = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 32, 32)
    named = torch.zeros(2, 27, dtype=torch.bool)
    named[:, [1, 4]] = True
    answer = find_places if kind == "nouns" else places_in
    coarse = answer(teacher, small, named)
    torch.testing.assert_close(ask(teacher, small, small, named), coarse)
    enlarged = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    expected = walk(enlarged, large / large.std()) ** 4
    torch.testing.assert_close(ask(teacher, small, large, named), expected / expected.sum(dim=1, keepdim=True))
