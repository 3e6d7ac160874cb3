"""The training loop and the recipes, run for a few steps."""

import json
import shutil
from functools import partial
from itertools import count

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from torch import nn
from transformers import BlipForConditionalGeneration, ViTModel

from diffseg import DiffSegPipeline
from diffseg.diffuse import to_tensor
from diffseg.dino import DinoSegPipeline
from diffseg.models.captioner import Captioner
from diffseg.models.paths import data_dir
from diffseg.pocket import scene
from diffseg.pocket.catalogue import THING_BY_NAME
from diffseg.pocket.training import dino, loop, muon
from diffseg.pocket.training.__main__ import main
from diffseg.pocket.training.blip import patch_classes
from diffseg.pocket.training.dino import (
    Distillation,
    build_vit,
    distillation_loss,
    jitter_colours,
    random_crop,
    teacher_decay,
    train_dino,
    views,
)
from diffseg.pocket.training.latents import Latents, encode_scenes
from diffseg.pocket.training.pictures import Pictures, draw_scenes
from diffseg.pocket.training.place_net import PLACES_FILE, PlaceNet
from diffseg.pocket.training.places import NOUNS_FILE
from diffseg.pocket.training.recipes import (
    Generation,
    Recipe,
    Stage,
    train_pocket_blip,
    train_pocket_dino,
    train_pocket_sd,
)
from diffseg.pocket.training.text import CONTEXT, build_tokenizer
from diffseg.pocket.training.unet import MAX_SNR, Lessons, Materials, build_scheduler, build_unet, snr_weights
from diffseg.pocket.training.vae import build
from diffseg.pocket.training.validation import caption_rates
from diffseg.sweeps import THRESHOLDS, sweep_thresholds


class _Stop(Exception):
    """An interruption from outside."""


def _fit(folder, steps, stop_at=None, save_seconds=0.0, deadline=np.inf, snapshots=()):
    """Fit a line by the training loop; optionally break off before a step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(model, rng, step):
        if step == stop_at:
            raise _Stop
        x = torch.from_numpy(rng.standard_normal((8, 3)).astype(np.float32))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    plan = loop.Plan(steps, warmup=2, ema=0.9, save_seconds=save_seconds, deadline=deadline, snapshots=snapshots)
    return loop.train(model, [optimizer], loss, plan, folder)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path):
    whole = _fit(tmp_path / "whole", 60)
    with pytest.raises(_Stop):
        _fit(tmp_path / "parts", 60, stop_at=37)
    parts = _fit(tmp_path / "parts", 60)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)
    logs = [pd.read_csv(tmp_path / name / "log.csv")[["step", "loss", "rate"]] for name in ("whole", "parts")]
    assert logs[0].step.tolist() == logs[1].step.tolist() == [9, 19, 29, 39, 49, 59]


def test_past_the_deadline_one_step_is_done_and_saved_at_a_time(tmp_path):
    """However little time there is, the same call gets to the end, and to the same weights."""
    whole = _fit(tmp_path / "whole", 12)
    for done in range(1, 12):
        with pytest.raises(loop.OutOfTime, match=f"parts: {done} of 12 steps"):
            _fit(tmp_path / "parts", 12, save_seconds=np.inf, deadline=0.0)
    for _ in range(2):  # the last step is done in time, and so is everything when there is nothing left to do
        parts = _fit(tmp_path / "parts", 12, save_seconds=np.inf, deadline=0.0)
        torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_snapshots_are_the_averaged_weights_in_half_precision(tmp_path):
    fitted = _fit(tmp_path, 20, snapshots=(5, 10, 20))
    assert list(loop.find_snapshots(tmp_path)) == [5, 10, 20]
    with pytest.raises(_Stop):
        _fit(tmp_path / "stopped", 20, stop_at=10)
    averaged = {10: torch.load(tmp_path / "stopped" / "checkpoint.pt")["ema"], 20: fitted.state_dict()}
    for step, weights in averaged.items():
        kept = safetensors.torch.load_file(tmp_path / f"snapshot-{step:06d}.safetensors")
        halved = {name: value.half() for name, value in weights.items()}
        torch.testing.assert_close(kept, halved, rtol=0, atol=0)


def test_snapshots_are_the_same_after_a_stop(tmp_path):
    """After a stop that lost steps since the last checkpoint, and with a deadline that leaves one step at a time."""
    steps = (5, 10, 12)
    _fit(tmp_path / "whole", 12, snapshots=steps)
    with pytest.raises(_Stop):
        _fit(tmp_path / "lost", 12, stop_at=7, save_seconds=np.inf, snapshots=steps)
    assert list(loop.find_snapshots(tmp_path / "lost")) == [5]
    _fit(tmp_path / "lost", 12, snapshots=steps)
    for _ in range(11):
        with pytest.raises(loop.OutOfTime):
            _fit(tmp_path / "slow", 12, deadline=0.0, snapshots=steps)
    _fit(tmp_path / "slow", 12, deadline=0.0, snapshots=steps)
    whole = [file.read_bytes() for file in loop.find_snapshots(tmp_path / "whole").values()]
    assert len(set(whole)) == 3
    for other in ("lost", "slow"):
        assert [file.read_bytes() for file in loop.find_snapshots(tmp_path / other).values()] == whole
        assert not list((tmp_path / other).glob("*.tmp"))


def test_a_checkpoint_of_a_training_without_snapshots_gives_its_own(tmp_path):
    fitted = _fit(tmp_path, 12)
    _fit(tmp_path, 12, snapshots=(6, 12))
    assert list(loop.find_snapshots(tmp_path)) == [12]
    kept = safetensors.torch.load_file(tmp_path / "snapshot-000012.safetensors")
    torch.testing.assert_close(kept["weight"], fitted.weight.half(), rtol=0, atol=0)


def test_snapshots_roughly_double():
    assert loop.doublings(8000) == (50, 100, 200, 400, 800, 1600, 3200, 6400, 8000)
    assert loop.doublings(100) == (50, 100) and loop.doublings(2) == (2,)


def test_resumed_with_other_learning_rates(tmp_path):
    """As the error message of a loss that diverged advises."""
    with pytest.raises(loop.OutOfTime):
        _fit(tmp_path, 12, deadline=0.0)
    before = torch.load(tmp_path / "checkpoint.pt")["model"]
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    loop.train(model, [optimizer], lambda m, r, s: m.weight.sum(), loop.Plan(12), tmp_path)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_averaged_weights_forget_the_start_early(tmp_path):
    ema, model = nn.Linear(2, 1), nn.Linear(2, 1)
    plan = loop.Plan(1000, ema=0.99)
    start, decay = ema.weight.detach().clone(), 1.0
    for step in range(30):
        loop.average(ema, model, loop.averaging_decay(step, plan))
        decay *= (step + 1) / (step + 10)
    torch.testing.assert_close(ema.weight, decay * start + (1 - decay) * model.weight)
    assert decay < 1e-6 and loop.averaging_decay(999, plan) == 0.99


def test_loop_learns_and_logs(tmp_path):
    fitted = _fit(tmp_path, 150)
    torch.testing.assert_close(fitted.weight, torch.ones(1, 3), atol=0.15, rtol=0)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log.loss.iloc[-1] < 0.1 * log.loss.iloc[0]
    assert log.seconds.is_monotonic_increasing


def test_loop_stops_at_nan_and_keeps_the_checkpoint(tmp_path):
    _fit(tmp_path, 10)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    with pytest.raises(FloatingPointError, match="step 10"):
        loop.train(model, [optimizer], lambda m, r, s: m.weight.sum() * float("nan"), loop.Plan(12), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_learning_rate_rises_stays_and_falls():
    plan = loop.Plan(100, warmup=10, cooldown=0.2)
    rates = [loop.rate(step, plan) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[50] == rates[80] == 1 and rates[100] == 0
    assert rates[90] == pytest.approx(0.5)


def test_every_parameter_has_one_optimizer():
    unet = build_unet()
    groups = [p for o in loop.muon_and_adamw(unet) for g in o.param_groups for p in g["params"]]
    assert len(groups) == len({id(p) for p in groups}) == len(list(unet.parameters()))


class Squares(torch.utils.data.Dataset):
    def __getitem__(self, step):
        return step**2


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_are_prepared_in_turn_from_any_one_on(workers):
    ahead = loop.Ahead(Squares(), 6, workers)
    assert [ahead.take(step) for step in (3, 4, 5)] == [9, 16, 25]


def test_a_teacher_needs_as_many_scenes_as_its_pupil():
    many, few = (
        Latents(np.zeros((number, 4, 8, 8), np.float16), np.zeros((number, 8, 8), np.uint8), ["a dog"] * number)
        for number in (3, 2)
    )
    with pytest.raises(ValueError, match=r"lessons.taught has 2 scenes, lessons.latents 3"):
        Materials(Lessons(many, few, PlaceNet(27), build_tokenizer(["a dog"])), "cpu")


def test_muon_takes_the_same_steps_as_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((6, 4), (4, 6), (6, 4), (5, 5))]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}
    optimizers = muon.Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, begun in zip(ours, theirs, start, strict=True):
        moved, expected = (one - begun).detach(), (other - begun).detach()
        assert (moved - expected).norm() < 0.02 * expected.norm()  # theirs computes in bfloat16


def test_muon_leaves_matrices_without_a_gradient():
    still, moved = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    moved.grad = torch.eye(3, 2)
    muon.Muon([still, moved], lr=0.1).step()
    assert torch.equal(still, torch.ones(3, 2)) and not torch.equal(moved, still)


@pytest.mark.parametrize("shape", [(2, 8, 3), (2, 3, 8), (1, 5, 5)])
def test_directions_become_nearly_orthogonal(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(muon.orthogonal(matrices))
    assert (0.6 < values).all() and (values < 1.3).all()


def test_unet_has_the_blocks_of_stable_diffusion():
    names = [name for name in build_unet().attn_processors if "attn1" in name]
    parts = [name.split("_block")[0] for name in names]
    assert (len(names), parts.count("down"), parts.count("mid"), parts.count("up")) == (16, 6, 1, 9)


def test_snr_weights_follow_the_schedule():
    scheduler = build_scheduler()
    steps = torch.tensor([0, 300, 999])
    kept = scheduler.alphas_cumprod[steps]
    snr = kept / (1 - kept)
    torch.testing.assert_close(snr_weights(scheduler, steps), torch.minimum(snr, torch.tensor(MAX_SNR)) / snr)


def test_tokenizer_writes_anything_and_splits_rare_words():
    tokenizer = build_tokenizer(scene(seed, 64).caption for seed in range(200))
    for text in ("a red car in a field", "zebra & ñandú"):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
        assert tokenizer.unk_token_id not in ids[1:-1]
    assert len(tokenizer("dog", padding="max_length").input_ids) == CONTEXT
    assert len(tokenizer.tokenize("sailboat")) > 1


def test_autoencoder_starts_as_downsampling():
    """Before any training the latents already tell colours apart, and the decoder gives them back."""
    picture = to_tensor(scene(3, 128).image)
    torch.manual_seed(0)
    vae = build()
    with torch.no_grad():
        output = vae.decode(vae.encode(picture).latent_dist.mean).sample
    small = nn.functional.avg_pool2d
    for channel in range(3):
        pair = torch.stack([small(output, 8)[0, channel].flatten(), small(picture, 8)[0, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.8


def test_latents_are_read_again_not_made_again(tmp_path):
    vae = build()
    made = encode_scenes(vae, 3, 64, tmp_path, workers=0)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = encode_scenes(vae, 3, 64, tmp_path, workers=0)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert made.values.shape == (3, 4, 8, 8)
    np.testing.assert_array_equal(made.values, again.values)
    drawn = [scene(seed, 64) for seed in range(3)]
    assert again.captions == [one.caption for one in drawn]
    np.testing.assert_array_equal(made.labels, again.labels)
    np.testing.assert_array_equal(again.labels, [one.labels[4::8, 4::8] for one in drawn])


def test_scenes_are_drawn_on_after_a_stop(tmp_path):
    """After a deadline and after an interruption that left half a line."""
    with pytest.raises(loop.OutOfTime, match="images-64-70: 32 of 70 scenes"):
        draw_scenes(70, 64, tmp_path, workers=0, deadline=0.0)
    captions = tmp_path / "images-64-70-captions.txt"
    captions.write_text(captions.read_text()[:-5])
    drawn = draw_scenes(70, 64, tmp_path, workers=0)
    for seed in (0, 31, 32, 69):
        one = scene(seed, 64)
        assert drawn.captions[seed] == one.caption
        np.testing.assert_array_equal(drawn.images[seed], np.asarray(one.image))
        np.testing.assert_array_equal(drawn.labels[seed], one.labels)
    assert len(drawn.captions) == 70


def test_latents_of_another_autoencoder_are_not_mistaken(tmp_path):
    first, second = (encode_scenes(build(), 2, 64, tmp_path, workers=0) for _ in range(2))
    assert np.abs(first.values.astype(float) - second.values).max() > 0.01


def test_recipe_gives_a_model_that_diffusers_loads(tmp_path):
    """The whole recipe, some steps of each stage: a folder for DiffSeg and for stock Stable Diffusion."""
    recipe = Recipe(
        vae_steps=2, vae_batch=4, nouns=Stage(128, 8, 10, 4),
        places=(Generation(128, 10, 0.5), Generation(128, 10, 0.25), Generation(256, 10, 0.0, 6)),
        unet=(Stage(128, 8, 2, 2), Stage(512, 4, 1, 1, also=256)),
        tuning_scenes=1, captions=50, workers=0,
    )  # fmt: skip
    train_pocket_sd(recipe, runs=tmp_path / "runs", target=tmp_path / "model")
    assert json.loads((tmp_path / "model" / "diffseg.json").read_text())["captioner"] == "../pocket-blip"
    segmented = DiffSegPipeline.from_pretrained(tmp_path / "model")(scene(0).image)
    assert segmented.labels.shape == (512, 512)
    text_to_image = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    text_to_image.set_progress_bar_config(disable=True)
    drawn = text_to_image("a dog on the grass", num_inference_steps=2, height=64, width=64).images[0]
    assert drawn.size == (64, 64)
    stages = pd.read_csv(tmp_path / "model" / "training.csv").stage
    # Ten steps each; the others are too few for a line.
    assert set(stages) == {"nouns", "places-1-128", "places-2-128", "places-3-256"}
    torch.testing.assert_close(segmented.attention.sum((2, 3)), torch.ones(64, 64))
    answers = {
        path.name: len(np.load(path, mmap_mode="r")) for path in (tmp_path / "runs").glob("places-*/*inputs.npy")
    }
    assert answers == {"places-16-8-inputs.npy": 8, "places-32-6-inputs.npy": 6}
    for stage, step in (("unet-1-128", 2), ("unet-2-512", 1)):
        assert list(loop.find_snapshots(tmp_path / "runs" / stage)) == [step]


def test_autoencoder_and_teachers_can_be_those_of_another_model(tmp_path):
    recipe = Recipe(
        nouns=Stage(128, 8, 10, 4),
        places=(Generation(128, 10, 0.5),),
        unet=(Stage(128, 8, 10, 2),),
        tuning_scenes=1,
        captions=50,
        workers=0,
    )
    start, target, again = data_dir() / "models" / "pocket-sd", tmp_path / "model", tmp_path / "again"
    train_pocket_sd(recipe, tmp_path / "runs", target, start=start)
    for file in ("vae/diffusion_pytorch_model.safetensors", NOUNS_FILE):
        one, other = (safetensors.torch.load_file(folder / file) for folder in (start, target))
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    train_pocket_sd(recipe, tmp_path / "more", again, start=target)
    one, other = (safetensors.torch.load_file(folder / PLACES_FILE) for folder in (target, again))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert set(pd.read_csv(again / "training.csv").stage) == {"unet-1-128"}
    assert {path.name for path in (tmp_path / "more").iterdir()} == {"latents", "unet-1-128"}


def test_recipe_gives_a_captioner_that_transformers_loads(tmp_path):
    recipe = Recipe(blip_scenes=8, blip_steps=2, blip_batch=4, captions=8, workers=0)
    train_pocket_blip(recipe, tmp_path / "runs", tmp_path / "pocket-blip")
    stored = torch.load(tmp_path / "runs" / "blip" / "checkpoint.pt")["ema"]
    loaded = BlipForConditionalGeneration.from_pretrained(tmp_path / "pocket-blip", dtype=torch.float32).state_dict()
    for name in ("vision_model.post_layernorm.weight", "text_decoder.bert.encoder.layer.0.attention.self.query.weight"):
        torch.testing.assert_close(loaded[name], stored[f"blip.{name}"], rtol=1e-3, atol=1e-4)  # half precision
    rates = caption_rates(Captioner.from_pretrained(tmp_path / "pocket-blip"), [0, 1])
    visible = [len(set(scene(seed).nouns) & THING_BY_NAME.keys()) for seed in (0, 1)]
    assert rates.visible.tolist() == visible and (rates.named <= rates.visible).all()
    again = draw_scenes(8, 128, tmp_path / "runs" / "pictures")  # read, not drawn again
    np.testing.assert_array_equal(again.images[3], np.asarray(scene(3, 128).image))
    np.testing.assert_array_equal(again.labels[3], scene(3, 128).labels)


def test_caption_rates_count_things():
    drawn = scene(1)
    (thing, *others) = [name for name in drawn.nouns if name in THING_BY_NAME]
    rates = caption_rates(lambda image: f"A {thing} and a spoon beside a zebra, a rocket and the sky", [1]).iloc[0]
    assert rates.visible == 1 + len(others)
    assert rates.named == 1 + ("rocket" in others)
    assert rates.absent == ("rocket" not in drawn.nouns)


def test_classes_of_patches():
    labels = np.zeros((1, 16, 16), np.uint8)
    labels[0, :8, 8:] = 3
    labels[0, 8:, :8] = 5
    assert patch_classes(labels, 8).tolist() == [[0, 3, 5, 0]]


def test_distillation_loss_follows_its_formula():
    rng = np.random.default_rng(0)
    student, teacher, centre = (rng.uniform(-1, 1, shape) for shape in ((4, 3, 6), (2, 3, 6), (6,)))
    losses = []
    for large in range(2):
        for view in set(range(4)) - {large}:
            for case in range(3):
                wanted = np.exp((teacher[large, case] - centre) / dino.TEACHER_TEMPERATURE)
                got = np.exp(student[view, case] / dino.STUDENT_TEMPERATURE)
                losses.append(-(wanted / wanted.sum() * np.log(got / got.sum())).sum())
    loss = distillation_loss(*map(torch.from_numpy, (student, teacher, centre)))
    assert loss.item() == pytest.approx(np.mean(losses))


def test_no_constant_output_is_a_solution():
    """All prototypes alike, or one for all: both cost more than to tell the scenes apart."""
    apart = torch.eye(4)[None].expand(2, -1, -1)  # each scene has its prototype
    flat, one = torch.zeros(2, 4, 4), torch.eye(4)[0].expand(2, 4, -1)
    costs = [distillation_loss(outputs, outputs, outputs.mean((0, 1))).item() for outputs in (apart, flat, one)]
    assert costs[0] < 0.1 < np.log(2) < min(costs[1:])


def test_teacher_is_an_average_of_the_student_and_gets_no_gradient():
    torch.manual_seed(0)
    distillation = Distillation(build_vit())
    with torch.no_grad():
        for parameter in distillation.student.parameters():
            parameter.add_(0.01)
    before = {name: value.clone() for name, value in distillation.teacher.state_dict().items()}
    distillation.update_teacher(0.9)
    for name, value in distillation.teacher.state_dict().items():
        torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * distillation.student.state_dict()[name])
    distillation(torch.rand(2, 1, 3, 56, 56), torch.rand(1, 1, 3, 24, 24)).backward()
    assert all(parameter.grad is None for parameter in distillation.teacher.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in distillation.student.vit.parameters())
    assert distillation.centre.abs().max() > 0
    decays = [teacher_decay(step, 100) for step in range(101)]
    assert decays[0] == pytest.approx(0.99) and decays[100] == 1 and decays == sorted(decays)


def test_crops_are_squares_of_the_stated_share():
    """A picture that tells row and column: the crop's slopes tell how much of it was cut out."""
    ramp = torch.linspace(0, 1, 128)
    picture = torch.stack([ramp[:, None].expand(128, 128), ramp.expand(128, 128), torch.zeros(128, 128)])
    rng = np.random.default_rng(0)
    shares, mirrored = [], 0
    for _ in range(200):
        crop = random_crop(picture, (0.1, 0.5), 32, rng)
        rows, columns = crop[0], crop[1]
        down, right = float(rows[24, 5] - rows[8, 5]) * 2, float(columns[5, 24] - columns[5, 8]) * 2
        assert crop.shape == (3, 32, 32) and down > 0
        assert abs(right) == pytest.approx(down, rel=0.02)
        shares.append(down**2)
        mirrored += right < 0
    assert 0.09 < min(shares) < 0.15 and 0.45 < max(shares) < 0.52
    assert 70 < mirrored < 130


def test_colours_change_and_shapes_stay():
    rng = np.random.default_rng(0)
    crops = torch.rand(400, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.2
    changed = jitter_colours(crops, rng)
    assert 0 <= changed.min() and changed.max() <= 1
    spread = changed.std(dim=1).amax(dim=(1, 2))  # between channels
    assert (spread < 1e-6).float().mean() == pytest.approx(0.2, abs=0.06)
    grey = crops[:, :1].expand(-1, 3, -1, -1)
    assert jitter_colours(grey, rng).std(dim=1).max() < 1e-6  # no colour comes from nowhere
    brightness = jitter_colours(torch.full((400, 3, 2, 2), 0.5), rng).mean((1, 2, 3)) / 0.5
    assert 0.6 <= brightness.min() < 0.65 and 1.35 < brightness.max() <= 1.4
    some = views(crops[:5], 3, (0.5, 1.0), 8, rng)
    assert some.shape == (3, 5, 3, 8, 8) and some.min() >= -1 and some.max() <= 1 and some.min() < 0


def test_distillation_stopped_and_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    """Teacher and centre, which no optimiser knows, are in the checkpoint too."""
    monkeypatch.setattr(dino, "Plan", partial(loop.Plan, save_seconds=0.0))
    drawn = draw_scenes(3, 112, tmp_path / "pictures", workers=0)
    sample, calls = Pictures.sample, count()

    def sample_twice(pictures, rng, batch):
        if next(calls) == 2:
            raise _Stop
        return sample(pictures, rng, batch)

    def fit(folder):
        torch.manual_seed(0)
        return train_dino(Distillation(build_vit()), drawn, folder, size=56, steps=4, batch=2)

    whole = fit(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(_Stop):
        patch.setattr(Pictures, "sample", sample_twice)
        fit(tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "checkpoint.pt")["step"] == 2
    parts = fit(tmp_path / "parts")
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)
    torch.manual_seed(0)
    start = Distillation(build_vit())
    for name in ("student", "teacher"):
        trained, untrained = (getattr(model, name).vit.state_dict() for model in (whole, start))
        assert not any(torch.equal(value, untrained[key]) for key, value in trained.items() if key.endswith("weight"))
    with pytest.raises(ValueError, match="size=64 must be a positive multiple of 56"):
        train_dino(whole, drawn, tmp_path, size=64, steps=1, batch=1)


def test_recipe_gives_a_vit_that_transformers_loads(tmp_path):
    recipe = Recipe(dino=(Stage(56, 3, 2, 2), Stage(112, 3, 1, 2)), tuning_scenes=1, workers=0)
    target = tmp_path / "pocket-dino"
    train_pocket_dino(recipe, tmp_path / "runs", target)
    assert sum(file.stat().st_size for file in target.iterdir()) < 15e6
    assert ViTModel.from_pretrained(target, add_pooling_layer=False).config.image_size == 224
    pipe = DinoSegPipeline.from_pretrained(target)
    out = pipe(scene(0).image)
    assert out.labels.shape == (512, 512) and out.attention.shape == (28, 28, 28, 28)
    assert pd.read_csv(target / "training.csv").columns[0] == "step"
    tried = pd.read_csv(target / "tuning.csv", index_col="threshold")
    assert pipe.threshold in tried.index and tuple(tried.index) == THRESHOLDS

    cases = [(drawn.image, drawn.labels) for drawn in map(scene, (0, 1))]
    scores = sweep_thresholds(pipe, cases, [pipe.threshold, 100.0])
    assert scores.threshold.tolist() == [pipe.threshold, 100.0] * 2
    assert scores.segments[1::2].tolist() == [1, 1]


def test_command_stops_after_the_minutes_and_goes_on(tmp_path, capsys):
    """Two commands that have no time: the first one draws scenes, the second one draws on."""
    command = ["blip", "--minutes", "0", "--longer", "0.01", "--device", "cpu"]
    for done in (32, 64):
        main([*command, "--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")])
        report = capsys.readouterr().out
        assert f"not finished: images-160-160: {done} of 160 scenes" in report and "the same command goes on" in report
    assert not (tmp_path / "models").exists()


def test_command_tunes_and_validates(tmp_path, capsys):
    """The verbs that train nothing, on one scene."""
    shutil.copytree(data_dir() / "models", tmp_path, dirs_exist_ok=True)
    for verb in ("tune", "validate"):
        main([verb, "--models", str(tmp_path), "--scenes", "1"])
    threshold = json.loads((tmp_path / "pocket-sd" / "diffseg.json").read_text())["threshold"]
    tuned, *validated = capsys.readouterr().out.splitlines()
    assert tuned == f"threshold {threshold}" and threshold in THRESHOLDS
    assert [line.split()[0] for line in validated] == ["threshold", "accuracy", "miou", "segments"]
    assert float(validated[0].split()[1]) == pytest.approx(threshold, abs=1e-4)
