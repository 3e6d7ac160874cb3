"""Every family of models, on small random ones: any picture, saving and loading, and what the stock pipelines do."""

import inspect
import json

import helpers_pipelines as small
import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from helpers_models import tiny_pixart, tiny_unet, tiny_vae

from diffseg import DiffSegPipeline
from diffseg.backbones import FAMILIES, Backbone, find_backbone
from diffseg.backbones.sd3 import interpolate
from diffseg.diffuse import encode
from diffseg.semantics import find_tokens, name_words

SIZE = 64
OPTIONS = {"size": SIZE, "points": 2, "threshold": 1e-4}  # what suits these near-uniform maps

UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

# Components, the stock pipeline and what else it takes, and the pixels per position of attention.
MODELS = {
    "SD v1": (small.sd1, StableDiffusionPipeline, UNCHECKED, 4),
    "SD v2": (small.sd2, StableDiffusionPipeline, UNCHECKED, 4),
    "distilled": (small.distilled, StableDiffusionPipeline, UNCHECKED, 4),
    "SDXL": (small.sdxl, StableDiffusionXLPipeline, {"add_watermarker": False}, 8),
    "SD3": (small.sd3, StableDiffusion3Pipeline, {}, 8),
    "SD3 without T5": (small.sd3_without_t5, StableDiffusion3Pipeline, {}, 8),
    "FLUX": (small.flux, FluxPipeline, {}, 8),
    "FLUX schnell": (small.schnell, FluxPipeline, {}, 8),
}
FLOWS = [name for name in MODELS if name.startswith(("SD3", "FLUX"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module", params=MODELS)
def model(request, folder):
    """The name of a model and its pipeline."""
    return request.param, DiffSegPipeline(**MODELS[request.param][0](folder), threshold=0.5)


def build(name, folder):
    return DiffSegPipeline(**MODELS[name][0](folder))


def stock_pipeline(name, pipe):
    """The stock pipeline with the same components."""
    _, stock, options, _ = MODELS[name]
    parts = {part: getattr(pipe, part) for part in (*pipe.backbone.parts, *getattr(pipe.backbone, "optional", ()))}
    made = stock(**parts, **options)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def wide():
    rng = np.random.default_rng(1)
    return np.kron(rng.integers(0, 256, (4, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8)  # 64 x 96


def check_alike(pipe, other, picture):
    """The same attention, up to rounding: weights that lie elsewhere in memory are added up in another order."""
    mine, theirs = (each.attend(picture, "a cat", size=SIZE) for each in (pipe, other))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def check_output(out, height, width, pixels):
    rows, columns = height // pixels, width // pixels
    assert out.labels.shape == (height, width) and out.image.size == (width, height)
    assert out.attention.shape == (rows, columns, rows, columns) and out.attention.dtype == torch.float32
    torch.testing.assert_close(out.attention.sum((2, 3)), torch.ones(rows, columns))
    assert out.labels.unique().tolist() == list(range(len(out.proposals)))
    torch.testing.assert_close(out.proposals.sum((1, 2)), torch.ones(len(out.proposals)))


# ---- any picture ----------------------------------------------------------------------------------------------------


def test_square_and_whole(model, wide):
    name, pipe = model
    pixels = MODELS[name][3]
    check_output(pipe(wide, **OPTIONS), SIZE, SIZE, pixels)
    check_output(pipe(wide, crop=False, **OPTIONS), 64, 96, pixels)
    check_output(pipe(wide.transpose(1, 0, 2), crop=False, **OPTIONS), 96, 64, pixels)


def test_a_list_is_what_each_picture_is_alone(model, wide):
    _, pipe = model
    pictures = [wide, wide[::-1].copy(), wide[:, ::-1].copy()]
    for out, picture in zip(pipe(pictures, prompt="a cat", **OPTIONS), pictures, strict=True):
        expected = pipe(picture, prompt="a cat", **OPTIONS).attention
        torch.testing.assert_close(out.attention, expected, rtol=1e-3, atol=1e-6)
    assert not torch.equal(expected, pipe(wide, prompt="a cat", **OPTIONS).attention)


def test_words(model, wide):
    name, pipe = model
    out, second = pipe([wide, wide[::-1].copy()], words=["a", "cat"], **OPTIONS)
    check_output(out, SIZE, SIZE, MODELS[name][3])
    assert set(out.words) | set(second.words) <= {"a", "cat"}
    assert len(out.words) == len(out.proposals) == len(out.confidence)
    assert all(0.5 <= confidence <= 1 for confidence in out.confidence)


def test_the_tokens_of_words_are_keys_of_cross_attention(model, wide):
    """The encoder that reads these tokens is the one whose states come first among the keys."""
    _, pipe = model
    tokenizer = pipe.backbone.tokenizer(pipe)
    encoder = pipe.text_encoder if tokenizer is pipe.tokenizer else pipe.text_encoder_2
    (tokens,) = find_tokens(tokenizer, "a, dog", name_words(["a", "dog"])[1][1:])
    read = []
    hook = encoder.register_forward_hook(lambda _, args, states: read.append((args[0][0], states)))
    try:
        layers = pipe.record(wide, "a, dog", size=SIZE, kinds=("cross",))
        (keys,) = pipe.backbone.embed(pipe, ["a, dog"])["encoder_hidden_states"]
    finally:
        hook.remove()
    ids, states = read[0]
    assert tokenizer.decode(ids[tokens]).replace(" ", "") == "dog"
    written = [each for each in (states.last_hidden_state, *(states.hidden_states or ())) if each.shape[1] == len(ids)]
    assert any(torch.allclose(each[0], keys[: len(ids), : each.shape[2]], atol=1e-4) for each in written)
    assert {layer.probs.shape[-1] for layer in layers} == {len(keys)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_half_precision(name, dtype, folder, wide):
    pipe = build(name, folder)
    expected = pipe(wide, crop=False, **OPTIONS).attention
    out = pipe.to(dtype)(wide, crop=False, words=["a"], **OPTIONS)
    check_output(out, 64, 96, MODELS[name][3])
    assert (out.attention - expected).abs().sum((2, 3)).max() < 0.2  # twice the total variation, of 2 at most


@pytest.mark.parametrize("offload", ["by component", "layer by layer"])
@pytest.mark.parametrize("name", ["SDXL", "SD3", "FLUX"])
def test_offloading(name, offload, folder, wide):
    """Weights that are elsewhere until they are needed; the CPU stands in for an accelerator."""
    expected, pipe = build(name, folder), build(name, folder)
    if offload == "by component":
        pipe.enable_model_cpu_offload(device="cpu")
    else:
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                cpu_offload(part, torch.device("cpu"))
        assert next(getattr(pipe, pipe.backbone.denoiser).parameters()).device.type == "meta"
    check_alike(pipe, expected, wide)


def test_an_autoencoder_that_overflows_in_half_precision_encodes_in_single(folder):
    """Stable Diffusion XL's does, and says so in its configuration."""
    pixels = torch.rand(1, 3, 32, 32)
    for upcast in (True, False):
        vae = tiny_vae(force_upcast=upcast)
        vae.quant_conv.weight.data *= 1e6  # float16 ends at 65504
        vae.quant_conv.weight.data.clamp_(-6e4, 6e4)
        with torch.no_grad():
            vae.half()
            latent = encode(vae, pixels)
            assert vae.dtype == torch.float16
            if upcast:
                torch.testing.assert_close(latent, encode(vae.float(), pixels))
            else:
                assert not latent.isfinite().all()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_round_trip(model, wide, tmp_path, caplog):
    _, pipe = model
    pipe.save_pretrained(tmp_path)
    with caplog.at_level("WARNING"):
        again = DiffSegPipeline.from_pretrained(tmp_path)
    assert not caplog.records
    assert again.threshold == 0.5 and type(again.backbone) is type(pipe.backbone)
    check_alike(again, pipe, wide)


def test_a_folder_of_the_stock_pipeline(model, wide, tmp_path, caplog):
    name, pipe = model
    stock_pipeline(name, pipe).save_pretrained(tmp_path)
    caplog.clear()
    with caplog.at_level("WARNING"):
        again = DiffSegPipeline.from_pretrained(tmp_path)
    assert not caplog.records
    check_alike(again, pipe, wide)


def test_the_stock_pipeline_loads_our_folder(model, tmp_path):
    name, pipe = model
    pipe.save_pretrained(tmp_path)
    _, stock, options, _ = MODELS[name]
    absent = {part: None for part in getattr(pipe.backbone, "optional", ()) if getattr(pipe, part) is None}
    again = stock.from_pretrained(tmp_path, **options, **absent)
    for part in pipe.backbone.parts:
        assert type(getattr(again, part)) is type(getattr(pipe, part)), part


# ---- what the stock pipelines hand to their model --------------------------------------------------------------------


def arguments_of(denoiser, run):
    """What the model is given in the first pass of a run, by name, without the latent."""
    seen, signature = [], inspect.signature(denoiser.forward)
    hook = denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(signature.bind(*args, **kwargs).arguments), with_kwargs=True
    )
    try:
        run()
    finally:
        hook.remove()
    given = seen[0] | (seen[0].get("added_cond_kwargs") or {})
    left_out = {"sample", "hidden_states", "added_cond_kwargs", "return_dict", "joint_attention_kwargs", "kwargs"}
    return {name: value for name, value in given.items() if name not in left_out and value is not None}


def compare_with_stock(name, pipe, picture, prompt, step, **options):
    """Ours, and those that the stock pipeline gives in a step of sampling at the same time."""
    denoiser = getattr(pipe, pipe.backbone.denoiser)
    stock = stock_pipeline(name, pipe)
    schedule = {"sigmas": [step]} if name in FLOWS else {"timesteps": [step]}
    made = {"height": SIZE, "width": SIZE, "output_type": "latent", "num_inference_steps": 1} | schedule | options
    theirs = arguments_of(denoiser, lambda: stock("a" if prompt == "" else prompt, **made))
    timestep = round(float(stock.scheduler.timesteps[0]))
    ours = arguments_of(denoiser, lambda: pipe.attend(picture, prompt, timestep=timestep, size=SIZE))
    return ours, theirs


@pytest.mark.parametrize("name", MODELS)
def test_conditions_of_a_prompt_are_those_of_the_stock_pipeline(name, folder, wide):
    pipe = build(name, folder)
    step = 0.1 if name in FLOWS else 300  # 0.1 becomes 0.25 by the schedule's shift
    guidance = 3.5 if name == "FLUX" else 1.0  # 1: no second pass without the prompt
    ours, theirs = compare_with_stock(name, pipe, wide, "a cat", step, guidance_scale=guidance)
    assert ours.keys() == theirs.keys()
    for argument, value in ours.items():
        expected = torch.as_tensor(theirs[argument]).float()
        torch.testing.assert_close(torch.as_tensor(value).float().expand(expected.shape), expected, msg=argument)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("FLUX")])
def test_conditions_of_the_empty_prompt_are_those_of_guidance(name, folder, wide):
    """The stock pipelines' first half of the batch has no prompt. FLUX is distilled and has no such half."""
    pipe = build(name, folder)
    step = 0.1 if name in FLOWS else 300
    ours, theirs = compare_with_stock(name, pipe, wide, "", step, guidance_scale=2.0)
    for argument, value in ours.items():
        if argument != "timestep":
            torch.testing.assert_close(value, theirs[argument][:1].to(value.dtype), msg=argument)
    assert (ours["encoder_hidden_states"] == 0).all() == (name == "SDXL")
    assert name != "SDXL" or (ours["text_embeds"] == 0).all()


def test_xl_is_told_the_size_of_the_picture(folder, wide):
    pipe = build("SDXL", folder)
    given = arguments_of(pipe.unet, lambda: pipe.attend(wide, size=SIZE, crop=False))
    assert given["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]


# ---- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_the_noise_of_flows_is_that_of_the_scheduler(name, folder):
    pipe = build(name, folder)
    latent, noise = torch.randn(2, 2, 4, 8, 8)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    for sigma, timestep in ((0.1, 250), (0.25, 500), (0.5, 750)):  # by the schedule's shift
        scheduler.set_timesteps(sigmas=[sigma])
        assert scheduler.timesteps.tolist() == pytest.approx([timestep])
        expected = scheduler.scale_noise(latent, scheduler.timesteps, noise)
        torch.testing.assert_close(pipe.backbone.add_noise(pipe, latent, noise, timestep), expected)


def test_a_flow_is_a_straight_line():
    latent, noise = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=500, shift=3.0)
    for step in (0, 100, 250):
        assert torch.equal(interpolate(latent, noise, step, scheduler), torch.full_like(latent, step / 500))


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_families_follow_the_protocol():
    assert all(isinstance(family, Backbone) for family in FAMILIES)


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("SD v1", {"unet": tiny_unet(in_channels=9)}, "unet takes 9 channels and vae makes 4, as in a model for inp"),
        ("SDXL", {"unet": tiny_unet()}, "unet has the added condition None, not 'text_time'"),
        ("SDXL", {"vae": tiny_vae(latent_channels=8)}, "unet takes 4 channels and vae makes 8"),
        ("SD3", {"vae": tiny_vae(latent_channels=8)}, "transformer takes 4 channels and vae makes 8"),
        ("FLUX", {"vae": tiny_vae(latent_channels=8)}, "transformer takes 16 channels.*expected 32"),
        ("FLUX", {"transformer": tiny_pixart()[0]}, "transformer is a PixArtTransformer2DModel, not a SD3.* or Flux"),
        ("FLUX", {"tokenizer_2": None, "scheduler": None}, "comes without tokenizer_2, scheduler"),
        ("SDXL", {"scheduler": None}, "comes without scheduler"),
    ],
)
def test_parts_that_do_not_fit(name, part, message, folder):
    with pytest.raises(ValueError, match=message) as error:
        DiffSegPipeline(**MODELS[name][0](folder) | part)
    assert "Pass " in str(error.value)


@pytest.mark.parametrize("kind", ["PixArtTransformer2DModel", "QwenImageTransformer2DModel", "Flux2Transformer2DModel"])
def test_folders_of_transformers_that_are_not_known(kind, tmp_path):
    parts = dict.fromkeys(["vae", "text_encoder", "tokenizer", "transformer", "scheduler"], ["diffusers", kind])
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SomePipeline", **parts}))
    with pytest.raises(ValueError, match=f"a SomePipeline: transformer is a {kind}, not a SD3.*Pass 'pocket'"):
        DiffSegPipeline.from_pretrained(tmp_path)


def test_parts_by_the_names_of_their_classes(folder):
    for make, *_ in MODELS.values():
        parts = make(folder)
        classes = {name: part and type(part).__name__ for name, part in parts.items()}
        assert find_backbone(classes) is find_backbone(parts)
