"""The recorder: same output, right probabilities, everything put back; on UNets and on transformers."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor
from helpers_models import (
    COLUMNS,
    ROWS,
    TEXT_WIDTH,
    TOKENS,
    WORDS,
    tiny_flux,
    tiny_pixart,
    tiny_qwen_image,
    tiny_sd3,
    tiny_unet,
    tiny_vae,
    tiny_z_image,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffseg import attention as attention_module
from diffseg.attention import attention_probabilities, record_attention


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


def one_input(side=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 4, side, side, generator=generator)
    text = torch.randn(1, TOKENS, TEXT_WIDTH, generator=generator)
    return latent.to(dtype), 300, text.to(dtype)


def run(unet, *inputs):
    with torch.no_grad():
        return unet(*inputs).sample


class Spy(AttnProcessor):
    """Plain attention that writes down the probabilities diffusers computes."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        self.seen.append(attn.get_attention_scores(query, key))
        return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)


@pytest.mark.parametrize("heads", ["mean", "all"])
@pytest.mark.parametrize("kinds", [("self",), ("cross",), ("self", "cross")])
@pytest.mark.parametrize("block", [64, 2**20])
def test_the_output_stays_the_same(unet, monkeypatch, heads, kinds, block):
    monkeypatch.setitem(attention_module.BLOCK, "cpu", block)
    stock = run(unet, *one_input())
    with record_attention(unet, kinds, heads) as layers:
        recorded = run(unet, *one_input())
    assert layers
    assert torch.equal(recorded, stock)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_head_dim": (2, 4)},
        {"use_linear_projection": True},
        {"upcast_attention": True},
        {"layers_per_block": 1, "transformer_layers_per_block": 2},
        {
            "block_out_channels": (8, 16, 16),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3,
            "up_block_types": ("CrossAttnUpBlock2D",) * 3,
            "dual_cross_attention": False,
        },
        {"down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D")},
        {"only_cross_attention": (True, False)},
    ],
)
def test_any_unet(changes):
    unet = tiny_unet(**changes)
    stock = run(unet, *one_input())
    with record_attention(unet, ("self", "cross")) as layers:
        recorded = run(unet, *one_input())
    assert torch.equal(recorded, stock)
    assert len(layers) == len(unet.attn_processors)


def test_what_is_recorded(unet):
    with record_attention(unet, ("self", "cross")) as layers:
        run(unet, *one_input())
    assert {f"{layer.name}.processor" for layer in layers} == set(unet.attn_processors)
    selfs = [layer for layer in layers if layer.kind == "self"]
    assert [(layer.place, layer.size) for layer in selfs] == [
        ("down", 16),
        ("down", 16),
        ("mid", 8),
        ("up", 16),
        ("up", 16),
        ("up", 16),
    ]
    for layer in layers:
        keys = layer.size**2 if layer.kind == "self" else TOKENS
        assert layer.probs.shape == (layer.size**2, keys)
        assert layer.probs.dtype == torch.float32
        assert not layer.probs.requires_grad
        assert layer.heads == 4
        assert torch.allclose(layer.probs.sum(-1), torch.ones(layer.size**2), atol=1e-5)
        assert layer.place == layer.stage and layer.grid == (layer.size, layer.size) and layer.text_share is None
        assert layer.name in repr(layer) and f"{layer.size}x{layer.size}" in repr(layer)


def test_probabilities_are_those_of_diffusers(unet):
    seen, old = [], dict(unet.attn_processors)
    unet.set_attn_processor(Spy(seen))
    run(unet, *one_input())
    unet.set_attn_processor(old)
    with record_attention(unet, ("self", "cross"), heads="all") as apart:
        run(unet, *one_input())
    with record_attention(unet, ("self", "cross"), heads="mean") as mean:
        run(unet, *one_input())
    assert len(seen) == len(apart) == len(mean) == 12
    for expected, every, average in zip(seen, apart, mean, strict=True):
        torch.testing.assert_close(every.probs, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(average.probs, expected.mean(0), rtol=1e-4, atol=1e-6)


def test_half_precision_models_are_recorded_in_float32():
    unet = tiny_unet().bfloat16()
    stock = run(unet, *one_input(dtype=torch.bfloat16))
    with record_attention(unet) as layers:
        recorded = run(unet, *one_input(dtype=torch.bfloat16))
    assert recorded.dtype == torch.bfloat16
    assert torch.equal(recorded, stock)
    for layer in layers:
        assert layer.probs.dtype == torch.float32
        assert torch.allclose(layer.probs.sum(-1), torch.ones(layer.size**2), atol=1e-5)


def test_under_autocast(unet):
    with torch.autocast("cpu", torch.bfloat16):
        stock = run(unet, *one_input())
        with record_attention(unet) as layers:
            recorded = run(unet, *one_input())
    assert torch.equal(recorded, stock)
    sums = layers[0].probs.sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


def test_gradients_flow_through_a_recorded_pass(unet):
    latent, timestep, text = one_input()
    latent.requires_grad_()

    def gradient():
        return torch.autograd.grad(unet(latent, timestep, text).sample.square().sum(), latent)[0]

    stock = gradient()
    with record_attention(unet):
        recorded = gradient()
    assert torch.equal(recorded, stock)


class Storages(TorchDispatchMode):
    """Remembers the storages that tensors are made in: address -> elements."""

    def __init__(self):
        super().__init__()
        self.elements = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage()
            self.elements[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return made


@pytest.mark.parametrize("n_heads", [1, 5])
@pytest.mark.parametrize("block", [16, 100, 2**20])
def test_never_all_scores_at_once(monkeypatch, n_heads, block):
    """Besides the result, a block of scores and one of probabilities, whatever the number of heads."""
    monkeypatch.setitem(attention_module.BLOCK, "cpu", block)
    query, key = both = torch.randn(2, n_heads, 16, 1)
    with Storages() as storages:
        probs = attention_probabilities(query, key)
    del storages.elements[probs.untyped_storage().data_ptr()]
    assert 2 * 16 <= max(storages.elements.values()) <= max(2 * min(block, n_heads * 16 * 16), both.numel())
    torch.testing.assert_close(probs, (query @ key.mT).softmax(-1).mean(0))


@pytest.mark.parametrize("heads", ["mean", "all"])
@pytest.mark.parametrize("queries", [1, 7, 30])
@pytest.mark.parametrize("block", [1, 64, 100, 500])
def test_blocks_that_do_not_come_out_even(monkeypatch, heads, queries, block):
    monkeypatch.setitem(attention_module.BLOCK, "cpu", block)
    query, key = torch.randn(5, queries, 4), torch.randn(5, 9, 4)
    expected = (query @ key.mT / 2).softmax(-1)
    probs = attention_probabilities(query, key, heads=heads)
    torch.testing.assert_close(probs, expected.mean(0) if heads == "mean" else expected)


@pytest.mark.parametrize("heads", ["mean", "all"])
@pytest.mark.parametrize("bias_rows", [1, 9])
def test_a_bias_masks_keys(heads, bias_rows, monkeypatch):
    monkeypatch.setitem(attention_module.BLOCK, "cpu", 24)
    query, key = torch.randn(2, 2, 9, 4)
    bias = torch.zeros(2, bias_rows, 9)
    bias[:, :, 5:] = float("-inf")
    probs = attention_probabilities(query, key, 1.0, bias, heads)
    expected = (query @ key.mT + bias).softmax(-1)
    torch.testing.assert_close(probs, expected.mean(0) if heads == "mean" else expected)


def test_a_text_mask_is_obeyed(unet):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    latent, timestep, text = one_input()
    with torch.no_grad():
        stock = unet(latent, timestep, text, encoder_attention_mask=mask).sample
        with record_attention(unet, "cross") as layers:
            recorded = unet(latent, timestep, text, encoder_attention_mask=mask).sample
    assert torch.equal(recorded, stock)
    assert all(layer.probs[:, 3:].max() < 1e-6 for layer in layers)


@pytest.mark.parametrize("slices", ["max", 1])
def test_sliced_attention_is_exchanged_for_the_pass(slices):
    unet = tiny_unet()
    unet.set_attention_slice(slices)
    before = dict(unet.attn_processors)
    stock = run(unet, *one_input())
    with record_attention(unet, ("self", "cross")) as layers:
        recorded = run(unet, *one_input())
    torch.testing.assert_close(recorded, stock, rtol=1e-4, atol=1e-5)
    assert len(layers) == 12
    assert all(isinstance(processor, SlicedAttnProcessor) for processor in unet.attn_processors.values())
    assert all(unet.attn_processors[name] is before[name] for name in before)


def test_fused_projections_are_recorded(unet):
    with record_attention(unet, ("self", "cross")) as expected:
        run(unet, *one_input())
    fused = tiny_unet()
    fused.fuse_qkv_projections()
    stock = run(fused, *one_input())
    with record_attention(fused, ("self", "cross")) as layers:
        recorded = run(fused, *one_input())
    assert torch.equal(recorded, stock)
    for mine, other in zip(layers, expected, strict=True):
        torch.testing.assert_close(mine.probs, other.probs, rtol=1e-4, atol=1e-6)


def test_a_processor_that_cannot_be_recorded_is_named_with_a_remedy_that_works(unet):
    class Own:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
            return hidden_states

    old = dict(unet.attn_processors)
    unet.set_attn_processor(Own())
    try:
        with pytest.raises(ValueError, match="uses Own.*set_attn_processor"), record_attention(unet):
            run(unet, *one_input())
        unet.set_attn_processor(AttnProcessor2_0())
        with record_attention(unet) as layers:
            run(unet, *one_input())
        assert len(layers) == 6
    finally:
        unet.set_attn_processor(old)


def _hooks(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def test_everything_is_put_back(unet):
    unet.set_attn_processor(AttnProcessor())
    before, backend = dict(unet.attn_processors), _AttentionBackendRegistry._active_backend
    with record_attention(unet):
        assert all(unet.attn_processors[name] is not before[name] for name in before)
    assert all(unet.attn_processors[name] is before[name] for name in before)
    with pytest.raises(KeyError), record_attention(unet):
        raise KeyError
    assert all(unet.attn_processors[name] is before[name] for name in before)
    unet.set_attn_processor(AttnProcessor2_0())
    assert _hooks(unet) == [] and _AttentionBackendRegistry._active_backend == backend
    run(unet, torch.zeros(2, 4, 8, 16), 0, torch.zeros(2, TOKENS, TEXT_WIDTH))


def test_an_exception_within_a_pass_leaves_nothing_behind(unet):
    def fail(*_):
        raise KeyError

    block = unet.mid_block.attentions[0].transformer_blocks[0]
    handle = block.attn1.to_q.register_forward_hook(fail)
    with record_attention(unet) as layers:
        with pytest.raises(KeyError):
            run(unet, *one_input())
        handle.remove()
        assert len(layers) == 2  # those on the way down
        run(unet, *one_input())  # the recording goes on
        assert len(layers) == 2 + 6
    assert _hooks(unet) == []


def test_two_passes_extend_the_list(unet):
    with record_attention(unet) as layers:
        run(unet, *one_input())
        run(unet, *one_input(side=8))
    assert [layer.size for layer in layers] == [16, 16, 8, 16, 16, 16, 8, 8, 4, 8, 8, 8]


def test_latents_of_any_shape(unet):
    latent = torch.randn(1, 4, 8, 20)
    stock = run(unet, latent, 300, one_input()[2])
    with record_attention(unet, ("self", "cross")) as layers:
        assert torch.equal(run(unet, latent, 300, one_input()[2]), stock)
    assert [layer.size for layer in layers if layer.kind == "self"] == [(8, 20), (8, 20), (4, 10), *[(8, 20)] * 3]
    assert layers[0].probs.shape == (160, 160) and layers[1].probs.shape == (160, TOKENS)
    assert "8x20" in repr(layers[0])


def test_a_long_latent_is_not_taken_for_a_square(unet):
    with record_attention(unet) as layers:
        run(unet, torch.randn(1, 4, 32, 8), 300, one_input()[2])
    assert layers[0].size == (32, 8)


@pytest.mark.parametrize("heads", ["mean", "all"])
def test_a_batch_is_recorded_picture_by_picture(unet, heads):
    latent, timestep, text = one_input()
    latents, texts = torch.cat([latent, latent.flip(-1)]), torch.cat([text, text.flip(1)])
    stock = run(unet, latents, timestep, texts)
    with record_attention(unet, ("self", "cross"), heads) as both:
        assert torch.equal(run(unet, latents, timestep, texts), stock)
    with record_attention(unet, ("self", "cross"), heads) as second:
        run(unet, latents[1:], timestep, texts[1:])
    for layer, alone in zip(both, second, strict=True):
        assert layer.probs.shape == (2, *alone.probs.shape)
        torch.testing.assert_close(layer.picture(1).probs, alone.probs, rtol=1e-4, atol=1e-6)


def test_recordings_nest(unet):
    with record_attention(unet) as outer:
        run(unet, *one_input())
        with record_attention(unet, "cross") as inner:
            run(unet, *one_input())
    assert [layer.kind for layer in outer] == ["self"] * 12 and [layer.kind for layer in inner] == ["cross"] * 6
    assert torch.equal(outer[0].probs, outer[6].probs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("temporal",)}, "kinds="),
        ({"kinds": ()}, "kinds="),
        ({"heads": "first"}, "heads='first' must be one of"),
    ],
)
def test_unknown_options(unet, options, message):
    with pytest.raises(ValueError, match=message), record_attention(unet, **options):
        pass


def test_a_model_without_attention():
    with pytest.raises(TypeError, match="model is a Linear without attention layers"):
        with record_attention(torch.nn.Linear(1, 1)):
            pass


def test_an_autoencoder_is_recorded_too():
    """Attention with group norm, residual and images for tokens: the mid block of a VAE."""
    encoder = tiny_vae().encoder
    inputs = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock = encoder(inputs)
        with record_attention(encoder) as layers:
            assert torch.equal(encoder(inputs), stock)
    assert [layer.size for layer in layers] == [(8, 12)]


# ---- transformers ---------------------------------------------------------------------------------------------------

COUNT = ROWS * COLUMNS

# Model, where picture and text stand, and the layers that see the picture alone.
FAMILIES = {
    "SD3": (tiny_sd3, slice(0, COUNT), slice(COUNT, COUNT + WORDS), ["transformer_blocks.0.attn2"]),
    "FLUX": (tiny_flux, slice(WORDS, WORDS + COUNT), slice(0, WORDS), []),
    "Qwen-Image": (tiny_qwen_image, slice(WORDS, WORDS + COUNT), slice(0, WORDS), []),
    "Z-Image": (tiny_z_image, slice(0, COUNT), slice(32, 32 + WORDS), ["noise_refiner.0.attention"]),
}


def outputs(model, inputs):
    with torch.no_grad():
        sample = model(**inputs).sample
    return torch.stack(list(sample)) if isinstance(sample, (list, tuple)) else sample


def spied_scores(model, inputs, monkeypatch):
    """All heads' probabilities of every attention call of a pass, by the formula: [n, heads, queries, keys] each."""
    seen, stock = [], F.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        scores = query.float() @ key.float().mT / math.sqrt(query.shape[-1]) if scale is None else None
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
            )
        seen.append(scores.softmax(-1))
        return stock(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        outputs(model, inputs)
    return seen


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_joint_attention(family, batch, monkeypatch):
    build, picture, text, alone = FAMILIES[family]
    model, inputs = build(batch)
    stock = outputs(model, inputs)
    with record_attention(model, ("self", "cross"), heads="all") as layers:
        assert torch.equal(outputs(model, inputs), stock)
    selfs = [layer for layer in layers if layer.kind == "self"]
    crosses = {layer.name: layer for layer in layers if layer.kind == "cross"}
    joint = [layer for layer in selfs if layer.name not in alone]
    assert [layer.name for layer in selfs if layer.name in alone] == alone
    assert [layer.name for layer in joint] == list(crosses)
    total = max(scores.shape[-1] for scores in spied_scores(model, inputs, monkeypatch))
    scores = [each for each in spied_scores(model, inputs, monkeypatch) if each.shape[-1] == total]
    for layer, every in zip(joint, scores, strict=True):
        every = every[0] if batch == 1 else every  # [heads, queries, keys]
        among, to_text = every[..., picture, picture], every[..., picture, text]
        assert layer.grid == (ROWS, COLUMNS)
        torch.testing.assert_close(layer.probs, among / among.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(layer.text_share, to_text.sum(-1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            crosses[layer.name].probs, to_text / to_text.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6
        )
    for layer in layers:
        torch.testing.assert_close(layer.probs.sum(-1), torch.ones_like(layer.probs[..., 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_joint_attention_in_half_precision(family, dtype):
    model, inputs = FAMILIES[family][0]()
    half = {
        key: [each.to(dtype) for each in value]
        if isinstance(value, list) and torch.is_tensor(value[0])
        else value.to(dtype)
        if torch.is_tensor(value) and value.is_floating_point() and not key.endswith("ids")
        else value
        for key, value in inputs.items()
    }
    model = model.to(dtype)
    stock = outputs(model, half)
    with record_attention(model) as layers:
        assert torch.equal(outputs(model, half), stock)
    assert layers and all(layer.probs.dtype == torch.float32 for layer in layers)


def test_a_transformer_with_layers_for_the_text():
    model, inputs = tiny_pixart()
    stock = outputs(model, inputs)
    with record_attention(model, ("self", "cross")) as layers:
        assert torch.equal(outputs(model, inputs), stock)
    assert [layer.kind for layer in layers] == ["self", "cross"] * 2
    assert all(layer.grid == (ROWS, COLUMNS) for layer in layers)
    assert layers[1].probs.shape == (COUNT, WORDS)


def test_backends_that_return_no_probabilities_are_exchanged_for_the_pass():
    model, inputs = tiny_flux()
    stock = outputs(model, inputs)
    processor = model.transformer_blocks[0].attn.processor
    processor._attention_backend = AttentionBackendName.FLASH  # as set_attention_backend("flash") leaves it
    with record_attention(model) as layers:
        assert torch.equal(outputs(model, inputs), stock)
    assert len(layers) == 2 and processor._attention_backend == AttentionBackendName.FLASH


def test_several_pictures_in_one_sequence_are_refused():
    model, inputs = tiny_flux()
    inputs["img_ids"][-1, 1] = ROWS  # a token outside of the grid
    with pytest.raises(ValueError, match="one picture in the sequence"), record_attention(model):
        outputs(model, inputs)
