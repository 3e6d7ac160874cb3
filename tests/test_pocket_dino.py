"""The embedded vision transformer: small, loadable by transformers alone, and better than an untrained one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ViTModel

from diffseg.dino import DinoSegPipeline
from diffseg.models.paths import data_dir
from diffseg.pocket import VALIDATION_SEED, scene
from diffseg.pocket.training.dino import GLOBAL_SCALE, build_vit, views

FOLDER = data_dir() / "models" / "pocket-dino"
SCENES = 96


@pytest.fixture(scope="module")
def crops():
    """Two global crops of each of some scenes that it was not trained on: [2, scenes, 3, 112, 112]."""
    drawn = [np.asarray(scene(VALIDATION_SEED + index, 224).image) for index in range(SCENES)]
    pictures = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 255
    return views(pictures, 2, GLOBAL_SCALE, 112, np.random.default_rng(0))


def share_found(vit, crops):
    """How often, of all second crops, that of the same scene has the most similar class token."""
    with torch.no_grad():
        tokens = [vit(half, interpolate_pos_encoding=True).last_hidden_state[:, 0] for half in crops]
    first, second = (F.normalize(half - half.mean(dim=0), dim=1) for half in tokens)
    return ((first @ second.T).argmax(dim=1) == torch.arange(SCENES)).float().mean().item()


def test_folder_is_small_and_stock_transformers_load_it():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 15e6
    config = ViTModel.from_pretrained(FOLDER, add_pooling_layer=False).config
    assert (config.image_size, config.patch_size) == (224, 8) and config.num_hidden_layers > 3


def test_crops_of_one_scene_are_told_from_those_of_others(crops):
    """What it was trained for, if briefly. By chance it would be one of a hundred; an untrained one finds 15."""
    torch.manual_seed(0)
    trained = share_found(ViTModel.from_pretrained(FOLDER, add_pooling_layer=False, dtype=torch.float32).eval(), crops)
    assert trained > 0.3 and trained > share_found(build_vit().eval(), crops) + 0.15


def test_it_segments():
    out = DinoSegPipeline.from_pretrained("pocket")(scene(VALIDATION_SEED).image)
    assert out.labels.shape == (512, 512) and 1 < len(out.proposals) < 60
    torch.testing.assert_close(out.attention.sum((2, 3)), torch.ones(28, 28), atol=1e-4, rtol=0)
