"""Notebook 12: ideas since the paper, turned together."""

from functools import lru_cache, partial

import ipywidgets
from PIL import Image
from torch import Tensor

from diffseg import POINTS
from diffseg.beyond import walk
from diffseg.merging import anchor_distances
from diffseg.metrics import image_score
from diffseg.pipeline import DiffSegPipeline
from diffseg.plus import Method, draw_by_draw
from diffseg.widgets.lessons.shared import Panel, threshold_slider
from diffseg.widgets.lessons.tuning import Result, ScoredPanel, Truth
from diffseg.wording import count

DRAWS, STEPS, EXPONENTS, ROUNDS = (1, 2, 4), (1, 2, 3), (0.0, 0.25, 0.5, 1.0, 1.5), (0, 5, 10, 20, 40)


def describe_method(
    draws: int, steps: int, exponent: float, rounds: int, threshold: float, own: Result, paper: Result
) -> str:
    """A combination and its scores, then those of the paper's, in words."""
    return (
        f"{count(draws, 'draw')} of noise, {count(steps, 'step')}, sizes to the power {exponent:g}, "
        f"{count(rounds, 'round')} of refinement, threshold {threshold:.2g}: {own}. The paper's: {paper}."
    )


def after_the_paper(pipe: DiffSegPipeline, image: Image.Image, truth: Truth) -> Panel:
    """Turn draws of noise, steps of the walk, sizes and rounds of refinement: the masks and their scores follow.

    Args:
        pipe: with its own threshold.
        image: the picture, as large as its truth.
        truth: the class of each pixel.

    Raises:
        ValueError: for a truth of another size.
    """
    panel, mean_of = ScoredPanel(image, truth), draw_by_draw(partial(pipe.attend, image))

    @lru_cache(maxsize=4)
    def walked(draws: int, steps: int) -> tuple[Tensor, Tensor]:
        panel.picture.show_message("Passes through the model, or steps of the walk ...")
        attention = walk(mean_of(draws).to(pipe.device), steps)
        panel.picture.show_message("")
        return attention, anchor_distances(attention, min(POINTS, *attention.shape[:2]))

    @lru_cache(maxsize=64)
    def result_of(draws: int, steps: int, exponent: float, rounds: int, threshold: float) -> Result:
        attention, distances = walked(draws, steps)
        out = pipe.segment(
            attention, min(POINTS, *attention.shape[:2]), threshold=threshold, size=tuple(truth.shape), image=image,
            distances=distances, method=Method(exponent=exponent, rounds=rounds),
        )  # fmt: skip
        return Result(out.labels, *image_score(out.labels, truth))

    style = {"description_width": "90px"}
    options = {"draws": DRAWS, "steps": STEPS, "exponent": EXPONENTS, "rounds": ROUNDS}
    controls = {
        name: ipywidgets.SelectionSlider(options=values, description=name, continuous_update=False, style=style)
        for name, values in options.items()
    }
    panel.control(controls | {"tau": threshold_slider(pipe.threshold)}, result_of, describe_method)
    return panel
