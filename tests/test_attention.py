"""The recorder: same output, right probabilities, old processors back."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from helpers_models import TEXT_WIDTH, TOKENS, tiny_unet, tiny_vae

from diffseg import attention as attention_module
from diffseg.attention import attend_in_blocks, record_attention


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
    monkeypatch.setitem(attention_module._BLOCK, "cpu", block)
    stock = run(unet, *one_input())
    with record_attention(unet, kinds, heads) as layers:
        recorded = run(unet, *one_input())
    assert layers
    torch.testing.assert_close(recorded, stock, rtol=1e-4, atol=1e-5)


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
    torch.testing.assert_close(recorded, stock, rtol=1e-4, atol=1e-5)
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
    torch.testing.assert_close(recorded, stock, rtol=0.05, atol=0.05)
    for layer in layers:
        assert layer.probs.dtype == torch.float32
        assert torch.allclose(layer.probs.sum(-1), torch.ones(layer.size**2), atol=1e-5)


def test_under_autocast(unet):
    with torch.autocast("cpu", torch.bfloat16):
        stock = run(unet, *one_input())
        with record_attention(unet) as layers:
            recorded = run(unet, *one_input())
    torch.testing.assert_close(recorded, stock, rtol=0.05, atol=0.05)
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
    torch.testing.assert_close(recorded, stock, rtol=1e-3, atol=1e-4)


def test_never_all_heads_at_once(monkeypatch):
    """With heads="mean", no score block spans more than one head or the block's size."""
    shapes, softmax = [], torch.Tensor.softmax
    monkeypatch.setitem(attention_module._BLOCK, "cpu", 100)
    monkeypatch.setattr(torch.Tensor, "softmax", lambda t, *a, **k: (shapes.append(t.shape), softmax(t, *a, **k))[1])
    query, key, value = torch.randn(3, 5, 16, 4)
    attend_in_blocks(query, key, value)
    assert {len(shape) for shape in shapes} == {2}
    assert max(shape.numel() for shape in shapes) <= 100


@pytest.mark.parametrize("heads", ["mean", "all"])
@pytest.mark.parametrize("bias_rows", [1, 9])
def test_a_bias_masks_keys(heads, bias_rows, monkeypatch):
    monkeypatch.setitem(attention_module._BLOCK, "cpu", 12)
    query, key, value = torch.randn(3, 2, 9, 4)
    bias = torch.zeros(2, bias_rows, 9)
    bias[:, :, 5:] = float("-inf")
    output, probs = attend_in_blocks(query, key, value, bias, heads)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
    torch.testing.assert_close(output, expected)
    assert (probs[..., 5:] == 0).all()


def test_a_text_mask_is_obeyed(unet):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    latent, timestep, text = one_input()
    with torch.no_grad():
        stock = unet(latent, timestep, text, encoder_attention_mask=mask).sample
        with record_attention(unet, "cross") as layers:
            recorded = unet(latent, timestep, text, encoder_attention_mask=mask).sample
    torch.testing.assert_close(recorded, stock, rtol=1e-4, atol=1e-5)
    assert all(layer.probs[:, 3:].max() < 1e-6 for layer in layers)


def test_processors_come_back(unet):
    before = dict(unet.attn_processors)
    with record_attention(unet):
        assert all(unet.attn_processors[name] is not before[name] for name in before)
    assert all(unet.attn_processors[name] is before[name] for name in before)


def test_processors_come_back_after_an_exception(unet):
    before = dict(unet.attn_processors)
    with pytest.raises(KeyError), record_attention(unet):
        raise KeyError
    assert all(unet.attn_processors[name] is before[name] for name in before)
    run(unet, torch.zeros(2, 4, 8, 16), 0, torch.zeros(2, TOKENS, TEXT_WIDTH))  # no check is left


def test_two_passes_extend_the_list(unet):
    with record_attention(unet) as layers:
        run(unet, *one_input())
        run(unet, *one_input(side=8))
    assert [layer.size for layer in layers] == [16, 16, 8, 16, 16, 16, 8, 8, 4, 8, 8, 8]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 16, 16), "batch of 2; record one image at a time"),
        ((1, 4, 16, 8), "sample is 16x8; recorded latents must be square"),
        ((1, 4, 32, 8), "sample is 32x8"),  # 256 positions: a square number, not a square
    ],
)
def test_passes_that_cannot_be_recorded(unet, shape, message):
    with pytest.raises(ValueError, match=message), record_attention(unet):
        run(unet, torch.zeros(shape), 300, torch.zeros(shape[0], TOKENS, TEXT_WIDTH))
    with pytest.raises(ValueError, match=message), record_attention(unet), torch.no_grad():
        unet(
            sample=torch.zeros(shape),
            timestep=300,
            encoder_hidden_states=torch.zeros(shape[0], TOKENS, TEXT_WIDTH),
        )


def test_recordings_do_not_nest(unet):
    with (
        pytest.raises(ValueError, match="leave any other recording first"),
        record_attention(unet),
        record_attention(unet),
    ):
        run(unet, *one_input())


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


def test_a_model_without_processors():
    with pytest.raises(TypeError, match="Linear, which has no attention processors"):
        with record_attention(torch.nn.Linear(1, 1)):
            pass


def test_an_autoencoder_is_recorded_too():
    """Attention with group norm, residual and images for tokens: the mid block of a VAE."""
    encoder = tiny_vae().encoder
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    attn = encoder.mid_block.attentions[0]
    layers = []
    with torch.no_grad():
        stock = encoder(inputs)
        attn.set_processor(attention_module._Recorder("mid_block.0", attn.processor, ("self",), "all", layers))
        torch.testing.assert_close(encoder(inputs), stock, rtol=1e-4, atol=1e-5)
    assert layers[0].size == 8
