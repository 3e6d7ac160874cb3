"""The pipeline on small random models: composition, options and errors."""

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from diffusers.utils import BaseOutput
from helpers_models import tiny_components, tiny_text_encoder, tiny_unet, tiny_vae
from PIL import Image

import diffseg
from diffseg import DiffSegPipeline
from diffseg.aggregation import aggregate
from diffseg.diffuse import add_noise, embed_prompt, encode, to_tensor

SIZE = 64  # pixels; 16 latent pixels
OPTIONS = {"size": SIZE, "points": 4, "threshold": 0.001}  # what suits these near-uniform maps


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    return tiny_components(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pipe(components):
    return DiffSegPipeline(**components, threshold=0.02)


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((20, 20, 1))).astype(np.uint8)


class TestCall:
    def test_output(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        count = len(out.proposals)
        assert (out.labels.dtype, out.labels.shape) == (torch.int64, (SIZE, SIZE))
        assert out.labels.unique().tolist() == list(range(count))
        assert (out.proposals.dtype, out.proposals.shape) == (torch.float32, (count, 16, 16))
        assert torch.allclose(out.proposals.sum((1, 2)), torch.ones(count), atol=1e-5)
        assert (out.attention.dtype, out.attention.shape) == (torch.float32, (16,) * 4)
        assert torch.allclose(out.attention.sum((2, 3)), torch.ones(16, 16), atol=1e-5)
        assert (out.image.mode, out.image.size) == ("RGB", (SIZE, SIZE))

    def test_labels_and_proposals_agree(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        assert len(out.proposals) > 1
        assert torch.equal(diffseg.suppress(out.proposals, SIZE), out.labels)

    def test_proposals_that_win_no_pixel_are_dropped(self, pipe):
        attention = torch.zeros(4, 4, 4, 4)
        attention[:, :2, :, :2] = 1 / 8  # the left half looks at itself
        attention[:, 2:, :, 2:] = 1 / 8
        attention[0, 0] = 1 / 16  # one position looks everywhere: beaten everywhere
        out = pipe.segment(attention, points=2, threshold=0.1)
        assert torch.allclose(out.proposals, torch.stack([attention[0, 3], attention[3, 0]]))
        assert out.labels[0].tolist() == [1] * 8 + [0] * 8

    def test_repr_says_what_is_inside(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        segments = "1 segment:" if len(out.proposals) == 1 else f"{len(out.proposals)} segments:"
        for part in (segments, "labels 64x64", "16x16x16x16", "image 64x64", "%"):
            assert part in repr(out)
        assert len(repr(out)) < 200
        out.image = None
        assert "image" not in repr(out)

    def test_is_attend_then_segment(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        attention = pipe.attend(picture, size=SIZE)
        again = pipe.segment(attention, points=4, threshold=0.001)
        assert torch.equal(attention, out.attention)
        assert torch.equal(again.labels, out.labels)
        assert again.image is None

    def test_record_gives_the_layers_that_attend_aggregates(self, pipe, picture):
        layers = pipe.record(picture, size=SIZE, prompt="a cat", seed=3)
        attention = aggregate([layer.probs for layer in layers], size=16)
        assert torch.equal(attention, pipe.attend(picture, size=SIZE, prompt="a cat", seed=3))
        cross = pipe.record(picture, size=SIZE, kinds=("cross",), heads="all")
        assert len(cross) == len(layers)
        assert all(layer.kind == "cross" and len(layer.probs) == layer.heads for layer in cross)

    def test_one_unet_pass_and_no_decoding(self, pipe, picture, monkeypatch):
        calls = []
        hook = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
        monkeypatch.setattr(pipe.vae, "decode", None)
        try:
            pipe(picture, **OPTIONS)
        finally:
            hook.remove()
        assert len(calls) == 1

    def test_seed_and_noise(self, pipe, picture):
        def attend(**options):
            return pipe.attend(picture, size=SIZE, **options)

        assert torch.equal(attend(), attend())
        assert not torch.equal(attend(), attend(seed=1))
        assert torch.equal(attend(noise=False), attend(noise=False, seed=1))
        assert not torch.equal(attend(noise=False), attend())
        assert not torch.equal(attend(), attend(prompt="a cat"))
        assert not torch.equal(attend(), attend(timestep=301))

    def test_the_global_generator_is_left_alone(self, pipe, picture):
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        pipe(picture, **OPTIONS)
        assert torch.equal(torch.rand(1), expected)

    def test_options_reach_the_rooms(self, pipe, picture):
        attention = pipe.attend(picture, size=SIZE, weights="resolution")
        assert not torch.allclose(attention, pipe.attend(picture, size=SIZE), atol=1e-7)
        many = pipe(picture, **OPTIONS | {"threshold": 1e-6, "iterations": 1})
        few = pipe(picture, **OPTIONS | {"threshold": 100.0, "iterations": 1})
        assert len(few.proposals) == 1 < len(many.proposals)

    def test_threshold_none_is_the_models_own(self, components, picture):
        options = {"size": SIZE, "points": 4}
        for tau in (1e-6, 100.0):
            pipe = DiffSegPipeline(**components, threshold=tau)
            out, explicit = pipe(picture, **options), pipe(picture, threshold=tau, **options)
            assert torch.equal(out.labels, explicit.labels)

    def test_labels_of_another_size(self, pipe, picture):
        attention = pipe.attend(picture, size=SIZE)
        assert pipe.segment(attention, points=4, size=100).labels.shape == (100, 100)

    @pytest.mark.parametrize("size", [8, 24, 72])
    def test_any_square_size_the_model_accepts(self, pipe, picture, size):
        out = pipe(picture, size=size, points=2)
        assert out.labels.shape == (size, size)
        assert out.attention.shape == (size // 4,) * 4

    def test_half_precision(self, components, picture):
        pipe = DiffSegPipeline(**components | {"unet": tiny_unet().bfloat16()})
        attention = pipe.attend(picture, size=SIZE)
        assert attention.dtype == torch.float32
        assert torch.allclose(attention.sum((2, 3)), torch.ones(16, 16), atol=1e-5)


class TestPictures:
    """Pictures of any shape, several at once, and labels in their own pixels."""

    @pytest.fixture
    def wide(self):
        rng = np.random.default_rng(1)
        return np.kron(rng.integers(0, 256, (5, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)  # 100 x 160

    def test_the_whole_picture(self, pipe, wide):
        out = pipe(wide, crop=False, **OPTIONS)
        assert out.image.size == (104, 64)  # 160 / 100 * 64 = 102.4, to a multiple of 8
        assert out.labels.shape == (64, 104) and out.attention.shape == (16, 26, 16, 26)
        assert torch.allclose(out.attention.sum((2, 3)), torch.ones(16, 26), atol=1e-5)
        assert torch.equal(diffseg.suppress(out.proposals, (64, 104)), out.labels)

    def test_a_square_is_the_same_whole_or_cropped(self, pipe, wide):
        square = wide[:, :100]
        cropped, whole = pipe(square, **OPTIONS), pipe(square, crop=False, **OPTIONS)
        assert torch.equal(cropped.labels, whole.labels) and torch.equal(cropped.attention, whole.attention)

    @pytest.mark.parametrize("crop", [True, False])
    def test_at_original(self, pipe, wide, crop):
        out = pipe(wide, crop=crop, **OPTIONS)
        labels = out.at_original()
        assert labels.shape == (100, 160) and labels.dtype == np.int64
        inside = labels[:, 30:130] if crop else labels
        assert (labels[:, :30] == -1).all() == (labels[:, 130:] == -1).all() == crop
        assert inside.min() >= 0 and set(np.unique(inside)) <= set(out.labels.unique().tolist())
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(inside.shape, out.labels.shape))
        nearest = out.labels.numpy()[np.ix_(rows, columns)]
        assert (nearest == inside).mean() > 0.98

    def test_at_original_of_attention_alone(self, pipe, picture):
        out = pipe.segment(pipe.attend(picture, size=SIZE), points=4)
        with pytest.raises(ValueError, match="made from attention"):
            out.at_original()

    def test_a_list_goes_through_in_one_batch(self, pipe, picture, wide, monkeypatch):
        passes = []
        hook = pipe.unet.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
        try:
            outs = pipe([picture, wide, picture[::-1]], **OPTIONS)
        finally:
            hook.remove()
        assert passes == [3]
        for out, alone in zip(outs, (picture, wide, picture[::-1])):
            expected = pipe(alone, **OPTIONS)
            torch.testing.assert_close(out.attention, expected.attention, rtol=1e-4, atol=1e-7)
            assert (out.labels == expected.labels).float().mean() > 0.99
        assert outs[1].at_original().shape == (100, 160)

    def test_shapes_that_differ_go_through_apart(self, pipe, picture, wide):
        outs = pipe([picture, wide, picture], crop=False, batch_size=1, **OPTIONS)
        assert [out.image.size for out in outs] == [(80, 64), (104, 64), (80, 64)]
        assert torch.equal(outs[0].labels, outs[2].labels)

    def test_the_picture_is_read_once(self, pipe, picture, tmp_path, monkeypatch):
        path, opened = tmp_path / "picture.png", []
        Image.fromarray(picture).save(path)
        stock = Image.open
        monkeypatch.setattr(Image, "open", lambda *given: (opened.append(given), stock(*given))[1])
        pipe(path, words=["a"], **OPTIONS)
        assert len(opened) == 1

    def test_masks_and_names_of_one_prompt_come_from_one_pass(self, pipe, picture):
        passes = []
        hook = pipe.unet.register_forward_pre_hook(lambda *_: passes.append(1))
        try:
            pipe(picture, words=["a", "b"], prompted_masks=True, **OPTIONS)
            assert len(passes) == 1
            pipe(picture, words=["a", "b"], **OPTIONS)
            assert len(passes) == 1 + 2
        finally:
            hook.remove()

    def test_words_for_a_list(self, pipe, picture, wide):
        both = pipe([picture, wide], words=["a", "b"], **OPTIONS)
        for out, alone in zip(both, (picture, wide)):
            assert out.words == pipe(alone, words=["a", "b"], **OPTIONS).words

    def test_a_generator_in_place_of_the_seed(self, pipe, picture):
        def attention(**options):
            return pipe(picture, **OPTIONS, **options).attention

        first = attention(generator=torch.Generator().manual_seed(5))
        assert torch.equal(first, attention(seed=5)) and not torch.equal(first, attention())

    @pytest.mark.parametrize("batch_size", [1, 2, 4])
    def test_a_generator_gives_every_picture_the_same_noise(self, pipe, picture, batch_size):
        generator = torch.Generator().manual_seed(5)
        state = generator.get_state()
        outs = pipe([picture] * 3, generator=generator, batch_size=batch_size, **OPTIONS)
        expected = pipe(picture, seed=5, **OPTIONS).attention
        for out in outs:
            torch.testing.assert_close(out.attention, expected, rtol=1e-4, atol=1e-7)
        assert not torch.equal(generator.get_state(), state)  # the next call draws other noise

    @pytest.mark.parametrize("batch_size", [1, 2, 4])
    def test_a_generator_for_each_picture(self, pipe, picture, batch_size):
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
        outs = pipe([picture] * 3, generator=generators, batch_size=batch_size, **OPTIONS)
        for out, seed in zip(outs, (5, 6, 7), strict=True):
            expected = pipe(picture, seed=seed, **OPTIONS).attention
            torch.testing.assert_close(out.attention, expected, rtol=1e-4, atol=1e-7)

    def test_masks_and_names_share_their_latent(self, pipe, picture):
        latents, encoded = [], []
        hooks = [
            pipe.unet.register_forward_pre_hook(lambda _, args: latents.append(args[0])),
            pipe.vae.encoder.register_forward_hook(lambda *_: encoded.append(1)),
        ]
        try:
            pipe(picture, words=["a"], generator=torch.Generator().manual_seed(3), **OPTIONS)
        finally:
            for hook in hooks:
                hook.remove()
        assert len(encoded) == 1 and len(latents) == 2 and torch.equal(*latents)

    def test_outputs_are_those_of_diffusers(self, pipe, picture):
        out = pipe(picture, **OPTIONS)
        labels, proposals, *_ = pipe(picture, return_dict=False, **OPTIONS)
        assert isinstance(out, BaseOutput) and torch.equal(out["labels"], labels)
        assert torch.equal(out.to_tuple()[1], proposals)


class TestOffloading:
    """Weights that are elsewhere until they are needed; the CPU stands in for an accelerator."""

    def test_sequential(self, components, picture, tmp_path):
        expected = DiffSegPipeline(**components)(picture, **OPTIONS)
        pipe = DiffSegPipeline(**tiny_components(tmp_path))
        for name in ("vae", "text_encoder", "unet"):
            cpu_offload(getattr(pipe, name), torch.device("cpu"))
        assert pipe.unet.conv_in.weight.device.type == "meta"
        assert torch.equal(pipe(picture, **OPTIONS).labels, expected.labels)

    def test_by_component(self, components, picture, tmp_path):
        expected = DiffSegPipeline(**components)(picture, **OPTIONS)
        pipe = DiffSegPipeline(**tiny_components(tmp_path))
        pipe.enable_model_cpu_offload(device="cpu")
        assert torch.equal(pipe(picture, **OPTIONS).labels, expected.labels)

    def test_attention_slicing(self, components, picture, tmp_path):
        expected = DiffSegPipeline(**components)(picture, **OPTIONS)
        pipe = DiffSegPipeline(**tiny_components(tmp_path))
        pipe.enable_attention_slicing()
        torch.testing.assert_close(pipe(picture, **OPTIONS).attention, expected.attention, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_end_to_end(self, components, picture, tmp_path, dtype):
        pipe = DiffSegPipeline(**tiny_components(tmp_path)).to(dtype)
        out = pipe(picture, **OPTIONS)
        assert out.attention.dtype == torch.float32
        assert torch.allclose(out.attention.sum((2, 3)), torch.ones(16, 16), atol=1e-5)


class TestDiffuse:
    def test_pixels(self):
        image = Image.fromarray(np.array([[[0, 255, 51]]], dtype=np.uint8))
        assert to_tensor(image).flatten().tolist() == pytest.approx([-1, 1, -0.6])

    def test_latent_is_the_scaled_mean(self, components):
        vae, pixels = components["vae"], torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            mean = vae.quant_conv(vae.encoder(pixels))[:, :4]
            expected = vae.config.scaling_factor * mean
            torch.testing.assert_close(encode(vae, pixels), expected)

    @pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerDiscreteScheduler])
    def test_noise_follows_the_training_schedule(self, scheduler):
        latent = torch.randn(1, 4, 8, 8)
        made = scheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        kept = np.prod(1 - betas[:301])
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(5))
        expected = kept**0.5 * latent + (1 - kept) ** 0.5 * noise
        torch.testing.assert_close(add_noise(latent, made, 300, seed=5), expected.float(), rtol=1e-4, atol=1e-5)

    def test_prompt(self, components):
        tokenizer, encoder = components["tokenizer"], components["text_encoder"]
        with torch.no_grad():
            empty, long = (embed_prompt(tokenizer, encoder, p) for p in ("", "word " * 50))
        assert empty.shape == long.shape == (1, tokenizer.model_max_length, 16)
        assert not torch.equal(empty, long)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threshold": 0}, "threshold=0 must be above 0"),
            ({"threshold": [0.5, -1, 0.5]}, "must be above 0"),
            ({"threshold": [0.5]}, "1 values for iterations=3"),
            ({"points": 1}, "points=1 must be from 2 to the side of the attention, 16"),
            ({"points": 17}, "points=17 must be from 2 to the side of the attention, 16"),
            ({"iterations": 0}, "iterations=0 must be at least 1"),
            ({"timestep": -1}, "timestep=-1 is outside the model's schedule, 0 to 999"),
            ({"timestep": 1000}, "timestep=1000 is outside the model's schedule, 0 to 999"),
            ({"size": 60}, "size=60 must be a positive multiple of 8"),
            ({"size": 0}, "size=0 must be a positive multiple of 8"),
            ({"weights": "heavy"}, "weights='heavy' must be one of"),
        ],
    )
    def test_settings(self, pipe, picture, options, message):
        with pytest.raises(ValueError, match=message):
            pipe(picture, **OPTIONS | options)

    def test_settings_are_checked_before_the_unet_runs(self, pipe, picture, monkeypatch):
        monkeypatch.setattr(pipe.unet, "forward", None)
        with pytest.raises(ValueError, match="threshold"):
            pipe(picture, **OPTIONS | {"threshold": 0})

    def test_images(self, pipe, tmp_path):
        with pytest.raises(FileNotFoundError, match="gone.jpg' is not a file"):
            pipe(tmp_path / "gone.jpg", **OPTIONS)
        with pytest.raises(ValueError, match="NaN"):
            pipe(np.full((4, 4, 3), np.nan), **OPTIONS)

    def test_processors_come_back_after_an_error(self, pipe, picture):
        before = dict(pipe.unet.attn_processors)
        with pytest.raises(ValueError, match="weights"):
            pipe(picture, **OPTIONS | {"weights": "heavy"})
        assert all(pipe.unet.attn_processors[name] is old for name, old in before.items())

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ({"unet": torch.nn.Linear(1, 1)}, "unet is a Linear, not a UNet2DConditionModel"),
            ({"unet": tiny_unet(in_channels=9)}, "unet takes 9 channels and vae makes 4"),
            ({"vae": tiny_vae(latent_channels=8)}, "unet takes 4 channels and vae makes 8"),
            ({"text_encoder": tiny_text_encoder(24)}, "width 16 and text_encoder writes 24"),
            (
                {
                    "unet": tiny_unet(
                        addition_embed_type="text_time",
                        addition_time_embed_dim=8,
                        projection_class_embeddings_input_dim=64,
                    )
                },
                "needs inputs besides an image and a prompt .addition_embed_type",
            ),
        ],
    )
    def test_models_unlike_stable_diffusion(self, components, part, message):
        with pytest.raises(ValueError, match=message):
            DiffSegPipeline(**components | part)
