"""DinoSeg on small random transformers: attention against transformers' own, composition, loading and errors."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import diffseg
from diffseg.dino import DINO, DINO_POINTS, DinoSegPipeline, head_mean_attention
from diffseg.merging import anchor_grid
from diffseg.models import paths

SIZE = 64  # pixels of the labels
OPTIONS = {"size": SIZE, "points": 4, "threshold": 0.05}


def tiny_vit(**changes):
    """4 x 4 patches; weights large enough for attention that is far from uniform."""
    torch.manual_seed(0)
    config = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "initializer_range": 0.4,
    } | changes
    return ViTModel(ViTConfig(**config), add_pooling_layer=False).eval()


def processor():
    return ViTImageProcessorPil(size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def pipe():
    return DinoSegPipeline(tiny_vit(), processor(), threshold=0.02)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 32 x 32


class TestAttention:
    def test_is_the_mean_of_all_heads_and_layers_without_the_class_token(self, pipe, picture):
        """Oracle: transformers' eager attention, averaged by hand in float64."""
        eager = tiny_vit()
        eager.set_attn_implementation("eager")
        pixels = torch.from_numpy(picture / 127.5 - 1).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            layers = eager(pixels, output_attentions=True).attentions
        heads = np.concatenate([probs.double().numpy() for probs in layers]).reshape(-1, 17, 17)
        assert len(heads) == 3 * 2
        mean = sum(heads) / 6
        expected = np.zeros((4, 4, 4, 4))
        for query in range(16):
            row = mean[1 + query, 1:]
            expected[query // 4, query % 4] = (row / row.sum()).reshape(4, 4)
        attention = pipe.attend(picture)
        assert attention.dtype == torch.float32
        assert attention.std() > 0.02  # something to compare
        np.testing.assert_allclose(attention, expected, rtol=1e-4, atol=1e-7)

    def test_one_map_per_layer_is_kept_and_the_model_computes_the_same(self, pipe):
        eager = tiny_vit()
        eager.set_attn_implementation("eager")
        pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, out = eager(pixels), pipe.model(pixels, output_attentions=True)
        torch.testing.assert_close(out.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-5)
        assert [probs.shape for probs in out.attentions] == [(2, 17, 17)] * 3

    @pytest.mark.parametrize("scaling", [None, 0.3])
    def test_head_mean_follows_the_formula(self, scaling):
        generator = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(3))
        out, mean = head_mean_attention(torch.nn.Identity(), query, key, value, scaling=scaling, dropout=0.0)
        total = np.zeros((5, 5))
        for head in range(2):
            for i in range(5):
                scores = [float(query[0, head, i] @ key[0, head, j]) * (scaling or 4**-0.5) for j in range(5)]
                probs = np.exp(scores) / np.exp(scores).sum()
                total[i] += probs / 2
                np.testing.assert_allclose(out[0, i, head], probs @ value[0, head].numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(mean[0], total, rtol=1e-4, atol=1e-6)

    def test_half_precision(self, saved, picture):
        attention = DinoSegPipeline.from_pretrained(saved, dtype=torch.bfloat16).attend(picture)
        assert attention.dtype == torch.float32
        torch.testing.assert_close(attention.sum((2, 3)), torch.ones(4, 4))


class TestCall:
    def test_output(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        count = len(out.proposals)
        assert (out.labels.dtype, out.labels.shape) == (torch.int64, (SIZE, SIZE))
        assert count > 1 and out.labels.unique().tolist() == list(range(count))
        assert out.proposals.shape == (count, 4, 4)
        torch.testing.assert_close(out.proposals.sum((1, 2)), torch.ones(count))
        torch.testing.assert_close(out.attention.sum((2, 3)), torch.ones(4, 4))
        assert out.image.size == (SIZE, SIZE)
        assert torch.equal(diffseg.suppress(out.proposals, SIZE), out.labels)

    def test_is_attend_then_segment(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        attention = pipe.attend(picture)
        assert torch.equal(attention, out.attention)
        again = pipe.segment(attention, **OPTIONS)
        assert torch.equal(again.labels, out.labels) and again.image is None

    def test_any_image_is_cropped_and_resized_once(self, pipe, picture):
        wide = np.concatenate([np.zeros((32, 10, 3), np.uint8), picture, np.zeros((32, 10, 3), np.uint8)], axis=1)
        assert torch.equal(pipe(wide, **OPTIONS).attention, pipe.attend(picture))

    def test_threshold_none_is_the_models_own(self, picture):
        for tau, few in ((1e-6, False), (100.0, True)):
            out = DinoSegPipeline(tiny_vit(), processor(), threshold=tau)(picture, points=4, size=SIZE)
            assert (len(out.proposals) == 1) == few

    def test_default_anchors_reach_the_border(self):
        rows = anchor_grid(28, DINO_POINTS)[:, 0].unique().tolist()
        assert rows == list(range(0, 28, 2))
        middle = anchor_grid(28, diffseg.POINTS)[:, 0].unique().tolist()
        assert middle == list(range(6, 22))

    def test_default_size_is_that_of_the_other_pipeline(self, pipe, picture):
        assert pipe(picture, points=4).labels.shape == (diffseg.IMAGE_SIZE, diffseg.IMAGE_SIZE)


class TestLoading:
    def test_round_trip(self, pipe, saved, picture):
        again = DinoSegPipeline.from_pretrained(str(saved))
        assert again.threshold == 0.02
        assert torch.equal(again(picture, **OPTIONS).labels, pipe(picture, **OPTIONS).labels)

    def test_transformers_alone_loads_our_folder(self, pipe, saved):
        stock = ViTModel.from_pretrained(saved, add_pooling_layer=False)
        pixels = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            heads = stock.double().eval()(pixels.double()).last_hidden_state
            torch.testing.assert_close(heads.float(), pipe.model(pixels).last_hidden_state, rtol=1e-3, atol=1e-4)

    def test_we_load_the_stock_folder(self, tmp_path):
        tiny_vit().save_pretrained(tmp_path)
        processor().save_pretrained(tmp_path)
        assert DinoSegPipeline.from_pretrained(tmp_path).threshold == diffseg.THRESHOLD
        assert DinoSegPipeline.from_pretrained(tmp_path, threshold=0.5).threshold == 0.5

    def test_half_on_disk_is_full_in_memory(self, tmp_path, picture):
        DinoSegPipeline(tiny_vit().half(), processor(), 0.3).save_pretrained(tmp_path)
        pipe = DinoSegPipeline.from_pretrained(tmp_path)
        assert (pipe.model.dtype, pipe.threshold) == (torch.float32, 0.3)
        assert pipe.to(torch.bfloat16).model.dtype == torch.bfloat16
        assert pipe.device.type == "cpu"

    def test_pocket_is_in_the_data_folder(self, saved, monkeypatch, tmp_path):
        shutil.copytree(saved, tmp_path / "models" / "pocket-dino")
        monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
        monkeypatch.delenv("DIFFSEG_MODEL", raising=False)
        for name in ("pocket", None):
            assert DinoSegPipeline.from_pretrained(name).threshold == 0.02

    def test_beside_stable_diffusion_the_default_is_the_papers(self, saved, monkeypatch, tmp_path):
        repository = tmp_path / f"models--{DINO.replace('/', '--')}"
        shutil.copytree(saved, repository / "snapshots" / "0123abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abc")
        monkeypatch.setenv("DIFFSEG_MODEL", "CompVis/stable-diffusion-v1-4")
        pipe = DinoSegPipeline.from_pretrained(cache_dir=tmp_path, local_files_only=True)
        assert pipe.image_size == 32
        assert pipe.threshold == diffseg.THRESHOLD  # a hub model carries none


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threshold": 0}, "threshold=0 must be above 0"),
            ({"threshold": [0.5]}, "1 values for iterations=3"),
            ({"points": 5}, "points=5 must be from 2 to the side of the attention, 4"),
            ({"iterations": 0}, "iterations=0 must be at least 1"),
            ({"size": 0}, "size=0 must be at least 1"),
        ],
    )
    def test_settings_are_checked_before_the_model_runs(self, pipe, picture, options, message):
        calls = []
        hook = pipe.model.register_forward_hook(lambda *_: calls.append(1))
        try:
            with pytest.raises(ValueError, match=message):
                pipe(picture, **OPTIONS | options)
        finally:
            hook.remove()
        assert not calls

    def test_images(self, pipe, tmp_path):
        with pytest.raises(FileNotFoundError, match="gone.jpg' is not a file"):
            pipe(tmp_path / "gone.jpg", **OPTIONS)

    def test_other_models(self, tmp_path):
        bert = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
        BertModel(bert).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="has the model type 'bert', not 'vit'. Pass 'pocket'"):
            DinoSegPipeline.from_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": [32, 64]}))
        with pytest.raises(ValueError, match=r"takes images of \[32, 64\] in patches of 16 pixels"):
            DinoSegPipeline.from_pretrained(tmp_path)

    def test_other_objects(self):
        with pytest.raises(Exception, match="Linear"):
            DinoSegPipeline(torch.nn.Linear(1, 1), processor())

    def test_a_missing_pocket_model(self, monkeypatch, tmp_path):
        monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
        with pytest.raises(FileNotFoundError, match="pocket-dino"):
            DinoSegPipeline.from_pretrained("pocket")
