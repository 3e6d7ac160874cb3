"""The embedded model: complete, small enough, loadable by diffusers alone, and really grouping objects."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from helpers_scenes import miou_of_colours

from diffseg import DiffSegPipeline, anchor_distances, image_score
from diffseg.merging import anchor_grid
from diffseg.models.paths import data_dir
from diffseg.pocket import VALIDATION_SEED, scene
from diffseg.pocket.training.recipes import Recipe, unet_folders
from diffseg.sweeps import THRESHOLDS, best_threshold

FOLDER = data_dir() / "models" / "pocket-sd"
SCENES = 12  # the whole table, on 100, is `python -m diffseg.pocket.training validate`


@pytest.fixture(scope="module")
def pipe():
    return DiffSegPipeline.from_pretrained("pocket")


@pytest.fixture(scope="module")
def segmented(pipe):
    """(scene, output) of the first validation scenes."""
    scenes = [scene(VALIDATION_SEED + index) for index in range(SCENES)]
    return [(drawn, pipe(drawn.image)) for drawn in scenes]


def test_folder_is_complete_and_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 40e6
    index = json.loads((FOLDER / "model_index.json").read_text())
    assert {"vae", "text_encoder", "tokenizer", "unet", "scheduler"} <= index.keys()
    assert not list(FOLDER.rglob("*.bin"))  # safetensors only
    assert not [file for file in FOLDER.rglob("*.json") if "_name_or_path" in file.read_text()]  # of who trained it


def test_topology_is_that_of_stable_diffusion_v1(pipe):
    config = pipe.unet.config
    assert (config.layers_per_block, config.sample_size, config.in_channels) == (2, 64, 4)
    assert tuple(config.down_block_types) == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    assert tuple(config.up_block_types) == ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"
    assert pipe.tokenizer.model_max_length == 77


def test_segments_are_the_scenes_parts(segmented):
    """Far above chance and above colours: the full measurement is stricter, the sample is small."""
    scores = np.array([image_score(out.labels, drawn.labels) for drawn, out in segmented])
    assert scores[:, 0].mean() > 0.8
    assert scores[:, 1].mean() > 0.6


def test_attention_beats_colours_that_know_k(segmented):
    ours = [image_score(out.labels, drawn.labels)[1] for drawn, out in segmented]
    colours = [miou_of_colours(drawn, n_init=2) for drawn, _ in segmented]
    assert np.mean(ours) > np.mean(colours) + 0.05


def test_attention_of_one_class_is_alike(segmented):
    """The property that DiffSeg depends on: distances within a class are far below those across."""
    rows, columns = anchor_grid().T
    for drawn, out in segmented[:4]:
        small = torch.from_numpy(drawn.labels[4::8, 4::8].astype(np.int64))
        distances = anchor_distances(out.attention)
        same = small[rows, columns][:, None] == small.flatten()
        assert distances[~same].mean() > 2 * distances[same].mean()


def test_same_seed_same_masks(pipe, segmented):
    drawn, out = segmented[0]
    assert torch.equal(pipe(drawn.image).labels, out.labels)


def test_diffusers_alone_generates_from_captions():
    """It denoises to a smooth picture, not to noise or one colour, and the prompt changes the picture."""
    text_to_image = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None)
    text_to_image.scheduler = DDIMScheduler.from_config(text_to_image.scheduler.config)
    text_to_image.set_progress_bar_config(disable=True)

    def generate(prompt):
        generator = torch.Generator().manual_seed(0)
        # As in its training: 256 pixels, and without guidance, which makes waves as rough as noise.
        settings = {"height": 256, "width": 256, "guidance_scale": 1.0}
        picture = text_to_image(prompt, num_inference_steps=12, generator=generator, **settings).images[0]
        return np.asarray(picture, float)

    tractor = generate("A tractor on the snow under the sky")
    duck = generate("A duck on the water in front of a forest")
    for picture in (tractor, duck):
        cells = picture.reshape(32, 8, 32, 8, 3).mean((1, 3))  # one per latent pixel
        steps = np.abs(np.diff(cells, axis=0)).mean(), np.abs(np.diff(cells, axis=1)).mean()
        assert cells.std() > 10 and max(steps) < 0.75 * cells.std()  # of white noise: 1.13 times
    assert np.abs(tractor - duck).mean() > 2


def test_threshold_is_the_one_that_tuning_chose():
    tuning = pd.read_csv(FOLDER / "tuning.csv")
    chosen = json.loads((FOLDER / "diffseg.json").read_text())["threshold"]
    assert tuning.threshold.tolist() == list(THRESHOLDS)
    assert chosen == best_threshold(tuning)


def test_training_is_logged():
    log = pd.read_csv(FOLDER / "training.csv")
    last = log.groupby("stage").loss.agg(["first", "last"])
    recipe = Recipe()
    teachers = ["nouns", *(f"places-{number}-{each.size}" for number, each in enumerate(recipe.places, 1))]
    assert set(last.index) == {*teachers, *unet_folders(recipe.unet)}
    for stage, folder in zip(recipe.unet, unet_folders(recipe.unet), strict=True):
        assert stage.steps - 10 <= log[log.stage == folder].step.max() < stage.steps
    assert last.loc["unet-2-512", "last"] < 0.2 * last.loc["unet-1-256", "first"]
