"""Notebook 06: words that are typed become labels of the masks, and each has its heat map."""

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffseg.colours import Palette, brightest, word_colours
from diffseg.output import DiffSegOutput
from diffseg.pipeline import DiffSegPipeline
from diffseg.semantics import merge_by_word, noun_maps
from diffseg.widgets.canvas import Canvas
from diffseg.widgets.lessons.shared import (
    Panel,
    Sheet,
    areas_of,
    column,
    deepest,
    photograph,
    picture_of,
    row,
    shade,
    times_even,
)
from diffseg.widgets.paint import encode, tint

_FONT = 1 / 24  # height of the letters, of the picture's shorter side
_FINE = 120  # pixels along the shorter side of a drawn heat map


@dataclass(frozen=True)
class Named:
    """What the words make of the masks.

    Attributes:
        typed: the words, in the order in which they were typed.
        maps: the attention to each, as large as the picture; each sums to 1.
        labels: masks of one word are one.
        words: words[id] names mask id.
        confidence: of each mask, from 1 / len(typed), chance, to 1.
    """

    typed: list[str]
    maps: Float[Tensor, "typed height width"]
    labels: Int[Tensor, "height width"]
    words: list[str]
    confidence: list[float]


def split_words(text: str) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def name_masks_with(pipe: DiffSegPipeline, out: DiffSegOutput, words: Sequence[str]) -> Named:
    """One pass with the words as the prompt; each mask gets the word that is looked for most in it (Eq. 7 to 11).

    Raises:
        ValueError: for no words, repeated ones, or more than the model reads.
    """
    image = picture_of(out)
    vocabulary = pipe.vocabulary(image, words)
    layers = pipe.record(image, prompt=vocabulary.prompt, kinds=("cross",), size=min(image.size), crop=out.crop)
    maps = noun_maps(layers, vocabulary.tokens, tuple(out.labels.shape)).cpu()
    labels, _, kept, confidence = merge_by_word(out.labels, out.proposals, maps)
    typed = [noun.word for noun in vocabulary.nouns]
    return Named(typed, maps, labels, [typed[index] for index in kept], confidence.tolist())


def describe_names(named: Named) -> str:
    """Which word got how much, in words."""
    areas = areas_of(named.labels, len(named.words)) / named.labels.numel()
    parts = [
        f"{word} {area:.0%} (confidence {sure:.2f})"
        for word, area, sure in zip(named.words, areas, named.confidence, strict=True)
    ]
    empty = [word for word in named.typed if word not in named.words]
    text = f"{', '.join(parts)}. Chance would be a confidence of {1 / len(named.typed):.2f}."
    return text + (f" No mask for {', '.join(empty)}." if empty else "")


def palette_of(words: Sequence[str], typed: Sequence[str]) -> Palette:
    """The colour of each word: that of its class, or one of its own."""
    colours = word_colours(typed)
    return np.array([[int(colours[word][at : at + 2], 16) / 255 for at in (1, 3, 5)] for word in words])


def draw_names(named: Named) -> UInt8[np.ndarray, "height width 4"]:
    """The masks in the colours of their words, each with its word in its deepest place, to lay over the picture."""
    sheet = Image.fromarray(tint(named.labels, palette_of(named.words, named.typed), opacity=0.5))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(9, round(_FONT * min(sheet.size))))
    for number, word in enumerate(named.words):
        x, y = deepest(named.labels.numpy() == number)
        half = font.getlength(word) / 2 + 4
        x = min(max(x, half), max(sheet.width - half, half))  # within the picture
        draw.text((x, y), word, fill="black", stroke_fill="white", stroke_width=3, font=font, anchor="mm")
    return np.asarray(sheet)


def draw_heat(named: Named) -> tuple[Sheet, UInt8[np.ndarray, "height width 3"]]:
    """The heat map of each word, all on one scale."""
    height, width = named.labels.shape
    step = max(1, min(height, width) // _FINE)
    relative = times_even(named.maps[:, ::step, ::step])
    top = brightest(relative.numpy())
    form = Sheet(len(named.typed), min(3, len(named.typed)), 150, height / width)
    return form, form.draw([shade(one, top) for one in relative], named.typed)


def typed_words(pipe: DiffSegPipeline, out: DiffSegOutput, words: Sequence[str] = ("sky", "grass", "road")) -> Panel:
    """Type words between commas and press Enter: the masks get the words, and each word its heat map.

    Args:
        pipe: the pipeline that made `out`; it runs once for each list of words.
        out: masks of a picture.
        words: to start with.

    Raises:
        ValueError: for an output without its picture, and for words that make no sense.
    """
    picture, sheet = photograph(picture_of(out), 400), Canvas()
    text = ipywidgets.Text(
        value=", ".join(words), description="words", continuous_update=False, placeholder="dog, grass, sky"
    )
    panel = Panel(picture, [row(column(picture, text), sheet)], picture=picture, sheet=sheet, text=text)
    known: dict[tuple[str, ...], Named] = {}  # lists of words that the model has read

    def draw() -> None:
        given = tuple(split_words(text.value))
        if given not in known:
            picture.show_message("The model looks for the words ...")
            known[given] = name_masks_with(pipe, out, given)
            picture.show_message("")
        named = known[given]
        picture.overlay = encode(draw_names(named))
        picture.show_labels(named.labels.numpy(), named.words)
        form, drawn = draw_heat(named)
        with sheet.hold_sync():
            sheet.width, sheet.picture = form.width, encode(drawn)
            sheet.alt = f"Where the model looks for {', '.join(named.typed)}: bright is much."
        panel.say(describe_names(named))

    panel.when(text, do=draw)
    draw()
    return panel
