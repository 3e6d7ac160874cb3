"""Notebook 08: the four numbers of DiffSeg, with the scores beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets
import numpy as np
from jaxtyping import Float, Integer
from PIL import Image
from torch import Tensor

from diffseg import ITERATIONS, POINTS, TIMESTEP
from diffseg.colours import class_colours, colours, match_colours
from diffseg.masks import relabel, suppress
from diffseg.merging import anchor_distances, merge_passes
from diffseg.metrics import image_score
from diffseg.pipeline import DiffSegPipeline
from diffseg.widgets.lessons.shared import Panel, column, photograph, row, threshold_slider
from diffseg.widgets.paint import encode, tint
from diffseg.wording import count

TIMESTEPS = (1, 100, 200, 300, 400, 500, 700, 900)
SIDES = (2, 4, 8, 16, 32)
PASSES = (1, 2, 3, 4, 5, 6, 7)
_KEPT = 2  # attentions of other time steps that stay in memory

Truth = Integer[np.ndarray | Tensor, "height width"]


@dataclass(frozen=True)
class Result:
    """The masks of one setting, and their scores from 0 to 1."""

    labels: Integer[Tensor, "height width"]
    accuracy: float
    miou: float

    @property
    def segments(self) -> int:
        """How many."""
        return int(self.labels.max()) + 1

    def __str__(self) -> str:
        return f"{count(self.segments, 'segment')}, accuracy {self.accuracy:.0%}, mIoU {self.miou:.2f}"


def score(proposals: Float[Tensor, "proposals h w"], truth: Truth) -> Result:
    """Let proposals compete for the pixels of a truth."""
    labels = relabel(suppress(proposals, tuple(truth.shape)))[0].cpu()
    return Result(labels, *image_score(labels, truth))


def describe_setting(t: int, points: int, passes: int, threshold: float, result: Result, usual: Result) -> str:
    """A setting and its scores, in words."""
    return f"t = {t}, M = {points}, N = {passes}, threshold {threshold:.2g}: {result}. With the defaults: {usual}."


def bars_of(result: Result, usual: Result) -> str:
    """The scores as bars in HTML; a black line marks those of the defaults."""
    lines = []
    for (name, value, default), colour in zip(
        [("accuracy", result.accuracy, usual.accuracy), ("mIoU", result.miou, usual.miou)], colours(2), strict=True
    ):
        shade = ", ".join(str(round(255 * part)) for part in colour)
        lines.append(
            f'<div style="display: flex; gap: 8px; align-items: center; margin: 3px 0"><span style="width: 5em">{name}'
            '</span><div style="position: relative; flex: 1; height: 18px; background: #eceff1">'
            f'<div style="width: {value:.1%}; height: 100%; background: rgb({shade})"></div>'
            f'<div style="position: absolute; left: {default:.1%}; top: -2px; width: 2px; height: 22px; '
            f'background: #202124" title="defaults: {default:.2f}"></div></div>'
            f'<b style="width: 3em">{value:.2f}</b></div>'
        )
    return f'<div style="width: 300px">{"".join(lines)}<small>The black line: with the defaults.</small></div>'


class ScoredPanel(Panel):
    """A picture with the masks of some setting, its truth, and bars of the scores beside those of the first setting."""

    def __init__(self, image: Image.Image, truth: Truth):
        if tuple(truth.shape) != (image.height, image.width):
            raise ValueError(
                f"truth is {truth.shape[0]}x{truth.shape[1]} and image {image.height}x{image.width} (height x width); "
                "they must be equal. Crop and resize the picture with read_image, the truth with the nearest neighbour."
            )
        self.classes, self._knobs = int(np.asarray(truth).max(initial=0)) + 1, column()
        picture, answer, bars = photograph(image, 350), photograph(image, 200), ipywidgets.HTML()
        known = np.where(np.isin(truth, (255, -1)), -1, truth)
        answer.overlay = encode(tint(known, class_colours(self.classes), opacity=0.7))
        answer.alt = "The truth: each class in its colour."
        self._truth = truth
        super().__init__(picture, [row(picture, self._knobs, answer)], picture=picture, bars=bars, truth=answer)

    def control(
        self,
        controls: Mapping[str, ipywidgets.Widget],
        result_of: Callable[..., Result],
        describe: Callable[..., str],
    ) -> None:
        """Let controls choose the setting; all others are compared with what they say now.

        Args:
            controls: by name, in the order in which `result_of` and `describe` take their values.
            result_of: values -> masks and scores.
            describe: values, result and the first result -> a sentence.
        """
        self._knobs.children = *controls.values(), self.bars
        self.add(**controls)
        usual = result_of(*(widget.value for widget in controls.values()))

        def draw() -> None:
            setting = [widget.value for widget in controls.values()]
            result = result_of(*setting)
            colours_of = match_colours(result.labels, self._truth, self.classes)
            self.picture.overlay = encode(tint(result.labels, colours_of, opacity=0.6))
            self.bars.value = bars_of(result, usual)
            self.say(describe(*setting, result, usual))

        self.when(*controls.values(), do=draw)
        draw()


def hyperparameters(
    pipe: DiffSegPipeline,
    image: Image.Image,
    truth: Truth,
    attentions: Mapping[int, Float[Tensor, "h w h w"]] | None = None,
) -> Panel:
    """Turn time step, anchors, passes and threshold: the masks and their scores follow.

    Another time step takes a pass through the model; the rest is quick.

    Args:
        pipe: with its own threshold.
        image: the picture, as large as its truth.
        truth: the class of each pixel.
        attentions: of the picture at some time steps, as `pipe.attend` returns them, if they are at hand.

    Raises:
        ValueError: for a truth of another size.
    """
    given = dict(attentions or {})
    panel = ScoredPanel(image, truth)

    @lru_cache(maxsize=_KEPT)
    def attend(t: int) -> Tensor:
        if t in given:
            return given[t].to(pipe.device)
        panel.picture.show_message(f"One pass through the model, for t = {t} ...")
        attention = pipe.attend(image, timestep=t).to(pipe.device)
        panel.picture.show_message("")
        return attention

    @lru_cache(maxsize=16)
    def distances(t: int, points: int) -> Tensor:
        return anchor_distances(attend(t), points)

    @lru_cache(maxsize=16)
    def passes_of(t: int, points: int, threshold: float) -> list[Tensor]:
        return merge_passes(attend(t), points, max(PASSES), threshold, distances=distances(t, points))

    @lru_cache(maxsize=64)
    def result_of(t: int, points: int, passes: int, threshold: float) -> Result:
        return score(passes_of(t, points, threshold)[passes - 1], truth)

    side = min(attend(TIMESTEP).shape[:2])
    style = {"description_width": "90px"}
    options = {"continuous_update": False, "style": style}
    t = ipywidgets.SelectionSlider(
        options=[t for t in TIMESTEPS if t < pipe.scheduler.config.num_train_timesteps],
        value=TIMESTEP, description="time step t", **options,
    )  # fmt: skip
    points = ipywidgets.SelectionSlider(
        options=[m for m in SIDES if m <= side], value=min(POINTS, side), description="anchors M", **options
    )
    passes = ipywidgets.SelectionSlider(
        options=PASSES, value=ITERATIONS, description="passes N", style=options["style"]
    )
    controls = {"t": t, "points": points, "passes": passes, "tau": threshold_slider(pipe.threshold)}
    panel.control(controls, result_of, describe_setting)
    return panel
