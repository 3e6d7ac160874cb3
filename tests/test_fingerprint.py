"""Fingerprints of models: the same for the same model however it came, another after any change that can matter."""

import json

import pytest
import torch
from helpers_models import tiny_components

from diffseg import DiffSegPipeline, DinoSegPipeline
from diffseg.models.captioner import Captioner
from diffseg.models.fingerprint import LENGTH, fingerprint


@pytest.fixture
def pipe(tmp_path):
    return DiffSegPipeline(**tiny_components(tmp_path))


def test_is_short_and_the_same_twice(pipe):
    assert len(fingerprint(pipe)) == LENGTH and int(fingerprint(pipe), 16) >= 0
    assert fingerprint(pipe) == fingerprint(pipe)


def test_does_not_depend_on_the_folder_or_the_threshold(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "one")
    loaded = DiffSegPipeline.from_pretrained(tmp_path / "one", threshold=0.7)
    loaded.save_pretrained(tmp_path / "two")
    again = DiffSegPipeline.from_pretrained(tmp_path / "two")
    assert fingerprint(pipe) == fingerprint(loaded) == fingerprint(again)


def test_a_call_changes_nothing(pipe):
    before = fingerprint(pipe)
    pipe(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy(), size=64, words=["a"])
    assert fingerprint(pipe) == before


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_every_weight_counts(pipe, part, tmp_path):
    before = fingerprint(pipe)
    with torch.no_grad():
        list(getattr(pipe, part).parameters())[-1].view(-1)[0].add_(1e-3)
    after = fingerprint(pipe)
    assert after != before
    pipe.save_pretrained(tmp_path / "changed")
    assert fingerprint(DiffSegPipeline.from_pretrained(tmp_path / "changed")) == after


def test_two_weights_of_one_shape_are_not_exchanged_unnoticed(pipe):
    before = fingerprint(pipe)
    block = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    block.to_q, block.to_k = block.to_k, block.to_q
    assert fingerprint(pipe) != before


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("scheduler/scheduler_config.json", "beta_end", 0.013),
        ("unet/config.json", "norm_eps", 1e-3),
        ("vae/config.json", "scaling_factor", 0.2),
        ("text_encoder/config.json", "layer_norm_eps", 1e-3),
        ("tokenizer/tokenizer_config.json", "model_max_length", 50),
    ],
)
def test_every_setting_counts(pipe, tmp_path, file, key, value):
    pipe.save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / file).read_text())
    assert settings[key] != value
    (tmp_path / "model" / file).write_text(json.dumps(settings | {key: value}))
    assert fingerprint(DiffSegPipeline.from_pretrained(tmp_path / "model")) != fingerprint(pipe)


def test_precision_counts(pipe):
    before = fingerprint(pipe)
    assert fingerprint(pipe.to(torch.bfloat16)) != before


def test_dino_and_captioner_have_their_own():
    dino, captioner = DinoSegPipeline.from_pretrained("pocket"), Captioner.from_pretrained("pocket")
    before = fingerprint(dino), fingerprint(captioner)
    assert before[0] != before[1]
    dino.processor.image_mean = [0.4, 0.5, 0.5]
    with torch.no_grad():
        captioner.model.vision_model.embeddings.class_embedding.add_(1e-3)
    assert fingerprint(dino) != before[0] and fingerprint(captioner) != before[1]


def test_what_has_no_weights():
    with pytest.raises(TypeError, match="model has the type str; pass a loaded pipeline"):
        fingerprint("pocket")
