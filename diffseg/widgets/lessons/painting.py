"""Notebook A1: a caption becomes a painting, which is segmented and gets the caption's nouns as names."""

from collections.abc import Callable
from typing import Any

import ipywidgets
import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffseg.output import DiffSegOutput
from diffseg.pipeline import DiffSegPipeline
from diffseg.semantics import find_nouns
from diffseg.widgets.lessons.naming import Named, describe_names, draw_names, name_masks_with
from diffseg.widgets.lessons.shared import Panel, column, photograph, picture_of, row
from diffseg.widgets.paint import encode

#: Passes through the model for a painting, and how many lie between two looks at it.
STEPS, BETWEEN = 15, 3

#: How strongly a painting follows its caption: what is tried, and the first one.
STRENGTHS, STRENGTH = (1.0, 2.0, 4.0, 6.0, 8.0), 4.0


def words_of(caption: str) -> list[str]:
    """The nouns of a caption.

    Raises:
        ValueError: for a caption without one.
    """
    words = [noun.word for noun in find_nouns(caption)]
    if not words:
        raise ValueError(f"caption={caption!r} has no noun; name what is to be seen, as in 'A dog on the grass'.")
    return words


def paint(
    painter: StableDiffusionPipeline,
    caption: str,
    strength: float = STRENGTH,
    seed: int = 0,
    steps: int = STEPS,
    size: int | None = None,
    show: Callable[[int, Image.Image], None] | None = None,
) -> Image.Image:
    """One painting of a caption.

    Args:
        painter: Stable Diffusion, or a miniature.
        caption: the prompt.
        strength: of the prompt, the guidance scale.
        seed: of the noise.
        steps: passes through the model, or pairs of passes for a strength above 1.
        size: side, pixels; None: what the model was made for.
        show: called with the number of steps done and the painting so far, noise and all, after each `BETWEEN` steps
            but the last.
    """

    def look(pipeline: StableDiffusionPipeline, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        done = step + 1
        if show is not None and done < steps and done % BETWEEN == 0:
            show(done, _decoded(pipeline, state["latents"]))
        return state

    return painter(
        caption, height=size, width=size, guidance_scale=strength, num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed), callback_on_step_end=look,
    ).images[0]  # fmt: skip


def describe_painting(caption: str, strength: float, seed: int, named: Named) -> str:
    """What was painted and what is seen in it, in words."""
    return f"“{caption}”, guidance {strength:g}, seed {seed}. In the painting: {describe_names(named)}"


def painted_caption(
    painter: StableDiffusionPipeline, pipe: DiffSegPipeline, out: DiffSegOutput, caption: str, steps: int = STEPS
) -> Panel:
    """Type a caption and press the button: a painting appears, is segmented, and its masks get the caption's nouns.

    Args:
        painter: paints.
        pipe: segments.
        out: masks of a painting, to begin with.
        caption: of that painting.
        steps: passes through the model for a painting.

    Raises:
        ValueError: for an output without its picture, or a caption without a noun.
    """
    painting, masks = photograph(picture_of(out), 360), photograph(picture_of(out), 360)
    text = ipywidgets.Text(value=caption, description="caption", placeholder="A dog on the grass before a forest")
    strength = ipywidgets.SelectionSlider(options=STRENGTHS, value=STRENGTH, description="guidance")
    seed = ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed")
    button = ipywidgets.Button(description="paint")
    controls = column(text, strength, seed, button)
    panel = Panel(
        painting, [row(column(painting, controls), masks)],
        painting=painting, masks=masks, text=text, strength=strength, seed=seed, button=button,
    )  # fmt: skip

    def show(done: int, picture: Image.Image) -> None:
        painting.picture = encode(picture, lossy=True)
        painting.show_message(f"step {done} of {steps} ...")

    def finish(out: DiffSegOutput) -> None:
        named = name_masks_with(pipe, out, words_of(text.value))
        with masks.hold_sync():
            masks.picture = encode(picture_of(out), lossy=True)
            masks.overlay = encode(draw_names(named))
            masks.show_labels(named.labels.numpy(), named.words)
            masks.alt = f"The masks of the painting: {', '.join(named.words)}."
        panel.say(describe_painting(text.value, strength.value, seed.value, named))

    def press() -> None:
        words_of(text.value)  # before the work begins
        painting.show_message("The model paints ...")
        picture = paint(painter, text.value, strength.value, seed.value, steps, show=show)
        painting.picture = encode(picture, lossy=True)
        painting.show_message("The painting is segmented ...")
        finish(pipe(picture))
        painting.show_message("")

    panel.press(button, press)
    finish(out)
    return panel


def _decoded(painter: StableDiffusionPipeline, latents: Float[Tensor, "1 c h w"]) -> Image.Image:
    with torch.no_grad():
        pixels = painter.vae.decode(latents / painter.vae.config.scaling_factor).sample
    return painter.image_processor.postprocess(pixels)[0]
