"""Drawings of a UNet: the boxes are those of the loaded model, and what is drawn is what was recorded."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers_models import tiny_unet
from matplotlib.figure import Figure
from PIL import Image

from diffseg.attention import RecordedLayer
from diffseg.figures.schematic import show_layers, show_unet, units
from diffseg.pocket.training.unet import build_unet


@pytest.fixture(scope="module")
def unet():
    """Stable Diffusion v1's structure."""
    return build_unet()


@pytest.fixture(scope="module")
def small_unet():
    """Two levels, attention on the lower one only, two transformer blocks in a row, no middle."""
    return tiny_unet(
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=2,
    )


def transformers(unet, side=None):
    return [unit for unit in units(unet, side) if unit.kind == "transformer"]


def layer(size=4, stage="down", heads=2, kind="self", brightest=0):
    """Every query attends to one key only, in all heads."""
    probs = torch.zeros(heads, size**2, size**2)
    probs[:, :, brightest] = 1
    return RecordedLayer("a", kind, stage, heads, size, probs)


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


# ---- units ----------------------------------------------------------------------------------------------------------


def test_blocks_of_stable_diffusion(unet):
    found = transformers(unet)
    assert [unit.side for unit in found] == [64, 64, 32, 32, 16, 16, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    assert [unit.stage for unit in found] == ["down"] * 6 + ["mid"] + ["up"] * 9
    assert {f"{unit.name}.attn1" for unit in found} == {n for n, _ in unet.named_modules() if n.endswith("attn1")}
    assert all(unet.get_submodule(f"{unit.name}.attn1").heads == unit.heads for unit in found)


def test_convolutions_are_the_resnets(unet):
    found = [unit.name for unit in units(unet) if unit.kind == "convolution"]
    assert len(found) == len(set(found)) == 22
    assert set(found) == {name for name, module in unet.named_modules() if type(module).__name__ == "ResnetBlock2D"}


def test_other_structure(small_unet):
    found = transformers(small_unet)
    assert [(unit.stage, unit.side) for unit in found] == [("down", 8)] * 2 + [("up", 8)] * 4
    assert found[1].name == "down_blocks.1.attentions.0.transformer_blocks.1"


def test_side_of_another_latent(unet):
    assert [unit.side for unit in transformers(unet, side=32)] == [u.side // 2 for u in transformers(unet)]


@pytest.mark.parametrize("side", [0, -8, 4, 60])
def test_side_that_cannot_be_halved(unet, side):
    with pytest.raises(ValueError, match=f"side={side} must be a positive multiple of 8"):
        units(unet, side)


# ---- show_unet ------------------------------------------------------------------------------------------------------


def test_drawing_numbers_every_transformer(unet):
    figure = show_unet(unet)
    assert isinstance(figure, Figure) and not plt.fignum_exists(figure.number)
    assert {str(number) for number in range(16)} <= set(texts(figure))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["64 × 64\n2 heads", "32 × 32\n4 heads", "16 × 16\n4 heads", "8 × 8\n4 heads"]


def test_drawing_of_another_structure(small_unet):
    assert {"0", "5", "down", "up"} <= set(texts(show_unet(small_unet)))
    assert "mid" not in texts(show_unet(small_unet))


def test_values_colour_the_boxes(unet):
    figure = show_unet(unet, values=range(16), label="rank")
    colours = {patch.get_facecolor() for patch in figure.axes[0].patches}
    assert len(colours) == 17  # 16 and the convolutions' grey
    assert figure.axes[1].get_ylabel() == "rank"
    assert {f"{number}.0" for number in range(16)} <= set(texts(figure))


def test_values_of_another_number(unet):
    with pytest.raises(ValueError, match="values has 3 entries for 16 transformer blocks"):
        show_unet(unet, values=[1, 2, 3])


# ---- show_layers ----------------------------------------------------------------------------------------------------


def test_panels_show_the_map_of_the_pixel():
    layers = [layer(8, "down", brightest=9), layer(4, "mid", brightest=5), layer(8, "up", brightest=60)]
    layers[0].probs[:, 8 * 2 + 6] = torch.eye(64)[33]  # the query of the pixel at row 5, column 13 of 16
    figure = show_layers(layers, Image.new("RGB", (16, 16)), point=(5, 13))
    drawn = {ax.get_title(): ax.images[0].get_array() for ax in figure.axes if ax.images}
    assert list(drawn) == ["0: down 8, ×64", "the pixel that looks", "2: up 8, ×64", "1: mid 4, ×16"]
    assert np.argmax(drawn["0: down 8, ×64"]) == 33
    assert np.argmax(drawn["1: mid 4, ×16"]) == 5


def test_mean_of_heads_is_drawn():
    both = layer(4, heads=2, brightest=3)
    both.probs[1] = torch.eye(16)[7]
    panel = show_layers([both], Image.new("RGB", (8, 8)), (0, 0)).axes[0].images[0].get_array()
    assert panel.flatten()[[3, 7]].tolist() == [8, 8] and panel.sum() == 16


@pytest.mark.parametrize(
    ("layers", "point", "complaint"),
    [
        ([], (0, 0), "layers must hold one or more"),
        ([layer(kind="cross")], (0, 0), "self-attention"),
        ([layer()], (8, 0), r"point=\(8, 0\) is not a row and column of the 8x8 picture"),
        ([layer()], (0, -1), r"point=\(0, -1\)"),
    ],
)
def test_what_cannot_be_drawn(layers, point, complaint):
    with pytest.raises(ValueError, match=complaint):
        show_layers(layers, Image.new("RGB", (8, 8)), point)
